"""A task leads to its own images only, and what is done to them does not reach another task."""

from collections.abc import Iterator

import pytest
import torch

from benchmarks.catalogue import BENCHMARKS, Kind
from benchmarks.samples import Samples
from benchmarks.stream import TuningStream
from benchmarks.types import CIL, TIL, Scenario, Task
from tests.benchmarks.synthetic import numbers, stream
from tests.benchmarks.test_stream import storage_bytes

SPLIT = [name for name, benchmark in BENCHMARKS.items() if benchmark.kind is Kind.SPLIT]


def reached(samples: Samples) -> Iterator[torch.Tensor]:
    """Every number in the memory of every tensor that samples lead to, views undone."""
    for tensor in vars(samples).values():
        if isinstance(tensor, torch.Tensor):
            yield torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())


@pytest.mark.parametrize("name", SPLIT)
@pytest.mark.parametrize("scenario", [TIL, CIL])
def test_a_task_of_its_own_images_leads_to_no_others(name: str, scenario: Scenario) -> None:
    a_stream = stream(name, scenario)
    task = a_stream.task(1)
    for part in (task.train, task.validation):
        assert len(part.pixels) == len(part) and part.pixels._base is part.labels._base is None
        sizes = [len(memory) for memory in reached(part)]
        assert sizes == [part.pixels.numel(), len(part), len(part)]
    assert not set(numbers(task.train)) & set(numbers(task.validation))


def test_row_numbers_kept_lead_to_nothing_in_a_later_task() -> None:
    """The cheat of issue 21: row numbers are read back through the images of a later task."""
    a_stream = stream("split-mnist", TIL)
    first, second = a_stream.task(0), a_stream.task(1)
    read_back = second.train.pixels.index_select(0, first.train.rows[:20])
    known = {row.numpy().tobytes() for row in first.train.pixels}
    assert not known & {row.numpy().tobytes() for row in read_back}


def changed(task: Task) -> None:
    for samples in (task.train, task.validation):
        samples.pixels.zero_()
        samples.labels.fill_(1)
        samples.rows.fill_(0)


@pytest.mark.parametrize("scenario", Scenario)
def test_changes_in_place_stay_within_the_task(scenario: Scenario) -> None:
    a_stream = stream("split-digits-shuffled", scenario, seed=2)
    clean = stream("split-digits-shuffled", scenario, seed=2)
    changed(a_stream.task(1))
    changed(a_stream.task(2, previous=True))
    changed(a_stream.task(2, previous=True).previous[0])
    for j in range(len(clean)):
        for mine, theirs in (
            (a_stream.task(j).train, clean.task(j).train),
            (a_stream.task(j).validation, clean.task(j).validation),
            (a_stream.test(j), clean.test(j)),
            (TuningStream(a_stream).test(j), clean.task(j).validation),
        ):
            assert torch.equal(mine.x, theirs.x) and torch.equal(mine.labels, theirs.labels)


@pytest.mark.parametrize("name", ["permuted-digits", "rotated-mnist"])
def test_tasks_with_the_same_images_share_one_tensor(name: str) -> None:
    a_stream = stream(name, TIL)
    views = [part for j in range(10) for part in (a_stream.task(j).train, a_stream.task(j).validation)]
    assert all(view.pixels is a_stream.data.train_images for view in views)
    joined = Samples.concatenate([a_stream.task(j).train for j in range(10)])
    assert joined.pixels is a_stream.data.train_images


@pytest.mark.parametrize("scenario", [TIL, CIL])
def test_concatenation_joins_tasks_with_images_of_their_own(scenario: Scenario) -> None:
    a_stream = stream("split-cifar-100-5x20-fecam", scenario)
    parts = [a_stream.task(j).train for j in range(3)]
    joined = Samples.concatenate(parts)
    assert torch.equal(joined.x, torch.cat([part.x for part in parts]))
    assert torch.equal(joined.labels, torch.cat([part.labels for part in parts]))
    assert joined.task_ids().bincount().tolist() == [len(part) for part in parts]
    assert joined.augment is parts[-1].augment and joined.normalise is parts[0].normalise
    images = joined.pixels.numel()
    assert storage_bytes([joined.pixels]) == images, "uint8, each image once"
    shuffled = torch.arange(len(joined)).flip(0)
    assert torch.equal(joined.batch(shuffled).x, joined.x.flip(0))


def test_concatenation_takes_the_rows_of_each_part_only() -> None:
    a_stream = stream("split-digits", TIL)
    first = a_stream.task(0).train
    few = Samples(first.pixels, first.rows[[5, 3, 5]], first.labels[[5, 3, 5]], 0)
    joined = Samples.concatenate([few, a_stream.task(1).train])
    assert len(joined.pixels) == len(joined) and torch.equal(joined.x[:3], first.x[[5, 3, 5]])


def test_samples_of_several_streams_are_not_concatenated() -> None:
    with pytest.raises(ValueError, match="only samples of one stream"):
        Samples.concatenate([stream("split-digits", TIL).task(0).train, stream("split-mnist", TIL).task(0).train])
    with pytest.raises(ValueError, match="only samples of one stream"):
        Samples.concatenate([stream("permuted-digits", TIL, seed).task(0).train for seed in (0, 1)])


def test_a_copy_of_some_samples_holds_nothing_else() -> None:
    a_stream = stream("permuted-digits", CIL)
    task = a_stream.task(3).train
    for indices in (torch.tensor([7, 2, 7]), slice(2, 5)):
        few = task.copied(indices)
        assert len(few.pixels) == len(few) == 3
        assert [len(memory) for memory in reached(few)] == [3 * 64, 3, 3], "no view of more"
        assert torch.equal(few.x, task.x[indices]) and torch.equal(few.labels, task.labels[indices])
    mixed = Samples.concatenate([a_stream.task(j).train for j in (0, 2)])
    few = mixed.copied(torch.tensor([3, len(mixed) - 1]))
    assert few.task_ids().tolist() == [0, 2] and torch.equal(few.x, mixed.batch(torch.tensor([3, len(mixed) - 1])).x)


def test_a_task_costs_its_own_images_once() -> None:
    """Of 400 images of ten classes two a task hold 80, ten of which are held out."""
    task = stream("split-mnist", TIL).task(0)
    parts = (task.train, task.validation)
    assert storage_bytes([part.pixels for part in parts]) == 80 * 784
    assert storage_bytes([tensor for part in parts for tensor in (part.rows, part.labels)]) == 80 * 2 * 8
