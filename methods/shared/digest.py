"""Digest of tensors, with which an audit finds that numbers are no longer those recorded."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from torch import Tensor

from methods.shared.archive import as_bytes


def digest(tensors: Iterable[Tensor]) -> str:
    """SHA-256 of shapes, types and bits of tensors of any device, as hexadecimal digits."""
    found = sha256()
    for tensor in tensors:
        kept = tensor.detach().cpu().contiguous()
        found.update(f"{kept.dtype} {tuple(kept.shape)};".encode())
        found.update(as_bytes(kept))
    return found.hexdigest()
