"""Output of `runners/speed.py`: rows of a table, and the machines they were measured on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table

from methods.registry import AVALANCHE_PREFIX
from runners.timing.measure import Result
from runners.timing.rounds import Order

SHOWN = (
    "benchmark", "scenario", "method", "task", "phase", "ms_per_step", "ms_one_by_one", "cpu_ms_per_step", "growth",
    "floor_ms", "over_floor", "over_plain_loop", "over_same_by_hand", "peak_MiB", "peak_over_weights", "steps",
    "output_layer", "seconds_per_epoch", "ours_faster",
)  # fmt: skip
"""Columns printed where any row has a value that is none of HIDDEN; the CSV has them all."""
HIDDEN = (None, "step by step")


def machines(results: Iterable[Result]) -> str:
    """The device, torch's version and the bandwidth of a copy, a line for each device that was measured on."""
    lines: dict[tuple[str, str, int, bool], list[float]] = {}
    for result in results:
        at, order = result.conditions, result.order
        place = (at["device_name"], at["torch"], order.threads, order.random_images)
        lines.setdefault(place, []).append(result.bandwidth / 1e9)
    return "\n".join(
        f"{name}, torch {torch}, {threads} thread{'s' * (threads != 1)} of the host; "
        f"a copy moves {_between(rates)} GB/s, read and written" + "; random images" * made_up
        for (name, torch, threads, made_up), rates in lines.items()
    )


def _between(rates: Sequence[float]) -> str:
    low, high = (f"{rate:.4g}" for rate in (min(rates), max(rates)))
    return low if low == high else f"{low} to {high}"


def table(found: Sequence[dict[str, Any]]) -> Table:
    """Table of the rows, without uninformative columns."""
    shown = [name for name in SHOWN if any(row[name] not in HIDDEN for row in found)]
    made = Table()
    for name in shown:
        made.add_column(name.replace("_", " "), no_wrap=name == "method")  # in a heading words may go below each other
    for row in found:
        made.add_row(*("" if row[name] is None else str(row[name]) for name in shown))
    return made


def compare(found: Sequence[dict[str, Any]]) -> None:
    """Add `ours_faster` to the rows of other programs: their time divided by that of our method of the same name.

    Three significant digits, because a ratio rounded to 0.0 would be useless.
    """
    ours = {_place(row, row["method"]): row["ms_per_step"] for row in found}
    for row in found:
        name = row["method"].partition(" (")[0].removeprefix(AVALANCHE_PREFIX).lower()
        step = ours.get(_place(row, name)) if name != row["method"] else None
        row["ours_faster"] = float(f"{row['ms_per_step'] / step:.3g}") if step else None


def _place(row: dict[str, Any], method: str) -> tuple[Any, ...]:
    return row["benchmark"], row["scenario"], method, row["task"], row["phase"]


def called(order: Order) -> str:
    """Name of the method, with the variant that was timed instead of ours."""
    return order.method + (" (official)" if order.official else " (PIL)" if order.pictures else "")


def title(order: Order) -> str:
    """Heading of a timing: method, benchmark and scenario."""
    return f"{called(order)} on {order.benchmark}, {order.scenario}"


def rows(result: Result) -> list[dict[str, Any]]:
    """Rows of the table and the CSV, one per timing."""
    order, at = result.order, result.conditions
    first = {timing.phase: timing.seconds for timing in result.timings if timing.task == 0}
    weights = 4 * result.output_weights
    return [
        {
            "benchmark": order.benchmark, "scenario": str(order.scenario),
            "method": called(order),
            "task": timing.task, "phase": timing.phase, "ms_per_step": round(1000 * timing.seconds, 3),
            "ms_one_by_one": round(1000 * timing.one_by_one, 3) if timing.one_by_one else None,
            "steps": timing.stepped or None, "output_layer": timing.output_layer,
            "cpu_ms_per_step": round(1000 * timing.cpu_seconds, 3), "steps_per_s": round(1 / timing.seconds, 1),
            "growth": round(timing.seconds / first[timing.phase], 2) if timing.phase in first else None,
            "over_floor": round(timing.seconds / floor, 2) if (floor := result.floor[timing.task]) else None,
            "over_plain_loop": round(timing.seconds / result.plain, 2),
            "over_same_by_hand": round(timing.seconds / same, 2) if (same := result.by_hand[timing.task]) else None,
            "floor_ms": round(1000 * floor, 3) if floor else None,
            "plain_ms": round(1000 * result.plain, 3), "copy_GB_per_s": round(result.bandwidth / 1e9, 2),
            "output_weights": result.output_weights, "peak_MiB": round(result.peak_bytes / 2**20, 1),
            "peak_over_weights": round(result.peak_bytes / weights, 2) if weights else None,
            "device": at["device_name"], "threads": order.threads, "torch": at["torch"], "python": at["python"],
            "seconds_per_epoch": round(timing.seconds * timing.steps, 3) if timing.phase == "epoch" else None,
            "commit": at["commit"] and at["commit"][:12] + ("+" if at["dirty"] else ""),
        }
        for timing in result.timings
    ]  # fmt: skip
