"""Files of a search: the chosen values with their provenance, which a suite includes, and a table of all trials."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import paths, untrusted
from benchmarks.types import Budget, UserError
from reports.words import count
from runners.grid import suite
from runners.grid.cells import TUNING_SEEDS
from runners.tuning import search
from runners.tuning.search import Prefer, Study, Trial
from runners.tuning.study import GRID, listed

COLUMNS = (
    "suite",
    "benchmark",
    "scenario",
    "method",
    "trial",
    "state",
    "accuracy",
    "certified",
    "seconds",
    "parameter",
    "value",
    "chosen",
    "study",
)

IDENTITY = ("method", "benchmark", "scenario")
"""Keys of an entry, of which a file has one for each of their values."""
BUDGET = ("steps", "epochs", "batch_size")
"""Fields of the suite's budget in the provenance, of which `length` is a share."""
_NOT_OURS = "tune.py replaces only what it has written: name another file, or rename this one"
STATES = ("complete", "pruned", "failed", "diverged")
_BEGINNING, _THEN, _END = "tuned on validation data: ", "; then ", ", runners/tune.py"
PARTS = ("parts_trials", "parts_streams", "parts_length")
"""Keys of the provenance of a search that later ones refined: lists with trials, streams and length of each."""


def entry(
    study: Study, trials: Sequence[Trial], prefer: Prefer, whole: Budget, command: str, commit: str
) -> dict[str, Any]:
    """The chosen values, as `settings` of a suite, with the effort that they took. whole: the suite's budget."""
    choice, cell = search.choice(study, trials, prefer), study.cell
    length = _length(cell.budget) / _length(whole)  # of rounded epochs, not the share that was asked for
    if not search.certifying(study, trials):
        prefer = Prefer.KNOWN  # nothing as good certifies: `prefer` had no effect
    streams = f" on {study.seeds} streams" if study.seeds > 1 else ""
    short = f" at {length:g} of the training length" if length != 1 else ""
    rule = ", the most certified of those as good" if prefer is Prefer.CERTIFIED else ""
    grid = f" of a grid ({'; '.join(listed(trial.values) for trial in trials)})" if study.grid else ""
    what = f"{count(len(trials), 'trial')}{grid}{streams}{short}{rule}"
    return {
        "method": cell.label,
        "benchmark": cell.benchmark,
        "scenario": str(cell.scenario),
        "source": f"{_BEGINNING}{what}{_END}",
        "values": choice.values,
        "provenance": {
            **_effort(study, trials, prefer),
            "length": length,
            **{key: value for key, value in vars(whole).items() if key in BUDGET and value is not None},
            "network": cell.network,
            "train_seconds": round(sum(trial.seconds for trial in trials), 1),
            "study": study.name,
            "command": untrusted.printable(command),
            "commit": commit,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }


def _length(budget: Budget) -> int:
    return budget.steps or budget.epochs or 1


def _effort(study: Study, trials: Sequence[Trial], prefer: Prefer) -> dict[str, Any]:
    """Numbers of trials and streams, and accuracies on validation data, fractions."""
    published = trials[1].accuracy if len(study.first) > 1 and len(trials) > 1 and not study.grid else None
    best, choice, sensitivity = search.best(trials), search.choice(study, trials, prefer), search.sensitivity(trials)
    known = dict(zip(("by_stream_before", "by_stream_published"), trials[: len(study.known)], strict=False))
    compared = {"by_stream": choice, **({} if choice is best else {"by_stream_best": best}), **known}
    return {
        "accuracy": choice.accuracy,
        **({} if choice.certified is None else {"certified": choice.certified}),
        "prefer": str(prefer),
        "accuracy_best": best.accuracy,
        **({} if trials[0].accuracy is None else {"accuracy_before": trials[0].accuracy}),
        **({} if published is None else {"accuracy_published": published}),
        **{key: list(trial.by_stream) for key, trial in compared.items() if len(trial.by_stream) > 1},
        **({} if sensitivity is None else {"sensitivity": sensitivity}),
        "trials": len(trials),
        **{state: sum(trial.state == state for trial in trials) for state in STATES},
        "seeds": [TUNING_SEEDS + k for k in range(study.seeds)],
    }


def read(file: Path) -> list[dict[str, Any]]:
    """Entries of a file that `write` has written; none where there is no file. Raises UserError for any other file."""
    try:
        found = suite.read_tuned(file)
    except UserError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return []
        raise UserError(f"{str(error).splitlines()[0]}; {_NOT_OURS}") from error
    parts = [part.model_dump(exclude_none=True) for part in found.settings]
    complete = all(part.keys() >= {*IDENTITY, "source"} for part in parts)
    counted = all(map(_counted, found.provenance))
    if len(parts) != len(found.provenance) or not complete or not counted:
        wanted = "a benchmark, a scenario, a source and a [[provenance]] with trials"
        raise UserError(f"{file}: not all [[settings]] have {wanted}; {_NOT_OURS}")
    return [{**part, "provenance": why} for part, why in zip(parts, found.provenance, strict=True)]


def _counted(why: Mapping[str, Any]) -> bool:
    """Check whether the trials of a provenance are numbers, and each of its parts is whole."""
    numbers = (why.get("trials"), why.get("earlier_trials", 0))
    parts = [why.get(key, []) for key in PARTS]
    whole = all(isinstance(part, list) for part in parts) and len({len(part) for part in parts}) == 1
    return all(type(number) is int for number in numbers) and whole and isinstance(why.get("seeds", []), list)


def write(file: Path, entry: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Write the values to the file; they replace earlier ones of the same method, benchmark and scenario.

    Hyperparameters that the file has and the search did not vary keep their values, if those are in config, which the
    search began with: a grid of one hyperparameter refines an earlier search.
    """
    from runners.records.folder import share

    entries = []
    for earlier in read(file):
        if any(earlier[key] != entry[key] for key in IDENTITY):
            entries.append(earlier)
        else:
            entry = _refining(earlier, entry, config)
    parts = ['# Values chosen by runners/tune.py on validation data; a suite takes them by: tuned = "this file"']
    # Sorted, so that the file does not depend on the order in which methods were tuned.
    for each in sorted([*entries, entry], key=lambda e: tuple(str(e[key]) for key in IDENTITY)):
        plain = {key: value for key, value in each.items() if key not in ("values", "provenance")}
        parts += ["\n[[settings]]", *(f"{key} = {_toml(value)}" for key, value in plain.items())]
        inner = ", ".join(f"{_key(key)} = {_toml(value)}" for key, value in each["values"].items())
        parts.append(f"values = {{ {inner} }}")
        parts += ["[[provenance]]", *(f"{_key(key)} = {_toml(value)}" for key, value in each["provenance"].items())]
    share(file, ("\n".join(parts) + "\n").encode())


def _refining(earlier: Mapping[str, Any], entry: Mapping[str, Any], config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The entry with the values of an earlier one that the search began with and did not vary, and both efforts."""
    kept = {key: value for key, value in earlier["values"].items() if key not in entry["values"]}
    if not kept or any(_toml(config.get(key)) != _toml(value) for key, value in kept.items()):
        return entry
    why, before = entry["provenance"], earlier["provenance"]
    beginning, trials, parts = earlier["source"].removesuffix(_END), before.get("earlier_trials", 0), _parts(before)
    if why["study"] == before.get("study"):  # the same search once more, perhaps judged by another rule
        beginning, parts = beginning.rpartition(_THEN)[0] or beginning, parts[:-1]
    else:
        trials += before["trials"]
    source = f"{beginning}{_THEN}{entry['source'].removeprefix(_BEGINNING)}"
    provenance = {**_effort_of_both(before, why), "earlier_trials": trials}
    if parts and (last := _parts(why)):
        provenance |= {key: list(column) for key, column in zip(PARTS, zip(*parts, *last, strict=True), strict=True)}
    return {**entry, "source": source, "values": {**kept, **entry["values"]}, "provenance": provenance}


def _effort_of_both(before: Mapping[str, Any], why: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance of a search with what was there before the one that it refines, and the larger sensitivity."""
    known = ("accuracy_before", "accuracy_published", "by_stream_before", "by_stream_published")
    both = {key: value for key, value in why.items() if key not in known}
    both |= {key: before[key] for key in known if key in before}
    spreads = [each["sensitivity"] for each in (before, why) if "sensitivity" in each]
    return {**both, "sensitivity": max(spreads)} if spreads else both


def _parts(why: Mapping[str, Any]) -> list[tuple[int, int, float]]:
    """Trials, streams and length of each search that led to the values; none where an older file does not tell."""
    if "earlier_trials" in why:
        return list(zip(*(why.get(key, ()) for key in PARTS), strict=True))
    if "seeds" in why and "length" in why:
        return [(why["trials"], len(why["seeds"]), why["length"])]
    return []


def _toml(value: Any) -> str:
    if value is None:
        return '"None"'  # a text that a Config takes as None; left out, the suite's value would stay
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _key(name: str) -> str:
    """A key of TOML; Python permits letters in names of fields that need quotes there."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def read_trials(file: Path) -> list[list[str]]:
    """Rows of the table of all trials; none where there is no file. Raises UserError for any other file."""
    try:
        table = csv.DictReader(io.StringIO(paths.read_text(file, paths.TABLE_BYTES)))
        rows = [[row.get(name) or "" for name in COLUMNS] for row in table]  # an older table lacks a column
        if rows and not {*COLUMNS[:5]} <= {*(table.fieldnames or ())}:
            raise ValueError("it has other columns")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"the table of trials {file} cannot be read ({error}); rename it: the commands that filled it fill a new "
            "one and train nothing again"
        ) from error
    return rows


def write_trials(file: Path, study: Study, trials: Sequence[Trial], prefer: Prefer) -> None:
    """Write all trials as a table, one line for each hyperparameter.

    They replace those of the row's earlier search, or of its earlier grid over the same hyperparameters: the study's
    name changes with code and settings. A search also replaces lines of an older table, which name no study.
    """
    from runners.records.folder import share

    cell = study.cell
    identity = [cell.suite, cell.benchmark, str(cell.scenario), cell.label]
    earlier = read_trials(file)
    parameters: dict[str, set[str]] = {}
    for row in earlier:
        if row[:4] == identity:
            parameters.setdefault(row[-1], set()).add(row[COLUMNS.index("parameter")])
    tried = {key for trial in trials for key in trial.values}
    same = {
        name for name, keys in parameters.items() if (GRID in name) == study.grid and (not study.grid or keys == tried)
    }
    rows = [row for row in earlier if row[:4] != identity or row[-1] not in same]
    choice = search.choice(study, trials, prefer)
    for trial in trials:
        chosen = "yes" if trial.number == choice.number else ""
        shares = ["" if share is None else repr(share) for share in (trial.accuracy, trial.certified)]
        for key, value in trial.values.items():
            of_trial = [str(trial.number), trial.state, *shares, f"{trial.seconds:.2f}"]
            rows.append([*identity, *of_trial, key, str(value), chosen, study.name])
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    share(file, buffer.getvalue().encode())
