"""Suite files: named grids of cells in TOML, validated with a specific message for every mistake."""

from __future__ import annotations

import json
import tomllib
import typing
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from benchmarks import paths, plugins, unimported, untrusted
from benchmarks.types import Budget, Scenario, UserError, suggestion
from reports.words import as_on
from runners.grid.cells import TUNING_SEEDS

SUITES = Path(__file__).resolve().parents[2] / "benchmarks" / "suites"
ALL = "all"
"""Every suite of this repository."""
ENTRY_POINT_GROUP = "continual_intervals.suites"
"""Entry points of this group are paths of suite files (`str` or `Path`); the entry point's name is the suite's."""
_Contents = TypeVar("_Contents", bound=BaseModel)


def _check_recorded(value: Any) -> Any:
    """Return a value that records can hold: others would be written and be unreadable. Raises ValueError."""
    untrusted.parse(json.dumps(value))
    return value


def _check_value(value: Any) -> Any:
    scalars = (bool, int, float, str)
    if isinstance(value, scalars) or (isinstance(value, list) and all(isinstance(part, scalars) for part in value)):
        return _check_recorded(value)
    raise ValueError(f"{value!r} is not permitted: write true or false, a number, a text or a list of them")


def _check_seeds(number: int) -> int:
    if number > TUNING_SEEDS:
        raise ValueError(f"seeds from {TUNING_SEEDS:,} on are kept for tuning; write a smaller number")
    return number


Block = tuple[dict[str, Any], str | None]
"""Values of hyperparameters, and their source."""
Positive = Annotated[int, Field(ge=1, strict=True), AfterValidator(_check_recorded)]
Text = Annotated[str, Field(strict=True, min_length=1), AfterValidator(_check_recorded)]
Value = Annotated[Any, AfterValidator(_check_value)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BenchmarkEntry(_Part):
    """A benchmark of the suite; what is left out is the benchmark's own. The same for all methods."""

    name: Text
    steps: Positive | None = None
    epochs: Positive | None = None
    batch_size: Positive | None = None
    network: Text | None = None
    values_of: Text | None = None
    """Another benchmark of the suite. Its `settings` hold here too, unless some name this benchmark."""

    @model_validator(mode="after")
    def _one_length(self) -> BenchmarkEntry:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give steps or epochs, not both")
        return self

    def budget(self, default: Budget) -> Budget:
        """The benchmark's budget with what this entry replaces."""
        own = self.steps is not None or self.epochs is not None
        length = self if own else default
        return replace(
            default, batch_size=self.batch_size or default.batch_size, steps=length.steps, epochs=length.epochs
        )


class Settings(_Part):
    """Values for a method's Config, everywhere or on one benchmark or scenario; later ones win."""

    method: Text
    benchmark: Text | None = None
    scenario: Scenario | None = None
    values: dict[str, Value]
    source: Text | None = None
    """Origin of the values or how they were chosen, in a few words; kept with the records and reported."""

    def applies(self, row: str, benchmark: str, scenario: Scenario) -> bool:
        return self.method == row and self.benchmark in (None, benchmark) and self.scenario in (None, scenario)


class Variant(_Part):
    """A further row in the tables: a method of the suite under another label and other values."""

    label: Annotated[Text, AfterValidator(paths.name)]
    method: Text
    values: dict[str, Value]
    scenarios: list[Scenario] = []
    """Of the suite's scenarios those that the row takes part in; none named: all."""
    source: Text | None = None
    """See Settings."""


class Suite(_Part):
    """Contents of a suite file."""

    name: Annotated[str, Field(strict=True), AfterValidator(paths.part)] = ""
    description: Text
    methods: list[Text] = Field(min_length=1)
    scenarios: list[Scenario] = Field(default=list(Scenario), min_length=1)
    seeds: Annotated[Positive, AfterValidator(_check_seeds)] = 3
    benchmarks: list[BenchmarkEntry] = Field(min_length=1)
    settings: list[Settings] = []
    variants: list[Variant] = []
    tuned: Text | None = None
    """File of `runners/tune.py`, relative to this one, whose values follow those of `settings`."""
    in_all: Annotated[bool, Field(strict=True)] = True
    """Membership in `all`; False for a suite that answers a separate question, with many rows."""

    def blocks(
        self,
        method: str,
        label: str,
        benchmark: str,
        scenario: Scenario,
        own: Block = ({}, None),
        values_of: str | None = None,
    ) -> list[Block]:
        """Blocks of values for a row on a benchmark, later ones win: its method's, its own, those for its label.

        own: of a variant. A method's own row has its name as the label.
        values_of: the benchmark whose settings hold here too, for rows of which no settings name this one.
        """

        def of(name: str) -> list[Block]:
            found = [block for block in self.settings if block.applies(name, benchmark, scenario)]
            if values_of is None or any(block.benchmark for block in found):
                return [(block.values, block.source) for block in found]
            return [
                (
                    block.values,
                    as_on(values_of) + (block.source or f"suite {self.name}") if block.benchmark else block.source,
                )
                for block in self.settings
                if block.applies(name, values_of, scenario)
            ]

        return [*of(method), own, *(of(label) if label != method else [])]

    @field_validator("benchmarks")
    @classmethod
    def _values_of_another(cls, entries: list[BenchmarkEntry]) -> list[BenchmarkEntry]:
        own = [entry.name for entry in entries if entry.values_of is None]
        for entry in entries:
            if entry.values_of is not None and entry.values_of not in own:
                raise ValueError(
                    f"values_of = {entry.values_of!r} of {entry.name!r} has to be another benchmark of the suite that "
                    f"has no values_of itself.{suggestion(entry.values_of, own)}"
                )
        return entries

    @field_validator("methods", "scenarios")
    @classmethod
    def _no_repeats(cls, values: list[str]) -> list[str]:
        if len(set(values)) < len(values):
            raise ValueError("holds an entry twice")
        return values


class Tuned(_Part):
    """Contents of a file of tuned values."""

    settings: list[Settings] = []
    provenance: list[dict[str, Value]] = []
    """How each of the settings was chosen; for the report."""


def shipped() -> dict[str, Path]:
    """The suite files of this repository, by name."""
    return {path.stem: path for path in sorted(SUITES.glob("*.toml"))}


def points() -> dict[str, EntryPoint]:
    """The entry points of suites by name; nothing is imported. Raises UserError for the name of a shipped suite."""
    found, known = {}, shipped()
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name in known:
            raise UserError(f"the entry point {point.value} would replace the suite {point.name!r}; rename it")
        found[point.name] = point
    return found


def path_of(point: EntryPoint) -> Path:
    """The suite file that an entry point names; its module is imported. Raises UserError."""
    try:
        return Path(point.load())
    except (ImportError, AttributeError, TypeError) as error:
        raise UserError(f"suite {point.name}: {point.value} gives no path of a file: {error}") from error


def unimported_path(point: EntryPoint) -> Path | None:
    """The suite file that an entry point names, read from the source; None where only an import can tell."""
    try:
        found = unimported.value_of(point.module, point.attr, {"Path": Path, "str": str})
        return Path(found) if isinstance(found, str | Path) else None
    except unimported.Unreadable:
        return None


def find(names: Iterable[str]) -> list[Suite]:
    """Suites of these names or paths; `all` is every shipped one that is not excluded from it. Raises UserError."""
    known, others, found = shipped(), points(), []
    for name in names:
        if name == ALL:
            found += [suite for suite in map(read, shipped().values()) if suite.in_all]
        elif name in known:
            found.append(read(known[name]))
        elif name in others:
            found.append(read(path_of(others[name])))
        elif name.endswith(".toml"):
            found.append(read(Path(name)))
        else:
            hint = suggestion(name, [*known, *others, ALL])
            raise UserError(
                f"--suite {name}: there is no such suite.{hint} "
                f"Available: {', '.join([*known, *others, ALL])}, or the path of a .toml file"
            )
    return found


def read(path: Path) -> Suite:
    """Read and validate a suite file. Raises UserError with file, key, value and what is permitted."""
    found = made({"name": path.stem, **read_toml(path, "suite file")}, str(path))
    methods = [_beside(path, name, "methods") for name in found.methods]
    entries = [_entry_beside(path, entry) for entry in found.benchmarks]
    variants = [each.model_copy(update={"method": _beside(path, each.method, "variants")}) for each in found.variants]
    settings = _settings_beside(path, found.settings)
    if found.tuned is not None:
        try:
            tuned = paths.below(path.parent, found.tuned)
        except paths.UnsafePath as error:
            raise UserError(f"{path}: tuned: {error}") from error
        settings += _without_own(found.variants, _settings_beside(tuned, read_tuned(tuned).settings))
    changes = {"methods": methods, "benchmarks": entries, "variants": variants, "settings": settings}
    return found.model_copy(update=changes)


def read_tuned(path: Path) -> Tuned:
    """Read and validate a file of tuned values. Raises UserError as `read` does."""
    return _valid(Tuned, read_toml(path, "file of tuned values"), str(path))


def _entry_beside(path: Path, entry: BenchmarkEntry) -> BenchmarkEntry:
    names = {key: getattr(entry, key) for key in ("name", "values_of")}
    changes = {key: _beside(path, name, "benchmarks") for key, name in names.items() if name is not None}
    return entry.model_copy(update=changes)


def _settings_beside(path: Path, blocks: Iterable[Settings]) -> list[Settings]:
    found = []
    for block in blocks:
        names = {key: getattr(block, key) for key in ("method", "benchmark")}
        changes = {key: _beside(path, name, f"settings.{key}") for key, name in names.items() if name is not None}
        found.append(block.model_copy(update=changes))
    return found


def _without_own(variants: Iterable[Variant], tuned: Iterable[Settings]) -> list[Settings]:
    """Tuned settings without the values by which a variant of their label differs from its method: these stay."""
    own = {each.label: each.values.keys() for each in variants if each.label != each.method}
    found = []
    for block in tuned:
        kept = {key: value for key, value in block.values.items() if key not in own.get(block.method, ())}
        found.append(block.model_copy(update={"values": kept}))
    return found


def _beside(path: Path, name: str, key: str) -> str:
    """A name as it is; a file of a method or benchmark, which lies below the suite file's folder, with its path.

    A suite file from elsewhere can so run no other file than those that came with it. Raises UserError.
    """
    if not plugins.is_file(name):
        return name
    file, colon, attribute = name.removesuffix(".py").partition(".py:")
    try:
        return f"{paths.below(path.parent.resolve(), file + '.py')}{colon and ':'}{attribute}"
    except paths.UnsafePath as error:
        raise UserError(f"{path}: {key}: {error}") from error


def made(data: dict[str, Any], where: str) -> Suite:
    """Suite with these contents. Raises UserError with the place `where`, the key, the value and what is permitted."""
    return _valid(Suite, data, where)


def _valid(kind: type[_Contents], data: dict[str, Any], where: str) -> _Contents:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        lines = [f"{where}: {_explain(kind, details)}" for details in error.errors()]
        raise UserError("\n".join(dict.fromkeys(lines))) from error


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The contents of a TOML file. Raises UserError."""
    try:
        found = tomllib.loads(paths.read_text(path, paths.SUITE_BYTES))
        json.dumps(found, default=str)  # a number too long to be shown in a message cannot be written here either
        return found
    except FileNotFoundError as error:
        raise UserError(f"there is no {what} {path}") from error
    except RecursionError as error:
        raise UserError(f"the {what} {path} is nested too deep") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the {what} {path} cannot be read: {getattr(error, 'strerror', error)}") from error
    except ValueError as error:
        raise UserError(f"the {what} {path} is not TOML: {error}") from error


def _explain(model: type[BaseModel], details: Any) -> str:
    location = list(details["loc"])
    key, kind, value = _dotted(location), details["type"], details["input"]
    if kind == "extra_forbidden":
        permitted = _permitted_keys(model, location[:-1])
        hint = suggestion(str(location[-1]), permitted, most=1)
        return f"unknown key {key} = {value!r}.{hint} Permitted keys: {', '.join(permitted)}"
    if kind == "missing":
        return f"the key {key} is missing"
    if kind == "enum":
        return f"{key} = {value!r}: permitted are {', '.join(Scenario)}.{suggestion(str(value), Scenario, most=1)}"
    message = details["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(value, dict | BaseModel) else f" = {value!r:.200}"
    return f"{key}{shown}: {message[0].lower()}{message[1:]}" if key else message


def _dotted(location: Iterable[int | str]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _permitted_keys(model: type[BaseModel], location: list[int | str]) -> list[str]:
    for part in location:
        if isinstance(part, str):
            inner = typing.get_args(model.model_fields[part].annotation)
            model = next(kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel))
    return [name for name in model.model_fields if name != "name" or model is not Suite]
