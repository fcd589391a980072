"""Rules for the bounds of pooling, means and functions that only change shapes; see `rules`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.intervals.arithmetic import Arithmetic, Value, require
from methods.intervals.interval import Interval
from methods.intervals.rules import FUNCTIONS, Rule, rule

# -- pooling and means ---------------------------------------------------------------------------------


def _max_pool(function: Callable[..., Any]) -> Rule:
    def pool(
        a: Arithmetic, input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        ceil_mode: bool = False, return_indices: bool = False,
    ) -> Value:  # fmt: skip
        require(not return_indices, "return_indices")
        return a.exact(lambda x: function(x, kernel_size, stride, padding, dilation, ceil_mode), input)

    return pool


max_pool1d, max_pool2d = _max_pool(F.max_pool1d), _max_pool(F.max_pool2d)
FUNCTIONS |= dict.fromkeys([F.max_pool1d, torch.max_pool1d], max_pool1d)
FUNCTIONS |= dict.fromkeys([F.max_pool2d, torch.max_pool2d], max_pool2d)


@rule(F.avg_pool1d)
def avg_pool1d(
    a: Arithmetic, input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Value:  # fmt: skip
    stride = kernel_size if stride is None else stride
    return a.averaged(
        lambda x: F.avg_pool1d(x, kernel_size, stride, padding, ceil_mode, count_include_pad), input, pooled=1
    )


@rule(F.avg_pool2d)
def avg_pool2d(
    a: Arithmetic, input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Value:  # fmt: skip
    require(divisor_override is None or divisor_override > 0, f"divisor_override = {divisor_override}")

    def pool(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)

    return a.averaged(pool, input, pooled=2)


def _adaptive_average(function: Callable[..., Any], pooled: int) -> Rule:
    def pool(a: Arithmetic, input: Value, output_size: Any) -> Value:
        return a.averaged(lambda x: function(x, output_size), input, pooled)

    return pool


def _adaptive_maximum(function: Callable[..., Any]) -> Rule:
    def pool(a: Arithmetic, input: Value, output_size: Any, return_indices: bool = False) -> Value:
        require(not return_indices, "return_indices")
        return a.exact(lambda x: function(x, output_size), input)

    return pool


adaptive_avg_pool1d = _adaptive_average(F.adaptive_avg_pool1d, pooled=1)
adaptive_avg_pool2d = _adaptive_average(F.adaptive_avg_pool2d, pooled=2)
adaptive_max_pool1d = _adaptive_maximum(F.adaptive_max_pool1d)
adaptive_max_pool2d = _adaptive_maximum(F.adaptive_max_pool2d)
FUNCTIONS |= {
    F.adaptive_avg_pool1d: adaptive_avg_pool1d,
    F.adaptive_avg_pool2d: adaptive_avg_pool2d,
    F.adaptive_max_pool1d: adaptive_max_pool1d,
    F.adaptive_max_pool2d: adaptive_max_pool2d,
}


def _along(dim: Any, keepdim: bool) -> tuple[Any, ...]:
    return () if dim is None else (dim, keepdim)


@rule(torch.mean, "mean")
def _mean(a: Arithmetic, input: Value, dim: Any = None, keepdim: bool = False) -> Value:
    return a.averaged(lambda x: x.mean(*_along(dim, keepdim)), input)


@rule(torch.sum, "sum")
def _total(a: Arithmetic, input: Value, dim: Any = None, keepdim: bool = False) -> Value:
    return a.averaged(lambda x: x.sum(*_along(dim, keepdim)), input)


@rule(torch.amax, "amax")
def _amax(a: Arithmetic, input: Value, dim: Any = (), keepdim: bool = False) -> Value:
    return a.exact(lambda x: x.amax(dim, keepdim), input)


# -- shapes --------------------------------------------------------------------------------------------


def _reshaping(method: str) -> Rule:
    def reshape(a: Arithmetic, input: Value, *arguments: Any, **options: Any) -> Value:
        require(not any(isinstance(part, torch.dtype) for part in [*arguments, *options.values()]), "a dtype")
        return a.exact(lambda x: getattr(x, method)(*arguments, **options), input)

    return reshape


_RESHAPING = ("flatten", "view", "reshape", "permute", "transpose", "t", "squeeze", "unsqueeze", "unflatten")
for _name in (*_RESHAPING, "contiguous"):
    FUNCTIONS |= dict.fromkeys([_name, getattr(torch, _name, _name)], _reshaping(_name))


@rule(operator.getitem)
def _getitem(a: Arithmetic, input: Value, index: Any) -> Value:
    return a.exact(lambda x: x[index], input)


@rule(torch.clone, "clone")
def clone(a: Arithmetic, input: Value) -> Value:
    return input


@rule("to", "float", "double")
def _to(a: Arithmetic, input: Value, *arguments: Any, **options: Any) -> Value:
    """Identity in exact arithmetic; a conversion below float32 loses more than rounding and is refused."""
    kinds = [part for part in [*arguments, *options.values()] if isinstance(part, torch.dtype)]
    require(all(kind in (torch.float32, torch.float64) for kind in kinds), " ".join(map(str, kinds)))
    return input


@rule(torch.cat, torch.concat, torch.concatenate)
def _cat(a: Arithmetic, tensors: Sequence[Any], dim: int = 0) -> Value:
    require(not isinstance(tensors, Value), "one tensor")
    parts = [a.lifted(part) for part in tensors]
    lower, upper = (torch.cat(side, dim) for side in zip(*(part.bounds for part in parts), strict=True))
    return Value(Interval(lower, upper), all(part.nonnegative for part in parts))


@rule(F.pad)
def _pad(a: Arithmetic, input: Value, pad: Any, mode: str = "constant", value: float | None = None) -> Value:
    return a.exact(lambda x: F.pad(x, pad, mode, value), input, nonnegative=input.nonnegative and (value or 0) >= 0)


@rule(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d)
def _dropout(a: Arithmetic, input: Value, p: float = 0.5, training: bool = True, inplace: bool = False) -> Value:
    require(not training, "training = True")
    return input


@rule("size")
def _size(a: Arithmetic, input: Value, dim: int | None = None) -> Any:
    return input.bounds.lower.size(dim)


@rule("dim")
def _dim(a: Arithmetic, input: Value) -> int:
    return input.bounds.lower.dim()


@rule(getattr)
def _getattr(a: Arithmetic, input: Value, name: str) -> Any:
    require(name in ("shape", "ndim", "device", "dtype"), name)
    return getattr(input.bounds.lower, name)


IN_PLACE = {torch.relu_, operator.iadd, operator.isub, operator.imul, operator.itruediv}
"""Functions that change their input, in addition to methods with a trailing underscore and calls with `inplace` set."""
VIEWS = {FUNCTIONS[name] for name in (*_RESHAPING, "contiguous", operator.getitem, "to", F.dropout)}
"""Rules of functions that may return their input or a part of it: in-place changes of the one affect the other."""
