"""Live display of a run in a notebook: one output that is replaced as events arrive. Needs no widgets."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.table import Table

from runners.cell.events import Event
from runners.engines.scheduler import Outcome
from runners.grid.cells import Job
from runners.watch.live import Display

SECONDS_BETWEEN_REFRESHES = 0.5


def display(console: Console) -> Display:
    """Display that suits the console: a notebook's output, a terminal, or lines."""
    return NotebookDisplay(console) if console.is_jupyter else Display(console)


class NotebookDisplay(Display):
    """The view of a terminal as a notebook's output; rich's own way there needs ipywidgets."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.live = True  # no lines
        self._due = 0.0
        self._output: Any = None

    def __enter__(self) -> Display:
        show = importlib.import_module("IPython.display").display  # there, since a notebook runs this
        self._output = show(self._shown(), display_id=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over = kind is None
        self._output.update(self._shown())

    def planned(self, jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> None:
        super().planned(jobs, outcomes)
        self._output.update(self._shown())

    def heard(self, job: Job, event: Event) -> None:
        super().heard(job, event)
        if time.monotonic() >= self._due:
            self._output.update(self._shown())
            self._due = time.monotonic() + SECONDS_BETWEEN_REFRESHES

    def _shown(self) -> Table:
        """View as a renderable that notebooks know; a group is none."""
        table = Table.grid()
        table.add_row(self.render())
        return table

    def _end(self, verdict: str) -> None:
        """Nothing: the output has the counts and the latest failures."""
