"""Registry of methods: found by name, entry point or file; torch is not imported until a method is loaded."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from benchmarks import unimported
from benchmarks.types import Scenario, UserError, suggestion

if TYPE_CHECKING:
    from methods.base import Method

AVALANCHE_PREFIX = "avalanche:"
"""Prefix of the names of Avalanche's strategies; see methods/avalanche.py."""
ENTRY_POINT_GROUP = "continual_intervals.methods"
_Class = TypeVar("_Class", bound=type)


@dataclass(frozen=True)
class MethodInfo:
    """Description of a method for listings, read from its source without importing it."""

    name: str
    module: str
    """Dotted module of a method in this repository or of an entry point."""
    class_name: str
    summary: str
    scenarios: tuple[Scenario, ...]
    file: Path | None


def register(name: str) -> Callable[[_Class], _Class]:
    """Give a `Method` class its name in suites, tables and folders (letters, digits, `_`, `-`).

    A class with another name is refused when it is loaded, so that the other classes of its file stay usable.
    """

    def name_class(cls: _Class) -> _Class:
        cls.name = name  # type: ignore[attr-defined]
        return cls

    return name_class


def available() -> dict[str, MethodInfo]:
    """Every registered method by name: files of this package, then installed entry points."""
    found: dict[str, MethodInfo] = {}
    for file in sorted(Path(__file__).parent.glob("*.py")):
        for info in describe(file, f"methods.{file.stem}"):
            if info.name in found:
                raise UserError(f"method {info.name!r} is registered twice: {found[info.name].file} and {file}")
            found[info.name] = info
    for point in points():
        if point.name in found:
            raise UserError(f"the entry point {point.value} would replace the method {point.name!r}; rename it")
        found[point.name] = _from_entry_point(point)
    return found


@cache
def points() -> tuple[EntryPoint, ...]:
    """Entry points of installed packages; to find them reads a file of each, and `available` is called often."""
    return tuple(entry_points(group=ENTRY_POINT_GROUP))


def _from_entry_point(point: EntryPoint) -> MethodInfo:
    """Summary and scenarios from the source where it can be found, without importing the method."""
    file = unimported.file_of(point.module)
    for info in _readable(file, point.module) if file is not None else ():
        if info.class_name == point.attr:
            return replace(info, name=point.name)
    return MethodInfo(point.name, point.module, point.attr, f"from {point.value}", tuple(Scenario), file)


def _readable(file: Path, module: str) -> list[MethodInfo]:
    try:
        return describe(file, module)
    except (OSError, SyntaxError, ValueError):  # reported when the method is loaded; other methods stay usable
        return []


def load(name: str) -> type[Method]:
    """Load the class of a method: a registered name, `path/to/file.py:Class`, or `avalanche:Strategy`.

    Raises UserError for an unknown name (with suggestions), and for a file that is missing, does not
    import, or does not define the class.
    """
    if ".py:" in name or name.endswith(".py"):
        return _load_file(name)
    if name.startswith(AVALANCHE_PREFIX):
        return importlib.import_module("methods.avalanche").method(name)
    known = available()
    if name not in known:
        raise UserError(f"unknown method {name!r}.{suggestion(name, known)} Available: {', '.join(known)}")
    info = known[name]
    cls = getattr(importlib.import_module(info.module), info.class_name)
    check_name(cls, f"{info.module}:{info.class_name}")
    if getattr(cls, "name", None) != name:
        raise UserError(f"{info.module}:{info.class_name} is listed as {name!r} but registers {cls.name!r}")
    return cls


def describe(file: Path, module: str = "") -> list[MethodInfo]:
    """List the registered classes of a source file, read from its syntax tree."""
    return list(_described(file, module, file.stat().st_mtime_ns))


@cache
def _described(file: Path, module: str, _modified: int) -> tuple[MethodInfo, ...]:
    classes = (node for node in ast.parse(file.read_bytes()).body if isinstance(node, ast.ClassDef))
    return tuple(info for node in classes if (info := _describe_class(node, file, module)))


def _describe_class(node: ast.ClassDef, file: Path, module: str) -> MethodInfo | None:
    for decorator in node.decorator_list:
        match decorator:
            case ast.Call(func=ast.Name(id="register"), args=[ast.Constant(value=str(name))]):
                summary = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
                return MethodInfo(name, module, node.name, summary, _supports(node), file)
    return None


def _supports(node: ast.ClassDef) -> tuple[Scenario, ...]:
    for statement in node.body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id="supports")], value=value)
                | ast.AnnAssign(target=ast.Name(id="supports"), value=value)
            ) if value is not None:
                names = {part.id for part in ast.walk(value) if isinstance(part, ast.Name)}
                return tuple(s for s in Scenario if s.name in names) or tuple(Scenario)
    return tuple(Scenario)


def _load_file(reference: str) -> type[Method]:
    path, _, class_name = reference.partition(".py:")
    file = Path(path if path.endswith(".py") else path + ".py")
    if not file.is_file():
        raise UserError(f"--method {reference}: there is no file {file}")
    from benchmarks.user_files import import_file
    from methods.base import Method

    module = import_file(file)
    classes = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
    }
    if not class_name and len(classes) == 1:
        class_name = next(iter(classes))
    if class_name not in classes:
        raise UserError(f"{file} holds no Method class {class_name!r}; it holds: {', '.join(classes) or 'none'}")
    cls = classes[class_name]
    check_name(cls, f"{file}:{class_name}")
    return cls


def check_name(cls: type, place: str) -> None:
    """Raise UserError for a class without a name, or with one that `register` does not permit."""
    name = getattr(cls, "name", "")
    if not name:
        raise UserError(f'{place} has no name; put @register("my_method") above the class')
    if not all(c.isalnum() or c in "_-" for c in name):
        raise UserError(f"{place} is registered as {name!r}; use letters, digits, '_' and '-' only")
