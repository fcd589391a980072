"""L2: parity with InterContiNet's baseline, and which parameters are held."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.types import ALL_SCENARIOS, CIL, DIL, TIL, Scenario, UserError
from methods.finetune import Finetune
from methods.l2 import L2, in_use
from methods.registry import load as load_method
from tests.methods import regularised
from tests.methods.golden import assert_close, group, load
from tests.methods.regularised import learn_all, parameters_of, tiny_tasks, vector


def test_intercontinet_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = load("interval")
    recorded = group(arrays, "icn/base_l2")
    config = L2.Config(lr=float(arrays["icn/base/lr"]), strength=float(recorded["lambda"]), optimizer="sgd")
    run = regularised.intercontinet_baseline(L2, config)
    assert isinstance(run.method, L2)
    for j in regularised.check_run(run, recorded, arrays["icn/base_log_columns"], monkeypatch):
        assert_close(run.method.importance(run.tasks[j]), vector(group(recorded, f"importance{j}")), 0.0)
        assert_close(run.method.anchor.importance, torch.full_like(run.theta, j + 1.0), 0.0)


def test_silent_units_count_as_used_and_other_heads_do_not() -> None:
    torch.manual_seed(0)
    inner = nn.Linear(3, 4)
    nn.init.constant_(inner.bias[:1], -100.0)
    network = nn.Sequential(inner, nn.ReLU(), nn.Linear(4, 4))
    used = in_use(network, torch.rand(5, 3), lambda z: z[:, 2:])
    first, weight, bias = used.split((16, 16, 4))
    assert (first == 1).all()
    assert bias.tolist() == [0.0, 0.0, 1.0, 1.0]
    assert torch.equal(weight.view(4, 4), bias[:, None].expand(4, 4))


@pytest.mark.parametrize("mode", ["separate", "online"])
@pytest.mark.parametrize(("scenario", "counts"), [(TIL, [1, 1, 1, 1, 0, 0]), (CIL, [2, 2, 1, 1, 0, 0]), (DIL, [2, 2])])
def test_anchors_of_the_output_rows(mode: str, scenario: Scenario, counts: list[int]) -> None:
    """Two tasks learnt: how many anchors hold each output's bias (online: at most one)."""
    spec, tasks = tiny_tasks(scenario)
    method = L2(spec, L2.Config(mode=mode))  # type: ignore[arg-type]
    learn_all(method, tasks[:2])
    expected = counts if mode == "separate" else [min(c, 1) for c in counts]
    assert method.anchor.importance[-spec.n_outputs :].tolist() == expected


@pytest.mark.parametrize("scenario", sorted(ALL_SCENARIOS))
def test_strength_zero_is_finetuning_and_a_great_one_stands_still(scenario: Scenario) -> None:
    spec, tasks = tiny_tasks(scenario, n_tasks=2)
    finetune, free, held = Finetune(spec), L2(spec, L2.Config(strength=0.0)), L2(spec, L2.Config(strength=1e4))
    learn_all(finetune, tasks)
    learn_all(free, tasks)
    assert torch.equal(parameters_of(free), parameters_of(finetune))
    learn_all(held, tasks[:1])
    before, used = parameters_of(held), held.anchor.importance.bool()
    learn_all(held, tasks[1:])
    way = (parameters_of(held) - before).abs()
    assert float(way[used].mean()) < 0.1 * float((parameters_of(free) - before).abs().mean())


def test_registered_and_refuses_impossible_settings() -> None:
    assert load_method("l2") is L2
    with pytest.raises(UserError, match="strength"):
        L2.Config(strength=-1.0)
