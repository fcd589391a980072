"""Paragraphs of the report that explain its setting, its tables and its sections."""

from __future__ import annotations

from reports import statistics
from reports.contents import Contents
from reports.deviations import excesses, oddities, of_tasks
from reports.distinct_names import pretty
from reports.findings import methods
from reports.metrics import AIA, FORGETTING, FWT, LA
from reports.names import display
from reports.study import Study
from reports.words import count, join

SUITES_AT_MOST = 3
"""Largest number of suites that the line under the title names."""
BENCHMARKS_AT_MOST = 3
"""Largest number of benchmarks that the setting names."""
NAMES_AT_MOST = 10
"""Largest number of methods that the setting names; more are only counted."""
PUBLISHED_WORDS = (
    "Values from the literature for the same method, benchmark and scenario. They come from other code, networks, "
    "budgets and tuning procedures, so a difference is no verdict on either side. Values that nobody has read in a "
    "published table stand apart, for orientation."
)

VARIANT_WORDS = (
    "Here only one method was run, with one or several settings of its hyperparameters. These rows have no part in the "
    "other tables of results, in ranks, tests and figures; cells.csv, summary.csv and the tables of the appendix on "
    "settings and single seeds include them."
)
CURVE_WORDS = (
    "The repository of HINT (HyperInterval) has figures of its accuracy on every task after the last one. They stand "
    "next to the rows of this report with the same network, benchmark, scenario and value."
)

GUARANTEE_WORDS = (
    "Certified accuracy is the share of test samples whose true logit's lower bound exceeds every other upper bound "
    "over the whole region of parameters kept for the task. A claim whose premise fails (parameters outside of the "
    "region, or a region that has drifted) is void. What a guarantee was worth is the accuracy certified when an old "
    "task was learnt by claims that still stand; the last task is left out, since nothing was learnt after it."
)


def setting_words(content: Contents) -> tuple[str, str]:
    """Paragraph on the setting, and one on what was measured and chosen, for the appendix."""
    study = content.comparison
    words = {
        "til": "in TIL (task-incremental) the task is given in training and at test and a method answers over the "
        "task's own classes",
        "dil": "in DIL (domain-incremental) the task is not given and labels are within-task labels",
        "cil": "in CIL (class-incremental) the task is not given and answers range over all classes seen so far",
    }
    scenarios = "; ".join(words.get(scenario, scenario) for scenario in study.scenarios)
    names = [pretty(benchmark) for benchmark in study.benchmarks]
    where = f"the tasks of {join(names)}" if len(names) <= BENCHMARKS_AT_MOST else "the tasks of each benchmark"
    learners = join([*map(display, study.labels)]) if len(study.labels) <= NAMES_AT_MOST else methods(study)
    first = (
        f"{learners} learn {where} sequentially, in the scenarios of van de Ven et al. @[cite:vandeven2022]: "
        f"{scenarios}. The same seed gives every method the same stream of tasks and the same order of data, so "
        "comparisons are paired. Test data are used for measurement only."
    )
    second = (
        f"{_measured(content.study)} A method selects models on validation samples held out of the training data. "
        "@[tab:hyperparameters] gives the source of each hyperparameter."
    )
    return first, second


def _measured(study: Study) -> str:
    """Sentence on the use of the budget, from measured values only."""
    done = [entry for entry in study.entries if entry.record.done]
    known = [entry for entry in done if of_tasks(entry.record)]
    if not known:
        return "Optimiser steps, training samples and networks were not measured in these records."
    beyond = sorted({entry.label for entry in known if excesses(entry.record)})
    odd = sorted({entry.label for entry in known if oddities(entry.record)})
    verdict = (
        f"{join([*map(display, beyond)])} went beyond the budget or kept data unsaid"
        if beyond
        else "no method went beyond it"
    )
    also = f" Of {join([*map(display, odd)])} notes under the tables say how the answers came about." if odd else ""
    rest = "" if len(known) == len(done) else f" ({len(known)} of {len(done)} finished cells were measured)"
    return f"What each took of the budget was counted{rest}: {verdict}; see @[tab:conduct].{also}"


def how_to_read(study: Study) -> str:
    """Paragraph on the metrics and the marks of the tables."""
    shown = (FORGETTING, FWT, LA, AIA)
    counts = [len(study.seeds(group)) for group in study.groups]
    fewest, most = min(counts), max(counts)
    text = (
        "ACC is the mean accuracy over all tasks after the last one, BWT the effect of later tasks on earlier ones; "
        + ", ".join(f"{m.short} {m.title}" for m in shown)
        + " (formulas in the appendix). Only ACC and AIA have a best value in bold, and only of several seeds: a "
        "method that learns nothing forgets nothing. "
    )
    if statistics.smallest_p(most) > statistics.ALPHA:
        text += (
            f"{'One seed gives' if most == 1 else f'{most} seeds give'} no significant difference in an exact "
            f"two-sided test (p is {statistics.smallest_p(most):.3g} at best), so nothing is underlined."
        )
    else:
        text += (
            "Underlined values are not shown to be worse than the best: all pairs of methods are compared by sign "
            "flips over the seeds, with at most 5 % chance of any false difference among them, so that the best may be "
            "chosen on the same seeds. With too few seeds for a difference to show, nothing is underlined."
        )
    if fewest != most:
        text += f" Seeds differ between benchmarks ({fewest} to {most})."
    return text


def subtitle(study: Study) -> str:
    """Line under the title: numbers of cells and methods, suites, dates."""
    suites = sorted({entry.record.suite for entry in study.entries if entry.record.suite})
    ends = sorted(entry.record.finished[:10] for entry in study.entries if entry.record.finished)
    parts = [count(len(study.entries), "cell"), count(len(study.methods), "method")]
    if 0 < len(suites) <= SUITES_AT_MOST:
        parts.append(("suite " if len(suites) == 1 else "suites ") + join(suites))
    if ends:
        parts.append(ends[0] if ends[0] == ends[-1] else f"{ends[0]} to {ends[-1]}")
    return " · ".join(parts)
