"""The target networks by name: sizes as published, bounds that hold, and every way of owning their weights."""

import copy

import pytest
import torch

from benchmarks.types import TIL, StreamSpec, UserError
from methods.hnet import HNET
from methods.hyperinterval import HyperInterval
from methods.hypernetworks.stateless import FunctionalNetwork
from methods.lwf import LwF
from methods.networks import targets
from methods.shared.maskable import MaskableNetwork

SMALL = ["resnet-20", "resnet-20x2", "zenkenet", "zenkenet-tiny", "timm:test_resnet", "timm:test_resnet+frozen"]


@pytest.mark.parametrize(
    ("name", "size", "weights"),
    [
        ("resnet-20", 32, 269_722),
        ("resnet-32", 32, 464_154),
        ("zenkenet", 32, 32 * 28 + 32 * 289 + 64 * 289 + 64 * 577 + 2305 * 512 + 513 * 10),
        ("zenkenet", 64, 32 * 28 + 32 * 289 + 64 * 289 + 64 * 577 + (64 * 196 + 1) * 512 + 513 * 10),
        ("zenkenet-tiny", 64, 64 * 28 + 3 * 64 * 577 + 12_545 * 10),  # the authors' [5, 12544] for five classes
    ],
)
def test_number_of_weights(name, size, weights):
    """He et al. (2016): 0.27 M and 0.46 M for ResNet-20 and -32 (ten classes)."""
    network = targets.build(name, (3, size, size), 10)
    assert sum(p.numel() for p in network.parameters()) == weights


@pytest.mark.parametrize("name", ["resnet-32", "resnet-20x2", "zenkenet", "zenkenet-tiny"])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)])
def test_outputs_and_gradients_reach_every_weight(name, shape):
    network = targets.build(name, shape, 7).train()
    logits = network(torch.rand(4, *shape))
    logits.square().sum().backward()
    assert logits.shape == (4, 7)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_no_network_in_the_box_leaves_the_bounds(name, signed):
    torch.manual_seed(0)
    target = FunctionalNetwork(targets.build(name, (3, 16, 16), 3).double().eval())
    reference = targets.build(name, (3, 16, 16), 3).double()
    middle = torch.cat([p.detach().flatten() for p in reference.parameters()])
    assert len(middle) == target.n_weights
    radius = 1e-4 * torch.rand_like(middle)
    statistics = {
        key: value + torch.rand_like(value) if value.is_floating_point() else value
        for key, value in target.first_statistics.items()
    }
    x = torch.rand(3, 3, 16, 16).double() - (0.5 if signed else 0.0)
    if name.endswith("+frozen"):
        target.network.backbone._hidden[0].double()
    bounds = target.bounds(middle - radius, middle + radius, x, not signed, statistics)
    assert torch.isfinite(bounds.lower).all() and (bounds.lower <= bounds.upper).all()
    corners = [radius * (2 * torch.rand_like(radius) - 1) for _ in range(15)] + [
        radius * torch.randn_like(radius).sign()
    ]
    for moved in corners:
        logits = target(middle + moved, x, statistics)
        assert (logits >= bounds.lower - 1e-9).all() and (logits <= bounds.upper + 1e-9).all()
    assert ((bounds.upper - bounds.lower) > 0).all()


def test_a_frozen_backbone_is_nobodys_weight_and_the_head_is_all_there_is():
    torch.manual_seed(0)
    network = targets.build("timm:test_resnet+frozen", (3, 32, 32), 5)
    n_head = sum(p.numel() for p in network.head.parameters())
    assert {name for name, _ in network.named_parameters()} == {"head.weight", "head.bias"}
    assert not list(network.buffers()) and set(network.state_dict()) == {"head.weight", "head.bias"}
    spec = StreamSpec("test", TIL, 2, 5, (3, 32, 32), "timm:test_resnet+frozen")
    generated = HyperInterval(spec, HyperInterval.Config(embedding=4, hidden=(6,)))
    assert generated.target.n_weights == n_head
    assert generated.hypernetwork.output.weight.shape == (n_head, 6)
    assert MaskableNetwork(network).sizes == [n_head - 5, 5]
    x = torch.rand(2, 3, 32, 32)
    network.train()
    features = network.backbone(x)
    torch.testing.assert_close(network.backbone(x[:1]), features[:1])  # it does not normalise with the batch
    assert copy.deepcopy(network).backbone is network.backbone
    assert torch.isfinite(LwF(spec, LwF.Config()).predict(x, 1)).all()


def test_a_frozen_backbone_is_the_same_for_the_same_seed():
    spec = StreamSpec("test", TIL, 2, 5, (3, 32, 32), "timm:test_resnet+frozen")
    x = torch.rand(2, 3, 32, 32)
    logits = [
        HNET(spec, HNET.Config(chunk=50, hidden=(4,), embedding=4), "cpu", seed).predict(x, 0) for seed in (0, 0, 1)
    ]
    assert torch.equal(logits[0], logits[1]) and not torch.equal(logits[0], logits[2])


@pytest.mark.parametrize(
    ("name", "shape", "answer"),
    [
        ("resnet-21", (3, 32, 32), r"unknown network 'resnet-21': write one of mlp-WIDTH.*resnet-8.*timm:NAME"),
        ("mlp-0", (3, 32, 32), "unknown network 'mlp-0'"),
        ("timm:resnet18+frozn", (3, 32, 32), "unknown network"),
        ("timm:resnt18", (3, 32, 32), r"timm has no model 'resnt18'\. Did you mean .*resnet18"),
        ("timm:vit_tiny_patch16_224", (3, 32, 32), "cannot take inputs of 3 x 32 x 32"),
        ("zenkenet", (3, 8, 8), "at least 10 x 10, not 3 x 8 x 8"),
        ("resnet-20", (64,), "must be images of at least 4 x 4, not 64"),
    ],
)
def test_names_and_inputs_that_will_not_do(name, shape, answer):
    with pytest.raises(UserError, match=answer):
        targets.build(name, shape, 3)


def test_pretrained_weights_that_cannot_be_fetched_are_a_clear_sentence(monkeypatch):
    import timm

    def refuse(*_, **options):
        assert options["pretrained"]
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(UserError, match=r"\+pretrained: the pretrained weights could not be had: no route"):
        targets.build("timm:resnet18+pretrained", (3, 32, 32), 3)
