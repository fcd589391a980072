"""Watch for forbidden accesses of a method: global random state, settings of torch, data files, streams."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import data
from benchmarks.files import FILES
from benchmarks.stream import Stream

_DATA_FILES = {"digits.csv.gz"} | {Path(file.path).name for files in FILES.values() for file in files}
_opened: list[str] | None = None
_hooked = False


@dataclass
class Watch:
    """Observations; sentences without a full stop."""

    randomness: list[str] = field(default_factory=list)
    test_data: list[str] = field(default_factory=list)


@contextmanager
def watched(watch: Watch | None = None) -> Iterator[Watch]:
    """Context that watches its body: only torch's generator is permitted as a global source of randomness."""
    watch = Watch() if watch is None else watch
    before = _globals()
    with _guarded(watch):
        yield watch
    watch.randomness += [
        f"{what} is changed by it" for (what, old), new in zip(before.items(), _globals().values(), strict=True)
        if old != new
    ]  # fmt: skip


def _globals() -> dict[str, Any]:
    return {
        "the state of Python's global random generator": random.getstate(),
        "the state of NumPy's global random generator": np.random.get_state()[1].tolist(),  # type: ignore[index]
        "torch's default dtype": torch.get_default_dtype(),
        "torch's default device": torch.get_default_device(),
        "whether torch records gradients": torch.is_grad_enabled(),
        "torch's number of threads": torch.get_num_threads(),
        "torch's choice of deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
    }


@contextmanager
def _guarded(watch: Watch) -> Iterator[None]:
    """Note streams that are asked for test samples, data sets that are loaded and data files that are opened."""
    global _opened, _hooked
    if not _hooked:
        sys.addaudithook(_note)  # cannot be removed; does nothing while `_opened` is None
        _hooked = True
    test, load, _opened = Stream.test, data._load, []

    def noted_test(self: Stream, j: int) -> Any:
        watch.test_data.append(f"it asks a stream for the test samples of task {j}")
        return test(self, j)

    def noted_load(*arguments: Any) -> Any:
        watch.test_data.append(f"it loads the data set {arguments[0]}, test samples included")
        return load(*arguments)

    Stream.test, data._load = noted_test, noted_load  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Stream.test, data._load = test, load  # type: ignore[method-assign]
        watch.test_data += [f"it opens the data file {name}" for name in dict.fromkeys(_opened)]
        _opened = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open" and isinstance(arguments[0], str | bytes):
        name = Path(os.fsdecode(arguments[0])).name
        if name in _DATA_FILES:
            _opened.append(name)
