"""Every method on a pretended GPU, through the whole life of a cell: nothing mixed, no wait in a step, captures legal.

pytest tests/test_pretended_device.py                              # each method in one scenario
pytest -m "slow or not slow" tests/test_pretended_device.py        # in all, with more networks and every option
pytest tests/test_pretended_device.py -o log_cli=true --log-level INFO    # where the host waits, and how often
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.types import CIL, DIL, TIL, Scenario, UserError
from methods import registry
from runners.conformance.fields import variants
from runners.conformance.trial import Trial
from tests.methods.helpers import CASES, in_turn
from tests.pretended import Device, Event
from tests.pretended.cells import Life, cell_of, lived
from tests.pretended.phases import CHECK, FIT, LEARN, LOOK, STEPS

USUAL, HALVING = 6, 40
"""Waits outside of steps and checks that learning one task may take; InterContiNet and LID look for the largest box
that meets a threshold by halving."""
OFFICIAL_RULE = "methods/hypernetworks/candidates.py"
"""Where HyperInterval's official rule reads the loss in steps that it looks at; such steps are not captured."""
BASES = "methods/shared/bases.py", ""
"""File and function where GPM decomposes the inputs of each layer once a task; the library waits for each of them."""
NEW_NETWORK = "methods/base.py", "network"
"""Where the network of a new task moves to the device, one copy for each of its tensors."""
OLD_BOXES = "methods/box_per_task.py", "_boxes"
"""Where `select=claims` reads the boxes of old tasks from their file, one copy for each."""
DIGESTS = "methods/shared/digest.py", "digest"
"""Where the audit hashes on the host what a task's claim needs, once a task, one copy for each tensor."""
CLOSED_FORM = "analytic"
"""The method that takes no step, but for its network of the first task."""
TOGETHER = [
    ("analytic", CIL, {"features": "first-task", "stream": "dual"}),
    ("analytic", DIL, {"solver": "recursive", "bias": True}),
    ("analytic", TIL, {"til": "joint", "balance": True, "features": "gaussian"}),
    ("ewc", TIL, {"optimizer": "sgd"}),
    ("hnet", TIL, {"chunk": 0}),
    ("hnet", TIL, {"held_tasks": 1}),
    ("hnet", DIL, {"held_tasks": 1, "look_ahead": False}),
    ("hnet", TIL, {"online_targets": True, "train_old_embeddings": True}),
    ("hnet", CIL, {"look_ahead": False, "held_heads": "own", "held_weights": "fisher"}),
    ("hnet-lstm", TIL, {"growth": "freeze-hidden"}),
    ("hnet-lstm", CIL, {"growth": "freeze-hidden", "look_ahead": False, "inference": "fecam"}),
    ("hyperinterval", TIL, {"select": "official"}),
    ("hyperinterval", TIL, {"plateau": True}),
    ("hyperinterval", CIL, {"chunk": 0, "bounds": "endpoints"}),
    ("hypermask", TIL, {"chunk": 0, "norm": 2, "plateau": True, "selection": "val"}),
    ("hnet", DIL, {"inference": "fecam", "strength_per": "weight", "beta": 50.0}),
    ("hyperinterval", CIL, {"inference": "fecam", "fecam_answer": "task", "strength_per": "weight", "beta": 50.0}),
    ("hypermask", CIL, {"inference": "fecam"}),
    ("gpm", TIL, {"optimizer": "adam", "basis": "smallest", "biases": "freeze"}),
    ("gpm", CIL, {"optimizer": "adam", "first_rule": "official"}),
    ("wsn", TIL, {"mask_of": "last-batch", "selection": "val", "biases": "masked"}),
    ("wsn", CIL, {"inference": "fecam", "optimizer": "sgd", "capacity": 0.05}),
    ("packnet", TIL, {"biases": "first", "batch_norm": "frozen", "restart": "zero", "ties": "official"}),
    ("packnet", DIL, {"keep": 0.3, "selection": "val"}),
    ("supsup", TIL, {"optimizer": "rmsprop", "mask": "threshold", "selection": "val", "superfluous": 3}),
    ("supsup", DIL, {"inference": "binary", "schedule": "cosine", "keep": 0.2, "scale_fan": True}),
    ("hat", TIL, {"gates": "soft", "schedule": "official", "momentum": 0.9, "selection": "val"}),
    ("hat", CIL, {"inference": "fecam", "optimizer": "adam", "clip": 0.5, "clip_embedding": 0.5}),
    ("intact", DIL, {"drift": "sum", "percentiles": (0.0, 1.0), "align": False, "optimizer": "sgd"}),
    ("intact", CIL, {"new_rows": "official", "lam_drift": 100.0}),
    ("lid", TIL, {"heads": "boxed", "til_rivals": "official", "choose": "best_loss", "keep": "all"}),
    ("lid", DIL, {"choose": "sample_largest_closest", "tolerance": 1e-6, "arithmetic": "rump", "keep": "all"}),
    ("intercontinet", DIL, {"worst_case_on": "all", "expansion": 0.0}),
    ("intercontinet-released", TIL, {"scale_optimizer": "adam", "official_gate": False}),
]
"""Options that change what a step does, some together."""


def well_behaved(life: Life, device: Device) -> None:
    """What holds for every method; that devices are not mixed and captures are legal, the device sees to itself."""
    record, phases = life.record, life.phases
    assert life.notes == [f"resumed after task 1 of {record.n_tasks}"]  # and none that exhibits could not be kept
    assert record.environment["device"] == "cuda:0" and record.memory_bytes["peak_device"]
    assert (life.folder.parents[2] / "samples.png").exists()
    official = record.config.get("select") == "official"
    waited = [event for event in device.events if event.phase == STEPS]
    assert not [event for event in waited if not (official and event.place.startswith(OFFICIAL_RULE))], told(waited)
    captured = registry.load(record.method).capturable and not official
    trained = 0 if record.method == CLOSED_FORM else record.n_tasks
    assert len(phases.stepped) == phases.entered[FIT] >= trained
    stepped = {how for how in phases.stepped if not (record.config.get("milestones") and how.endswith("too few steps"))}
    assert stepped == ({"captured" if captured else "step by step"} if phases.stepped else set())
    assert len(device.waits(CHECK)) == phases.entered[CHECK]
    looks = 2 if record.config.get("plateau") else 1  # one judges the weights, one the learning rate
    looked = [event for event in device.waits(LOOK) if not at(event, OLD_BOXES)]
    assert len(looked) <= looks * phases.entered[LOOK], told(looked)
    assert not device.waits(FIT), told(device.waits(FIT))
    allowed = HALVING if record.method.startswith(("intercontinet", "lid")) else USUAL
    elsewhere = (BASES, NEW_NETWORK, DIGESTS)
    learning = [event for event in device.waits(LEARN) if not any(at(event, place) for place in elsewhere)]
    assert len(learning) <= allowed * phases.entered[LEARN], told(learning)


def at(event: Event, place: tuple[str, str]) -> bool:
    """Check whether the host waited in this file and function; "" is every function of the file."""
    file, function = place
    return event.place.startswith(f"{file}:") and event.place.endswith(f" {function}" if function else "")


def told(events: Sequence[Event]) -> str:
    return "\n".join(f"{times} x {event}" for event, times in Counter(events).items())


# -- every method ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "scenario"), in_turn(CASES))
def test_digits(name: str, scenario: Scenario, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    well_behaved(lived(cell_of(name, scenario), device, tmp_path, monkeypatch), device)


@pytest.mark.parametrize(
    ("benchmark", "scenario"), [("few-permuted", TIL), ("few-permuted", CIL), ("few-rotated", DIL)]
)
def test_transformed_digits(benchmark, scenario, device, tmp_path, monkeypatch):
    well_behaved(lived(cell_of("finetune", scenario, benchmark), device, tmp_path, monkeypatch), device)


QUICK = {("hyperinterval", "resnet-8"), ("finetune", "timm:test_resnet")}
"""In TIL: a hypernetwork, and a network of the library."""
CHAINS = [("hat", TIL, "lenet-20-50"), ("intact", CIL, "lenet-20-50")]
"""The methods that skip the networks of all others, which have residual streams."""


def networks() -> list[Any]:
    """Every case with two convolutional networks, but for the methods that skip them."""
    pairs = [case for case in CASES if case[0] not in {name for name, *_ in CHAINS}]
    found = [(name, scenario, network) for network in ("resnet-8", "timm:test_resnet") for name, scenario in pairs]
    slow = {case: case[1] is not TIL or (case[0], case[2]) not in QUICK for case in found}
    return [*CHAINS, *(pytest.param(*case, marks=[pytest.mark.slow] if slow[case] else []) for case in found)]


@pytest.mark.parametrize(("name", "scenario", "network"), networks())
def test_pictures(name, scenario, network, device, tmp_path, monkeypatch):
    """With batch norm, and samples that are flipped, cropped and normalised."""
    well_behaved(lived(cell_of(name, scenario, "few-pictures", network), device, tmp_path, monkeypatch), device)


# -- every option ----------------------------------------------------------------------------------


def options() -> list[Any]:
    """Of every method in every scenario each named option that it takes, and one value of each number that is off."""
    found = []
    for name, scenario in CASES:
        known: dict[tuple[str, str], dict[str, Any]] = {}
        trial = Trial(registry.load(name), scenario)
        for variant in variants(trial):
            [(key, value)] = variant.items()
            kept = known.setdefault((key, str(value) if isinstance(value, bool | str) else ""), variant)
            # of three tasks only one is less than all the old ones, and these two need a factor each
            if len(value) > len(kept[key]) if isinstance(value, tuple) else value < kept[key]:
                kept[key] = value
        if name == "hyperinterval":
            known["batch_norm", "official"]["bounds"] = "endpoints"  # it has no others
        permitted = [values for values in known.values() if not refused(trial.config, values)]
        found += [pytest.param(name, scenario, values, marks=pytest.mark.slow) for values in permitted]
    return found


def refused(config: Any, changes: dict[str, Any]) -> bool:
    try:
        dataclasses.replace(config, **changes)
    except UserError:
        return True
    return False


def with_option_names(value: Any) -> str | None:
    return ",".join(f"{key}={chosen}" for key, chosen in value.items()) if isinstance(value, dict) else None


@pytest.mark.parametrize(("name", "scenario", "settings"), [*in_turn(TOGETHER), *options()], ids=with_option_names)
def test_options(name, scenario, settings, device, tmp_path, monkeypatch):
    settings = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    well_behaved(lived(cell_of(name, scenario, **settings), device, tmp_path, monkeypatch), device)
