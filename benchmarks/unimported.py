"""Values in modules that are not imported, read from their source; so that lists stay quick. Imports no torch.

A package may need many seconds to import. Read are literals, names that the module assigns, paths made from
`__file__`, and calls of the classes that the caller permits. No code of the package runs.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from enum import EnumMeta
from pathlib import Path
from typing import Any

DEPTH = 20
"""Names that may refer to each other, one after the other."""
_OF_PATHS = ("parent", "with_name", "joinpath", "resolve", "absolute")


class Unreadable(Exception):
    """A value that only an import can tell."""


def file_of(module: str) -> Path | None:
    """Source file of a module, found without importing its package as `find_spec` would; None if there is none."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return None
    places = [Path(place) for place in spec.submodule_search_locations or ()]
    candidates = [Path(spec.origin)] if spec.origin and not rest else []
    for place in places:
        path = place.joinpath(*rest)
        candidates += [path.with_name(f"{path.name}.py"), path / "__init__.py"] if rest else []
    return next((path for path in candidates if path.suffix == ".py" and path.is_file()), None)


def value_of(module: str, name: str, classes: Mapping[str, Any]) -> Any:
    """Value of `module.name`. classes: callables and enums by the name under which a module may use them.

    Raises Unreadable where the source is not at hand or the value is made in another way.
    """
    file = file_of(module)
    if file is None:
        raise Unreadable(f"{module} has no source file")
    try:
        return _Module(file, classes).name(name, DEPTH)
    except (OSError, SyntaxError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise Unreadable(str(error)) from error


class _Module:
    """Assignments of a source file."""

    def __init__(self, file: Path, classes: Mapping[str, Any]) -> None:
        self.file, self.classes = file, classes
        self.assigned: dict[str, ast.expr] = {}
        for node in ast.parse(file.read_bytes()).body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    self.assigned[name] = value
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    self.assigned[name] = value
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                    self.assigned.pop(name, None)
                case _:
                    pass

    def name(self, name: str, depth: int) -> Any:
        if name == "__file__":
            return str(self.file)
        if name in self.assigned and depth > 0:
            return self.value(self.assigned[name], depth - 1)
        if name in self.classes:
            return self.classes[name]
        raise Unreadable(name)

    def value(self, node: ast.expr, depth: int) -> Any:
        def read(part: ast.expr) -> Any:
            return self.value(part, depth)

        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return self.name(name, depth)
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                found = [read(part) for part in parts]
                return tuple(found) if isinstance(node, ast.Tuple) else found
            case ast.Dict(keys=keys, values=values):
                return {read(key): read(value) for key, value in zip(keys, values, strict=True) if key is not None}
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -read(operand)
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                return _path(read(left)) / read(right)
            case ast.Attribute(value=owner, attr=attribute):
                return self.attribute(owner, attribute, depth)
            case ast.Call(func=function, args=arguments, keywords=keywords) if all(one.arg for one in keywords):
                called = read(function)
                return called(*map(read, arguments), **{str(one.arg): read(one.value) for one in keywords})
            case _:
                raise Unreadable(ast.unparse(node))

    def attribute(self, owner: ast.expr, attribute: str, depth: int) -> Any:
        unknown = isinstance(owner, ast.Name) and owner.id not in (*self.assigned, *self.classes)
        if unknown and attribute in self.classes:  # `types.Budget` after `from benchmarks import types`
            return self.classes[attribute]
        found = self.value(owner, depth)
        if isinstance(found, EnumMeta):
            return found[attribute]
        if isinstance(found, Path) and attribute in _OF_PATHS:
            return getattr(found, attribute)
        raise Unreadable(attribute)


def _path(value: Any) -> Path:
    if not isinstance(value, Path):
        raise Unreadable("a division")
    return value
