"""Tuning effort: trials, streams and length that every method of a benchmark got, and what they gave.

The source is the provenance that `runners/tune.py` writes with the chosen values: RESULTS/tuning/SUITE.toml, and the
files of this repository's suites, benchmarks/suites/tuned/SUITE.toml. It belongs to a record that has the values.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from benchmarks import paths
from reports.distinct_names import pretty
from reports.names import display
from reports.record import Record
from reports.study import Study
from reports.tables import MISSING, Cell, Table, method_cell
from reports.words import as_on, count, join

TUNED = "tuning"
"""Folder below a results folder with the files of chosen values."""


@dataclass(frozen=True)
class Part:
    """Search whose trials had the same streams and length; a later one may have refined it."""

    trials: int
    streams: int
    length: float | None
    """Training length of a trial, as a share of the budget; None if not recorded."""


@dataclass(frozen=True)
class Effort:
    """Search for the values of a method on a benchmark in a scenario; accuracies on validation data, fractions."""

    method: str
    """Label of the row."""
    benchmark: str
    scenario: str
    network: str
    """Empty if not recorded."""
    values: Mapping[str, Any]
    """The chosen values."""
    parts: tuple[Part, ...]
    """The search, and those that refined it with other streams or another length."""
    refined: bool
    """True if a search refined an earlier one."""
    best: float
    """In the last search."""
    own: float | None
    """Accuracy with the values that the suite had before the first search; None if they could not be trained."""
    sensitivity: float | None
    """Best accuracy less the median of the trials that ran to their end, the largest of all searches; None if not
    recorded."""
    budget: Mapping[str, Any]
    """Fields of the budget that a length is a share of; empty if not recorded."""
    prefer: str
    """`known` or `certified`: which trials within a standard error of the best came first."""

    @property
    def trials(self) -> int:
        return sum(part.trials for part in self.parts)

    @property
    def amount(self) -> str:
        said = []
        for place, part in enumerate(self.parts):
            trials = part.trials if place else count(part.trials, "trial")
            each = "" if len(self.parts) > 1 else ", each"
            length = "" if part.length in (None, 1) else f"{each} at {part.length:g} of the training length"
            said.append(f"{trials} on {count(part.streams, 'stream')}{length}")
        return ", then ".join(said)

    def gave(self, record: Record) -> bool:
        """Check whether the record has the values that this search chose, in its place and at its budget."""
        here = (record.label, record.benchmark, record.scenario) == (self.method, self.benchmark, self.scenario)
        network = self.network in ("", record.network)
        budget = all(record.budget.get(key) == value for key, value in self.budget.items())
        values = all(_is(record.config.get(key), value) for key, value in self.values.items())
        return here and network and budget and values


def _is(value: Any, chosen: Any) -> bool:
    """Check whether a hyperparameter has a chosen value; a file of TOML has the text "None" for None."""
    return value == chosen or (value is None and chosen == "None")


def read(root: Path) -> list[Effort]:
    """The searches of a results folder, then those of this repository's suites; files that cannot be read are left out.

    A results folder may come from anybody.
    """
    shipped = Path(str(resources.files("benchmarks").joinpath("suites", "tuned")))
    files = [file for folder in (root / TUNED, shipped) for file in sorted(folder.glob("*.toml"))]
    return [effort for file in files for effort in _efforts(file)]


def _efforts(file: Path) -> Iterator[Effort]:
    try:
        found = tomllib.loads(paths.read_text(file, paths.SUITE_BYTES))
        pairs = list(zip(found["settings"], found["provenance"], strict=True))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
    for settings, provenance in pairs:
        try:
            yield _effort(settings, provenance)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue


def _effort(settings: Any, provenance: Any) -> Effort:
    """Raises ValueError, KeyError, TypeError or AttributeError for an entry of another form."""

    def share(name: str) -> float:
        value = float(provenance[name])
        if not math.isfinite(value):
            raise ValueError(value)
        return value

    return Effort(
        *(paths.name(settings[key]) for key in ("method", "benchmark", "scenario")),
        network=str(provenance.get("network", "")),
        values=dict(settings["values"].items()),
        parts=_parts(provenance, share("length") if "length" in provenance else None),
        refined="earlier_trials" in provenance,
        best=share("accuracy_best" if "accuracy_best" in provenance else "accuracy"),
        own=share("accuracy_before") if "accuracy_before" in provenance else None,
        sensitivity=share("sensitivity") if "sensitivity" in provenance else None,
        budget={key: provenance[key] for key in ("steps", "epochs", "batch_size") if key in provenance},
        prefer=str(provenance.get("prefer", "known")),
    )


def _parts(provenance: Mapping[str, Any], length: float | None) -> tuple[Part, ...]:
    """Searches that led to the values, neighbours of the same streams and length as one."""
    columns = [provenance.get(f"parts_{name}", []) for name in ("trials", "streams", "length")]
    each = [Part(int(trials), int(streams), float(share)) for trials, streams, share in zip(*columns, strict=True)]
    if not all(math.isfinite(part.length or 0) for part in each):
        raise ValueError(columns)
    if not each:  # a single search, or an older file
        trials = int(provenance["trials"]) + int(provenance.get("earlier_trials", 0))
        each = [Part(trials, len(provenance["seeds"]), length)]
    found = each[:1]
    for part in each[1:]:
        same = (part.streams, part.length) == (found[-1].streams, found[-1].length)
        found = [*found[:-1], replace(part, trials=found[-1].trials + part.trials)] if same else [*found, part]
    return tuple(found)


def effort_of(efforts: Sequence[Effort], record: Record) -> Effort | None:
    """Search that chose the values of a record; None if there is none."""
    return next((effort for effort in efforts if effort.gave(record)), None)


def effort_elsewhere(efforts: Sequence[Effort], record: Record) -> Effort | None:
    """Search on another benchmark, of which the suite took the values of a record; None if there is none."""
    for effort in efforts:
        taken = any(source.startswith(as_on(effort.benchmark)) for source in record.chosen.values())
        if taken and replace(effort, benchmark=record.benchmark).gave(record):
            return effort
    return None


def effort_table(study: Study) -> Table | None:
    """Table of the tuning of every method in every group; None if all have their defaults."""
    efforts = read(study.source.root)
    rows: list[tuple[Cell, ...]] = []
    said: dict[str, list[str]] = {}
    refined = False
    for group in study.groups:
        amounts = {}
        for label in study.rows(group):
            record = study.at(group, label)[0].record
            own = effort_of(efforts, record)
            effort = own or effort_elsewhere(efforts, record)
            refined |= effort is not None and effort.refined
            source = "; ".join(dict.fromkeys(record.chosen.values())) or DEFAULTS
            where = "" if own or effort is None else f" on {pretty(effort.benchmark)}"
            amounts[label] = effort.amount + where if effort else DEFAULTS if source == DEFAULTS else NO_TRIALS
            shown = _shown(effort)[:3] + _shown(own)[3:]  # accuracies on other data stay with these
            rows.append((Cell(group.title), method_cell(label), *map(Cell, shown), _how(effort, where, source)))
        methods = {label: study.at(group, label)[0].record.method for label in amounts}
        said.setdefault(_equality(amounts, methods), []).append(group.title)
    if all(row[-1].text == DEFAULTS for row in rows):
        return None
    return Table(
        "tuning-effort",
        "Tuning effort: trials of runners/tune.py for the values of each method, streams of a trial, its training "
        "length as a share of the budget, and accuracy on validation data in percent with the values that the suite "
        "had before and with the best. Sensitivity: the best less the median of the trials that ran to their end, in "
        "points; hopeless trials end earlier, so that it is a lower bound. "
        + (OF_REFINED if refined else "")
        + (OF_CERTIFIED if any(row[-1].text.endswith(CERTIFIED) for row in rows) else "")
        + "Elsewhere: values of another source, which the table of hyperparameters names.",
        ("benchmark", "method", "trials", "streams", "length", "before", "best", "sensitivity", "how chosen"),
        tuple(rows),
        tuple(f"{'; '.join(groups)}: {sentence}." for sentence, groups in said.items()),
        small=True,
        text_columns=frozenset({0, 1, 8}),
        named_once=1,
    )


def _how(effort: Effort | None, where: str, source: str) -> Cell:
    if effort:
        return Cell(TUNE + where + (CERTIFIED if effort.prefer == "certified" else ""))
    return Cell(DEFAULTS) if source == DEFAULTS else Cell(ELSEWHERE, key=source)


TUNE = "runners/tune.py"
CERTIFIED = ", certified"
OF_CERTIFIED = (
    "Certified: of the trials within a standard error of the best, the one with the highest certified accuracy "
    "(--prefer certified). "
)
OF_REFINED = (
    "A search that a later one refined: before is that of the first, best that of the last, sensitivity the larger. "
)
THEN = ", then "
DEFAULTS = "defaults"
ELSEWHERE = "elsewhere"
NO_TRIALS = "values from elsewhere"


def _shown(effort: Effort | None) -> tuple[str, ...]:
    if effort is None:
        return (MISSING,) * 6
    lengths = [MISSING if part.length is None else f"{part.length:g}" for part in effort.parts]
    streams = [str(part.streams) for part in effort.parts]
    own = MISSING if effort.own is None else f"{100 * effort.own:.1f}"
    spread = MISSING if effort.sensitivity is None else f"{100 * effort.sensitivity:.1f}"
    return (
        THEN.join(str(part.trials) for part in effort.parts),
        *(THEN.join(each if len({*each}) > 1 else each[:1]) for each in (streams, lengths)),
        own,
        f"{100 * effort.best:.1f}",
        spread,
    )


def _equality(amounts: Mapping[str, str], methods: Mapping[str, str]) -> str:
    """Sentence on the equality of effort in one group. amounts: label -> effort in words; methods: label -> method."""
    others: dict[str, list[str]] = {}
    for label, amount in amounts.items():
        others.setdefault(amount, []).append(label)
    if len(others) == 1 and NO_TRIALS not in others:
        return f"equal, {next(iter(others))} for every method"
    tuned = [amount for amount in others if amount not in (DEFAULTS, NO_TRIALS)]
    if not tuned:
        return "no method has trials"
    usual = max(tuned, key=lambda amount: len(others[amount]))
    names = {amount: join([display(label) for label in labels]) for amount, labels in others.items()}
    rest = "; ".join(f"{amount} for {named}" for amount, named in names.items() if amount != usual)
    return f"not equal, {usual} for {count(len({methods[label] for label in others[usual]}), 'method')}, but {rest}"
