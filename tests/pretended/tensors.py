"""The tensor of the pretended device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CUDA = torch.device("cuda", 0)


class OnDevice(Tensor):
    """Says that it lies on cuda:0; `elem`, on the CPU, has its values.

    C++ takes it to be of the device `lazy`: one that autograd asks for no stream, and that needs no driver.
    """

    elem: Tensor

    @staticmethod
    def __new__(cls, elem: Tensor) -> OnDevice:
        made = Tensor._make_wrapper_subclass(
            cls, elem.size(), strides=elem.stride(), storage_offset=elem.storage_offset(), dtype=elem.dtype,
            layout=elem.layout, device="lazy:0",
        )  # fmt: skip
        made.elem = elem
        return made

    device = property(lambda self: CUDA)  # pyright: ignore[reportAssignmentType]
    is_cuda = property(lambda self: True)  # pyright: ignore[reportAssignmentType]
    is_cpu = property(lambda self: False)  # pyright: ignore[reportAssignmentType]
    is_meta = property(lambda self: False)  # pyright: ignore[reportAssignmentType]

    @property
    def data(self) -> Tensor:
        return OnDevice(self.elem)  # not `detach`: it counts its changes alone, as elsewhere

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, OnDevice) or value.shape != self.shape:
            raise RuntimeError("set_data: another device or shape (pretended device)")
        self.elem = value.elem

    def get_device(self) -> int:
        return 0

    def data_ptr(self) -> int:
        return self.elem.data_ptr()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy (pretended device)")

    __array__ = numpy

    def is_pinned(self, *_: Any) -> bool:
        return False

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self, **_: Any) -> str:
        return f"OnDevice({self.elem!r})"

    __str__ = __repr__

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = self.detach().clone()
        if self.requires_grad:
            copied.requires_grad_()
        if getattr(self, "_is_param", False):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        memo[id(self)] = copied
        return copied

    def __reduce_ex__(self, protocol: int) -> Any:
        return self.detach().cpu().__reduce_ex__(protocol)  # torch.save copies to the host, too

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} on a tensor of the pretended device, outside of it")
