"""Threads that share one call of machine code, which releases Python's lock."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


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


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="machine-code")
