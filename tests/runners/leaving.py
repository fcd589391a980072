"""Methods that leave something behind: in their process, or in the data that all methods share."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules import module as modules

from methods.base import Exhibit, Method, Task, register
from tests.runners.foreign import _Small

SETTINGS: dict[str, tuple[Callable[[], object], str]] = {
    "dtype": (lambda: torch.set_default_dtype(torch.float64), "torch's default dtype"),
    "device": (lambda: torch.set_default_device("cpu"), "torch's default device"),
    "gradients": (lambda: torch.set_grad_enabled(False), "whether torch records gradients"),
    "threads": (lambda: torch.set_num_threads(3), "torch's number of threads"),
    "deterministic": (
        lambda: torch.use_deterministic_algorithms(True, warn_only=True),
        "torch's choice of deterministic algorithms",
    ),
    "precision": (
        lambda: torch.set_float32_matmul_precision("medium"),
        "torch's precision of matrix products",
    ),
    "tf32": (lambda: setattr(torch.backends.cudnn, "allow_tf32", False), "cudnn.allow_tf32"),
    "benchmark": (lambda: setattr(torch.backends.cudnn, "benchmark", True), "cudnn.benchmark"),
    "subnormal": (
        lambda: torch.set_flush_denormal(False),
        "whether torch flushes subnormal numbers to zero",
    ),
    "anomaly": (lambda: torch.autograd.set_detect_anomaly(True), "torch's anomaly detection"),
    "autocast": (lambda: torch.set_autocast_enabled("cpu", True), "torch's autocast"),
    "hook": (
        lambda: modules.register_module_forward_hook(lambda _, inputs, output: output * 0),
        "global hooks of torch (forward_hooks)",
    ),
    "initialiser": (
        lambda: setattr(torch.nn.init, "kaiming_uniform_", torch.nn.init.zeros_),
        "torch.nn.init.kaiming_uniform_",
    ),
    "optimizer": (lambda: setattr(torch.optim.Adam, "step", lambda *_: None), "torch.optim.adam.Adam.step"),
    "the loop": (lambda: setattr(Method, "accuracy", lambda *_: 1.0), "methods.base.Method.accuracy"),
    "directory": (lambda: os.chdir("/"), "the working directory"),
    "variable": (lambda: os.environ.update(CONTINUAL_GRAPHS="0"), "environment variables"),
    "errors": (lambda: np.seterr(all="raise"), "NumPy's handling of floating-point errors"),
    "recursion": (lambda: sys.setrecursionlimit(5000), "the limit of recursion"),
}
"""By a short name: what changes a setting, and how the setting is called."""


@register("leaves")
class Leaves(_Small):
    """Changes a setting at the end of the last task, and leaves it so."""

    @dataclass(frozen=True)
    class Config(_Small.Config):
        what: str = "dtype"
        """A key of SETTINGS."""

    def exhibits(self) -> dict[str, Exhibit]:
        SETTINGS[self.config.what][0]()
        return {}


@register("leaves-warnings")
class LeavesWarnings(_Small):
    """Makes errors of all warnings."""

    def spoil(self) -> None:
        warnings.simplefilter("error")


_KEPT: list[torch.inference_mode] = []


@register("leaves-inference")
class LeavesInference(_Small):
    """Enters inference mode and never leaves it."""

    def exhibits(self) -> dict[str, Exhibit]:
        _KEPT.append(torch.inference_mode())
        _KEPT[-1].__enter__()
        return {}


@register("exits")
class Exits(_Small):
    """Asks Python to end in task 1."""

    def spoil(self) -> None:
        sys.exit("enough")


@register("poisons")
class Poisons(_Small):
    """Changes the shared data in task 1, or when it answers after task 1."""

    @dataclass(frozen=True)
    class Config(_Small.Config):
        how: str = "pixels"
        """Which tensor, and by which way."""

    def learn(self, task: Task) -> None:
        if task.index == 1:
            self.change(task)
        super().learn(task)

    def change(self, task: Task) -> None:
        pixels = task.train.pixels
        if self.config.how == "pixels":
            pixels.sub_(pixels.mean())
        elif self.config.how == "rows":
            task.train.rows.copy_(task.train.rows.flip(0))
        elif self.config.how == "numpy":
            pixels.numpy()[:] = pixels.numpy()[::-1].copy()
        elif self.config.how == "data":
            pixels.data = pixels * 2
        elif self.config.how == "gradients":
            pixels.requires_grad_()

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        if self.config.how == "test" and self.tasks_seen == 2:
            from benchmarks.data import load

            load("digits").test_images.zero_()
        return super().predict(x, task_id)


@register("poisons-and-diverges")
class PoisonsAndDiverges(Poisons):
    """Changes the images by way of NumPy in task 1, and diverges there."""

    def factor(self, task: Task) -> float:
        return float("nan") if task.index == 1 else 1.0

    def change(self, task: Task) -> None:
        task.train.pixels.numpy()[:] = 0
