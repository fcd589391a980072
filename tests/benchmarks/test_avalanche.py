"""Streams that go to Avalanche and come from there."""

import dataclasses
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from benchmarks import door, tally
from benchmarks.avalanche import data_set, dataset_of, forget_the_rest, from_avalanche, to_avalanche
from benchmarks.catalogue import Augmentation, Normalisation, find
from benchmarks.data import DataSet
from benchmarks.definition import Benchmark
from benchmarks.stream import Stream, open_stream
from benchmarks.types import CIL, DIL, TIL, Budget, Scenario, UserError

DIGITS = dataclasses.replace(find("split-digits"), n_tasks=3)


@pytest.mark.parametrize("scenario", [TIL, DIL, CIL])
def test_our_stream_reads_the_same_there(scenario: Scenario) -> None:
    stream = open_stream(DIGITS, scenario, 0)
    theirs = to_avalanche(stream)
    assert len(theirs.train_stream) == len(theirs.test_stream) == 3
    for j, experience in enumerate(theirs.train_stream):
        task = stream.task(j)
        assert list(experience.dataset.targets) == task.y.tolist()
        assert experience.task_label == (j if scenario is TIL else 0)
        x, y, label = experience.dataset[5]
        assert torch.equal(x, task.x[5]) and y == int(task.y[5]) and label == experience.task_label
    tested = [torch.stack([x for x, *_ in experience.dataset]) for experience in theirs.test_stream]
    assert all(torch.equal(x, stream.test(j).x) for j, x in enumerate(tested))


@pytest.mark.parametrize("scenario", [TIL, DIL, CIL])
def test_a_stream_without_validation_samples_has_no_valid_stream_there(scenario: Scenario) -> None:
    """Avalanche takes no empty data sets."""
    stream = open_stream(dataclasses.replace(DIGITS, validation=0), scenario, 0)
    theirs = to_avalanche(stream)
    assert sorted(theirs.streams) == ["test", "train"]
    assert [len(part.dataset) for part in theirs.train_stream] == [len(stream.task(j).train) for j in range(3)]
    assert sorted(to_avalanche(open_stream(DIGITS, scenario, 0)).streams) == ["test", "train", "valid"]


def test_a_negative_index_counts_from_the_end() -> None:
    task = open_stream(DIGITS, TIL, 0).task(0)
    last = len(task.train) - 1
    held = dataset_of(task.train, 0)
    for data in (dataset_of(task.train, 0, lazy=True), held):
        assert torch.equal(data[-1][0], task.x[-1]) and data[-1][1] == int(task.y[-1])
    forget_the_rest([held.subset([2, last])])
    assert torch.equal(held[-1][0], task.x[-1]) and torch.equal(held[2 - len(held)][0], task.x[2])
    with pytest.raises(IndexError):
        dataset_of(task.train, 0, lazy=True)[-last - 2]


@pytest.mark.parametrize("lazy", [False, True])
def test_samples_of_a_gpu_are_handed_over_on_the_cpu(lazy: bool, device) -> None:
    """Avalanche's loaders pin what goes to a GPU; a tensor that is there already cannot be."""
    stream = open_stream(DIGITS, TIL, 0, device="cuda")
    x, *_ = dataset_of(stream.task(0).train, 0, lazy)[3]
    assert not x.is_cuda and torch.equal(x, stream.task(0).x[3].cpu())
    assert x.pin_memory().is_pinned()
    with pytest.raises(RuntimeError, match="cannot pin"):
        stream.task(0).x.pin_memory()


def augmented(scenario: Scenario = CIL) -> Stream:
    changes = {"augmentation": Augmentation.FLIP_CROP, "normalisation": Normalisation((0.5,), (0.25,))}
    benchmark = dataclasses.replace(DIGITS, **changes)
    return open_stream(benchmark, scenario, 0)


def test_what_a_strategy_trains_on_is_augmented_at_each_draw() -> None:
    """As by the other methods, with random numbers of each draw's own; the group `eval` is never augmented."""
    task = augmented().task(1)
    data = dataset_of(task.train, 0)
    drawn = [data[i] for i in (3, 3, 5)]
    for draw, (row, (x, y, label)) in enumerate(zip((3, 3, 5), drawn, strict=True)):
        batch = task.train.training_batch(slice(row, row + 1), draw)
        assert torch.equal(x, batch.x[0]) and y == int(batch.y) and label == 0
    assert not torch.equal(drawn[0][0], drawn[1][0])
    assert torch.equal(torch.stack([x for x, *_ in data.eval()]), task.x)
    again = dataset_of(augmented().task(1).train, 0)
    assert all(torch.equal(again[i][0], x) for i, (x, *_) in zip((3, 3, 5), drawn, strict=True))


def test_a_buffer_keeps_plain_images_and_augments_them_anew() -> None:
    task = augmented().task(0)
    whole = dataset_of(task.train, 0)
    buffer = whole.subset([2, 7])
    forget_the_rest([buffer])
    assert torch.equal(torch.stack([x for x, *_ in buffer.eval()]), task.x[[2, 7]])
    for draw, row in enumerate((2, 7, 2)):
        x, *_ = buffer[(2, 7).index(row)]
        assert torch.equal(x, task.train.training_batch(slice(row, row + 1), draw).x[0])
    with pytest.raises(KeyError):
        whole[3]


def test_rows_are_counted_alike_with_and_without_augmentation() -> None:
    counted = []
    for stream in (open_stream(DIGITS, CIL, 0), augmented()):
        task = stream.task(0)
        with tally.counting() as found:
            data = dataset_of(task.train, 0)
            _ = [data[i] for i in range(4)]
        counted.append((found.aside, len(task.train)))
    assert counted[0] == counted[1] and counted[0][0] == counted[0][1]


def test_there_and_back_is_the_same_stream() -> None:
    """Lost on the way is which samples were held out, a stream of theirs has no validation; here others are drawn."""
    ours = open_stream(DIGITS, CIL, 0)
    data = data_set(to_avalanche(ours), "digits-back")
    held_out = DIGITS.validation
    benchmark = from_avalanche(data, "x:y", validation=held_out, network="mlp-10", budget=Budget(8, steps=2))
    for scenario in Scenario:
        back, first = Stream(benchmark, benchmark.spec(scenario), 0, data), open_stream(DIGITS, scenario, 0)
        assert (back.spec.classes_per_task == 2 and back.task_names == first.task_names) or scenario is not CIL
        for j in range(3):
            assert torch.equal(back.test(j).x, first.test(j).x)
            assert torch.equal(back.test(j).labels, first.test(j).labels)
            validation, rest = back.task(j).validation, back.task(j).train
            there = [row.tobytes() for row in first.task(j).x.numpy()]
            again = [row.tobytes() for part in (validation, rest) for row in part.x.numpy()]
            assert sorted(there) == sorted(again) and len(validation) == held_out
            assert sum(there.index(row.tobytes()) < held_out for row in validation.x.numpy()) < held_out


def test_a_class_incremental_benchmark_of_theirs_becomes_one_of_ours() -> None:
    """Made by Avalanche's own function, with the classes in an order of its choice."""
    from avalanche.benchmarks import class_incremental_benchmark
    from avalanche.benchmarks.utils import as_classification_dataset

    def part(seed: int):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(6).repeat(10)
        inputs = torch.rand(60, 5, generator=generator) + labels[:, None]
        plain = TensorDataset(inputs, labels)
        plain.targets = labels.tolist()  # type: ignore[attr-defined]
        return as_classification_dataset(plain)

    theirs = class_incremental_benchmark(
        {"train": part(0), "test": part(1)}, num_experiences=3, class_order=[4, 1, 0, 5, 2, 3]
    )
    data = data_set(theirs, "rows")
    benchmark = from_avalanche(data, "x:y", validation=4, network="mlp-10", budget=Budget(8, steps=2))
    assert (benchmark.n_tasks, benchmark.classes_per_task, benchmark.stored_shape) == (3, 2, (1, 1, 5))
    stream = Stream(benchmark, benchmark.spec(CIL), 0, data)
    assert stream.task_names == ["1 4", "0 5", "2 3"]
    originals = stream.test(1).x.flatten(1)[:, 0].floor().long()
    assert set(originals[stream.test(1).labels == 2].tolist()) == {0}
    assert set(originals[stream.test(1).labels == 3].tolist()) == {5}


def test_inputs_that_are_no_tensors_are_refused() -> None:
    from benchmarks.avalanche import _image

    with pytest.raises(UserError, match="a list; give the benchmark a transform"):
        _image([1, 2])


def theirs(inputs: torch.Tensor, test: torch.Tensor, labels: torch.Tensor, test_labels: torch.Tensor):
    """A benchmark of Avalanche with two experiences of two classes."""
    from avalanche.benchmarks import class_incremental_benchmark
    from avalanche.benchmarks.utils import as_classification_dataset

    parts = {}
    for name, x, y in (("train", inputs, labels), ("test", test, test_labels)):
        plain = TensorDataset(x, y)
        plain.targets = y.tolist()  # type: ignore[attr-defined]
        parts[name] = as_classification_dataset(plain)
    return class_incremental_benchmark(parts, num_experiences=2, class_order=[0, 1, 2, 3])


LABELS = torch.arange(24) % 4


def noise(seed: int) -> torch.Tensor:
    return torch.rand(24, 1, 3, 3, generator=torch.Generator().manual_seed(seed))


def test_bytes_become_numbers_from_0_to_1() -> None:
    train, test = ((noise(seed) * 255).byte() for seed in (0, 1))
    data = data_set(theirs(train, test, LABELS, LABELS), "bytes")
    assert data.train_images.max() <= 1
    first = data.train_images[data.train_tasks == 0]
    assert sorted(first.flatten(1).tolist()) == sorted((train[LABELS < 2] / 255).flatten(1).tolist())


def with_nan() -> torch.Tensor:
    spoilt = noise(0)
    spoilt[5, 0, 0, 0] = float("nan")
    return spoilt


@pytest.mark.parametrize(
    ("train", "test", "test_labels", "sentence"),
    [
        (noise(0).long(), noise(1), LABELS, "an input is int64; give floats or uint8"),
        (with_nan(), noise(1), LABELS, r"own: training image \d+ .* is not finite"),
        (noise(0) * 255, noise(1) * 255, LABELS, "scale them to about 0 to 1"),
        (noise(0)[:, None], noise(1)[:, None], LABELS, r"an input has the shape \(1, 1, 3, 3\); give images"),
        (noise(0), torch.rand(24, 1, 4, 4), LABELS, r"shape \(1, 3, 3\), test images \(1, 4, 4\)"),
    ],
)
def test_their_data_goes_through_the_same_door(train, test, test_labels, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        data_set(theirs(train, test, LABELS, test_labels), "own")


def experience(*samples: Any) -> SimpleNamespace:
    return SimpleNamespace(dataset=SimpleNamespace(eval=lambda: samples))


def streams(train: Sequence[Any], test: Sequence[Any] | None = None) -> SimpleNamespace:
    return SimpleNamespace(train_stream=train, test_stream=train if test is None else test)


def with_classes(*classes: int, seed: int = 0) -> SimpleNamespace:
    """An experience with six samples of each class."""
    generator = torch.Generator().manual_seed(seed)
    return experience(*((torch.rand(1, 2, 2, generator=generator), label) for label in classes * 6))


def converted(*classes: Sequence[int]) -> tuple[DataSet, Benchmark]:
    """Experiences with these classes as a benchmark of ours."""
    train, test = ([with_classes(*some, seed=10 * part + j) for j, some in enumerate(classes)] for part in (0, 1))
    data = data_set(streams(train, test), "own")
    return data, from_avalanche(data, "x:y", validation=3, network="mlp-10", budget=Budget(8, steps=2))


@pytest.mark.parametrize(
    ("classes", "dil", "cil"),
    [
        (((0, 1), (2, 3)), "", ""),
        (((3, 7), (3, 7)), "", ""),  # the same classes, for example with permuted pixels
        (((0, 1), (0, 1, 2), (0,)), "", ""),  # perhaps numbers within each experience
        (((0, 3), (2, 3)), "", "the experiences 0 and 1 share class 3, which would be two classes"),
        (
            ((0, 1, 2), (0, 2), (1, 2)),
            "class 1 is label 1 in experience 0 and label 0 in experience 2, but all tasks share one head",
            "the experiences 0 and 1 share class 0, which would be two classes",
        ),
        (
            ((4, 5), (5, 6), (7, 8)),
            "class 5 is label 1 in experience 0 and label 0 in experience 1, but all tasks share one head",
            "the experiences 0 and 1 share class 5, which would be two classes",
        ),
    ],
)
def test_scenarios_that_contradict_shared_classes_are_not_defined(classes, dil: str, cil: str) -> None:
    data, benchmark = converted(*classes)
    assert dict(benchmark.undefined) == {scenario: why for scenario, why in ((DIL, dil), (CIL, cil)) if why}
    assert len(Stream(benchmark, benchmark.spec(TIL), 0, data)) == len(classes)
    for scenario in benchmark.undefined:
        with pytest.raises(UserError, match=f"own is not defined in {scenario}: "):
            benchmark.spec(scenario)


@pytest.mark.parametrize(
    ("classes", "noted"),
    [(((0, 1), (2, 3)), False), (((0, 3), (2, 3)), False), (((3, 7), (3, 7)), True), (((0, 1), (0, 1, 2)), True)],
)
def test_a_number_of_a_class_that_recurs_is_noted_where_cil_is_defined(classes, noted: bool) -> None:
    data, benchmark = converted(*classes)
    sentence = f"own: experiences have classes of the same number ({classes[0][0]} in the experiences 0 and 1), which"
    loaded = dataclasses.replace(data, notes=data.known)  # as `benchmarks.data.load` does
    for each in (data, loaded):
        assert [note.startswith(sentence) for note in door.notes(benchmark, each)] == [True] * noted


def test_classes_are_those_after_the_transforms_of_labels() -> None:
    """Avalanche's `targets` are the classes before them."""
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import as_classification_dataset

    def part(seed: int):
        plain = TensorDataset(noise(seed), LABELS)
        plain.targets = LABELS.tolist()  # type: ignore[attr-defined]
        groups = {name: (None, lambda y: 13 - int(y)) for name in ("train", "eval")}
        return as_classification_dataset(plain, transform_groups=groups)

    data = data_set(benchmark_from_datasets(train=[part(0)], test=[part(1)]), "own")
    assert data.task_names == ("10 11 12 13",)
    assert torch.equal(data.train_labels, 3 - LABELS) and torch.equal(data.test_labels, 3 - LABELS)


def test_a_data_set_without_targets_has_the_labels_of_its_samples() -> None:
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import AvalancheDataset, as_taskaware_classification_dataset

    def part(seed: int) -> Any:
        return TensorDataset(noise(seed), LABELS)

    theirs = benchmark_from_datasets(
        train=[AvalancheDataset([part(0)])], test=[as_taskaware_classification_dataset(part(1))]
    )
    data = data_set(theirs, "own")
    assert torch.equal(data.train_labels, LABELS) and torch.equal(data.test_labels, LABELS)


IMAGE = torch.zeros(1, 2, 2)
GOOD = with_classes(0, 1)


@pytest.mark.parametrize(
    ("theirs", "sentence"),
    [
        (SimpleNamespace(train_stream=[GOOD]), "own: the benchmark has no test stream; give it"),
        (SimpleNamespace(test_stream=[GOOD]), "own: the benchmark has no train stream; give it"),
        (streams([]), "the stream has no experiences"),
        (streams([GOOD, experience(), GOOD]), "experience 1 has no training samples; leave it out of both streams"),
        (streams([GOOD, experience()]), "experience 1 has no training samples; leave it out of both streams"),
        (streams([GOOD, GOOD], [GOOD, experience()]), "experience 1 has no test samples; leave it out"),
        (streams([experience((IMAGE,))]), "experience 0: training samples have no labels; give pairs"),
        (streams([GOOD], [experience(3)]), "experience 0: test samples have no labels; give pairs"),
        (streams([experience((IMAGE, torch.eye(3)[0]))]), r"0: a label is tensor\(\[1\., 0.*give the number"),
        (streams([experience((IMAGE, [1, 0]))]), r"a label is \[1, 0\]; give the number of the class"),
        (streams([experience((IMAGE, "cat"))]), "a label is 'cat'; give the number of the class"),
        (streams([experience((IMAGE, 0.5))]), r"a label is 0\.5; give the number"),
        (streams([experience((IMAGE, float("nan")))]), "a label is nan; give the number"),
        (streams([experience((IMAGE, None))]), "a label is None; give the number"),
        (streams([GOOD], [with_classes(0, 5)]), "0: its test data has the class 5, its training data has not"),
    ],
)
def test_what_cannot_be_converted_is_told_in_a_sentence(theirs: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        data_set(theirs, "own")


@pytest.mark.parametrize("kind", [int, float, str, torch.tensor])
def test_labels_of_any_kind_of_whole_number_are_taken(kind: Any) -> None:
    part = experience(*((IMAGE + i / 10, kind(i % 2)) for i in range(4)))
    assert data_set(streams([part]), "own").train_labels.tolist() == [0, 1, 0, 1]


def test_data_without_tasks_is_told() -> None:
    images, labels = noise(0), LABELS
    with pytest.raises(UserError, match=r"own: the data says no task of its samples; make it by .*data_set"):
        plain = DataSet("own", images, labels, images, labels)
        from_avalanche(plain, "x:y", validation=2, network="mlp-10", budget=Budget(8, steps=2))


def test_inputs_of_different_shapes_are_told() -> None:
    one = experience((torch.zeros(1, 3, 3), 0), (torch.zeros(1, 4, 3), 0))
    with pytest.raises(UserError, match=r"different shapes: \(1, 3, 3\) and \(1, 4, 3\); transform them to one"):
        data_set(streams([one]), "own")


def test_a_class_of_an_experience_without_test_images_is_named() -> None:
    train = [with_classes(0, 1), with_classes(2, 3, seed=1)]
    test = [train[0], with_classes(2, seed=2)]
    data = data_set(streams(train, test), "own")
    benchmark = from_avalanche(data, "x:y", validation=2, network="mlp-10", budget=Budget(8, steps=2))
    with pytest.raises(UserError, match="task 1: there are no test images of class 1, which training images have"):
        Stream(benchmark, benchmark.spec(TIL), 0, data)
