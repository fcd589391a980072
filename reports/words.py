"""Lists, counts and percentages as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def join(words: Sequence[str]) -> str:
    """Join words: `a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def either(numbers: Iterable[int]) -> str:
    """Join different numbers, the smallest first: `24`, `24 or 72`."""
    words = list(map(str, sorted(set(numbers))))
    return " or ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def count(number: int, word: str, many: str | None = None) -> str:
    """Number with its noun: `1 seed`, `3 seeds`."""
    return f"{number} {word}" if number == 1 else f"{number} {many or word + 's'}"


def percent(value: float, signed: bool = False, digits: int = 1) -> str:
    """Format a fraction in percent with a true minus sign and no minus zero."""
    shown = f"{100 * value:{'+' if signed else ''}.{digits}f}"
    if not shown.strip("+-0."):
        shown = f"{0:.{digits}f}"
    return shown.replace("-", "−")


def as_on(benchmark: str) -> str:
    """Beginning of the source of values that a suite takes from another benchmark (`values_of`)."""
    return f"as on {benchmark}: "
