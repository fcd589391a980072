"""Certificates after the last task: they hold, the ball of inputs is what it says, and no result is lost."""

import math
from collections import defaultdict
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from benchmarks.catalogue import find
from benchmarks.samples import Samples
from benchmarks.stream import open_stream
from benchmarks.transforms import Normalise, Permute
from benchmarks.types import CIL, DIL, TIL, Budget, UserError
from methods.intervals.affine import propagation
from methods.intervals.interval import Interval, contains
from reports.schema import CertificateRow
from runners.cell import certificates
from runners.cell.certificates import RADII, ball, columns, measure
from runners.cell.evaluation import Evaluator, holds
from runners.cell.events import Event, EventKind
from runners.records.record import Measurements, Status
from tests.methods.helpers import learn, made, opened
from tests.runners.helpers import cells, foreign
from tests.runners.test_execution import run

STEP = 1 / 255
ALL = slice(None)


def by_way(rows) -> dict[tuple[str, float], list[CertificateRow]]:
    found = defaultdict(list)
    for row in rows:
        found[row.propagation, row.radius].append(row)
    return found


@pytest.mark.parametrize("scenario", [TIL, DIL, CIL])
def test_the_ways_are_in_their_order_and_the_plain_one_is_that_of_the_matrix(scenario):
    stream = opened(scenario)
    method = made("intercontinet", stream)
    learn(method, stream, (0, 1))
    measured = Measurements.empty(2)
    Evaluator(method, stream, 100).measure(2, measured)
    rows = by_way(measure(method, stream))
    assert set(rows) == {(how, radius) for how in ("interval", "affine") for radius in RADII}
    assert [row.certified for row in rows["interval", 0.0]] == measured.certified[2]
    assert [row.samples for row in rows["affine", STEP]] == [len(stream.test(j)) for j in (0, 1)]
    for j in (0, 1):
        shares = {way: found[j].certified for way, found in rows.items()}
        assert shares["interval", 0.0] <= shares["affine", 0.0] <= measured.accuracy[2][j]
        assert shares["interval", STEP] <= shares["affine", STEP] <= shares["affine", 0.0]
        assert rows["affine", STEP][j].seconds >= rows["interval", STEP][j].seconds > 0


@pytest.mark.parametrize("scenario, learnt", [(TIL, 2), (DIL, 2), (CIL, 1)])
def test_every_network_drawn_from_the_box_answers_certified_inputs_rightly(scenario, learnt):
    """In CIL after the first task only: classes to come are among the rivals."""
    benchmark = replace(find("split-digits"), n_tasks=2, network="mlp-60-60")
    stream = open_stream(benchmark, scenario, 0, budget=Budget(16, steps=100))
    method = made("intercontinet", stream)
    learn(method, stream, range(learnt))
    torch.manual_seed(0)
    middle, gained = method.model.centres(), 0
    for j, radius in [(j, radius) for j in range(learnt) for radius in (1e-2, 2e-2, 3e-2)]:
        method.model.lower, method.model.upper = middle - radius, middle + radius  # some leave affine bounds a choice
        samples = stream.test(j)
        x, y = ball(samples, ALL, STEP), samples.labels
        assert isinstance(x, Interval)
        with propagation("interval") as recording:
            lower, upper = method.bounds(x, j)
        plain, one = holds(lower, upper, y), recording.latest
        place = columns(one.logits, lower, upper, (0, 2 * j))
        assert place is not None and len(place.rivals) == (4 if scenario is CIL else 2)
        every = torch.arange(len(y))
        certified = one.exceeds(y + place.start, torch.tensor(list(place.rivals)), every)
        assert bool((certified | ~plain).all())
        gained += int((certified & ~plain).sum())
        for _ in range(20):
            inputs = torch.where(torch.rand(x.lower.shape) < 0.5, x.lower, x.upper).float()
            answers = method.sampled(inputs, j)
            assert bool((answers.argmax(1) == y)[certified].all())
    assert gained > 0


def test_many_samples_are_drawn_alike_for_all_methods(monkeypatch):
    monkeypatch.setattr(certificates, "SAMPLES", 41)
    stream = opened(TIL)
    found = [certificates.drawn(stream, j) for j in (0, 1)]
    for j, part in enumerate(found):
        assert len(part) == 20 and part.labels.bincount().tolist() == [10, 10]
        assert torch.equal(part.rows, certificates.drawn(opened(TIL), j).rows)
        assert not torch.equal(part.rows, certificates.drawn(opened(TIL, seed=1), j).rows)
        whole = dict(zip(stream.test(j).rows.tolist(), stream.test(j).labels.tolist(), strict=True))
        assert part.labels.tolist() == [whole[row] for row in part.rows.tolist()]


def test_differences_are_used_only_where_the_answers_are_logits_of_the_network():
    torch.manual_seed(0)
    middle = torch.randn(5, 4, dtype=torch.float64)
    logits = Interval(middle - 1, middle + 1)
    own = Interval(logits.lower[:, 2:], logits.upper[:, 2:])
    assert columns(logits, *logits, (0,)) == (0, range(4))
    assert columns(logits, *own, (0, 2)) == (2, range(2, 4)) and columns(logits, *own, (0,)) is None
    to_come = torch.maximum(logits.upper[:, :2], logits.upper[:, 2:].amax(1, keepdim=True))
    assert columns(logits, logits.lower[:, :2], to_come, (0,)) == (0, range(4))
    assert columns(logits, logits.lower[:, :2], to_come + 1e-9, (0,)) is None
    assert columns(logits, logits.lower * 2, logits.upper * 2, (0,)) is None


def images(transform=None, normalise=None) -> Samples:
    pixels = torch.tensor([[0, 255, 128, 1]], dtype=torch.uint8).view(1, 1, 2, 2)
    return Samples(
        pixels, torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), 0, transform, normalise
    )


def test_a_ball_is_the_range_of_pixels_within_the_radius_as_the_network_sees_them():
    found = ball(images(), ALL, STEP)
    assert found.lower.flatten().tolist() == pytest.approx([0, 254 / 255, 127 / 255, 0], abs=1e-7)
    assert found.upper.flatten().tolist() == pytest.approx([STEP, 1, 129 / 255, 2 * STEP], abs=1e-7)
    assert bool((found.lower >= 0).all() and (found.upper <= 1).all())
    scaled = ball(images(normalise=Normalise([0.5], [0.25], torch.device("cpu"))), ALL, STEP)
    for side, pixels in zip(scaled, found, strict=True):
        assert torch.allclose(side, (pixels - 0.5) * 4, atol=1e-6)
    torch.manual_seed(0)
    drawn = (torch.tensor([0, 255, 128, 1]) / 255).double() + STEP * (2 * torch.rand(99, 4, dtype=torch.float64) - 1)
    inputs = (drawn.clamp(0, 1) - 0.5) * 4
    assert bool((scaled.lower.flatten() <= inputs).all() and (inputs <= scaled.upper.flatten()).all())


def grey(**options) -> Samples:
    """An image of all 256 pixels."""
    pixels, zero = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16), torch.zeros(1, dtype=torch.int64)
    return Samples(pixels, zero, zero, 0, **options)


@pytest.mark.parametrize("radius", [1e-12, STEP])
def test_a_ball_holds_the_input_as_the_network_gets_it(radius):
    """Of all 256 pixels, which normalisation rounds to float32: by more than the first radius, and beyond both ends."""
    every = grey(normalise=Normalise([0.1307], [0.3081], torch.device("cpu")))
    assert bool(contains(ball(every, ALL, radius), every.batch(ALL).x.double()).all())


def test_a_ball_of_normalised_inputs_holds_those_of_exact_arithmetic():
    normalise = Normalise([0.5], [0.25], torch.device("cpu"))
    mean, scale, radius = Fraction(normalise.mean.item()), Fraction(normalise.scale.item()), Fraction(STEP)
    found = ball(grey(normalise=normalise), ALL, STEP)
    pixels = grey().images(ALL).flatten().tolist()
    for pixel, lower, upper in zip(pixels, found.lower.flatten().tolist(), found.upper.flatten().tolist(), strict=True):
        assert Fraction(lower) <= (max(Fraction(pixel) - radius, 0) - mean) * scale
        assert (min(Fraction(pixel) + radius, 1) - mean) * scale <= Fraction(upper)


def test_the_border_of_a_permuted_image_has_the_radius_too():
    order = torch.tensor([[15, *range(15)]]).numpy()
    moved = ball(images(Permute(order, (1, 2, 2), 1, torch.device("cpu"))), ALL, STEP)
    assert moved.upper.shape == (1, 16) and float(moved.upper[0, 0]) == pytest.approx(STEP)


def test_a_ball_of_radius_zero_is_the_input_bit_for_bit_and_its_bounds_are_those_of_the_point():
    stream = opened(TIL)
    x = ball(stream.test(0), slice(0, 20), 0.0)
    assert isinstance(x, torch.Tensor) and torch.equal(x, stream.test(0).batch(slice(0, 20)).x)
    method = made("intercontinet", stream)
    with propagation("interval"):
        found = method.bounds(x, 0)
    assert all(map(torch.equal, found, method.bounds(stream.test(0).batch(slice(0, 20)).x, 0)))


@pytest.mark.parametrize("radius", [-STEP, math.nan, math.inf])
def test_a_radius_that_is_none_is_refused(radius):
    with pytest.raises(UserError, match=f"the input radius is {radius}; give a number from 0"):
        ball(images(), ALL, radius)


def test_a_method_that_infers_the_task_from_the_inputs_is_not_certified_for_sets_of_them():
    stream = opened(CIL)
    method = made("hyperinterval", stream, inference="interval")  # weighs the entropies by the widths at the inputs
    learn(method, stream, (0, 1))
    rows = by_way(measure(method, stream))
    assert [row.certified for row in rows["interval", STEP] + rows["affine", STEP]] == [None] * 4
    pairs = zip(rows["interval", 0.0], rows["affine", 0.0], strict=True)
    assert all(plain.certified <= tight.certified for plain, tight in pairs)


@pytest.mark.parametrize("name", ["analytic", "lid"])
def test_a_frozen_backbone_takes_no_set_of_inputs_and_keeps_its_other_certificates(name):
    benchmark = replace(find("split-digits"), n_tasks=2, network="timm:test_resnet+frozen")
    stream = open_stream(benchmark, TIL if name == "analytic" else DIL, 0, budget=Budget(16, steps=4))
    method = made(name, stream)
    learn(method, stream, (0, 1))
    rows = by_way(measure(method, stream))
    assert None not in [row.certified for row in rows["interval", 0.0]]
    assert {row.certified for row in rows["interval", STEP] + rows["affine", STEP]} == {None}


@pytest.mark.parametrize("name", ["intercontinet", "lid"])
def test_a_lone_class_is_certified_against_those_to_come(name):
    """Its only answer is right, as long as no other class is known."""
    benchmark = replace(find("split-digits"), n_tasks=2, classes_per_task=(1, 4), network="mlp-20")
    stream = open_stream(benchmark, CIL, 0, budget=Budget(16, steps=60))
    method = made(name, stream)
    learn(method, stream, [0])
    samples, measured = stream.test(0), Measurements.empty(2)
    Evaluator(method, stream, 100).measure(1, measured)
    bounds = [method.model.bounds(box, samples.x, True, rounded=True) for box in method.present_boxes()]
    kept = [(b.lower[:, 0] > b.upper[:, 1:].amax(1)) for b in bounds]
    assert measured.certified[1][0] == pytest.approx(float(torch.stack(kept).all(0).double().mean()))
    assert measured.accuracy[1][0] == 1 > measured.certified[1][0]
    rows = by_way(measure(method, stream))
    assert rows["interval", 0.0][0].certified == measured.certified[1][0] <= rows["affine", 0.0][0].certified
    learn(method, stream, [1])
    Evaluator(method, stream, 100).measure(2, measured)
    assert not any(claim.violation for claim in measured.claims)


@pytest.mark.parametrize("name, radii", [("Certifies", 20), ("Good", 0), ("Fragile", 0)])
def test_bounds_of_a_methods_own_are_certified_as_they_are_and_a_fault_costs_no_result(tmp_path, name, radii):
    [cell] = cells(foreign(name))
    heard: list[Event] = []
    record = run(cell, tmp_path, heard.append)
    assert record.status is Status.DONE and len(record.certificates) == radii
    rows = by_way(record.certificates)
    if rows:
        assert None not in [row.certified for row in rows["interval", 0.0]]
        assert {row.certified for way in rows for row in rows[way] if way != ("interval", 0.0)} == {None}
    notes = [event.reason for event in heard if event.kind is EventKind.NOTE and "certificates" in str(event.reason)]
    assert [("one input at a time" in str(note)) for note in notes] == [True] * (name == "Fragile")


def test_rows_reach_the_record_of_a_cell_and_are_in_no_table(tmp_path):
    [cell] = cells("wsn")
    record = run(cell, tmp_path)
    assert [row.task for row in record.certificates] == [j for j in range(5) for _ in range(4)]
    assert not [name for name in record.files if "certificates" in name]
