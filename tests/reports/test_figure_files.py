"""Reports read and drawn in several processes: the same report, and no process that stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.types import UserError
from reports import figure_files
from reports.build import build_report
from tests.reports.synthetic import Synthetic

SCRIPT = """
import sys
import time
from pathlib import Path
from reports import figure_files
from reports.build import build_report

figure_files.Artist.draw = lambda *_: time.sleep(600)  # in the processes that draw too: they import this file

if __name__ == "__main__":
    figure_files.PARALLEL_FROM, figure_files._cores = 1, lambda: 2
    build_report(Path(sys.argv[1]))
"""


@pytest.fixture
def in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figure_files, "PARALLEL_FROM", 1)
    monkeypatch.setattr(figure_files, "_cores", lambda: 2)


def results(folder: Path) -> Path:
    for method in ("hyperinterval", "ewc"):
        Synthetic(method, certifies=method == "hyperinterval").write(folder)
    return folder


def test_a_report_by_several_processes_is_the_same(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    cells = results(tmp_path / "r")
    for method in ("a", "z"):  # the first and the last folder, which different processes read
        (Synthetic(method).write(cells) / "cell.json").write_text("{")
    one = build_report(cells, tmp_path / "one")
    request.getfixturevalue("in_processes")
    two = build_report(cells, tmp_path / "two")
    assert len(one.problems) == 2 and one.problems == two.problems
    files = [path.relative_to(one.folder) for path in sorted(one.folder.rglob("*")) if path.is_file()]
    assert files == [path.relative_to(two.folder) for path in sorted(two.folder.rglob("*")) if path.is_file()]
    for file in files:
        if file.suffix != ".pdf":  # which says when it was made
            assert (one.folder / file).read_bytes() == (two.folder / file).read_bytes(), file


def killed(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("step", ["_read_all", "_draw_all"])
def test_a_killed_process_of_a_report_is_told(tmp_path: Path, request: pytest.FixtureRequest, step: str) -> None:
    cells = results(tmp_path / "r")
    build_report(cells)
    before = (cells / "report" / "cells.csv").read_bytes()
    request.getfixturevalue("in_processes")
    request.getfixturevalue("monkeypatch").setattr(figure_files, step, killed)
    with pytest.raises(UserError, match="killed, possibly for lack of memory"):
        build_report(cells)
    assert (cells / "report" / "cells.csv").read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_report_leaves_no_process(tmp_path: Path) -> None:
    results(tmp_path / "r")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, str(script), str(tmp_path / "r")]
    report = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": root}, start_new_session=True)
    drawing = 5  # the report, its studio, the two that draw, and a tracker of multiprocessing's own
    _until(lambda: len(_group(report.pid)) >= drawing or report.poll() is not None)
    assert report.poll() is None, "ended before it was killed"
    report.send_signal(signal.SIGKILL)
    report.wait()
    _until(lambda: not _group(report.pid))


def _until(reached: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


def _group(leader: int) -> list[int]:
    """Living processes of a process group."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _, group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(group) == leader and state != "Z":
            found.append(int(entry.name))
    return found
