"""State that a cell may leave changed in its process: settings of torch, NumPy and the system, patched functions.

One process runs cell after cell. A setting that one method changes would change the numbers of the next method's
cells, or make them fail. So the process is compared before and after each cell.
"""

from __future__ import annotations

import gc
import locale
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.backends import cuda, cudnn, mkldnn, opt_einsum
from torch.nn.modules import module as modules
from torch.optim import optimizer as optimizers  # type: ignore[attr-defined]
from torch.utils import _device
from torch.utils import _python_dispatch as dispatch

from runners.process import patches

_UNREADABLE = "unreadable"
_TINY = 2.0**-130
"""A subnormal number of float32."""

_SET_BY_LIBRARIES = ("KMP_", "TORCHINDUCTOR_", "TRITON_")
"""Variables that scikit-learn and torch's compiler set when they are imported."""


@dataclass(frozen=True)
class Setting:
    """A setting of the process that a cell must leave unchanged."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object] | None = None
    """None: the process cannot put it back."""
    counts: bool = True
    """True if a change is reported and needs a new process; False where libraries change it on import."""

    def value(self) -> Any:
        """Current value. PyTorch refuses to read an older switch that contradicts a newer one."""
        try:
            return self.read()
        except Exception:
            return _UNREADABLE

    def put_back(self, value: Any) -> None:
        """Restore `value`, where possible."""
        if self.write is not None and value != _UNREADABLE and self.value() != value:
            with suppress(Exception):
                self.write(value)


@dataclass(frozen=True)
class Left:
    """Names, for messages, of the settings that differed after a cell."""

    changed: tuple[str, ...] = ()
    lasting: tuple[str, ...] = ()
    """Those of `changed` that could not be put back."""


class Snapshot:
    """The process as it is now."""

    def __init__(self) -> None:
        self.values = {setting: setting.value() for setting in _settings()}
        self.functions = patches.snapshot()

    def put_back(self) -> Left:
        """Undo all changes since the snapshot. Call it in the thread that took the snapshot."""
        changed = {setting: value for setting, value in self.values.items() if setting.value() != value}
        for _ in range(2):  # a setting may move another one, which is then put back in the second round
            for setting, value in changed.items():
                setting.put_back(value)
        lasting = [setting.name for setting, value in changed.items() if setting.value() != value]
        told = [setting.name for setting in changed if setting.counts or setting.name in lasting]
        return Left((*told, *patches.put_back(self.functions)), tuple(lasting))


_left: list[Left] = []


def note(left: Left) -> None:
    """Note the changes that a cell left behind, until the caller that runs cells takes them."""
    _left.append(left)


def taken() -> Left:
    """Take the changes that cells have left behind since the last call."""
    changed = tuple(name for left in _left for name in left.changed)
    lasting = tuple(name for left in _left for name in left.lasting)
    _left.clear()
    return Left(changed, lasting)


@contextmanager
def unchanged() -> Iterator[None]:
    """Context that silently restores the process."""
    before = Snapshot()
    try:
        yield
    finally:
        before.put_back()


def _flushes() -> bool:
    """Check whether this thread flushes subnormal numbers to zero; PyTorch has no function for it."""
    return float(torch.tensor([_TINY], dtype=torch.float32, device="cpu").mul(0.5).to(torch.float64)) == 0.0


def _rewrite(target: Any, content: Any) -> None:
    target.clear()
    target.update(content)


def _holds(name: str, target: Any) -> Setting:
    """A dictionary of hooks, compared by the hooks themselves."""
    return Setting(name, lambda: dict(target), lambda value: _rewrite(target, value))


def _attribute(name: str, place: Any, attribute: str) -> Setting:
    return Setting(name, lambda: getattr(place, attribute), lambda value: setattr(place, attribute, value))


def _set_filters(value: list[Any]) -> None:
    warnings.filters[:] = value  # type: ignore[index]
    getattr(warnings, "_filters_mutated_lock_held", getattr(warnings, "_filters_mutated", lambda: None))()


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_SET_BY_LIBRARIES)}


def _set_variables(value: dict[str, str]) -> None:
    for name in _variables().keys() - value.keys():
        del os.environ[name]
    os.environ.update(value)


def _handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


def _set_handlers(value: dict[int, Any]) -> None:
    for number, handler in value.items():
        if handler is not None and signal.getsignal(number) != handler:
            signal.signal(number, handler)


def _modes() -> tuple[int, int]:
    """Modes that redirect functions and operators in this thread, without those of the default device."""
    functions = torch._C._len_torch_function_stack()
    return functions - (_default_device() is not None), dispatch._len_torch_dispatch_stack()  # type: ignore[attr-defined]


def _default_device() -> torch.device | None:
    """Default device; None where none was set, which differs from the CPU."""
    return _device.CURRENT_DEVICE


def _autocast() -> tuple[Any, ...]:
    kinds = ("cpu", "cuda")
    return tuple((torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds)


def _set_autocast(value: tuple[Any, ...]) -> None:
    for kind, (enabled, dtype) in zip(("cpu", "cuda"), value, strict=True):
        torch.set_autocast_enabled(kind, enabled)
        torch.set_autocast_dtype(kind, dtype)


def _stream() -> Any:
    """The current stream of a GPU in use."""
    return torch.cuda.current_stream().cuda_stream if torch.cuda.is_initialized() else None


def _precisions() -> Iterator[Setting]:
    """Precision settings, the older switches first because they change the newer settings."""
    yield Setting(
        "torch's precision of matrix products",
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    )
    yield _attribute("cudnn.allow_tf32", cudnn, "allow_tf32")
    for name, place in (
        ("torch.backends.fp32_precision", torch.backends),
        ("cuda.matmul.fp32_precision", cuda.matmul),
        ("cudnn.conv.fp32_precision", cudnn.conv),  # type: ignore[attr-defined]
        ("cudnn.rnn.fp32_precision", cudnn.rnn),  # type: ignore[attr-defined]
        ("mkldnn.matmul.fp32_precision", mkldnn.matmul),  # type: ignore[attr-defined]
        ("mkldnn.conv.fp32_precision", mkldnn.conv),  # type: ignore[attr-defined]
        ("mkldnn.rnn.fp32_precision", mkldnn.rnn),  # type: ignore[attr-defined]
    ):
        yield _attribute(name, place, "fp32_precision")


def _of_torch() -> Iterator[Setting]:
    yield Setting("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype)
    yield Setting("torch's default device", _default_device, torch.set_default_device)
    yield Setting("modes that redirect torch's functions", _modes)
    yield Setting("torch's inference mode", torch.is_inference_mode_enabled)
    yield Setting("whether torch records gradients", torch.is_grad_enabled, torch.set_grad_enabled)
    yield Setting("torch's anomaly detection", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly)
    yield Setting("torch's autocast", _autocast, _set_autocast)
    yield Setting("torch's number of threads", torch.get_num_threads, torch.set_num_threads)
    yield Setting(
        "torch's choice of deterministic algorithms",
        torch.get_deterministic_debug_mode,
        torch.set_deterministic_debug_mode,
    )
    yield Setting("whether torch flushes subnormal numbers to zero", _flushes, torch.set_flush_denormal)
    yield from _precisions()
    yield _attribute("cudnn.enabled", cudnn, "enabled")
    yield _attribute("cudnn.benchmark", cudnn, "benchmark")
    yield _attribute("cudnn.deterministic", cudnn, "deterministic")
    yield _attribute("mkldnn.enabled", mkldnn, "enabled")
    yield _attribute("opt_einsum.enabled", opt_einsum, "enabled")
    yield _attribute("opt_einsum.strategy", opt_einsum, "strategy")
    for kind in ("flash", "math", "mem_efficient", "cudnn"):
        read, write = getattr(cuda, f"{kind}_sdp_enabled"), getattr(cuda, f"enable_{kind}_sdp")
        yield Setting(f"torch's attention kernel {kind}", read, write)
    yield Setting("the current stream of the GPU", _stream, None)
    for place in (modules, optimizers):
        for name in sorted(vars(place)):
            if name.startswith("_global_") and isinstance(getattr(place, name), dict):
                yield _holds(f"global hooks of torch ({name.removeprefix('_global_')})", getattr(place, name))


def _of_the_process() -> Iterator[Setting]:
    yield Setting("NumPy's handling of floating-point errors", np.geterr, lambda value: np.seterr(**value))
    yield Setting("the working directory", os.getcwd, os.chdir)
    yield Setting("the locale", lambda: locale.setlocale(locale.LC_ALL), lambda v: locale.setlocale(locale.LC_ALL, v))
    yield Setting("environment variables", _variables, _set_variables)
    if threading.current_thread() is threading.main_thread():
        yield Setting("signal handlers", _handlers, _set_handlers)
    yield Setting("the limit of recursion", sys.getrecursionlimit, sys.setrecursionlimit)
    yield Setting("garbage collection", gc.isenabled, lambda on: gc.enable() if on else gc.disable())
    yield Setting("filters of warnings", lambda: list(warnings.filters), _set_filters, counts=False)


def _settings() -> list[Setting]:
    """Settings in the order in which they are restored: the default device is the last of the redirections."""
    return [*_of_torch(), *_of_the_process()]
