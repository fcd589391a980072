"""Common parts of the authors' steps, and repairs for a current PyTorch."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.types import UserError


class Step(ABC):
    """One official training step on a task after t others, again and again."""

    phases = 1
    """Kinds of steps in a task, in order."""
    output_weights = 0
    """Scalars of the output matrix of a hypernetwork."""
    outputs = 0
    """Target weights that a chunked hypernetwork generates for a task, padding included."""

    def __init__(self, stream: Any, device: str) -> None:
        import torch

        torch.manual_seed(0)
        self.stream, self.device = stream, torch.device(device)
        self.n_inputs = torch.Size(stream.spec.input_shape).numel()

    def begin(self, t: int, task: Any) -> None:
        """Begin a task as the official program does: targets, copies, an optimiser."""
        self.t, self.task = t, task

    def begin_phase(self, phase: int) -> None:
        """Begin one kind of steps of the task."""
        self.phase = phase

    @abstractmethod
    def step(self, x: Any, y: Any) -> None:
        """One step on samples x (b, *input shape) and labels y (b,)."""

    def run(self, first: int, steps: int, every: int, on_check: Callable[[], None]) -> None:
        """As `runners.timing.rounds.Run`."""
        import torch

        size = self.task.budget.batch_size
        for i in range(first, first + steps):
            rows = [(i * size + j) % len(self.task.train) for j in range(size)]
            batch = self.task.train.batch(torch.tensor(rows, device=self.device))
            self.step(batch.x, batch.y)
            if (i + 1 - first) % every == 0:
                on_check()


@contextmanager
def checkout(folder: Path, needs: str) -> Iterator[None]:
    """Import from a checkout. needs: packages that its user must have at hand, for the message of the UserError."""
    sys.path.insert(0, str(folder.resolve()))
    without_named_dimensions()
    try:
        yield
    except ImportError as error:
        raise UserError(f"--official {folder}: {error}; {needs} must be installed or on PYTHONPATH") from error


def without_named_dimensions() -> None:
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


def stand_in(name: str, **content: Any) -> None:
    """Put a module of this content in the place of one that is not needed or no longer to be had."""
    module = ModuleType(name)
    vars(module).update(content)
    sys.modules[name] = module
