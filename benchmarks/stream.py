"""Stream of tasks of a benchmark, a scenario and a seed: lazy views of one data set."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property, partial
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import door, held_out, orders
from benchmarks.augmentation import FlipCrop
from benchmarks.data import DataSet, load
from benchmarks.definition import Augmentation, Benchmark, ClassOrder, Kind
from benchmarks.held_out import Parts, Rows
from benchmarks.numbers import check_budget
from benchmarks.samples import Samples, Transform
from benchmarks.transforms import Normalise, Permute, Rotate, random_order
from benchmarks.types import CIL, Budget, Scenario, StreamSpec, Task, UserError, derived_seed


class Stream:
    """Lazily made tasks of one benchmark, scenario and seed.

    Tasks with samples of their own have copies of these, and lead to no others; tasks of a permuted or rotated
    benchmark, which have the same images, share the data set's tensors.

    Everything random comes from the seed by named hashes, so that the same benchmark, scenario and
    seed give the same stream on any machine, and to every method.
    """

    def __init__(
        self, benchmark: Benchmark, spec: StreamSpec, seed: int, data: DataSet, budget: Budget | None = None
    ) -> None:
        self.benchmark, self.seed, self.data = benchmark, seed, data
        self.budget = budget or benchmark.budget
        door.check(benchmark, data)
        self.spec = self._with_sign(spec)
        _ = self._parts  # what cannot be divided is said now, not when the last task is opened

    def __len__(self) -> int:
        return self.spec.n_tasks

    @property
    def task_names(self) -> list[str]:
        """Distinguishing feature of each task: its original classes, its permutation's number or its angle."""
        if self.benchmark.kind is Kind.SPLIT:
            return [" ".join(map(str, classes)) for classes in self.classes]
        if self.benchmark.kind is Kind.GIVEN:
            names = list(self.data.task_names[: len(self)])
            return names if len(names) == len(self) else [f"task {j + 1}" for j in range(len(self))]
        if self.benchmark.kind is Kind.ROTATED:
            return [f"{angle:g}°" for angle in self.angles]
        return [f"permutation {j + 1}" for j in range(len(self))]

    def task(self, j: int, previous: bool = False) -> Task:
        """Task j (0-based) with its training and validation samples; with all earlier tasks if `previous`."""
        self._check_index(j)
        earlier = tuple(self._task(i) for i in range(j)) if previous else ()
        return replace(self._task(j), previous=earlier)

    def test(self, j: int) -> Samples:
        """The test samples of task j, labelled as the scenario asks."""
        self._check_index(j)
        return self._view(j, self.data.test_images, *self._test_sets[self._set(j)])

    # -- what the seed decides -------------------------------------------------------------------

    @cached_property
    def classes(self) -> list[list[int]]:
        """The original classes of each task, in the order of their within-task labels."""
        sizes = self.benchmark.sizes
        if self.benchmark.kind is not Kind.SPLIT:
            return [list(range(size)) for size in sizes]
        order = np.arange(int(self.data.train_labels.max()) + 1)
        match self.benchmark.class_order:
            case ClassOrder.SHUFFLED:
                order = random_order(len(order), self.seed, self.benchmark.name, "classes")
            case ClassOrder.FECAM:
                order = np.array(orders.FECAM)
            case ClassOrder.SUPERCLASSES:
                order = np.array(orders.SUPERCLASSES)
            case ClassOrder.SHUFFLED_SUPERCLASSES:
                groups = np.array(orders.SUPERCLASSES).reshape(-1, orders.SUPERCLASS_SIZE)
                order = groups[random_order(len(groups), self.seed, self.benchmark.name, "classes")].reshape(-1)
        return [order[last - size : last].tolist() for size, last in zip(sizes, accumulate(sizes), strict=True)]

    @cached_property
    def orders(self) -> np.ndarray:
        """The pixel order of each task of a permuted benchmark, (n_tasks, n_pixels) int64."""
        n_pixels = self.spec.input_shape[0]
        return np.stack(
            [random_order(n_pixels, self.seed, self.benchmark.name, "classes", j) for j in range(len(self))]
        )

    @property
    def angles(self) -> list[float]:
        """The angle of each task of a rotated benchmark, degrees, evenly spaced from 0 to below 180."""
        return [180.0 * j / len(self) for j in range(len(self))]

    # -- views -----------------------------------------------------------------------------------

    def _task(self, j: int) -> Task:
        train = self._own(self._view(j, self.data.train_images, *self._parts[self._set(j)].train))
        if self.benchmark.augmentation is Augmentation.FLIP_CROP:
            train = replace(train, augment=FlipCrop(derived_seed(self.seed, self.benchmark.name, "augmentation", j)))
        return Task(
            index=j,
            train=train,
            validation=self._validation(j),
            budget=self.budget,
            order_seed=derived_seed(self.seed, self.benchmark.name, "data", j),
        )

    def _validation(self, j: int) -> Samples:
        return self._own(self._view(j, self.data.train_images, *self._parts[self._set(j)].validation))

    def _view(self, j: int, images: Tensor, rows: Tensor, labels: Tensor) -> Samples:
        """Task j's samples at these rows of the data set, with these within-task labels."""
        if self.spec.scenario is CIL and j > 0:
            labels = labels + self.spec.outputs_before(j)
        return Samples(images, rows, labels, j, self._transform, self._normalise)

    def _own(self, view: Samples) -> Samples:
        """The samples, copied where a task has rows of its own, so that other tasks' images are unreachable."""
        return view if self._shares_images else view.copied()

    @property
    def _shares_images(self) -> bool:
        """Check whether all tasks have the same images. Rows and labels are then shared: 100 tasks have one copy."""
        return self.benchmark.kind not in (Kind.SPLIT, Kind.GIVEN)

    def _set(self, j: int) -> int:
        """Index of task j's set of rows."""
        return 0 if self._shares_images else j

    @cached_property
    def _parts(self) -> list[Parts]:
        """Each set of training rows, divided. Raises UserError where a class is left without samples."""
        found = []
        for which, whole in enumerate(self._train_sets):
            parts = held_out.divide(self.benchmark, self.seed, which, whole)
            split = self.benchmark.kind is Kind.SPLIT
            classes = range(self.benchmark.sizes[which]) if split else whole.labels.unique().tolist()
            held_out.check(self.benchmark, parts, classes, partial(self._class_name, which))
            found.append(parts)
        return found

    def _class_name(self, which: int, label: int) -> str:
        if self.benchmark.kind is not Kind.SPLIT:
            return f"class {label} of task {which}" if self.benchmark.kind is Kind.GIVEN else f"class {label}"
        original = self.classes[which][label]
        name = self.data.class_names[original] if original < len(self.data.class_names) else ""
        return f"class {name!r}" if name else f"class {original}"

    @cached_property
    def _within_task(self) -> Tensor:
        """(n classes,) int64: the within-task label of each original class."""
        position = torch.zeros(int(self.data.train_labels.max()) + 1, dtype=torch.int64)
        for classes in self.classes:
            for label, original in enumerate(classes):
                position[original] = label
        return position.to(self.data.train_labels.device)

    @cached_property
    def _train_sets(self) -> list[Rows]:
        return self._sets(self.data.train_labels, self.data.train_tasks)

    @cached_property
    def _test_sets(self) -> list[Rows]:
        return self._sets(self.data.test_labels, self.data.test_tasks)

    def _sets(self, labels: Tensor, tasks: Tensor | None) -> list[Rows]:
        """Rows and within-task labels of each task that has rows of its own; else all rows, once."""
        rows = self._rows(labels, tasks)
        if self._shares_images:
            return [Rows(rows[0], labels)]
        return [
            Rows(own, self._within_task[labels[own]] if self.benchmark.kind is Kind.SPLIT else labels[own])
            for own in rows
        ]

    def _rows(self, labels: Tensor, tasks: Tensor | None) -> list[Tensor]:
        """Rows of each task that has rows of its own, in the order of the data set; else all rows, once."""
        if self.benchmark.kind is Kind.GIVEN and tasks is not None:
            return [(tasks == j).nonzero().squeeze(1) for j in range(len(self))]
        if self.benchmark.kind is not Kind.SPLIT:
            return [torch.arange(len(labels), device=labels.device)]
        wanted = [torch.tensor(classes, device=labels.device) for classes in self.classes]
        return [torch.isin(labels, classes).nonzero().squeeze(1) for classes in wanted]

    @cached_property
    def _transform(self) -> Transform | None:
        shape, device = self.benchmark.stored_shape, self.data.train_images.device
        if self.benchmark.kind is Kind.PERMUTED:
            channels, height, width = (*(1,) * (3 - len(shape)), *shape)
            return Permute(self.orders, (channels, height, width), self.benchmark.padding, device)
        if self.benchmark.kind is Kind.ROTATED:
            channels, height, width = shape
            return Rotate(self.angles, (channels, height, width), device)
        return None

    @cached_property
    def _normalise(self) -> Normalise | None:
        constants = self.benchmark.normalisation
        if constants is not None and self.benchmark.kind is Kind.PERMUTED and len(constants.mean) > 1:
            raise UserError(
                f"{self.benchmark.name}: normalisation has {len(constants.mean)} channels, but permuted pixels have "
                "lost theirs; give one mean and one standard deviation"
            )
        return None if constants is None else Normalise(constants.mean, constants.std, self.data.train_images.device)

    def _with_sign(self, spec: StreamSpec) -> StreamSpec:
        """The specification with the sign of the inputs. Raises UserError where it says otherwise than the data."""
        if self.data.train_images.dtype == torch.uint8 and self._normalise is None:
            found = True  # no look at gigabytes of bytes
        else:
            moved = self.benchmark.kind in (Kind.PERMUTED, Kind.ROTATED)
            fills = moved or self.benchmark.augmentation is not Augmentation.NONE  # a border, with zeros
            least = [min(value, 0.0) if fills else value for value in self.data.least]
            found = all(v >= 0 for v in least) if self._normalise is None else self._normalise.keeps_sign(least)
        if spec.nonnegative_inputs and not found:
            values = ", ".join(f"{value:.3g}" for value in self.data.least)
            raise UserError(
                f"{spec.benchmark}: nonnegative_inputs is declared, but {self.data.name} gives negative inputs "
                f"(least values of its channels before normalisation: {values}); "
                "leave the declaration out, the sign is found in the data"
            )
        return replace(spec, nonnegative_inputs=found)

    def _check_index(self, j: int) -> None:
        if not 0 <= j < len(self):
            raise IndexError(f"{self.benchmark.name} has the tasks 0 to {len(self) - 1}, not {j}")


class TuningStream(Stream):
    """A stream for choosing hyperparameters: it holds no test data, and judges by the validation samples."""

    def __init__(self, stream: Stream) -> None:
        data = stream.data
        none = {key: value[:0] for key, value in vars(data).items() if key.startswith("test_") and value is not None}
        self.benchmark, self.spec, self.seed, self.budget = stream.benchmark, stream.spec, stream.seed, stream.budget
        self.data = replace(data, **none)
        if not stream.benchmark.validation:
            raise UserError(f"{stream.benchmark.name} sets no validation samples aside, so nothing can be tuned on it")

    def test(self, j: int) -> Samples:
        """The validation samples of task j."""
        self._check_index(j)
        return self._validation(j)


def open_stream(
    benchmark: Benchmark,
    scenario: Scenario | str,
    seed: int,
    *,
    data_dir: Path | None = None,
    device: str | torch.device = "cpu",
    network: str | None = None,
    budget: Budget | None = None,
    download: bool = True,
) -> Stream:
    """The stream of a benchmark in a scenario, with its data on the device (loaded once per process).

    network, budget: instead of the benchmark's. Raises UserError for a scenario that is not defined
    here, and DataError where the data is missing or damaged (see `benchmarks.data.load`).
    """
    spec = benchmark.spec(scenario, network)
    if budget is not None:
        check_budget(budget)
    return Stream(benchmark, spec, seed, load(benchmark.dataset, data_dir, device, download), budget)
