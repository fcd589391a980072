"""Parts of hard attention to the task (Serra et al. 2018): annealing, regulariser, compensation, tables."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from methods.shared.capacity import HUFFMAN, capacity

Schedule = Literal["paper", "official"]
LARGEST_EXPONENT = 50.0
"""Limit of |s e| in the compensation (official code), which keeps cosh finite."""


class Annealing(NamedTuple):
    """Rise of the gates' slope from 1/S to S, S = `steepest`, in every epoch; a cycle has `length` steps."""

    steepest: float
    length: int
    first: float
    """Share of the rise at the first step of a cycle."""
    rise: float
    """Share of the rise from one step to the next."""

    @classmethod
    def over(cls, steps: int, samples: int, batch: int, steepest: float, schedule: Schedule) -> Annealing:
        """Annealing of training on a number of samples.

        A cycle is an epoch. Where `steps` are no whole number of epochs its length is a little different, so that the
        last cycle ends with the training. "paper": the slope is S at the last step of a cycle; "official": it follows
        the position of a batch's first sample, so that the last batch does not reach S.
        """
        epoch = -(-samples // batch)
        length = -(-steps // max(1, round(steps / epoch)))
        if schedule == "official":
            return cls(steepest, length, 0.0, batch / samples * epoch / length)
        return cls(steepest, length, float(length == 1), 1 / max(1, length - 1))

    def slope(self, step: Tensor) -> Tensor:
        """Slope s at a step of the training, counted from 0; 0-d."""
        share = (self.first + step.remainder(self.length) * self.rise).clamp(max=1.0)
        return 1 / self.steepest + (self.steepest - 1 / self.steepest) * share


def occupancy(gates: Tensor, taken: Tensor) -> Tensor:
    """Regulariser R, 0-d: the mean of gates (u,), weighted by what earlier tasks have left of each unit.

    taken: largest gates of earlier tasks (u,). R is 0 where nothing is left; in the official code, 0/0.
    """
    left = 1 - taken
    return (gates * left).sum() / left.sum().clamp_min(torch.finfo(left.dtype).tiny)


def compensation(embedding: Tensor, slope: Tensor, steepest: float) -> Tensor:
    """Factor (u,) of the gradient of an embedding (u,), as if the gates had slope 1 all along.

    It is large where a steep gate has hardly any gradient.
    """
    steep = (slope * embedding).clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT)
    return steepest / slope * (steep.cosh() + 1) / (embedding.cosh() + 1)


def gate_table(gates: list[Tensor]) -> dict[str, list[float]]:
    """Gates (u,) of the tasks -> columns task; `open`, the share of its units more than half open; those of A after it.

    `taken` is the mean of A, `between` the share of units whose A is neither 0 nor 1.
    """
    table: dict[str, list[float]] = {"task": [], "open": [], "taken": [], "between": []}
    taken = torch.zeros_like(gates[0])
    for task, own in enumerate(gates):
        taken = torch.maximum(taken, own)
        shares = [(own > 0.5).float().mean(), taken.mean(), ((taken > 0) & (taken < 1)).float().mean()]
        for column, value in zip(table.values(), [task, *torch.stack(shares).tolist()], strict=True):
            column.append(value)
    return table


def capacity_of_units(units: list[Tensor], weights: list[Tensor]) -> dict[str, list[float]]:
    """Table of capacity from masks of weights (n,), which are stored as masks of units (u,)."""
    table, stored, part = capacity(weights), capacity(units), len(units[0]) / len(weights[0])
    table |= {column: [value * part for value in stored[column]] for column in ("bits", "entropy")}
    for column, length in (("cap", 1.0), ("published", HUFFMAN)):
        table[column] = [union + length * bits for union, bits in zip(table["union"], table["bits"], strict=True)]
    return table
