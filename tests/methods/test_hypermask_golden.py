"""HyperMask against the official program's recorded numbers: networks, steps, trajectories, task inference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.samples import Batch, Samples
from benchmarks.types import CIL, DIL, TIL, Budget, Scenario, StreamSpec, Task
from methods import base
from methods.hypermask import Before, HyperMask, LossTerms
from tests.methods import golden
from tests.methods.masked_norm import with_norm

GOLD = golden.group(golden.load("interval"), "hm")
RUNS = ("train_masked", "train_plain", "train_l2norm")


def as_percent(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def recorded_method(run: str, scenario: Scenario = TIL) -> HyperMask:
    """HyperMask in float64 with the shapes, settings and first parameters of a recorded run."""
    cfg = {key: value.item() for key, value in golden.group(GOLD, f"{run}/cfg").items()}
    config = HyperMask.Config(
        lr=cfg["lr"], embedding=5, hidden=(7, 6), sparsity=cfg["sparsity"],
        adaptive_sparsity=cfg["adaptive"], beta=cfg["beta"], lam=cfg["lam"], norm=cfg["norm"],
        masked_norm=cfg["masking"], regulariser_norm="official",
    )  # fmt: skip
    method = HyperMask(StreamSpec("golden", scenario, 3, 2, (10,), "mlp-8-6"), config)
    method.hypernetwork.double()
    set_parameters(method, golden.group(GOLD, f"{run}/init"))
    return method


def set_parameters(method: HyperMask, arrays: dict[str, np.ndarray]) -> None:
    """h0.. are the embeddings, then the hypernetwork's tensors; t0.. the target's."""
    tensors = golden.tensors(arrays)
    n_tasks, n_targets = method.spec.n_tasks, len(method.target.sizes)
    method.embeddings.data = torch.stack([tensors[f"h{i}"] for i in range(n_tasks)])
    for i, p in enumerate(method.hypernetwork.parameters()):
        p.data = tensors[f"h{n_tasks + i}"]
    method.weights.data = torch.cat([tensors[f"t{i}"].flatten() for i in range(n_targets)])


def tensors_of(method: HyperMask, gradients: bool = False) -> dict[str, Tensor]:
    """Parameters, or their gradients, under their recorded names."""
    leaves = [method.embeddings, *method.hypernetwork.parameters(), method.weights]
    embeddings, *hypernetwork, weights = [leaf.grad if gradients else leaf.detach() for leaf in leaves]
    named = {f"h{i}": row for i, row in enumerate(embeddings)}
    named |= {f"h{len(named) + i}": value for i, value in enumerate(hypernetwork)}
    shapes = method.target.weight_shapes.values()
    parts = weights.split(method.target.sizes)
    return named | {f"t{i}": part.view(shape) for i, (part, shape) in enumerate(zip(parts, shapes, strict=True))}


def recorded_task(run: str, task: int) -> Task:
    arrays = golden.tensors(golden.group(GOLD, f"{run}/task{task}"))
    x, y = arrays["x"].flatten(0, 1), arrays["y"].flatten()
    samples = Samples(x, torch.arange(len(x)), y, task)
    return Task(task, samples, samples, Budget(arrays["x"].shape[1], steps=arrays["x"].shape[0]), 0)


def in_recorded_order(n_samples: int, batch_size: int, *_: object):
    yield from torch.arange(n_samples).view(-1, batch_size)


# -- networks -----------------------------------------------------------------------------------------


def test_batch_norm_is_not_masked_and_the_rest_is_as_recorded() -> None:
    method = with_norm()
    assert list(method.target.affine_shapes) == ["3.weight", "3.bias"]
    method.weights.data = torch.cat([torch.from_numpy(GOLD[f"apply_bn2/w{i}"]).flatten() for i in range(2, 8)])
    outputs = torch.cat([torch.from_numpy(GOLD[f"mask/h{i}"]).flatten() for i in range(6)])
    masked = method.masked_weights(method.mask(outputs, as_percent(30.0)))
    expected = np.concatenate([GOLD[f"apply_bn2/masked{i}"].ravel() for i in range(2, 8)])
    golden.assert_close(masked, expected, 1e-9)


def test_hypernetwork_and_masked_network_answer_as_recorded() -> None:
    method = recorded_method("train_masked")
    outputs = method.hypernetwork(method.embeddings)
    sizes = method.target.sizes
    for task in range(3):
        for i, part in enumerate(outputs[task].split(sizes)):
            golden.assert_close(part, GOLD[f"hnet_forward/task{task}/o{i}"].ravel(), 1e-9)
    masked = np.concatenate([GOLD[f"masked_forward/w{i}"].ravel() for i in range(6)])
    golden.assert_close(method.weights_of(0), masked, 1e-9)
    logits = method.predict(torch.from_numpy(GOLD["masked_forward/x"]), 0)
    golden.assert_close(logits, GOLD["masked_forward/logits"], 1e-9)


# -- training -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", RUNS)
def test_training_follows_the_recorded_trajectory(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "batch_order", in_recorded_order)
    method = recorded_method(run)
    log: list[tuple[float, ...]] = []
    loss_terms = method.loss_terms

    def logged(*args: object) -> LossTerms:
        terms = loss_terms(*args)
        log.append(tuple(value.item() for value in (method.total(terms, args[1]), *terms)))
        return terms

    monkeypatch.setattr(method, "loss_terms", logged)
    for t in range(3):
        task = recorded_task(run, t)
        method.begin(task)
        method.learn(task)
        for key, value in golden.group(GOLD, f"{run}/end{t}").items():
            golden.assert_close(tensors_of(method)[key], value, 1e-5, f"end{t} {key}")
        for s in range(t + 1):
            test = golden.tensors(golden.group(GOLD, f"{run}/task{s}"))
            right = (method.predict(test["x_test"], s).argmax(1) == test["y_test"]).double().mean()
            assert 100 * right.item() == pytest.approx(GOLD[f"{run}/test_accuracy_percent"][t, s], abs=1e-4)
    golden.assert_close(torch.tensor(log, dtype=torch.float64), GOLD[f"{run}/log"][:, 2:], 1e-5, "log")


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(("t", "iteration"), [(0, "0"), (0, "last"), (2, "0"), (2, "last")])
def test_gradients_equal_the_recorded_ones(run: str, t: int, iteration: str) -> None:
    method = recorded_method(run)
    method.begin(recorded_task(run, t))
    method.statistics = [{}, {}, {}]
    step = f"{run}/step_task{t}_it{iteration}"
    set_parameters(method, golden.group(GOLD, f"{step}/param"))
    arrays = golden.tensors(golden.group(GOLD, f"{run}/task{t}"))
    k, steps = (0 if iteration == "0" else len(arrays["x"]) - 1), len(arrays["x"])
    before = recorded_memory(run) if t == 2 else None
    ramps = method.config.adaptive_sparsity and t == 0
    sparsity = method.sparsity(k + 1, steps) if ramps else method.sparsity()
    terms = method.loss_terms(Batch(arrays["x"][k], arrays["y"][k], t), t, before, sparsity)
    method.total(terms, t).backward()
    actual, expected = tensors_of(method, gradients=True), golden.group(GOLD, f"{step}/grad")
    for key, value in actual.items():
        golden.assert_close(value, expected.get(key, np.zeros_like(value)), 1e-9, key)


def recorded_memory(run: str) -> Before:
    sizes = range(6)
    outputs = [np.concatenate([GOLD[f"{run}/task2_targets/task{s}/o{i}"].ravel() for i in sizes]) for s in range(2)]
    weights = np.concatenate([GOLD[f"{run}/task2_previous/t{i}"].ravel() for i in sizes])
    return Before(torch.from_numpy(np.stack(outputs)), torch.from_numpy(weights))


# -- answers without a task id ------------------------------------------------------------------------


def answering(logits: Tensor, scenario: Scenario) -> HyperMask:
    """A method whose masked networks give these logits (tasks, b, C), whatever the input."""
    n_tasks, _, n_classes = logits.shape
    method = HyperMask(StreamSpec("fixed", scenario, n_tasks, n_classes, (1,), "mlp-2"))
    method.tasks_seen = n_tasks
    method.logits = lambda x, task: logits[task]  # type: ignore[method-assign]
    return method


def test_entropy_inference_chooses_as_recorded() -> None:
    logits = torch.from_numpy(GOLD["entropy/logits"])
    x = torch.zeros(logits.shape[1], 1)
    method = answering(logits, CIL)
    assert method.infer_task(x).tolist() == GOLD["entropy/task"].tolist()
    assert method.predict(x).argmax(1).tolist() == GOLD["entropy/abs_class"].tolist()
    within = answering(logits, DIL).predict(x)
    assert within.argmax(1).tolist() == (GOLD["entropy/abs_class"] % 2).tolist()


def test_entropy_inference_survives_probabilities_that_underflow() -> None:
    logits = torch.tensor([[[0.0, 1.0]], [[0.0, 500.0]], [[3.0, 0.0]]])
    assert answering(logits, CIL).infer_task(torch.zeros(1, 1)).tolist() == [1]
    assert torch.isfinite(answering(logits, CIL).predict(torch.zeros(1, 1))).all()
