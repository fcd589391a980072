"""Terms of tables and figures: each is defined in the caption of whatever uses it, without being asked.

`complete` adds the missing definitions to a caption. Tables pass through it when they are placed, figures when they are
saved, so that a new table or figure cannot forget them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

from reports import metrics
from reports.metrics import Metric
from reports.tables import Table


@dataclass(frozen=True)
class Term:
    """Term with its definition.

    used: pattern of a heading, label, cell or caption that uses it; defined: pattern of a caption that has defined it.
    """

    used: str
    defined: str
    words: str
    listed: bool = False
    """True for one part of a list of definitions, False for a sentence."""


_METRICS: dict[Metric, str] = {
    metrics.ACC: "mean accuracy over the tasks after the last one",
    metrics.BWT: "backward transfer, the mean change of an old task's accuracy since it was learnt",
    metrics.FORGETTING: "forgetting, the mean loss of an old task's accuracy since its best",
    metrics.FWT: "forward transfer, the accuracy on a task before it is learnt less that of the untrained network",
    metrics.LA: "learning accuracy, the mean accuracy on a task just after it was learnt",
    metrics.AIA: "average incremental accuracy, the mean over the stream of the accuracy on the tasks so far",
    metrics.INTRANSIGENCE: "intransigence, the accuracy on a task just learnt that joint training has more",
    metrics.INFERENCE: "share of test samples given to the right task",
}
"""Definitions of the metrics' short names."""


def _abbreviation(metric: Metric, words: str) -> Term:
    short, known = re.escape(metric.short), "|".join(map(re.escape, (metric.title, words.split(",")[0], "measured")))
    # A single letter is the metric only where it stands alone.
    used = rf"(?m)^{short}(?: [↑↓])?$" if len(metric.short) == 1 else rf"(?<![\w.-]){short}(?![\w.-])"
    return Term(used, rf"(?<!\w){short}: (?:{known})|\({short}\)", f"{metric.short}: {words}", listed=True)


TERMS: tuple[Term, ...] = (
    Term("↑", "↑: higher", "↑: higher is better", listed=True),
    Term("↓", "↓: lower", "↓: lower is better", listed=True),
    *(_abbreviation(metric, words) for metric, words in _METRICS.items()),
    Term(r"\bIQM\b", r"\(IQM\)|IQM:", "IQM: the mean of the middle half of the values", listed=True),
    Term(r"\bSEM\b", r"SEM:|\(SEM\)", "SEM: standard error of the mean", listed=True),
    Term(r"\bCAP\b", r"CAP:|\(CAP\)", "CAP: share of the weights in use plus the size of the masks", listed=True),
    Term(
        r"(?i)(?<![\w-])(?:standing|stands)\b",
        r"(?i)\b(?:standing(?: is)?|stands):? (?:the|share|accuracy)",
        "Standing: the share of an old task's test samples that were certified when it was learnt, 0 if the claim "
        "about it is void.",
    ),
    Term(
        r"(?i)\bdrift\b",
        r"(?i)\bdrift(?: of [\w' ]+)?(?: is|:) ",
        "Drift: the largest difference between a task's region (or its numbers, where it has none) when claimed and "
        "now, in units of the weights.",
    ),
    Term(
        r"(?i)\bclaim(?:s|ed)?\b|\bvoid\b",
        r"(?i)\ba claim (?:is|says)",
        "A claim says that what was certified when a task was learnt still holds; it is void once parameters have left "
        "the certified region, or that region has moved.",
    ),
    Term(r"\bpoints?\b", r"(?i)percentage points|points of percent", "Points are percentage points."),
)
"""Terms in the order in which captions define them."""


WORDS_OF_A_CELL = 2
"""Largest number of words of a cell that may be a term."""


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def complete(caption: str, texts: Iterable[str]) -> str:
    """Caption with the definitions that it lacks of the terms in it and in `texts`, also those of definitions."""
    whole = "\n".join((*dict.fromkeys(texts), ""))
    while True:
        missing = [term for term in TERMS if _uses(term, caption, whole) and not _defines(term, caption)]
        if not missing:
            return caption
        caption = f"{caption} {_joined(missing)}"


def _uses(term: Term, caption: str, texts: str) -> bool:
    pattern = _compiled(term.used)
    return bool(pattern.search(texts) or pattern.search(caption))


def _defines(term: Term, caption: str) -> bool:
    return bool(_compiled(term.defined).search(caption))


def _joined(missing: list[Term]) -> str:
    listed = "; ".join(term.words for term in missing if term.listed)
    return " ".join([*([f"{listed}."] if listed else []), *(term.words for term in missing if not term.listed)])


def texts_of(table: Table) -> list[str]:
    """Headings, notes and short cells of a table; long cells are prose, or settings by their own names."""
    cells = (cell.text for row in table.rows for cell in row if len(cell.text.split()) <= WORDS_OF_A_CELL)
    return [*table.columns, *table.notes, *cells]


def glossed(table: Table) -> Table:
    """Table whose caption defines the terms that it uses."""
    return replace(table, caption=complete(table.caption, texts_of(table)))
