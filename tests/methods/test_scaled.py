"""The contraction's own formulas have the bits of autograd's."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.functional import cross_entropy

from benchmarks.types import DIL
from methods.compiled import threads
from methods.intercontinet import InterContiNet
from methods.intervals import compiled_scales, products, scaled
from methods.intervals.bounding import Interval, linear, propagate, worst_case
from methods.intervals.scaled import scaled_box
from methods.intervals.weights import Layout
from methods.networks.targets import build
from tests.methods.bright_pixels import spec, task


@pytest.fixture(params=["machine code", "PyTorch"], autouse=True)
def small_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and shares of threads that no part of a network is a multiple of."""
    monkeypatch.setattr(scaled, "BLOCK", 77)
    monkeypatch.setattr(threads, "parts", lambda items, least: min(items, 3))
    if request.param == "PyTorch":
        monkeypatch.setattr(compiled_scales, "suits", lambda *tensors: False)
    elif compiled_scales.library() is None:
        pytest.skip("needs machine code")


def plain_linear(x: Interval, weight: Interval, bias: Interval | None) -> Interval:
    """The same formula, left to autograd."""
    width, (low, high) = x.upper - x.lower, bias or (None, None)
    below, above = (F.linear(width, side.clamp(max=0)) for side in weight)
    return Interval(F.linear(x.lower, weight.lower, low) + below, F.linear(x.upper, weight.upper, high) - above)


@pytest.mark.parametrize("with_bias", [True, False])
def test_the_product_with_inputs_of_one_sign_has_the_bits_of_autograd(with_bias: bool):
    torch.manual_seed(0)
    x, w = torch.rand(33, 70), torch.randn(45, 70)
    w[0, :9] = 0.0  # a clamp at zero lets the gradient of zero pass
    tensors = [x, x + torch.rand_like(x), w, w + torch.rand_like(w) * (torch.rand_like(w) < 0.9)]
    tensors += [torch.randn(45), torch.rand(45) + 3] if with_bias else []
    found = []
    for function in (partial(linear, nonnegative=True), plain_linear):
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        bounds = function(Interval(*leaves[:2]), Interval(*leaves[2:4]), Interval(*leaves[4:]) if with_bias else None)
        total = sum(side.flatten() @ torch.linspace(-1, 2, side.numel()) for side in bounds)
        assert isinstance(total, Tensor)
        found.append([*bounds, *torch.autograd.grad(total, leaves)])
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


SPECIAL = [0.0, -0.0, 1e-40, -1e-40, 1.2e-38, 3e38, -3e38, float("inf"), -float("inf"), float("nan"), 1.0, -1.0]


@pytest.mark.parametrize("n", [1, 16, 50, 1203])
@pytest.mark.parametrize("given_up", [None, 0.3])
def test_machine_code_has_the_bits_of_pytorch_for_special_numbers_too(n: int, given_up: float | None):
    if not compiled_scales.suits(torch.zeros(1)):
        pytest.skip("needs machine code")
    torch.manual_seed(n)
    a, b, c, d = torch.randn(4, n)
    for tensor in (a, b, c, d):
        tensor[torch.randperm(n)[: n // 2]] = torch.tensor(SPECIAL)[torch.randint(len(SPECIAL), (n // 2,))]
    cotangent = None if given_up is None else torch.tensor(given_up)
    found = []
    for module in (compiled_scales, scaled):
        sides, gradient = (
            ("scaled_sides", "scale_gradient") if module is compiled_scales else ("_sides", "_scale_gradient")
        )
        grad = torch.empty(n)
        getattr(module, gradient)(a, b, c, d, cotangent, grad)
        found.append([grad, *getattr(module, sides)(a, b, c)])
    for add in (compiled_scales.add_through_clamp, products._add_through_clamp):
        for highest, sign in ((0.0, 1.0), (torch.finfo(torch.float32).tiny, -1.0)):
            found[add is products._add_through_clamp].append(grad := a.clone())
            add(grad, b.nan_to_num(nan=2.0), c.clone(), highest, sign)  # PyTorch's own choice for NaN varies
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


def test_machine_code_is_named_by_its_source():
    source = b"".join(path.read_bytes() for path in compiled_scales.LIBRARY.files)
    assert hashlib.sha256(source).hexdigest() == compiled_scales.LIBRARY.digest


@pytest.mark.parametrize("name", ["mlp-40-30", "zenkenet"])
@pytest.mark.parametrize("given", [None, 0.0, 0.3])
def test_box_and_gradient_of_raw_scales_have_the_bits_of_autograd(name: str, given: float | None):
    """given: cotangent of the room given up."""
    torch.manual_seed(1)
    shape = (3, 32, 32) if name == "zenkenet" else (1, 8, 8)
    net = build(name, shape, 5).eval()
    layout = Layout.of(dict(net.named_parameters()))
    middle = layout.flatten(dict(net.named_parameters())).detach()
    raw, room = 3 * torch.randn_like(middle), 0.01 * torch.rand_like(middle)
    x, y = torch.rand(4, *shape), torch.randint(5, (4,))
    factor = torch.tensor(given or 0.0)

    def loss(bounds: dict[str, Interval]) -> Tensor:
        return cross_entropy(worst_case(propagate(net, bounds, x, nonnegative_inputs=True), y), y)

    ours, theirs = raw.clone().requires_grad_(), raw.clone().requires_grad_()
    box, given_up = scaled_box(ours, middle, room, layout)
    (loss(box) if given is None else loss(box) + given_up * factor).backward()
    k = torch.sigmoid(theirs)
    value = loss(layout.boxes(Interval.around(middle, k * room)))
    (value if given is None else value + torch.dot(k.detach() - 1, theirs) * factor).backward()
    assert given_up == 0 and torch.equal(loss(box), value)
    assert ours.grad is not None and theirs.grad is not None and ours.grad.abs().max() > 0
    assert torch.equal(ours.grad, theirs.grad)


def test_a_part_that_the_loss_does_not_need_gets_the_gradient_of_the_room_alone():
    raw = torch.tensor([0.0, 1.0, 2.0], requires_grad=True)
    box, given_up = scaled_box(raw, torch.zeros(3), torch.ones(3), Layout({"a": torch.Size([2]), "b": torch.Size([1])}))
    (box["b"].upper.sum() + 3 * given_up).backward()
    k = torch.sigmoid(raw.detach())
    assert raw.grad is not None
    torch.testing.assert_close(raw.grad, 3 * (k - 1) + torch.tensor([0, 0, 1]) * k * (1 - k))


@pytest.mark.parametrize("config", [{}, {"expansion": 0.0}, {"expansion": 0.0, "official_gate": True}], ids=str)
def test_what_a_closed_gate_multiplies_by_zero_need_not_be_computed(config: dict[str, Any]):
    gates: list[float] = []

    class Multiplied(InterContiNet):
        def _gated(self, robust: Tensor, given_up: Tensor, closed: Tensor) -> Tensor:
            gates.append(closed.item())
            return robust * (1 - closed) + given_up * closed

    boxes = []
    for cls in (InterContiNet, Multiplied):
        method = cls(spec(DIL), cls.Config(lr=0.3, scale_lr=0.3, start_fitted=False, **config))
        for t in range(2):
            method.begin(task(t, DIL))
            method.learn(task(t, DIL))
        boxes.append(method.model.box)
    assert set(gates) == {0.0, 1.0}
    assert all(torch.equal(*sides) for sides in zip(*boxes, strict=True))


def test_a_closed_gate_raises_the_mean_of_log_k_by_the_weight_of_expansion():
    """One step of gradient descent from raw scales of 5: d log sigmoid(v) / dv = 1 - sigmoid(v), over N scales."""
    options = {"threshold": 0.0, "start_fitted": False, "scale_optimizer": "sgd", "momentum": 0.0}
    method = InterContiNet(spec(DIL), InterContiNet.Config(scale_lr=1e3, expansion=2.0, **options))
    learnt = task(0, DIL, steps=1)
    method.begin(learnt)
    n = len(method.model.lower)
    raw = method._contract(learnt, torch.zeros(n), 0, 1, method._gate())
    wanted = 5 + 1e3 * 2.0 / n * (1 - torch.sigmoid(torch.tensor(5.0)))
    torch.testing.assert_close(raw, wanted.expand(n))


def test_the_worst_case_loss_counts_by_its_weight():
    """One step of gradient descent while the gate is open: certain of nothing in a box as wide as the weights."""
    options = {"threshold": 1.0, "start_fitted": False, "scale_optimizer": "sgd", "momentum": 0.0}
    learnt, moves = task(0, DIL, steps=1), []
    for weight in (1.0, 3.0):
        method = InterContiNet(spec(DIL), InterContiNet.Config(scale_lr=1e3, robust_weight=weight, **options))
        method.begin(learnt)
        moves.append(method._contract(learnt, torch.zeros_like(method.model.lower), 0, 1, method._gate()) - 5)
    assert moves[0].abs().max() > 0.1
    torch.testing.assert_close(moves[1], 3 * moves[0], rtol=1e-3, atol=1e-4)
