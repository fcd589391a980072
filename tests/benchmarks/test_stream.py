"""Streams: the same on every machine, disjoint where they must be, labelled as the scenario asks, and lazy."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import orders
from benchmarks.catalogue import BENCHMARKS, Benchmark, Kind, Normalisation, find
from benchmarks.samples import Samples
from benchmarks.stream import Stream, open_stream
from benchmarks.transforms import Permute, random_order
from benchmarks.types import CIL, DIL, TIL, Budget, Scenario, UserError
from tests.benchmarks.synthetic import data_set, numbers, stream

DEFINED = [(benchmark, scenario) for benchmark in BENCHMARKS.values() for scenario in benchmark.scenarios]
SPLIT = [name for name, benchmark in BENCHMARKS.items() if benchmark.kind is Kind.SPLIT]


def fingerprint(a_stream: Stream) -> str:
    """Hash of all that the seed decides: names, images, labels, pixel orders and order seeds.

    Where all tasks have the same images, their rows stand for them.
    """
    digest = hashlib.sha256(repr(a_stream.task_names).encode())
    split = a_stream.benchmark.kind is Kind.SPLIT
    for j in range(len(a_stream)):
        task = a_stream.task(j)
        for samples in (task.train, task.validation, a_stream.test(j)):
            seen = samples.pixels.index_select(0, samples.rows) if split else samples.rows
            digest.update(seen.numpy().tobytes() + samples.labels.numpy().tobytes())
        digest.update(str(task.order_seed).encode())
    if a_stream.benchmark.kind is Kind.PERMUTED:
        digest.update(a_stream.orders.tobytes())
    return digest.hexdigest()[:16]


@pytest.mark.parametrize(
    ("name", "scenario", "seed", "expected"),
    [
        ("split-digits", TIL, 0, "e508248c6d470278"),
        ("split-digits", CIL, 1, "9d9ec01a13547efa"),
        ("split-digits-shuffled", DIL, 1, "0739a30802e8bd83"),
        ("permuted-digits", DIL, 0, "5c39fa1245ecbd35"),
        ("permuted-digits", CIL, 2, "eecdb8b9f57f1768"),
    ],
)
def test_same_seed_same_stream_on_any_machine(name: str, scenario: Scenario, seed: int, expected: str) -> None:
    assert fingerprint(open_stream(find(name), scenario, seed)) == expected


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("split-mnist", "fedeb8212d16aa4d"),
        ("permuted-mnist-10", "e78e1a705897a15e"),
        ("rotated-mnist", "3a5d748f4f52c2a9"),
    ],
)
def test_same_stream_of_real_data(name: str, expected: str, real_data) -> None:
    assert fingerprint(open_stream(find(name), TIL, 0, data_dir=real_data)) == expected


def test_seeds_and_names_give_different_streams() -> None:
    streams = [stream("permuted-digits", DIL, seed) for seed in (0, 1)] + [stream("split-digits-shuffled", DIL, 0)]
    assert len({fingerprint(a_stream) for a_stream in streams}) == 3
    assert not (streams[0].orders[0] == streams[1].orders[0]).all()


def test_scenarios_of_one_seed_are_paired() -> None:
    til, cil = stream("permuted-digits", TIL, 3), stream("permuted-digits", CIL, 3)
    assert (til.orders == cil.orders).all()
    assert til.task(4).order_seed == cil.task(4).order_seed


@pytest.mark.parametrize(("benchmark", "scenario"), DEFINED, ids=lambda value: getattr(value, "name", value))
def test_batches_have_the_shape_that_the_spec_promises(benchmark: Benchmark, scenario: Scenario) -> None:
    a_stream = stream(benchmark.name, scenario)
    last = len(a_stream) - 1
    for samples in (a_stream.task(last).train, a_stream.task(last).validation, a_stream.test(last)):
        batch = samples.batch(torch.arange(4))
        assert batch.x.shape == (4, *a_stream.spec.input_shape) and batch.x.dtype == torch.float32
        assert batch.y.dtype == torch.int64 and (batch.x.min() >= 0.0) == a_stream.spec.nonnegative_inputs
        images = samples.images(torch.arange(4))
        assert images.shape == batch.x.shape and images.min() >= 0.0 and images.max() <= 1.0


@pytest.mark.parametrize(("benchmark", "scenario"), DEFINED, ids=lambda value: getattr(value, "name", value))
def test_training_validation_and_test_are_disjoint(benchmark: Benchmark, scenario: Scenario) -> None:
    a_stream = stream(benchmark.name, scenario)
    for j in (0, len(a_stream) - 1):
        task, test = a_stream.task(j), a_stream.test(j)
        train, validation = numbers(task.train), numbers(task.validation)
        assert len(validation) == 10 and not set(train) & set(validation)
        assert max(validation) < min(train), "validation takes the first images of the task"
        assert test.pixels is a_stream.data.test_images
        assert task.train.pixels.untyped_storage().data_ptr() != test.pixels.untyped_storage().data_ptr()


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), name=st.sampled_from([*SPLIT, *(name + "-shuffled" for name in SPLIT)]))
def test_tasks_of_split_streams_share_no_class_and_no_image(seed: int, name: str) -> None:
    a_stream = stream(name, TIL, seed)
    seen = [label for classes in a_stream.classes for label in classes]
    assert sorted(seen) == list(range(a_stream.benchmark.classes_per_task * len(a_stream)))
    tasks = [a_stream.task(j) for j in range(len(a_stream))]
    seen_images = [number for task in tasks for part in (task.train, task.validation) for number in numbers(part)]
    assert sorted(seen_images) == list(range(len(a_stream.data.train_labels)))


@pytest.mark.parametrize("name", ["split-digits", "split-digits-shuffled"])
@pytest.mark.parametrize("scenario", Scenario)
def test_labels_of_split_streams(name: str, scenario: Scenario) -> None:
    a_stream = stream(name, scenario, seed=5)
    for j, classes in enumerate(a_stream.classes):
        samples = a_stream.test(j)
        original = a_stream.data.test_labels[samples.rows]
        offset = 2 * j if scenario is CIL else 0
        assert samples.labels.equal(offset + (original == classes[1]).long())
        assert set(original.tolist()) == set(classes)


@pytest.mark.parametrize("scenario", Scenario)
def test_labels_of_permuted_streams(scenario: Scenario) -> None:
    a_stream = stream("permuted-digits", scenario)
    for j in (0, 7):
        expected = a_stream.data.train_labels[10:] + (10 * j if scenario is CIL else 0)
        assert a_stream.task(j).y.equal(expected)


def test_natural_class_order_ignores_the_seed_and_shuffled_follows_it() -> None:
    assert stream("split-mnist", TIL, 9).task_names == ["0 1", "2 3", "4 5", "6 7", "8 9"]
    assert stream("split-mnist-shuffled", TIL, 0).classes != stream("split-mnist-shuffled", TIL, 1).classes


def test_fecam_order_of_cifar_100() -> None:
    a_stream = stream("split-cifar-100-5x20-fecam", CIL, 3)
    assert a_stream.classes[0][:5] == [87, 0, 52, 58, 44] and a_stream.classes[4][-3:] == [26, 35, 39]
    assert sorted(label for classes in a_stream.classes for label in classes) == list(range(100))
    assert stream("split-cifar-100-20x5-fecam", TIL).classes[0] == a_stream.classes[0][:5]
    assert stream("split-cifar-100-20x5", TIL).classes[1] == [5, 6, 7, 8, 9]


def test_fecam_order_is_icarls_to_the_last_class() -> None:
    """Digest of the list in the first version of iCaRL's code, as numbers with blanks between."""
    order = " ".join(map(str, orders.FECAM))
    assert hashlib.sha256(order.encode()).hexdigest()[:16] == "267358b4b4a66ddb"


def test_too_few_images_for_the_validation_part() -> None:
    with pytest.raises(UserError, match=r"task 0 has 80 training images, and 80 are to be set aside for validation"):
        stream("split-mnist", TIL, validation=80).task(0)


def test_permutation_is_that_of_the_padded_image() -> None:
    a_stream = stream("permuted-mnist-10", TIL)
    for j in (0, 9):
        samples = a_stream.test(j)
        padded = torch.nn.functional.pad(a_stream.data.test_images[:5] / 255, (2, 2, 2, 2)).flatten(1)
        assert sorted(a_stream.orders[j].tolist()) == list(range(1024))
        assert samples.batch(slice(5)).x.equal(padded[:, torch.from_numpy(a_stream.orders[j])])


def test_first_permuted_task_is_permuted_too() -> None:
    a_stream = stream("permuted-digits", TIL)
    assert (a_stream.orders[0] != range(64)).any()


@given(seed=st.integers(0, 1000), name=st.sampled_from(["permuted-digits", "rotated-mnist", "split-digits"]))
def test_mixed_batches_equal_those_of_single_tasks(seed: int, name: str) -> None:
    a_stream = stream(name, TIL, seed)
    parts = [a_stream.task(j).train for j in (0, 2, 4)]
    mixed = Samples.concatenate(parts)
    starts = [0, len(parts[0]), len(parts[0]) + len(parts[1])]
    batch = mixed.batch(torch.tensor([start + 3 for start in starts]))
    assert batch.y.tolist() == [int(part.labels[3]) for part in parts]
    assert isinstance(batch.task, torch.Tensor) and batch.task.tolist() == [0, 2, 4]
    for i, part in enumerate(parts):
        assert torch.allclose(batch.x[i], part.batch(slice(3, 4)).x[0], atol=1e-6)


def test_rotation_by_a_right_angle_is_exact_and_counter_clockwise() -> None:
    a_stream = stream("rotated-mnist", TIL, n_tasks=4)
    assert a_stream.task_names == ["0°", "45°", "90°", "135°"]
    images = a_stream.data.test_images[:5] / 255
    assert torch.allclose(a_stream.test(0).batch(slice(5)).x, images, atol=1e-4)
    assert torch.allclose(a_stream.test(2).batch(slice(5)).x, images.rot90(dims=(2, 3)), atol=1e-4)


def test_previous_tasks_on_request() -> None:
    a_stream = stream("split-digits", TIL)
    assert a_stream.task(3).previous == ()
    assert [task.index for task in a_stream.task(3, previous=True).previous] == [0, 1, 2]


def test_budget_and_network_can_be_replaced() -> None:
    a_stream = open_stream(find("split-digits"), TIL, 0, budget=Budget(16, epochs=1), network="mlp-7")
    assert a_stream.task(0).budget == a_stream.budget == Budget(16, epochs=1)
    assert a_stream.spec.network == "mlp-7"


def test_errors() -> None:
    with pytest.raises(IndexError, match="tasks 0 to 4, not 5"):
        stream("split-digits", TIL).task(5)
    with pytest.raises(IndexError):
        stream("split-digits", TIL).test(-1)
    with pytest.raises(UserError, match=r"rotated-mnist is not defined in cil: .*a 6 and a 9"):
        stream("rotated-mnist", CIL)
    with pytest.raises(UserError, match="needs 12 classes, but synthetic has 10"):
        stream("split-mnist", TIL, data=data_set(), n_tasks=6)
    with pytest.raises(UserError, match=r"have the shape \(1, 8, 8\), not \(1, 28, 28\)"):
        stream("split-mnist", TIL, data=data_set(shape=(1, 8, 8)))


def storage_bytes(tensors: list[torch.Tensor]) -> int:
    """Bytes held by the tensors, shared storage counted once."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


@pytest.mark.parametrize("scenario", Scenario)
def test_a_hundred_permutations_of_mnist_cost_little_memory(scenario: Scenario) -> None:
    """All 100 tasks of MNIST's size alive at once, with their tests, add less than 100 MB to the data set."""
    tiny_images = data_set(60_000, 10_000, (1, 1, 2))
    a_stream = stream("permuted-mnist-100", scenario, data=tiny_images, stored_shape=(1, 1, 2))
    tasks = [a_stream.task(j) for j in range(100)]
    views = [part for task in tasks for part in (task.train, task.validation)] + [a_stream.test(j) for j in range(100)]
    table = stream("permuted-mnist-100", scenario)._transform
    assert isinstance(table, Permute)
    own = storage_bytes([tensor for view in views for tensor in (view.rows, view.labels)] + [table.source])
    assert own < 100e6, f"{own / 1e6:.0f} MB"
    if scenario is not CIL:
        assert own < 2e6, f"{own / 1e6:.1f} MB: tasks that have the same labels share them"


def test_mixed_samples_are_narrow_and_answer_in_int64() -> None:
    a_stream = stream("permuted-digits", CIL)
    mixed = Samples.concatenate([a_stream.task(j).train for j in range(10)])
    assert storage_bytes([mixed.rows, mixed.task, mixed.labels]) == len(mixed) * (4 + 2 + 8)  # type: ignore[list-item]
    assert mixed.task_ids().dtype == mixed.batch(slice(3)).y.dtype == torch.int64
    assert mixed.task_ids().bincount().tolist() == [390] * 10


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_a_permutation_moves_all_pixels_and_pads_with_black(padding: int) -> None:
    """Images without a black pixel, the first one brightest: whatever else was put in would be seen."""
    images = torch.arange(2 * 6, 0, -1, dtype=torch.float32).view(2, 1, 2, 3)
    shape, n = (1, 2, 3), (2 + 2 * padding) * (3 + 2 * padding)
    orders = np.stack([random_order(n, seed, "test") for seed in range(2)])
    permute = Permute(orders, shape, padding, torch.device("cpu"))
    padded = torch.zeros(2, 2 + 2 * padding, 3 + 2 * padding)
    padded[:, padding : padding + 2, padding : padding + 3] = images[:, 0]
    for task, order in enumerate(orders):
        wanted = padded.flatten(1)[:, torch.from_numpy(order)]
        assert torch.equal(permute(images, task), wanted)
        assert torch.equal(permute(images, torch.tensor([task, task])), wanted)
    mixed = permute(images, torch.tensor([1, 0]))
    assert torch.equal(mixed[0], permute(images, 1)[0]) and torch.equal(mixed[1], permute(images, 0)[1])


def test_tasks_of_superclasses_are_whole_superclasses_in_any_order() -> None:
    groups = np.array(orders.SUPERCLASSES).reshape(20, 5)
    assert sorted(orders.SUPERCLASSES) == list(range(100)) and all(sorted(group) == list(group) for group in groups)
    plain = [stream("split-cifar-100-superclass", TIL, seed).classes for seed in (0, 1)]
    assert plain[0] == plain[1] == groups.tolist()
    drawn = [stream("split-cifar-100-superclass-shuffled", TIL, seed).classes for seed in (0, 1)]
    assert all(sorted(one) == sorted(groups.tolist()) for one in drawn)
    first = [[classes[0] for classes in one[:6]] for one in drawn]
    assert first == [[3, 23, 12, 41, 26, 54], [26, 1, 2, 27, 6, 12]], "the same on any machine"


def test_superclasses_are_the_coarse_labels_of_the_data_set() -> None:
    """By the names of classes and superclasses that the authors publish."""
    fish, people = ("aquarium_fish", "flatfish", "ray", "shark", "trout"), ("baby", "boy", "girl", "man", "woman")
    numbers_of = {"aquarium_fish": 1, "flatfish": 32, "ray": 67, "shark": 73, "trout": 91}
    numbers_of |= {"baby": 2, "boy": 11, "girl": 35, "man": 46, "woman": 98}
    for coarse, names in ((1, fish), (14, people)):
        assert list(orders.SUPERCLASSES[5 * coarse : 5 * coarse + 5]) == [numbers_of[name] for name in names]


COARSE = """
     4  1 14  8  0  6  7  7 18  3  3 14  9 18  7 11  3  9  7 11  6 11  5 10  7  6 13 15  3 15  0 11  1 10
    12 14 16  9 11  5  5 19  8  8 15 13 14 17 18 10 16  4 17  4  2  0 17  4 18 17 10  3  2 12 12 16 12  1
     9 19  2 10  0  1 16 12  9 13 15 13 16 19  2  4  6 19  5  5  8 19 18  1  2 15  6  0 17  8 14 13
"""
"""Coarse label of each class, from the file `train` of CIFAR-100."""


def test_superclasses_are_those_of_the_published_file_to_the_last_class() -> None:
    coarse = list(map(int, COARSE.split()))
    assert list(orders.SUPERCLASSES) == sorted(range(100), key=lambda label: (coarse[label], label))


def test_permuted_and_standardised_is_standardised_and_permuted() -> None:
    a_stream = stream("permuted-mnist-10-wsn", DIL, 0)
    task = a_stream.task(3)
    batch = task.train.batch(torch.arange(4))
    assert batch.x.shape == (4, 784) and not a_stream.spec.nonnegative_inputs
    pixels = task.train.pixels[task.train.rows[:4]].float().div(255).flatten(1)
    expected = ((pixels - 0.1307) / 0.3081)[:, a_stream.orders[3]]
    torch.testing.assert_close(batch.x, expected)
    mixed = Samples.concatenate([a_stream.task(j).train for j in (1, 3)])
    torch.testing.assert_close(mixed.batch(torch.arange(4) + len(task.train)).x, expected)
    assert task.train.images(slice(0, 4)).min() >= 0


def test_the_border_of_a_standardised_permutation_is_black_too() -> None:
    a_stream = stream("permuted-mnist-10", DIL, normalisation=Normalisation((0.5,), (0.25,)))
    padded = torch.nn.functional.pad(a_stream.data.test_images[:5] / 255, (2, 2, 2, 2)).flatten(1)
    expected = (padded[:, torch.from_numpy(a_stream.orders[2])] - 0.5) / 0.25
    torch.testing.assert_close(a_stream.test(2).batch(slice(5)).x, expected)


def test_permuted_pixels_of_several_channels_are_not_standardised_by_channel() -> None:
    constants = Normalisation((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    with pytest.raises(UserError, match="normalisation has 3 channels, but permuted pixels have lost theirs"):
        stream("permuted-mnist-10-wsn", TIL, 0, stored_shape=(3, 8, 8), normalisation=constants)
