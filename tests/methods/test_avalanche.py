"""Strategies of Avalanche as methods: their own training, our stream, our budget."""

import dataclasses
import json
import random

import numpy as np
import pytest
import torch
from avalanche.training.plugins import MASPlugin
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.augmentation import FlipCrop
from benchmarks.catalogue import find
from benchmarks.stream import open_stream
from benchmarks.types import CIL, DIL, TIL, Budget, Scenario, UserError
from methods import avalanche, registry
from runners.grid import hyperparameters
from tests.runners.helpers import compare_here

STEPS = 20
FIVE = ("Naive", "EWC", "LwF", "Replay", "GEM")


def opened(scenario: Scenario, steps: int = STEPS, n_tasks: int = 2):
    benchmark = dataclasses.replace(find("split-digits"), n_tasks=n_tasks, network="mlp-20")
    return open_stream(benchmark, scenario, 0, budget=Budget(16, steps=steps))


def trained(name: str, stream, **options):
    cls = registry.load(f"avalanche:{name}")
    method = cls(stream.spec, cls.Config(**options), "cpu", 0)
    for j in range(len(stream)):
        task = stream.task(j, previous=method.rehearses)
        method.begin(task)
        method.learn(task)
    return method


def accuracies(method, stream) -> list[float]:
    til = stream.spec.scenario is TIL
    with torch.no_grad():
        return [float(method.accuracy(stream.test(j), j if til else None)) for j in range(len(stream))]


@pytest.mark.parametrize("name", avalanche.names())
def test_every_strategy_runs_or_says_why_not(name):
    for scenario in Scenario:
        stream = opened(scenario, steps=3)
        cls = registry.load(name)
        assert cls.name == name and cls.__doc__
        reason = cls.skip(stream.spec, cls.Config())
        if reason:
            assert scenario in reason and len(reason) > 40
            continue
        method = trained(name.removeprefix("avalanche:"), stream)
        logits = method.predict(stream.test(0).x, 0 if scenario is TIL else None)
        assert logits.shape == (len(stream.test(0)), 4 if scenario is CIL else 2) and torch.isfinite(logits).all()
        assert [entry.step for entry in method.curve] == [3]


@pytest.mark.parametrize("scenario", [TIL, CIL])
@pytest.mark.parametrize("name", FIVE)
def test_training_takes_the_steps_of_the_budget(name, scenario):
    """Whatever a strategy does in between, it updates the weights as often as every other method."""
    stream, counted = opened(scenario), []
    handle = register_optimizer_step_post_hook(lambda *_: counted.append(1))
    try:
        trained(name, stream)
    finally:
        handle.remove()
    assert len(counted) == 2 * STEPS


@pytest.mark.parametrize("name", ["Naive", "Replay"])
def test_a_benchmarks_augmentation_holds_for_strategies_too(name, monkeypatch):
    """Every image of every step is drawn through it, and equal seeds give equal runs."""
    drawn = []
    augment = FlipCrop.__call__
    monkeypatch.setattr(FlipCrop, "__call__", lambda self, *args: drawn.append(1) or augment(self, *args))
    benchmark = dataclasses.replace(find("split-digits"), n_tasks=2, network="mlp-20", augmentation="flip-crop")
    answers = []
    for _ in range(2):
        stream = open_stream(benchmark, CIL, 0, budget=Budget(16, steps=4))
        answers.append(trained(name, stream).predict(stream.test(0).x))
    assert len(drawn) >= 2 * 2 * 4 * 16 and torch.equal(*answers)


def test_strategies_do_what_their_names_say():
    """On two tasks of the digits: finetuning forgets in CIL; replay and gradient projection do not."""
    stream = opened(CIL, steps=80)
    naive, replay, gem = (accuracies(trained(name, stream), stream) for name in ("Naive", "Replay", "GEM"))
    assert naive[0] < 0.1 and naive[1] > 0.9
    assert min(replay) > 0.6 and min(gem) > 0.6


def test_a_strategy_that_replaces_its_network_is_judged_by_the_new_one():
    """GDumb starts from a fresh copy for each task; the first network would answer at random."""
    stream = opened(CIL, steps=80)
    assert min(accuracies(trained("GDumb", stream), stream)) > 0.6


def test_global_random_state_is_put_back_and_does_not_matter():
    def state():
        return random.getstate(), np.random.get_state()[1].tolist()

    stream = opened(DIL)
    random.seed(1)
    np.random.seed(1)
    before = state()
    first = trained("AGEM", stream).predict(stream.test(0).x)
    assert state() == before
    random.seed(2)
    np.random.seed(2)
    assert torch.equal(trained("AGEM", stream).predict(stream.test(0).x), first)


def test_parameters_come_from_the_constructor():
    config = registry.load("avalanche:LwF").Config(alpha=0.5)
    assert {item.name for item in dataclasses.fields(config)} == {"lr", "optimizer", "alpha", "temperature"}
    replay = trained("Replay", opened(DIL), mem_size=10)
    assert replay.memory_samples == 10
    # 64 pixels, a label, and the buffer's own weight for each sample
    assert replay.parameters_stored() == replay.parameters_trained() + 10 * 66


@pytest.mark.parametrize(
    ("name", "scenario", "options", "kept"),
    [
        ("Naive", DIL, {}, 0),
        ("DER", CIL, {"mem_size": 20}, 20 * (64 + 1 + 1 + 4)),  # pixels, label, weight, logits
        ("ER_ACE", CIL, {"mem_size": 20}, 20 * (64 + 1 + 1)),
        ("GEM", DIL, {"patterns_per_exp": 8}, 2 * 8 * (64 + 1 + 1)),  # pixels, label, task label
        ("AGEM", DIL, {"patterns_per_exp": 8}, 2 * 8 * (64 + 1)),
    ],
)
def test_what_is_stored_has_all_of_a_memory_and_nothing_of_the_latest_batch(name, scenario, options, kept):
    method = trained(name, opened(scenario), **options)
    assert method.parameters_stored() == method.parameters_trained() + kept


def test_importances_of_mas_are_not_negative_over_all_of_its_range():
    """Its alpha is the share of the earlier importances; that of LwF and of DER is a weight in the loss."""
    share = registry.load("avalanche:MAS").Config.search["alpha"]
    for alpha in (share.low, share.high):
        method = trained("MAS", opened(DIL, steps=3), alpha=alpha)
        (mas,) = (plugin for plugin in method.strategy.plugins if isinstance(plugin, MASPlugin))
        assert all((importance.data >= 0).all() for importance in mas.importance.values())
    assert [registry.load(f"avalanche:{name}").Config.search["alpha"].high for name in ("LwF", "DER")] == [100, 100]


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_a_share_of_mas_outside_its_interval_is_refused(alpha):
    with pytest.raises(UserError, match=r"alpha = \S+ must lie in \[0, 1\]"):
        registry.load("avalanche:MAS").Config(alpha=alpha)
    assert registry.load("avalanche:LwF").Config(alpha=1.5).alpha == 1.5


def test_mistakes_and_impossible_strategies_are_answered():
    with pytest.raises(UserError, match=r"'Repley'.*avalanche:Replay"):
        registry.load("avalanche:Repley")
    for name in ("ICaRL", "JointTraining", "AR1", "CWRStar"):
        cls = registry.load(f"avalanche:{name}")
        assert "cannot run here" in str(cls.skip(opened(CIL).spec, cls.Config()))
    method = trained("Naive", opened(DIL, steps=1))
    assert not method.resumable
    with pytest.raises(UserError, match="cannot resume from a checkpoint"):
        method.load_state_dict({})


@pytest.mark.parametrize("name", sorted(avalanche._strategies()))
def test_a_strategys_own_defaults_are_permitted(name):
    """Also where an annotation contradicts them, as SCR's `temperature: int = 0.1` does."""
    config = avalanche.method(avalanche.PREFIX + name).Config
    own = hyperparameters.as_json(config())
    assert hyperparameters.as_json(hyperparameters.configure(name, config, own)) == own


def test_a_strategy_that_cannot_run_is_skipped_and_the_others_run(tmp_path):
    grid = {"methods": ("avalanche:SCR", "finetune"), "benchmarks": ("split-digits",), "scenarios": (CIL,)}
    code, _ = compare_here(tmp_path, seeds=1, **grid)
    assert code == 0
    status = {file.parts[-3]: json.loads(file.read_text())["status"] for file in tmp_path.glob("*/*/*/seed*/cell.json")}
    assert status == {"avalanche-SCR": "skipped", "finetune": "done"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"mode": "online"}, "decay_factor"),
        ({"mode": "separate", "decay_factor": 0.5}, "decay_factor"),
        ({"mode": "x"}, "x"),
    ],
)
def test_options_that_a_strategy_refuses_end_in_a_sentence(options, sentence):
    with pytest.raises(UserError, match=f"avalanche:EWC does not run with .*{sentence}"):
        trained("EWC", opened(TIL, steps=1), **options)
