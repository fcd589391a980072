"""The tensors that all tasks and all cells of a process share: whether a method has changed one of them.

A data set is loaded once per process. A method that standardises `task.train.pixels` in place changes the images of all
other methods, whose numbers would be wrong without a sign of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from benchmarks import data, plugins
from benchmarks.stream import Stream
from benchmarks.types import UserError

_WORDS = 1 << 20
"""Words of eight bytes that are summed at a time."""
_ODD = -7046029254386353131
"""The golden ratio times 2 ** 64, as an odd number; it spreads the factors of neighbouring words."""


class ChangedData(UserError):
    """A method has changed what it shares with others."""


_sums: Any = WeakTensorKeyDictionary()
"""Checksums of tensors as they were loaded, as long as those live: a cell need not compute them anew."""


class Watch:
    """Watches a stream's tensors: its data set's, its row numbers and labels, and the constants of its transforms."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.seen: dict[str, tuple[Tensor, object]] = {}
        self.sums: dict[str, tuple[Tensor, int]] = {}
        for name, tensor in _of_data(stream):
            if tensor not in _sums:
                _sums[tensor] = checksum(tensor)
            self.sums[name] = (tensor, _sums[tensor])
        self.look()

    def look(self) -> str:
        """The name of a tensor that was changed, by its version counter; empty where none was. Waits for nothing.

        Tensors that the stream made since the last look are watched from now on.
        """
        changed = [name for name, (tensor, state) in self.seen.items() if _state(tensor) != state]
        for name, tensor in _of_stream(self.stream):
            if name not in self.seen:
                self.seen[name] = (tensor, _state(tensor))
        return changed[0] if changed else ""

    def compare(self) -> str:
        """As `look`, and also by the content of the data set, which finds changes by way of NumPy or `.data`."""
        different = (name for name, (tensor, found) in self.sums.items() if checksum(tensor) != found)
        try:
            return self.look() or next(different, "")
        except RuntimeError:  # the GPU is full or in an error state; the process that has it ends with the cell
            return ""


def renew(stream: Stream) -> bool:
    """Have the next cell load its data anew; whether that helps. A package's function may give the same tensors."""
    data._load.cache_clear()
    return not plugins.is_reference(stream.benchmark.dataset)


def checksum(tensor: Tensor) -> int:
    """A number of 64 bits that depends on every byte and its place; read on the tensor's device."""
    content = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    size, total = 8 * _WORDS, len(content)
    words_at_most = min(_WORDS, -(-total // 8))
    factors = torch.arange(words_at_most, device=content.device).mul_(2).add_(1).mul_(_ODD)
    for start in range(0, len(content), size):
        part = content[start : start + size]
        words = torch.zeros(-(-len(part) // 8), dtype=torch.int64, device=content.device)
        words.view(torch.uint8)[: len(part)] = part
        total = (total * 1000003 + int(words.mul_(factors[: len(words)]).sum())) % (1 << 64)
    return total


def _state(tensor: Tensor) -> object:
    """What changes with the tensor, whether by an operation in place or by giving it other memory."""
    version = None if tensor.is_inference() else tensor._version
    return version, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.requires_grad


_NAMES = {
    "train_images": "the training images", "train_labels": "the training labels", "test_images": "the test images",
    "test_labels": "the test labels", "train_tasks": "the tasks of training samples",
    "test_tasks": "the tasks of test samples",
}  # fmt: skip


def _of_data(stream: Stream) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in vars(stream.data).items():
        if isinstance(tensor, Tensor):
            yield _NAMES.get(name, name), tensor


def _of_stream(stream: Stream) -> Iterator[tuple[str, Tensor]]:
    yield from _of_data(stream)
    own = {name: value for name, value in vars(stream).items() if name != "data"}
    yield from _below("the stream's ", own, set())


def _below(name: str, value: Any, known: set[int]) -> Iterator[tuple[str, Tensor]]:
    """Tensors in dictionaries, lists and the attributes of transforms."""
    if isinstance(value, Tensor):
        yield name, value
        return
    if id(value) in known:
        return
    known.add(id(value))
    if isinstance(value, list | tuple):
        parts = {f"[{i}]": part for i, part in enumerate(value)}
    elif isinstance(value, dict):
        parts = {str(key).lstrip("_"): part for key, part in value.items()}
    elif type(value).__module__.startswith("benchmarks.transforms"):
        parts = {f".{key}": part for key, part in vars(value).items()}
    else:
        return
    for key, part in parts.items():
        yield from _below(name + key, part, known)
