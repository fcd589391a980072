"""Construction of the cells to run from suites and the command line's choices."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import catalogue, paths, plugins, untrusted
from benchmarks.catalogue import Benchmark, HeldOut
from benchmarks.data import content_of, source_of
from benchmarks.files import locate
from benchmarks.folders import ImageFolder
from benchmarks.types import Budget, Scenario, UserError
from methods import registry
from runners.grid import hyperparameters
from runners.grid.cells import Cell, unique
from runners.grid.edits import forget_edited
from runners.grid.fingerprint import Sources
from runners.grid.loading import LoadedMethod, load_method, parts_of
from runners.grid.suite import BenchmarkEntry, Settings, Suite, shipped

if TYPE_CHECKING:
    from benchmarks.plugins import DataSource


@dataclass(frozen=True)
class Choices:
    """Choices of the command line that override the suites; None keeps the suite's own."""

    methods: tuple[str, ...] | None = None
    foreign: tuple[str, ...] = ()
    """`path/to/file.py:Class`, added to the methods of every suite."""
    benchmarks: tuple[str, ...] | None = None
    scenarios: tuple[Scenario, ...] | None = None
    seeds: int | Sequence[int] | None = None
    """Number of seeds, or the seeds themselves."""
    assignments: tuple[tuple[str, str, str], ...] = ()
    """(method, key, value as text) from --set; they win over the suites' hyperparameters."""
    budget_scale: float = 1.0
    data: Path | None = None
    """Folder of image folders; see `benchmarks.files.locate`."""
    own_benchmarks: tuple[str, ...] = ()
    """`path/to/file.py:NAME`, added to the benchmarks of the first suite."""


@dataclass(frozen=True)
class _Row:
    """Row of the result tables: a method under a label."""

    label: str
    method: LoadedMethod
    values: dict[str, Any] = field(default_factory=dict)
    source: str | None = None
    scenarios: Sequence[Scenario] = tuple(Scenario)


class Grid(list[Cell]):
    """Cells, and sentences on what in the suites meets none of them (`remarks`)."""

    def __init__(self, cells: Iterable[Cell] = (), unmet: Sequence[str] = ()) -> None:
        super().__init__(cells)
        self.unmet = tuple(unmet)


def build(suites: Sequence[Suite], choices: Choices) -> Grid:
    """All cells, seed by seed. Raises UserError for names or values that are not permitted."""
    for remembered in (_parts, _data_definition, _loaded, _sources):
        remembered.cache_clear()  # files may have changed since the last grid
    whole = suites
    named = [_named(suite) for suite in whole]
    suites = [_narrowed(suite, choices, first=suite is named[0], all_suites=named) for suite in named]
    _check_benchmarks(suites)
    rows = [_rows(suite, choices) for suite in suites]  # by place: files in two folders may have one name
    _check_assignments(choices, [row for some in rows for row in some])
    _check_settings(whole, [entry for suite in (*named, *suites) for entry in suite.benchmarks], rows)
    cells: list[Cell] = []
    for suite, own in zip(suites, rows, strict=True):
        first = [
            _cell(suite, row, entry, scenario, choices)
            for entry in suite.benchmarks
            for scenario in suite.scenarios
            for row in own
            if scenario in row.scenarios
        ]
        cells += [replace(cell, seed=seed) for seed in _seeds(suite, choices) for cell in first]
    unmet = [remark for parts in zip(named, suites, rows, strict=True) for remark in _unmet(*parts)]
    return Grid(unique(cells), unmet)


def _seeds(suite: Suite, choices: Choices) -> Sequence[int]:
    chosen = suite.seeds if choices.seeds is None else choices.seeds
    return range(chosen) if isinstance(chosen, int) else chosen


def _named(suite: Suite) -> Suite:
    """The suite with one name for each method and benchmark that `methods` and `benchmarks` name by their files.

    Settings have the registered name, variants the file.
    """
    variants = [each.model_copy(update={"method": _file_or_name(each.method, [suite])}) for each in suite.variants]
    settings = []
    for block in suite.settings:
        changes: dict[str, Any] = {"method": _registered(block.method)}
        if block.benchmark is not None and plugins.is_file(block.benchmark):
            changes["benchmark"] = catalogue.find(_reference(block.benchmark)).name
        settings.append(block.model_copy(update=changes))
    return suite.model_copy(update={"variants": variants, "settings": settings})


def _registered(method: str) -> str:
    """Registered name of a method."""
    return _loaded(method).name if plugins.is_file(method) else method


def _file_or_name(method: str, suites: Sequence[Suite]) -> str:
    """The file, among those that the suites list, of a method that nothing else registers; else the name as it is."""
    if plugins.is_file(method) or method in registry.available():
        return method
    listed = (name for suite in suites for name in (*suite.methods, *(each.method for each in suite.variants)))
    return next((name for name in listed if plugins.is_file(name) and _registered(name) == method), method)


def _narrowed(suite: Suite, choices: Choices, first: bool, all_suites: Sequence[Suite]) -> Suite:
    changes: dict[str, Any] = {}
    listed = {name for each in all_suites for entry in each.benchmarks for name in _names(entry.name)}
    asked = [_reference(name) for name in (*(choices.benchmarks or ()), *choices.own_benchmarks)]
    kept = suite.benchmarks
    if choices.benchmarks is not None:
        kept = [entry for entry in kept if not _names(entry.name).isdisjoint(asked)]
    if first:
        kept = [*kept, *(BenchmarkEntry(name=name) for name in asked if name not in listed)]
    changes["benchmarks"] = kept
    if choices.scenarios is not None:
        changes["scenarios"] = list(choices.scenarios)
    if choices.methods is not None:
        labels = {variant.label for variant in suite.variants}
        methods = [_file_or_name(name, [suite, *all_suites]) for name in choices.methods if name not in labels]
        changes["variants"] = [v for v in suite.variants if v.label in choices.methods or v.method in methods]
        changes["methods"] = methods
    return suite.model_copy(update=changes)


def _names(benchmark: str) -> set[str]:
    """Names by which a benchmark is chosen: its own, and with its file."""
    reference = _reference(benchmark)
    return {reference, catalogue.find(reference).name} if plugins.is_file(reference) else {reference}


def _reference(benchmark: str) -> str:
    """A benchmark's name, or `/path/file.py:NAME`, whose modules are loaded anew where they were edited."""
    if not plugins.is_file(benchmark):
        return benchmark
    with suppress(UserError, OSError):  # the import says what is wrong with the file
        if forget_edited(plugins.file_in(benchmark)[0]):
            plugins.forget()
    return plugins.of_file(benchmark)[0]


def _check_benchmarks(suites: Sequence[Suite]) -> None:
    """Refuse unknown names, and two benchmarks of one name, whose records would lie in one folder."""
    found: dict[str, str] = {}
    for suite in suites:
        for entry in suite.benchmarks:
            reference = _reference(entry.name)
            name = catalogue.find(reference).name
            if (other := found.setdefault(name, reference)) != reference:
                raise UserError(f"{reference} and {other} are both called {name!r}; rename one of the two")


def _rows(suite: Suite, choices: Choices) -> list[_Row]:
    _check_names([*suite.methods, *(variant.method for variant in suite.variants)])
    foreign = {name: _loaded(name) for name in choices.foreign}  # first, because they are likelier to be refused
    loaded = {name: _loaded(name) for name in suite.methods} | foreign
    rows = [_Row(method.name, method) for method in loaded.values()]
    for variant in suite.variants:
        method = loaded.get(variant.method) or _loaded(variant.method)
        rows.append(_Row(variant.label, method, variant.values, variant.source, variant.scenarios or tuple(Scenario)))
    labels = [row.label for row in rows]
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise UserError(f"suite {suite.name}: two methods or variants are called {twice!r}")
    for row in rows:
        if row.label != row.method.name and row.label in registry.available():
            raise UserError(
                f"suite {suite.name}: a variant of {row.method.name} is called {row.label!r}, as another method is; "
                "choose another label"
            )
    return rows


def _check_names(names: Sequence[str]) -> None:
    """Refuse unknown names, before any method is loaded, which takes seconds."""
    known = registry.available()
    for name in names:
        if name not in known and not plugins.is_file(name):
            registry.load(name)


def _check_assignments(choices: Choices, rows: Sequence[_Row]) -> None:
    names = {row.label for row in rows} | {row.method.name for row in rows}
    for method, key, value in choices.assignments:
        if method not in names:
            raise UserError(f"--set {method}.{key}={value}: {method!r} is not in this grid: {', '.join(sorted(names))}")


def _check_settings(suites: Sequence[Suite], entries: Sequence[BenchmarkEntry], rows: Sequence[Sequence[_Row]]) -> None:
    """Check every block of hyperparameters of the whole suites, also those that meet no cell of a narrowed grid."""
    benchmarks = {name for entry in entries for name in _names(entry.name)}
    for suite, own in zip(suites, rows, strict=True):
        known = {name: row for row in own for name in (row.label, row.method.name)}
        variants = {variant.label: variant.method for variant in suite.variants}
        for number, block in enumerate(suite.settings):
            where = f"suite {suite.name}: settings[{number}]"
            if block.benchmark is not None and block.benchmark not in benchmarks:
                catalogue.find(_reference(block.benchmark))
            method = _registered(block.method)
            if method in known:
                loaded = known[method].method
            elif suite.name in shipped() and (method in variants or method in registry.available()):
                continue  # a test loads all that these name
            else:
                loaded = _loaded(_file_or_name(variants.get(method, block.method), [suite]))
            cls: Any = loaded.cls
            hyperparameters.configure(method, cls.Config, block.values, where)


def _unmet(whole: Suite, narrowed: Suite, rows: Sequence[_Row]) -> list[str]:
    """Remarks on settings and variants of a user's suite that meet no row, in the whole suite or as it is run.

    Suites of this repository have settings of methods that `--methods` adds.
    """
    if whole.name in shipped():
        return []
    run = [({row.label, row.method.name}, set(row.scenarios)) for row in rows]
    lost = [
        f"settings[{number}] ({', '.join(filter(None, (block.method, block.benchmark, block.scenario)))})"
        for number, block in enumerate(whole.settings)
        if not (_meets(block, narrowed, run) or _meets(block, whole, _listed(whole)))
    ]
    remarks = [f"suite {whole.name}: {', '.join(lost)} meet{'s' * (len(lost) == 1)} no row of this suite"]
    return (remarks if lost else []) + [
        f"suite {whole.name}: the variant {variant.label} has no cells, since its scenarios ({wanted}) are none of the "
        f"suite's ({', '.join(whole.scenarios)})"
        for variant in whole.variants
        if (wanted := ", ".join(variant.scenarios))
        and not any(set(variant.scenarios) & set(suite.scenarios) for suite in (whole, narrowed))
    ]


def _listed(suite: Suite) -> Iterator[tuple[set[str], set[Scenario]]]:
    """Names and scenarios of each row of a suite; files are loaded last, where no other row is the one looked for."""
    for variant in suite.variants:
        yield {variant.label, variant.method}, set(variant.scenarios or Scenario)
    yield set(suite.methods), set(Scenario)
    for name in filter(plugins.is_file, suite.methods):
        yield {_registered(name)}, set(Scenario)
    for variant in suite.variants:
        yield {_registered(variant.method)}, set(variant.scenarios or Scenario)


def _meets(block: Settings, suite: Suite, rows: Iterable[tuple[set[str], set[Scenario]]]) -> bool:
    """Check whether the suite has a cell of these rows that a block of settings is about."""
    if block.benchmark is not None and not any(block.benchmark in _names(entry.name) for entry in suite.benchmarks):
        return False
    wanted = set(suite.scenarios) & ({block.scenario} if block.scenario else set(Scenario))
    return any(block.method in names and scenarios & wanted for names, scenarios in rows)


def _values(
    suite: Suite, row: _Row, entry: BenchmarkEntry, scenario: Scenario, choices: Choices
) -> tuple[dict[str, Any], dict[str, str]]:
    """Values that replace the method's defaults in a cell, and the origin of each; later ones win."""
    benchmark = catalogue.find(_reference(entry.name)).name
    values_of = None if entry.values_of is None else catalogue.find(_reference(entry.values_of)).name
    parts = suite.blocks(row.method.name, row.label, benchmark, scenario, (row.values, row.source), values_of)
    names = dict.fromkeys((row.method.name, row.label))  # as in suites a label's values win over its method's
    parts += [({k: v}, "command line") for name in names for m, k, v in choices.assignments if m == name]
    values: dict[str, Any] = {}
    chosen: dict[str, str] = {}
    for some, source in parts:
        values |= some
        chosen |= dict.fromkeys(some, source or f"suite {suite.name}")
    return values, chosen


def definition_of(benchmark: Benchmark, data: Path | None) -> dict[str, Any]:
    """Definition of a benchmark as stored in a cell's key and record.

    The name of a benchmark that ships decides its kind and its data set. In a user's file both can be edited.
    """
    return {
        **({} if catalogue.ships(benchmark) else {"kind": str(benchmark.kind), "dataset": _name_of(benchmark.dataset)}),
        "n_tasks": benchmark.n_tasks,
        "classes_per_task": benchmark.largest_task,
        **({} if len(set(benchmark.sizes)) == 1 else {"sizes": list(benchmark.sizes)}),
        "input_shape": list(benchmark.input_shape),
        "validation": benchmark.validation,
        **({} if benchmark.held_out is HeldOut.FIRST else {"held_out": str(benchmark.held_out)}),
        "padding": benchmark.padding,
        "class_order": str(benchmark.class_order),
        **_data_definition(benchmark.dataset, data),
        "augmentation": str(benchmark.augmentation),
        "normalisation": benchmark.normalisation and [list(part) for part in benchmark.normalisation],
    }


def _name_of(dataset: DataSource) -> str:
    """Name of a data set, or "" of a function that has none: its cells fail with the reason."""
    try:
        return plugins.named(dataset)
    except UserError:
        return ""


@cache
def _data_definition(dataset: DataSource, data: Path | None) -> dict[str, str]:
    """Definition of a data set without published checksums: its content, and the code of a package that makes it.

    The content of unusable data is left out: its cells fail with the reason, the others run.
    """
    found: dict[str, str] = {}
    try:
        if plugins.is_reference(dataset):
            found["source"] = _sources().hash(plugins.file_of(dataset))
            found["content"] = content_of(plugins.make(dataset))
        elif isinstance(source := source_of(dataset, locate(data)), ImageFolder):
            found["files"] = source.content
    except (Exception, SystemExit):  # a package's function may raise anything
        return found
    return found


@cache
def _loaded(reference: str) -> LoadedMethod:
    """Cached `load_method`, for the construction of one grid."""
    return load_method(reference, _sources())


@cache
def _sources() -> Sources:
    """Source hashes, for the construction of one grid."""
    return Sources()


@cache
def _parts(benchmark: str, network: str) -> dict[str, str]:
    """Cached `parts_of`, for the construction of one grid."""
    return parts_of(catalogue.find(benchmark), network, _sources())


def _scaled(budget: Budget, scale: float, where: str) -> Budget:
    """The budget times `scale`, if a record can hold it. Raises UserError."""
    try:
        found = budget.scaled(scale)
        untrusted.parse(json.dumps(vars(found)))
    except (OverflowError, ValueError) as error:
        raise UserError(f"{where}: the budget times {scale:g} is too long for a record ({error})") from error
    return found


def _cell(suite: Suite, row: _Row, entry: BenchmarkEntry, scenario: Scenario, choices: Choices) -> Cell:
    """Cell of seed 0."""
    reference = _reference(entry.name)
    benchmark = catalogue.find(reference)
    values, chosen = _values(suite, row, entry, scenario, choices)
    cls: Any = row.method.cls
    where = f"suite {suite.name}"
    config = hyperparameters.configure(row.method.name, cls.Config, values, where)
    network = entry.network or benchmark.network
    for what, name in (("benchmark", benchmark.name), ("method", row.method.name)):
        try:
            paths.part(name, what)  # they become folders; records with unsafe names are unreadable
        except paths.UnsafePath as error:
            raise UserError(f"{where}: {error}") from error
    return Cell(
        method=row.method.name,
        reference=row.method.reference,
        label=row.label,
        config=hyperparameters.recorded(row.method.name, config, where),
        benchmark=benchmark.name,
        definition=definition_of(benchmark, choices.data),
        scenario=scenario,
        seed=0,
        budget=_scaled(entry.budget(benchmark.budget), choices.budget_scale, f"{where}: {benchmark.name}"),
        network=network,
        source=row.method.source,
        parts=_parts(reference, network),
        benchmark_file=reference if plugins.is_file(reference) else "",
        suite=suite.name,
        chosen=chosen,
    )
