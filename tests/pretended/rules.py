"""What a GPU makes of an operation: nothing, a wait, or an error.

The lists name operators of ATen; what they say was read in PyTorch's sources (2.11 and 2.15).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from tests.pretended.tensors import CUDA, OnDevice


class Mismatch(RuntimeError):
    """Tensors of two devices in one operation."""


class Kind(StrEnum):
    """Why host and device have to do with each other."""

    READ = "host reads"
    SHAPE = "shape decided on the device"
    LIBRARY = "library waits"
    TO_HOST = "device to host"
    FROM_HOST = "host to device"
    SYNCHRONIZE = "synchronize"
    PINNED = "host to device, asynchronous"
    HOST_RANDOM = "drawn on the host"
    FORBIDDEN = "not in a capture"


WAITS = frozenset({Kind.READ, Kind.SHAPE, Kind.LIBRARY, Kind.TO_HOST, Kind.FROM_HOST, Kind.SYNCHRONIZE})
"""The kinds for which the host waits."""
HOST_READS = {
    **dict.fromkeys(("_local_scalar_dense", "is_nonzero", "equal"), Kind.READ),
    **dict.fromkeys(
        ("nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount"), Kind.SHAPE
    ),
}
"""Operations whose result the host needs, or whose result's shape."""
_LIBRARY = {"_linalg_eigh", "_linalg_svd", "linalg_eig", "linalg_cholesky_ex", "linalg_inv_ex", "linalg_lstsq",
            "linalg_qr", "_linalg_det", "linalg_pinv", "multinomial"}  # fmt: skip
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
_SCALARS_FROM_THE_CPU = {"fill", "fill_", "masked_fill", "masked_fill_"}
"""Operations without the tag `pointwise` that take a number of the CPU's all the same."""


class Call:
    """An operation about to run."""

    def __init__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.func, self.args, self.kwargs = func, args, kwargs
        self.name: str = func.overloadpacket.__name__
        self.here: list[OnDevice] = []
        """The tensors of the device among the arguments, also those in lists."""
        self.there: list[Tensor] = []
        """The tensors of the CPU."""
        for value in (*args, *kwargs.values()):
            for part in value if isinstance(value, list | tuple) else (value,):
                if isinstance(part, OnDevice):
                    self.here.append(part)
                elif isinstance(part, Tensor):
                    self.there.append(part)
        given = kwargs.get("device")
        wanted = None if given is None else torch.device(given)
        self.wanted = CUDA if wanted is not None and wanted.type == "lazy" else wanted
        """The device that is asked for by name."""
        self.gives_here = bool(self.here) if self.wanted is None else self.wanted.type == "cuda"
        """Whether the result lies on the device."""
        self.concerns_the_device = bool(self.here) or self.gives_here

    @property
    def is_random(self) -> bool:
        return torch.Tag.nondeterministic_seeded in self.func.tags

    def written(self) -> list[Any]:
        """The arguments that the operation changes."""
        named = [*zip(self.func._schema.arguments, self.args, strict=False)]
        named += [(a, self.kwargs[a.name]) for a in self.func._schema.arguments if a.name in self.kwargs]
        return [value for argument, value in named if argument.alias_info is not None and argument.alias_info.is_write]


def judged(call: Call) -> Kind | None:
    """What the call means for the host. Raises Mismatch, and RuntimeError for a generator of the CPU's."""
    generator = call.kwargs.get("generator")
    if generator is not None and generator.device.type == "cpu":
        raise RuntimeError(f"{call.name}: expected a 'cuda' device type for generator but found 'cpu'")
    if call.name in ("_to_copy", "copy_"):
        return _copied(call)
    if call.name in _INDEXING:
        return _indexed(call)
    _check_devices(call, call.there)
    if call.name == "repeat_interleave" and call.kwargs.get("output_size") is None:
        return Kind.SHAPE  # only the form that takes a tensor of numbers arrives here
    return HOST_READS.get(call.name, Kind.LIBRARY if call.name in _LIBRARY else None)


def _copied(call: Call) -> Kind | None:
    if call.name == "copy_":
        source_here, target_here = (isinstance(tensor, OnDevice) for tensor in call.args[:2][::-1])
        without_waiting = len(call.args) > 2 and call.args[2]
    else:
        source_here, target_here = bool(call.here), call.gives_here
        without_waiting = call.kwargs.get("non_blocking")
    if source_here == target_here:
        return None
    if source_here:
        return Kind.TO_HOST
    return Kind.PINNED if without_waiting and getattr(call.there[0], "pinned", False) else Kind.FROM_HOST


def _indexed(call: Call) -> Kind | None:
    """Indices may be of the CPU, which is a copy; a mask means that somebody counts what it holds."""
    indices = [index for index in call.args[1] if isinstance(index, Tensor)]
    _check_devices(call, [tensor for tensor in call.there if all(tensor is not index for index in indices)])
    if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
        return Kind.SHAPE
    return Kind.FROM_HOST if any(not isinstance(index, OnDevice) for index in indices) else None


def _check_devices(call: Call, strangers: list[Tensor]) -> None:
    """Raise Mismatch unless all tensors of the CPU are single numbers that the kernel takes as an argument."""
    if not strangers or not call.here:  # zeros_like(tensor, device="cuda") only looks at the shape
        return
    numbers = torch.Tag.pointwise in call.func.tags or call.name in _SCALARS_FROM_THE_CPU or call.name in _INDEXING
    if not numbers or any(tensor.dim() for tensor in strangers):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in strangers)
        raise Mismatch(f"{call.name}: tensors of cuda:0 and of the CPU (shapes {shapes})")
    if any(value is tensor for value in call.written() for tensor in strangers):
        raise Mismatch(f"{call.name}: a result of cuda:0 in a tensor of the CPU")
