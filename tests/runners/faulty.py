"""Methods that state or answer what cannot be recorded; `faulty.py:Faulty` with `what` a key of FAULTS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from methods.base import CIL, Claim, Method, Progress, Task, register
from tests.runners.foreign import _Small


class Unprintable(RuntimeError):
    """Cannot say what it is about."""

    def __str__(self) -> str:
        raise ValueError("no words")


def _raise(error: BaseException) -> None:
    raise error


def _cycle(method: Any) -> None:
    method.notes = []
    method.notes.append(method.notes)


def _budget(method: Any) -> None:
    object.__setattr__(method.task.budget, "steps", 10**12)


LEARNING: dict[str, Callable[[Any], object]] = {
    "unprintable": lambda method: _raise(Unprintable()),
    "endless words": lambda method: _raise(RuntimeError("x" * 10**8)),
    "own exit": lambda method: _raise(GeneratorExit("done")),
    "budget": _budget,
    "cycle": _cycle,
    "endless state": lambda method: setattr(method, "notes", list(range(10**6 + 1))),
    "huge state": lambda method: setattr(method, "notes", torch.zeros(1).expand(1 << 44)),
    "stored tensor": lambda method: setattr(method, "stored", torch.tensor(3)),
    "stored fraction": lambda method: setattr(method, "stored", 0.5),
    "curve of tensors": lambda method: setattr(method, "entry", Progress(0, 1, 1, "no number")),  # type: ignore[arg-type]
    "endless curve": lambda method: setattr(method, "times", 100_001),
}
"""What goes wrong in task 1, while learning."""
ANSWERS: dict[str, Callable[[Tensor], Any]] = {
    "wide": lambda logits: torch.nn.functional.pad(logits, (0, 1)),
    "narrow": lambda logits: logits[:, :1],
    "few": lambda logits: logits[1:],
    "integers": lambda logits: logits.argmax(1, keepdim=True).expand_as(logits),
    "list": lambda logits: logits.tolist(),
    "elsewhere": lambda logits: logits.to("meta"),
    "infinite": lambda logits: logits.index_fill(1, torch.tensor([0]), float("inf")),
    "minus infinite": lambda logits: logits.index_fill(1, torch.tensor([0]), float("-inf")),
}
"""What predict gives after task 1, instead of its logits."""


@register("faulty")
class Faulty(_Small):
    """Goes wrong in task 1, or after it."""

    @dataclass(frozen=True)
    class Config(_Small.Config):
        what: str = "wide"
        """A key of LEARNING or ANSWERS, or `inferred` or `claims`."""

    stored: Any = None
    entry: Any = None
    times = 1

    def learn(self, task: Task) -> None:
        if task.index == 1 and self.config.what in LEARNING:
            self.task = task
            try:
                LEARNING[self.config.what](self)
            finally:
                del self.task
        super().learn(task)
        if self.entry is not None:
            self.curve.append(self.entry)
        self.curve *= self.times

    def predict(self, x: Tensor, task_id: int | None = None) -> Any:
        logits = super().predict(x, task_id)
        return ANSWERS.get(self.config.what, lambda it: it)(logits) if self.tasks_seen > 1 else logits

    def parameters_stored(self) -> Any:
        return super().parameters_stored() if self.stored is None else self.stored

    def infer_task(self, x: Tensor) -> Tensor:
        tasks = torch.zeros(len(x), dtype=torch.int64)
        return tasks[:1] if self.config.what == "inferred" and self.spec.scenario is CIL else tasks

    def bounds(self, x: Tensor, task_id: int | None = None) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def audit(self) -> list[Claim]:
        n = 7 if self.config.what == "claims" else self.tasks_seen
        return [Claim(j, True, 0, 0.0, 0.0) for j in range(n)]


@register("odd-state")
class OddState(_Small):
    """Writes a state of its own that is not plain."""

    def state_dict(self) -> dict[str, Any]:
        return {"net": dict(self.net.state_dict()), "object": Method}
