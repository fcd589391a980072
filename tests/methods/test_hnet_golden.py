"""HNET equals the official codes on recorded regularisers, steps and trajectories (float64)."""

import pytest
import torch
from torch import nn

from benchmarks.types import CIL, DIL, TIL
from methods.base import Batch
from tests.methods.golden import assert_close, group
from tests.methods.hyper_golden import CONFIG, GOLDEN, hnet, stored_order, test_samples, trajectory_task


@pytest.fixture(params=["hnet", "chunked"])
def step(request):
    g = group(GOLDEN, request.param)
    method = hnet(TIL, group(g, "param"), chunked=request.param == "chunked")
    if request.param == "chunked":
        method.hypernetwork.chunk_first = True  # hypnettorch's input order
    t = int(g["task"])
    batch = Batch(torch.from_numpy(g["x"]), torch.from_numpy(g["y"]).long(), t)
    return g, method, t, nn.Parameter(method.embeddings[t : t + 1].clone()), batch


def test_generated_weights_logits_and_task_loss(step):
    g, method, _t, embedding, batch = step
    assert_close(method.hypernetwork(method.embeddings).detach(), g["weights"], 1e-9)
    own = method.hypernetwork(embedding)[0]
    assert_close(method.target(own, batch.x).detach(), g["logits"], 1e-9)
    assert_close(method.task_loss(own, batch).detach(), g["loss_task"], 1e-9)


def test_regulariser_without_look_ahead(step):
    g, method, t, embedding, batch = step
    total = method.loss(t, embedding, torch.from_numpy(g["targets"]))(batch)
    expected = float(g["loss_task"]) + CONFIG["hnet_cfg"]["beta"] * float(g["reg/plain"])
    assert float(total.detach()) == pytest.approx(expected, rel=1e-9)


def test_regulariser_with_look_ahead(step):
    g, method, t, embedding, batch = step
    optimizer = torch.optim.Adam([*method.hypernetwork.parameters(), embedding], lr=float(g["lr"]))
    total = method.look_ahead_loss(t, embedding, torch.from_numpy(g["targets"]), optimizer)(batch)
    expected = float(g["loss_task"]) + CONFIG["hnet_cfg"]["beta"] * float(g["reg/lookahead"])
    assert float(total.detach()) == pytest.approx(expected, rel=1e-7)


TRAJECTORIES = [
    ("cl1_lookahead", "multihead", TIL, True, False),
    ("cl1", "multihead", TIL, False, False),
    ("cl1_chunked_lookahead", "multihead_chunked", TIL, True, True),
    ("cl2_lookahead", "singlehead", DIL, True, False),
    ("cl3_lookahead", "multihead", CIL, True, False),
]


@pytest.mark.parametrize(("name", "init", "scenario", "look_ahead", "chunked"), TRAJECTORIES)
def test_trajectory(monkeypatch, name, init, scenario, look_ahead, chunked):
    g = group(GOLDEN, f"hnet_traj_{name}")
    method = hnet(scenario, group(GOLDEN, f"hnet_traj_{init}/init"), chunked=chunked, look_ahead=look_ahead)
    stored_order(monkeypatch)
    for t in range(CONFIG["n_tasks"]):
        task = trajectory_task(t, absolute_labels=scenario is CIL)
        method.begin(task)
        method.learn(task)
    for t in range(CONFIG["n_tasks"]):
        assert_close(method.embeddings[t], g[f"final/emb.{t}"], 1e-4)
        x, y = test_samples(t)
        with torch.no_grad():
            logits = method.target(method.hypernetwork(method.embeddings[t : t + 1])[0], x)
            answer = method.predict(x, t if scenario is TIL else None).argmax(1)
        assert_close(logits, g["final_logits"][t], 1e-5)
        right = answer == (y + t * CONFIG["n_out"] if scenario is CIL else y)
        key = "test_acc" if scenario is TIL else "test_acc_entropy"
        assert 100 * float(right.double().mean()) == pytest.approx(float(g[key][t]), abs=1e-6)
        if scenario is not TIL:
            inferred = 100 * (method.infer_task(x) == t).double().mean()
            assert float(inferred) == pytest.approx(float(g["task_acc_entropy"][t]), abs=1e-6)
