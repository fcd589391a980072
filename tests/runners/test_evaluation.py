"""What evaluation itself adds: its arithmetic, and the check of every certified sample's answer."""

import pytest
import torch
from torch.backends import cuda, cudnn

from benchmarks.types import CIL, TIL
from methods.base import Claim, Method
from runners.cell.evaluation import Evaluator, NotFinite
from runners.cell.execution import run_cell
from runners.process.precision import in_force
from runners.records.record import Measurements, Record, Status
from tests.methods.helpers import opened
from tests.runners.helpers import cells, job, silent


class Knows(Method):
    """Has seen the labels; certifies all its answers, and may then give another one."""

    answers_wrongly, reach = False, 0.1
    precision: list[str]

    def build(self) -> None:
        self.precision = []
        self.labels: dict[bytes, int] = {}

    def learn(self, task) -> None: ...

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        self.precision.append(in_force(True) + in_force(False))
        y = torch.tensor([self.labels.get(row.numpy().tobytes(), 0) for row in x])
        return torch.nn.functional.one_hot(y, self.spec.classes_per_task).float()

    def predict(self, x, task_id=None):
        logits = self.logits(x)
        return logits.flip(1) if self.answers_wrongly and task_id == 0 else logits

    def bounds(self, x, task_id=None):
        logits = self.logits(x)
        return logits - self.reach, logits + self.reach

    def audit(self) -> list[Claim]:
        return [Claim(j, True, 0, 0.0, 0.2) for j in range(self.tasks_seen)]


def evaluated(method: Knows, stream, after: int, measured: Measurements) -> Evaluator:
    method.tasks_seen = after
    evaluator = Evaluator(method, stream, 50)
    evaluator.measure(after, measured)
    return evaluator


def knowing():
    stream = opened(TIL)
    method = Knows(stream.spec)
    for j in (0, 1):
        test = stream.test(j)
        method.labels |= {row.numpy().tobytes(): int(y) for row, y in zip(test.x, test.labels, strict=True)}
    return method, stream, Measurements.empty(2)


def test_a_certified_sample_that_is_answered_wrongly_is_a_violation_even_where_accuracy_does_not_show_it():
    method, stream, measured = knowing()
    evaluated(method, stream, 1, measured)
    assert [claim.violation for claim in measured.claims] == [False]
    method.answers_wrongly = True
    measured.certified[1][0] = 0.0  # accuracy stays above what was promised
    evaluated(method, stream, 2, measured)
    assert [claim.violation for claim in measured.claims[1:]] == [True, False]


def test_an_accuracy_below_the_certificate_is_a_violation_even_where_nothing_is_certified_any_more():
    method, stream, measured = knowing()
    evaluated(method, stream, 1, measured)
    method.answers_wrongly, method.reach = True, 10.0
    evaluated(method, stream, 2, measured)
    assert measured.certified[1][0] == 1 and measured.certified[2][0] == 0
    assert [claim.violation for claim in measured.claims[1:]] == [True, False]


def test_the_width_of_logits_is_their_median(monkeypatch):
    """Of each batch the first sample is a hundred times less certain."""
    method, stream, measured = knowing()

    def bounds(x, task_id=None):
        logits, reach = method.logits(x), torch.full((len(x), 1), 0.1)
        reach[0] = 10.0
        return logits - reach, logits + reach

    monkeypatch.setattr(method, "bounds", bounds)
    evaluated(method, stream, 1, measured)
    assert measured.claims[0].median_logit_width == pytest.approx(0.2, abs=1e-6)


def test_an_unchanged_region_is_certified_once(monkeypatch):
    """Of three tasks' ends: bounds of task 0 are asked for once, and again when the method says that they changed."""
    method, stream, measured = knowing()
    asked, changed = [], set()
    bounds = method.bounds
    monkeypatch.setattr(method, "bounds", lambda x, j: (asked.append(j), bounds(x, j))[1])
    monkeypatch.setattr(method, "unchanged", lambda j: j not in changed, raising=False)
    evaluator = Evaluator(method, stream, 1000)

    def certified(after: int) -> tuple[float | None, int]:
        asked.clear()
        method.tasks_seen = after
        evaluator.measure(after, measured)
        return measured.certified[after][0], asked.count(0)

    assert certified(1) == (1, 2)  # test and training samples
    method.reach = 10.0
    assert certified(2) == (1, 0)
    changed.add(0)
    assert certified(2) == (0, 1)
    assert certified(2) == (0, 1), "what has changed is certified every time"
    changed.clear()
    method.reach = 0.1
    assert certified(2) == (1, 1), "no certificate of the time when it had changed is taken up again"


def test_a_certificate_against_more_classes_is_another_one(monkeypatch):
    """In CIL the classes of task 1 are rivals, here stronger ones, of the answers to task 0, whose region stays."""
    stream = opened(CIL)
    method, measured = Knows(stream.spec), Measurements.empty(2)
    test = stream.test(0)
    method.labels = {row.numpy().tobytes(): int(y) for row, y in zip(test.x, test.labels, strict=True)}
    known = method.logits

    def logits(x: torch.Tensor, task_id: int | None = None) -> torch.Tensor:
        return torch.cat([known(x), torch.full((len(x), 2 * (method.tasks_seen - 1)), 2.0)], 1)

    monkeypatch.setattr(method, "logits", logits)
    monkeypatch.setattr(method, "unchanged", lambda j: True, raising=False)
    evaluator = Evaluator(method, stream, 1000)
    for after in (1, 2):
        method.tasks_seen = after
        evaluator.measure(after, measured)
    assert [measured.certified[after][0] for after in (1, 2)] == [1.0, 0.0]


def test_answers_and_bounds_are_computed_in_ieee_float32_whatever_training_uses():
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    method, stream, measured = knowing()
    torch.set_float32_matmul_precision("medium")
    cudnn.allow_tf32 = True
    try:
        evaluator = evaluated(method, stream, 1, measured)
        assert set(method.precision) == {2 * "matmul ieee, convolution ieee"}
        assert evaluator.precision == "matmul ieee, convolution ieee"
        assert cuda.matmul.allow_tf32 and cudnn.allow_tf32 and torch.get_float32_matmul_precision() == "medium"
        method.logits = lambda x: torch.full((len(x), 2), torch.nan)  # type: ignore[method-assign]
        with pytest.raises(NotFinite):
            evaluated(method, stream, 2, measured)
        assert cuda.matmul.allow_tf32 and cudnn.allow_tf32 and torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32 = before[1]


def test_the_record_says_in_which_precision_it_was_trained_and_evaluated(tmp_path):
    [cell] = cells("finetune")
    assert run_cell(job(cell, tmp_path), silent) is Status.DONE
    record = Record.from_json((cell.folder(tmp_path) / "cell.json").read_text())
    assert record.environment["evaluation_precision"] == "matmul ieee, convolution ieee"
    assert record.environment["training_precision"] == "matmul ieee, convolution ieee"


def test_the_training_samples_that_are_certified_are_a_draw_where_there_are_many(monkeypatch):
    """Not the first rows, which may be of one class: of 300 samples, sorted by class, 100 are looked at."""
    from runners.cell import evaluation

    stream = opened(TIL)
    method, looked_at = Knows(stream.spec), []

    def bounds(x, task_id=None):
        looked_at.append(x)
        return method.logits(x) - 0.1, method.logits(x) + 0.1

    method.bounds = bounds  # type: ignore[method-assign]
    train = stream.task(0).train
    method.labels = {row.numpy().tobytes(): int(y) for row, y in zip(train.x, train.labels, strict=True)}
    n = len(train) // 2

    def share(limit: int) -> torch.Tensor:
        looked_at.clear()
        monkeypatch.setattr(evaluation, "TRAINING_SAMPLES", limit)
        assert Evaluator(method, stream, 50)._certified_train(0, 2) == 1.0
        return torch.cat(looked_at)

    generator = torch.get_rng_state()
    assert torch.equal(share(len(train)), train.x), "all where there are no more"
    drawn = share(n)
    assert torch.equal(torch.get_rng_state(), generator), "the draw has a generator of its own"
    assert len(drawn) == n and torch.equal(drawn, share(n)) and not torch.equal(drawn, train.x[:n])
    found = torch.tensor([method.labels[row.numpy().tobytes()] for row in drawn]).bincount()
    wanted = train.labels.bincount() * n / len(train)
    assert (found - wanted).abs().max() < 1
