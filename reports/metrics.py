"""Continual-learning metrics: pure functions of the accuracy matrix R.

R is (T+1, T): row 0 is the network before any training, R[i, j] the test accuracy (a fraction) on the
task with index j after learning i tasks; NaN where nothing was measured. In the papers' 1-based notation
R[j, j] is here `R[j + 1, j]`. All values are fractions; an undefined metric is a reason, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
"""(T+1, T) accuracies, NaN where not measured."""


@dataclass(frozen=True)
class Measure:
    """Value of a metric (a fraction), or the reason why there is none."""

    value: float | None
    reason: str = ""


@dataclass(frozen=True)
class Metric:
    """Description of a metric for the tables."""

    key: str
    short: str
    title: str
    higher_is_better: bool
    formula: str
    """Formula in typst's mathematics."""
    source: str


ACC = Metric("acc", "ACC", "average accuracy", True, "1/T sum_(j=1)^T R_(T,j)", "Lopez-Paz & Ranzato 2017")
BWT = Metric(
    "bwt", "BWT", "backward transfer", True, "1/(T-1) sum_(j=1)^(T-1) (R_(T,j) - R_(j,j))", "Lopez-Paz & Ranzato 2017"
)
FORGETTING = Metric(
    "forgetting",
    "F",
    "forgetting",
    False,
    "1/(T-1) sum_(j=1)^(T-1) (max_(j <= l < T) R_(l,j) - R_(T,j))",
    "Chaudhry et al. 2018",
)
FWT = Metric(
    "fwt", "FWT", "forward transfer", True, "1/(T-1) sum_(j=2)^T (R_(j-1,j) - R_(0,j))", "Lopez-Paz & Ranzato 2017"
)
LA = Metric("la", "LA", "learning accuracy", True, "1/T sum_(j=1)^T R_(j,j)", "Riemer et al. 2019")
AIA = Metric(
    "aia", "AIA", "average incremental accuracy", True, "1/T sum_(i=1)^T 1/i sum_(j=1)^i R_(i,j)", "Rebuffi et al. 2017"
)
INTRANSIGENCE = Metric(
    "intransigence",
    "I",
    "intransigence",
    False,
    '1/T sum_(k=1)^T (R_(k,k)^"joint" - R_(k,k))',
    "Chaudhry et al. 2018",
)
STANDING = Metric(
    "standing",
    "standing cert.",
    "standing certified accuracy of old tasks",
    True,
    "1/(T-1) sum_(j=1)^(T-1) h_j C_(j,j)",
    "this suite",
)
"""h_j is 1 if the claim about task j still holds after the last task, else 0."""
CERTIFIED = Metric(
    "certified", "certified ACC", "certified accuracy at the end", True, "1/T sum_(j=1)^T C_(T,j)", "this suite"
)
INFERENCE = Metric("inference", "task inf.", "task-inference accuracy", True, "1/T sum_(j=1)^T I_(T,j)", "this suite")

TABLE_METRICS = (ACC, BWT, FORGETTING, FWT, LA, AIA, INTRANSIGENCE)
"""Accuracy metrics that every record supports, in the order of the tables."""


def acc(r: Matrix) -> Measure:
    """Average accuracy after the last task."""
    return _mean(r[-1], "the row after the last task")


def bwt(r: Matrix) -> Measure:
    """Backward transfer: change of the old tasks' accuracy since each was learnt."""
    return _two_tasks(r, lambda: _mean(r[-1, :-1] - _diagonal(r)[:-1], "the last row or the diagonal"))


def forgetting(r: Matrix) -> Measure:
    """Forgetting (Chaudhry et al.): best accuracy from learning a task until before the last one, minus the final one.

    Negative if the last task improved the old ones.
    """

    return _two_tasks(r, lambda: _mean(_peaks(r)[-2, :-1] - r[-1, :-1], "the lower triangle"))


def fwt(r: Matrix, scenario: str) -> Measure:
    """Forward transfer: the next task before it is learnt, against the untrained network; not in CIL."""
    if scenario == "cil":
        return Measure(None, "FWT is not defined in CIL: unseen classes cannot be answered")

    def value() -> Measure:
        later = np.arange(1, r.shape[1])
        return _mean(r[later, later] - r[0, later], "the row before training or the next task")

    return _two_tasks(r, value)


def learning_accuracy(r: Matrix) -> Measure:
    """Accuracy on each task just after learning it; ACC = LA + (T-1)/T BWT."""
    return _mean(_diagonal(r), "the diagonal")


def average_incremental_accuracy(r: Matrix) -> Measure:
    """Mean over i of the average accuracy on the i tasks learnt so far."""
    return _mean(accuracy_so_far(r), "the lower triangle")


def intransigence(r: Matrix, reference: Matrix | None) -> Measure:
    """Intransigence: deficit on each new task against the reference, joint training on all tasks so far."""
    if reference is None:
        return Measure(None, "intransigence needs a finished joint run of the same seed")
    if reference.shape != r.shape:
        return Measure(None, "the joint run of the same seed has another number of tasks")
    return _mean(_diagonal(reference) - _diagonal(r), "the diagonal")


def standing(c: Matrix, holding: Collection[int]) -> Measure:
    """Mean over old tasks of the accuracy certified when each was learnt, 0 where the claim about it no longer holds.

    c: certified accuracies, shaped like R. holding: indices of the tasks whose claims hold after the last task. The
    last task is left out: nothing was learnt after it, so its claim holds trivially.
    """

    def value() -> Measure:
        old = _diagonal(c)[:-1]
        return _mean(np.where([task in holding for task in range(len(old))], old, 0.0), "the diagonal of C")

    return _two_tasks(c, value)


def accuracy_so_far(r: Matrix) -> Matrix:
    """Average accuracy (T,) on tasks 1..i after learning i of them; NaN where a value is missing."""
    tasks = r.shape[1]
    learnt = np.where(np.tri(tasks, dtype=bool), r[1:], 0.0)
    return learnt.sum(axis=1) / np.arange(1, tasks + 1)


def forgetting_so_far(r: Matrix) -> Matrix:
    """Forgetting (T-1,) after learning 2..T tasks, over the tasks seen by then; NaN where a value is missing."""
    tasks = r.shape[1]
    lost = np.where(np.tri(tasks - 1, tasks, dtype=bool), _peaks(r)[1:-1] - r[2:], 0.0)
    return lost.sum(axis=1) / np.arange(1, tasks)


def _peaks(r: Matrix) -> Matrix:
    """Best accuracy (T+1, T) on each task in the rows from its learning to this one; -inf before it is learnt."""
    learnt = np.tri(*r.shape, k=-1, dtype=bool)
    return np.maximum.accumulate(np.where(learnt, r, -np.inf), axis=0)


def _diagonal(r: Matrix) -> Matrix:
    return np.diagonal(r[1:])


def _two_tasks(r: Matrix, value: Callable[[], Measure]) -> Measure:
    return value() if r.shape[1] > 1 else Measure(None, "undefined: needs 2 tasks")


def _mean(values: Matrix, where: str) -> Measure:
    mean = float(np.add.reduce(values)) / len(values)
    return Measure(None, f"{where} of R was not measured in full") if math.isnan(mean) else Measure(mean)
