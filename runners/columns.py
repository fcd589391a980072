"""Tables for a terminal of any width: no text is cut; columns that do not fit are stacked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

GAP = 2
PROSE_AT_LEAST = 24
"""Minimum width of a column of sentences, in characters. Such columns may wrap; others are shown whole."""


@dataclass(frozen=True)
class Columns:
    """A table of rows under headings; `prose` names the columns of sentences."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    prose: frozenset[str] = frozenset()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.title, style="bold")
        yield (
            self._table() if self._narrowest() <= options.max_width else Text("\n").join(map(self._stacked, self.rows))
        )

    def _narrowest(self) -> int:
        """Width of the table with its columns of sentences at their minimum."""
        longest = [max(map(cell_len, column)) for column in zip(self.headings, *self.rows, strict=True)]
        named = zip(self.headings, longest, strict=True)
        return sum((min(n, PROSE_AT_LEAST) if name in self.prose else n) + GAP for name, n in named)

    def _table(self) -> RenderableType:
        table = Table(box=None, padding=(0, GAP, 0, 0))
        for heading in self.headings:
            table.add_column(Text(heading), no_wrap=heading not in self.prose, header_style="dim", overflow="fold")
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table

    def _stacked(self, row: tuple[str, ...]) -> Text:
        first, *rest = row
        text = Text(first, style="bold", overflow="fold")
        for heading, value in zip(self.headings[1:], rest, strict=True):
            if value:
                text.append(f"\n{heading}: ", style="not bold dim").append(value, style="not bold")
        return text.append("\n")
