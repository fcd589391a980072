"""Figures drawn in processes of their own: the same figures, and no process that stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reports import figure_files
from reports.build import build_report
from tests.reports.synthetic import Synthetic

SCRIPT = """
import sys
from pathlib import Path
from reports import figure_files
from reports.build import build_report

if __name__ == "__main__":
    figure_files.PARALLEL_FROM, figure_files._cores = 1, lambda: 2
    build_report(Path(sys.argv[1]))
"""


def test_figures_are_the_same_drawn_in_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for method in ("hyperinterval", "ewc"):
        Synthetic(method, certifies=method == "hyperinterval").write(tmp_path / "r")
    one = build_report(tmp_path / "r", tmp_path / "one")
    monkeypatch.setattr(figure_files, "PARALLEL_FROM", 1)
    monkeypatch.setattr(figure_files, "_cores", lambda: 2)
    two = build_report(tmp_path / "r", tmp_path / "two")
    assert [path.name for path in one.figures] == [path.name for path in two.figures]
    for left, right in zip(one.figures, two.figures, strict=True):
        assert left.suffix == ".pdf" or left.read_bytes() == right.read_bytes(), left.name


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_report_leaves_no_process(tmp_path: Path) -> None:
    for method in ("hyperinterval", "ewc"):
        Synthetic(method, certifies=method == "hyperinterval").write(tmp_path / "r")
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


def _until(reached: Callable[[], bool], seconds: float = 60) -> None:
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
