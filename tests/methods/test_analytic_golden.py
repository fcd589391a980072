"""Analytic learning against numbers recorded from its official code (`acil/*` of the golden vectors)."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.types import CIL, StreamSpec
from methods import analytic
from methods.analytic import Analytic
from methods.shared import expansions
from tests.methods.golden import assert_close, group, load
from tests.methods.regularised import learn_all, make_task

HEAD, KERNELS = 1e-8, 1e-5
"""Tolerances of the golden README."""


def recorded(prefix: str = "") -> dict[str, Any]:
    return group(load("frontier"), f"acil/{prefix}".rstrip("/"))


def array(name: str) -> Tensor:
    return torch.from_numpy(recorded()[name].copy())


def meta() -> dict[str, Any]:
    return json.loads(str(recorded()["json"]))


def phases() -> list[Any]:
    return [make_task(t, array(f"{t}/x"), array(f"{t}/y"), meta()["batch"], 1) for t in range(meta()["tasks"])]


def made(monkeypatch: pytest.MonkeyPatch, buffer: str = "", batch: int | None = None, **options: Any) -> Analytic:
    """Method with the recorded random matrix, if any, that reads batches of the recorded size."""
    monkeypatch.setattr(analytic, "SAMPLES_AT_ONCE", batch or meta()["batch"])
    spec = StreamSpec("golden", CIL, meta()["tasks"], 2, (meta()["d"],), "mlp", nonnegative_inputs=False)
    size = {"width": meta()["M"], "gamma": meta()["gamma"]}
    method = Analytic(spec, Analytic.Config(**{**size, **options}))
    if buffer:
        method.matrix.values = array(buffer)
    return method


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("solver", ["recursive", "gram"])
def test_acil(bias: bool, solver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = f"bias{int(bias)}"
    method = made(monkeypatch, f"{prefix}/buffer", bias=bias, solver=solver)
    for t, phase in enumerate(phases()):
        learn_all(method, [phase])
        assert_close(method.weights[:, : 2 * (t + 1)], array(f"{prefix}/{t}/weight"), HEAD)
        assert not method.weights[:, 2 * (t + 1) :].any()
        assert_close(method.predict(array("test_x")), array(f"{prefix}/{t}/logits"), HEAD)
        if solver == "recursive":
            assert_close(method.main.inverse, array(f"{prefix}/{t}/R"), HEAD)


def test_acil_reversed(monkeypatch: pytest.MonkeyPatch) -> None:
    method = made(monkeypatch, "bias0/buffer")
    learn_all(method, phases()[::-1])
    assert_close(method.weights, array("reversed/weight"), HEAD)


def test_gkeal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded centres; that they are drawn from other samples is a deviation."""
    options = {"features": "gaussian", "sigma": meta()["sigma"], "width": meta()["K"]}
    method = made(monkeypatch, **options)
    monkeypatch.setattr(method, "prepare", lambda _: None)
    method.centres = array("gkeal/centres")
    assert_close(method.streams(array("test_x"))[0], array("gkeal/features"), KERNELS)
    for t, phase in enumerate(phases()):
        learn_all(method, [phase])
        assert_close(method.weights[:, : 2 * (t + 1)], array(f"gkeal/{t}/weight"), KERNELS)


def test_gkeal_centres() -> None:
    """The official ones are the first samples; too few are completed by mixtures."""
    x, more = array("0/x"), array("gkeal/more_centres")
    chosen = x[expansions.chosen_samples(len(x), meta()["K"], "official")]
    ours, theirs = (rows[rows[:, 0].argsort()] for rows in (chosen, array("gkeal/centres")))
    assert torch.equal(ours, theirs)
    samples = x[expansions.chosen_samples(len(x), len(more), "official")]
    torch.manual_seed(meta()["seed"] + 2)
    assert_close(expansions.completed(samples, len(more), "official"), more, KERNELS)


@pytest.mark.parametrize("batch", [6, 1000])
def test_dsal_by_whole_phases(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever our batches are. The official code gives the same for whole phases only."""
    factor = meta()["C"]
    # the recorded second ridge has a gamma of its own
    method = made(monkeypatch, "dsal/buffer", batch, stream="dual", compensation=factor)
    method.second.gamma = meta()["gamma_comp"]
    rows = meta()["M"]
    for t, phase in enumerate(phases()):
        learn_all(method, [phase])
        main, second = method.weights[:, : 2 * (t + 1)].split([rows, rows])
        assert_close(main, array(f"dsal/phase/{t}/main"), HEAD)
        assert_close(second, factor * array(f"dsal/phase/{t}/comp"), HEAD)
        assert_close(method.predict(array("test_x")), array(f"dsal/phase/{t}/logits"), HEAD)
    theirs = array("dsal/batch/2/comp") - array("dsal/phase/2/comp")
    assert float(theirs.abs().max()) > 1e3 * HEAD, "theirs depends on the batches"


def test_air(monkeypatch: pytest.MonkeyPatch) -> None:
    method = made(monkeypatch, "bias0/buffer", balance=True)
    for t, phase in enumerate(phases()):
        learn_all(method, [phase])
        assert_close(method.weights[:, : 2 * (t + 1)], array(f"air/{t}/weight"), HEAD)
