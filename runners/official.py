"""Timing the authors' HyperInterval step beside ours; see `--official` of runners/speed.py.

Nothing of their program is part of this project: it is imported from a checkout the user names, and called as
its training functions call it, in the same order. What is left out is what happens only now and then
(validation, plots) and the writing of a file; the text of the line that is written each step is made.
"""

from __future__ import annotations

import importlib
import sys
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.types import DIL, UserError

if TYPE_CHECKING:
    from runners.timing import Order, Timing


def train(order: Order, stream: Any, config: Any) -> tuple[tuple[Timing, ...], int]:
    """Time the official step at the order's tasks; also the scalars of its hypernetwork's output matrix.

    config: our HyperInterval's; embedding, hidden widths, eps and beta are taken from it. MLP targets only.
    """
    from runners.timing import rounds, tasks_to_time

    step = _Step(_imported(order), stream, config, order)
    found = []
    for t in tasks_to_time(order, len(stream)):
        step.begin(t, stream.task(t))
        found.append(rounds(step.run, order, t, 0, step.device))
    return tuple(found), config.hidden[-1] * step.n_weights


class _Modules:
    """What is called of the official program in one of its two modes."""

    def __init__(self, nested: bool) -> None:
        hnet = "hmlp_ibp_with_nesting" if nested else "hmlp_ibp_wo_nesting"
        self.hypernetwork = importlib.import_module(f"IntervalNets.{hnet}").HMLP_IBP
        self.target = importlib.import_module("IntervalNets.interval_MLP").IntervalMLP
        self.parse_logits = importlib.import_module("IntervalNets.interval_modules").parse_logits
        self.regulariser: Any = importlib.import_module(f"Utils.hnet_{'interval' if nested else 'middle'}_regularizer")
        self.criterion = importlib.import_module("loss_functions").IBP_Loss()


def _imported(order: Order) -> _Modules:
    folder = order.official
    if folder is None or not (folder / "IntervalNets").is_dir():
        raise UserError(f"--official {folder}: this is no checkout of github.com/gmum/HyperInterval")
    sys.path.insert(0, str(Path(folder).resolve()))
    _without_named_dimensions()
    try:
        return _Modules(order.scenario == DIL)
    except ImportError as error:
        raise UserError(f"--official {folder}: {error}; hypnettorch must be installed or on PYTHONPATH") from error


def _without_named_dimensions() -> None:
    """Let a PyTorch that has dropped named dimensions run code that names them; only `bounds`, dimension 1, matters."""
    from torch import Tensor

    if hasattr(Tensor, "refine_names"):
        return
    unbind = Tensor.unbind
    changes: dict[str, Any] = {
        "refine_names": lambda self, *names: self,
        "rename": lambda self, *names: self,
        "unbind": lambda self, dim=0: unbind(self, 1 if dim == "bounds" else dim),
    }
    for name, function in changes.items():
        setattr(Tensor, name, function)


class _Step:
    """The official training step on one task after t others."""

    def __init__(self, modules: _Modules, stream: Any, config: Any, order: Order) -> None:
        import torch

        family, *widths = stream.spec.network.split("-")
        if family != "mlp":
            raise UserError(f"--official times MLP target networks, not {stream.spec.network}")
        torch.manual_seed(0)
        self.modules, self.config, self.device = modules, config, torch.device(order.device)
        shape = stream.spec.input_shape
        self.target: Any = modules.target(
            n_in=torch.Size(shape).numel(), n_out=stream.spec.classes_per_task, hidden_layers=list(map(int, widths)),
            use_bias=True, no_weights=True, use_batch_norm=False, bn_track_stats=False, dropout_rate=-1, verbose=False,
        ).to(self.device)  # fmt: skip
        self.hypernetwork: Any = modules.hypernetwork(
            self.target.param_shapes, uncond_in_size=0, cond_in_size=config.embedding, layers=list(config.hidden),
            activation_fn=torch.nn.ReLU(), num_cond_embs=len(stream), verbose=False,
        ).to(self.device)  # fmt: skip
        self.n_weights = sum(torch.Size(shape).numel() for shape in self.target.param_shapes)

    def begin(self, t: int, task: Any) -> None:
        """As the official program begins a task: a new optimiser, targets, a copy of the weights."""
        import torch

        self.t, self.task, self.targets = t, task, {}
        parameters = [*self.hypernetwork.parameters(), *self.target.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=self.config.lr)
        if t:
            self.hypernetwork._prev_hnet_weights = deepcopy(self.hypernetwork.unconditional_params)
            found = self.modules.regulariser.get_current_targets(task_id=t, hnet=self.hypernetwork, eps=self.config.eps)
            nested = isinstance(found, tuple)
            names = ("lower_targets", "middle_targets", "upper_targets") if nested else ("middle_targets",)
            self.targets = dict(zip(names, found if nested else (found,), strict=True))

    def run(self, first: int, steps: int) -> None:
        """Train for some steps."""
        size = self.task.budget.batch_size
        for i in range(first, first + steps):
            rows = [(i * size + j) % len(self.task.train) for j in range(size)]
            self._step(*self._batch(rows))

    def _batch(self, rows: list[int]) -> tuple[Any, Any]:
        import torch

        batch = self.task.train.batch(torch.tensor(rows, device=self.device))
        return batch.x.flatten(1), batch.y

    def _step(self, x: Any, y: Any) -> None:
        modules, config = self.modules, self.config
        self.optimizer.zero_grad()
        lower, middle, upper, _ = self.hypernetwork.forward(
            cond_id=self.t, return_extended_output=True, perturbated_eps=config.eps
        )
        logits = self.target.forward(x=x, upper_weights=upper, middle_weights=middle, lower_weights=lower)
        low, mid, up = modules.parse_logits(logits)
        width = sum((u - low_).abs().mean() for u, low_ in zip(upper, lower, strict=True))
        error = modules.criterion(y_pred=mid, y=y, z_l=low, z_u=up, kappa=config.kappa)
        drift: Any = 0.0
        if self.t:
            drift = modules.regulariser.calc_fix_target_reg(
                self.hypernetwork, self.t, mnet=self.target, prev_theta=None, prev_task_embs=None, eps=config.eps,
                **self.targets,
            )  # fmt: skip
        loss = error + config.beta * drift / max(1, self.t)
        self.line = f"{loss};{error};{modules.criterion.worst_case_error};{drift};{width}"
        loss.backward()
        self.optimizer.step()
