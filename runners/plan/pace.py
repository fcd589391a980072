"""Speed of this machine against the machines of the shipped records, by the time of a plain training step.

A shipped time was measured on another processor, possibly a busy one. The records of `finetune` hold the time of a
plain training step there; the same step, timed here, gives the factor for the times of all methods.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks import catalogue
from benchmarks.types import UserError
from methods.networks import targets
from methods.shared.optimizers import adam
from runners.plan.estimate import Rates, Weight
from runners.records.record import Record, Status

PLAIN = "finetune"
"""The method whose step is that of a plain training loop."""
ROUNDS, STEPS, SAMPLES = 4, 15, 512


@dataclass(frozen=True)
class Step:
    """A plain training step: network, shape of an input, logits, samples."""

    network: str
    input_shape: tuple[int, ...]
    n_outputs: int
    batch_size: int


SMALL, LARGE = Step("mlp-100-100", (1, 8, 8), 2, 32), Step("mlp-400-400", (1, 28, 28), 2, 128)


@dataclass(frozen=True)
class Pace:
    """Times of a plain step on another machine and here, in seconds, on one benchmark."""

    machine: str
    benchmark: str
    there: float
    here: float

    @property
    def factor(self) -> float:
        return self.here / self.there


def weights(measure: Callable[[Step], float]) -> Weight:
    """Relative time of a step by benchmark, network and batch size: a constant part, and one in proportion to the work.

    Both parts are those of two networks timed here, when they are first needed. Convolutions take a little longer than
    that; a network that cannot be built weighs as much as the small one.
    """

    @cache
    def parts() -> tuple[float, float]:
        (low, quick), (high, slow) = ((_work(step), measure(step)) for step in (SMALL, LARGE))
        per_work = max(0.0, slow - quick) / (high - low)
        return max(quick - per_work * low, quick / 10), per_work

    @cache
    def weight(benchmark: str, network: str, batch_size: int) -> float:
        constant, per_work = parts()
        try:
            step = _step_on(benchmark, network, batch_size)
            return constant + per_work * _work(step)
        except (Exception, SystemExit):  # a benchmark or a network of an absent package, also in records
            return constant + per_work * _work(SMALL)

    return weight


@cache
def _work(step: Step) -> float:
    """Multiplications and additions of a forward pass of a batch, in linear layers and convolutions.

    PyTorch's FlopCounterMode has the same count. But it imports torch._dynamo, as a pass on the meta device does, which
    takes longer than a plan. The weights stay as memory has them.
    """
    network = targets.on_meta(step.network, step.input_shape, step.n_outputs).to_empty(device="cpu").eval()
    done: list[float] = []

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        maps = len(layer.weight)  # type: ignore[arg-type]
        done.append(2 * layer.weight.numel() * output.numel() / maps)  # type: ignore[operator, union-attr]

    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, *step.input_shape))
    return sum(done) * step.batch_size


class Paces:
    """Paces of the machines that `records` come from; each is measured when it is first needed.

    measure: seconds of a step here; see `seconds`.
    """

    def __init__(self, records: Iterable[Record], measure: Callable[[Step], float]) -> None:
        self.there: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.steps: dict[tuple[str, str], Step] = {}
        self.measure = measure
        for record in records:
            step = _step(record)
            if step is not None:
                place = machine(record), record.benchmark
                self.steps[place] = step
                per_step = sum(record.seconds["train"]) / (record.n_tasks * (record.budget.steps or 1))
                self.there[place].append(per_step)

    def of(self, name: str, benchmark: str) -> Pace | None:
        """Pace of a machine on a benchmark, or on another one that its records have; None without a plain record."""
        places = [place for place in self.steps if place[0] == name]
        place = (name, benchmark) if (name, benchmark) in places else next(iter(places), None)
        if place is None:
            return None
        return Pace(*place, median(self.there[place]), self.measure(self.steps[place]))


def machine(record: Record) -> str:
    """Name of the device that a record's clocks belong to."""
    return str(record.environment.get("device_name") or "an unknown machine")


def rates(records: Iterable[Record], paces: Paces, weight: Weight | None = None) -> tuple[Rates, list[Pace]]:
    """Rates of finished records as they would be here, and the paces used."""
    found, used = Rates(weight), {}
    for record in records:
        if record.status is not Status.DONE:
            continue
        pace = paces.of(machine(record), record.benchmark)
        if pace is None:
            continue
        used[pace] = None
        train, evaluate = (pace.factor * sum(record.seconds[name]) for name in ("train", "evaluate"))
        names = record.method, record.benchmark, record.network, str(record.scenario)
        found.note(names, record.budget, record.n_tasks, train, evaluate)
    return found, list(used)


def seconds(step: Step, device: str, threads: int) -> float:
    """Seconds of a plain step of Adam on random samples, the fastest of a few rounds; torch's settings are restored."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    place = torch.device(device)
    try:
        with torch.random.fork_rng(devices=[]):
            network = targets.build(step.network, step.input_shape, step.n_outputs).to(place)
            x = torch.rand(SAMPLES, *step.input_shape, device=place)
            y = torch.randint(step.n_outputs, (SAMPLES,), device=place)
            optimizer = adam(network.parameters(), lr=1e-4)
            return min(_round(network, optimizer, x, y, step.batch_size, place) for _ in range(ROUNDS))
    finally:
        torch.set_num_threads(before)


def _round(
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    x: torch.Tensor,
    y: torch.Tensor,
    batch_size: int,
    device: torch.device,
) -> float:
    begun = time.perf_counter()
    for _ in range(STEPS):
        rows = torch.randint(len(x), (batch_size,), device=device)
        optimizer.zero_grad()
        cross_entropy(network(x[rows]), y[rows]).backward()
        optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - begun) / STEPS


def _step(record: Record) -> Step | None:
    """The plain step of a record; None for another method, a budget in epochs, and networks that take long to time."""
    plain = record.method == PLAIN and record.status is Status.DONE
    if not plain or record.budget.steps is None or not record.network.startswith("mlp"):
        return None
    try:
        return _step_on(record.benchmark, record.network, record.budget.batch_size)
    except UserError:
        return None


def _step_on(benchmark: str, network: str, batch_size: int) -> Step:
    found = catalogue.find(benchmark)
    spec = found.spec(found.scenarios[0], network)  # the number of logits hardly counts
    return Step(network, spec.input_shape, spec.n_outputs, batch_size)
