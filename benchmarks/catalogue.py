"""Benchmarks by name: data set, tasks and budget of each. Imports no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import paths, plugins
from benchmarks.types import CIL, Budget, Scenario, StreamSpec, UserError, ValidatedBudget, suggestion

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


class Normalisation(NamedTuple):
    """Mean and standard deviation of each channel, of pixels in [0, 1]; inputs are (x - mean) / std, of any sign."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""torchvision's constants for ImageNet; hypnettorch, HyperMask and HINT use them for CIFAR-100 as well."""
CIFAR_100 = Normalisation((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
"""Of CIFAR-100's training images; FeCAM and, in its set-up, HyperMask and HINT use them."""
MNIST = Normalisation((0.1307,), (0.3081,))
"""Of MNIST's training images; HAT, GPM and WSN use them."""
CIFAR_HAT = Normalisation((125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255))
"""HAT's, GPM's and WSN's constants for CIFAR-100."""
IMAGE_FOLDER_VALIDATION = 10
"""Images of an image folder that are set aside for validation, for each class of a task."""


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
        sizes = self.sizes
        if len(set(sizes)) == 1:
            object.__setattr__(self, "classes_per_task", sizes[0])
        else:
            object.__setattr__(self, "classes_per_task", sizes)  # a tuple, which cannot be changed later
        self._check(sizes)
        if max(sizes) == 1:
            alone = "each task has one class, so that every answer within a task is right"
            undefined = MappingProxyType({Scenario.TIL: alone, Scenario.DIL: alone, **self.undefined})
            object.__setattr__(self, "undefined", undefined)

    def _check(self, sizes: tuple[int, ...]) -> None:
        shape = self.stored_shape
        numbers = (*sizes, self.n_tasks, *(shape if isinstance(shape, tuple) else ()))
        if not isinstance(shape, tuple) or not shape or not all(isinstance(n, int) and n >= 1 for n in numbers):
            raise UserError(
                f"benchmark {self.name}: n_tasks, classes_per_task and stored_shape must be whole numbers from 1, the "
                f"shape a tuple such as (1, 28, 28) or (20,), not {self.n_tasks}, {self.classes_per_task}, {shape}"
            )
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
        self._check_shape(shape)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
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


def find(name: str) -> Benchmark:
    """The benchmark called `name`, from here or from an installed package, or that of a file, `FILE.py:NAME`
    (`benchmarks.plugins`); a split one also as `NAME-shuffled`, with a class order for each seed.

    Raises UserError with the nearest names.
    """
    if plugins.is_file(name):
        return plugins.of_file(name)[1]
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    plain = name.removesuffix(SHUFFLED_SUFFIX)
    split = BENCHMARKS.get(plain) or _image_folder(plain)
    if split is not None and split.kind is Kind.SPLIT:
        return split if plain == name else split.shuffled()
    if name in plugins.points():
        return plugins.benchmark(name)
    if name.startswith("images-"):
        form = "images-FOLDER-TASKSxCLASSES or images-FOLDER-TASKSxCLASSES-SIDEpx"
        raise UserError(f"benchmark {name!r}: write {form}, for example images-my birds-5x2-64px; counts begin at 1")
    known = [*BENCHMARKS, *plugins.points()]
    hint = suggestion(name, known)
    forms = "images-FOLDER-TASKSxCLASSES, FILE.py:NAME"
    raise UserError(f"unknown benchmark {name!r}.{hint} Available: {', '.join(known)}, {forms}")


_DIGITS, _MNIST, _CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)
_ROTATED_UNDEFINED: Mapping[Scenario, str] = MappingProxyType(
    {
        CIL: "a class would be a digit at one angle, but an image does not determine the angle: "
        "a 6 and a 9, or a 1 and a slanted 1, turn into each other"
    }
)


def _split(name: str, title: str, dataset: str, shape: tuple[int, int, int], **rest: object) -> Benchmark:
    options = {
        "n_tasks": 5,
        "classes_per_task": 2,
        "validation": 1000,
        "network": "mlp-400-400",
        "budget": Budget(128, steps=2000),
        **rest,
    }
    description = f"The ten classes of {dataset}, two a task."
    return Benchmark(name, title, dataset, Kind.SPLIT, stored_shape=shape, description=description, **options)  # type: ignore[arg-type]


def _split_cifar_100(n_tasks: int, fecam: bool = False) -> Benchmark:
    """HINT's, HyperMask's and InterContiNet's set-ups; the plain 10 x 10 needs no suffix."""
    per_task = 100 // n_tasks
    suffix = {(10, False): ""}.get((n_tasks, fecam), f"-{n_tasks}x{per_task}") + ("-fecam" if fecam else "")
    order = " in FeCAM's order" if fecam else ""
    return Benchmark(
        f"split-cifar-100{suffix}",
        f"Split CIFAR-100 {n_tasks} x {per_task}" + (" (FeCAM order)" if fecam else ""),
        "cifar-100",
        Kind.SPLIT,
        n_tasks,
        per_task,
        _CIFAR,
        validation=50 * per_task,
        network="alexnet",
        budget=Budget(32, epochs=200),
        description=f"CIFAR-100, {per_task} classes a task{order}; flipped, cropped and normalised as in HINT's code.",
        class_order=ClassOrder.FECAM if fecam else ClassOrder.NATURAL,
        augmentation=Augmentation.FLIP_CROP,
        normalisation=CIFAR_100 if fecam else IMAGENET,
    )


def _wsn() -> tuple[Benchmark, ...]:
    """The set-ups of WSN's tables (Kang et al. 2022).

    Deviations from its code: validation images of CIFAR-100 are the first, not drawn; the five classes of a task are
    those of the data set's superclass. There the reader of superclasses misses `keyboard` (the list says `computer
    keyboard`), so that later tasks mix superclasses, and takes channels for the last axis, which scrambles images.
    Superclasses are not standardised there, nor here.
    """
    permuted = Benchmark(
        "permuted-mnist-10-wsn",
        "Permuted MNIST-10 (WSN)",
        "mnist",
        Kind.PERMUTED,
        10,
        10,
        _MNIST,
        validation=6000,
        network="mlp-100-100-nobias",
        budget=Budget(10, epochs=5),
        description="MNIST, 28 x 28 and standardised, in ten random orders of its pixels (the first task has one too), "
        "in small batches, as in the tables of GPM and WSN.",
        normalisation=MNIST,
    )
    cifar = Benchmark(
        "split-cifar-100-wsn",
        "Split CIFAR-100 10 x 10 (WSN)",
        "cifar-100",
        Kind.SPLIT,
        10,
        10,
        _CIFAR,
        validation=250,
        network="alexnet-hat",
        budget=ValidatedBudget(64, epochs=200, lowest_rate=1e-6),
        description="CIFAR-100, ten classes a task, standardised and not augmented, trained as long as the validation "
        "loss falls, as in GPM's and WSN's code; with `-shuffled` the random split of WSN's paper.",
        normalisation=CIFAR_HAT,
    )
    superclass = replace(
        cifar,
        name="split-cifar-100-superclass",
        title="CIFAR-100 Superclass 20 x 5",
        n_tasks=20,
        classes_per_task=5,
        validation=125,
        network="lenet-20-50",
        budget=ValidatedBudget(64, epochs=50, lowest_rate=1e-5),
        description="CIFAR-100, the five classes of a superclass a task, trained as long as the validation loss falls, "
        "as in WSN's tables.",
        class_order=ClassOrder.SUPERCLASSES,
        normalisation=None,
    )
    tiny = replace(
        _split_tiny_imagenet(40),
        name="split-tiny-imagenet-wsn",
        title="Split Tiny ImageNet 40 x 5 (WSN)",
        network="tinynet",
        budget=ValidatedBudget(10, epochs=10, lowest_rate=1e-5),
        description="Tiny ImageNet, five classes a task in the order of their names, trained as long as the validation "
        "loss falls, as in WSN's tables; the official validation images are the test set.",
    )
    return permuted, cifar, superclass, tiny


def _split_tiny_imagenet(n_tasks: int) -> Benchmark:
    per_task = 200 // n_tasks
    suffix = "" if n_tasks == 40 else f"-{n_tasks}x{per_task}"
    return Benchmark(
        f"split-tiny-imagenet{suffix}",
        f"Split Tiny ImageNet {n_tasks} x {per_task}",
        "tiny-imagenet",
        Kind.SPLIT,
        n_tasks,
        per_task,
        (3, 64, 64),
        validation=50 * per_task,
        network="zenkenet",
        budget=Budget(32, epochs=10),
        description=f"Tiny ImageNet, {per_task} classes a task in the order of their names; the official validation "
        "images are the test set.",
        normalisation=IMAGENET,
    )


def _image_folder(name: str) -> Benchmark | None:
    """The benchmark `images-NAME-TxC` or `images-NAME-TxC-SIDEpx` (default 64) of the folder DIR/NAME."""
    parts = re.fullmatch(r"images-(.+)-([1-9]\d{0,5})x([1-9]\d{0,5})(?:-([1-9]\d{0,3})px)?", name)
    if parts is None:
        return None
    try:
        folder = paths.part(parts[1], "folder")
    except paths.UnsafePath as error:
        raise UserError(f"benchmark {name!a}: {error}") from error
    n_tasks, per_task, side = int(parts[2]), int(parts[3]), int(parts[4] or 64)
    return Benchmark(
        name,
        f"{folder} {n_tasks} x {per_task}",
        f"folder/{folder}/{side}",
        Kind.SPLIT,
        n_tasks,
        per_task,
        (3, side, side),
        validation=IMAGE_FOLDER_VALIDATION * per_task,
        network="resnet-20",
        budget=Budget(32, epochs=10),
        description=f"The images of the folder {folder}, {side} x {side}, {per_task} classes a task.",
        augmentation=Augmentation.FLIP_CROP,
        normalisation=IMAGENET,
    )


def _permuted_mnist(n_tasks: int) -> Benchmark:
    return Benchmark(
        f"permuted-mnist-{n_tasks}",
        f"Permuted MNIST-{n_tasks}",
        "mnist",
        Kind.PERMUTED,
        n_tasks,
        10,
        _MNIST,
        validation=500,
        network="mlp-1000-1000",
        budget=Budget(128, steps=5000),
        description=f"MNIST padded to 32 x 32, in {n_tasks} random orders of its pixels (the first task has one too). "
        "In CIL a class is a digit in one of the orders, as in Hsu et al. (2018).",
        padding=2,
    )


_ALL = (
    _split(
        "split-digits",
        "Split Digits",
        "digits",
        _DIGITS,
        validation=30,
        network="mlp-100-100",
        budget=Budget(32, steps=300),
    ),
    Benchmark(
        "permuted-digits",
        "Permuted Digits",
        "digits",
        Kind.PERMUTED,
        10,
        10,
        _DIGITS,
        validation=150,
        network="mlp-100-100",
        budget=Budget(32, steps=500),
        description="scikit-learn's handwritten digits in ten random orders of their pixels. "
        "In CIL a class is a digit in one of the orders.",
    ),
    _split("split-mnist", "Split MNIST", "mnist", _MNIST),
    _split("split-cifar-10", "Split CIFAR-10", "cifar-10", _CIFAR, network="alexnet"),
    *(_split_cifar_100(n_tasks) for n_tasks in (10, 20, 5)),
    *(_split_cifar_100(n_tasks, fecam=True) for n_tasks in (5, 20)),
    *(_split_tiny_imagenet(n_tasks) for n_tasks in (40, 20, 10)),
    Benchmark(
        "cifar-mini",
        "CIFAR-100 mini",
        "cifar-100",
        Kind.SPLIT,
        3,
        4,
        _CIFAR,
        validation=200,
        network="resnet-8",
        budget=Budget(32, steps=120),
        description="The first twelve classes of CIFAR-100, four a task: the path of the large benchmarks at a size "
        "for a laptop. No paper uses it.",
        augmentation=Augmentation.FLIP_CROP,
        normalisation=IMAGENET,
    ),
    _split("split-fashion-mnist", "Split FashionMNIST", "fashion-mnist", _MNIST),
    _permuted_mnist(10),
    _permuted_mnist(100),
    *_wsn(),
    Benchmark(
        "rotated-mnist",
        "Rotated MNIST",
        "mnist",
        Kind.ROTATED,
        10,
        10,
        _MNIST,
        validation=500,
        network="mlp-400-400",
        budget=Budget(128, steps=2000),
        description="MNIST turned by ten angles, evenly spaced from 0 to 162 degrees; the same for all seeds.",
        undefined=_ROTATED_UNDEFINED,
    ),
)
BENCHMARKS: Mapping[str, Benchmark] = MappingProxyType(
    {benchmark.name: replace(benchmark, held_out=HeldOut.FIRST) for benchmark in _ALL}
)
