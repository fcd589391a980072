"""Live display of a run: a table in a terminal, one line per ended cell elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape

from reports.words import count
from runners.cell.events import Event, EventKind
from runners.engines.scheduler import Outcome
from runners.grid.cells import Job
from runners.plan.estimate import in_words
from runners.records.record import Status
from runners.watch.board import Board, Running
from runners.watch.screen import COLOURS, view

REFRESHES_PER_SECOND = 4
LINES_BESIDE_ROWS = 8


class Display:
    """A watcher of the run; use it in a `with` block."""

    def __init__(self, console: Console) -> None:
        self.console, self.live = console, console.is_terminal
        self.board = Board()
        self.started = self.over = False
        self.ended = 0
        self._screen = Live(console=console, refresh_per_second=REFRESHES_PER_SECOND, get_renderable=self.render)

    def __enter__(self) -> Display:
        if self.live:
            self._screen.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over = kind is None
        if self.live:
            self._screen.stop()

    def planned(self, jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> None:
        self.board.planned(jobs, outcomes)
        self.ended = len(outcomes)
        if not self.live:
            self._line(f"{count(self.board.total, 'cell')}: {self.board.cached} finished before, {len(jobs)} to run")
        for outcome in outcomes:
            if not outcome.cached:
                self._end(self._verdict(outcome.cell.title, outcome.status, outcome.reason))

    def heard(self, job: Job, event: Event) -> None:
        before = self.board.row(job)
        self.board.heard(job, event)
        self.started = True
        if event.kind is EventKind.NOTE:
            self._line(escape(f"{job.cell.title}: {event.reason}"))
        elif event.kind is EventKind.ENDED:
            self.ended += 1
            status = event.status or Status.FAILED
            self._end(self._verdict(job.cell.title, status, _outcome(before, status) or event.reason))

    def render(self) -> RenderableType:
        """Live part of the display. At the end only the counts remain, because the summary below lists the failures."""
        note = "" if self.started or not self.board.waiting else "starting workers"
        rows = max(3, self.console.size.height - LINES_BESIDE_ROWS)
        return view(self.board.snapshot(), note, rows=rows, failures=0 if self.over else 3)

    def _verdict(self, title: str, status: Status, reason: str | None) -> str:
        width = len(str(self.board.total))
        count = f"[{self.ended:>{width}}/{self.board.total}]"
        said = f"  {escape(reason)}" if reason else ""
        return f"{escape(count)} [{COLOURS[status]}]{status:<8}[/]  {escape(title)}{said}"

    def _end(self, verdict: str) -> None:
        """Report a cell that has ended."""
        self._line(verdict)

    def _line(self, markup: str) -> None:
        self.console.print(markup, soft_wrap=True, highlight=False)


def _outcome(row: Running | None, status: Status) -> str | None:
    """Accuracy and time of a cell that is done."""
    if status is not Status.DONE or row is None or row.accuracy is None:
        return None
    return f"accuracy {100 * row.accuracy:.1f} %, {in_words(row.seconds)}"
