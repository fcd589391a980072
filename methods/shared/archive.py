"""Tensors in a temporary file, for what only an audit reads: they take memory only while they are read."""

from __future__ import annotations

import logging
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

log = logging.getLogger(__name__)


class Altered(Exception):
    """Archived tensor that is not the one that was added, or cannot be read."""


class _Entry(NamedTuple):
    shape: torch.Size
    dtype: torch.dtype
    digest: bytes
    """SHA-256 of the bytes."""
    place: int | Tensor
    """Offset in the file; the tensor itself where no file could be written."""


class Archive:
    """Sequence of tensors that can be added and read, not changed.

    Every read gives a new tensor on the CPU, and compares its digest with that of the tensor that was added. The file
    lies in the folder for temporary files (TMPDIR) and has no name there, so that nothing is left of it when the
    process ends, in whatever way. A tensor that cannot be written stays in memory. A checkpoint does not find the
    tensors: the owner gives them to `state_dict`.
    """

    stateless = True

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        self._entries: list[_Entry] = []
        self._file: IO[bytes] | None = None
        self._end = 0
        for tensor in tensors:
            self.append(tensor)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Tensor]:
        return map(self._read, self._entries)

    def append(self, tensor: Tensor) -> None:
        """Add a copy of a tensor of any device."""
        tensor = tensor.detach().cpu().contiguous()
        data = as_bytes(tensor)
        digest = sha256(data).digest()
        try:
            place: int | Tensor = self._write(data)
        except OSError as error:
            log.warning("an archived tensor stays in memory: %s", error)
            place = tensor.clone()
        self._entries.append(_Entry(tensor.shape, tensor.dtype, digest, place))

    def _write(self, data: memoryview) -> int:
        if self._file is None:
            # Unbuffered: a buffer would try again to write what did not fit, when it is closed.
            self._file = tempfile.TemporaryFile(buffering=0, prefix="continual-intervals-")  # noqa: SIM115 - finalize
            weakref.finalize(self, self._file.close)
        self._file.seek(self._end)
        rest = data
        while rest:
            rest = rest[self._file.write(rest) :]
        begin, self._end = self._end, self._end + len(data)
        return begin

    def _read(self, entry: _Entry) -> Tensor:
        if isinstance(entry.place, Tensor):
            tensor = entry.place.clone()
            data = as_bytes(tensor)
        else:
            tensor = torch.empty(entry.shape, dtype=entry.dtype)
            file: Any = self._file
            file.seek(entry.place)
            data = rest = as_bytes(tensor)
            while rest and (n := file.readinto(rest)):
                rest = rest[n:]
        if sha256(data).digest() != entry.digest:
            raise Altered("an archived tensor is not the one that was added")
        return tensor


def as_bytes(tensor: Tensor) -> memoryview:
    """Memory of a contiguous tensor on the CPU."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data
