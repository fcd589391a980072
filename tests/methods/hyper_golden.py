"""Builds our methods in float64 from the parameters recorded in `hyper_*.npz`, and feeds recorded batches."""

from __future__ import annotations

import json
from contextlib import contextmanager

import torch

from benchmarks.samples import Samples
from benchmarks.types import Budget, Scenario, StreamSpec, Task
from methods import base
from methods.hnet import HNET
from methods.hyperinterval import HyperInterval
from tests.methods.golden import group, load, tensors

GOLDEN = load("hyper")
CONFIG = json.loads(str(GOLDEN["meta/json"]))["config"]


@contextmanager
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def spec(scenario: Scenario) -> StreamSpec:
    network = "mlp-" + "-".join(map(str, CONFIG["hidden"]))
    return StreamSpec("golden", scenario, CONFIG["n_tasks"], CONFIG["n_out"], (CONFIG["n_in"],), network)


def hyperinterval(scenario: Scenario, parameters: dict, **options) -> HyperInterval:
    variant = CONFIG["nested" if scenario is Scenario.DIL else "til"]
    settings = {
        "lr": variant["lr"], "embedding": CONFIG["emb"], "hidden": tuple(CONFIG["hnet"]), "beta": variant["beta"],
        "eps": variant["eps"], "universal": "official",
    } | options  # fmt: skip
    with float64():
        method = HyperInterval(spec(scenario), HyperInterval.Config(**settings))
    p = tensors(parameters)
    load_hypernetwork(method.hypernetwork, p)
    method.embeddings = torch.stack([p[f"emb.{i}"] for i in range(CONFIG["n_tasks"])])
    if "raw_eps.0" in p:
        method.shapes = torch.stack([p[f"raw_eps.{i}"] for i in range(CONFIG["n_tasks"])])
    return method


def load_hypernetwork(network, p: dict) -> None:
    """Recorded W.k, b.k (and headW.j, headb.j of separate output layers) into ours."""
    inner = getattr(network, "inner", network)
    layers = list(inner.hidden)
    with torch.no_grad():
        for k, layer in enumerate(layers):
            layer.weight.copy_(p[f"W.{k}"])
            layer.bias.copy_(p[f"b.{k}"])
        heads = [k for k in p if k.startswith("headW.")]
        if heads:
            order = range(len(heads))
            inner.output.weight.copy_(torch.cat([p[f"headW.{j}"] for j in order]))
            inner.output.bias.copy_(torch.cat([p[f"headb.{j}"] for j in order]))
        else:
            inner.output.weight.copy_(p[f"W.{len(layers)}"])
            inner.output.bias.copy_(p[f"b.{len(layers)}"])
        if "chunk_emb" in p:
            network.chunks.copy_(p["chunk_emb"])


def hnet(scenario: Scenario, parameters: dict, chunked: bool = False, **options) -> HNET:
    c = CONFIG["hnet_cfg"]
    settings = {
        "lr": c["lr"], "embedding": CONFIG["emb"], "hidden": tuple(CONFIG["hnet"]), "beta": c["beta"],
        "chunk": c["chunk"] if chunked else 0, "chunk_embedding": c["cemb"],
    } | options  # fmt: skip
    with float64():
        method = HNET(spec(scenario), HNET.Config(**settings))
    p = tensors(parameters)
    load_hypernetwork(method.hypernetwork, p)
    method.embeddings = torch.stack([p[f"emb.{i}"] for i in range(CONFIG["n_tasks"])])
    return method


def trajectory_task(t: int, absolute_labels: bool = False) -> Task:
    """Task t of `data/*`, whose batches are consumed in the stored order (use with `stored_order`)."""
    data = tensors(group(GOLDEN, "data"))
    offset = t * CONFIG["n_out"] if absolute_labels else 0
    iters, batch = data["train_y"].shape[1:]

    def samples(x, y):
        x = x.double().flatten(0, -2)
        return Samples(x, torch.arange(len(x)), y.flatten().long() + offset, t)

    return Task(
        t, samples(data["train_x"][t], data["train_y"][t]), samples(data["val_x"][t], data["val_y"][t]),
        Budget(batch, steps=iters), order_seed=0,
    )  # fmt: skip


def test_samples(t: int) -> tuple[torch.Tensor, torch.Tensor]:
    data = tensors(group(GOLDEN, "data"))
    return data["test_x"][t].double(), data["test_y"][t].long()


test_samples.__test__ = False  # type: ignore[attr-defined]


def stored_order(monkeypatch) -> None:
    """Make `fit` take the samples in order."""

    def in_order(n, batch_size, seed, device):
        yield from torch.arange(n).view(-1, batch_size)

    monkeypatch.setattr(base, "batch_order", in_order)
