"""Catalogue of the shipped methods for readers: display name, family, promise, citation, and place in its family.

Tables, figures and sentences show display names; CSV files keep the ids. A method that is not listed here is the
user's own and shows its own name. A place in a family decides colour, marker and line, so that a method looks the same
in every report: append new methods at the end of their family and never reorder.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Family(StrEnum):
    """Family of methods; a family shares a hue."""

    REGULARISATION = "regularisation"
    HYPERNETWORKS = "hypernetworks"
    INTERVALS = "intervals"
    CONSTRUCTION = "by construction"
    CLOSED_FORM = "closed form"
    REFERENCES = "references"
    OWN = "own"


@dataclass(frozen=True)
class About:
    """Description of a method for readers."""

    name: str
    family: Family
    stored: str
    """Numbers kept for old tasks, in words."""
    task: str
    """Scenarios in which the task is inferred; elsewhere it is given (TIL) or not needed (one head)."""
    promise: str
    cite: str = ""
    """Key in references.bib."""
    source: str = ""
    """Authors and year, where no bibliography can be cited."""


NOT_NEEDED, INFERRED, INFERRED_IN_CIL = "not needed", "inferred in DIL, CIL", "inferred in CIL"
_SOFT, _EXACT = "none", "old answers unchanged if the task is given"
_BOX = "certified answers stay in the box"
_PENALTY = Family.REGULARISATION
_HYPER, _FIXED = Family.HYPERNETWORKS, Family.CONSTRUCTION

METHODS: dict[str, About] = {
    "l2": About(
        "L2", _PENALTY, "weights, importances", NOT_NEEDED, _SOFT, "kirkpatrick2017", "Kirkpatrick et al. 2017"
    ),
    "ewc": About(
        "EWC", _PENALTY, "weights, importances", NOT_NEEDED, _SOFT, "kirkpatrick2017",
        "Kirkpatrick et al. 2017",
    ),
    "ewc-online": About(
        "EWC online", _PENALTY, "weights, importances", NOT_NEEDED, _SOFT, "schwarz2018", "Schwarz et al. 2018"
    ),
    "si": About("SI", _PENALTY, "weights, importances", NOT_NEEDED, _SOFT, "zenke2017", "Zenke et al. 2017"),
    "mas": About(
        "MAS", _PENALTY, "weights, importances", NOT_NEEDED, _SOFT, "aljundi2018", "Aljundi et al. 2018"
    ),
    "lwf": About("LwF", _PENALTY, "network before the task", NOT_NEEDED, _SOFT, "li2016", "Li & Hoiem 2016"),
    "intact": About(
        "InTAct", _PENALTY, "ranges of activations", NOT_NEEDED, _SOFT, "intact2025",
        "Krukowski et al. 2025",
    ),
    "hnet": About(
        "HNET", _HYPER, "an embedding a task", INFERRED, "none", "oswald2020",
        "von Oswald et al. 2020",
    ),
    "hnet-lstm": About(
        "HNET-LSTM", _HYPER, "an embedding a task", INFERRED, "none", "chandra2023",
        "Chandra et al. 2023",
    ),
    "hypermask": About(
        "HyperMask", _HYPER, "an embedding a task", INFERRED, "none",
        "ksiazek2023", "Ksiazek & Spurek 2023",
    ),
    "intercontinet": About(
        "InterContiNet", Family.INTERVALS, "one box of weights", NOT_NEEDED, _BOX, "wolczyk2022", "Wolczyk et al. 2022"
    ),
    "intercontinet-released": About(
        "InterContiNet, released", Family.INTERVALS, "one box of weights", NOT_NEEDED, _BOX, "wolczyk2022",
        "Wolczyk et al. 2022",
    ),
    "hyperinterval": About(
        "HyperInterval", Family.INTERVALS, "a box of embeddings a task", INFERRED_IN_CIL,
        "certified answers stay in the box", "krukowski2024", "Krukowski et al. 2024",
    ),
    "lid": About(
        "LID", Family.INTERVALS, "one or more boxes of weights", NOT_NEEDED, _BOX, "elmecker2025",
        "Elmecker-Plakolm et al. 2025",
    ),
    "separate": About("Separate networks", _FIXED, "a network a task", INFERRED, _EXACT),
    "packnet": About(
        "PackNet", _FIXED, "an owner of each weight", INFERRED, _EXACT, "mallya2018", "Mallya & Lazebnik 2018"
    ),
    "wsn": About("WSN", _FIXED, "a mask a task, shared weights", INFERRED, _EXACT, "kang2022", "Kang et al. 2022"),
    "supsup": About(
        "SupSup", _FIXED, "a mask a task", INFERRED, _EXACT, "wortsman2020", "Wortsman et al. 2020"
    ),
    "hat": About("HAT", _FIXED, "gates a task", INFERRED, _EXACT, "serra2018", "Serra et al. 2018"),
    "gpm": About(
        "GPM", _FIXED, "bases of old inputs", NOT_NEEDED, "answers stay on the kept span",
        "saha2021", "Saha et al. 2021",
    ),
    "analytic": About(
        "Analytic", Family.CLOSED_FORM, "sums over features (TIL: a head a task)", NOT_NEEDED,
        "head equal to joint training; TIL: old answers unchanged", "zhuang2022", "Zhuang et al. 2022",
    ),
    "finetune": About("Fine-tuning", Family.REFERENCES, "nothing", NOT_NEEDED, _SOFT),
    "joint": About("Joint", Family.REFERENCES, "data of all tasks", NOT_NEEDED, _SOFT),
}  # fmt: skip
"""Methods by id, family by family. HyperInterval is made by a hypernetwork, but promises what interval methods do."""


ROWS = {f"wsn-{c}": f"WSN (c = {c})" for c in ("0.03", "0.05", "0.1", "0.3", "0.7")}
"""Display names of published rows that are variants of a method; those of records are named by their values."""
SYMBOLS = {("wsn", "capacity"): "c"}
"""Symbols that papers use for hyperparameters, by method and hyperparameter."""


class Label(str):
    """Id of a row, as CSV files have it, together with its name for readers and its method.

    A label is a text for every dictionary, table and file; `display` alone shows its name.
    """

    shown: str
    method: str

    def __new__(cls, text: str, shown: str = "", method: str = "") -> Label:
        found = super().__new__(cls, text)
        found.shown, found.method = shown, method
        return found


def display(label: str) -> str:
    """Name of a row for readers: `ewc (strength=9)` -> `EWC (strength = 9)`; an unknown name stays."""
    if isinstance(label, Label) and label.shown:
        return label.shown
    name, bracket, rest = label.partition(" (")
    about = METHODS.get(name)
    return (about.name if about else ROWS.get(name, name)) + bracket + rest.replace("=", " = ")


def family(method: str) -> Family:
    """Family of a method's id; a method that is not shipped is the user's own."""
    about = METHODS.get(method)
    return about.family if about else Family.OWN


def place(method: str) -> int | None:
    """Place of a shipped method in its family, from 0; None for a user's own."""
    about = METHODS.get(method)
    return None if about is None else [n for n, a in METHODS.items() if a.family is about.family].index(method)


def citation(label: str) -> str:
    """Key in references.bib of a row's method; empty without one."""
    method = label.method if isinstance(label, Label) else ""
    about = METHODS.get(method or label.partition(" (")[0])
    return about.cite if about else ""
