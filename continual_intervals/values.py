"""Values of a session: plain ones as Python text, and a comparison of others with what their statements give again."""

from __future__ import annotations

import dis
import logging
import math
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor

PLAIN = (bool, int, float, str, bytes, type(None))
DEPTH = 50
"""Of containers in containers; Python reads no text that is nested much deeper."""
VALUES = 10_000
"""Plain values at most that are written out; of larger ones, as read from a file, the statement is."""
_AROUND = ("CACHE", "EXTENDED_ARG", "NOP", "PRECALL", "PUSH_NULL")
_Pairs = dict[tuple[int, int], tuple[Any, Any]]
"""Pairs under comparison. They are held, so that no other object gets their ids."""


class _NotPlain(Exception):
    """The value is not made of plain values alone, or holds itself."""


def literal(value: Any) -> str | None:
    """Expression for a number, a text, None, and lists, tuples, dicts and sets of these; None for other values."""
    try:
        return _literal(value, (), [0])
    except (_NotPlain, ValueError):  # the second of a number with thousands of digits
        return None


def _literal(value: Any, around: tuple[int, ...], counted: list[int]) -> str:
    kind = type(value)
    counted[0] += 1
    if counted[0] > VALUES:
        raise _NotPlain
    if kind is float and not math.isfinite(value):
        return "(1e999 - 1e999)" if math.isnan(value) else f"{'-' if value < 0 else ''}1e999"
    if kind in PLAIN:
        return repr(value)
    if kind not in (list, tuple, dict, set) or id(value) in around or len(around) >= DEPTH:
        raise _NotPlain
    around = (*around, id(value))
    if kind is dict:
        return (
            "{"
            + ", ".join(f"{_literal(k, around, counted)}: {_literal(v, around, counted)}" for k, v in value.items())
            + "}"
        )
    parts = [_literal(part, around, counted) for part in value]
    if kind is set:  # its order differs from process to process
        return "{" + (", ".join(sorted(parts)) or "*()") + "}"
    return f"[{', '.join(parts)}]" if kind is list else f"({''.join(part + ', ' for part in parts)})"


def same(a: Any, b: Any) -> bool:
    """Check whether two values differ nowhere. What cannot be compared, such as an open file, counts as the same.

    Functions are compared by their code and attributes; classes, which may be two definitions, by those of their
    members; other objects by what they would be copied from.
    """
    try:
        return _same(a, b, {})
    except Exception:  # of methods of the user's objects
        return True


def _same(a: Any, b: Any, pairs: _Pairs) -> bool:
    if a is b or (id(a), id(b)) in pairs:
        return True
    pairs[id(a), id(b)] = a, b
    if isinstance(a, type) and isinstance(b, type):
        return a.__qualname__ == b.__qualname__ and _same(_members(a), _members(b), pairs)
    if type(a).__qualname__ != type(b).__qualname__:
        return False
    if isinstance(a, (Tensor, np.ndarray)):
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        return bool(((a == b) | ((a != a) & (b != b))).all())
    if isinstance(a, PLAIN):
        return a == b or (a != a and b != b)
    if isinstance(a, set | frozenset):
        return a == b or (len(a) == len(b) and not all(type(part) in PLAIN for part in a))
    if isinstance(a, ModuleType):
        return a.__name__ == b.__name__
    if isinstance(a, logging.Logger | logging.LoggerAdapter):
        return True  # getLogger(__name__) has the name of the module that it stands in
    if type(a) is dict:
        return _same(list(a.items()), list(b.items()), pairs)
    one, other = map(_parts, (a, b))
    return len(one) == len(other) and all(_same(x, y, pairs) for x, y in zip(one, other, strict=True))


def _members(cls: type) -> dict[str, Any]:
    """Members of a class in the order of their names; of those that Python adds, functions alone."""
    members = vars(cls).items()
    return {name: part for name, part in sorted(members) if name[:2] != "__" or isinstance(part, FunctionType)}


def _parts(value: Any) -> list[Any]:
    """What decides an object, as far as it is known."""
    if type(value) in (list, tuple):
        return list(value)
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return [value.__code__, value.__defaults__, value.__kwdefaults__, _attributes(value), cells]
    if isinstance(value, CodeType):
        return [_steps(value), value.co_consts, value.co_varnames, value.co_freevars, value.co_cellvars]
    if isinstance(value, MethodType | staticmethod | classmethod):
        return [value.__func__, getattr(value, "__self__", None)]
    if isinstance(value, property):
        return [value.fget, value.fset, value.fdel]
    try:
        found = value.__reduce_ex__(4)
    except Exception:  # of what cannot be copied
        return [_attributes(value)]
    if isinstance(found, str):
        return [found, _attributes(value)]
    made_by, given, state, items, pairs = (*found, None, None, None)[:5]
    return [made_by, given, state, list(items or ()), list(pairs or ())]


def _steps(code: CodeType) -> list[tuple[str, Any]]:
    """Instructions, as far as they do not depend on the code around: calls of imported modules are special there."""
    steps = ((step.opname.replace("METHOD", "ATTR"), step) for step in dis.get_instructions(code))
    jumps = (*dis.hasjabs, *dis.hasjrel, *dis.hasconst)  # constants are compared as such
    return [(name, None if step.opcode in jumps else step.argval) for name, step in steps if name not in _AROUND]


def _attributes(value: Any) -> dict[str, Any]:
    """Attributes of an object except its module, which is another one where it is made again."""
    return {name: part for name, part in getattr(value, "__dict__", {}).items() if name != "__module__"}
