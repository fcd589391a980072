"""Threads that share one call of machine code, which releases Python's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from torch import Tensor


def parts(items: int, least: int) -> int:
    """Number of parts of so many items, one per thread of torch; for fewer than `least`, a thread costs too much."""
    return max(1, min(torch.get_num_threads(), items // least))


def in_parallel(run: Callable[[int, int, int], None], items: int, n: int) -> None:
    """Call run(part, first item, last item) for n parts, one in this thread; waits for all."""
    edges = [items * part // n for part in range(n + 1)]
    pool = _pool(os.getpid(), n - 1) if n > 1 else None
    others = [pool.submit(run, part, edges[part], edges[part + 1]) for part in range(1, n)] if pool else []
    run(0, 0, edges[1])
    for other in others:
        other.result()


def elementwise(function: Callable[..., None], arrays: Sequence[Tensor], scalars: Sequence[Any], least: int) -> None:
    """Call function(count, *addresses, *scalars) over contiguous tensors of one size, shared by threads."""
    items, size = arrays[0].numel(), arrays[0].element_size()
    addresses = [tensor.data_ptr() for tensor in arrays]

    def run(_: int, first: int, last: int) -> None:
        function(last - first, *(address + first * size for address in addresses), *scalars)

    in_parallel(run, items, parts(items, least))


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="machine-code")
