"""HyperInterval's boxes: what they promise holds for any embedding, radius and input sign; broken promises are seen."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from benchmarks.samples import Samples
from benchmarks.types import CIL, DIL, TIL, Budget, StreamSpec, Task, UserError
from methods.hyperinterval import HyperInterval
from methods.hypernetworks.candidates import RULES, Candidates, OfficialRule
from methods.hypernetworks.output_layer import FusedAdam
from methods.hypernetworks.stateless import FunctionalNetwork
from methods.intervals.bounding import Interval, contains
from methods.shared.inference import least_entropy, over_all_classes
from tests.methods import exact
from tests.methods.helpers import learn, opened

seeds = st.integers(0, 10_000)
perturbations = st.sampled_from([0.0, 1e-3, 0.3, 1.0, 10.0])
ROUNDING = 1e-10


def made(scenario, seed=0, nonnegative=True, dtype=torch.float64, **options) -> HyperInterval:
    """An untrained model of three tasks of two classes, as if all were learnt."""
    spec = StreamSpec("drawn", scenario, 3, 2, (5,), "mlp-6-4", nonnegative_inputs=nonnegative)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        config = HyperInterval.Config(**{"embedding": 4, "hidden": (6,)} | options)
        method = HyperInterval(spec, config, "cpu", seed)
    finally:
        torch.set_default_dtype(default)
    method.tasks_seen = 3
    return method


def drawn(lower: torch.Tensor, upper: torch.Tensor, n: int = 16) -> torch.Tensor:
    """Points of the box (n, ...), half of them corners."""
    share = torch.rand(n, *lower.shape, dtype=lower.dtype)
    share[: n // 2] = share[: n // 2].round()
    return lower + share * (upper - lower)


@settings(max_examples=15, deadline=None)
@given(seeds, perturbations, st.sampled_from([TIL, DIL]), st.booleans())
def test_every_embedding_in_a_box_makes_a_network_inside_its_bounds(seed, eps, scenario, nonnegative):
    method = made(scenario, seed, nonnegative, eps=eps)
    x = torch.randn(7, 5, dtype=torch.float64)
    x = x.abs() if nonnegative else x
    centres, radii = method.boxes(method.embeddings, method.shapes, eps)
    with torch.no_grad():
        theta, rho = method.weights(slice(0, 3))
        for j in range(3):
            weights = method.hypernetwork(drawn(centres[j] - radii[j], centres[j] + radii[j]))
            assert contains(Interval.around(theta[j], rho[j] + ROUNDING), weights).all()
            bounds = Interval(*method.bounds(x, j))
            for row in weights:
                assert contains(
                    Interval(bounds.lower - ROUNDING, bounds.upper + ROUNDING), method.middle(row, x, j)
                ).all()


def test_sampled_networks_lie_all_over_the_box_half_of_each_on_its_faces(monkeypatch):
    method, seen = made(TIL, eps=1.0), []
    monkeypatch.setattr(method, "middle", lambda weights, x, j: seen.append((j, weights)) or torch.zeros(1, 2))
    for _ in range(60):
        method.sampled(torch.zeros(1, 5), 1)
    assert {j for j, _ in seen} == {1}
    with torch.no_grad():
        theta, rho = method.weights(1)
    wide = rho[0] > 1e-6
    places = torch.stack([(weights - theta[0])[wide] / rho[0][wide] for _, weights in seen])
    low, high = ((places * sign > 1 - 1e-6).float().mean().item() for sign in (-1, 1))
    assert wide.any() and (places.abs() < 1 + 1e-6).all()
    assert low == pytest.approx(0.25, abs=0.03) and high == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("scenario", [TIL, DIL, CIL])
def test_certificates_of_boxes_without_width_enclose_the_network_in_double_precision(scenario):
    method = made(scenario, dtype=torch.float32, eps=0.0)
    x = torch.rand(50, 5)
    with torch.no_grad():
        # Some processors round products of one embedding and of three differently, so generate those that answer.
        tasks = range(3) if scenario is CIL else range(1, 2)
        theta, rho = method.weights(slice(tasks.start, tasks.stop))
        assert not rho.any()
        lower, upper = method.bounds(x, 1)
        logits = torch.stack([method.middle(row.double(), x.double(), j) for j, row in zip(tasks, theta, strict=True)])
    right = over_all_classes(logits, least_entropy(logits)) if scenario is CIL else logits[0]
    assert lower.dtype == torch.float64 and bool(((lower < right) & (right < upper)).all())
    assert bool((upper - lower < 1e-10).all())


@settings(max_examples=15, deadline=None)
@given(seeds, perturbations)
def test_the_universal_network_lies_in_the_box_of_every_task(seed, eps):
    method = made(DIL, seed, eps=eps)
    with torch.no_grad():
        lower, upper = method.universal_box()
        assert (lower <= upper).all()
        used, none = method.universal_weights()
        theta, rho = method.weights(slice(0, 3))
    assert not none.any()
    for middle, radius in zip(theta, rho, strict=True):
        assert contains(Interval.around(middle, radius + ROUNDING), used).all()


def test_the_official_universal_box_sticks_out_of_the_boxes_that_it_should_lie_in():
    method = made(DIL, universal="official", eps=10.0)
    with torch.no_grad():
        middle, radius = method.universal_weights()
        theta, rho = method.weights(slice(0, 3))
    inside = contains(Interval.around(theta, rho), Interval.around(middle, radius).lower)
    assert not inside.all()


@settings(max_examples=15, deadline=None)
@given(seeds, st.floats(0.0, 5.0), st.floats(0.0, 1.0))
def test_a_smaller_box_of_embeddings_makes_a_smaller_box_of_weights(seed, eps, share):
    method = made(TIL, seed)
    with torch.no_grad():
        boxes = []
        for size in (eps, share * eps):
            centres, radii = method.boxes(method.embeddings, method.shapes, size)
            theta, rho, _ = method.hypernetwork.intervals(centres, radii)
            boxes.append(Interval.around(theta, rho))
    large, small = boxes
    assert (small.lower >= large.lower - ROUNDING).all() and (small.upper <= large.upper + ROUNDING).all()


@pytest.mark.parametrize("scenario", [TIL, DIL])
def test_an_audit_sees_the_box_that_moved(scenario):
    stream = opened(scenario)
    method = HyperInterval(stream.spec, HyperInterval.Config(beta=0.0, hidden=(10,), select="last"), "cpu", 0)
    learn(method, stream, [0])
    (fresh,) = method.audit()
    assert fresh.contained and fresh.outside == 0 and fresh.drift == 0 and fresh.median_width > 0
    learn(method, stream, [1])
    old, new = method.audit()
    assert new.contained or scenario is DIL
    assert old.drift > 0
    # Nothing holds the old task's weights, so those that a narrow interval allows no movement leave it.
    assert old.contained == (old.outside == 0) == (old.reason == "")


def test_class_incremental_claims_end_with_the_next_task():
    stream = opened(CIL)
    method = HyperInterval(stream.spec, HyperInterval.Config(hidden=(10,), select="last", beta=1e3), "cpu", 0)
    learn(method, stream, [0, 1])
    old, new = method.audit()
    assert old.reason
    assert new.contained


def test_mistakes_are_named():
    for options, message in [
        ({"batch_norm": "official"}, "no sound bounds"),
        ({"kappa": 1.5}, "must lie in"),
        ({"eps": -1.0}, "must be at least 0"),
    ]:
        with pytest.raises(UserError, match=message):
            HyperInterval.Config(**options)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 300])
@pytest.mark.parametrize(("kappa", "eps"), [(0.5, 1.0), (0.999, 0.3), (0.0, 17.0)])
def test_the_schedule_is_the_formula_at_every_step_to_the_last_bit(steps, kappa, eps):
    """Also past the planned end, where timing goes on."""
    method = made(TIL, dtype=torch.float32, kappa=kappa, eps=eps)
    schedule, half = method.schedule(steps), steps // 2
    for i in range(steps + 3):
        method.step.fill_(i)
        rising = method.step < half
        wanted = torch.where(rising, (1 - 5e-5 * method.step).clamp(min=kappa), kappa)
        assert torch.equal(method.present(schedule)[0], wanted)
        wanted = torch.where(rising, eps * method.step / max(1, half - 1), eps)
        assert torch.equal(method.present(schedule)[1], wanted)


# -- which parameters are kept -----------------------------------------------------------------------


@pytest.mark.parametrize("scenario", [TIL, DIL])
@pytest.mark.parametrize("universal", ["point", "official"])
def test_candidates_are_judged_by_the_network_that_answers(scenario, universal):
    """At full eps, from the first step on. A box's middle depends on its size, so other networks answer otherwise."""
    stream = opened(scenario)
    config = HyperInterval.Config(hidden=(10,), eps=50.0, lr=1e-2, universal=universal)
    method = HyperInterval(stream.spec, config, "cpu", 0)
    for t in range(2):
        task = stream.task(t)
        method.begin(task)
        method.learn(task)
    method.step.zero_()  # the first step, at which the annealed eps is 0
    own = method.embeddings[1:2].clone(), method.shapes[1:2].clone()
    method.embeddings[1] = 7.0  # while a task is learnt, its embedding is not yet the method's
    with FusedAdam(method.hypernetwork.output, [], 1e-3) as optimizer:
        candidates = RULES["val"](method, task, *own, optimizer)
        judged, of_another = candidates.judge(), OfficialRule(method, task, *own, optimizer)._own_accuracy(0.0)
    method.embeddings[1] = own[0][0]
    assert judged == method.accuracy(task.validation, 1)
    assert of_another != judged, "the test says nothing"


@pytest.mark.parametrize(
    ("length", "due"), [({"epochs": 3}, [0, 3, 7, 10, 11]), ({"steps": 12}, [0, 10, 11])], ids=["epochs", "steps"]
)
def test_the_official_rule_judges_at_the_ends_of_epochs_too(length: dict[str, int], due: list[int]):
    """Four steps an epoch; every tenth step and the last are due in either case (spec section 9.4)."""
    task = opened(TIL).task(0)
    task = replace(task, budget=Budget(-(-len(task.train) // 4), **length))
    method = made(TIL)
    method.statistics.append({})
    with FusedAdam(method.hypernetwork.output, [], 1e-3) as optimizer:
        candidates = OfficialRule(method, task, method.embeddings[:1], method.shapes[:1], optimizer)
        found = []
        for step in range(candidates.steps):
            candidates.i = step
            found += [step] * candidates._due()
    assert candidates.steps == 12 and found == due


def test_weights_outside_are_counted_as_the_audit_counts_them():
    for scenario in (TIL, DIL):
        stream = opened(scenario)
        method = HyperInterval(stream.spec, HyperInterval.Config(hidden=(10,), beta=0.0, eps=1e-3), "cpu", 0)
        for t in range(2):
            method.begin(stream.task(t))
            method.learn(stream.task(t))
        counted = method.outside()
        assert counted.tolist() == [claim.outside for claim in method.audit()]
        assert counted[0] > 0 and counted[1] == 0


def test_claims_prefers_the_candidate_that_leaves_fewer_boxes():
    """Two runs that differ in the rule: of equally accurate candidates the one with fewer weights outside is kept."""
    outside = {}
    for select in ("val", "claims"):
        stream = opened(DIL)
        config = HyperInterval.Config(hidden=(10,), beta=0.0, select=select, select_every=1)
        method = HyperInterval(stream.spec, config, "cpu", 0)
        for t in range(2):
            method.begin(stream.task(t))
            with pytest.MonkeyPatch.context() as patch:
                # Rising accuracies within one standard error, with which "val" keeps the last candidate.
                patch.setattr(Candidates, "judge", lambda self: 0.5 + 1e-4 * self.method.step)
                method.learn(stream.task(t))
        outside[select] = int(method.outside()[0])
    assert outside["claims"] < outside["val"]


def test_the_best_candidate_of_the_second_half_is_kept():
    """Scores by hand: the best of all lies in the first half, at a small box; of the others the middle one is best."""
    stream = opened(TIL)
    config = HyperInterval.Config(hidden=(10,), select_every=2)
    method = HyperInterval(stream.spec, config, "cpu", 0)
    task = stream.task(0)
    steps, seen = task.budget.steps_for(len(task.train)), {}
    scores = {2: 1.0, 4: 0.9, 6: 0.9, 8: 0.3, 10: 0.6, 12: 0.5}
    assert steps == 12

    def judged():
        done = int(method.step) + 1
        seen[done] = method.hypernetwork.output.bias.detach().clone()
        return torch.tensor(scores[done])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RULES["val"], "judge", lambda self: judged())
        method.begin(task)
        method.learn(task)
    assert list(seen) == [8, 10, 12]
    assert torch.equal(method.hypernetwork.output.bias, seen[10])
    assert not torch.equal(seen[10], seen[12]) and not torch.equal(seen[10], seen[8])


# -- batch norm, and rounding ------------------------------------------------------------------------


class Normed(HyperInterval):
    """Over a small network with batch norm."""

    def network(self, n_outputs=None):
        return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)).to(self.device)


def shifted_task(j: int, scenario, n: int = 64) -> Task:
    """Inputs around 3 (j + 1): statistics of one task are of no use for the other, nor are those of a new network."""
    g = torch.Generator().manual_seed(j)
    y = torch.arange(n) % 2
    x = torch.randn(n, 5, generator=g) + 3 * (j + 1)
    x[:, 0] += 4.0 * y
    samples = Samples(x, torch.arange(n), y + 2 * j if scenario is CIL else y, j)
    return Task(j, samples, samples, Budget(16, steps=30), j)


@pytest.mark.parametrize("scenario", [TIL, DIL, CIL])
def test_bounds_use_the_statistics_of_the_answers(scenario):
    """With any others, those of a new network say, neither the answers nor networks drawn from the box lie inside."""
    config = Normed.Config(embedding=4, hidden=(6,), eps=1e-3, beta=10.0, select="last")
    method = Normed(StreamSpec("normed", scenario, 2, 2, (5,), "mlp-6", nonnegative_inputs=False), config)
    for j in range(2):
        task = shifted_task(j, scenario)
        method.begin(task)
        method.learn(task)
    for j in range(2):
        x, told = shifted_task(j, scenario).train.x[:9], j if scenario is TIL else None
        with torch.no_grad():
            bounds = Interval(*(side.float() for side in method.bounds(x, j)))
            slack = Interval(bounds.lower - 1e-3, bounds.upper + 1e-3)
            for answers in (method.sampled(x, j), *([] if scenario is DIL else [method.predict(x, told)])):
                assert contains(slack, answers).all()
            if scenario is not CIL:
                theta, rho = method.weights(j)
                training = method.interval_logits(theta[0], rho[0], x, j)[1]
                assert contains(slack, training).all(), "the loss sees the same box"
                assert (bounds.upper - bounds.lower).max() < 1.0, "the bounds say nothing"


def test_the_three_forwards_move_the_running_statistics_once_by_the_middle_network():
    torch.manual_seed(0)
    target = FunctionalNetwork(nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)))
    middle, x = torch.randn(target.n_weights), torch.randn(32, 5)
    found, wanted = ({name: s.clone() for name, s in target.first_statistics.items()} for _ in range(2))
    target.endpoints(middle - 1, middle, middle + 2, x, found, training=True)
    target(middle, x, wanted, training=True)
    assert not torch.equal(wanted["1.running_mean"], target.first_statistics["1.running_mean"])
    for name, statistic in wanted.items():
        assert torch.equal(found[name], statistic), name
    before = {name: s.clone() for name, s in found.items()}
    target.endpoints(middle - 1, middle, middle + 2, x, found)
    assert all(torch.equal(found[name], s) for name, s in before.items())


def test_certified_bounds_hold_the_network_of_exact_arithmetic():
    """Of a box without width no rounding is hidden by the width: bounds as computed for training do not hold it."""
    method = made(TIL, eps=0.0, nonnegative=False, dtype=torch.float32)
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(1))
    for j in range(3):
        with torch.no_grad():
            p = {name: exact.fractions(w) for name, w in method.target.named(method.weights(j)[0][0]).items()}
            bounds = Interval(*method.bounds(x, j))
        y = exact.fractions(x)
        for i in range(3):
            y = exact.linear(exact.relu(y) if i else y, p[f"layers.{i}.weight"], p[f"layers.{i}.bias"])
        assert exact.holds(bounds, y)
        assert (bounds.upper - bounds.lower).max() < 1e-12


@pytest.mark.parametrize("scenario", [TIL, DIL])
def test_the_shape_of_a_box_is_learnt_where_boxes_are_not_nested(scenario):
    stream = opened(scenario)
    method = HyperInterval(stream.spec, HyperInterval.Config(hidden=(10,)), "cpu", 0)
    before, task = method.shapes.clone(), stream.task(0)
    method.begin(task)
    method.learn(task)
    changed = (method.shapes != before).any(1).tolist()
    assert changed == [not method.nested] + [False] * (len(before) - 1)
