"""Data sets of one's own with ordinary mistakes: each has a sentence of its own, before any method sees the data."""

from dataclasses import replace

import pytest
import torch

from benchmarks import data as benchmarks_data
from benchmarks import door, plugins
from benchmarks.catalogue import Benchmark, Kind, Normalisation, find
from benchmarks.data import DataError, DataSet, content_of, load
from benchmarks.stream import Stream
from benchmarks.types import TIL, Budget

SPLIT = Benchmark("mine", "Mine", "m:f", Kind.SPLIT, 2, 2, (1, 4, 4), 8, "mlp-10", Budget(16, steps=20), "Mine.")
GIVEN = replace(SPLIT, kind=Kind.GIVEN)
ALL = replace(SPLIT, kind=Kind.PERMUTED, classes_per_task=4)


def good() -> DataSet:
    """Four classes of 30 training and 10 test images."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(160, 1, 4, 4, generator=generator)
    y = torch.arange(160) % 4
    return DataSet("own", x[:120], y[:120], x[120:], y[120:])


def given() -> DataSet:
    """The same as two tasks of two classes."""
    plain = good()
    tasks = {f"{part}_tasks": getattr(plain, f"{part}_labels") // 2 for part in ("train", "test")}
    labels = {f"{part}_labels": getattr(plain, f"{part}_labels") % 2 for part in ("train", "test")}
    return replace(plain, **tasks, **labels)


def opened(data: DataSet, benchmark: Benchmark = SPLIT) -> Stream:
    return Stream(benchmark, benchmark.spec(TIL), 0, data)


def changed(data: DataSet, name: str, index: object, value: float) -> DataSet:
    tensor = getattr(data, name).clone()
    tensor[index] = value
    return replace(data, **{name: tensor})


def only(data: DataSet, part: str, keep: torch.Tensor) -> DataSet:
    names = [f"{part}_{kind}" for kind in ("images", "labels", "tasks") if getattr(data, f"{part}_{kind}") is not None]
    return replace(data, **{name: getattr(data, name)[keep] for name in names})


def both(data: DataSet, change) -> DataSet:
    return replace(data, train_images=change(data.train_images), test_images=change(data.test_images))


def tasks_of(data: DataSet, part: str) -> torch.Tensor:
    return getattr(data, f"{part}_tasks")


def fewer() -> DataSet:
    """The same, but the second task lacks its second class."""
    found = given()
    for part in ("train", "test"):
        found = only(found, part, (tasks_of(found, part) < 1) | (getattr(found, f"{part}_labels") < 1))
    return found


G, T = good(), given()
FAULTS = {
    "float64": (both(G, torch.Tensor.double), SPLIT, "training images are float64; give uint8"),
    "float16": (both(G, torch.Tensor.half), SPLIT, "training images are float16; give uint8"),
    "whole numbers": (both(G, torch.Tensor.long), SPLIT, "training images are int64; give uint8"),
    "an array": (replace(G, train_images=G.train_images.numpy()), SPLIT, "train_images is a ndarray, not a torch.T"),
    "sparse images": (
        both(G, torch.Tensor.to_sparse),
        SPLIT,
        r"train_images has the layout torch.sparse_coo; give it by .to_dense\(\)",
    ),
    "labels as a list": (replace(G, test_labels=[0, 1]), SPLIT, "test_labels is a list, not a torch.Tensor"),
    "no labels": (replace(G, train_labels=None), SPLIT, "there are no training labels"),
    "no channels": (
        both(G, lambda x: x[:, 0]),
        SPLIT,
        r"\(4, 4\), not \(1, 4, 4\); add the channel by .unsqueeze\(1\)",
    ),
    "no samples": (
        both(G, lambda x: x[:, 0, 0, 0]),
        SPLIT,
        r"samples have the shape \(120,\), not \(images, channels, he",
    ),
    "no images": (only(G, "train", torch.zeros(120, dtype=torch.bool)), SPLIT, "there are no training images"),
    "no test images": (only(G, "test", torch.zeros(40, dtype=torch.bool)), SPLIT, "there are no test images"),
    "two sizes": (
        replace(G, test_images=torch.rand(40, 1, 5, 5)),
        SPLIT,
        r"\(1, 4, 4\), test images \(1, 5, 5\)",
    ),
    "two types": (replace(G, test_images=G.test_images.byte()), SPLIT, "are float32, test images uint8; give both"),
    "another size": (G, replace(SPLIT, stored_shape=(1, 8, 8)), r"have the shape \(1, 4, 4\), not \(1, 8, 8\)"),
    "column": (replace(G, train_labels=G.train_labels[:, None]), SPLIT, r"training labels have the shape \(120, 1\)"),
    "fewer labels": (replace(G, train_labels=G.train_labels[:-7]), SPLIT, "113 training labels, but 120 images"),
    "more test labels": (replace(G, test_labels=torch.arange(41) % 4), SPLIT, "41 test labels, but 40 images"),
    "int32": (
        replace(G, train_labels=G.train_labels.int()),
        SPLIT,
        r"labels are int32, not int64; .*long\(\)",
    ),
    "float labels": (replace(G, test_labels=G.test_labels.float()), SPLIT, "test labels are float32, not int64"),
    "negative": (changed(G, "train_labels", 5, -1), SPLIT, "training labels go down to -1; count from 0"),
    "from one": (
        replace(G, train_labels=G.train_labels + 1, test_labels=G.test_labels + 1),
        SPLIT,
        "no training images of class 0, but labels go to 4; number the classes from 0 without a gap",
    ),
    "a gap": (
        replace(G, train_labels=G.train_labels * 10**12, test_labels=G.test_labels * 10**12),
        SPLIT,
        "no training images of class 1, but labels go to 3000000000000",
    ),
    "task untested": (only(G, "test", G.test_labels < 2), SPLIT, "no test images of the classes 2, 3, which training"),
    "class untested": (only(G, "test", G.test_labels < 3), SPLIT, "no test images of class 3, which training"),
    "class unlearnt": (only(G, "train", G.train_labels < 3), SPLIT, "no training images of class 3, which test images"),
    "unlearnt in all": (only(G, "train", G.train_labels < 3), ALL, "no training images of class 3, which test images"),
    "an order of other classes": (
        G,
        replace(SPLIT, class_order="fecam"),
        "class_order 'fecam' is an order of the 100 classes of CIFAR-100, but own has 4; write 'natural' or 'shuffled'",
    ),
    "superclasses of other classes": (
        G,
        replace(SPLIT, class_order="shuffled-superclasses"),
        "class_order 'shuffled-superclasses' is an order of the 100 classes",
    ),
    "too few classes": (G, replace(SPLIT, n_tasks=3), "mine needs 6 classes, but own has 4"),
    "too many classes": (G, replace(ALL, classes_per_task=3), "all 4 classes of own, but classes_per_task is 3"),
    "a NaN": (changed(G, "train_images", (7, 0, 1, 1), float("nan")), SPLIT, "training image 7 .* is not finite"),
    "a NaN in a test": (changed(G, "test_images", (3, 0, 0, 0), float("nan")), SPLIT, "test image 3 .* is not finite"),
    "an infinity": (changed(G, "test_images", (2, 0, 0, 0), float("-inf")), SPLIT, "test image 2 .* is not finite"),
    "0 to 255": (both(G, lambda x: x * 255), SPLIT, "with values from .* to 25.*; scale them .* by 255"),
    "0 to 16": (both(G, lambda x: x * 16), SPLIT, "with values from .* to 1.*; scale them"),
    "less a mean": (both(G, lambda x: x * 255 - 120), SPLIT, "with values from -1.* to 1.*; scale them"),
    "gradients": (both(G, lambda x: x.clone().requires_grad_()), SPLIT, "training images require gradients"),
    "constants": (G, replace(SPLIT, normalisation=Normalisation((0.5,) * 3, (0.5,) * 3)), "3 means .* have 1 channels"),
    "no deviation": (G, replace(SPLIT, normalisation=Normalisation((0.5,), (0.0,))), "with deviations above 0"),
    "no tasks": (G, GIVEN, "must say which task each sample belongs to"),
    "half the tasks": (replace(T, test_tasks=None), GIVEN, "tasks are given of one part only"),
    "task column": (
        replace(T, train_tasks=tasks_of(T, "train")[:, None]),
        GIVEN,
        "tasks of training images have",
    ),
    "an untested task": (only(T, "test", tasks_of(T, "test") < 1), GIVEN, "there are no test samples of the tasks 1"),
    "a task too many": (T, replace(GIVEN, n_tasks=3), "there are no training samples of the tasks 2"),
    "a class of a task": (
        only(T, "test", (tasks_of(T, "test") < 1) | (T.test_labels < 1)),
        GIVEN,
        "task 1: there are no test images of class 1, which training images have",
    ),
    "a gap in a task": (
        only(T, "train", (tasks_of(T, "train") < 1) | (T.train_labels > 0)),
        GIVEN,
        "task 1: there are no training images of class 0, but labels go to 1",
    ),
    "global labels": (
        replace(T, train_labels=G.train_labels),
        GIVEN,
        "labels within a task go to 3, but classes_per_task is 2; count labels from 0 within each task",
    ),
    "fewer classes": (
        fewer(),
        GIVEN,
        r"task 1 has 1 classes in the data, but classes_per_task says 2; write classes_per_task=\[2, 1\]",
    ),
    "a table of bytes as floats": (
        both(G, lambda x: 255 * x.flatten(1)),
        replace(SPLIT, stored_shape=(16,)),
        "training samples are float32 .*; scale each feature to about 0 to 1, or standardise it",
    ),
    "another table": (
        both(G, lambda x: x.flatten(1)),
        replace(SPLIT, stored_shape=(15,)),
        r"samples of own have the shape \(16,",
    ),
    "a NaN in a table": (
        changed(both(G, lambda x: x.flatten(1)), "test_images", (3, 2), float("nan")),
        replace(SPLIT, stored_shape=(16,)),
        "test sample 3 .* is not finite",
    ),
    "one class": (
        replace(G, train_labels=G.train_labels * 0, test_labels=G.test_labels * 0),
        SPLIT,
        "own has one class only, so that there is nothing to tell apart",
    ),
    "one class in all": (
        replace(G, train_labels=G.train_labels * 0, test_labels=G.test_labels * 0),
        ALL,
        "own has one class only",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_a_sentence_of_its_own(fault: str) -> None:
    data, benchmark, sentence = FAULTS[fault]
    with pytest.raises(DataError, match=sentence):
        opened(data, benchmark)


@pytest.mark.parametrize(
    "data",
    [
        G,
        both(G, lambda x: (x * 255).byte()),
        both(G, lambda x: (x - x.mean()) / x.std()),
        both(G, lambda x: 2 * x - 1),
        changed(both(G, lambda x: (x - x.mean()) / x.std()), "train_images", (0, 0, 0, 0), 60.0),  # a rare pixel, lit
    ],
    ids=["[0, 1]", "bytes", "standardised", "[-1, 1]", "an outlier"],
)
def test_what_is_in_order_passes(data: DataSet) -> None:
    assert len(opened(data).task(1).train) == 52 and door.notes(SPLIT, data) == []


def test_test_images_among_the_training_images_are_counted() -> None:
    mixed = replace(G, test_images=torch.cat([G.train_images[:12], G.test_images[12:]]))
    assert door.notes(SPLIT, mixed) == ["own: 12 of 40 test images are also training images"]
    wrong = replace(mixed, test_labels=torch.cat([(G.test_labels[:3] + 1) % 4, G.test_labels[3:]]))
    assert door.notes(SPLIT, wrong)[0].endswith("are also training images, 3 of them with another label")


def test_a_test_set_that_is_the_training_set_is_named_and_refused_of_a_package(monkeypatch) -> None:
    order = torch.arange(119, -1, -1)
    same = replace(G, test_images=G.train_images[order], test_labels=G.train_labels[order])
    assert door.notes(SPLIT, same) == [f"own: {door.same('images')}"]
    monkeypatch.setattr(plugins, "make", lambda _name: same)
    benchmarks_data._load.cache_clear()
    with pytest.raises(DataError, match="the test images are the training images"):
        load("some:thing")


def test_arrays_are_told_where_a_package_is_loaded(monkeypatch) -> None:
    arrays = replace(G, train_images=G.train_images.numpy(), test_images=G.test_images.numpy())
    for data, sentence in ((arrays, "train_images is a ndarray"), (both(G, torch.Tensor.to_sparse), "has the layout")):
        monkeypatch.setattr(plugins, "make", lambda _name, data=data: data)
        benchmarks_data._load.cache_clear()
        with pytest.raises(DataError, match=sentence):
            load("some:thing")


def test_training_images_with_two_labels_in_a_task_are_counted() -> None:
    twice = replace(G, train_images=G.train_images.clone())
    twice.train_images[:3] = G.train_images[5:8]  # the classes 0, 1, 2, and 1, 2, 3
    assert door.notes(SPLIT, twice) == ["own: 3 different training images have more than one label"]
    tasks = {f"{part}_tasks": getattr(G, f"{part}_labels") for part in ("train", "test")}
    assert door.look_through(replace(twice, **tasks)) == (), "in two tasks an image may have two labels"


def test_data_that_is_not_used_is_noted() -> None:
    assert door.notes(replace(GIVEN, n_tasks=1), T) == ["mine uses 1 of the 2 tasks of own"]
    assert door.notes(replace(SPLIT, n_tasks=1), G) == ["mine uses 2 of the 4 classes of own"]


def test_tasks_that_are_not_used_may_have_more_classes() -> None:
    labels = {f"{part}_labels": getattr(G, f"{part}_labels") for part in ("train", "test")}  # of task 1: 2 and 3
    more = replace(T, **labels, task_names=("first", "second"))
    stream = opened(more, replace(GIVEN, n_tasks=1))
    assert stream.task(0).train.labels.unique().tolist() == [0, 1] and stream.task_names == ["first"]


def test_too_few_names_of_tasks_are_replaced_by_numbers() -> None:
    assert opened(replace(T, task_names=("first",)), GIVEN).task_names == ["task 1", "task 2"]


def test_a_data_set_is_looked_through_once_and_one_as_published_not_at_all(monkeypatch) -> None:
    looks = []
    real = door._check_values
    monkeypatch.setattr(door, "_check_values", lambda *args: looks.append(args[1]) or real(*args))
    data = good()
    opened(data)
    opened(data)
    assert looks == ["training", "test"]
    digits = find("split-digits")
    Stream(digits, digits.spec(TIL), 0, load("digits"))
    assert looks == ["training", "test"]


def test_what_a_package_says_of_its_own_data_is_not_believed(monkeypatch) -> None:
    """Notes would pass for a look through the data."""
    spoilt = replace(changed(G, "test_images", (3, 0, 0, 0), float("nan")), notes=(), content="x")
    monkeypatch.setattr(plugins, "_imported", lambda *_: lambda: spoilt)
    benchmarks_data._load.cache_clear()
    with pytest.raises(DataError, match="test image 3"):
        load("some:thing")


def test_the_content_of_data_is_every_value_type_and_shape() -> None:
    others = [
        changed(G, "train_images", (119, 0, 3, 3), 0.25),
        changed(G, "test_labels", 0, 1),
        both(G, lambda x: x.transpose(2, 3)),
        both(G, lambda x: x.view(-1, 2, 2, 4)),
        given(),
        changed(given(), "train_tasks", 0, 1),
        changed(given(), "test_tasks", 0, 1),
    ]
    assert len({content_of(data) for data in [G, *others]}) == 8
    assert content_of(good()) == content_of(G)
    assert content_of(both(G, lambda x: x.transpose(2, 3).contiguous().transpose(2, 3))) == content_of(G)


def test_a_package_makes_its_data_with_one_thread(monkeypatch) -> None:
    """Sums, as in standardising, depend on how many add up: the data would differ from worker to worker."""
    seen = []

    def made() -> DataSet:
        seen.append(torch.get_num_threads())
        return good()

    monkeypatch.setattr(plugins, "_imported", lambda *_: made)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        plugins.make("some:thing")
        assert seen == [1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
