"""The authors' HyperInterval step: github.com/gmum/HyperInterval, TIL and (nested) DIL."""

from __future__ import annotations

from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.types import DIL
from runners.timing.official.step import Step, checkout


class _Modules:
    """Functions of the official program in one of its two modes."""

    def __init__(self, nested: bool) -> None:
        hnet = "hmlp_ibp_with_nesting" if nested else "hmlp_ibp_wo_nesting"
        self.hypernetwork = import_module(f"IntervalNets.{hnet}").HMLP_IBP
        self.target = import_module("IntervalNets.interval_MLP").IntervalMLP
        self.parse_logits = import_module("IntervalNets.interval_modules").parse_logits
        self.regulariser: Any = import_module(f"Utils.hnet_{'interval' if nested else 'middle'}_regularizer")
        self.criterion = import_module("loss_functions").IBP_Loss()


class OfficialStep(Step):
    """See `Step`. config: our HyperInterval's; embedding, hidden widths, eps, kappa and beta are taken from it."""

    def __init__(self, folder: Path, stream: Any, config: Any, device: str, widths: list[int]) -> None:
        import torch

        super().__init__(stream, device)
        with checkout(folder, "hypnettorch"):
            self.modules = _Modules(stream.spec.scenario == DIL)
        self.config = config
        self.target: Any = self.modules.target(
            n_in=self.n_inputs, n_out=stream.spec.classes_per_task, hidden_layers=widths,
            use_bias=True, no_weights=True, use_batch_norm=False, bn_track_stats=False, dropout_rate=-1, verbose=False,
        ).to(self.device)  # fmt: skip
        self.hypernetwork: Any = self.modules.hypernetwork(
            self.target.param_shapes, uncond_in_size=0, cond_in_size=config.embedding, layers=list(config.hidden),
            activation_fn=torch.nn.ReLU(), num_cond_embs=len(stream), verbose=False,
        ).to(self.device)  # fmt: skip
        self.output_weights = config.hidden[-1] * sum(torch.Size(s).numel() for s in self.target.param_shapes)

    def begin(self, t: int, task: Any) -> None:
        import torch

        super().begin(t, task)
        self.targets: dict[str, Any] = {}
        parameters = [*self.hypernetwork.parameters(), *self.target.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=self.config.lr)
        if t:
            self.hypernetwork._prev_hnet_weights = deepcopy(self.hypernetwork.unconditional_params)
            found = self.modules.regulariser.get_current_targets(task_id=t, hnet=self.hypernetwork, eps=self.config.eps)
            nested = isinstance(found, tuple)
            names = ("lower_targets", "middle_targets", "upper_targets") if nested else ("middle_targets",)
            self.targets = dict(zip(names, found if nested else (found,), strict=True))

    def step(self, x: Any, y: Any) -> None:
        modules, config = self.modules, self.config
        self.optimizer.zero_grad()
        lower, middle, upper, _ = self.hypernetwork.forward(
            cond_id=self.t, return_extended_output=True, perturbated_eps=config.eps
        )
        logits = self.target.forward(x=x.flatten(1), upper_weights=upper, middle_weights=middle, lower_weights=lower)
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
