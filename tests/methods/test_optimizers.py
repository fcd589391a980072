"""Optimisers without torch.compile's wrappers: the library's numbers and states, and a process that starts sooner."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from methods.shared import optimizers
from tests.runners.helpers import ROOT

PAIRS = {
    "adam": (optimizers.Adam, torch.optim.Adam, {"lr": 1e-2, "weight_decay": 1e-3, "fused": True}),
    "sgd": (optimizers.SGD, torch.optim.SGD, {"lr": 1e-1, "momentum": 0.9, "fused": True}),
}


def trained(kind: Callable[..., torch.optim.Optimizer], options: dict, resumed: bool) -> tuple[list, dict]:
    """Weights after ten steps with two parameter groups, and the state; resumed: from a state dict half way."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    x, y = torch.randn(10, 8, 5), torch.randint(3, (10, 8))
    made = lambda: kind([{"params": net[0].parameters(), "lr": 3e-2}, {"params": net[2].parameters()}], **options)  # noqa: E731
    optimizer = made()
    for step in range(10):
        if resumed and step == 5:
            state, optimizer = optimizer.state_dict(), made()
            optimizer.load_state_dict(state)
        optimizer.zero_grad(set_to_none=step % 2 == 0)
        cross_entropy(net(x[step]), y[step]).backward()
        optimizer.step()
    return [p.detach() for p in net.parameters()], optimizer.state_dict()


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("name", PAIRS)
def test_weights_and_states_are_those_of_the_library(name: str, resumed: bool) -> None:
    ours, theirs, options = PAIRS[name]
    weights, state = trained(ours, options, resumed)
    wanted, wanted_state = trained(theirs, options, resumed)
    assert all(torch.equal(a, b) for a, b in zip(weights, wanted, strict=True))
    assert str(state) == str(wanted_state)


def test_a_step_records_no_gradient_and_a_closure_may() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = optimizers.Adam([weight], lr=0.1)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = weight.square().sum()
        value.backward()
        return value.detach()

    assert optimizer.step(loss) == 3.0 and weight.grad_fn is None
    assert torch.is_grad_enabled()


def test_hooks_of_the_library_are_called() -> None:
    weight, called = nn.Parameter(torch.ones(3)), []
    optimizer = optimizers.SGD([weight], lr=0.1)
    optimizer.register_step_post_hook(lambda *_: called.append("after"))
    weight.grad = torch.ones(3)
    optimizer.step()
    assert called == ["after"] and torch.equal(weight.detach(), torch.full((3,), 0.9))


STARTS = """
import sys
from pathlib import Path
from runners.cell.execution import run_cell
from runners.plan import footprint
from tests.runners.helpers import cells, job, silent
grid = cells("finetune", "ewc", "hypermask")
footprint.of_cells(grid)
for cell in grid:
    run_cell(job(cell, Path(sys.argv[1])), silent)
print([name for name in ("torch._dynamo", "sklearn", "pandas", "scipy") if name in sys.modules])
"""


def test_a_cell_and_its_estimate_import_nothing_that_they_do_not_need(tmp_path) -> None:
    """Each of these would cost every worker, and every short command, a second or two."""
    done = subprocess.run(
        [sys.executable, "-c", STARTS, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
