"""Conversion between this suite's streams and Avalanche's benchmarks, in both directions.

Nothing else in benchmarks/ imports Avalanche, which takes seconds.
"""

from __future__ import annotations

import reprlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks import tally
from benchmarks.data import DataSet
from benchmarks.definition import Benchmark, Kind
from benchmarks.samples import Samples
from benchmarks.stream import Stream
from benchmarks.types import CIL, DIL, TIL, Budget, Scenario, UserError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # not ours, and nothing that a user of the suite can act on
    from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline, with_task_labels
    from avalanche.benchmarks.utils import AvalancheDataset, as_taskaware_classification_dataset
    from avalanche.benchmarks.utils.data_attribute import DataAttribute, TaskLabels
    from avalanche.benchmarks.utils.flat_data import ConstantSequence, FlatData
    from avalanche.benchmarks.utils.transform_groups import TransformGroups

if TYPE_CHECKING:
    from benchmarks.plugins import DataSource


class LazySamples(Dataset):
    """Lazy dataset of (input, label) pairs on the CPU, as Avalanche and torch expect them.

    Inputs stay on the CPU: a data loader pins batches for a GPU, and GPU tensors cannot be pinned.
    """

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self.targets = samples.labels.tolist()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        index = range(len(self))[index]  # which may be negative
        return self.samples.batch(slice(index, index + 1)).x[0].cpu(), self.targets[index]


class _HeldSamples(Dataset):
    """Training samples with all inputs in memory; after `keep`, only those that are still referenced.

    Where the benchmark augments, images are held instead, from which `_Inputs` makes an input at each reading.
    """

    def __init__(self, samples: Samples) -> None:
        self.targets = samples.labels.tolist()
        if samples.augment is None:
            self.inputs = samples.x.cpu()
        else:
            self.inputs = samples.pixels.index_select(0, samples.rows).cpu()
            if torch.is_grad_enabled():
                tally.handed_out(len(samples), samples.rows)  # as `samples.x` does
        self.place: dict[int, int] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        row = index if self.place is None else self.place[range(len(self))[index]]
        return self.inputs[row], self.targets[index]

    def keep(self, indices: set[int]) -> None:
        """Release all other inputs; reading one of them is an error from now on."""
        wanted = sorted(indices)
        rows = wanted if self.place is None else [self.place[index] for index in wanted]
        self.inputs = self.inputs[rows]
        self.place = {index: row for row, index in enumerate(wanted)}


class _Inputs:
    """Input, on the CPU, of a stored image; augmented with random numbers of each draw's own if `augmented`.

    The numbers are those of the task's augmentation at the count of draws so far, so that equal runs have equal ones.
    """

    def __init__(self, samples: Samples, augmented: bool) -> None:
        self.augment = samples.augment if augmented else None
        self.draws = 0
        self.like = replace(samples.copied(slice(1)), augment=None)

    def __call__(self, image: Tensor) -> Tensor:
        images = image[None]
        if self.augment is not None:
            images = self.augment(images, self.draws)
            self.draws += 1
        with torch.no_grad():  # the tally has counted the whole data set
            return replace(self.like, pixels=images.to(self.like.device)).batch(slice(1)).x[0].cpu()


def dataset_of(samples: Samples, task_label: int, lazy: bool = False) -> AvalancheDataset:
    """Samples as a data set of Avalanche with targets and task labels; a `lazy` one is never augmented.

    Otherwise Avalanche's group `train`, which strategies train on and replay, is augmented where the benchmark says so,
    anew at each draw; the group `eval` is not, nor are the images that a data set or a part of it keeps.
    """
    if lazy:
        return labelled(LazySamples(samples), task_label)
    if samples.augment is None:
        return labelled(_HeldSamples(samples), task_label)
    groups = {"train": (_Inputs(samples, True), None), "eval": (_Inputs(samples, False), None)}
    return labelled(_HeldSamples(samples), task_label, TransformGroups(groups))


def labelled(plain: Any, task_label: int, transforms: TransformGroups | None = None) -> AvalancheDataset:
    """Avalanche dataset with task labels, made from a data set with `targets`."""
    attributes = [
        DataAttribute(plain.targets, "targets"),
        TaskLabels(ConstantSequence(task_label, len(plain))),
    ]
    made: Any = AvalancheDataset([plain], data_attributes=attributes, transform_groups=transforms)
    return as_taskaware_classification_dataset(made)


def forget_the_rest(kept: Iterable[AvalancheDataset]) -> None:
    """Release every training sample that no data set in `kept` holds.

    Avalanche's subsets refer to the whole data sets that they were taken from.
    """
    used: dict[_HeldSamples, set[int]] = {}
    for data in kept:
        _note_used(data, range(len(data)), used)
    for samples, indices in used.items():
        samples.keep(indices)


def _note_used(data: Any, indices: Iterable[int], used: dict[_HeldSamples, set[int]]) -> None:
    if isinstance(data, _HeldSamples):
        used.setdefault(data, set()).update(indices)
    elif isinstance(data, AvalancheDataset):
        _note_used(data._flat_data, indices, used)
    elif isinstance(data, FlatData):
        of_part: dict[int, list[int]] = {}
        for index in indices:
            part, within = data._get_idx(index)
            of_part.setdefault(part, []).append(within)
        for part, within_it in of_part.items():
            _note_used(data._datasets[part], within_it, used)


def to_avalanche(stream: Stream) -> Any:
    """The stream as a benchmark of Avalanche, with a train, a valid and a test stream of experiences.

    Labels are those of the scenario; task labels count the tasks in TIL and are 0 otherwise. Images are not augmented.
    Without validation samples there is no valid stream: Avalanche takes no empty data sets.
    """
    til = stream.spec.scenario is TIL
    names = ("train", "valid", "test") if stream.benchmark.validation else ("train", "test")
    parts: dict[str, list[AvalancheDataset]] = {name: [] for name in names}
    for j in range(len(stream)):
        task = stream.task(j)
        for name, samples in (("train", task.train), ("valid", task.validation), ("test", stream.test(j))):
            if name in parts:
                parts[name].append(dataset_of(samples, j if til else 0, lazy=True))
    return with_classes_timeline(with_task_labels(benchmark_from_datasets(**parts)))


@dataclass(frozen=True)
class Experiences(DataSet):
    """Data of an Avalanche benchmark; its labels count within each experience.

    classes: of each experience, the classes that its labels 0, 1, ... stand for, by Avalanche's numbers.
    """

    classes: tuple[tuple[int, ...], ...] = ()

    @cached_property
    def known(self) -> tuple[str, ...]:
        """Notes, with one on numbers of classes that recur and may, but need not, stand for the same classes."""
        found = super().known
        recurring = _recurring(self.classes)
        if self.notes is not None or not recurring or CIL in _undefined(self.classes):
            return found
        original, (first, second, *_) = min(recurring.items())
        return (
            *found,
            f"experiences have classes of the same number ({original} in the experiences {first} and {second}), "
            "which are different classes in CIL",
        )


def data_set(benchmark: Any, name: str) -> DataSet:
    """Data of an Avalanche benchmark: inputs and labels after its evaluation transforms, labels within each task.

    A label is the place of a sample's class among the classes of its experience, in ascending order. Inputs that are
    not (channels, height, width) get leading ones. Raises UserError where train and test streams are missing or differ
    in length, for an experience without samples, for labels that are no whole numbers, and for what `benchmarks.door`
    refuses.
    """
    train, test = (_experiences(benchmark, name, part) for part in ("train", "test"))
    if len(train) != len(test):
        raise UserError(f"{name}: {len(train)} experiences to train on, but {len(test)} to test on")
    (x, originals), (test_x, test_originals) = _read(train, "training"), _read(test, "test")
    classes = tuple(tuple(sorted(set(some))) for some in originals)
    (y, t), (test_y, test_t) = (_places(classes, some) for some in (originals, test_originals))
    names = tuple(" ".join(map(str, some)) for some in classes)
    made = Experiences(name, x, y, test_x, test_y, t, test_t, names, classes=classes)
    _ = made.known
    return made


def from_avalanche(
    data: DataSet,
    dataset: DataSource,
    *,
    validation: int,
    network: str,
    budget: Budget,
    title: str = "",
    description: str = "",
) -> Benchmark:
    """A benchmark of this suite over `data`, which the function `dataset` makes: itself, or `package.module:function`.

    Experiences may have unequal numbers of classes. Where they share classes, DIL is not defined if a class has another
    label in another experience, and CIL not if a class would count as several. Raises UserError for data without tasks.
    """
    if data.train_tasks is None:
        raise UserError(f"{data.name}: the data says no task of its samples; make it by benchmarks.avalanche.data_set")
    shape = tuple(data.train_images.shape[1:])
    n_tasks = int(data.train_tasks.max()) + 1
    return Benchmark(
        name=data.name,
        title=title or data.name,
        dataset=dataset,
        kind=Kind.GIVEN,
        n_tasks=n_tasks,
        classes_per_task=[int(data.train_labels[data.train_tasks == j].max()) + 1 for j in range(n_tasks)],
        stored_shape=(shape[0], shape[1], shape[2]),
        validation=validation,
        network=network,
        budget=budget,
        description=description or "A stream of experiences of Avalanche.",
        undefined=_undefined(data.classes) if isinstance(data, Experiences) else {},
    )


def _recurring(classes: Sequence[Sequence[int]]) -> dict[int, list[int]]:
    """The classes that several experiences have, each with these experiences."""
    having: dict[int, list[int]] = {}
    for j, some in enumerate(classes):
        for original in some:
            having.setdefault(original, []).append(j)
    return {original: js for original, js in having.items() if len(js) > 1}


def _undefined(classes: Sequence[Sequence[int]]) -> dict[Scenario, str]:
    """Scenarios that make no sense with these classes of the experiences, each with the reason.

    CIL stays defined where the numbers count from 0 in every experience and may stand for different classes, and where
    all experiences have the same classes, for example digits with permuted pixels.
    """
    found: dict[Scenario, str] = {}
    recurring = sorted(_recurring(classes).items())
    for original, (first, *others) in recurring:
        label = classes[first].index(original)
        for j in others:
            if (other := classes[j].index(original)) != label:
                found.setdefault(
                    DIL,
                    f"class {original} is label {label} in experience {first} and label {other} in experience {j}, "
                    "but all tasks share one head",
                )
    from_zero = all(list(some) == list(range(len(some))) for some in classes)
    if recurring and not from_zero and len(set(map(tuple, classes))) > 1:
        original, (first, second, *_) = recurring[0]
        found[CIL] = f"the experiences {first} and {second} share class {original}, which would be two classes"
    return found


def _experiences(benchmark: Any, name: str, part: str) -> list[Any]:
    stream = getattr(benchmark, f"{part}_stream", None)
    if stream is None:
        raise UserError(f"{name}: the benchmark has no {part} stream; give it experiences to train on and to test on")
    return list(stream)


def _read(stream: Sequence[Any], part: str) -> tuple[Tensor, list[list[int]]]:
    """Inputs of all experiences, and each experience's classes of its samples. Raises UserError."""
    inputs, classes = [], []
    for j, experience in enumerate(stream):
        own = []
        for sample in experience.dataset.eval():
            try:
                x, y, *_ = sample
            except (TypeError, ValueError):
                raise UserError(f"experience {j}: {part} samples have no labels; give pairs (input, label)") from None
            inputs.append(_image(x))
            own.append(_class(y, f"experience {j}"))
        if not own:
            raise UserError(f"experience {j} has no {part} samples; leave it out of both streams")
        classes.append(own)
    if not inputs:
        raise UserError("the stream has no experiences")
    if shapes := {tuple(x.shape) for x in inputs[1:] if x.shape != inputs[0].shape}:
        other = min(shapes)
        raise UserError(f"inputs have different shapes: {tuple(inputs[0].shape)} and {other}; transform them to one")
    return torch.stack(inputs), classes


def _class(y: Any, where: str) -> int:
    """A label as a number; text of a number is one. Raises UserError for anything else."""
    try:
        value = y.item() if hasattr(y, "item") else y
        label = int(value)
        if isinstance(value, str) or label == value:
            return label
    except (TypeError, ValueError, OverflowError, RuntimeError):  # several numbers, other text, not finite
        pass
    raise UserError(f"{where}: a label is {' '.join(reprlib.repr(y).split())}; give the number of the class")


def _places(classes: Sequence[Sequence[int]], originals: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Labels within the experience, and experiences, of samples of these classes. Raises UserError."""
    labels, tasks = [], []
    for j, (known, own) in enumerate(zip(classes, originals, strict=True)):
        place = {original: label for label, original in enumerate(known)}
        if unknown := set(own) - set(place):
            raise UserError(f"experience {j}: its test data has the class {min(unknown)}, its training data has not")
        labels += [place[original] for original in own]
        tasks += [j] * len(own)
    return torch.tensor(labels), torch.tensor(tasks)


def _image(x: Any) -> Tensor:
    """An input as float32 (channels, height, width); bytes are scaled to [0, 1]."""
    if not isinstance(x, Tensor):
        raise UserError(f"an input is a {type(x).__name__}; give the benchmark a transform that ends in ToTensor")
    if x.dim() > 3:
        raise UserError(f"an input has the shape {tuple(x.shape)}; give images (channels, height, width) or less")
    if x.dtype == torch.uint8:
        x = x / 255.0
    elif not x.is_floating_point():
        raise UserError(f"an input is {str(x.dtype).removeprefix('torch.')}; give floats or uint8")
    return x.detach().to(torch.float32).reshape((1,) * (3 - x.dim()) + tuple(x.shape))
