"""Checks of a method's conduct: forbidden data, randomness, resuming, device, promises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.types import TIL
from methods.base import Certifying
from runners.cell import reach, stated
from runners.cell.kept_images import images_kept
from runners.conformance.check import Check
from runners.conformance.rounding import Magnitude
from runners.conformance.trial import BENCHMARK, BOUNDED, Trial, equal, packed, unpacked

DRAWS = 50
"""Networks drawn from each certified region."""
KNOWN = 0.95
"""Accuracy on each of two tasks that no untrained network has."""


def _randomness(trial: Trial) -> Iterator[str]:
    yield from dict.fromkeys(trial.run.watch.randomness)


def _test_data(trial: Trial) -> Iterator[str]:
    stream, size = trial.stream, BENCHMARK.stored_shape[1] * BENCHMARK.stored_shape[2]
    yield from dict.fromkeys(trial.run.watch.test_data)
    if (right := trial.run.untrained) > KNOWN:
        yield f"before any training it is right for {right:.0%} of the test samples, as if it knew their labels"
    trained = set().union(
        *(reach.rows_of(part.x) for j in (0, 1) for part in (stream.task(j).train, stream.task(j).validation))
    )
    tested = set().union(*(reach.rows_of(stream.test(j).x) for j in (0, 1))) - trained
    for name, root in (
        ("the task that learn is given", stream.task(1, previous=True)),
        ("the method", trial.run.method),
    ):
        for path, tensor in reach.tensors(root):
            found = reach.kept(tensor, tested, size)
            if found:
                yield f"{name} leads to {len(found)} test samples, by {path.lstrip('.')}"


def _memory(trial: Trial) -> Iterator[str]:
    declared, (found, alike, places) = _declared(trial), _samples_found(trial)
    if found > declared:
        where = ", ".join(place.lstrip(".") for place in places[:3])
        yield f"after training it keeps {found} training samples ({where}), but declares {declared}"
    elif alike > declared:
        yield f"after training it keeps {alike} images like training samples, but declares {declared}"


def _fewer(trial: Trial) -> str:
    """Remark on a method that holds fewer training samples than it declares."""
    declared = _declared(trial)
    found = max(_samples_found(trial)[:2]) if declared else 0
    if found == declared:
        return ""
    return f"it declares {declared} training samples (memory_samples); after two tasks {found} are found in it"


def _declared(trial: Trial) -> int:
    return stated.whole(trial.run.method.memory_samples, "memory_samples")


def _samples_found(trial: Trial) -> tuple[int, int, list[str]]:
    """Training samples in the method: different ones that are the same bit by bit, all that are alike, and places."""
    method, stream = trial.run.method, trial.stream
    size = BENCHMARK.stored_shape[1] * BENCHMARK.stored_shape[2]
    known = set().union(*(reach.rows_of(stream.task(j).x) for j in (0, 1)))
    found: set[bytes] = set()
    places: list[str] = []
    for path, tensor in reach.tensors(method):  # the images of kept `Samples` are among them
        rows = reach.kept(tensor, known, size)
        if rows:
            places.append(path)
            found |= rows
    return len(found), images_kept(method, stream), places


def _resuming(trial: Trial) -> Iterator[str]:
    stream = trial.short
    whole = trial.learn(trial.made(stream), stream, [0])
    saved = packed(whole)
    trial.learn(whole, stream, [1])
    resumed = trial.made(stream)
    resumed.load_state_dict(unpacked(saved))
    if not equal(unpacked(packed(resumed)), unpacked(saved)):
        yield "the state read back from a checkpoint is not the state that was saved"
    trial.learn(resumed, stream, [1])
    for j in (0, 1):
        if not equal(trial.answer(whole, stream.test(j).x, j), trial.answer(resumed, stream.test(j).x, j)):
            yield f"a run resumed after task 0 answers task {j} otherwise than one that was not interrupted"


def _device(trial: Trial) -> Iterator[str]:
    method, wanted = trial.run.method, trial.device.type
    for path, tensor in reach.tensors(method.state_dict()):
        if tensor.device.type != wanted:
            yield f"the tensor {path.lstrip('.')} lies on {tensor.device}, the method was to run on {trial.device}"
    for row in trial.run.answers:
        if row[0].device.type != wanted:
            yield f"logits lie on {row[0].device}, the method was to run on {trial.device}"


def _bounds(trial: Trial) -> Iterator[str]:
    method: Any = trial.run.method
    held = {claim.task: claim.contained for claim in method.audit()}
    sampled = getattr(method, "sampled", None)
    for j in (0, 1):
        x, bounds = trial.stream.test(j).x[:BOUNDED], trial.bounds(method, j)
        if bounds is None:
            continue
        lower, upper = bounds
        if not bool((lower <= upper).all()):
            yield f"for task {j} some lower bounds exceed their upper bounds"
        if lower.shape != trial.answer(method, x, j).shape:
            yield f"for task {j} the bounds have the shape {tuple(lower.shape)}, which is not that of the logits"
            continue
        generator = torch.get_rng_state()
        with torch.no_grad(), Magnitude() as magnitude:
            answers = [trial.answer(method, x, j)] if held.get(j) else []
            answers += [sampled(x, j) for _ in range(DRAWS)] if sampled is not None else []
        torch.set_rng_state(generator)
        outside = [torch.maximum(lower - y, y - upper) for y in answers]
        beyond = [far[~(far <= magnitude.slack(y))] for far, y in zip(outside, answers, strict=True)]
        if worst := max((float(far.max()) for far in beyond if far.numel()), default=0.0):
            yield f"a network of the region certified for task {j} answers {worst:.3g} outside of the bounds"
    if trial.run.bounds and method.unchanged(0) and not equal(trial.bounds(method, 0), trial.run.bounds):
        yield "unchanged(0) is True, but task 0 has other bounds than when it had been learnt"


def _identity_of_order(trial: Trial) -> Iterator[str]:
    """Check that answers do not depend on earlier queries; in TIL, predictions for another task must not matter."""
    method, x = trial.run.method, trial.stream.test(0).x
    first = trial.answer(method, x, 0)
    trial.answer(method, trial.stream.test(1).x, 1)
    with torch.no_grad():
        second = method.predict(x, 0 if trial.scenario is TIL else None)
    if not equal(first, second):
        yield "answers to task 0 change once task 1 has been asked about"


def _rehearses(trial: Trial) -> str:
    return "the method rehearses, and says so" if trial.run.method.rehearses else ""


def _not_resumable(trial: Trial) -> str:
    return "" if trial.cls.resumable else "the method says that it cannot be resumed"


def _certifies_nothing(trial: Trial) -> str:
    return "" if isinstance(trial.run.method, Certifying) else "the method certifies nothing"


CHECKS = (
    Check(
        "global state",
        "building, learning and answering leave Python's and NumPy's generators and torch's settings as they were",
        "Cells run one after the other in one process; what one leaves behind changes the next one's numbers.",
        _randomness,
    ),
    Check(
        "test data",
        "nothing that learn is given leads to test samples, no function fetches them, and none knows their labels "
        "before training (TIL, DIL)",
        "A method that can see the test samples can be tuned or trained on them, even by mistake.",
        _test_data,
    ),
    Check(
        "memory",
        "no training samples are kept unless memory_samples declares them (or rehearses is True)",
        "Rehearsal is another class of methods; tables that mix the two without saying so mislead.",
        _memory,
        _rehearses,
        _fewer,
    ),
    Check(
        "resuming",
        "state_dict holds all that is needed to go on, bit for bit (or resumable is False)",
        "Long runs are interrupted; a resumed run that differs is a wrong number without a sign of it.",
        _resuming,
        _not_resumable,
    ),
    Check(
        "order of questions",
        "answers do not depend on what was asked before",
        "The runner asks about all tasks, one after the other, and in any order.",
        _identity_of_order,
    ),
    Check(
        "device",
        "all tensors of the state, and the logits, lie on the device asked for",
        "A tensor left behind is copied at every step, or stops the run on a GPU.",
        _device,
    ),
    Check(
        "bounds",
        "networks drawn from a certified region answer within its bounds",
        "One answer outside refutes the certificate, and with it every certified accuracy in the tables.",
        _bounds,
        _certifies_nothing,
    ),
)
