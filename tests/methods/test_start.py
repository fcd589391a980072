"""Where a method's start comes from: the host's generator, so that one seed starts alike on every device."""

import pytest
import torch
from torch.utils._pytree import tree_flatten

from methods import registry
from methods.hypernetworks import triton_passes
from tests.methods.helpers import CASES, made, opened
from tests.pretended import pretended


def start(name, scenario, device) -> list[torch.Tensor]:
    stream = opened(scenario, device=device)
    state = made(name, stream, device=device).state_dict()
    return [tensor.cpu() for tensor in tree_flatten(state)[0] if isinstance(tensor, torch.Tensor)]


@pytest.mark.parametrize(("name", "scenario"), CASES)
def test_one_seed_starts_alike_on_cpu_and_gpu(name, scenario, monkeypatch):
    """The pretended device's generator runs on, as a GPU's would, where something is drawn on it."""
    if registry.load(name).skip(opened(scenario).spec, registry.load(name).Config()):
        pytest.skip("not defined here")
    expected = start(name, scenario, "cpu")
    monkeypatch.setattr(triton_passes, "_works", lambda _: False)
    with pretended() as device:
        seen = []
        dispatch = type(device).__torch_dispatch__

        def watched(self, func, types, args=(), kwargs=None):
            wanted = (kwargs or {}).get("device")
            if torch.Tag.nondeterministic_seeded in func.tags and wanted is not None and "cuda" in str(wanted):
                seen.append(str(func))
            return dispatch(self, func, types, args, kwargs)

        monkeypatch.setattr(type(device), "__torch_dispatch__", watched)
        found = start(name, scenario, "cuda")
    assert not seen
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
