"""Front of the report: tables of methods and protocol, and limitations; every number is taken from the records."""

from __future__ import annotations

from benchmarks import catalogue
from reports import keeping, statistics
from reports.distinct_names import pretty
from reports.effort import effort_of, read
from reports.names import METHODS, family
from reports.record import Record
from reports.resolution import TEST_IMAGES, TRAIN_IMAGES, images_of
from reports.setting import budget_words, numbers
from reports.study import Study
from reports.tables import MISSING, Cell, Table, method_cell

COLUMNS = (
    "benchmark",
    "size",
    "tasks",
    "train / val / test",
    "scenarios",
    "seed varies",
    "budget",
    "network",
    "seeds",
    "trials",
)
"""Columns of the table of the protocol."""


def methods_table(study: Study) -> Table:
    """Table of the methods: family, what is stored, task, promise, citation."""
    ids = list(dict.fromkeys(entry.record.method for entry in study.entries))
    order = [*(name for name in METHODS if name in ids), *(name for name in ids if name not in METHODS)]
    rows = []
    for name in order:
        about = METHODS.get(name)
        if about:
            source = Cell(about.source or MISSING, cite=about.cite)
            cells = (Cell(about.stored), Cell(about.task), Cell(about.promise), source)
        else:
            kept = keeping.in_words(entry.record for entry in study.entries if entry.record.method == name)
            stored = "not described" if kept in (keeping.NO_SAMPLES, keeping.UNKNOWN) else kept
            cells = (Cell(stored), Cell("not described"), Cell("not described"), Cell(MISSING))
        rows.append((Cell(str(family(name))), method_cell(name), *cells))
    return Table(
        "methods",
        "Methods, family by family: what is kept of old tasks besides the network; whether the task must be inferred "
        "(in TIL it is always given); what is promised about old tasks.",
        ("family", "method", "stored", "task", "promise", "source"),
        tuple(rows),
        small=True,
        text_columns=frozenset(range(6)),
        named_once=1,
    )


def protocol_table(study: Study) -> Table:
    """Table of the protocol: images, counts, what a seed varies, budget, tuning trials per method."""
    efforts = read(study.source.root)
    rows = []
    for benchmark in study.benchmarks:
        entries = [entry for entry in study.entries if entry.group.benchmark == benchmark]
        groups = [group for group in study.groups if group.benchmark == benchmark]
        record = entries[0].record
        known = catalogue.BENCHMARKS.get(record.benchmark.removesuffix(catalogue.SHUFFLED_SUFFIX))
        trials = sorted({effort.trials if (effort := effort_of(efforts, e.record)) else 0 for e in entries})
        images = next((n for group in groups if (n := images_of(study, group))), None)
        cells = (
            pretty(record.benchmark),  # without length and network, which have columns
            _side(known),
            record.cut,
            _counts(known, record, images),
            ", ".join(group.scenario.upper() for group in groups),
            _varies(known, record.benchmark),
            " / ".join(dict.fromkeys(budget_words(entry.record.budget, brief=True) for entry in entries)),
            " / ".join(dict.fromkeys(entry.record.network for entry in entries)),
            numbers(sorted({entry.seed for entry in entries})),
            "–".join(map(str, dict.fromkeys((trials[0], trials[-1])))),
        )
        rows.append(tuple(map(Cell, cells)))
    return Table(
        "protocol",
        "Protocol: image size in pixels; tasks × classes in each; images for training / validation (of each task) / "
        "test, training and test over all tasks; what a seed varies besides initial weights and the order of batches; "
        "training budget per task, the same for all methods; trials of runners/tune.py for a method with this "
        "benchmark, network and budget (0: none; the table of hyperparameters has the source of the values).",
        COLUMNS,
        tuple(rows),
        small=True,
        text_columns=frozenset(range(len(COLUMNS))),
    )


def _side(known: catalogue.Benchmark | None) -> str:
    return MISSING if known is None else f"{known.stored_shape[1]} × {known.stored_shape[2]}"


def _counts(known: catalogue.Benchmark | None, record: Record, images: int | None) -> str:
    """Images for training, without those held out of each task for validation; a dash where these are not known."""
    held_out = record.definition.get("validation")
    train, test = None, MISSING if images is None else f"{images:,}"
    if not isinstance(held_out, int):  # earlier records do not say
        return f"{MISSING} / {MISSING if held_out is None else held_out} / {test}"
    if known and isinstance(known.dataset, str) and known.dataset in TRAIN_IMAGES and images is not None:
        train = TRAIN_IMAGES[known.dataset] * images // TEST_IMAGES[known.dataset][0] - record.n_tasks * held_out
    return f"{MISSING if train is None else f'{train:,}'} / {held_out:,} / {test}"


def _varies(known: catalogue.Benchmark | None, name: str) -> str:
    if known is None:
        return MISSING
    if known.kind is catalogue.Kind.PERMUTED:
        return "permutations"
    return "order of classes" if name.endswith(catalogue.SHUFFLED_SUFFIX) else "nothing else"


def limitations(study: Study) -> list[str]:
    """Sentences on what the records cannot show."""
    found = []
    few = [g.title for g in study.groups if statistics.smallest_p(len(study.seeds(g))) > statistics.ALPHA]
    if few:
        where = f"{len(few)} of {len(study.groups)} combinations of benchmark and scenario"
        found.append(f"In {where} there are fewer than 6 seeds, so that no difference can be shown there.")
    run = {name: {e.record.method for e in study.entries if e.group.benchmark == name} for name in study.benchmarks}
    everywhere = set.intersection(*run.values())
    if len(everywhere) < len(study.methods):
        verb = "was" if len(everywhere) == 1 else "were"
        some = f"Only {len(everywhere)} of {len(study.methods)} methods {verb}" if everywhere else "No method was"
        found.append(f"{some} run on every benchmark; means and ranks over benchmarks leave others out.")
    small = [pretty(name) for name in study.benchmarks if _small(study, name)]
    if small:
        found.append(f"Images are at most 32 pixels wide on {len(small)} of {len(study.benchmarks)} benchmarks.")
    if any(entry.record.certified is not None for entry in study.entries):
        found.append(
            "A certificate is about the test samples, networks and propagation of bounds used here; looser bounds "
            "certify less of the same network. A standing certificate says nothing about tasks that nothing was learnt "
            "after."
        )
    if any(entry.record.carried for entry in study.entries):
        carried = sum(bool(entry.record.carried) for entry in study.entries)
        found.append(
            f"{carried} of {len(study.entries)} records are of earlier code that was shown to give the same numbers."
        )
    return found


def _small(study: Study, benchmark: str) -> bool:
    record = next(entry.record for entry in study.entries if entry.group.benchmark == benchmark)
    known = catalogue.BENCHMARKS.get(record.benchmark.removesuffix(catalogue.SHUFFLED_SUFFIX))
    return known is not None and max(known.stored_shape[1:]) <= 32
