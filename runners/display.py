"""What a run shows: a live table in a terminal, one line per ended cell elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from runners.cells import Job
from runners.driver import Outcome
from runners.estimate import in_words
from runners.events import Event, Kind
from runners.records import Status

COLOURS = {
    Status.DONE: "green",
    Status.SKIPPED: "cyan",
    Status.DIVERGED: "yellow",
    Status.FAILED: "red",
    Status.OOM: "red",
    Status.RUNNING: "blue",
}
REFRESHES_PER_SECOND = 4


@dataclass
class _Row:
    """A cell in progress."""

    job: Job
    begun: float
    first_task: int = 0
    task: int = 0
    share: float = 0.0
    """Of the task under way."""
    loss: float | None = None
    accuracy: float | None = None
    elsewhere: bool = False

    def done(self) -> float:
        return (self.task + self.share) / max(1, self.job.cell.n_tasks)

    def seconds_left(self, now: float) -> float | None:
        here = self.done() - self.first_task / max(1, self.job.cell.n_tasks)
        return (now - self.begun) * (1 - self.done()) / here if here > 0.02 else None


class Display:
    """A watcher of the run; use it in a `with` block."""

    def __init__(self, console: Console) -> None:
        self.console, self.live = console, console.is_terminal
        self.rows: dict[str, _Row] = {}
        self.counts: Counter[Status] = Counter()
        self.total = self.cached = self.ended = self.elsewhere = 0
        self.started = False
        self.begun = time.monotonic()
        self._screen = Live(console=console, refresh_per_second=REFRESHES_PER_SECOND, get_renderable=self.render)

    def __enter__(self) -> Display:
        if self.live:
            self._screen.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.rows = {} if kind is None else self.rows
            self._screen.stop()

    # -- watching --------------------------------------------------------------------------------

    def planned(self, jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> None:
        self.begun = time.monotonic()
        self.counts.update(outcome.status for outcome in outcomes)
        self.total, self.cached = len(jobs) + len(outcomes), sum(outcome.cached for outcome in outcomes)
        self.ended = len(outcomes)
        if not self.live:
            self._line(f"{self.total} cells: {self.cached} finished before, {len(jobs)} to run")
        for outcome in outcomes:
            if not outcome.cached:
                self._line(self._verdict(outcome.cell.title, outcome.status, outcome.reason))

    def heard(self, job: Job, event: Event) -> None:
        key, now = job.cell.key, time.monotonic()
        self.started = True
        if event.kind is Kind.NOTE:
            self._line(escape(f"{job.cell.title}: {event.reason}"))
        elif event.kind is Kind.ELSEWHERE:
            self.rows[key] = _Row(job, now, elsewhere=True)
        elif event.kind is Kind.ENDED:
            self._end(job, event, now)
        else:
            row = self.rows.get(key)
            if row is None or row.elsewhere:
                row = self.rows[key] = _Row(job, now)
            self._update(row, event)

    def _update(self, row: _Row, event: Event) -> None:
        if event.kind is Kind.STARTED:
            row.task = row.first_task = event.task or 0
        elif event.kind is Kind.PROGRESS:
            row.task, row.loss = event.task or 0, event.loss
            row.share = (event.step or 0) / max(1, event.steps or 1)
        elif event.kind is Kind.TASK_DONE:
            row.task, row.share, row.accuracy = (event.task or 0) + 1, 0.0, event.accuracy

    def _end(self, job: Job, event: Event, now: float) -> None:
        row = self.rows.pop(job.cell.key, None)
        status = event.status or Status.FAILED
        self.counts[status] += 1
        self.ended += 1
        reason = event.reason
        if status is Status.DONE and row is not None and row.accuracy is not None:
            reason = f"accuracy {100 * row.accuracy:.1f} %, {in_words(now - row.begun)}"
        self._line(self._verdict(job.cell.title, status, reason))

    # -- showing ---------------------------------------------------------------------------------

    def render(self) -> RenderableType:
        """The live part: counts, then a row per cell in progress."""
        now = time.monotonic()
        table = Table(box=None, padding=(0, 1), expand=False)
        for heading in ("cell", "task", "", "loss", "accuracy", "left"):
            table.add_column(heading, justify="left" if heading in ("cell", "") else "right", no_wrap=True)
        for row in list(self.rows.values()):
            table.add_row(*self._cells(row, now))
        return Group(self._counts(now), table) if self.rows else self._counts(now)

    def _cells(self, row: _Row, now: float) -> list[RenderableType]:
        cell = row.job.cell
        if row.elsewhere:
            return [cell.title, "", "running elsewhere", "", "", ""]
        left = row.seconds_left(now)
        return [
            cell.title,
            f"{min(row.task + 1, cell.n_tasks)}/{cell.n_tasks}",
            ProgressBar(total=1.0, completed=row.done(), width=20),
            "" if row.loss is None else f"{row.loss:.3g}",
            "" if row.accuracy is None else f"{100 * row.accuracy:.1f} %",
            "" if left is None else in_words(left),
        ]

    def _counts(self, now: float) -> Text:
        text = Text(f"{self.ended}/{self.total} cells")
        if self.cached:
            text.append(f" ({self.cached} finished before)")
        for status in Status:
            if self.counts[status]:
                text.append(f"  {status} {self.counts[status]}", style=COLOURS[status])
        text.append(f"  {in_words(now - self.begun)}", style="dim")
        if not self.rows and self.ended < self.total and not self.started:
            text.append("  starting workers", style="dim")
        here = self.ended - self.cached
        if here > 0 and self.ended < self.total:
            left = (now - self.begun) / here * (self.total - self.ended)
            text.append(f", about {in_words(left)} left", style="dim")
        return text

    def _verdict(self, title: str, status: Status, reason: str | None) -> str:
        width = len(str(self.total))
        count = f"[{self.ended:>{width}}/{self.total}]"
        said = f"  {escape(reason)}" if reason else ""
        return f"{escape(count)} [{COLOURS[status]}]{status:<8}[/]  {escape(title)}{said}"

    def _line(self, markup: str) -> None:
        self.console.print(markup, soft_wrap=True, highlight=False)
