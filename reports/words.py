"""Lists and counts in words."""

from __future__ import annotations

from collections.abc import Sequence


def join(words: Sequence[str]) -> str:
    """Join words: `a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def count(number: int, word: str, many: str | None = None) -> str:
    """Number with its noun: `1 seed`, `3 seeds`."""
    return f"{number} {word}" if number == 1 else f"{number} {many or word + 's'}"
