"""Tasks with unequal numbers of classes, and samples that are no images: rows of a table, series."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
import torch
from PIL import Image

from benchmarks.catalogue import Augmentation, Benchmark, ClassOrder, HeldOut, Kind, Normalisation, find
from benchmarks.data import DataSet
from benchmarks.stream import Stream
from benchmarks.types import CIL, DIL, TIL, Budget, Scenario, UserError
from runners.cell import sample_sheet
from runners.grid.build import definition_of

SIZES = (2, 4, 1)
SPLIT = Benchmark("mine", "Mine", "m:f", Kind.SPLIT, 3, SIZES, (5,), 4, "mlp-10", Budget(8, steps=5), "Mine.")
GIVEN = replace(SPLIT, kind=Kind.GIVEN)


def table(shape: tuple[int, ...] = (5,), n_classes: int = 7) -> DataSet:
    """Rows whose first number tells the class."""
    y = torch.arange(20 * n_classes) % n_classes
    x = torch.rand(len(y), *shape, generator=torch.Generator().manual_seed(0))
    x.flatten(1)[:, 0] = y / n_classes
    test = torch.arange(len(y)) // n_classes % 4 == 0
    return DataSet("table", x[~test], y[~test], x[test], y[test])


def with_tasks() -> DataSet:
    """The same with tasks of 2, 4 and 1 classes, whose labels count within the task."""
    plain, first = table(), torch.tensor([0, 0, 2, 2, 2, 2, 6])
    parts = {}
    for part in ("train", "test"):
        labels = getattr(plain, f"{part}_labels")
        parts |= {f"{part}_labels": labels - first[labels], f"{part}_tasks": (labels > 1).long() + (labels > 5).long()}
    return replace(plain, **parts)


def opened(scenario: Scenario, benchmark: Benchmark = SPLIT, data: DataSet | None = None) -> Stream:
    return Stream(benchmark, benchmark.spec(scenario), 0, data or table(benchmark.stored_shape))


@pytest.mark.parametrize("data, benchmark", [(table(), SPLIT), (with_tasks(), GIVEN)], ids=["split", "given"])
@pytest.mark.parametrize(
    "scenario, labels", [(TIL, [[0, 1], [0, 1, 2, 3], [0]]), (CIL, [[0, 1], [2, 3, 4, 5], [6]])], ids=str
)
def test_labels_and_samples_of_each_task(scenario, labels, data, benchmark):
    stream = opened(scenario, benchmark, data)
    for j, expected in enumerate(labels):
        train = stream.task(j).train
        for samples in (train, stream.task(j).validation, stream.test(j)):
            assert samples.labels.unique().tolist() == expected
        original = torch.tensor([0, 2, 6])[j] + train.labels - min(expected)
        assert torch.allclose(train.x[:, 0], original / 7)


def test_outputs_of_each_scenario():
    til, dil, cil = (SPLIT.spec(scenario) for scenario in (TIL, DIL, CIL))
    assert til.sizes == cil.sizes == SIZES and til.n_outputs == cil.n_outputs == 7
    assert [til.outputs_of(j) for j in range(3)] == [slice(0, 2), slice(2, 6), slice(6, 7)]
    assert [cil.classes_of(j) for j in range(3)] == [2, 4, 1] and cil.outputs_before(3) == 7
    assert (dil.n_outputs, dil.classes_of(0), dil.sizes) == (4, 4, ())  # one head, as wide as the largest task
    assert opened(DIL).task(2).train.labels.unique().tolist() == [0]


def test_a_list_of_equal_numbers_is_one_number():
    equal, plain = replace(SPLIT, classes_per_task=[2, 2, 2]), replace(SPLIT, classes_per_task=2)
    assert equal == plain and equal.spec(CIL) == plain.spec(CIL) and plain.spec(CIL).sizes == ()
    assert "sizes" not in definition_of(find("split-digits"), None)
    assert definition_of(replace(SPLIT, dataset="digits"), None)["sizes"] == [2, 4, 1]
    swapped = replace(SPLIT, dataset="digits", classes_per_task=[4, 2, 1])
    assert definition_of(swapped, None) != definition_of(replace(SPLIT, dataset="digits"), None)


def test_classes_drawn_from_the_seed_fill_unequal_tasks():
    stream = opened(CIL, SPLIT.shuffled())
    assert list(map(len, stream.classes)) == [2, 4, 1]
    drawn = [c for classes in stream.classes for c in classes]
    assert sorted(drawn) == list(range(7)) != drawn


def test_one_class_a_task_is_class_incremental_only():
    single = replace(SPLIT, n_tasks=7, classes_per_task=1, validation=2)
    assert single.scenarios == (CIL,)
    assert [opened(CIL, single).task(j).train.labels.unique().tolist() for j in range(7)] == [[j] for j in range(7)]
    with pytest.raises(UserError, match="not defined in til: each task has one class"):
        single.spec(TIL)
    assert find("images-birds-5x1").scenarios == (CIL,)


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"classes_per_task": [2, 4]}, "classes_per_task has 2 numbers, but there are 3 tasks"),
        ({"classes_per_task": [2, 0, 3]}, "must be whole numbers from 1"),
        ({"n_tasks": 0, "classes_per_task": 2}, "must be whole numbers from 1"),
        ({"stored_shape": 20}, r"the shape a tuple such as \(1, 28, 28\) or \(20,\), not 3, .*, 20"),
        ({"stored_shape": (4, 0)}, "must be whole numbers from 1"),
        ({"kind": Kind.PERMUTED}, "in a permuted benchmark every task has all classes; write one number"),
        ({"n_tasks": 1, "classes_per_task": 1}, "one class only, so that there is nothing to tell apart"),
        (
            {"kind": Kind.ROTATED, "classes_per_task": 7},
            r"rotation is for images .* stored_shape is \(5,\); leave it out",
        ),
        ({"augmentation": Augmentation.FLIP_CROP}, "augmentation 'flip-crop' is for images"),
        ({"kind": Kind.PERMUTED, "classes_per_task": 7, "padding": 2}, "padding is for images"),
        ({"normalisation": Normalisation((0.1, 0.2), (1.0, 1.0))}, "2 means, which is for images; give one mean"),
        *(
            ({"normalisation": constants}, r"normalisation is .*; write Normalisation\(\(0\.5,\), \(0\.25,\)\)")
            for constants in (
                Normalisation(0.5, 0.5),  # type: ignore[arg-type]
                ((0.5,), (0.5,)),
                Normalisation(("a",), (1,)),  # type: ignore[arg-type]
                Normalisation((0.5,), (True,)),
                Normalisation((math.nan,), (1.0,)),
                Normalisation((10**400,), (1.0,)),
            )
        ),
        ({"budget": 5}, r"budget is 5; write Budget\(batch_size, steps=\.\.\.\)"),
        ({"n_tasks": True, "classes_per_task": 7}, "must be whole numbers from 1"),
        ({"n_tasks": 3.0}, "must be whole numbers from 1"),
        ({"classes_per_task": 2.5}, "must be whole numbers from 1"),
        ({"classes_per_task": "224"}, "must be whole numbers from 1"),
        ({"validation": 0.2}, r"validation must be a whole number from 0, not 0\.2"),
        ({"validation": -2}, "validation must be a whole number from 0, not -2"),
        ({"validation": True}, "validation must be a whole number from 0, not True"),
        ({"padding": -1}, "padding must be a whole number from 0, not -1"),
        ({"padding": 2, "stored_shape": (1, 4, 4)}, "a split benchmark has none; leave it out"),
        (
            {"padding": 2, "stored_shape": (1, 4, 4), "kind": "rotated", "classes_per_task": 7},
            "a rotated benchmark has none; leave it out",
        ),
        ({"class_order": "shuffled", "kind": "given"}, "class_order 'shuffled' is for a split benchmark, not a given"),
        ({"class_order": "fecam", "kind": "permuted", "classes_per_task": 7}, "split benchmark, not a permuted one"),
        ({"kind": "splitt"}, "kind is 'splitt'; write one of split, permuted, rotated, given"),
        ({"class_order": "shufled"}, "class_order is 'shufled'; write one of natural, shuffled, fecam, superclasses, "),
        ({"held_out": "frist"}, "held_out is 'frist'; write one of first, drawn"),
        ({"augmentation": None}, "augmentation is None; write one of none, flip-crop"),
        ({"undefined": {"tll": "no"}}, "undefined is 'tll'; write one of til, dil, cil"),
    ],
)
def test_what_no_data_can_be_cut_into_is_refused_at_once(changes, sentence):
    with pytest.raises(UserError, match=f"benchmark mine: .*{sentence}"):
        replace(SPLIT, **changes)


def test_plain_words_mean_the_same_as_members():
    """The stream compares by identity: the text `permuted` gave tasks without permutation."""
    plain = replace(SPLIT, class_order="shuffled", held_out="first", undefined={"til": "no"})
    assert plain == replace(SPLIT, class_order=ClassOrder.SHUFFLED, held_out=HeldOut.FIRST, undefined={TIL: "no"})
    assert plain.class_order is ClassOrder.SHUFFLED and plain.held_out is HeldOut.FIRST
    assert all(type(scenario) is Scenario for scenario in plain.undefined)
    images = replace(SPLIT, stored_shape=(1, 4, 4), augmentation="flip-crop")
    assert opened(TIL, images).task(0).train.augment is not None
    permuted = replace(SPLIT, kind="permuted", classes_per_task=7, validation=7)
    first, second = (opened(DIL, permuted).task(j).train.x for j in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("shape", [(6,), (2, 3)], ids=["table", "series"])
def test_tables_and_series_are_permuted_and_normalised(shape):
    permuted = replace(
        SPLIT,
        kind=Kind.PERMUTED,
        classes_per_task=7,
        stored_shape=shape,
        normalisation=Normalisation((0.5,), (2.0,)),
        validation=7,
    )
    stream = opened(DIL, permuted)
    x, rows = stream.task(1).train.x, stream.task(1).train.rows
    stored = stream.data.train_images[rows].flatten(1)
    assert stream.spec.input_shape == (6,)
    assert torch.allclose(x, (stored[:, stream.orders[1]] - 0.5) / 2)
    plain = opened(TIL, replace(SPLIT, stored_shape=shape, normalisation=Normalisation((0.5,), (2.0,))))
    assert plain.spec.input_shape == shape
    assert plain.test(0).x.shape[1:] == shape and plain.test(0).x.min() < 0


def test_what_is_no_image_has_no_sheet_of_images():
    square = replace(SPLIT, stored_shape=(9,))
    assert sample_sheet.sheet(opened(TIL, square)) is None  # nine features are no picture of 3 x 3
    sheet = sample_sheet.sheet(opened(TIL, replace(SPLIT, stored_shape=(1, 3, 3))))
    assert sheet is not None and Image.open(io.BytesIO(sheet)).size == (3 * 10, 3 * 3)  # rows of 10, 8 and 10 tiles
