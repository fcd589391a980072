"""Mistakes of a method's author as sentences, with the file and the line of the author's code."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.types import Scenario, UserError
from methods.base import Method
from runners.process.shortage import first_line, text

ROOT = Path(__file__).resolve().parents[2]
_LIBRARIES = tuple({Path(path).resolve() for path in sysconfig.get_paths().values()})
_FRAME = "write @dataclass(frozen=True) above it"


def told(what: str, error: BaseException, cls: type, function: str = "") -> str:
    """An exception in words, and its place; where it names none in the author's code, that of a member of the class.

    A UserError is a sentence already; of others it is told `what` raised them, their kind and first line.
    """
    said = text(error).rstrip(".") if isinstance(error, UserError) else f"{what} raises {_kind(error)}"
    at = place(error.__traceback__, files_of(cls)) or _definition(cls, function)
    return f"{said} ({at})" if at else said


def _kind(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"SystemExit, which ends the process (exit code {error.code})"
    return f"{type(error).__name__}: {first_line(error)}"


def place(trace: TracebackType | None, own: set[Path]) -> str:
    """File and line of the last frame in the files `own` or in another file of the user's; empty if there is none."""
    theirs = [
        frame
        for frame in traceback.extract_tb(trace)
        if (file := Path(frame.filename)) in own or (file.is_absolute() and file.exists() and not _is_known(file))
    ]
    return f"{Path(theirs[-1].filename).name}, line {theirs[-1].lineno}" if theirs else ""


def files_of(cls: type) -> set[Path]:
    """Files of a class and of the classes that it is made of, up to Method."""
    modules = (sys.modules.get(part.__module__) for part in cls.__mro__ if part not in Method.__mro__)
    return {Path(file) for module in modules if (file := getattr(module, "__file__", None))}


def _is_known(file: Path) -> bool:
    """Check whether a file belongs to this project, to Python or to an installed package."""
    return any(file.resolve().is_relative_to(folder) for folder in (ROOT, *_LIBRARIES))


def _definition(cls: type, member: str) -> str:
    """File and line of a function of the class or of its Config; empty if the author did not write it."""
    owner = next((part for part in cls.__mro__ if member in vars(part)), None)
    if owner is None or owner in Method.__mro__:
        return ""
    try:
        found: Any = inspect.unwrap(getattr(cls, member))
        return f"{Path(inspect.getfile(found)).name}, line {inspect.getsourcelines(found)[1]}"
    except (OSError, TypeError):
        return ""


def of_class(cls: type) -> str:
    """What keeps a class from being made at all; empty if nothing does."""
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        return f"{cls.__name__} lacks {' and '.join(missing)}"
    given: Any = getattr(cls, "Config", None)
    if not isinstance(given, type):
        return f"Config is a {type(given).__name__}, not a class; {_FRAME.removesuffix(' above it')} and class Config"
    if not dataclasses.is_dataclass(given):
        return f"Config is not a dataclass; {_FRAME}"
    plain = [name for name in vars(given).get("__annotations__", ()) if name not in given.__dataclass_fields__]
    if plain and "__dataclass_fields__" not in vars(given):
        return f"Config is not a dataclass itself, so that {', '.join(plain)} cannot be set; {_FRAME}"
    empty = [item.name for item in dataclasses.fields(given) if item.init and not _has_default(item)]
    if empty:
        return f"the field {empty[0]} of its Config has no default"
    if not isinstance(search := getattr(given, "search", {}), Mapping):
        return f"Config.search is {search!r:.60}; write search = ranges(...), see methods/search.py"
    return ""


def _has_default(item: dataclasses.Field[Any]) -> bool:
    return not (item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING)


def of_instance(method: Any) -> str:
    """What a method lacks once it is made; empty if nothing is."""
    if "_built" in vars(method):
        return ""
    return "its __init__ does not end with that of Method; leave __init__ out and make networks in build"


def supported(cls: type) -> tuple[Scenario, ...]:
    """The scenarios that a method supports, in their usual order. Raises UserError for anything but a set of them."""
    given: Any = getattr(cls, "supports", None)
    advice = "write supports = frozenset({TIL, DIL, CIL}) with those it is defined in"
    if not isinstance(given, set | frozenset | list | tuple):
        raise UserError(f"{cls.__name__}: supports is {given!r:.60}, no set of scenarios; {advice}")
    unknown = [name for name in given if name not in tuple(Scenario)]
    if unknown or not given:
        what = f"names {unknown[0]!r:.60}, which is no scenario" if unknown else "is empty"
        raise UserError(f"{cls.__name__}: supports {what}; {advice}")
    return tuple(scenario for scenario in Scenario if scenario in given)
