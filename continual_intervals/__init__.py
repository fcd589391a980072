"""The suite from Python and notebooks: cells, comparisons, tables and figures; see docs/from-python.md."""

# ruff: noqa: E402 - the packages of this project come first, whatever lies next to the user's script
from continual_intervals import rooms

rooms.claim()

from benchmarks.types import UserError
from continual_intervals import plot
from continual_intervals.frames import Frames, load
from continual_intervals.running import compare, run
from runners.loggers.logger import Axis, Logger, Run

__all__ = ["Axis", "Frames", "Logger", "Run", "UserError", "compare", "load", "plot", "run"]
