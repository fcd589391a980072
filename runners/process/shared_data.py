"""Detection of changes to the tensors that a method may only read.

A data set is loaded once per process, and tasks of permuted and rotated benchmarks share its images. A method that
standardises them in place changes the images of all other methods, whose numbers would be silently wrong.
The images of other tasks are copies: changing them harms no other method, but this one is then trained on other images
than it is tested on, or judges itself by other validation images.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from benchmarks import data, plugins
from benchmarks.stream import Stream
from benchmarks.types import Task, UserError

_WORDS = 1 << 20
"""Words of eight bytes that are summed at a time."""
_ODD = -7046029254386353131
"""The golden ratio times 2 ** 64, as an odd number; it spreads the factors of neighbouring words."""


class Change(NamedTuple):
    """A tensor that was changed."""

    name: str
    shared: bool
    """True if other tasks or methods also use it."""


class ChangedData(UserError):
    """A method has changed a tensor that it may only read."""


_sums: Any = WeakTensorKeyDictionary()
"""Checksums of tensors as they were loaded, as long as those live, so that a cell need not recompute them."""


class Watch:
    """Watch on a stream's tensors: its data set's, its row numbers and labels, and the constants of its transforms.

    The current task's images and labels, named by `lend`, are watched until the next `compare`.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.seen: dict[str, tuple[Tensor, object]] = {}
        self.sums: dict[str, tuple[Tensor, int]] = {}
        self.lent: dict[str, tuple[Tensor, object, int]] = {}
        """The current task's own tensors, which no other task or method has, with their states and checksums."""
        for name, tensor in _of_data(stream):
            if tensor not in _sums:
                _sums[tensor] = checksum(tensor)
            self.sums[name] = (tensor, _sums[tensor])
        self.look()

    def lend(self, task: Task) -> None:
        """Watch the task's own tensors, too, instead of those of the one before."""
        self.look()
        shared = {id(tensor) for tensor, _ in self.seen.values()}
        self.lent = {
            name: (tensor, _state(tensor), checksum(tensor))
            for name, tensor in _of_task(task)
            if id(tensor) not in shared
        }

    def look(self) -> Change | None:
        """A changed tensor, found by its version counter, or None. Does not synchronise.

        Tensors that the stream made since the last look are watched from now on.
        """
        shared = [name for name, (tensor, state) in self.seen.items() if _state(tensor) != state]
        own = [name for name, (tensor, state, _) in self.lent.items() if _state(tensor) != state]
        for name, tensor in _of_stream(self.stream):
            if name not in self.seen:
                self.seen[name] = (tensor, _state(tensor))
        return next((Change(name, name in shared) for name in shared + own), None)

    def compare(self) -> Change | None:
        """Like `look`, but also by content, which finds changes through NumPy or `.data`. Releases the lent tensors."""
        lent = {name: (tensor, found) for name, (tensor, _, found) in self.lent.items()}
        try:
            return self.look() or _different(self.sums, True) or _different(lent, False)
        except RuntimeError:  # the GPU is full or in an error state; the process that has it ends with the cell
            return None
        finally:
            self.lent = {}


def _different(sums: dict[str, tuple[Tensor, int]], shared: bool) -> Change | None:
    return next((Change(name, shared) for name, (tensor, found) in sums.items() if checksum(tensor) != found), None)


def renew(stream: Stream) -> bool:
    """Make the next cell reload its data; return whether that helps. A package's function may give the same tensors."""
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
    """State that changes with any in-place operation on the tensor and when it gets other memory."""
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


def _of_task(task: Task) -> Iterator[tuple[str, Tensor]]:
    for each in (task, *task.previous):
        of = "" if each is task else f" of task {each.index}"
        for part, samples in (("training", each.train), ("validation", each.validation)):
            yield f"the {part} images{of}", samples.pixels
            yield f"the {part} labels{of}", samples.labels
            yield f"the {part} row numbers{of}", samples.rows


def _below(name: str, value: Any, known: set[int]) -> Iterator[tuple[str, Tensor]]:
    """Tensors in dictionaries, lists and the attributes of transforms."""
    if isinstance(value, Tensor):
        yield name, value
        return
    if id(value) in known:
        return
    known.add(id(value))
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        parts = {f".{key}": part for key, part in zip(value._fields, value, strict=True)}  # type: ignore[attr-defined]
    elif isinstance(value, list | tuple):
        parts = {f"[{i}]": part for i, part in enumerate(value)}
    elif isinstance(value, dict):
        parts = {key.lstrip("_") if isinstance(key, str) else f"[{key}]": part for key, part in value.items()}
    elif type(value).__module__.startswith("benchmarks.transforms"):
        parts = {f".{key}": part for key, part in vars(value).items()}
    else:
        return
    for key, part in parts.items():
        yield from _below(name + key, part, known)
