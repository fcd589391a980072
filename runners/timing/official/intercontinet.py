"""The authors' InterContiNet step: github.com/gmum/InterContiNet, in its three kinds.

Their training strategy is a subclass of one that Avalanche no longer has. Its hooks are called here, in its order,
on their network; what goes to their logs is computed, not sent.
"""

from __future__ import annotations

import io
from collections import deque
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.types import TIL, UserError
from runners.timing.official.step import Step, checkout


class OfficialStep(Step):
    """See `Step`. config: our InterContiNet's; radius, rates, threshold and look-back are taken from it.

    Phase 0 trains the centres (first task) or the shifts (later ones), phase 1 contracts the intervals.
    """

    phases = 2

    def __init__(self, folder: Path, stream: Any, config: Any, device: str, widths: list[int]) -> None:
        super().__init__(stream, device)
        with checkout(folder, "avalanche-lib"):
            _with_what_avalanche_has_moved()
            self.program: Any = import_module("intervalnet.models.interval")
        self.config, spec = config, stream.spec
        self.many = spec.scenario == TIL
        classes = spec.classes_per_task if self.many else spec.n_outputs
        if len(widths) != 2 or widths[0] != widths[1]:
            raise UserError(
                f"--official: InterContiNet's network has two hidden layers of one width, not {spec.network}"
            )
        self.model: Any = self.program.IntervalMLP(
            input_size=self.n_inputs, hidden_dim=widths[0], output_classes=classes,
            radius_multiplier=1.0, max_radius=config.max_radius, bias=True, heads=len(stream) if self.many else 1,
            normalize_shift=config.normalize_shift, normalize_scale=False, scale_init=config.scale_init,
        ).to(self.device)  # fmt: skip

    def begin(self, t: int, task: Any) -> None:
        super().begin(t, task)
        self.accuracies: deque[Any] = deque(maxlen=self.config.lookback)
        self.robust_accuracies: deque[Any] = deque(maxlen=self.config.lookback)
        if t:
            self._switch(self.program.Mode.CONTRACTION_SHIFT)
            self.model.freeze_task()

    def begin_phase(self, phase: int) -> None:
        import torch

        super().begin_phase(phase)
        if phase:
            self._switch(self.program.Mode.CONTRACTION_SCALE)
        rate = self.config.scale_lr if phase else self.config.shift_lr if self.t else self.config.lr
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=rate)

    def step(self, x: Any, y: Any) -> None:
        import torch
        from torch.nn.functional import cross_entropy, one_hot

        self.optimizer.zero_grad()
        heads = torch.full_like(y, self.t if self.many else 0)
        bounds = self.model(x, heads)["last"]
        middle = bounds[:, 1, :].rename(None)
        loss = cross_entropy(middle, y)
        lower, _, upper = bounds.unbind("bounds")
        right = one_hot(y, num_classes=self.model.output_classes).bool()
        worst = torch.where(right, lower.rename(None), upper.rename(None))
        robust = cross_entropy(worst, y)
        self.accuracies.appendleft((middle.argmax(1) == y).float().mean())
        self.robust_accuracies.appendleft((worst.argmax(1) == y).float().mean())
        if self.model.mode is self.program.Mode.CONTRACTION_SCALE:
            reached = torch.stack(list(self.robust_accuracies)).mean()
            asked = self._threshold() * torch.stack(list(self.accuracies)).mean()
            loss = robust if reached < asked else robust * 0.0
        self.logged = loss.detach().clone(), robust.detach().clone()
        loss.backward()
        self.optimizer.step()
        self.model.clamp_radii()

    def _threshold(self) -> float:
        return 0.9 if self.config.threshold is None else self.config.threshold

    def _switch(self, mode: Any) -> None:
        with redirect_stdout(io.StringIO()):  # it says so in colours
            self.model.switch_mode(mode)


def _with_what_avalanche_has_moved() -> None:
    """Let it be found where their code looks for it."""
    old, new = "avalanche.benchmarks.utils.dataset_utils", "avalanche.models.dynamic_modules"
    module = import_module(old)
    if not hasattr(module, "ConstantSequence"):
        setattr(module, "ConstantSequence", import_module(new).ConstantSequence)  # noqa: B010 - not declared there
