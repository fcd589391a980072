"""Recognition of out-of-memory errors of the host or a device, from any library; status and reason of any error."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

import torch

from benchmarks.types import UserError
from runners.records.record import Status

_TEXTS = re.compile(
    r"out[ _]of[ _]memory"  # CUDA's runtime and driver, PyTorch's allocator, Triton's launcher
    r"|ALLOC(ATION)?_FAILED"  # cuBLAS, cuDNN, cuSOLVER, cuFFT
    r"|INSUFFICIENT_RESOURCES"  # cuSPARSE
    r"|cudaErrorMemoryAllocation"
    r"|CUDNN_STATUS_NOT_INITIALIZED"  # cuDNN's handle, which takes memory
    r"|NOT_INITIALIZED when calling `?cu\w*Create"  # the handles of cuBLAS and cuSOLVER; elsewhere it is a mistake
    r"|can'?(no)?t allocate memory|not enough memory"  # the host's allocator, mmap, fork
    r"|bad_alloc",
    re.IGNORECASE,
)
"""Of RuntimeErrors. Triton's OutOfResources is none of them: a kernel wants more shared memory than there is in any
multiprocessor, and would want it of an empty device too."""

CHARACTERS_AT_MOST = 4000
"""Of the message of an error: it travels to the driver and stands in the record."""


def diagnose(error: BaseException) -> tuple[Status, str]:
    """Status of a cell that an error ended, and the reason."""
    if (lacking := shortage(error)) is not None:
        return Status.OOM, lacking
    said = text(error) if isinstance(error, UserError) else f"{type(error).__name__}: {first_line(error)}"
    return Status.FAILED, said


def shortage(error: BaseException) -> str | None:
    """The out-of-memory line of an error, or of an error that it was raised from or after; else None."""
    for part in _chain(error):
        if isinstance(part, MemoryError | torch.OutOfMemoryError):
            return first_line(part)
        if isinstance(part, OSError) and part.errno == errno.ENOMEM:
            return first_line(part)
        if isinstance(part, RuntimeError) and (found := _TEXTS.search(text(part))):
            return next(line for line in text(part).splitlines() if found[0] in line).strip()
    return None


def text(error: BaseException) -> str:
    """Text of an error, also if it cannot be printed; an endless message is truncated."""
    try:
        found = str(error)
    except Exception as failure:
        found = f"its message cannot be printed ({type(failure).__name__})"
    return found if len(found) <= CHARACTERS_AT_MOST else f"{found[:CHARACTERS_AT_MOST]} ..."


def first_line(error: BaseException) -> str:
    """First line of an error's text."""
    return (text(error).strip().splitlines() or ["no message"])[0]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Chain of errors: the error, then its cause or else its context, and so on."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
