"""Every way in which a lack of memory is told ends as `oom`, and nothing else does."""

from __future__ import annotations

import errno
import importlib.util

import numpy as np
import pytest
import torch

from benchmarks.types import UserError
from methods.shared.stepping import CaptureFailed
from runners.cell import execution
from runners.cell.execution import run_cell
from runners.process.shortage import shortage
from runners.records.folder import CellFolder
from runners.records.record import Status
from tests.runners.helpers import cells, job, silent

CUDA_NOTE = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call\nCompile with TORCH_USE_CUDA_DSA"
)
TOLD = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB"),
    RuntimeError("CUDA error: out of memory" + CUDA_NOTE),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasSgemm( handle, opa, opb, m, n, k)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasLtCreate(&handle)`"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    RuntimeError(
        "CUDA error: insufficient resources when calling `cusparseSpMM`: CUSPARSE_STATUS_INSUFFICIENT_RESOURCES"
    ),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"
    ),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory: you tried to allocate 9"),
    RuntimeError("unable to mmap 4096 bytes from file </data/x>: Cannot allocate memory (12)"),
    RuntimeError("std::bad_alloc"),
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
]
"""As PyTorch, the libraries of CUDA, Triton and the system put it."""
OTHERS = [
    RuntimeError("CUDA error: an illegal memory access was encountered" + CUDA_NOTE),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasSgemm( handle, opa, opb)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb)`"),
    RuntimeError("CUDA error: too many resources requested for launch"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
    ValueError("the rehearsal buffer is out of memory slots"),
    OSError(errno.ENOSPC, "No space left on device"),
    UserError("the benchmark is not defined"),
]


@pytest.mark.parametrize("error", TOLD, ids=str)
def test_a_lack_of_memory_is_recognised_also_behind_another_error(error):
    line = (str(error).splitlines() or ["no message"])[0]
    assert shortage(error) == line
    for make in (_raised_from, _raised_after):
        assert shortage(make(error)) == line


def test_what_torch_and_numpy_really_raise():
    for ask in (lambda: torch.empty(1 << 60, dtype=torch.uint8), lambda: np.empty(1 << 60, dtype=np.uint8)):
        with pytest.raises((RuntimeError, MemoryError)) as raised:
            ask()
        assert shortage(raised.value)


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_other_errors_are_no_lack_of_memory(error):
    assert shortage(error) is None and shortage(_raised_from(error)) is None


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_a_kernel_too_large_for_a_multiprocessor_is_none():
    from triton.runtime.errors import OutOfResources

    assert shortage(OutOfResources(300_000, 232_448, "shared memory")) is None


def test_a_lack_of_memory_that_was_dealt_with_is_forgotten():
    """`raise ... from None` says that what went before does not matter; and chains may be circles."""
    error = _raised_after(MemoryError())
    error.__suppress_context__ = True
    assert shortage(error) is None
    first, second = RuntimeError("one"), RuntimeError("two")
    first.__cause__, second.__cause__ = second, first
    assert shortage(first) is None


@pytest.mark.parametrize(
    "raised", [TOLD[1], UserError("the data cannot be read"), CaptureFailed("CUDA error: out of memory")], ids=type
)
def test_a_cell_that_lacks_memory_in_any_way_is_recorded_so(tmp_path, monkeypatch, raised):
    [cell] = cells("finetune")
    if raised is not TOLD[1]:
        raised.__cause__ = TOLD[1]

    def lacks(*_, **__):
        raise raised

    monkeypatch.setattr(execution, "open_stream", lacks)
    assert run_cell(job(cell, tmp_path), silent) is Status.OOM
    record = CellFolder(cell.folder(tmp_path)).read()
    assert record is not None and "CUDA error: out of memory" in str(record.reason) and record.traceback


def _raised_from(error: BaseException) -> BaseException:
    try:
        raise ValueError("wrapped") from error
    except ValueError as wrapped:
        return wrapped


def _raised_after(error: BaseException) -> BaseException:
    try:
        try:
            raise error
        except type(error):
            raise ValueError("in the clean-up")  # noqa: B904 - on purpose
    except ValueError as wrapped:
        return wrapped
