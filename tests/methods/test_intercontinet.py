"""InterContiNet: boxes are nested, what they certify survives, phases do what they say."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.types import ALL_SCENARIOS, CIL, DIL, TIL, Scenario
from methods.base import Batch, Certifying
from methods.intercontinet import InterContiNet, ReleasedInterContiNet
from methods.intervals import boxed
from methods.intervals.bounding import Interval, certified, contains
from methods.intervals.boxed import BoxedNetwork
from methods.intervals.contraction import Gate, easiest_loss, evenly, largest_factor
from methods.intervals.weights import head_names, moved, nested, scale, shift
from tests.methods import exact
from tests.methods.bright_pixels import TASKS, samples, spec, task


def trained(
    scenario: Scenario, tasks: int = TASKS, cls: type[InterContiNet] = InterContiNet, **config
) -> InterContiNet:
    method = cls(spec(scenario), cls.Config(lr=0.3, **config))
    for t in range(tasks):
        method.begin(task(t, scenario))
        method.learn(task(t, scenario))
    return method


def certain(method: InterContiNet, scenario: Scenario, t: int) -> Tensor:
    data = samples(t, scenario, 300)
    return certified(Interval(*method.bounds(data.x, t if scenario is TIL else None)), data.labels)


def right(method: InterContiNet, scenario: Scenario, t: int) -> Tensor:
    data = samples(t, scenario, 300)
    return method.predict(data.x, t if scenario is TIL else None).argmax(1) == data.labels


@pytest.mark.parametrize("scenario", sorted(ALL_SCENARIOS))
def test_what_was_certified_stays_right_sample_by_sample(scenario: Scenario):
    method = InterContiNet(spec(scenario), InterContiNet.Config(lr=0.3))
    promised: list[Tensor] = []
    for t in range(TASKS):
        before = method.model.box
        method.begin(task(t, scenario))
        method.learn(task(t, scenario))
        if t:
            assert bool(contains(before, method.model.box).all()), "the box left the old one"
        promised.append(certain(method, scenario, t))
        for s, promise in enumerate(promised):
            assert bool(right(method, scenario, s)[promise].all()), f"task {s} after task {t}"
            assert bool(certain(method, scenario, s)[promise].all()), "a smaller box certifies no less"
    assert promised[0].float().mean() > 0.3, "the certificate says nothing"
    assert all(claim.contained and not claim.reason for claim in method.audit())
    assert isinstance(method, Certifying)


def test_it_learns_every_task_with_heads_of_points():
    method = trained(TIL)
    assert min(right(method, TIL, t).float().mean() for t in range(TASKS)) > 0.9
    assert [n for n in head_names(method.model.net) if n in method.model.layout.shapes] == []
    heads = method.model.points()["layers.2.weight"].detach().clone()
    more = trained(TIL, tasks=2)
    assert not torch.equal(heads[4:], more.model.points()["layers.2.weight"][4:]), "the last head was not trained"
    assert torch.equal(heads[:4], more.model.points()["layers.2.weight"][:4]), "an old head moved"


def test_the_threshold_is_met_on_training_data():
    method = trained(DIL, threshold=0.7)
    for share in method.certified_at_end:
        assert share > 0
    box = method.model.box
    accuracy = method._certified_share(task(2, DIL), Interval.point(method.model.centres()))
    assert method._certified_share(task(2, DIL), box) >= 0.7 * accuracy


@pytest.mark.parametrize("scenario", sorted(ALL_SCENARIOS))
def test_a_primal_dual_contraction_meets_the_threshold_in_nested_boxes_around_their_middles(scenario: Scenario):
    method = InterContiNet(spec(scenario), InterContiNet.Config(lr=0.3, contraction="primal-dual", search_lr=5e-3))
    promised: list[Tensor] = []
    for t in range(TASKS):
        before = method.model.box
        method.begin(task(t, scenario))
        method.learn(task(t, scenario))
        box, middle = method.model.box, method.model.centres()
        assert not t or bool(contains(before, box).all())
        torch.testing.assert_close(middle, (box.lower + box.upper) / 2)
        if not t:
            wanted = method.threshold * method._certified_share(task(t, scenario), Interval.point(middle))
            assert method.certified_at_end[0] >= wanted - 0.05 and method.widths[0] > 1e-2
        promised.append(certain(method, scenario, t))
        for s, promise in enumerate(promised):
            assert bool(right(method, scenario, s)[promise].all()), f"task {s} after task {t}"
    assert promised[0].float().mean() > 0.3
    assert all(claim.contained for claim in method.audit())


@pytest.mark.parametrize(("contraction", "rate"), [("scales", "scale_lr"), ("primal-dual", "search_lr")])
def test_tuning_searches_the_rate_of_the_contraction_in_use(contraction: Any, rate: str) -> None:
    config = InterContiNet.Config(contraction=contraction)
    searched = InterContiNet.searched(spec(DIL), config, InterContiNet.Config.search)
    assert searched.keys() == {"lr", "shift_lr", rate, "threshold"}


def test_released_settings_do_not_meet_it():
    method = trained(TIL, tasks=1, cls=ReleasedInterContiNet)
    assert method.certified_at_end[0] < 0.1
    assert method.widths[0] > 1.5, "the box is nearly the first one"


def test_bounds_have_the_shape_of_predictions_and_hold_them():
    for scenario, shape in ((TIL, (7, 2)), (DIL, (7, 2)), (CIL, (7, 4))):
        method = trained(scenario, tasks=2)
        x = samples(0, scenario).x[:7]
        lower, upper = method.bounds(x, 1 if scenario is TIL else None)
        logits = method.predict(x, 1 if scenario is TIL else None)
        assert lower.shape == upper.shape == logits.shape == shape
        assert bool(contains(Interval(lower, upper), logits).all())


def test_classes_to_come_are_rivals_of_a_certificate_in_cil():
    method = trained(CIL, tasks=1)
    x = samples(0, CIL).x
    _, upper = method.bounds(x)
    unseen = method.model.bounds(method.model.box, x, True, rounded=True).upper[:, 2:]
    assert bool((upper >= unseen.amax(1, keepdim=True)).all())


def test_an_escaped_weight_and_a_moved_head_void_the_claim():
    method = trained(TIL, tasks=2)
    with torch.no_grad():
        method.model.net.layers[0].weight[0, :2] += 100.0
        method.model.net.layers[2].bias[2] += 0.25
    first, second = method.audit()
    assert (first.contained, first.outside) == (False, 2)
    assert first.drift == 0.0 and second.drift == pytest.approx(0.25)
    assert "2 weights left the box" in first.reason and "0.25" in second.reason


def test_state_survives_saving_and_the_rest_of_the_run_is_the_same():
    method = trained(DIL, tasks=2)
    other = InterContiNet(spec(DIL), method.config, seed=5)
    other.load_state_dict(method.state_dict())
    for m in (method, other):
        m.begin(task(2, DIL))
        m.learn(task(2, DIL))
    x = samples(0, DIL).x
    for mine, theirs in zip((*method.bounds(x), method.predict(x)), (*other.bounds(x), other.predict(x)), strict=True):
        assert torch.equal(mine, theirs)
    assert method.audit() == other.audit()


def test_counts_leave_out_what_only_the_audit_reads():
    method = trained(TIL, tasks=2)
    weights = sum(p.numel() for p in method.model.net.parameters())
    boxed = method.model.lower.numel()
    assert weights - boxed == 8 * 6 + 6
    assert method.parameters_trained() == weights + boxed
    assert method.parameters_stored() == weights + 2 * boxed


def test_a_budget_of_one_step_still_ends_in_a_sound_box():
    method = InterContiNet(spec(DIL), InterContiNet.Config())
    for t in range(2):
        method.begin(task(t, DIL, steps=1))
        method.learn(task(t, DIL, steps=1))
    assert all(claim.contained for claim in method.audit())


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_a_closed_gate_does_not_step(kind: str):
    method = trained(
        TIL, tasks=1, threshold=0.0, expansion=0.0, fit_box=False, start_fitted=False, scale_optimizer=kind
    )
    kept = torch.sigmoid(torch.tensor(5.0))
    assert torch.allclose(method.model.box.width, 2 * kept * torch.ones(()), atol=1e-5)


def test_the_middle_network_alone_decides_the_shift_phase():
    """Bounds computed for the official gate change nothing in the phases that train the middle."""
    ends = [trained(DIL, tasks=2, official_gate=gate, contraction_share=0.0) for gate in (False, True)]
    assert torch.equal(ends[0].model.centres(), ends[1].model.centres())


def test_a_convolutional_network_keeps_its_promise_and_its_first_batch_norm_statistics():
    class Normed(InterContiNet):
        def network(self, n_outputs=None):
            outputs = self.spec.n_outputs if n_outputs is None else n_outputs
            layers = nn.Conv2d(1, 9, 3, padding=1), nn.BatchNorm2d(9), nn.ReLU(), nn.MaxPool2d(2, 1), nn.Flatten()
            return nn.Sequential(*layers, nn.Linear(18, outputs))

    method = Normed(spec(DIL), Normed.Config(lr=0.1))
    method.begin(task(0, DIL))
    method.learn(task(0, DIL))
    before, promise = method.model.statistics().clone(), certain(method, DIL, 0)
    assert not torch.equal(before, torch.cat([torch.zeros(9), torch.ones(9)]))
    method.begin(task(1, DIL))
    method.learn(task(1, DIL))
    assert promise.float().mean() > 0.3
    assert bool(right(method, DIL, 0)[promise].all())
    assert torch.equal(before, method.model.statistics())
    assert [claim.reason for claim in method.audit()] == ["", ""]
    method.model.net[1].running_mean += 1
    assert "statistics moved" in method.audit()[0].reason


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31 - 1), st.booleans(), st.sampled_from([0.0, 1e-9, 1e-3, 1.0, 100.0]))
def test_every_shift_and_scale_stays_in_the_box(seed: int, normalised: bool, size: float):
    g = torch.Generator().manual_seed(seed)
    centre, u, v = (torch.randn(50, generator=g) for _ in range(3))
    radius = size * torch.rand(50, generator=g)
    outer = Interval.around(centre, radius)
    new = nested(moved(centre, radius, 10 * u, 10 * v, normalised), outer)
    assert bool(contains(outer, new).all()) and bool((new.lower <= new.upper).all())
    s = shift(10 * u, radius, normalised)
    assert bool((s.abs() + scale(10 * v, s) <= 1 + 1e-6).all())


def test_shrinking_a_boxed_network_moves_it_and_reports_nothing_outside():
    model = BoxedNetwork(nn.Linear(3, 2), [], 0.5)
    assert model.shrink(model.centres() + 10.0, torch.full((8,), 10.0)) == 0
    assert torch.equal(model.centres(), model.upper), "the middle is cut back to the wall"
    assert model.astray() == 0


def test_the_gate_averages_late_batches_and_opens_on_no_right_answer():
    gate = Gate(0.5, 2, True, torch.device("cpu"))
    gate.observe(torch.tensor(1.0), torch.tensor(0.4))
    assert bool(gate.open())
    gate.observe(torch.tensor(1.0), torch.tensor(0.8))
    assert not bool(gate.open())
    for certain_share in (0.3, 0.3):
        gate.observe(torch.tensor(1.0), torch.tensor(certain_share))
    assert bool(gate.open()) and torch.allclose(gate.means(), torch.tensor([1.0, 0.3]))
    for zero_is_open in (True, False):
        gate = Gate(0.5, 2, zero_is_open, torch.device("cpu"))
        gate.observe(torch.tensor(0.0), torch.tensor(0.0))
        assert bool(gate.open()) is zero_is_open


@given(st.floats(0, 1.5))
def test_largest_factor(limit: float):
    found = largest_factor(lambda factor: factor <= limit)
    assert found <= max(limit, 0) and found >= min(1.0, limit * 0.98 if limit > 1e-11 else 0.0)


def test_easiest_samples_and_even_indices():
    worst, y = torch.tensor([[5.0, 0.0], [0.0, 5.0], [1.0, 0.0]]), torch.tensor([0, 0, 0])
    best = nn.functional.cross_entropy(worst[[0, 2]], y[[0, 2]])
    assert torch.allclose(easiest_loss(worst, y, 0.67), best)
    assert evenly(10, 4, torch.device("cpu")).tolist() == [0, 3, 6, 9]
    assert evenly(3, 100, torch.device("cpu")).tolist() == [0, 1, 2]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31 - 1), st.sampled_from([0.0, 0.5, 10.0]))
def test_a_box_is_cut_back_on_every_side_that_sticks_out_and_on_no_other(seed: int, size: float):
    """Also a box that lies outside the old one: its nearer wall remains."""
    g = torch.Generator().manual_seed(seed)
    outer = Interval.around(torch.randn(60, generator=g), torch.rand(60, generator=g))
    inner = Interval.around(2 * torch.randn(60, generator=g), size * torch.rand(60, generator=g))
    found = nested(inner, outer)
    assert bool(contains(outer, found).all()) and bool((found.lower <= found.upper).all())
    for side, given_side in zip(found, inner, strict=True):
        inside = contains(outer, given_side)
        assert torch.equal(side[inside], given_side[inside])
        walls = torch.where(given_side < outer.lower, outer.lower, outer.upper)
        assert torch.equal(side[~inside], walls[~inside])


def test_a_link_that_left_its_box_voids_the_claims_before_it_for_ever(monkeypatch: pytest.MonkeyPatch):
    """The box of task 1 sticks out at three weights; that of task 2 lies inside it again, and repairs nothing."""

    def leaking(inner: Interval, outer: Interval) -> Interval:
        found = nested(inner, outer)
        lower = found.lower.clone()
        lower[:3] = outer.lower[:3] - 0.5
        return Interval(lower, found.upper)

    method = InterContiNet(spec(DIL), InterContiNet.Config(lr=0.3))
    for t in range(TASKS):
        with monkeypatch.context() as patch:
            if t == 1:
                patch.setattr(boxed, "nested", leaking)
            method.begin(task(t, DIL, steps=4))
            method.learn(task(t, DIL, steps=4))
        wanted = [(False, 3)] + [(True, 0)] * t if t else [(True, 0)]
        assert [(claim.contained, claim.outside) for claim in method.audit()] == wanted
    assert "3 weights left the box" in method.audit()[0].reason


@pytest.mark.parametrize("scenario", [DIL, CIL])
def test_certified_bounds_hold_the_network_of_exact_arithmetic(scenario: Scenario):
    """Of a box without width no rounding is hidden by the width: bounds as computed for training do not hold it."""
    method = InterContiNet(spec(scenario), InterContiNet.Config())
    method.begin(task(TASKS - 1, scenario))
    model = method.model
    model.shrink(model.centres(), torch.zeros_like(model.centres()))
    x = samples(0, scenario).x[:20]
    y, p = exact.fractions(x.flatten(1)), {name: exact.fractions(w) for name, w in model.net.named_parameters()}
    for i in range(3):
        y = exact.linear(exact.relu(y), p[f"layers.{i}.weight"], p[f"layers.{i}.bias"])
    bounds = Interval(*method.bounds(x))
    assert exact.holds(bounds, y) and bool((bounds.width < 1e-12).all())


@pytest.mark.parametrize("scenario", sorted(ALL_SCENARIOS))
def test_the_box_is_fitted_to_the_threshold_on_training_data(scenario: Scenario):
    """Where contraction has no step, the largest box around the middle that certifies enough, and no larger one."""
    options = {"contraction_share": 0.0, "start_fitted": False, "threshold": 0.8}
    loose = trained(scenario, tasks=1, fit_box=False, **options)
    fitted = trained(scenario, tasks=1, **options)
    learnt, middle = task(0, scenario), fitted.model.centres()
    assert torch.equal(middle, loose.model.centres())
    wanted = 0.8 * fitted._certified_share(learnt, Interval.point(middle))
    assert wanted > 0.7
    radius = fitted.model.box.width / 2
    assert fitted._certified_share(learnt, fitted.model.box) >= wanted
    assert fitted._certified_share(learnt, Interval.around(middle, 1.02 * radius)) < wanted
    assert loose._certified_share(learnt, loose.model.box) < wanted
    shares = radius / (loose.model.box.width / 2)
    assert torch.allclose(shares, shares[0], rtol=1e-3), "all weights by one factor"


def test_the_rate_falls_after_its_share_of_the_steps_and_no_step_is_added() -> None:
    """20 steps, the second half of which contracts: milestones beyond the first phase change nothing."""
    options = {"milestones": (0.25, 0.4, 0.5, 0.9), "contraction_share": 0.5}
    method = InterContiNet(spec(DIL), InterContiNet.Config(lr=1.0, scale_optimizer="adam", **options))
    rates: list[float] = []

    def step(optimizer: torch.optim.Optimizer, *_: object) -> None:
        if isinstance(optimizer, torch.optim.SGD):
            rates.append(optimizer.param_groups[0]["lr"])

    handle = register_optimizer_step_post_hook(step)
    try:
        method.begin(task(0, DIL, 20))
        method.learn(task(0, DIL, 20))
    finally:
        handle.remove()
    assert rates == pytest.approx([1.0] * 5 + [0.1] * 3 + [0.01] * 2)


def test_the_released_gate_looks_at_the_box_that_a_contraction_would_begin_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Around the moved centre, within the old box; biases of linear layers are contracted from the beginning."""
    method = ReleasedInterContiNet(spec(TIL), ReleasedInterContiNet.Config(lr=0.3))
    seen: list[tuple[Interval, Tensor]] = []
    worst = method._worst

    def watched(box: Interval, batch: Batch) -> Tensor:
        seen.append((box, method.model.centres()))
        return worst(box, batch)

    monkeypatch.setattr(method, "_worst", watched)
    monkeypatch.setattr(method, "_contract", lambda task, shifts, *_: torch.full_like(shifts, 5.0))
    begun = 1 / (1 + math.exp(-method.config.scale_init))
    factors = torch.ones_like(method.model.lower)
    for name in method.model.linear_biases():
        method.model.layout.views(factors)[name].fill_(begun)
    for t in range(2):
        old = method.model.box
        seen.clear()
        method.begin(task(t, TIL))
        method.learn(task(t, TIL))
        for box, centre in seen:
            middle, radius = (box.lower + box.upper) / 2, (box.upper - box.lower) / 2
            if t == 0:
                torch.testing.assert_close(middle, centre)
                torch.testing.assert_close(radius, method.config.max_radius * factors)
            else:
                room = torch.minimum(middle - old.lower, old.upper - middle)
                torch.testing.assert_close(radius, begun * room, rtol=1e-4, atol=1e-5)
        assert seen


def test_the_worst_case_loss_is_of_as_many_samples_as_the_threshold_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threshold is a share of the accuracy: of an untrained network, which is right at some samples only."""
    method, learnt = InterContiNet(spec(DIL), InterContiNet.Config(lr=0.0, threshold=0.5)), task(0, DIL, steps=6)
    shares: list[float] = []
    loss = "methods.intercontinet.easiest_loss"
    monkeypatch.setattr(loss, lambda *given: shares.append(given[2]) or easiest_loss(*given))
    method.begin(learnt)
    method.learn(learnt)
    right = (method.predict(learnt.train.x).argmax(1) == learnt.train.labels).float().mean().item()
    assert 0.1 < right < 0.9 and shares == pytest.approx([0.5 * right] * 3)


def test_a_contraction_begins_at_the_fitted_factor_and_at_a_number_where_nothing_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method, middle = trained(DIL, tasks=1), torch.zeros(1)
    for fitted, begun in ((2.0**-30, 2.0**-30), (0.3, 0.3), (1.0, 1 / (1 + math.exp(-5.0)))):
        monkeypatch.setattr(method, "_fitted", lambda *_, fitted=fitted: fitted)
        raw = method._first_raw_scale(task(0, DIL), middle, middle)
        assert 1 / (1 + math.exp(-raw)) == pytest.approx(begun, rel=1e-9)
    monkeypatch.setattr(method, "_fitted", lambda *_: 0.0)
    raw = method._first_raw_scale(task(0, DIL), middle, middle)
    assert math.isfinite(raw) and 0 < 1 / (1 + math.exp(-raw)) < 1e-9
