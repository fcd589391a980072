"""The sign of inputs is found in the data, in every split and after all transforms; a false declaration is refused."""

import dataclasses

import pytest
import torch

from benchmarks.catalogue import Augmentation, Kind, Normalisation, find
from benchmarks.data import DataSet
from benchmarks.stream import Stream, TuningStream
from benchmarks.types import CIL, TIL, Budget, UserError
from methods import registry
from tests.methods.helpers import learn

GIVEN = dataclasses.replace(
    find("split-digits"), name="own", kind=Kind.SPLIT, n_tasks=2, classes_per_task=2, stored_shape=(2, 4, 4),
    validation=4, network="mlp-16", budget=Budget(8, steps=10),
)  # fmt: skip


def own(train_least: float = 0.0, test_least: float = 0.0, dtype: torch.dtype = torch.float32) -> DataSet:
    """Four classes told apart by their rows; one pixel of one image of each part has the least value."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(80) % 4
    images = torch.rand(80, 2, 4, 4, generator=rng) * 0.2
    for label in range(4):
        images[labels == label, :, label] += 0.8
    if dtype == torch.uint8:
        images = (images * 255).to(dtype)
    train, test = images.clone(), images.clone()
    train[7, 1, 2, 3], test[5, 0, 1, 1] = train_least, test_least
    return DataSet("own", train, labels, test, labels.clone())


def opened(data: DataSet, **changes: object) -> Stream:
    benchmark = dataclasses.replace(GIVEN, **changes)
    return Stream(benchmark, benchmark.spec(TIL), 0, data)


def least_input(stream: Stream) -> float:
    parts = [stream.task(j).train.training_batch(slice(None), 3).x for j in range(2)]
    return float(torch.stack([x.min() for x in [*parts, *(stream.test(j).x for j in range(2))]]).min())


BRIGHT = Normalisation((0.0, -0.1), (0.5, 0.2))
DARK = Normalisation((0.1, 0.3), (0.5, 0.2))


@pytest.mark.parametrize(
    ("data", "changes", "expected"),
    [
        (own(), {}, True),
        (own(train_least=-0.01), {}, False),
        (own(test_least=-1e-6), {}, False),
        (own(dtype=torch.uint8), {}, True),
        (own(), {"normalisation": BRIGHT}, True),
        (own(), {"normalisation": DARK}, False),
        (own(dtype=torch.uint8), {"normalisation": DARK}, False),
        (own(), {"augmentation": Augmentation.FLIP_CROP, "normalisation": BRIGHT}, True),
    ],
)
def test_the_sign_is_that_of_the_data(data: DataSet, changes: dict[str, object], expected: bool) -> None:
    stream = opened(data, **changes)
    assert stream.spec.nonnegative_inputs is expected
    assert TuningStream(stream).spec.nonnegative_inputs is expected
    if expected:
        assert least_input(stream) >= 0


def test_what_a_transform_fills_in_counts_too() -> None:
    """All pixels are above the mean; the black border of a crop is not."""
    data, light = own(), Normalisation((0.2, 0.2), (1.0, 1.0))
    lifted = dataclasses.replace(data, train_images=data.train_images + 0.3, test_images=data.test_images + 0.3)
    assert opened(lifted, normalisation=light).spec.nonnegative_inputs
    cropped = opened(lifted, normalisation=light, augmentation=Augmentation.FLIP_CROP)
    assert not cropped.spec.nonnegative_inputs and least_input(cropped) < 0


@pytest.mark.parametrize("moved", [{"kind": Kind.ROTATED, "n_tasks": 3}, {"kind": Kind.PERMUTED, "padding": 1}])
def test_black_around_turned_and_padded_images_counts_too(moved: dict[str, object]) -> None:
    """All pixels are at least 0.3, and inputs are these less 0.2."""
    data, grey = own(), {"normalisation": Normalisation((0.2,), (1.0,)), "stored_shape": (1, 4, 4)}
    train, test = (images[:, :1] + 0.3 for images in (data.train_images, data.test_images))
    lifted = dataclasses.replace(data, train_images=train, test_images=test)
    assert opened(lifted, **grey).spec.nonnegative_inputs
    stream = opened(lifted, classes_per_task=4, **grey, **moved)
    assert not stream.spec.nonnegative_inputs and least_input(stream) < 0


def test_bytes_are_compared_with_the_mean_as_shares_of_255() -> None:
    """The darkest byte is 50, a share of 0.196, and lies below a mean of 0.3 only as such."""
    data = own(dtype=torch.uint8)
    train, test = (images // 2 + 50 for images in (data.train_images, data.test_images))
    lifted = dataclasses.replace(data, train_images=train, test_images=test)
    for mean, expected in ((0.19, True), (0.3, False)):
        stream = opened(lifted, normalisation=Normalisation((mean, mean), (1.0, 1.0)))
        assert stream.spec.nonnegative_inputs is expected and (least_input(stream) >= 0) is expected


def test_a_false_declaration_is_refused() -> None:
    spec = dataclasses.replace(GIVEN.spec(TIL), nonnegative_inputs=True)
    assert Stream(GIVEN, spec, 0, own()).spec.nonnegative_inputs
    with pytest.raises(
        UserError, match=r"own: nonnegative_inputs is declared, but own gives negative inputs \(.*-0.01"
    ):
        Stream(GIVEN, spec, 0, own(test_least=-0.01))


@pytest.mark.parametrize("name", ["hyperinterval", "intercontinet"])
@pytest.mark.parametrize("scenario", [TIL, CIL])
def test_certificates_hold_on_standardised_data(name: str, scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that take standardised inputs for nonnegative ones leave networks of the box outside."""
    data = own()
    train, test = ((x - x.mean()) / x.std() for x in (data.train_images, data.test_images))
    signed = dataclasses.replace(data, train_images=train, test_images=test)
    stream = Stream(GIVEN, GIVEN.spec(scenario), 0, signed)
    cls = registry.load(name)
    settings = {"eps": 20.0} if name == "hyperinterval" else {}
    method = cls(stream.spec, dataclasses.replace(cls.Config(), **settings), "cpu", 0)
    learn(method, stream, [0, 1])
    x = stream.test(0).x
    with torch.no_grad():
        assert outside(method, x) == 0
        method.spec = dataclasses.replace(method.spec, nonnegative_inputs=True)
        assert outside(method, x) > 0  # what the test is made to see


def outside(method, x: torch.Tensor) -> int:
    """Logits, of many networks drawn from the region of the last task, that leave its bounds."""
    lower, upper = method.bounds(x, 1)
    torch.manual_seed(0)
    drawn = [method.sampled(x, 1) for _ in range(50)]
    slack = 1e-4 * (1 + lower.abs().maximum(upper.abs()))
    return sum(int(((y < lower - slack) | (y > upper + slack)).sum()) for y in drawn)
