"""WSN and PackNet keep old answers bit by bit, and their audit notices every way in which they would not."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from benchmarks.samples import Samples
from benchmarks.types import CIL, DIL, TIL, Budget, Scenario, StreamSpec, Task, UserError
from methods import registry, subnetworks
from methods.packnet import PackNet
from methods.point_promise import chosen_bounds
from methods.shared import inference, optimizers
from methods.shared.capacity import capacity
from methods.shared.grouped import Group, Point
from methods.subnetworks import Subnetworks
from methods.wsn import WSN
from tests.methods.helpers import assert_equal

BOTH = ["wsn", "packnet"]


class Convolutional(nn.Sequential):
    """Convolution with batch norm, dropout and a linear layer below the head."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
            nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.2), nn.Linear(12, 2),
        )  # fmt: skip


def images(scenario: Scenario, index: int, n: int = 64) -> Samples:
    """Two classes of noisy images, told apart by the brightness of one pixel, which is the task's."""
    generator = torch.Generator().manual_seed(index)
    labels = torch.arange(n) % 2
    x = torch.randn(n, 1, 6, 6, generator=generator)
    x[:, 0, 1 + index % 4, 2] += 4.0 * labels
    return Samples(x, torch.arange(n), labels + 2 * index if scenario is CIL else labels, index)


def task_of(scenario: Scenario, index: int, steps: int) -> Task:
    train = images(scenario, index)
    return Task(index, train, train, Budget(16, steps=steps), index)


def made(name: str, scenario: Scenario = TIL, n_tasks: int = 3, network: type = Convolutional, **config) -> Subnetworks:
    cls = registry.load(name)

    class Over(cls):
        def network(self, n_outputs: int | None = None) -> nn.Module:
            return network()

    spec = StreamSpec("images", scenario, n_tasks, 2, (1, 6, 6), "mlp-8")
    return Over(spec, cls.Config(**config))


def learn(method: Subnetworks, *indices: int, steps: int = 9) -> None:
    for index in indices:
        task = task_of(method.spec.scenario, index, steps)
        method.begin(task)
        method.learn(task)


def logits(method: Subnetworks) -> list[Tensor]:
    """Answers of the networks of all learnt tasks."""
    return [method.logits(images(TIL, j).x, j).detach() for j in range(method.tasks_seen)]


OPTIONS = [
    ("wsn", {}),
    ("wsn", {"biases": "masked", "batch_norm": "frozen", "capacity": 0.1}),
    ("wsn", {"biases": "none", "mask_of": "last-batch", "selection": "val", "optimizer": "sgd", "momentum": 0.9}),
    ("packnet", {}),
    ("packnet", {"biases": "first", "batch_norm": "frozen", "restart": "zero", "ties": "official"}),
    ("packnet", {"biases": "none", "keep": 0.3, "selection": "val", "optimizer": "sgd", "momentum": 0.9}),
]


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_old_answers_are_the_same_bit_by_bit_after_every_later_task(name, options):
    method = made(name, **options)
    before: list[Tensor] = []
    for index in range(3):
        learn(method, index)
        now = logits(method)
        assert all(torch.equal(a, b) for a, b in zip(now, before, strict=False))
        assert now[index].std() > 0.01, "the task is answered by more than a constant"
        before = now
        assert [claim[1:4] for claim in method.audit()] == [(True, 0, 0.0)] * (index + 1)
        assert all(map(method.unchanged, range(index + 1)))


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("scenario", [DIL, CIL])
def test_where_the_task_is_inferred_the_audit_says_that_later_tasks_take_part(name, scenario):
    method = made(name, scenario)
    learn(method, 0, 1)
    first, second = method.audit()
    assert first.contained and "inference" in first.reason and not second.reason
    assert not method.unchanged(0), "its bounds cover the second task's network since that was learnt"


@pytest.mark.parametrize("name", BOTH)
def test_a_decaying_optimiser_is_harmless_and_without_the_remedy_the_audit_notices_it(name, monkeypatch):
    def decaying(parameters, lr):
        return torch.optim.Adam(parameters, lr, weight_decay=0.1)

    monkeypatch.setattr(optimizers, "adam", decaying)
    method = made(name)
    learn(method, 0, 1)
    assert all(claim.contained for claim in method.audit())
    monkeypatch.setattr(f"methods.{name}.holding", lambda *_: lambda: None)
    learn(method, 2)
    claims = method.audit()
    assert not claims[0].contained and claims[0].outside > 10 and 0 < claims[0].drift < 1
    assert f"{claims[0].outside} of" in claims[0].reason
    assert claims == method.audit(), "nothing is repaired"


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("change", ["own", "statistics", "mask", "smallest"])
def test_the_audit_notices_every_number_of_a_task(name, change):
    method = made(name)
    learn(method, 0, 1)
    if change == "own":
        method.kept[0][3] += 1
    elif change == "statistics":
        method.statistics[0]["1.running_mean"][2] -= 1
    elif change == "mask":
        entry = method.mask(0).nonzero()[0]
        if isinstance(method, WSN):
            method.masks[0][entry // 32] ^= 1 << (entry % 32)
        else:
            method.owners[entry] = 2
    else:
        used = (method.mask(0) & ~method.mask(1) if name == "wsn" else method.mask(0)).nonzero()[0]
        with torch.no_grad():
            method.weights[used] = torch.nextafter(method.weights[used], torch.tensor(torch.inf))
    first, second = method.audit()
    assert not first.contained and first.outside == 1
    assert not method.unchanged(0) and method.unchanged(1) is second.contained
    assert first.drift == pytest.approx(1 if change in ("own", "statistics") else 0, abs=1e-6)  # x + 1 is rounded
    assert second.contained or name == "packnet", "PackNet's second task uses the first one's weights"


def test_the_audit_notices_a_change_of_what_all_tasks_share_as_a_whole():
    method = made("packnet", biases="first", batch_norm="frozen")
    learn(method, 0, 1)
    with torch.no_grad():
        method.fixed[0] += 1
    assert [(claim.contained, claim.outside) for claim in method.audit()] == [(False, 1)] * 2


@pytest.mark.parametrize("name", BOTH)
def test_frozen_batch_norm_is_constant_after_the_first_task(name):
    method = made(name, batch_norm="frozen")
    learn(method, 0)
    fixed = method.fixed.detach().clone()
    statistics = {name: b.clone() for name, b in method.statistics_of(0).items()}
    assert len(fixed) == 2 * (4 + 12) and len(fixed.unique()) > 2, "trained in the first task"
    learn(method, 1)
    assert torch.equal(method.fixed, fixed) and len(method.statistics) == 1
    torch.testing.assert_close(method.statistics_of(1), statistics, rtol=0, atol=0)


@pytest.mark.parametrize("name", BOTH)
def test_a_task_starts_with_a_fresh_head_and_the_batch_norm_of_the_task_before(name):
    method = made(name)
    learn(method, 0)
    method.start(task_of(TIL, 1, 1))
    head, first = method.target.n_head, method.target.first
    assert torch.equal(method.own, torch.cat([method.kept[0][:-head], first.own[-head:]]))
    for old, new in zip(method.statistics[0].values(), method.statistics[1].values(), strict=True):
        assert torch.equal(old, new) and old.data_ptr() != new.data_ptr()
    assert not torch.equal(method.statistics[1]["1.running_mean"], first.statistics["1.running_mean"])


class LayerNormed(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(36, 10), nn.LayerNorm(10), nn.ReLU(), nn.Linear(10, 2))


@pytest.mark.parametrize("batch_norm", ["per-task", "frozen"])
@pytest.mark.parametrize(("name", "biases"), [("wsn", "masked"), ("wsn", "none"), ("packnet", "none")])
def test_scales_of_norm_layers_are_no_biases(name, biases, batch_norm):
    """A scale of 0, by a mask or as an absent bias, makes every answer the same."""
    method = made(name, network=LayerNormed, biases=biases, batch_norm=batch_norm)
    learn(method, 0)
    point = method.point(0)
    named = method.target.named(point)
    assert named["2.weight"].all() and not torch.equal(named["2.weight"], torch.ones(10))
    assert len(point.fixed) == (20 if batch_norm == "frozen" else 0)
    assert named["1.bias"].any() == (biases == "masked")


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("scenario", [TIL, DIL, CIL])
def test_bounds_hold_the_answers_and_are_no_wider_than_rounding(name, scenario):
    method = made(name, scenario)
    learn(method, 0, 1)
    for index in range(2):
        x = images(scenario, index).x
        lower, upper = method.bounds(x, index)
        answers = method.predict(x, index)
        slack = 1e-4 + 1e-6 * answers.abs()  # of float32
        assert lower.shape == answers.shape and lower.dtype == torch.float64
        assert (lower - slack <= answers).all() and (answers <= upper + slack).all()
        assert (upper - lower).max() < 1e-9, "no sample's entropies of the two tasks are that close"


def test_bounds_of_the_chosen_task_cover_both_when_either_may_be_chosen():
    sure, unsure = torch.tensor([[5.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    lower, upper = torch.stack([sure, unsure]), torch.stack([sure, unsure])
    assert [b.tolist() for b in chosen_bounds(lower, upper)] == [[[5, 0]], [[5, 0]]]
    lower, upper = torch.stack([sure, sure.flip(1)]), torch.stack([sure, sure.flip(1)])
    assert [b.tolist() for b in chosen_bounds(lower, upper)] == [[[0, 0]], [[5, 5]]]


@pytest.mark.parametrize("name", BOTH)
def test_bounds_are_refused_where_none_are_known(name):
    method = made(name, CIL, inference="fecam")
    learn(method, 0)
    with pytest.raises(NotImplementedError, match="distances"):
        method.bounds(images(CIL, 0).x, 0)


@pytest.mark.parametrize("name", BOTH)
def test_a_state_put_into_a_fresh_method_continues_in_the_same_way(name):
    first, second = made(name), made(name)
    learn(first, 0)
    second.load_state_dict(first.state_dict())
    for method in (first, second):
        learn(method, 1)
    assert_equal(first.state_dict(), second.state_dict())
    assert all(claim.contained for claim in second.audit())


# -- what each of them is ----------------------------------------------------------------------------


def test_wsn_takes_the_share_of_every_tensor_and_reuses_weights():
    method = made("wsn", capacity=0.25)
    learn(method, 0, 1, 2)
    for task in range(3):
        parts = method.mask(task).split(method.target.sizes(Group.MASKED))
        assert [int(part.sum()) for part in parts] == [n - round(0.75 * (n - 1)) for n in (36, 768)]
    assert (method.mask(0) & method.mask(1)).any() and not torch.equal(method.mask(0), method.mask(1))


def test_first_scores_of_wsn_are_uniform_within_the_inverse_root_of_the_inputs():
    """A bias's, too, by the inputs of its layer."""
    method = made("wsn", biases="masked", n_tasks=2, network=Wide)
    weights, biases = method.scores.detach().split(method.target.sizes(Group.MASKED))
    for part in (weights, biases):
        assert 0.95 / 6 < part.abs().max() <= 1 / 6 and abs(part.mean()) < 0.02


class Wide(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(36, 400), nn.ReLU(), nn.Linear(400, 2))


def test_weights_of_wsn_train_only_where_they_are_open_and_free():
    method = made("wsn", capacity=0.2)
    learn(method, 0)
    before = method.weights.detach().clone()
    learn(method, 1, steps=30)
    changed = before != method.weights.detach()
    assert changed.any() and not (changed & method.mask(0)).any()


def test_packnet_shares_out_each_tensor_equally():
    method = made("packnet", n_tasks=4)
    learn(method, 0, 1, 2, 3)
    parts = method.owners.split(method.target.sizes(Group.MASKED))
    assert [torch.bincount(part.int()).tolist() for part in parts] == [[0, 9, 9, 9, 9], [0, 192, 192, 192, 192]]
    other = made("packnet", keep=0.3)
    learn(other, 0)
    kept = [int((part == 1).sum()) for part in other.owners.split(other.target.sizes(Group.MASKED))]
    assert kept == [36 - 25, 768 - 538], "0.7 n in whole numbers: of 36 and of 768 weights 25.2 and 537.6 are pruned"


@pytest.mark.parametrize(("restart", "nonzero"), [("zero", 0), ("fresh", 402)])
def test_free_weights_start_a_task_at_zero_or_anew(restart, nonzero):
    method = made("packnet", n_tasks=2, restart=restart)
    learn(method, 0)
    free = method.owners == 0
    assert not method.weights[free].any()
    method.take(task_of(TIL, 1, 1))
    assert int((method.weights[free] != 0).sum()) == nonzero and not (method.owners == 0).any()


def test_a_full_owner_map_names_the_task_that_finds_no_room():
    method = made("packnet", keep=1.0)
    learn(method, 0)
    with pytest.raises(UserError, match=r"task 1 .* no free weight.* keep = 1.0"):
        learn(method, 1)


class Small(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(36, 10), nn.ReLU(), nn.Linear(10, 2))


@pytest.mark.parametrize("name", BOTH)
def test_more_tasks_than_a_byte_counts(name):
    method = made(name, n_tasks=300, network=Small)
    learn(method, 0)
    per_task = [method.kept, method.statistics, method.audit_own, method.audit_used, getattr(method, "masks", [])]
    for kept in per_task:
        kept *= 256  # as if 255 tasks had kept the network of the first
    learn(method, 256)
    assert all(claim.contained for claim in method.audit()) and len(method.audit()) == 257
    assert not torch.equal(method.mask(256), method.mask(255))
    assert method.mask(255).any() and torch.equal(method.mask(255), method.mask(0))


@pytest.mark.parametrize("name", BOTH)
def test_stored_masks_count_a_bit_an_entry(name):
    method = made(name, network=Small)
    before = method.parameters_stored()
    learn(method, 0)
    own = 10 + 22
    # the task's own parameters are those in training: a copy counts once
    assert method.parameters_stored() - before == (-(-360 // 32) if name == "wsn" else 0)
    learn(method, 1)
    assert method.parameters_stored() - before == own + (2 * -(-360 // 32) if name == "wsn" else 0)
    trained = 360 + own + (360 if name == "wsn" else 0)
    assert method.parameters_trained() == trained
    assert before == trained + (180 if name == "packnet" else 0)


@pytest.mark.parametrize(("name", "config"), [
    ("wsn", {"capacity": 0.0}), ("wsn", {"momentum": 1.0}), ("wsn", {"inference": "interval"}),
    ("packnet", {"keep": 0.0}), ("packnet", {"keep": 1.5}), ("packnet", {"retrain_share": 1.0}),
])  # fmt: skip
def test_settings_that_cannot_be_meant(name, config):
    with pytest.raises(UserError, match=name):
        made(name, **config)


@pytest.mark.parametrize("name", BOTH)
def test_networks_without_a_weight_below_the_head_are_skipped(name):
    cls = registry.load(name)
    spec = StreamSpec("linear", TIL, 2, 2, (4,), "mlp")
    assert "below the output layer" in (cls.skip(spec, cls.Config()) or "")
    assert cls.skip(dataclasses.replace(spec, network="mlp-3"), cls.Config()) is None


@pytest.mark.parametrize("name", BOTH)
def test_selection_keeps_the_epoch_of_the_least_validation_loss(name, monkeypatch):
    method = made(name, selection="val", optimizer="sgd", lr=0.1)
    seen: list[tuple[float, Point]] = []
    measure = subnetworks.Subnetworks.validation_loss

    def watched(self, task, point):
        copied = Point(*(flat.detach().clone() for flat in point[:3]), {n: b.clone() for n, b in point[3].items()})
        seen.append((float(measure(self, task, point)), copied))
        return torch.tensor(seen[-1][0])

    monkeypatch.setattr(type(method), "validation_loss", watched)
    if isinstance(method, PackNet):
        method.config = dataclasses.replace(method.config, retrain_share=0.0)
    learn(method, 0, steps=40)
    assert len(seen) == 10, "once in an epoch of four steps"
    best = min(seen, key=lambda pair: pair[0])[1]
    assert torch.equal(method.kept[0], best.own)
    torch.testing.assert_close(method.statistics[0], best.statistics, rtol=0, atol=0)
    if name == "wsn":  # PackNet prunes at the end
        assert torch.equal(method.point(0).masked, best.masked)


def test_capacity_by_hand():
    masks = [torch.tensor([1, 1, 0, 0], dtype=torch.bool), torch.tensor([1, 0, 1, 1], dtype=torch.bool)]
    table = capacity(masks)
    assert table["open"] == [0.5, 0.75] and table["union"] == [0.5, 1.0]
    assert table["bits"] == [1 / 32, 2 / 32] and table["cap"] == [0.5 + 1 / 32, 1 + 2 / 32]
    assert table["published"] == pytest.approx([0.5 + 0.22 / 32, 1 + 0.44 / 32])
    assert table["entropy"] == pytest.approx([1 / 32, (1 + 0.8112781) / 32])


@pytest.mark.parametrize("name", BOTH)
def test_tables_of_capacity_and_overlap(name):
    method = made(name)
    learn(method, 0, 1, 2)
    tables = method.exhibits()
    assert len(tables["capacity"]["task"]) == 3 and len(tables["mask-overlap"]["task"]) == 9
    assert tables["capacity"]["union"] == sorted(tables["capacity"]["union"])
    if name == "packnet":
        assert tables["capacity"]["union"] == pytest.approx([1 / 3, 2 / 3, 1], abs=0.01)


@pytest.mark.parametrize("name", BOTH)
def test_in_dil_the_most_certain_network_answers(name):
    method = made(name, DIL)
    learn(method, 0, 1)
    x = images(DIL, 0).x
    every, _ = method.every_task(x)
    assert torch.equal(method.infer_task(x), inference.least_entropy(every))
    assert torch.equal(method.predict(x), inference.chosen(every, inference.least_entropy(every)))
