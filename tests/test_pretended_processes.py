"""Cells one after the other in a process that has not used its GPU yet, and what they leave there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.types import TIL
from runners.cell.events import Event, EventKind
from runners.engines.engine import InlineEngine
from runners.grid.cells import Cell, Conditions, Job
from runners.process import devices, known_state
from runners.records.record import Status
from tests.pretended import Device, pretended
from tests.pretended.cells import cell_of, install_benchmarks, job_of
from tests.runners.helpers import cells, foreign


@pytest.fixture
def unused(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    """A pretended CUDA device that nothing has used yet."""
    install_benchmarks(monkeypatch)
    with pretended() as found:
        yield found


def run(jobs: list[Job]) -> list[Event]:
    """Run the jobs in this process; the last event of each."""
    heard: dict[int, Event] = {}

    def hear(event: Event) -> None:
        assert event.kind is not EventKind.NOTE, event.reason
        heard[event.job] = event

    InlineEngine(1).run(jobs, hear)
    return [heard[index] for index in range(len(jobs))]


def seeds(tmp_path: Path) -> list[Job]:
    cell = cell_of("finetune", TIL)
    return [job_of(one, tmp_path) for one in (cell, Cell.from_json({**cell.to_json(), "seed": 1}))]


def test_the_start_of_a_gpu_is_no_change_that_a_cell_left_behind(unused: Device, tmp_path: Path):
    assert not torch.cuda.is_initialized()
    ends = run(seeds(tmp_path))
    assert torch.cuda.is_initialized() and [end.status for end in ends] == [Status.DONE] * 2
    assert known_state.taken().changed == ()


def test_a_cell_returns_the_memory_it_kept(unused: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    returned: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: returned.append("once"))
    run(seeds(tmp_path)[:1])
    assert returned == ["once"]


@pytest.mark.parametrize("answers", [True, False])
def test_no_other_cell_runs_on_a_gpu_that_refuses_everything(
    unused: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: bool
):
    """A failure in the method's own code leaves the device usable."""
    monkeypatch.setattr(devices, "answers", lambda _: answers)
    [bad] = cells(foreign("Raises"))
    first = Job(bad, bad.folder(tmp_path), Conditions(device="cuda:0"))
    ends = run([first, *seeds(tmp_path)])
    assert ends[0].kind is EventKind.ENDED and ends[0].status is Status.FAILED
    for end in ends[1:]:
        assert end.kind is (EventKind.ENDED if answers else EventKind.LOST)
        assert answers or "refuses everything in this process; --engine local" in str(end.reason)


def test_a_device_answers_until_it_is_in_an_error_state(monkeypatch: pytest.MonkeyPatch):
    assert devices.answers("cpu")

    def ones(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch, "ones", ones)
    assert not devices.answers("cuda:0")
