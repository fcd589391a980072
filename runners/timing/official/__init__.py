"""Timing the authors' steps beside ours; see `--official` of runners/speed.py.

Nothing of their programs is part of this project: they are imported from a checkout the user names, and called as
their training functions call them, in the same order, on the same shapes, samples and number of old tasks. What is
left out is what happens only now and then (validation, plots) and the writing of files and of logs; what they compute
for these in each step is computed.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.types import UserError

if TYPE_CHECKING:
    from runners.timing.floor import Layer
    from runners.timing.official.step import Step
    from runners.timing.rounds import Order, Timing

CHECKOUTS = {
    "hnet": ("github.com/chrhenning/hypercl", "mnist/chunked_hyper_model.py"),
    "hyperinterval": ("github.com/gmum/HyperInterval", "IntervalNets/interval_MLP.py"),
    "hypermask": ("github.com/gmum/HyperMask", "FeCAM.py"),
    "intercontinet": ("github.com/gmum/InterContiNet", "intervalnet/models/interval.py"),
}
"""Method -> where its authors' code is, and a file by which a checkout of it is known."""


def method_of(folder: Path) -> str:
    """The method whose authors' code a folder holds. Raises UserError where it is none of those known."""
    for method, (_, file) in CHECKOUTS.items():
        if (folder / file).is_file():
            return method
    known = ", ".join(address for address, _ in CHECKOUTS.values())
    raise UserError(f"--official {folder}: this is no checkout of {known}")


def train(order: Order, stream: Any, config: Any) -> tuple[tuple[Timing, ...], Layer]:
    """Time the official steps at the order's tasks; also the output layer of their hypernetwork.

    config: that of our method, from which the official one takes what both have. MLP target networks only. Raises
    UserError where the checkout, or a package that it needs, is not at hand.
    """
    from runners.timing.floor import Layer
    from runners.timing.rounds import rounds, tasks_to_time

    folder = order.official
    assert folder is not None
    family, *widths = stream.spec.network.split("-")
    if family != "mlp":
        raise UserError(f"--official times MLP target networks, not {stream.spec.network}")
    module = import_module(f"runners.timing.official.{method_of(folder)}")
    step: Step = module.OfficialStep(folder, stream, config, order.device, [int(width) for width in widths])
    found = []
    for t in tasks_to_time(order, len(stream)):
        step.begin(t, stream.task(t))
        for phase in range(step.phases):
            step.begin_phase(phase)
            found.append(rounds(step.run, order, t, phase, step.device))
    ahead = bool(step.outputs) and getattr(config, "look_ahead", False)
    return tuple(found), Layer(step.output_weights, step.outputs, ahead)
