"""Benchmarks by name: data set, tasks and budget of each. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from benchmarks import paths, plugins
from benchmarks.definition import SHUFFLED_SUFFIX, Augmentation, Benchmark, ClassOrder, HeldOut, Kind, Normalisation
from benchmarks.types import CIL, Budget, Scenario, UserError, ValidatedBudget, suggestion

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


def find(name: str) -> Benchmark:
    """The benchmark called `name`, from here or from an installed package, or that of a file, `FILE.py:NAME`
    (`benchmarks.plugins`); a split one also as `NAME-shuffled`, with a class order for each seed.

    Raises UserError with the nearest names.
    """
    if plugins.is_file(name):
        return plugins.of_file(name)[1]
    if (shipped := _shipped(name)) is not None:
        return shipped
    if name in plugins.points():
        return plugins.benchmark(name)
    if name.startswith("images-"):
        form = "images-FOLDER-TASKSxCLASSES or images-FOLDER-TASKSxCLASSES-SIDEpx"
        raise UserError(f"benchmark {name!r}: write {form}, for example images-my birds-5x2-64px; counts begin at 1")
    known = [*BENCHMARKS, *plugins.points()]
    hint = suggestion(name, known)
    forms = "images-FOLDER-TASKSxCLASSES, FILE.py:NAME"
    raise UserError(f"unknown benchmark {name!r}.{hint} Available: {', '.join(known)}, {forms}")


def ships(benchmark: Benchmark) -> bool:
    """Check whether a benchmark is one of this suite, whose name decides everything about it, and not a user's own."""
    return benchmark == _shipped(benchmark.name)


def _shipped(name: str) -> Benchmark | None:
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    plain = name.removesuffix(SHUFFLED_SUFFIX)
    split = BENCHMARKS.get(plain) or _image_folder(plain)
    if split is None or split.kind is not Kind.SPLIT:
        return None
    return split if plain == name else split.shuffled()


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
    # HINT's single runs of the FeCAM set-up change no image; HyperMask's have brightness and AutoAugment in addition.
    as_in = "" if fecam else " as in HINT's code"
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
        description=f"CIFAR-100, {per_task} classes a task{order}; flipped, cropped and normalised{as_in}.",
        class_order=ClassOrder.FECAM if fecam else ClassOrder.NATURAL,
        augmentation=Augmentation.FLIP_CROP,
        normalisation=CIFAR_100 if fecam else IMAGENET,
    )


def _wsn() -> tuple[Benchmark, ...]:
    """The set-ups of WSN's tables (Kang et al. 2022).

    Deviations from its code: on Permuted MNIST the last weights of five epochs are kept, there those of the epoch with
    the least validation loss (selection="val" of a method). Validation images of CIFAR-100 are the first, not drawn;
    the five classes of a task are those of the data set's superclass. There the reader of superclasses misses
    `keyboard` (the list says `computer keyboard`), so that later tasks mix superclasses, and takes channels for the
    last axis, which scrambles images. Superclasses are not standardised there, nor here. Images of Tiny ImageNet are
    cropped and flipped there (the paper has no augmentation), classes are in a drawn order and a tenth of each is drawn
    for validation; here they are in the order of their names (drawn with `-shuffled`) and the first images are for
    validation.
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
        network="alexnet-hat-norm",
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
        budget=ValidatedBudget(10, epochs=10, lowest_rate=1e-6),
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
        network="zenkenet-tiny",
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
