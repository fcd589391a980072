"""Test accuracy, certified accuracy and task inference of a method, in batches, without gradients, in IEEE float32."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from benchmarks import strata
from benchmarks.samples import Samples
from benchmarks.stream import Stream
from benchmarks.types import CIL, TIL, UserError
from methods.base import Certifying, Inferring, Method
from reports.schema import NAN, ClaimRow
from runners.cell import independence, stated
from runners.cell.finite import NotFinite
from runners.process.precision import ieee_float32, in_force
from runners.records.record import Measurements

TRAINING_SAMPLES = 10_000
"""At most so many training samples of a task are certified, drawn from the seed with the classes in proportion."""


@dataclass(frozen=True)
class _Counts:
    """Counts of one pass over a task's test samples; 0-d tensors, fetched once for all tasks."""

    n: int
    answers: int
    """Classes that were answered over."""
    right: Tensor
    not_a_number: Tensor
    infinite: Tensor
    certified: Tensor | None = None
    refuted: Tensor | None = None
    """Certified, and answered wrongly all the same."""
    inferred: Tensor | None = None
    logit_width: Tensor | None = None


class Evaluator:
    """Evaluator that fills the matrices row by row; the method learns the task id in TIL only."""

    def __init__(self, method: Method, stream: Stream, batch_size: int) -> None:
        self.method, self.stream, self.batch_size = method, stream, batch_size
        self.scenario = stream.spec.scenario
        self.certifies = isinstance(method, Certifying)
        self.precision = ""
        """Of the products of float32 in the latest evaluation."""
        self.answers: dict[int, Tensor] = {}
        """Of each task, logits of some test samples after the last task; see runners.cell.independence."""
        self.settled: dict[tuple[int, int], tuple[Tensor | None, Tensor | None]] = {}
        """Certificates of a task's test samples that hold until its region changes, by task and number of answers."""

    @torch.no_grad()
    @ieee_float32()
    def measure(self, after: int, measured: Measurements) -> None:
        """Measure row `after` of all matrices and the method's claims. Raises NotFinite."""
        self.precision = in_force(self.method.device.type == "cuda")
        known = after if self.scenario == CIL else min(after + 1, len(self.stream))
        asked = range(len(self.stream)) if after == 0 and self.scenario != CIL else range(known)
        counts = {j: self._count(j, after) for j in asked}
        learnt = f"after {after} of {len(self.stream)} tasks"
        for j, count in counts.items():
            if bool(count.not_a_number):
                raise NotFinite(f"predictions for task {j} {learnt} are not numbers")
            if bool(count.infinite):
                raise NotFinite(f"predictions for task {j} {learnt} are infinite")
            measured.accuracy[after][j] = int(count.right) / count.n
            if count.certified is not None:
                measured.certified[after][j] = int(count.certified) / count.n
            if count.inferred is not None:
                measured.inferred[after][j] = int(count.inferred) / count.n
        if after and self.certifies:
            measured.claims += self._claims(after, measured, counts)

    def _count(self, j: int, after: int) -> _Counts:
        samples, learnt = self.stream.test(j), j < after
        if len(samples) == 0:
            raise UserError(f"{self.stream.benchmark.name}: task {j} has no samples to be judged on")
        zero = torch.zeros((), dtype=torch.int64, device=samples.device)
        right, broken, infinite = [], zero.clone(), zero.clone()
        task_id = j if self.scenario == TIL else None
        infers = self.method if learnt and self.scenario == CIL and isinstance(self.method, Inferring) else None
        inferred = zero.clone() if infers else None
        spec = self.stream.spec
        answers = spec.outputs_before(max(1, after)) if self.scenario == CIL else spec.classes_of(j)
        last = after == len(self.stream)
        picks = independence.picked(len(samples), len(self.stream)).tolist() if last else []
        kept, begun = [], 0
        for batch in samples.batches(self.batch_size):
            logits = self.method.predict(batch.x, task_id)
            logits = stated.answers(logits, self.method, (len(batch.y), answers), samples.device)
            right.append(logits.argmax(1) == batch.y)
            if last:  # an index copies: a method may answer in the same tensor again
                kept.append(logits[[i - begun for i in picks if begun <= i < begun + len(batch.y)]])
                begun += len(batch.y)
            broken += torch.isnan(logits).any()
            infinite += torch.isinf(logits).any()
            if inferred is not None and infers is not None:
                inferred += (stated.tasks(infers.infer_task(batch.x), self.method, len(batch.y)) == j).sum()
        answered = torch.cat(right)
        if last:
            self.answers[j] = torch.cat(kept)
        certified, width = self._test_certificate(samples, j, answers) if learnt and self.certifies else (None, None)
        refuted = None if certified is None else (certified & ~answered).sum()
        certified = None if certified is None else certified.sum()
        return _Counts(len(samples), answers, answered.sum(), broken, infinite, certified, refuted, inferred, width)

    def _test_certificate(self, samples: Samples, j: int, answers: int) -> tuple[Tensor | None, Tensor | None]:
        """`_certificate` of the test samples of task j: computed once while the method says that it stays the same."""
        unchanged = getattr(self.method, "unchanged", lambda task_id: False)
        place = j, answers
        if place not in self.settled or not unchanged(j):
            self.settled.pop(place, None)  # of a task that has changed once, none is taken up again
            found = self._certificate(samples, j, answers)
            if found[0] is None or not unchanged(j):
                return found
            self.settled[place] = found
        return self.settled[place]

    def _certificate(self, samples: Samples, j: int, answers: int) -> tuple[Tensor | None, Tensor | None]:
        """Certificate of each answer over every network in the region of task j, (n,) bool, and the median logit width.

        `bounds` is told the task in every scenario: it names the region that is audited. A method
        that certifies in some scenarios only raises NotImplementedError in the others.
        """
        certified, widths = [], []
        method: Any = self.method
        try:
            for batch in samples.batches(self.batch_size):
                lower, upper = method.bounds(batch.x, j)
                if lower.shape != upper.shape or lower.shape[1] != answers:
                    shapes = f"{tuple(lower.shape)} and {tuple(upper.shape)}"
                    raise ValueError(f"bounds gives {shapes}, but predict answers over {answers} classes")
                certified.append(holds(lower, upper, batch.y))
                widths.append((upper - lower).flatten())
        except NotImplementedError:
            return None, None
        return torch.cat(certified), torch.cat(widths).median()

    def _certified_train(self, j: int, answers: int) -> float:
        """Certified share of the training samples of task j, or of a draw of them that is the same for all methods."""
        part = self.stream.task(j).train
        if len(part) > TRAINING_SAMPLES:
            names = self.stream.seed, self.stream.benchmark.name, "certified", j
            drawn = strata.drawn(part.labels, TRAINING_SAMPLES, *names)
            part = replace(part, rows=part.rows[drawn], labels=part.labels[drawn])
        certified, _ = self._certificate(part, j, answers)
        return NAN if certified is None else int(certified.sum()) / len(part)

    def _claims(self, after: int, measured: Measurements, counts: dict[int, _Counts]) -> list[ClaimRow]:
        rows = []
        method: Any = self.method
        try:
            claims = stated.claims(method.audit(), self.method, after)
        except NotImplementedError:
            return []
        for claim in claims:
            j = int(claim.task)
            promised, accuracy = measured.certified[j + 1][j], measured.accuracy[after][j]
            width, refuted = (counts[j].logit_width, counts[j].refuted) if j in counts else (None, None)
            fell = promised is not None and accuracy is not None and accuracy < promised
            rows.append(
                ClaimRow(
                    after=after,
                    task=j,
                    contained=bool(claim.contained),
                    outside=int(claim.outside),
                    drift=float(claim.drift),
                    median_width=float(claim.median_width),
                    median_logit_width=NAN if width is None else float(width),
                    violation=fell or (refuted is not None and bool(refuted)),
                    reason=str(claim.reason),
                    certified_train=self._certified_train(j, counts[j].answers) if j == after - 1 else NAN,
                )
            )
        return rows


def holds(lower: Tensor, upper: Tensor, y: Tensor) -> Tensor:
    """Check whether the true logit's lower bound exceeds all other upper bounds: (b, c), (b, c), (b,) -> (b,) bool."""
    if lower.shape[1] == 1:
        return torch.isfinite(lower[:, 0])
    true = torch.nn.functional.one_hot(y, lower.shape[1]).bool()
    rivals = upper.masked_fill(true, -math.inf)
    floor = lower.gather(1, y[:, None]).squeeze(1)
    # The maximum passes NaN on, and a comparison with NaN is false: an undefined bound certifies nothing.
    return floor > rivals.max(dim=1).values


def accuracy_so_far(measured: Measurements, after: int) -> float | None:
    """Mean accuracy over the tasks learnt, or None before the first."""
    values = [value for value in measured.accuracy[after][:after] if value is not None]
    return fmean(values) if values else None
