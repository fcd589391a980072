"""The one check that every data set, whatever its origin, passes before a cell uses it.

Samples are images, or rows of a table and series, which messages call samples.

Each fault has a sentence of its own and is a DataError: the cells of that benchmark fail with it, no method is blamed.
Published data sets are identified by their checksums: only their shapes and labels are checked, no pixels.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import orders
from benchmarks.files import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.data import DataSet
    from benchmarks.definition import Benchmark

LARGEST = 10.0
"""Of float images: the largest value where none is negative, else the root of the mean square; more is not scaled."""
PARTS = ("training", "train"), ("test", "test")
"""Words for a part and what its fields begin with."""
SAME = "the test {} are the training {}, no accuracy says anything of new ones"
"""With the word for samples twice."""
_SHOWN = 5


class Overlap:
    """Count of test images that are also training images, pixel by pixel, and of training images with several labels.

    what: the word for them.
    """

    def __init__(self, what: str = "images") -> None:
        self.what = what
        self.seen: dict[str, Counter[bytes]] = {"train": Counter(), "test": Counter()}
        self.labels: dict[str, set[tuple[bytes, int]]] = {"train": set(), "test": set()}

    def add(self, part: str, images: np.ndarray, labels: np.ndarray) -> None:
        """Add images (n, ...) of `train` or `test` with their labels (n,), and with tasks above bit 32 of these."""
        found = [hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in images]
        self.seen[part].update(found)
        self.labels[part].update(zip(found, map(int, labels), strict=True))

    def sentences(self) -> list[str]:
        """Notes for the user."""
        train, test = self.seen["train"], self.seen["test"]
        twice = self._with_two_labels()
        if train and train == test:
            return [same(self.what), *twice]
        both = sum(count for image, count in test.items() if image in train)
        if not both:
            return twice
        otherwise = sum(image in train for image, _ in self.labels["test"] - self.labels["train"])
        differ = f", {otherwise} of them with another label" if otherwise else ""
        return [f"{both} of {sum(test.values())} test {self.what} are also training {self.what}{differ}", *twice]

    def _with_two_labels(self) -> list[str]:
        """Note on training images with several labels in one task, as a link from class to class makes them."""
        labels = Counter((image, label >> 32) for image, label in self.labels["train"])
        twice = sum(count > 1 for count in labels.values())
        return [f"{twice} different training {self.what} have more than one label"] if twice else []


def same(what: str) -> str:
    """Sentence on a test set that is the training set."""
    return SAME.format(what, what)


def word_for(images: Tensor) -> str:
    """Plural word for samples (n, ...) of this shape."""
    return "images" if images.dim() == 4 else "samples"


def check(benchmark: Benchmark, data: DataSet) -> None:
    """Check the data, in one pass, and check that the benchmark's tasks can be cut from it.

    Raises DataError.
    """
    _ = data.known
    check_fit(benchmark, data)


def look_through(data: DataSet) -> tuple[str, ...]:
    """Check images, labels and tasks of a data set; return notes for the user. Raises DataError."""
    check_form(data)
    for word, part in PARTS:
        _check_values(data, word, getattr(data, f"{part}_images"))
    overlap = Overlap(word_for(data.train_images))
    for _, part in PARTS:
        images, labels, tasks = (getattr(data, f"{part}_{kind}") for kind in ("images", "labels", "tasks"))
        overlap.add(part, images.cpu().numpy(), (labels if tasks is None else labels + (tasks << 32)).cpu().numpy())
    return tuple(overlap.sentences())


def refuse_same(data: DataSet) -> None:
    """Raise DataError where a package or a folder gives its training images as test images."""
    notes = data.known  # first, since it refuses what has no shape
    found = same(word_for(data.train_images))
    if found in notes:
        raise DataError(f"{data.name}: {found}; give others to test on")


def check_form(data: DataSet) -> None:
    """Check types, shapes, lengths and the range of labels and tasks; reads no pixels. Raises DataError."""
    import torch

    for name, value in vars(data).items():
        if name.split("_")[0] in ("train", "test") and not (isinstance(value, torch.Tensor) or value is None):
            raise DataError(f"{data.name}: {name} is a {type(value).__name__}, not a torch.Tensor")
        if isinstance(value, torch.Tensor) and value.layout is not torch.strided:
            raise DataError(f"{data.name}: {name} has the layout {value.layout}; give it by .to_dense()")
    for word, part in PARTS:
        images, labels, tasks = (getattr(data, f"{part}_{kind}") for kind in ("images", "labels", "tasks"))
        _check_images(data.name, word, images)
        _check_numbers(data.name, f"{word} labels", labels, images)
        if tasks is not None:
            _check_numbers(data.name, f"tasks of {word} {word_for(images)}", tasks, images)
    what = word_for(data.train_images)
    if data.train_images.shape[1:] != data.test_images.shape[1:]:
        shapes = (tuple(images.shape[1:]) for images in (data.train_images, data.test_images))
        raise DataError(f"{data.name}: training {what} have the shape {next(shapes)}, test {what} {next(shapes)}")
    if data.train_images.dtype != data.test_images.dtype:
        raise DataError(
            f"{data.name}: training {what} are {_dtype(data.train_images)}, test {what} {_dtype(data.test_images)}; "
            "give both the same type"
        )
    if (data.train_tasks is None) != (data.test_tasks is None):
        raise DataError(f"{data.name}: tasks are given of one part only; say of training and of test {what}")


def check_fit(benchmark: Benchmark, data: DataSet) -> None:
    """Check that the benchmark's tasks can be cut from the data, every class with images. Raises DataError."""
    from benchmarks.definition import ClassOrder, Kind

    shape = tuple(data.train_images.shape[1:])
    if shape != benchmark.stored_shape:
        hint = "; add the channel by .unsqueeze(1)" if benchmark.stored_shape == (1, *shape) else ""
        what = word_for(data.train_images)
        raise DataError(
            f"{benchmark.name}: {what} of {data.name} have the shape {shape}, not {benchmark.stored_shape}{hint}"
        )
    _check_constants(benchmark, shape[0])
    if benchmark.kind is Kind.GIVEN:
        _check_given(benchmark, data)
        return
    n_classes = _whole(benchmark, data.train_labels, data.test_labels, "")
    if n_classes == 1:
        raise DataError(f"{benchmark.name}: {data.name} has one class only, so that there is nothing to tell apart")
    needed = sum(benchmark.sizes) if benchmark.kind is Kind.SPLIT else benchmark.largest_task
    if needed > n_classes:
        raise DataError(f"{benchmark.name} needs {needed} classes, but {data.name} has {n_classes}")
    if benchmark.class_order not in (ClassOrder.NATURAL, ClassOrder.SHUFFLED) and n_classes != len(orders.FECAM):
        raise DataError(
            f"{benchmark.name}: class_order {str(benchmark.class_order)!r} is an order of the {len(orders.FECAM)} "
            f"classes of CIFAR-100, but {data.name} has {n_classes}; write 'natural' or 'shuffled'"
        )
    if benchmark.kind is not Kind.SPLIT and n_classes > needed:
        raise DataError(
            f"{benchmark.name}: each task has all {n_classes} classes of {data.name}, but classes_per_task is {needed}"
        )


def notes(benchmark: Benchmark, data: DataSet) -> list[str]:
    """Notes for the user on the data of this benchmark, one sentence each; stored in each record."""
    from benchmarks.definition import Kind

    found = [f"{data.name}: {note}" for note in data.known]
    if benchmark.kind is Kind.SPLIT:
        used, n_classes = sum(benchmark.sizes), int(data.train_labels.max()) + 1
        if used < n_classes:
            found.append(f"{benchmark.name} uses {used} of the {n_classes} classes of {data.name}")
    beyond = 0 if data.train_tasks is None else int(data.train_tasks.max()) + 1
    if benchmark.kind is Kind.GIVEN and beyond > benchmark.n_tasks:
        found.append(f"{benchmark.name} uses {benchmark.n_tasks} of the {beyond} tasks of {data.name}")
    single = [j for j, size in enumerate(benchmark.sizes) if size == 1]
    if single and benchmark.largest_task > 1:
        found.append(f"{benchmark.name}: tasks of one class ({_listed(single)}) are always right in TIL")
    return found


def _check_images(name: str, word: str, images: Tensor) -> None:
    import torch

    what = f"{word} {word_for(images)}"
    if images.dim() < 2:
        raise DataError(
            f"{name}: {what} have the shape {tuple(images.shape)}, not (images, channels, height, width), "
            "(samples, channels, length) or (samples, features)"
        )
    if not images.numel():
        raise DataError(f"{name}: there are no {what}: their shape is {tuple(images.shape)}")
    if images.dtype not in (torch.uint8, torch.float32):
        raise DataError(
            f"{name}: {what} are {_dtype(images)}; give uint8 (0 to 255) or float32 (about 0 to 1), "
            "for example by .float()"
        )
    if images.requires_grad:
        raise DataError(f"{name}: {what} require gradients; give them detached")


def _check_numbers(name: str, what: str, values: Tensor, images: Tensor) -> None:
    import torch

    if values is None:
        raise DataError(f"{name}: there are no {what}")
    if values.dim() != 1:
        raise DataError(
            f"{name}: {what} have the shape {tuple(values.shape)}, not ({len(images)},): "
            f"one for each {word_for(images).removesuffix('s')}"
        )
    if len(values) != len(images):
        raise DataError(f"{name}: {len(values)} {what}, but {len(images)} {word_for(images)}")
    if values.dtype != torch.int64:
        raise DataError(f"{name}: {what} are {_dtype(values)}, not int64; convert them by .long()")
    if values.device != images.device:
        raise DataError(f"{name}: {what} lie on {values.device}, the {word_for(images)} on {images.device}")
    if (least := int(values.min())) < 0:
        raise DataError(f"{name}: {what} go down to {least}; count from 0")


def _check_values(data: DataSet, word: str, images: Tensor) -> None:
    """Check that values are finite and scaled: bytes merely converted to floats are 255 times too large."""
    import torch

    if images.dtype == torch.uint8:
        return
    what = word_for(images)
    least, most = (float(value) for value in torch.aminmax(images))
    if not np.isfinite([least, most]).all():
        row = int((~images.flatten(1).isfinite().all(1)).nonzero()[0])
        one = what.removesuffix("s")
        raise DataError(f"{data.name}: {word} {one} {row} (counted from 0) has a value that is not finite")
    size = most if least >= 0 else float(images.double().square().mean().sqrt())
    if size > LARGEST:
        remedy = "scale them to about 0 to 1 (divide bytes by 255), or give uint8"
        if what != "images":
            remedy = (
                "scale each feature to about 0 to 1, or standardise it by its mean and deviation in the training data"
            )
        raise DataError(f"{data.name}: {word} {what} are float32 with values from {least:g} to {most:g}; {remedy}")


def _check_constants(benchmark: Benchmark, channels: int) -> None:
    constants = benchmark.normalisation
    if constants is None:
        return
    if not benchmark.holds_images:
        channels = 1  # one constant of all features
    if not len(constants.mean) == len(constants.std) == channels:
        raise DataError(
            f"{benchmark.name}: normalisation has {len(constants.mean)} means and {len(constants.std)} deviations, "
            f"but samples have {channels} channels"
        )
    if not (np.isfinite([*constants.mean, *constants.std]).all() and min(constants.std) > 0):
        raise DataError(f"{benchmark.name}: normalisation must be finite, with deviations above 0")


def _check_given(benchmark: Benchmark, data: DataSet) -> None:
    if data.train_tasks is None or data.test_tasks is None:
        raise DataError(f"{benchmark.name}: its data set must say which task each sample belongs to")
    for part, tasks in (("training", data.train_tasks), ("test", data.test_tasks)):
        lacking = sorted(set(range(benchmark.n_tasks)) - set(tasks.unique().tolist()))
        if lacking:
            raise DataError(f"{benchmark.name}: there are no {part} samples of the tasks {_listed(lacking)}")
    most = int(data.train_labels[data.train_tasks < benchmark.n_tasks].max())
    if most >= benchmark.largest_task:
        raise DataError(
            f"{benchmark.name}: labels within a task go to {most}, but classes_per_task is {benchmark.largest_task}; "
            "count labels from 0 within each task"
        )
    sizes = []
    for j in range(benchmark.n_tasks):
        train, test = data.train_labels[data.train_tasks == j], data.test_labels[data.test_tasks == j]
        sizes.append(_whole(benchmark, train, test, f"task {j}: "))
    if tuple(sizes) != benchmark.sizes:
        j = next(j for j, pair in enumerate(zip(sizes, benchmark.sizes, strict=True)) if pair[0] != pair[1])
        raise DataError(
            f"{benchmark.name}: task {j} has {sizes[j]} classes in the data, but classes_per_task says "
            f"{benchmark.sizes[j]}; write classes_per_task={sizes}"
        )


def _whole(benchmark: Benchmark, train: Tensor, test: Tensor, where: str) -> int:
    """The number of classes. Raises DataError unless labels count from 0 without a gap, in both parts."""
    what = "images" if benchmark.holds_images else "samples"
    seen = {"training": train.unique().tolist(), "test": test.unique().tolist()}
    n_classes = len(seen["training"])
    if seen["training"] != list(range(n_classes)):
        gap = next(i for i, label in enumerate(seen["training"]) if label != i)
        raise DataError(
            f"{benchmark.name}: {where}there are no training {what} of class {gap}, but labels go to "
            f"{seen['training'][-1]}; number the classes from 0 without a gap"
        )
    for word, other in (("training", "test"), ("test", "training")):
        if lacking := set(seen[other]) - set(seen[word]):
            raise DataError(
                f"{benchmark.name}: {where}there are no {word} {what} of {_classes(lacking)}, which {other} {what} have"
            )
    return n_classes


def _classes(labels: set[int]) -> str:
    return f"class {min(labels)}" if len(labels) == 1 else f"the classes {_listed(sorted(labels))}"


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:_SHOWN])) + (", ..." if len(numbers) > _SHOWN else "")


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
