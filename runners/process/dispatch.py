"""Watching PyTorch's operations."""

from __future__ import annotations

import inspect
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class DispatchMode(TorchDispatchMode):
    """A dispatch mode without the wrapper that torch.compile needs, whose first call imports torch._dynamo.

    That takes longer than many a cell.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.__torch_dispatch__ = inspect.unwrap(cls.__torch_dispatch__)  # type: ignore[method-assign]
