"""Terminal view of a run, shared by the live display and `--watch`."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from reports.words import count
from runners.plan.estimate import in_words
from runners.records.record import Status
from runners.watch.board import Failure, Running, Snapshot

COLOURS = {
    Status.DONE: "green",
    Status.SKIPPED: "cyan",
    Status.DIVERGED: "yellow",
    Status.FAILED: "red",
    Status.OOM: "red",
    Status.RUNNING: "blue",
}
BAR_WIDTH = 30
FAILURES_SHOWN, ROWS_SHOWN = 3, 24


def view(
    snapshot: Snapshot, note: str = "", rows: int = ROWS_SHOWN, failures: int = FAILURES_SHOWN, waiting: bool = False
) -> RenderableType:
    """Counts, a line for each running cell, the latest failures and, on request, the waiting cells.

    Waiting cells and failure folders appear only in the one-off view.
    """
    parts: list[RenderableType] = [_bar(snapshot), _counts(snapshot, note)]
    here = [row for row in snapshot.running if not row.elsewhere]
    if here:
        parts.append(_table(here[:rows]))
    if len(here) > rows:
        parts.append(Text(f"and {len(here) - rows} more under way", style="dim"))
    elsewhere = len(snapshot.running) - len(here)
    if elsewhere:
        parts.append(
            Text(f"{count(elsewhere, 'cell is', 'cells are')} running elsewhere, under another command", style="dim")
        )
    latest = snapshot.failures[-failures:] if failures else []
    parts += [_failure(failure, place=waiting) for failure in latest]
    hidden = _failed(snapshot) - len(latest) if failures else 0
    if hidden > 0:
        parts.append(Text(f"and {hidden} more without a result", style="red"))
    if waiting and snapshot.waiting:
        parts.append(_waiting(snapshot))
    return Group(*parts)


def _failure(failure: Failure, place: bool) -> Text:
    """Failure with its reason and, on request, the folder of its record and traceback."""
    where = f" ({failure.folder})" if place else ""
    overflow = "fold" if place else "ellipsis"
    text = f"{failure.status} {failure.title}: {failure.reason}{where}"
    return Text(text, style="red", overflow=overflow, no_wrap=not place)


def _bar(snapshot: Snapshot) -> RenderableType:
    share = sum(row.share for row in snapshot.running if not row.elsewhere)
    line = Table.grid(padding=(0, 1))
    line.add_row(
        ProgressBar(
            total=max(1, snapshot.total), completed=snapshot.ended + share, width=BAR_WIDTH, complete_style="cyan"
        ),
        Text(f"{snapshot.ended}/{count(snapshot.total, 'cell')}", style="bold"),
        _clocks(snapshot),
    )
    return line


def _clocks(snapshot: Snapshot) -> Text:
    text = Text(in_words(snapshot.seconds), style="dim")
    if snapshot.ended < snapshot.total and snapshot.seconds_left is not None:
        text.append(f", about {in_words(snapshot.seconds_left)} left")
    return text


def _counts(snapshot: Snapshot, note: str) -> Text:
    parts = [
        Text(f"{snapshot.counts[status]} {status}", style=COLOURS[status])
        for status in Status
        if snapshot.counts.get(status)
    ]
    if snapshot.finished_before:
        parts.append(Text(f"{snapshot.finished_before} of them finished before", style="dim"))
    waiting = sum(group.cells for group in snapshot.waiting)
    if waiting:
        parts.append(Text(f"{waiting} waiting"))
    if note:
        parts.append(Text(note, style="dim"))
    return Text("  ").join(parts)


def _table(running: list[Running]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), expand=False, header_style="dim")
    for heading in ("under way", "task", "", "loss", "accuracy", "since", "left"):
        left = heading in ("under way", "")
        # in a narrow terminal the names fold and the numbers stay whole
        table.add_column(heading, justify="left" if left else "right", no_wrap=heading != "under way")
    for row in running:
        table.add_row(
            row.title,
            f"{row.task}/{row.n_tasks}",
            ProgressBar(total=1.0, completed=row.share, width=10, complete_style="cyan"),
            "" if row.loss is None else f"{row.loss:.3g}",
            "" if row.accuracy is None else f"{100 * row.accuracy:.1f} %",
            in_words(row.seconds),
            "" if row.seconds_left is None else in_words(row.seconds_left),
        )
    return table


def _waiting(snapshot: Snapshot) -> Text:
    by_benchmark: dict[str, list[str]] = {}
    for group in snapshot.waiting:
        by_benchmark.setdefault(f"{group.benchmark} {group.scenario}", []).append(f"{group.method} {group.cells}")
    lines = [f"  {where}: {', '.join(methods)}" for where, methods in by_benchmark.items()]
    return Text("\n".join(["waiting:", *lines]), overflow="fold")


def _failed(snapshot: Snapshot) -> int:
    return sum(snapshot.counts.get(status, 0) for status in Status if not status.finished)
