"""Definition of a benchmark: data set, rule by which tasks are cut from it, network and budget. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.numbers import check_budget, is_whole
from benchmarks.types import Budget, Scenario, StreamSpec, UserError

if TYPE_CHECKING:
    from benchmarks.plugins import DataSource

SHUFFLED_SUFFIX = "-shuffled"


class Kind(StrEnum):
    """Kind of difference between the tasks of a benchmark."""

    SPLIT = "split"
    """Each task has classes of its own."""
    PERMUTED = "permuted"
    """Every task has all classes; its pixels are in an order of their own."""
    ROTATED = "rotated"
    """Every task has all classes; its images are turned by an angle of their own."""
    GIVEN = "given"
    """The data set says which task a sample belongs to, and its label within the task."""


class ClassOrder(StrEnum):
    """Assignment of classes to the tasks of a split benchmark."""

    NATURAL = "natural"
    """Task t has the classes 2t and 2t + 1 (with two a task), as in the papers; the same for all seeds."""
    SHUFFLED = "shuffled"
    """The classes in random order, drawn from the seed."""
    FECAM = "fecam"
    """CIFAR-100 in a fixed random order, that of iCaRL, FeCAM, HyperMask and HINT; see benchmarks/orders.py."""
    SUPERCLASSES = "superclasses"
    """CIFAR-100 superclass by superclass, in the order of its coarse labels; see benchmarks/orders.py."""
    SHUFFLED_SUPERCLASSES = "shuffled-superclasses"
    """CIFAR-100 superclass by superclass, in an order of superclasses drawn from the seed."""


class HeldOut(StrEnum):
    """Choice of the training images of a task that are set aside for validation."""

    FIRST = "first"
    """The first ones, as in the papers: of data sets as published, whose order is known to be random."""
    DRAWN = "drawn"
    """Drawn from the seed, of each class in proportion; a class without training or validation images is an error."""


class Augmentation(StrEnum):
    """Augmentation of training images, batch by batch."""

    NONE = "none"
    FLIP_CROP = "flip-crop"
    """Crop at random after padding with 4 black pixels, flip half of the images; see benchmarks/augmentation.py."""


_WORDS = {"kind": Kind, "class_order": ClassOrder, "held_out": HeldOut, "augmentation": Augmentation}
"""Fields of a benchmark that are words of a closed set."""


class Normalisation(NamedTuple):
    """Mean and standard deviation of each channel, of pixels in [0, 1]; inputs are (x - mean) / std, of any sign."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def _are_finite(numbers: object) -> bool:
    """Check for a sequence of finite numbers; True, False and numbers of torch are none."""
    try:
        found = tuple(numbers)  # type: ignore[arg-type]
        return all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in found)
    except (TypeError, OverflowError):  # no sequence; a whole number beyond all floats
        return False


@dataclass(frozen=True)
class Benchmark:
    """A data set cut into tasks. Raises UserError for what no data set can be cut into."""

    name: str
    title: str
    dataset: DataSource
    """A name, or the function that makes the data set: itself, of the top level of a module, or `module:function`."""
    kind: Kind
    n_tasks: int
    classes_per_task: int | Sequence[int]
    """One number for all tasks, or a list with that of each task."""
    stored_shape: tuple[int, ...]
    """Shape of a sample in the data set: (channels, height, width) of an image, (channels, length) of a series, (n,) of
    n features."""
    validation: int
    """Training images of each task set aside for validation; `held_out` says which."""
    network: str
    budget: Budget
    description: str
    padding: int = 0
    """Zero pixels added on every side before a permutation."""
    class_order: ClassOrder = ClassOrder.NATURAL
    augmentation: Augmentation = Augmentation.NONE
    normalisation: Normalisation | None = None
    """None: inputs are pixels in [0, 1]."""
    held_out: HeldOut = HeldOut.DRAWN
    undefined: Mapping[Scenario, str] = field(default_factory=lambda: MappingProxyType({}))
    """Scenarios that make no sense here, each with the reason."""

    def __post_init__(self) -> None:
        for name, words in _WORDS.items():
            object.__setattr__(self, name, self._word(name, words, getattr(self, name)))
        if not isinstance(self.undefined, Mapping):
            raise UserError(
                f"benchmark {self.name}: undefined is a dict from scenarios to reasons, not {self.undefined!r}"
            )
        undefined = {self._word("undefined", Scenario, key): reason for key, reason in self.undefined.items()}
        object.__setattr__(self, "undefined", MappingProxyType(undefined))
        given = self.classes_per_task
        if isinstance(given, Iterable):
            object.__setattr__(self, "classes_per_task", tuple(given))  # which cannot be changed later
        self._check_numbers()
        sizes = self.sizes
        if len(set(sizes)) == 1:
            object.__setattr__(self, "classes_per_task", sizes[0])
        self._check(sizes)
        if max(sizes) == 1:
            alone = "each task has one class, so that every answer within a task is right"
            undefined = MappingProxyType({Scenario.TIL: alone, Scenario.DIL: alone, **self.undefined})
            object.__setattr__(self, "undefined", undefined)

    def _word(self, name: str, words: type[StrEnum], given: str) -> StrEnum:
        """The member of `words` that a field's text names; other modules compare members by identity."""
        try:
            return words(given)
        except ValueError:
            raise UserError(f"benchmark {self.name}: {name} is {given!r}; write one of {', '.join(words)}") from None

    def _check_numbers(self) -> None:
        if not isinstance(self.budget, Budget):
            raise UserError(
                f"benchmark {self.name}: budget is {self.budget!r}; write Budget(batch_size, steps=...) or epochs=..."
            )
        check_budget(self.budget)
        self._check_normalisation()
        shape, given = self.stored_shape, self.classes_per_task
        numbers = (
            *(given if isinstance(given, tuple) else (given,)),
            self.n_tasks,
            *(shape if isinstance(shape, tuple) else ()),
        )
        if not isinstance(shape, tuple) or not shape or not all(is_whole(n, 1) for n in numbers):
            raise UserError(
                f"benchmark {self.name}: n_tasks, classes_per_task and stored_shape must be whole numbers from 1, the "
                f"shape a tuple such as (1, 28, 28) or (20,), not {self.n_tasks}, {self.classes_per_task}, {shape}"
            )
        for name in ("validation", "padding"):
            if not is_whole(getattr(self, name), 0):
                raise UserError(
                    f"benchmark {self.name}: {name} must be a whole number from 0, not {getattr(self, name)!r}"
                )

    def _check_normalisation(self) -> None:
        """Refuse constants that no data could have; those that do not fit the data fail its cells (`door`)."""
        given = self.normalisation
        if given is None:
            return
        if not (isinstance(given, Normalisation) and all(map(_are_finite, given))):
            raise UserError(
                f"benchmark {self.name}: normalisation is {given!r:.200}; write Normalisation((0.5,), (0.25,)), with a "
                "mean and a standard deviation for each channel, finite numbers"
            )
        object.__setattr__(self, "normalisation", Normalisation(*map(tuple, given)))  # which cannot be changed later

    def _check(self, sizes: tuple[int, ...]) -> None:
        if len(sizes) != self.n_tasks:
            raise UserError(
                f"benchmark {self.name}: classes_per_task has {len(sizes)} numbers, but there are {self.n_tasks} tasks"
            )
        if len(set(sizes)) > 1 and self.kind in (Kind.PERMUTED, Kind.ROTATED):
            raise UserError(
                f"benchmark {self.name}: in a {self.kind} benchmark every task has all classes; "
                "write one number as classes_per_task"
            )
        if sum(sizes) == 1:
            raise UserError(f"benchmark {self.name}: there is one class only, so that there is nothing to tell apart")
        self._check_shape()
        if self.padding and self.kind is not Kind.PERMUTED:
            raise UserError(
                f"benchmark {self.name}: padding is added before a permutation, and a {self.kind} benchmark has none; "
                "leave it out"
            )
        if self.class_order is not ClassOrder.NATURAL and self.kind is not Kind.SPLIT:
            raise UserError(
                f"benchmark {self.name}: class_order {str(self.class_order)!r} is for a split benchmark, not a "
                f"{self.kind} one; leave it out"
            )

    def _check_shape(self) -> None:
        shape = self.stored_shape
        moves = {
            "rotation": self.kind is Kind.ROTATED,
            "padding": self.padding > 0,
            f"augmentation {str(self.augmentation)!r}": self.augmentation is not Augmentation.NONE,
        }
        if len(shape) != 3 and (moved := next((name for name, used in moves.items() if used), None)):
            raise UserError(
                f"benchmark {self.name}: {moved} is for images (channels, height, width), but stored_shape is {shape}; "
                "leave it out"
            )
        if self.normalisation is not None and len(shape) != 3 and len(self.normalisation.mean) > 1:
            raise UserError(
                f"benchmark {self.name}: normalisation has {len(self.normalisation.mean)} means, which is for images; "
                "give one mean and one deviation, or standardise the samples in the function that makes the data set"
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Classes of each task."""
        given = self.classes_per_task
        return (given,) * self.n_tasks if isinstance(given, int) else tuple(given)

    @property
    def largest_task(self) -> int:
        """Classes of the task that has most."""
        return max(self.sizes)

    @property
    def holds_images(self) -> bool:
        """Check whether a sample is an image (channels, height, width)."""
        return len(self.stored_shape) == 3

    @property
    def scenarios(self) -> tuple[Scenario, ...]:
        """The scenarios in which the benchmark is defined."""
        return tuple(scenario for scenario in Scenario if scenario not in self.undefined)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input; permuted pixels have no neighbours, so those inputs are flat."""
        channels, *sides = self.stored_shape
        if self.kind is Kind.PERMUTED:
            return (channels * math.prod(side + 2 * self.padding for side in sides),)
        return self.stored_shape

    def spec(self, scenario: Scenario | str, network: str | None = None) -> StreamSpec:
        """Properties of the stream that a method may know; the sign of the inputs comes from the data (`Stream.spec`).

        Raises UserError for a scenario that is not defined here.
        """
        if scenario not in list(Scenario):
            raise UserError(f"unknown scenario {scenario!r}; write one of {', '.join(Scenario)}")
        scenario = Scenario(scenario)
        if scenario in self.undefined:
            raise UserError(f"{self.name} is not defined in {scenario}: {self.undefined[scenario]}")
        equal = scenario is Scenario.DIL or len(set(self.sizes)) == 1
        return StreamSpec(
            self.name,
            scenario,
            self.n_tasks,
            self.largest_task,
            self.input_shape,
            network or self.network,
            sizes=() if equal else self.sizes,
        )

    def shuffled(self) -> Benchmark:
        """The same benchmark with its classes in a random order for each seed (split benchmarks only).

        Superclasses stay whole: their order is drawn.
        """
        whole = self.class_order is ClassOrder.SUPERCLASSES
        drawn = "superclasses" if whole else "classes"
        return replace(
            self,
            name=self.name + SHUFFLED_SUFFIX,
            title=f"{self.title} (shuffled {drawn})",
            description=f"{self.description} The order of the {drawn} is drawn from the seed.",
            class_order=ClassOrder.SHUFFLED_SUPERCLASSES if whole else ClassOrder.SHUFFLED,
        )
