"""Packing of cells on GPUs: as many as fit, by the measured memory of similar cells."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import untrusted
from reports.schema import CELL_FOLDERS, RECORD
from runners.grid.cells import Cell

MARGIN = 1.2
"""The allocator keeps more than tensors take."""
CUDA_CONTEXT = 600 << 20
"""Bytes that a process takes on a GPU before its first tensor, about."""
USABLE = 0.95

_MemoryGroup = str


class Packer:
    """Packer that counts the memory in use on each device.

    Cells that differ in the seed alone are of one kind and take the same memory. A kind that was never
    measured runs alone on its device, and so does a cell that ran out of memory next to others.
    """

    def __init__(self, capacities: dict[str, int], workers: Sequence[str], overhead: int = CUDA_CONTEXT) -> None:
        """Packer of cells on the devices of `workers`, one name for each worker.

        capacities: free bytes of each device before the workers start. overhead: bytes that a process takes in addition
        to its tensors, also between its cells.
        """
        processes = Counter(workers)
        self.capacities = {device: free - overhead * processes[device] for device, free in capacities.items()}
        self.peaks: dict[_MemoryGroup, int] = {}
        self.running: dict[str, dict[int, int | None]] = defaultdict(dict)
        self.shared: set[int] = set()
        self.alone: set[int] = set()

    def note(self, cell: Cell, peak: int | None) -> None:
        """Remember the peak, bytes, that a cell was measured to take."""
        if peak:
            kind = _kind(_decisive(cell.to_json()))
            self.peaks[kind] = max(peak, self.peaks.get(kind, 0))

    def note_records(self, results: Path) -> None:
        """Remember the peaks in the records of earlier runs."""
        for body in _records(results):
            peak = (body.get("memory_bytes") or {}).get("peak_device")
            if peak and body.get("status") == "done":
                kind = _kind(_decisive(body))
                self.peaks[kind] = max(peak, self.peaks.get(kind, 0))

    def expected(self, index: int, cell: Cell) -> int | None:
        """Bytes that the cell will take, None where it must run alone."""
        peak = self.peaks.get(_kind(_decisive(cell.to_json())))
        return None if peak is None or index in self.alone else round(MARGIN * peak)

    def fits(self, device: str, index: int, cell: Cell) -> bool:
        here = self.running[device]
        if not here:
            return True
        taken = [size for size in here.values() if size is not None]
        size = self.expected(index, cell)
        # A cell of unknown size, new or already here, must have the device to itself.
        if size is None or len(taken) < len(here):
            return False
        return sum(taken) + size <= USABLE * self.capacities[device]

    def take(self, device: str, index: int, cell: Cell) -> None:
        here = self.running[device]
        here[index] = self.expected(index, cell)
        if len(here) > 1:
            # The cells that were here before share the device from now on, too.
            self.shared.update(here)

    def release(self, device: str, index: int) -> bool:
        """Release the cell; return whether it shared its device at any time."""
        self.running[device].pop(index, None)
        shared = index in self.shared
        self.shared.discard(index)
        return shared


def _decisive(body: dict[str, Any]) -> list[Any]:
    """Fields of a cell, or of a record as JSON, that decide how much memory it takes."""
    names = ("method", "benchmark", "scenario", "network", "config", "budget")
    return [body.get(name) for name in names]


def _kind(decisive: list[Any]) -> _MemoryGroup:
    return json.dumps(decisive, sort_keys=True)


def _records(results: Path) -> Iterator[dict[str, Any]]:
    for file in results.glob(f"{CELL_FOLDERS}/{RECORD}"):
        try:
            body = untrusted.read_record(file)
        except (OSError, ValueError, KeyError):
            continue
        yield body
