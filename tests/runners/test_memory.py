"""Peak memory is counted for each cell, though a process keeps freed memory for the next step."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import torch
from runners.process import cpu
from runners.process.memory import MemoryPeak, peak_rss
from runners.records.record import Measurements

if not cpu.keep_freed_memory():
    raise SystemExit("no mallopt here")
block = bytearray(b"x") * (200 << 20)
del block
before = peak_rss()
print(before - MemoryPeak(torch.device("cpu")).peaks(Measurements.empty(1))[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux sets a peak back")
def test_a_cell_is_not_charged_for_what_an_earlier_one_left_behind():
    """In a process of its own, since the setting of the C library lasts as long as the process."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    if "no mallopt" in done.stderr:
        pytest.skip("the C library has no mallopt")
    assert int(done.stdout) > 190 << 20, done.stderr
