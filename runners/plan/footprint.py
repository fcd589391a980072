"""Estimate of a cell's device memory before it runs; a cell that cannot fit is refused with the numbers.

A cell that its method or its network refuses is refused with their sentence.

The method is built on torch's `meta` device, which knows shapes and allocates nothing. Counted are its state, what it
declares of optimisers, copies and passes (`Method.needs`), the activations of one training batch and of one evaluation
batch, and a fixed share for torch itself. An estimate of the least that the cell needs: where
there is room, evaluation takes larger batches, so the peak on record can be several times as much (ResNet-8 on a CPU:
two to four times).
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import catalogue
from benchmarks.types import UserError, ValidatedBudget
from methods import registry
from methods.base import Needs
from methods.networks import targets
from methods.shared import parts
from methods.shared.state import StateError
from runners.grid import hyperparameters
from runners.grid.cells import Cell
from runners.process import known_state
from runners.process.dispatch import uncompiled

FLOAT = 4
"""Bytes of a float32."""
RUNTIME = 600e6
"""torch's own libraries, or a CUDA context, bytes."""
EVALUATION_BATCH = 250
"""Samples evaluated at once: the driver takes smaller batches where the usual 2000 do not fit."""
LARGE = 250_000_000
"""Weights of a network that is not made to look at its activations: it might not fit."""


@dataclass(frozen=True)
class Footprint:
    """Bytes on the device, by use."""

    state: float
    """Weights and whatever else the method holds from the start."""
    training: float
    """Gradients, Adam's moments, and the copy that model selection or the budget's schedule keeps."""
    tasks: float
    """Kept for all tasks of the stream, at its end."""
    activations: float
    """Of a training or an evaluation batch, whichever is more."""

    @property
    def total(self) -> float:
        return self.state + self.training + self.tasks + self.activations + RUNTIME

    def __str__(self) -> str:
        parts = ("state", "training", "tasks", "activations")
        shown = ", ".join(f"{name} {in_words(getattr(self, name))}" for name in parts)
        return f"{in_words(self.total)} ({shown}, runtime {in_words(RUNTIME)})"


def of_cell(cell: Cell) -> Footprint | None:
    """The estimate, or None for a method that refuses the cell or cannot be built without memory. Reads no data."""
    return of_cells([cell])[cell.key]


def of_cells(cells: Iterable[Cell]) -> dict[str, Footprint | None]:
    """Estimates by key; see `of_cell`."""
    return {key: None if isinstance(one, str) else one for key, one in _looked_at(cells).items()}


def _looked_at(cells: Iterable[Cell]) -> dict[str, Footprint | str | None]:
    """Estimates by key, or the sentences of refusal."""
    methods: dict[str, dict[str, Cell]] = defaultdict(dict)
    for cell in cells:
        methods[cell.reference][cell.key] = cell
    found: dict[str, Footprint | str | None] = {}
    for some in methods.values():
        # Comparing the process before and after takes longer than an estimate: once a method, not once a cell.
        with known_state.unchanged(), _same_generator(), uncompiled():
            found |= {key: _of_cell(cell) for key, cell in some.items()}
    return found


def _of_cell(cell: Cell) -> Footprint | str | None:
    return _estimate(
        cell.reference, cell.method, json.dumps(cell.config), cell.benchmark_reference, cell.scenario, cell.network,
        cell.budget.batch_size, isinstance(cell.budget, ValidatedBudget), cell.source, _code_of(cell),
    )  # fmt: skip


def _code_of(cell: Cell) -> str:
    """What the user can edit while the process runs, in addition to the method: the benchmark, and other code."""
    return json.dumps([cell.definition, cell.parts], sort_keys=True)


def refusals(
    cells: Iterable[Cell], device: str, estimates: Mapping[str, Footprint | None] | None = None
) -> dict[str, str]:
    """Key -> sentence for each cell that needs more than the device has, or that its method or network refuses.

    estimates: those of `of_cells`, if known.
    """
    capacity, cells = capacity_of(device), list(cells)
    known = of_cells(cells) if estimates is None else estimates
    unknown = _looked_at(cell for cell in cells if known[cell.key] is None)
    found = {}
    for cell in cells:
        needed = known[cell.key] or unknown[cell.key]
        if isinstance(needed, str):
            found[cell.key] = f"{cell.method} with {cell.network} on {cell.benchmark}: {needed}"
        elif needed is not None and needed.total > capacity:
            chunked = cell.config.get("chunk") == 0
            hint = f"; a chunked hypernetwork needs less, for example --set {cell.label}.chunk=50000" if chunked else ""
            found[cell.key] = (
                f"{cell.method} with {cell.network} on {cell.benchmark} needs about {needed}, "
                f"but {device} has {in_words(capacity)}{hint}"
            )
    return found


def capacity_of(device: str) -> float:
    """Memory of the device in bytes; infinite for a GPU of another machine, whose memory is unknown here."""
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            return float("inf")
        return float(torch.cuda.get_device_properties(device).total_memory)
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def in_words(n_bytes: float) -> str:
    """`12 MB`, `3.4 GB`."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


@lru_cache(maxsize=256)
def _loaded(reference: str, _source: str) -> Any:
    """Class of a method, loaded anew for each hash of its code."""
    return registry.load(reference)


@lru_cache(maxsize=4096)
def _estimate(
    reference: str, name: str, config_text: str, benchmark_name: str, scenario: str, network: str, batch_size: int,
    keeps_best: bool, source: str, _code: str,
) -> Footprint | str | None:  # fmt: skip
    """The estimate, or the sentence of a method or network that refuses; None where there is neither."""
    try:
        benchmark = catalogue.find(benchmark_name)
        if scenario in benchmark.undefined:
            return None
        cls: Any = _loaded(reference, source)
        config = hyperparameters.configure(name, cls.Config, json.loads(config_text))
        spec = benchmark.spec(scenario, network)
        if cls.skip(spec, config):
            return None
        with torch.device("meta"):
            method = cls(spec, config, "meta", 0)
            state, n_trained = FLOAT * _held(method), method.parameters_trained()
        sizes = _activations(network, spec.input_shape)
        n_weights = _n_weights(network, spec.input_shape, spec.n_outputs)
        needs = cls.needs(spec, config)
        return Footprint(
            state=state,
            training=FLOAT * ((needs.per_trained + keeps_best) * n_trained + needs.generated * n_weights),
            tasks=FLOAT * (needs.per_task * n_weights + needs.floats_per_task) * spec.n_tasks,
            activations=FLOAT * _at_once(needs, sizes, batch_size),
        )
    except UserError as error:
        return str(error)
    except (Exception, SystemExit):  # a method from elsewhere that looks at values, or at its device
        return None


def _held(method: Any) -> int:
    """Scalars that a method holds, also where no checkpoint can keep all of its state."""
    try:
        return sum(tensor.numel() for tensor in _tensors(method.state_dict()))
    except StateError:
        found = {id(tensor): tensor for tensor in parts.anchors(method).values()}
        for path, value in parts.attributes(method).items():
            found |= {id(part): part for _, part in parts.walk(path, value) if isinstance(part, Tensor)}
        return sum(tensor.numel() for tensor in found.values())


def _at_once(needs: Needs, sizes: list[int], batch_size: int) -> float:
    """Floats of activations: all of a training batch, twice for their gradients; the largest of an evaluation batch."""
    training = 2 * needs.passes * batch_size * sum(sizes)
    return max(training, 3 * needs.passes_evaluated * EVALUATION_BATCH * max(sizes))


@lru_cache(maxsize=256)
def _n_weights(name: str, input_shape: tuple[int, ...], n_outputs: int) -> int:
    return sum(p.numel() for p in targets.on_meta(name, input_shape, n_outputs).parameters())


@lru_cache(maxsize=64)
def _activations(name: str, input_shape: tuple[int, ...]) -> list[int]:
    """Outputs of every layer for one input, in floats; by a real pass, which starts faster than one on `meta`."""
    sizes: list[int] = []
    place = "meta" if _n_weights(name, input_shape, 10) > LARGE else "cpu"
    with _same_generator(), torch.device(place):
        network = targets.build(name, input_shape, 10)

    def record(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            sizes.append(output[0].numel())

    handles = [module.register_forward_hook(record) for module in network.modules() if not list(module.children())]
    with torch.no_grad():
        network.eval()(torch.zeros(1, *input_shape, device=place))
    for handle in handles:
        handle.remove()
    return sizes or [1]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


@contextmanager
def _same_generator() -> Iterator[None]:
    """Context that restores torch's generator."""
    before = torch.random.get_rng_state()
    try:
        yield
    finally:
        torch.random.set_rng_state(before)
