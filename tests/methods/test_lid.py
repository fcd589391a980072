"""LID: boxes are nested and hold their limit, what they certify survives, and the audit sees what does not."""

import math

import pytest
import torch
from torch import Tensor

from benchmarks.types import ALL_SCENARIOS, CIL, DIL, TIL, Scenario, UserError
from methods.base import Batch, Certifying
from methods.box_promise import BoxPromise
from methods.intercontinet import InterContiNet
from methods.intervals.bounding import Interval, certified, contains
from methods.intervals.box_search import BoxSearch, SearchOptions
from methods.intervals.choice import project, stacked
from methods.lid import LID
from methods.search import space
from tests.methods.bright_pixels import TASKS, samples, spec, task

QUICK = {"lr": 0.03, "search_lr": 1e-3, "l2": 0.0, "unbias": 0.0, "choose": "closest"}


def made(scenario: Scenario, cls: type[LID] = LID, **config) -> LID:
    return cls(spec(scenario), LID.Config(**{**QUICK, **config}))


def learn(method: LID, t: int, scenario: Scenario, steps: int = 80) -> None:
    method.begin(task(t, scenario, steps))
    method.learn(task(t, scenario, steps))


def trained(scenario: Scenario, tasks: int = TASKS, cls: type[LID] = LID, **config) -> LID:
    method = made(scenario, cls, **config)
    for t in range(tasks):
        learn(method, t, scenario)
    return method


def certain(method: LID, scenario: Scenario, t: int) -> Tensor:
    data = samples(t, scenario, 300)
    return certified(Interval(*method.bounds(data.x, t if scenario is TIL else None)), data.labels)


def right(answers: Tensor, scenario: Scenario, t: int) -> Tensor:
    return answers.argmax(1) == samples(t, scenario, 300).labels


@pytest.mark.parametrize("choose", ["closest", "last", "best_loss", "sample_largest_closest"])
@pytest.mark.parametrize("scenario", sorted(ALL_SCENARIOS))
def test_boxes_are_nested_and_what_they_certify_stays_right_for_every_network_in_them(scenario: Scenario, choose: str):
    method = made(scenario, choose=choose, l2=1e-3, unbias=1e-3)
    assert isinstance(method, Certifying)
    promised: list[Tensor] = []
    for t in range(TASKS):
        before = method.present_boxes()
        learn(method, t, scenario)
        if t:
            outer = [b for b in before if all(bool(contains(b, inner).all()) for inner in method.present_boxes())]
            assert outer, "all new boxes lie in one of the old ones"
        assert (len(method.present_boxes()) == 1) or choose != "last"
        promised.append(certain(method, scenario, t))
        for s, promise in enumerate(promised):
            x, known = samples(s, scenario, 300).x, s if scenario is TIL else None
            assert bool(certain(method, scenario, s)[promise].all()), "smaller boxes certify no less"
            for answers in (method.predict(x, known), *(method.sampled(x, known) for _ in range(10))):
                assert bool(right(answers, scenario, s)[promise].all()), f"task {s} after task {t}"
    assert promised[0].float().mean() > 0.3, "the certificate says nothing"
    assert all(claim.contained and not claim.reason and claim.drift == 0 for claim in method.audit())


def test_the_first_search_leaves_room_and_several_boxes_to_choose_from():
    method = trained(DIL, tasks=1)
    assert len(method.present_boxes()) > 1 and method.widths[0] > 1e-2
    theta = method.model.centres()
    assert all(bool(contains(box, theta).all()) for box in method.present_boxes())
    one_sided = [((theta - box.lower) - (box.upper - theta)).abs().max() for box in method.present_boxes()]
    assert max(one_sided) > 1e-3, "sides are free of each other"


@pytest.mark.parametrize("groups", ["class", "task"])
def test_a_kept_box_meets_its_limit_on_the_fitting_samples(groups: str):
    method = made(DIL, groups=groups, allowance=0.2)
    for t in range(TASKS):
        learn(method, t, DIL)
        assert all(method._certified_share(task(t, DIL, 80), box) >= method.limits[t] for box in method.present_boxes())
        accuracy = method._certified_share(task(t, DIL, 80), Interval.point(method.model.centres()))
        assert method.limits[t] == pytest.approx(max(accuracy - 0.2, accuracy / 2))
    table = method.exhibits()["regions"]
    assert table["limit"] == method.limits and len(table["boxes"]) == TASKS


def test_a_sample_counts_as_certified_only_if_every_box_certifies_it():
    """Two boxes of the trained network: the point itself, and one so wide that it certifies nothing."""
    method, learnt = trained(DIL, tasks=1), task(0, DIL, 80)
    theta = method.model.centres()
    point, wide = Interval.point(theta), Interval.around(theta, torch.full_like(theta, 10.0))
    assert method._certified_share(learnt, point) > 0.5 and method._certified_share(learnt, wide) == 0
    assert method._certified_share(learnt, point, wide) == method._certified_share(learnt, wide, point) == 0
    assert method._certified_share(learnt, point, point) == method._certified_share(learnt, point)


def test_boxes_that_miss_the_limit_are_returned_only_on_request():
    """A rate so large that the sides overshoot at once."""
    options = {"search_lr": 1.0, "snapshots": 4}
    every, met = (trained(DIL, tasks=1, keep=keep, **options) for keep in ("all", "feasible"))
    learnt, limit = task(0, DIL, 80), every.limits[0]
    shares = [every._certified_share(learnt, box) for box in every.present_boxes()]
    assert len(shares) == 4 and min(shares) < limit
    assert met.limits == every.limits
    assert all(met._certified_share(learnt, box) >= limit for box in met.present_boxes())


class Impossible(LID):
    """A limit above the accuracy of any network."""

    def _limit(self, accuracy: float) -> float:
        return 1.1


def test_a_limit_that_no_box_meets_leaves_the_weights_as_they_are_and_is_reported():
    method = trained(DIL, tasks=1, cls=Impossible)
    [box] = method.present_boxes()
    assert torch.equal(box.lower, box.upper) and torch.equal(box.lower, method.model.centres())
    table = method.exhibits()["regions"]
    assert table["certified"][0] < table["limit"][0] == 1.1
    learn(method, 1, DIL)
    assert torch.equal(method.model.centres(), box.lower)
    assert all(claim.contained for claim in method.audit())


def test_nothing_lies_outside_after_a_clip_and_what_is_inside_stays():
    torch.manual_seed(0)
    centre = torch.randn(3, 50)
    boxes = Interval(centre - torch.rand(3, 50), centre + torch.rand(3, 50))
    for choice in ("closest", "best_loss", "sample_largest_closest"):
        far = torch.randn(50) * 3
        weights, index = project(far, boxes, choice, losses=lambda each: each.sum(1))
        assert bool(((weights >= boxes.lower[index]) & (weights <= boxes.upper[index])).all())
        outside = (far < boxes.lower[index]) | (far > boxes.upper[index])
        assert torch.equal(weights[~outside], far[~outside])
        inside = (boxes.lower[1] + boxes.upper[1]) / 2
        weights, index = project(inside, boxes, choice, losses=lambda each: -each.sum(1))
        assert torch.equal(weights, inside) and int(index) == 1
    nearly = stacked([Interval(torch.zeros(2), torch.zeros(2))])
    weights, _ = project(torch.tensor([1e-30, 0.0]), nearly, "closest")
    assert torch.equal(weights, torch.zeros(2)), "a square that underflows is a distance all the same"
    weights, _ = project(torch.tensor([1e-4, 0.0]), nearly, "closest", tolerance=1e-6)
    assert torch.equal(weights, torch.tensor([1e-4, 0.0]))


def test_boxes_are_drawn_with_the_chances_of_softmax():
    """Each a step away from theta in a direction of its own, so that the scores are the widths: 0, 0 and log 4."""
    width = math.log(4)
    lower = torch.eye(3)
    boxes = Interval(lower, lower + torch.tensor([0.0, 0.0, width]).diag())
    torch.manual_seed(0)
    drawn = torch.stack([project(torch.zeros(3), boxes, "sample_largest_closest")[1] for _ in range(3000)])
    assert (drawn.bincount(minlength=3) / 3000).tolist() == pytest.approx([1 / 6, 1 / 6, 4 / 6], abs=0.03)


class Unclipped(LID):
    """One that forgets to clip."""

    def _clip(self, boxes: Interval, batch: Batch) -> None:
        pass


def test_without_the_clip_the_audit_fails():
    first, _ = trained(DIL, tasks=2, cls=Unclipped).audit()
    assert not first.contained and first.outside > 0 and "left the box" in first.reason
    assert all(claim.contained for claim in trained(DIL, tasks=2).audit())


class Leaking(LID):
    """One whose box of task 1 sticks out of the one before at the first three weights."""

    def _found(self, task, first: int, steps: int) -> list[Interval]:
        (box,) = super()._found(task, first, steps)
        below = torch.zeros_like(box.lower)
        below[:3] = 0.5 * (task.index == 1)
        return [Interval(torch.where(below > 0, self.model.lower - below, box.lower), box.upper)]


def test_a_box_that_sticks_out_of_the_one_before_voids_the_claims_before_it():
    method = made(DIL, Leaking, choose="last")
    for t in range(TASKS):
        learn(method, t, DIL, steps=6)
    assert [(claim.contained, claim.outside) for claim in method.audit()] == [(False, 3), (True, 0), (True, 0)]


@pytest.mark.parametrize("name", ["lid", "intercontinet"])
def test_the_box_kept_is_the_latest_of_a_search_that_meets_the_limit(name: str, monkeypatch):
    """Of four around the trained weights: no width, a little, more, and far too much."""
    if name == "lid":
        method: BoxPromise = made(DIL, choose="last")
    else:
        method = InterContiNet(spec(DIL), InterContiNet.Config(lr=0.3, contraction="primal-dual"))
    widths = 0.0, 1e-4, 2e-4, 1.0

    def searched(task, search: BoxSearch, *_: int) -> list[Interval]:
        return [Interval.around(search.theta, torch.full_like(search.theta, width)) for width in widths]

    monkeypatch.setattr(method, "_searched", searched)
    method.begin(task(0, DIL, 80))
    method.learn(task(0, DIL, 80))
    assert method.model.box.width.median().item() == pytest.approx(2 * widths[2], rel=1e-2)


def test_the_official_tolerance_leaves_weights_outside_and_the_audit_says_so():
    method = trained(DIL, tasks=2, tolerance=1.0)
    assert not method.audit()[0].contained


def test_heads_are_numbers_in_til_and_old_ones_never_move():
    method = trained(TIL, tasks=2, l2=1e-2, unbias=1e-2)
    heads = {name: p.detach().clone() for name, p in method.model.points().items()}
    assert sorted(heads) == ["layers.2.bias", "layers.2.weight"]
    learn(method, 2, TIL)
    for name, p in method.model.points().items():
        assert torch.equal(p[:4], heads[name][:4]) and not torch.equal(p[4:], heads[name][4:])
    with torch.no_grad():
        method.model.points()["layers.2.bias"][2] += 0.25
    assert [claim.drift for claim in method.audit()] == [0.0, pytest.approx(0.25), 0.0]


@pytest.mark.parametrize("heads", ["frozen", "boxed"])
def test_both_labels_of_a_task_see_each_other_in_til(heads: str):
    """Officially the second one is compared with 0 alone, and its rival does not count."""
    batch = Batch(samples(0, TIL).x, samples(0, TIL).labels, 0)
    found = {}
    for rivals in ("task", "official"):
        method = made(TIL, heads=heads, til_rivals=rivals)
        box = Interval.around(method.model.centres(), torch.full_like(method.model.centres(), 0.01))
        bounds, worst = method._over(box, batch), method._worst(box, batch)
        own = torch.arange(len(batch.y)), method._labels(batch)
        assert torch.equal(worst[own], bounds.lower[own]), "of the label the lower bound"
        rival = torch.arange(len(batch.y)), 1 - method._labels(batch)
        found[rivals] = worst[rival], bounds.upper[rival]
    assert torch.equal(*found["task"])
    second = batch.y == 1
    assert bool((found["official"][0][second] == 0).all())
    assert torch.equal(found["official"][0][~second], found["official"][1][~second])


def test_boxed_heads_keep_the_promise_too_and_have_wide_sides_for_other_tasks():
    method = made(TIL, heads="boxed")
    learn(method, 0, TIL)
    assert not method.model.points()
    views = method.model.layout.views(method.present_boxes()[0].width)
    assert views["layers.2.bias"][2:].min() > 5 and views["layers.2.bias"][:2].max() < 5
    promise = certain(method, TIL, 0)
    learn(method, 1, TIL)
    assert bool(certain(method, TIL, 0)[promise].all()) and all(claim.contained for claim in method.audit())


def test_classes_to_come_are_rivals_of_a_certificate_in_cil():
    method = trained(CIL, tasks=1)
    x = samples(0, CIL).x
    _, upper = method.bounds(x)
    for box in method.present_boxes():
        unseen = method.model.bounds(box, x, True, rounded=True).upper[:, 2:]
        assert bool((upper >= unseen.amax(1, keepdim=True)).all())


def test_state_survives_saving_between_tasks_with_all_boxes():
    method = trained(DIL, tasks=1)
    assert len(method.present_boxes()) > 1
    other = LID(spec(DIL), method.config, seed=5)
    other.load_state_dict(method.state_dict())
    for m in (method, other):
        learn(m, 1, DIL)
    x = samples(0, DIL).x
    for mine, theirs in zip((*method.bounds(x), method.predict(x)), (*other.bounds(x), other.predict(x)), strict=True):
        assert torch.equal(mine, theirs)
    assert method.audit() == other.audit()
    weights = method.model.lower.numel()
    number = 2  # of the region, in 64 bits
    assert method.parameters_stored() == weights * (3 + 2 * len(method.regions)) + number


def test_a_task_without_a_search_of_its_own_has_the_claim_of_the_box_that_it_was_trained_in():
    method = trained(DIL, last_region=False)
    assert len(method.audit()) == TASKS
    table = method.exhibits()["regions"]
    assert {len(column) for column in table.values()} == {TASKS}
    assert [math.isnan(limit) for limit in table["limit"]] == [False] * (TASKS - 1) + [True]
    assert all(claim.contained for claim in method.audit())


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_few_steps_still_end_in_sound_boxes(steps: int):
    method = made(DIL)
    for t in range(2):
        learn(method, t, DIL, steps=steps)
    assert all(claim.contained for claim in method.audit())


def test_a_group_without_samples_in_a_batch_is_left_as_it_is():
    theta = torch.zeros(4)
    search = BoxSearch(theta, Interval.around(theta, torch.ones(4)), 0.9, 2, 0.1, SearchOptions())
    worst, y = torch.tensor([[0.0, 1.0], [0.0, 2.0]]), torch.tensor([0, 0])
    search.loss(worst, y, y)
    assert search.penalty.tolist() == pytest.approx([1.01, 1.0]) and search.multiplier[1] == 0 < search.multiplier[0]
    assert search.strict.tolist() == pytest.approx([0.9, 0.0])


@pytest.mark.parametrize("field", ["search_share", "allowance", "least", "alpha"])
def test_shares_outside_of_0_and_1_are_refused(field: str):
    with pytest.raises(UserError, match=field):
        LID.Config(**{field: 1.5})


def test_what_tuning_searches():
    assert set(space("lid", LID.Config)) == {"lr", "search_lr", "allowance", "choose"}
