"""Batch norm and dropout: `fit` trains networks in training mode, answers come from evaluation mode."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.catalogue import find
from benchmarks.stream import open_stream
from benchmarks.types import TIL, Budget
from methods import registry
from methods.base import Method
from methods.hypernetworks.network import ChunkedHypernetwork
from methods.hypernetworks.output_layer import Targets


class Normed(nn.Module):
    def __init__(self, n_outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, n_outputs)
        )

    def forward(self, x):
        return self.layers(x)


def opened(n_tasks: int = 2):
    benchmark = replace(find("split-digits"), n_tasks=n_tasks)
    return open_stream(benchmark, TIL, 0, budget=Budget(16, steps=60))


def with_batch_norm(name: str, stream, **options) -> Method:
    cls = registry.load(name)
    chosen = {"chunk": 200, "select_every": 20, "fit_samples": 50, "fisher_samples": 20, **options}
    fields = cls.Config.__dataclass_fields__

    class Changed(cls):
        def network(self, n_outputs=None):
            return Normed(n_outputs or self.spec.n_outputs).eval()

    Changed.name = name
    return Changed(stream.spec, cls.Config(**{k: v for k, v in chosen.items() if k in fields}))


NAMES = ["finetune", "ewc", "lwf", "hnet", "hyperinterval", "hypermask", "intercontinet", "si", "mas", "joint"]
NAMES += ["gpm", "packnet", "supsup", "wsn"]


@pytest.mark.parametrize("name", NAMES)
def test_with_batch_norm_and_dropout_answers_do_not_depend_on_the_batch(name):
    stream = opened()
    method = with_batch_norm(name, stream)
    for j in range(2):
        task = stream.task(j, previous=method.rehearses)
        method.begin(task)
        method.learn(task)
    x = stream.test(1).x[:20]
    with torch.no_grad():
        together = method.predict(x, 1)
        alone = torch.cat([method.predict(x[i : i + 1], 1) for i in range(20)])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)
    assert torch.equal(method.predict(x, 1), together), "answers change what answers are"


def test_fit_uses_the_statistics_of_the_batch_and_keeps_running_ones():
    stream = opened()

    @dataclass(frozen=True)
    class Config:
        pass

    class Watching(Method):
        name = "watching"

        def build(self):
            self.net, self.other = Normed(2).eval(), Normed(2).eval()
            self.modes = []

        def learn(self, task):
            def loss(batch):
                self.modes.append((self.net.training, self.other.training))
                return cross_entropy(self.net(batch.x), batch.y)

            self.fit(task, loss, self.net.parameters(), on_check=lambda _: self.modes.append(self.net.training))

        def predict(self, x, task_id=None):
            return self.net(x)

    method = Watching(stream.spec, Config())
    method.learn(stream.task(0))
    assert method.modes.count((True, False)) == 60 and method.modes.count(False) == 2 and len(method.modes) == 62
    assert not method.net.training
    assert int(method.net.layers[2].num_batches_tracked) == 60


def test_hnet_keeps_running_statistics_of_each_task():
    stream = opened()
    method = with_batch_norm("hnet", stream)
    for j in range(2):
        method.begin(stream.task(j))
        method.learn(stream.task(j))
        if j == 0:
            kept = {name: s.clone() for name, s in method.statistics[0].items()}
    assert all(torch.equal(method.statistics[0][name], s) for name, s in kept.items())
    means = [s["layers.2.running_mean"] for s in method.statistics]
    assert not torch.equal(*means) and means[0].abs().max() > 0


@pytest.mark.parametrize("name", ["intercontinet", "lid"])
def test_one_box_for_all_tasks_has_the_statistics_of_the_first(name):
    """Certificates are over weights alone, so that later tasks must not move what is no weight."""
    stream = opened()
    stream.budget = Budget(16, steps=4)
    method: Any = with_batch_norm(name, stream)
    found = []
    for j in range(2):
        method.begin(stream.task(j))
        method.learn(stream.task(j))
        found.append(method.model.statistics().clone())
    assert found[0].any() and torch.equal(*found)


@pytest.mark.parametrize("unbias", [0.0, 1.0])
def test_the_noise_that_lid_answers_does_not_enter_running_statistics(unbias):
    """Ten steps, three of which search: the statistics count the batches of the other seven."""
    stream = opened()
    stream.budget = Budget(16, steps=10)
    method: Any = with_batch_norm("lid", stream, unbias=unbias, search_share=0.3)
    method.begin(stream.task(0))
    method.learn(stream.task(0))
    assert int(method.model.net.layers[2].num_batches_tracked) == 7


@pytest.mark.parametrize("name", ["hnet", "hyperinterval", "hypermask"])
def test_features_are_what_the_output_layer_is_given_when_the_method_answers(name):
    """With the statistics of the same task, of which nearest classes (FeCAM) are described."""
    stream = opened()
    stream.budget = Budget(16, steps=5)
    method: Any = with_batch_norm(name, stream, look_ahead=False, chunk=1000)
    for j in range(2):
        method.begin(stream.task(j))
        method.learn(stream.task(j))
    x, seen = stream.test(1).x[:9], []
    method.target.network.layers[5].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        for j in range(2):
            method.logits(x, j)
            given = seen[-1]
            torch.testing.assert_close(method.features(x, j), given)
    assert all(each.shape == (9, 12) and each.any() for each in seen)


def test_hnet_takes_fisher_information_of_the_network_that_answers(monkeypatch):
    """With the running statistics of its task; a new network's give other logits, and other importances."""
    stream, seen = opened(), []
    stream.budget = Budget(16, steps=5)
    method: Any = with_batch_norm("hnet", stream, held_weights="fisher", chunk=1000, look_ahead=False)
    monkeypatch.setattr(
        "methods.hnet.fisher",
        lambda network, train, own, *_: seen.append(own(network.eval()(train.x[:9]))) or torch.zeros(1),
    )
    for j in range(2):
        method.begin(stream.task(j))
        method.learn(stream.task(j))
        with torch.no_grad():
            torch.testing.assert_close(seen[j].detach(), method.logits(stream.task(j).train.x[:9], j))


def test_chunked_boxes_hold_the_weights_of_every_embedding_inside():
    torch.manual_seed(0)
    net = ChunkedHypernetwork(4, (8,), 25, 7, 3).double()
    centres, radii = torch.randn(3, 4).double(), torch.rand(3, 4).double()
    theta, rho, _ = net.intervals(centres, radii)
    assert theta.shape == rho.shape == (3, 25)
    for _ in range(200):
        inside = net(centres + radii * (2 * torch.rand_like(radii) - 1))
        assert ((inside - theta).abs() <= rho + 1e-12).all()


def test_chunked_drift_is_that_of_the_weights():
    torch.manual_seed(0)
    net = ChunkedHypernetwork(4, (8,), 25, 7, 3).double()
    centres, radii = torch.randn(4, 4).double(), torch.rand(4, 4).double()
    theta, rho, _ = net.intervals(centres, radii)
    held = Targets(torch.randn(3, 25).double(), torch.rand(3, 25).double(), 0.5)
    own, own_radii, drift = net.intervals(centres, radii, None, held)
    expected = (theta[1:] - held.theta).square().sum() + 0.5 * (rho[1:] - held.rho).square().sum()
    torch.testing.assert_close(drift, expected)
    assert torch.equal(own, theta[:1]) and torch.equal(own_radii, rho[:1])


@pytest.mark.parametrize("name", ["hyperinterval", "hypermask"])
def test_a_chunked_hypernetwork_learns_and_remembers(name):
    stream = opened()
    cls = registry.load(name)
    changes = {"hidden": (20,), "chunk": 1000, "chunk_embedding": 8}
    method = cls(replace(stream.spec, network="mlp-40"), cls.Config(**changes))
    assert isinstance(method.hypernetwork, ChunkedHypernetwork)
    stream.budget = Budget(32, steps=250)
    for j in range(2):
        method.begin(stream.task(j))
        method.learn(stream.task(j))
    with torch.no_grad():
        assert min(float(method.accuracy(stream.test(j), j)) for j in range(2)) > 0.8
