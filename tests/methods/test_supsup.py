"""SupSup trains nothing that answers an old task, and infers the task of each sample by exact gradients."""

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from benchmarks.types import CIL, DIL, TIL, StreamSpec, UserError
from methods.networks import targets
from methods.shared import inference, optimizers
from methods.shared.grouped import Group, Point
from methods.shared.supermasks import budgeted_share, first_scores, mean_statistics, superfluous_logsumexp
from methods.shared.superposed import Superposed, lowest
from methods.supsup import SupSup
from tests.methods.test_subnetworks import Convolutional, images, learn, logits


class Made(SupSup):
    """Over a network with batch norm, or the class attribute `made_of`."""

    made_of = Convolutional

    def network(self, n_outputs: int | None = None) -> nn.Module:
        network = self.made_of()
        network[-1] = nn.Linear(network[-1].in_features, n_outputs or 2)
        return network.eval()


class Tied(nn.Sequential):
    """Overwrites the outputs of layers, and uses one layer twice."""

    def __init__(self) -> None:
        twice = nn.Linear(36, 36)
        relu = nn.ReLU(inplace=True)
        super().__init__(nn.Flatten(), twice, relu, twice, nn.LayerNorm(36), relu, nn.Linear(36, 2))


class Residual(nn.Sequential):
    """A residual network with strides, batch norm and additions."""

    def __init__(self) -> None:
        super().__init__(targets.build("resnet-8", (1, 6, 6), 2), nn.Linear(2, 2))


def made(scenario=TIL, n_tasks=3, network=Convolutional, seed=0, **config) -> SupSup:
    cls = type("Over", (Made,), {"made_of": staticmethod(network)})
    cls.name = "supsup"
    return cls(StreamSpec("images", scenario, n_tasks, 2, (1, 6, 6), "mlp-8"), SupSup.Config(**config), seed=seed)


# -- what is kept ------------------------------------------------------------------------------------

OPTIONS = [
    {},
    {"mask": "threshold", "optimizer": "rmsprop", "superfluous": 3, "selection": "val"},
    {"keep": 0.1, "schedule": "cosine", "weight_decay": 0.01, "scale_fan": True},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_old_answers_are_the_same_bit_by_bit_after_every_later_task(options):
    method = made(lr=0.01, **options)
    before: list[Tensor] = []
    for index in range(3):
        learn(method, index)
        now = logits(method)
        assert all(torch.equal(a, b) for a, b in zip(now, before, strict=False))
        assert now[index].std() > 1e-3, "the task is answered by more than a constant"
        before = now
        assert [claim[1:4] for claim in method.audit()] == [(True, 0, 0.0)] * (index + 1)
    assert not torch.equal(method.mask(0), method.mask(1))


def test_a_task_is_learnt_as_if_none_had_come_before():
    """Neither scores nor batch norm's statistics of an earlier task have a part in its own."""
    later, alone = made(lr=0.01), made(lr=0.01)
    learn(later, 0, 1)
    learn(alone, 1)
    assert torch.equal(later.masks[1], alone.masks[0]) and not torch.equal(later.masks[1], later.masks[0])
    for name, found in later.statistics[1].items():
        assert torch.equal(found, alone.statistics[0][name])


def test_an_optimiser_with_any_memory_reaches_scores_alone(monkeypatch):
    def decaying(parameters, lr, **_):
        return torch.optim.AdamW(parameters, lr, weight_decay=0.5)

    monkeypatch.setattr(optimizers, "adam", decaying)
    method = made()
    learn(method, 0, 1)
    assert all(claim.contained for claim in method.audit())


@pytest.mark.parametrize("change", ["weight", "constant", "mask", "statistics"])
def test_the_audit_notices_every_number_of_a_task(change):
    method = made()
    learn(method, 0, 1)
    first = method.target.first
    if change == "weight":
        used = (method.mask(0) & ~method.mask(1)).nonzero()[0]
        first.masked[used] = torch.nextafter(first.masked[used], torch.tensor(torch.inf))
    elif change == "constant":
        first.fixed[2] += 1
    elif change == "mask":
        method.masks[0][1] ^= 4
    else:
        method.statistics[0]["1.running_mean"][2] -= 1
    claims = method.audit()
    assert not claims[0].contained and claims[0].outside == 1
    assert claims[0].drift == (1 if change in ("constant", "statistics") else pytest.approx(0, abs=1e-6))
    assert claims[1].contained == (change != "constant")
    assert claims == method.audit(), "nothing is repaired"


def test_stored_are_a_bit_per_weight_and_task_and_the_statistics():
    method = made(superfluous=1)
    before = method.parameters_stored()
    learn(method, 0, 1)
    weights, statistics = 36 + 64 * 12 + 12 * 3, 2 * (4 + 12) + 2 * 2  # two counters of 64 bits
    assert before == 0 and method.parameters_stored() == 2 * (-(-weights // 32) + statistics)
    assert method.parameters_trained() == weights


def test_a_state_in_a_method_of_another_seed_gives_the_same_answers():
    method, other = made(), made(seed=5)
    assert not torch.equal(method.weights, other.weights)
    learn(method, 0, 1)
    other.load_state_dict(method.state_dict())
    other.tasks_seen = 2
    assert all(torch.equal(a, b) for a, b in zip(logits(method), logits(other), strict=True))
    assert torch.equal(method.predict(images(TIL, 0).x, 2), other.predict(images(TIL, 0).x, 2)), "the latest mask"
    assert all(claim.contained for claim in other.audit())


def test_the_weights_come_from_the_seed_and_leave_the_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    method = made()
    torch.manual_seed(3)
    assert torch.equal(method.frozen_shared()[: len(method.weights)], method.weights)
    assert torch.equal(torch.rand(1), expected)


def test_layers_have_signed_constants_no_biases_and_norms_no_scale():
    def network():
        net = Convolutional()
        for p in net.parameters():
            nn.init.normal_(p)
        return net

    method = made(network=network)
    named = method.target.named(method.target.first)
    assert named["0.weight"].abs().unique().tolist() == pytest.approx([(2 / 9) ** 0.5])
    assert named["4.weight"].abs().unique().tolist() == pytest.approx([(2 / 64) ** 0.5])
    assert -1 < named["4.weight"].sign().mean() < 1, "both signs"
    assert not any(named[f"{layer}.bias"].any() for layer in (0, 1, 4, 5, 8))
    assert all((named[f"{layer}.weight"] == 1).all() for layer in (1, 5))
    assert made(scale_fan=True, keep=0.25).weights[0].abs() == pytest.approx((2 / (9 * 0.25)) ** 0.5)


# -- masks -------------------------------------------------------------------------------------------


def test_the_share_kept_of_each_tensor():
    method = made(keep=0.3)
    learn(method, 0)
    parts = method.mask(0).split(method.target.sizes(Group.MASKED))
    assert [int(part.sum()) for part in parts] == [n - int(0.7 * n) for n in (36, 768, 24)]
    assert budgeted_share(torch.Size((784, 100)), 2.0) == pytest.approx(2 * 884 / 78400)
    assert budgeted_share(torch.Size((16, 8, 3, 3)), 1.0) == pytest.approx(24 / (16 * 8 * 9))
    assert budgeted_share(torch.Size((10, 10)), 32.0) == 0.5


def test_equal_scores_leave_the_count_as_it_is():
    method = made(keep=0.5)
    with torch.no_grad():
        method.scores.fill_(-0.1)
    parts = method.present_mask().split(method.target.sizes(Group.MASKED))
    assert [int(part.sum()) for part in parts] == [18, 384, 12]


def test_a_threshold_keeps_zero():
    method = made(mask="threshold")
    with torch.no_grad():
        method.scores.copy_(torch.arange(len(method.scores)) % 3 - 1)
    assert torch.equal(method.present_mask(), (torch.arange(len(method.scores)) % 3 != 0).float())


def test_first_scores_are_uniform_within_the_inverse_root_of_the_inputs():
    drawn = first_scores(torch.Size((50, 8, 2, 2)))
    assert len(drawn) == 1600 and 0.17 < drawn.max() <= 32**-0.5 and -(32**-0.5) <= drawn.min() < -0.17


def test_each_task_draws_scores_anew():
    method = made(lr=0.0)
    learn(method, 0)
    first = method.scores.detach().clone()
    learn(method, 1)
    assert (method.scores != first).all()


# -- inference ---------------------------------------------------------------------------------------


def mixture_of(network, k: int) -> Superposed:
    """Random masks over a network in float64, with statistics that are not those of its start."""
    target = SupSup.grouped(network().double(), SupSup.Config())
    generator = torch.Generator().manual_seed(k)
    masks = torch.rand(k, len(target.first.masked), generator=generator) < 0.5
    statistics = {n: b + 0.3 if b.is_floating_point() else b for n, b in target.first.statistics.items()}
    return Superposed(target, target.first._replace(statistics=statistics), masks)


def by_autograd(mixture: Superposed, shares: Tensor, x: Tensor, objective) -> tuple[Tensor, Tensor]:
    """Objective (b,) and its gradient by the shares (b, k), one sample at a time."""
    rows = []
    for sample, own in zip(x, shares, strict=True):
        alpha = own.clone().requires_grad_()
        weights = mixture.point.masked * (alpha @ mixture.masks.double())
        value = objective(mixture.target(mixture.point._replace(masked=weights), sample[None]))[0]
        rows.append((value.detach(), *torch.autograd.grad(value, alpha)))
    values, gradients = zip(*rows, strict=True)
    return torch.stack(values), torch.stack(gradients)


@pytest.mark.parametrize("network", [Convolutional, Tied, Residual])
@pytest.mark.parametrize("objective", [inference.entropy, lambda logits: superfluous_logsumexp(logits, 1)])
def test_gradients_of_each_sample_are_those_of_autograd(network, objective):
    torch.manual_seed(1)
    mixture, x = mixture_of(network, 4), images(TIL, 0, 6).x.double()
    equal = torch.full((6, 4), 0.25, dtype=torch.float64)
    own = torch.rand(6, 4, dtype=torch.float64)
    for found, shares in ((mixture.gradients(x, objective), equal), (mixture.gradients_at(own, x, objective), own)):
        expected = by_autograd(mixture, shares, x, objective)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
        assert expected[1].std(0).min() > 0, "samples differ"


def test_superfluous_outputs_alone_have_a_gradient():
    values = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    superfluous_logsumexp(values, 2).sum().backward()
    assert values.grad is not None and values.grad[0, :2].tolist() == [0, 0]
    assert values.grad[0, 2] == pytest.approx(values.detach().softmax(1)[0, 2].item())


def test_the_lowest_among_those_left():
    values = torch.tensor([[3.0, 1.0, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    among = torch.tensor([[True, True, True, False], [False, True, True, True]])
    assert lowest(values, among, 2).tolist() == [[False, True, True, False], [False, True, True, False]]


@pytest.mark.parametrize("objective", ["entropy", "superfluous"])
@pytest.mark.parametrize("rule", ["one-shot", "binary"])
def test_the_inferred_task_is_that_of_the_rule_followed_sample_by_sample(rule, objective):
    method = made(DIL, 5, inference=rule, objective=objective, superfluous=2, lr=0.02)
    learn(method, 0, 1, 2, 3, 4)
    x = images(DIL, 0, 12).x
    mixture = method.mixture()
    function = inference.entropy if objective == "entropy" else lambda logits: superfluous_logsumexp(logits, 2)
    expected = []
    for sample in x.split(1):
        left = list(range(5))
        while len(left) > 1:
            shares = torch.zeros(1, 5)
            shares[0, left] = 1 / len(left)
            _, gradients = by_autograd(_in_float64(mixture), shares.double(), sample.double(), function)
            count = 1 if rule == "one-shot" else (len(left) + 1) // 2
            left = sorted(left, key=lambda i: gradients[0, i].item())[:count]
        expected.append(left[0])
    assert method.infer_task(x).tolist() == expected
    assert len(set(expected)) > 1


def _in_float64(mixture: Superposed) -> Superposed:
    target = copy.copy(mixture.target)
    target.zeros = {name: zeros.double() for name, zeros in target.zeros.items()}
    masked, fixed, own, statistics = mixture.point
    statistics = {name: b.double() if b.is_floating_point() else b for name, b in statistics.items()}
    return Superposed(target, Point(masked.double(), fixed.double(), own.double(), statistics), mixture.masks)


@pytest.mark.parametrize("rule", ["one-shot", "binary"])
def test_the_task_of_a_sample_does_not_depend_on_the_batch(rule, monkeypatch):
    method = made(CIL, 3, inference=rule, lr=0.02)
    learn(method, 0, 1, 2)
    x = torch.cat([images(CIL, t, 8).x for t in range(3)])
    whole = method.infer_task(x)
    assert torch.equal(whole, torch.cat([method.infer_task(sample) for sample in x.split(1)]))
    monkeypatch.setattr("methods.supsup.INFERRED_AT_ONCE", 5)
    assert torch.equal(whole, method.infer_task(x))


@pytest.mark.parametrize("scenario", [DIL, CIL])
def test_the_network_of_the_inferred_task_answers(scenario):
    method = made(scenario, superfluous=3, lr=0.02)
    learn(method, 0, 1, 2)
    x = images(scenario, 1).x
    task, answers = method.infer_task(x), method.predict(x)
    own = torch.stack([method.logits(x, int(t))[i] for i, t in enumerate(task)])
    assert answers.shape == (64, 2 if scenario is DIL else 6)
    chosen = own.argmax(1) + (0 if scenario is DIL else 2 * task)
    assert torch.equal(answers.argmax(1), chosen)
    first, _, last = method.audit()
    assert "inference" in first.reason and not last.reason


def test_mixed_statistics_are_means_and_counters_the_last():
    mixed = mean_statistics([
        {"mean": torch.tensor([1.0, 2.0]), "count": torch.tensor(3)},
        {"mean": torch.tensor([3.0, 6.0]), "count": torch.tensor(5)},
    ])  # fmt: skip
    assert mixed["mean"].tolist() == [2, 4] and mixed["count"] == 5
    method = made(DIL)
    learn(method, 0, 1)
    expected = mean_statistics(method.statistics)["1.running_mean"]
    assert torch.equal(method.mixture().point.statistics["1.running_mean"], expected)


# -- bounds, refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(("scenario", "rule"), [(TIL, "one-shot"), (DIL, "entropy"), (CIL, "entropy")])
def test_bounds_hold_the_answers_and_are_no_wider_than_rounding(scenario, rule):
    method = made(scenario, inference=rule, superfluous=2)
    learn(method, 0, 1)
    x = images(scenario, 1).x
    lower, upper = method.bounds(x, 1)
    answers = method.predict(x, 1)
    slack = 1e-4 + 1e-6 * answers.abs()  # of float32
    assert lower.shape == answers.shape
    assert (lower - slack <= answers).all() and (answers <= upper + slack).all() and (upper - lower).max() < 1e-9


@pytest.mark.parametrize("rule", ["one-shot", "binary"])
def test_bounds_are_refused_where_mixed_masks_infer_the_task(rule):
    method = made(CIL, inference=rule)
    learn(method, 0)
    with pytest.raises(NotImplementedError, match="gradients"):
        method.bounds(images(CIL, 0).x, 0)


@pytest.mark.parametrize(("config", "match"), [
    ({"keep": 0.0}, "keep"), ({"keep": 1.5}, "keep"), ({"budget": 0.0}, "budget"), ({"superfluous": -1}, "superfluous"),
    ({"weight_decay": -1.0}, "weight_decay"), ({"weight_decay": 0.1, "mask": "threshold"}, "threshold"),
    ({"objective": "superfluous"}, "set superfluous"),
])  # fmt: skip
def test_settings_that_cannot_be_meant(config, match):
    with pytest.raises(UserError, match=f"supsup.*{match}"):
        SupSup.Config(**config)


def test_networks_with_weights_outside_of_linear_layers_are_skipped(monkeypatch):
    class Positions(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Flatten(), nn.Linear(4, 2))
            self.positions = nn.Parameter(torch.zeros(1, 4))

    spec = StreamSpec("linear", TIL, 2, 2, (4,), "mlp")
    assert SupSup.skip(spec, SupSup.Config()) is None
    monkeypatch.setattr(targets, "on_meta", lambda *_: Positions())
    assert "in positions" in (SupSup.skip(spec, SupSup.Config()) or "")


def test_the_rate_falls_after_each_epoch(monkeypatch):
    rates = []
    step = optimizers.Adam.step
    monkeypatch.setattr(optimizers.Adam, "step", lambda o, *a: (rates.append(o.param_groups[0]["lr"]), step(o, *a))[1])
    learn(made(lr=0.5, schedule="cosine"), 0, steps=10)  # of four steps an epoch, so three epochs
    assert rates == pytest.approx(list(itertools.chain([0.5] * 4, [0.375] * 4, [0.125] * 2)))


def test_tables_of_capacity_and_overlap():
    method = made(keep=0.5)
    learn(method, 0, 1)
    found = method.exhibits()
    assert found["capacity"]["open"] == pytest.approx([0.5, 0.5]) and found["capacity"]["bits"] == [1 / 32, 2 / 32]
    assert 0.5 < found["capacity"]["union"][1] < 1 and len(found["mask-overlap"]["task"]) == 4
