"""Look-ahead and drift of a chunked hypernetwork in machine code: drift.cpp, in the library of `compiled`.

Both passes divide the rows of the output layer between threads. The results of the look-ahead are those of
`look_ahead.next_step` to the last bit, except where PyTorch itself rounds differently from one build to the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from methods.hypernetworks import compiled
from methods.hypernetworks.drift import Frozen

ROWS, SIDE, ABREAST = 16, 4, 12
"""Of drift.cpp: rows of a block, and multiples to which B'B and the columns of products are padded."""


class Rule(NamedTuple):
    """Numbers of Adam's step ahead: 1 - beta1, beta2, 1 - beta2, eps, and the step size."""

    complement1: float
    beta2: float
    complement2: float
    eps: float
    size: float


def step_ahead(parameters: Tensor, grad: Tensor, moments: Mapping[str, Tensor], rule: Rule) -> Tensor:
    """Parameters of any shape after Adam's step ahead. moments: Adam's state of these parameters."""
    ahead, grad = torch.empty_like(parameters), grad.contiguous()
    given = (parameters, grad, moments["exp_avg"], moments["exp_avg_sq"])
    compiled.library().step_ahead(  # type: ignore[union-attr]
        parameters.numel(), *(tensor.data_ptr() for tensor in given), *rule, ahead.data_ptr()
    )
    return ahead


def in_blocks(weight: Tensor) -> Tensor:
    """Copy of a weight (N, h) in blocks of 16 rows, column by column: (N / 16 rounded up, h, 16), padded with zeros."""
    n, h = weight.shape
    return pad(weight, (0, 0, 0, -n % ROWS)).view(-1, ROWS, h).transpose(1, 2).contiguous()


def look_ahead(
    weight: Tensor, grad: Tensor, moments: Mapping[str, Tensor], rule: Rule, bias: Tensor, since: Frozen, edge: int
) -> tuple[Tensor, Tensor]:
    """Take Adam's step ahead from weight (N, h), and multiply B = [W V v] by itself.

    bias (N,): that after the step. Returns the weight after it in blocks, and B'B (2, 2h + 1, 2h + 1) in float64 over
    the rows before `edge` and from there on.
    """
    n, h = weight.shape
    width = _padded(2 * h + 1, SIDE)
    ahead = torch.empty_like(since.blocks)
    grams = torch.zeros(compiled.parts(n), 2, width, width, dtype=torch.float64)
    given = [weight, grad, moments["exp_avg"], moments["exp_avg_sq"], bias, since.blocks, since.bias]

    def run(part: int, first: int, last: int) -> None:
        compiled.library().look_ahead(  # type: ignore[union-attr]
            *_whole_blocks(first, last, n), edge, h, *(tensor.data_ptr() for tensor in given), *rule,
            ahead.data_ptr(), grams[part].data_ptr(),
        )  # fmt: skip

    compiled.in_parallel(run, n)
    return ahead, grams.sum(0)[:, : 2 * h + 1, : 2 * h + 1]


def add_gradient(
    grad: Tensor, grad_bias: Tensor, weight: Tensor, bias: Tensor, since: Frozen, products: Tensor, edge: int
) -> None:
    """Add the drift's gradient to one by weight (N, h) and bias (N,): B times a product for each row.

    weight: in blocks, as `look_ahead` returns it. products (2, 2h + 1, h + 1): that of the rows before `edge`, and of
    those from there on; the last column is for the bias.
    """
    n, h = grad.shape
    products = pad(products, (0, _padded(h + 1, ABREAST) - h - 1)).contiguous()
    given = [weight, bias, since.blocks, since.bias, products, grad, grad_bias]

    def run(part: int, first: int, last: int) -> None:
        compiled.library().drift_gradient(  # type: ignore[union-attr]
            *_whole_blocks(first, last, n), edge, h, *(tensor.data_ptr() for tensor in given)
        )

    compiled.in_parallel(run, n)


def _whole_blocks(first: int, last: int, n: int) -> tuple[int, int]:
    """Move the edges of a part of n rows to those of blocks."""
    return _padded(first, ROWS), min(_padded(last, ROWS), n)


def _padded(n: int, to: int) -> int:
    return -(-n // to) * to
