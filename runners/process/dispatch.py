"""PyTorch's operations without its compiler, whose import (torch._dynamo) takes longer than many a cell."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType
from typing import Any

import torch
from torch._compile import _disable_dynamo
from torch.utils._python_dispatch import TorchDispatchMode

COMPILER = "torch._dynamo"
_WRAPS = _disable_dynamo(lambda: None).__code__
"""PyTorch's code that imports the compiler to wrap a function."""


class DispatchMode(TorchDispatchMode):
    """A dispatch mode without the wrapper that torch.compile needs, whose first call imports torch._dynamo."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.__torch_dispatch__ = inspect.unwrap(cls.__torch_dispatch__)  # type: ignore[method-assign]


@contextmanager
def uncompiled() -> Iterator[None]:
    """Context in which operations on the meta device import no torch._dynamo.

    PyTorch wraps each of their functions by `torch._dynamo.disable` at its first call, which imports that module. Where
    nothing is compiled the wrapper does nothing. All other code imports the module as ever.
    """
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for function in finder.met:  # to be wrapped by its next call
            vars(function).pop("__dynamo_disable", None)


class _Finder(Loader):
    """Finder that answers the import in `_WRAPS` by a stand-in, which is gone before any other code could see it."""

    def __init__(self) -> None:
        self.met: list[Callable[..., Any]] = []

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != COMPILER:
            return None
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
            frame = frame.f_back
        return ModuleSpec(name, self) if frame is not None and frame.f_code is _WRAPS else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = ModuleType(spec.name)

        def disable(function: Callable[..., Any], *_: object, **__: object) -> Callable[..., Any]:
            del sys.modules[COMPILER], torch._dynamo
            self.met.append(function)
            return function

        module.disable = disable  # type: ignore[attr-defined]
        return module

    def exec_module(self, module: ModuleType) -> None: ...
