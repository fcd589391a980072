"""What is drawn between training steps comes from the host's generator: one seed draws alike on every device."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from benchmarks.types import TIL
from methods import registry
from methods.shared import stepping
from tests.methods.helpers import learn, made, opened
from tests.pretended import CUDA, OnDevice, pretended

METHODS = [(name, info.scenarios[0], {}) for name, info in registry.available().items()]
OPTIONS = [("ewc", TIL, {"fisher": "sampled"}), ("hnet", TIL, {"held_weights": "fisher"})]


class Draws(TorchDispatchMode):
    """The operations that drew on the pretended device while it was `watching`."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.watching = True

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = tree_flatten((args, kwargs or {}))[0]
        there = any(isinstance(t, OnDevice) or t == CUDA for t in tensors if isinstance(t, torch.Tensor | torch.device))
        if self.watching and there and torch.Tag.nondeterministic_seeded in func.tags:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))

    @contextmanager
    def blind(self) -> Iterator[None]:
        self.watching = False
        yield
        self.watching = True


@pytest.fixture
def draws(monkeypatch):
    """Draws outside of steps; inside, as of dropout, they are a captured graph's own affair."""
    if importlib.util.find_spec("triton") is not None:
        from methods.hypernetworks import triton_passes

        monkeypatch.setattr(triton_passes, "_works", lambda _: False)
    monkeypatch.setattr(stepping, "recorder_for", lambda _: None)
    run = stepping.Plain.run
    with pretended(), Draws() as found:

        def steps(self, batches):
            with found.blind():
                return run(self, batches)

        monkeypatch.setattr(stepping.Plain, "run", steps)
        yield found


@pytest.mark.parametrize("name, scenario, settings", [*METHODS, *OPTIONS])
def test_learning_draws_on_the_host_between_steps(name, scenario, settings, draws):
    stream = opened(scenario, device="cuda")
    with draws.blind():
        method = made(name, stream, device="cuda", **settings)
    learn(method, stream, [0, 1])
    assert not draws.found


def test_a_draw_on_the_device_is_noticed(draws):
    torch.rand(3, device="cuda")
    torch.ones(2, 2, device="cuda").multinomial(1)
    assert len(draws.found) == 2
