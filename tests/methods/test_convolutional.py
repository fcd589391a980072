"""Convolutional targets equal the official networks (batch statistics, three end-point forwards)."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.types import TIL, StreamSpec, UserError
from methods.base import Batch
from methods.hyperinterval import HyperInterval
from methods.hypernetworks.stateless import FunctionalNetwork
from methods.networks import targets
from methods.networks.convolutional import AlexNet, ResNet
from tests.methods.golden import assert_close, group, tensors
from tests.methods.hyper_golden import CONFIG, GOLDEN, float64, load_hypernetwork


def from_hwc(x: torch.Tensor) -> torch.Tensor:
    side = math.isqrt(x.shape[1] // 3)
    return x.view(-1, side, side, 3).permute(0, 3, 1, 2)


def hashed(n: int, salt: int) -> np.ndarray:
    """The recorded sets' formula for weights that need no storage, (n,) in [-1, 1]."""
    v = (np.arange(n, dtype=np.uint64) + np.uint64(salt * 2**20)) % np.uint64(2**32)
    mask = np.uint64(2**32 - 1)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        v = ((v ^ (v >> np.uint64(shift))) * np.uint64(factor)) & mask
    v ^= v >> np.uint64(16)
    return v.astype(np.float64) / 2**31 - 1


def formula_weights(g: dict, salt: int) -> tuple[torch.Tensor, torch.Tensor]:
    middles, radii = [], []
    for k, text in enumerate(g["shapes"]):
        shape = json.loads(str(text))
        n = math.prod(shape)
        u = hashed(n, salt + k)
        scale = math.sqrt(3 / math.prod(shape[1:])) if len(shape) > 1 else 0.1
        middles.append(1 + 0.2 * u if k in g["bn_scale_index"] else scale * u)
        radii.append(0.01 * np.abs(hashed(n, salt + 1000 + k)))
    return torch.from_numpy(np.concatenate(middles)), torch.from_numpy(np.concatenate(radii))


@pytest.mark.parametrize("name", ["alexnet", "resnet18"])
def test_full_size_networks(name):
    g = group(GOLDEN, f"{name}_formula")
    salt = int(g["salt"])
    with float64():
        network = AlexNet(3) if name == "alexnet" else ResNet((16, 16, 32, 64, 128), (2, 2, 2, 2), 3)
    target = FunctionalNetwork(network)
    assert [list(shape) for shape in target.shapes.values()] == [json.loads(str(s)) for s in g["shapes"]]
    middle, radius = formula_weights(g, salt)
    checksum = torch.stack([middle.sum(), middle.square().sum(), radius.sum()])
    assert_close(checksum, g["weight_checksum"], 1e-9)
    x = from_hwc(torch.from_numpy((hashed(4 * 3072, salt - 1) + 1) / 2).view(4, 3072))
    raw = [target(w, x, training=True) for w in (middle - radius, middle, middle + radius)]
    assert_close(torch.stack(raw), g["raw_logits"], 1e-9)
    assert_close(torch.stack(target.endpoints(middle - radius, middle, middle + radius, x, training=True)),
                 g["logits"], 1e-9)  # fmt: skip


def tiny(**options) -> HyperInterval:
    c, g = CONFIG["conv"], group(GOLDEN, "conv_tiny")
    spec = StreamSpec("golden", TIL, 1, c["n_cls"], (3, 16, 16), "resnet-18")
    config = HyperInterval.Config(embedding=c["emb"], hidden=tuple(c["hnet"]), eps=c["eps"], **options)
    network = ResNet(tuple(c["maps"]), tuple(c["blocks"]), c["n_cls"], size=16)
    with float64():

        class Tiny(HyperInterval):
            name = "tiny"

            def network(self, n_outputs=None):
                return network.double()

        method = Tiny(spec, config)
    p = tensors(group(g, "param"))
    load_hypernetwork(method.hypernetwork, p)
    method.embeddings, method.shapes = p["emb.0"][None], p["raw_eps.0"][None]
    return method


def test_tiny_residual_network_with_gradients():
    g = group(GOLDEN, "conv_tiny")
    method = tiny(bounds="endpoints", batch_norm="official")
    embedding, shape = nn.Parameter(method.embeddings.clone()), nn.Parameter(method.shapes.clone())
    theta, rho, _ = method.hypernetwork.intervals(*method.boxes(embedding, shape, method.config.eps))
    assert_close((theta - rho)[0].detach(), g["lower_w"], 1e-9)
    x, y = from_hwc(torch.from_numpy(g["x"])), torch.from_numpy(g["y"]).long()
    middle, bounds = method.interval_logits(theta[0], rho[0], x)
    assert_close(bounds.lower.detach(), g["lower_logits"], 1e-9)
    assert_close(middle.detach(), g["middle_logits"], 1e-9)
    assert_close(bounds.upper.detach(), g["upper_logits"], 1e-9)
    loss = method.classification(theta[0], rho[0], Batch(x, y, 0), torch.from_numpy(g["kappa"]))
    assert_close(loss.detach(), g["loss"], 1e-9)
    loss.backward()
    named = {"emb.0": embedding, "raw_eps.0": shape, "W.1": method.hypernetwork.output.weight,
             "W.0": method.hypernetwork.hidden[0].weight}  # fmt: skip
    for key, parameter in named.items():
        expected = g[f"grad/{key}"]
        assert_close(parameter.grad.reshape(expected.shape), expected, 1e-9, key)


def test_sound_bounds_hold_where_the_endpoint_heuristic_does_not():
    """Random networks in the box of a residual net: none leaves the sound bounds, some leave the heuristic's."""
    torch.manual_seed(0)
    g = group(GOLDEN, "conv_tiny")
    method = tiny()
    theta, rho, _ = method.hypernetwork.intervals(*method.boxes(method.embeddings, method.shapes, 0.5))
    theta, rho = theta[0].detach(), rho[0].detach()
    x = from_hwc(torch.from_numpy(g["x"]))
    sound = method.target.bounds(theta - rho, theta + rho, x, True)
    low, _, up = method.target.endpoints(theta - rho, theta, theta + rho, x)
    escaped = total = 0
    for _ in range(200):
        logits = method.target(theta + rho * (2 * torch.rand_like(rho) - 1), x)
        assert (logits >= sound.lower - 1e-9).all() and (logits <= sound.upper + 1e-9).all()
        escaped += int(((logits < torch.minimum(low, up)) | (logits > torch.maximum(low, up))).sum())
        total += logits.numel()
    assert escaped > 0, f"{escaped} of {total}"


@pytest.mark.parametrize("name", ["alexnet", "resnet-18"])
def test_images_that_do_not_fit_are_refused_with_the_shape(name):
    with pytest.raises(UserError, match="1 x 28 x 28"):
        targets.build(name, (1, 28, 28), 10)
