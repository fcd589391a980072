"""Validation samples: the first ones where the papers say so, else a draw with every class in proportion."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import strata
from benchmarks.catalogue import BENCHMARKS, Benchmark, HeldOut, Kind, find
from benchmarks.data import DataSet
from benchmarks.stream import Stream, TuningStream, open_stream
from benchmarks.types import CIL, TIL, Budget, Scenario, UserError
from tests.benchmarks.image_files import write_png_folder
from tests.benchmarks.synthetic import stream


@given(counts=st.lists(st.integers(1, 60), min_size=1, max_size=12), data=st.data())
def test_shares_are_in_proportion_and_leave_no_class_out(counts: list[int], data: st.DataObject) -> None:
    total, n_classes = sum(counts), len(counts)
    n = data.draw(st.integers(1, total))
    given = strata.shares(counts, n)
    assert sum(given) == n and all(0 <= share <= count for share, count in zip(given, counts, strict=True))
    if n <= total - n_classes:
        assert all(share < count for share, count in zip(given, counts, strict=True)), "every class keeps one"
    if n >= n_classes and min(counts) > 1:
        assert min(given) >= 1, "every class gives one"
    # A class may be off by a whole sample or more only for the sake of those that give or keep one.
    exact = [Fraction(n * count, total) for count in counts]
    if all(1 <= share <= count - 1 for share, count in zip(exact, counts, strict=True)):
        assert all(abs(share - wanted) < 1 for share, wanted in zip(given, exact, strict=True))


@pytest.mark.parametrize(
    ("counts", "n", "expected"),
    [([20, 20], 20, [10, 10]), ([100, 8], 20, [19, 1]), ([60, 9], 20, [17, 3]), ([5, 5, 5], 4, [2, 1, 1]),
     ([997, 2, 1], 100, [99, 1, 0])],
)  # fmt: skip
def test_shares_by_example(counts: list[int], n: int, expected: list[int]) -> None:
    assert strata.shares(counts, n) == expected


@pytest.mark.parametrize("n", [0.2, -1, 9, True])
def test_a_number_that_cannot_be_drawn_is_refused_and_does_not_hang(n: Any) -> None:
    with pytest.raises(ValueError, match="of 8 samples cannot be drawn"):
        strata.shares([5, 3], n)


@given(labels=st.lists(st.integers(0, 4), min_size=10, max_size=80), seed=st.integers(0, 99))
def test_a_draw_has_the_shares_and_depends_on_its_names_only(labels: list[int], seed: int) -> None:
    y = torch.tensor(labels)
    drawn = strata.drawn(y, 6, seed, "a")
    assert drawn.tolist() == sorted(set(drawn.tolist())) and len(drawn) == 6
    _, counts = y.unique(return_counts=True)
    found = [int((y[drawn] == label).sum()) for label in y.unique()]
    assert found == strata.shares(counts.tolist(), 6)
    assert torch.equal(drawn, strata.drawn(y, 6, seed, "a"))


def test_every_sample_is_drawn_as_often() -> None:
    y = torch.arange(40) % 2
    times = torch.stack([torch.bincount(strata.drawn(y, 10, seed), minlength=40) for seed in range(400)]).sum(0)
    assert int(times.min()) > 60 and int(times.max()) < 145, "of 400 draws 100 on average, sd 9"


def by_class(n_each: int, n_classes: int = 10, classes_per_task: int = 2, sizes: dict[int, int] | None = None):
    """A data set of two-class tasks whose samples lie class by class, as nc_benchmark of Avalanche lays them."""
    each = [(sizes or {}).get(c, n_each) for c in range(n_classes)]
    originals = torch.repeat_interleave(torch.arange(n_classes), torch.tensor(each))
    images = torch.rand(len(originals), 1, 4, 4, generator=torch.Generator().manual_seed(0))
    tests = torch.arange(n_classes)
    names = tuple(f"pair {j}" for j in range(n_classes // classes_per_task))
    return DataSet(
        "by-class", images, originals % classes_per_task, torch.rand(n_classes, 1, 4, 4), tests % classes_per_task,
        originals // classes_per_task, tests // classes_per_task, names,
    )  # fmt: skip


def own(data: DataSet, validation: int, **changes: object) -> Benchmark:
    assert data.train_tasks is not None
    n_tasks, per_task = int(data.train_tasks.max()) + 1, int(data.train_labels.max()) + 1
    made = Benchmark(
        "own", "Own", "package:function", Kind.GIVEN, n_tasks, per_task, (1, 4, 4), validation, "mlp-8",
        Budget(8, steps=2), "",
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def counts(a_stream: Stream, j: int) -> tuple[list[int], list[int]]:
    """Training and validation samples of each class of a task."""
    n, offset = a_stream.spec.classes_per_task, a_stream.spec.classes_per_task * j
    task = a_stream.task(j)
    shift = offset if a_stream.spec.scenario is CIL else 0
    parts = (task.train.labels - shift, task.validation.labels - shift)
    first, second = (labels.bincount(minlength=n).tolist() for labels in parts)
    return first, second


@pytest.mark.parametrize("scenario", Scenario)
def test_samples_that_lie_class_by_class_are_held_out_in_equal_shares(scenario: Scenario) -> None:
    """The case validation-one-class: [20, 0] held out and [0, 20] to train on, when the first ones were taken."""
    data = by_class(20)
    benchmark = own(data, 20)
    a_stream = Stream(benchmark, benchmark.spec(scenario), 0, data)
    assert [counts(a_stream, j) for j in range(5)] == [([10, 10], [10, 10])] * 5


def test_a_stream_of_avalanche_is_held_out_in_equal_shares() -> None:
    from avalanche.benchmarks import nc_benchmark
    from torch.utils.data import TensorDataset

    from benchmarks.avalanche import data_set, from_avalanche

    def part(n: int) -> TensorDataset:
        plain = TensorDataset(torch.rand(n, 1, 4, 4), torch.arange(n) % 10)
        plain.targets = (torch.arange(n) % 10).tolist()  # type: ignore[attr-defined]
        return plain

    data = data_set(nc_benchmark(part(200), part(50), n_experiences=5, task_labels=False, shuffle=False), "ten")
    benchmark = from_avalanche(data, "m:f", validation=20, network="mlp-8", budget=Budget(8, steps=2))
    assert counts(Stream(benchmark, benchmark.spec(TIL), 0, data), 0) == ([10, 10], [10, 10])


def test_a_rare_class_of_an_image_folder_is_trained_and_validated(tmp_path: Path, monkeypatch) -> None:
    """The case rare-class-unseen: [88, 0] and [49, 0] to train on, when ten of each class were taken first."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_png_folder(tmp_path / "birds", {"a": 100, "b": 8, "c": 60, "d": 9})
    a_stream = open_stream(find("images-birds-2x2-16px"), TIL, 0, data_dir=tmp_path)
    assert [counts(a_stream, j) for j in (0, 1)] == [([81, 7], [19, 1]), ([43, 6], [17, 3])]


def test_a_class_of_an_image_folder_that_cannot_be_shared_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_png_folder(tmp_path / "birds", {"auk": 60, "bittern": 60, "crane": 60, "dodo": 1})
    assert counts(open_stream(find("images-birds-1x3-16px"), TIL, 0, data_dir=tmp_path), 0) == ([50] * 3, [10] * 3)
    wanted = "images-birds-2x2-16px: class 'dodo' has 1 of the 61 training images of its task, and none is left as a v"
    with pytest.raises(UserError, match=wanted):
        open_stream(find("images-birds-2x2-16px"), TIL, 0, data_dir=tmp_path)


def test_a_class_that_cannot_be_shared_is_named_by_its_task_in_a_given_stream() -> None:
    data = by_class(20, sizes={3: 1})
    benchmark = own(data, 6)
    with pytest.raises(UserError, match=r"own: class 1 of task 1 has 1 of the 21 training images .* is left as a v"):
        Stream(benchmark, benchmark.spec(TIL), 0, data)
    without = replace(benchmark, validation=0)
    assert counts(Stream(without, without.spec(TIL), 0, data), 1) == ([20, 1], [0, 0])


def test_fewer_validation_samples_than_classes_are_refused() -> None:
    data = by_class(20, n_classes=9, classes_per_task=3)
    benchmark = own(data, 2)
    with pytest.raises(UserError, match=r"class 2 of task 0 has 20 of the 60 .* left as a validation image when 2 are"):
        Stream(benchmark, benchmark.spec(TIL), 0, data)


def test_a_class_whose_images_all_come_first_is_named_where_the_first_are_held_out() -> None:
    data = by_class(20)
    benchmark = own(data, 20, held_out=HeldOut.FIRST)
    with pytest.raises(UserError, match=r"class 0 of task 0 has 20 of the 40 .* none is left as a training image"):
        Stream(benchmark, benchmark.spec(TIL), 0, data)


def test_the_draw_follows_the_seed_and_the_task_and_not_the_scenario() -> None:
    data = by_class(20)
    benchmark = own(data, 20)

    def images(seed: int, j: int, scenario: Scenario = TIL) -> torch.Tensor:
        return Stream(benchmark, benchmark.spec(scenario), seed, data).task(j).validation.x

    assert torch.equal(images(0, 1), images(0, 1, CIL))
    assert not torch.equal(images(0, 1), images(1, 1))
    tuned = TuningStream(Stream(benchmark, benchmark.spec(TIL), 0, data))
    assert torch.equal(tuned.test(1).x, images(0, 1))
    # Tasks of 20 + 20 samples: the same places would be held out if the task's number were not in the draw.
    places = [[int((row == data.train_images).flatten(1).all(1).nonzero()) - 40 * j for row in images(0, j)]
              for j in (0, 1)]  # fmt: skip
    assert places[0] != places[1]


@pytest.mark.parametrize("name", ["permuted-digits", "rotated-mnist"])
def test_tasks_that_have_the_same_images_hold_the_same_ones_out(name: str) -> None:
    """Else a task would train on what another one is validated on; and a hundred tasks have one copy of the draw."""
    a_stream = stream(name, TIL, held_out=HeldOut.DRAWN, validation=20)
    first, last = a_stream.task(0), a_stream.task(9)
    assert first.validation.rows is last.validation.rows and first.train.rows is last.train.rows
    assert first.validation.labels.bincount().tolist() == [2] * 10
    assert sorted([*first.train.rows.tolist(), *first.validation.rows.tolist()]) == list(range(400))


def test_shipped_benchmarks_hold_the_first_images_out_and_no_others_do() -> None:
    assert {benchmark.held_out for benchmark in BENCHMARKS.values()} == {HeldOut.FIRST}
    assert find("split-mnist-shuffled").held_out is HeldOut.FIRST
    assert find("images-birds-2x2").held_out is HeldOut.DRAWN
    assert find("images-birds-2x2-shuffled").held_out is HeldOut.DRAWN
