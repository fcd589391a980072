"""Times of other machines as they would be here."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from methods.networks import targets
from runners.plan import pace
from runners.plan.estimate import Rates, expected
from runners.records import reference_records
from runners.records.record import Record, Status
from tests.runners.helpers import cells


def shipped(method: str) -> Record:
    found = (cell.record for cell in reference_records.read().values())
    return next(r for r in found if r.method == method and r.benchmark == "split-digits" and r.status is Status.DONE)


def on(record: Record, machine: str, **seconds: list[float]) -> Record:
    return replace(record, environment={"device_name": machine}, seconds={**record.seconds, **seconds})


def test_each_machine_has_the_factor_of_its_own_plain_step() -> None:
    """A plain step takes 2 ms here: on one machine it took 1 ms, on the other 4."""
    plain, other = shipped("finetune"), shipped("ewc")
    steps = plain.n_tasks * (plain.budget.steps or 0)
    records = [on(plain, "quick", train=[1e-3 * steps]), on(plain, "slow", train=[4e-3 * steps])]
    (cell,) = cells("ewc", steps=plain.budget.steps or 0)
    for machine, seconds in (("quick", 20.0), ("slow", 5.0)):
        timed = on(other, machine, train=[8.0], evaluate=[2.0])
        rates, used = pace.rates([timed], pace.Paces(records, lambda _step: 2e-3))
        found = expected(cell, rates)
        assert found and found.seconds == pytest.approx(seconds) and not found.rough
        assert [one.machine for one in used] == [machine]
    stranger = on(other, "unseen", train=[8.0], evaluate=[2.0])
    rates, used = pace.rates([stranger], pace.Paces(records, lambda _step: 2e-3))
    assert expected(cell, rates) is None and not used, "nothing is known of that machine's speed"


def test_own_records_come_before_shipped_ones_of_the_same_likeness() -> None:
    (cell,), (far,) = cells("ewc"), cells("ewc", benchmark="permuted-digits")
    own, others = Rates(), Rates()
    own.add(cell, 1.0)
    others.add(cell, 10.0)
    others.add(far, 20.0)
    assert [round(found.seconds, 6) for one in (cell, far) if (found := expected(one, own, others))] == [1.0, 20.0]


def test_the_weight_of_a_step_grows_with_the_work() -> None:
    """A constant millisecond, and a millisecond for the work of the larger of the two networks that are timed."""
    weight = pace.weights(lambda step: 1e-3 if step == pace.SMALL else 2e-3)
    small, large = (weight("split-digits", pace.SMALL.network, 32), weight("split-mnist", pace.LARGE.network, 128))
    assert small == pytest.approx(1e-3, rel=0.05) and large == pytest.approx(2e-3, rel=0.05)
    assert weight("split-cifar-10", "alexnet", 128) > 20 * large
    assert weight("no-such-benchmark", "mlp", 8) == pytest.approx(small, rel=0.05)


def test_a_step_is_timed_and_the_process_left_as_it_was() -> None:
    import torch

    before, generator = torch.get_num_threads(), torch.random.get_rng_state()
    assert 1e-6 < pace.seconds(pace.SMALL, "cpu", before + 1) < 10
    assert torch.get_num_threads() == before and torch.equal(torch.random.get_rng_state(), generator)


@pytest.mark.parametrize("network", ["mlp-100-100", "resnet-8", "alexnet"])
def test_work_is_what_pytorch_counts(network: str) -> None:
    step = pace.Step(network, (3, 32, 32), 10, 4)
    network_ = targets.on_meta(network, step.input_shape, step.n_outputs).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network_(torch.empty(4, *step.input_shape, device="meta"))
    assert pace._work(step) == counter.get_total_flops()
