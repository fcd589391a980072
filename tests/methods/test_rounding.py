"""Outward rounding in machine code has the bits of PyTorch's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from methods.compiled import threads
from methods.intervals import compiled_rounding, ops
from methods.intervals.bounding import Interval, add, batch_norm, propagate
from methods.intervals.interval import Sums, outward
from methods.networks.targets import build

INFINITE = float("inf")
SPECIAL = [0.0, -0.0, 1e-310, -1e-310, 2.3e-308, 1.7e308, -1.7e308, INFINITE, -INFINITE, float("nan"), 1.0, -1.0]


@pytest.fixture(autouse=True)
def threads_share_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    if compiled_rounding.library() is None:
        pytest.skip("needs machine code")
    monkeypatch.setattr(threads, "parts", lambda items, least: min(items, 3))


def some(*shape: int) -> Tensor:
    """Numbers of which a third are zero, subnormal, infinite, undefined, or near the largest."""
    drawn = torch.randn(*shape, dtype=torch.float64)
    chosen = torch.tensor(SPECIAL, dtype=torch.float64)[torch.randint(len(SPECIAL), shape)]
    return torch.where(torch.rand(shape) < 1 / 3, chosen, drawn)


def in_both(monkeypatch: pytest.MonkeyPatch, compute: Callable[[], Interval], called: str) -> None:
    """Check that bounds are the same in PyTorch, and that the machine code's function `called` computed them."""
    calls, function = [], getattr(compiled_rounding, called)
    with monkeypatch.context() as patch:
        patch.setattr(compiled_rounding, called, lambda *given: (calls.append(called), function(*given))[1])
        found = compute()
        assert calls
        patch.setattr(compiled_rounding, "suits", lambda *tensors: False)
        patch.setattr(compiled_rounding, "suits_samples", lambda *tensors: False)
        del calls[:]
        wanted = compute()
        assert not calls
    assert not any(side.isnan().any() for side in found)
    assert all(torch.equal(*sides) for sides in zip(found, wanted, strict=True))


@pytest.mark.parametrize("n", [1, 8, 29, 1203])
def test_bounds_are_widened_alike(monkeypatch: pytest.MonkeyPatch, n: int):
    torch.manual_seed(n)
    a, b = Interval(some(n), some(n)), Interval(some(n), some(n))
    in_both(monkeypatch, lambda: outward(a, 4), "outward")
    in_both(monkeypatch, lambda: outward(Interval.point(a.lower), 4), "outward")
    in_both(monkeypatch, lambda: add(a, b, rounded=True), "add_outward")
    in_both(monkeypatch, lambda: add(a, Interval.point(b.lower), rounded=True), "add_outward")


@pytest.mark.parametrize("with_widths", [True, False])
def test_sums_whose_samples_lie_apart_are_widened_alike(monkeypatch: pytest.MonkeyPatch, with_widths: bool):
    torch.manual_seed(0)
    stacked = some(5, 15, 3, 7)
    lower, upper, below, above, size = stacked.split(3, 1)
    sums = Sums(lower, upper, below, above) if with_widths else Sums(lower, upper)
    in_both(monkeypatch, lambda: sums.widened(size.abs(), 100, 2), "widen_sums")
    parts = stacked.new_zeros(4, 3, 3, 7)
    whole = Interval(parts.clone(), parts.clone())
    out = Interval(*(side[1:3] for side in whole))
    some_of = Sums(*(part[:2] for part in (lower, upper)))
    in_both(monkeypatch, lambda: some_of.widened(size[:2].abs(), 100, 2, out), "widen_sums")
    assert whole.lower[1:3].any() and not whole.lower[::3].any()


@pytest.mark.parametrize("shape", [(3, 4, 5, 5), (6, 4), (1, 4, 9)])
@pytest.mark.parametrize("kinds", ["interval interval", "point interval", "interval none", "none none"])
def test_batch_norm_is_bounded_alike(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], kinds: str):
    torch.manual_seed(1)

    def parameter(kind: str) -> Interval | None:
        lower = torch.randn(4)
        return {"none": None, "point": Interval.point(lower), "interval": Interval(lower, lower + torch.rand(4))}[kind]

    gamma, beta = map(parameter, kinds.split())
    mean, variance, x = torch.randn(4), torch.rand(4), Interval(some(*shape), some(*shape))
    in_both(monkeypatch, lambda: batch_norm(x, mean, variance, gamma, beta, rounded=True), "normalise")
    point = Interval.point(x.lower)
    in_both(monkeypatch, lambda: batch_norm(point, mean, variance, gamma, beta, rounded=True), "normalise")


@pytest.mark.parametrize(
    ("network", "shape"), [("resnet-8", (3, 8, 8)), ("zenkenet", (3, 32, 32)), ("mlp-9", (1, 4, 4))]
)
@pytest.mark.parametrize("nonnegative", [True, False])
def test_a_network_is_bounded_alike(
    monkeypatch: pytest.MonkeyPatch, network: str, shape: tuple[int, ...], nonnegative: bool
):
    """Convolutions in blocks of samples too."""
    monkeypatch.setattr(ops, "_COPIED", 1)
    torch.manual_seed(2)
    net, x = build(network, shape, 3).eval(), torch.rand(3, *shape)
    weights = {name: p.detach() for name, p in net.named_parameters()}
    box = {name: Interval(p - 0.01 * p.abs(), p + 0.01) for name, p in weights.items()}
    for given in (x, Interval(x, x + 0.1)):
        bounds = lambda given=given: propagate(net, box, given, nonnegative_inputs=nonnegative, rounded=True)  # noqa: E731
        in_both(monkeypatch, bounds, "widen_sums")


def test_gradients_flow_through_rounded_bounds():
    x, w = torch.rand(3, 2, 5, 5, requires_grad=True), torch.randn(4, 2, 3, 3)
    found = ops.conv2d(Interval(x, x + 0.1), Interval(w, w + 0.1), nonnegative=True, rounded=True)
    outward(found).upper.sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_machine_code_is_named_by_its_source():
    source = b"".join(path.read_bytes() for path in compiled_rounding.LIBRARY.files)
    assert hashlib.sha256(source).hexdigest() == compiled_rounding.LIBRARY.digest
