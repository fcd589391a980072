"""Classes and benchmarks of notebook cells and scripts as files, which workers import and the keys of cells follow."""

from __future__ import annotations
import __future__ as future_features

import ast
import hashlib
import importlib
import inspect
import linecache
import symtable
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from benchmarks import catalogue
from benchmarks.catalogue import Benchmark
from benchmarks.modules import PROJECT, is_installed
from benchmarks.types import UserError
from benchmarks.user_files import import_file
from continual_intervals.values import literal, same
from methods import registry


@dataclass(frozen=True)
class Reference:
    """A method or benchmark as `methods.registry.load` or `benchmarks.catalogue.find` takes it."""

    text: str
    """A registered name, or FILE.py:NAME."""
    folders: tuple[str, ...] = ()
    """Folders of the user's own modules that a written file imports; workers need them on their search path."""


def reference(method: str | type, folder: Path) -> Reference:
    """Reference to a method. A class of a notebook cell or script is written to `folder`, with what it uses.

    Raises UserError for anything but a name or a subclass of Method, and for a class whose source cannot be found.
    """
    from methods.base import Method

    if isinstance(method, str):
        return Reference(method)
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise UserError(f"{method!r} is no method; give a name, FILE.py:CLASS, or a subclass of methods.base.Method")
    name = str(getattr(method, "name", ""))
    known = registry.available().get(name)
    if name.startswith(registry.AVALANCHE_PREFIX) or (known is not None and known.module == method.__module__):
        return Reference(name)
    registry.check_name(method, f"the class {method.__name__}")
    module = sys.modules.get(method.__module__)
    file = getattr(module, "__file__", None)
    if file and method.__module__ != "__main__" and getattr(module, method.__name__, None) is method:
        return Reference(f"{file}:{method.__name__}")
    names, code = _home_of_class(method)
    return _Writer(method, method.__name__, "class", names, code).write(folder)


def benchmark_reference(benchmark: str | Benchmark, folder: Path) -> Reference:
    """Reference to a benchmark. One of a notebook cell or script is written to `folder`, with what it uses.

    Raises UserError for anything but a name or a Benchmark, and for one that no name of the session is bound to.
    """
    if isinstance(benchmark, str):
        return Reference(benchmark)
    if not isinstance(benchmark, Benchmark):
        raise UserError(
            f"{benchmark!r} is no benchmark; give a name, FILE.py:NAME, or a benchmarks.catalogue.Benchmark"
        )
    if catalogue.BENCHMARKS.get(benchmark.name) == benchmark:
        return Reference(benchmark.name)
    made_by = benchmark.dataset if isinstance(benchmark.dataset, FunctionType) else None
    home = sys.modules.get(made_by.__module__ if made_by else "__main__", ModuleType("nothing"))
    names = made_by.__globals__ if made_by else vars(home)
    name = next((name for name, value in names.items() if value is benchmark and not name.startswith("_")), None)
    if name is None:
        raise UserError(
            f"the benchmark {benchmark.name!r} has no name at the top level of a cell or script; assign it to one, or "
            "put it into a file and give FILE.py:NAME"
        )
    if (file := getattr(home, "__file__", None)) and home.__name__ != "__main__":
        return Reference(f"{file}:{name}")
    return _Writer(benchmark, name, "benchmark", names, made_by.__code__ if made_by else None).write(folder)


@dataclass(frozen=True, order=True)
class _Statement:
    """Top-level statement of a cell or script."""

    place: int
    text: str

    @property
    def needs(self) -> Iterator[str]:
        """Names of the module that its code refers to, in functions too."""
        tables = [symtable.symtable(self.text, "cell", "exec")]
        top = tables[0]
        yield from (symbol.get_name() for symbol in top.get_symbols() if symbol.is_referenced())
        while tables:
            inner = tables.pop().get_children()
            yield from (s.get_name() for t in inner for s in t.get_symbols() if s.is_global() and s.is_referenced())
            tables += inner

    @property
    def binds(self) -> Iterator[str]:
        """Names that it assigns or imports."""
        for symbol in symtable.symtable(self.text, "cell", "exec").get_symbols():
            if symbol.is_assigned() or symbol.is_imported():
                yield symbol.get_name()


@dataclass
class _Writer:
    """Collector of the source of a class or benchmark, and of all that it refers to."""

    value: Any
    name: str
    what: str
    names: Mapping[str, Any]
    """Names of its module."""
    code: Any
    """Code of one of its functions, if it has one."""
    parts: set[_Statement] = field(default_factory=set)
    values: dict[str, str] = field(default_factory=dict)
    """Lines for names that no statement needs to be found for: those of plain values have the present ones."""
    folders: set[str] = field(default_factory=set)
    taken: set[str] = field(default_factory=set)
    """Names that were looked at."""

    @property
    def form(self) -> str:
        """Form of a reference to a file."""
        return f"FILE.py:{'CLASS' if self.what == 'class' else 'NAME'}"

    def write(self, folder: Path) -> Reference:
        name, names, code = self.name, self.names, self.code
        bound = _bound(names, code)
        if name not in bound or names.get(name) is not self.value:
            raise UserError(
                f"the source of the {self.what} {name} cannot be found; define it at the top level of a cell or "
                f"script, or put it into a file and give {self.form}"
            )
        self._take(name, names, bound)
        future = bool(code and code.co_flags & future_features.annotations.compiler_flag)
        lines = [f'"""A {self.what} of a notebook or script, with what it uses; written by continual_intervals."""']
        lines += ["from __future__ import annotations"] if future else []
        anew = {bound for part in self.parts for bound in part.binds}  # by a statement that binds other names, too
        last = [line for value, line in self.values.items() if value in anew]
        parts = [part.text for part in sorted(self.parts)]
        text = "\n\n".join([*lines, *self.values.values(), *parts, *last]) + "\n"
        file = folder.resolve() / f"{name}_{hashlib.sha256(text.encode()).hexdigest()[:8]}.py"
        known = file.exists()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"{file} cannot be written: {error.strerror}") from error
        try:
            self._compare(file)
        except UserError:
            if not known:
                file.unlink()
            raise
        return Reference(f"{file}:{name}", tuple(sorted(self.folders)))

    def _take(self, name: str, names: Mapping[str, Any], bound: Mapping[str, _Statement]) -> None:
        # The second is a builtin, or a name that only an annotation has; of a file, __name__ is never __main__.
        if name in self.taken or name not in names or name == "__name__":
            return
        self.taken.add(name)
        value = names[name]
        if (plain := literal(value)) is not None:
            self.values[name] = f"{name} = {plain}"
        elif name in bound:
            self.parts.add(bound[name])
            for other in bound[name].needs:
                self._take(other, names, bound)
        elif (line := _import_of(name, value)) is not None:
            self.values[name] = line
        else:
            raise UserError(
                f"{self.name} uses {name}, which no cell of this session defines; define it in a cell, or put the "
                f"{self.what} into a file and give {self.form}"
            )
        self.folders |= _own_folder(value)

    def _compare(self, file: Path) -> None:
        """Raise UserError if what the statements give again is not what the session has."""
        advice = f"run that statement again, or put the {self.what} with what it uses into a file and give {self.form}"
        try:
            again = vars(import_file(file))
        except UserError as error:
            raise UserError(f"what {self.name} uses cannot be made again: {error}; {advice}") from error
        for name in sorted(self.taken - self.values.keys()):
            if name not in again or not same(self.names[name], again[name]):
                whose = "" if name == self.name else f", which {self.name} uses,"
                raise UserError(
                    f"{name}{whose} was changed after the statement that defines it, or that statement makes another "
                    f"one each time; {advice}"
                )


def _home_of_class(cls: type) -> tuple[Mapping[str, Any], Any]:
    """Names of the class's module, and the code of one of its functions, if it has one."""
    for value in vars(cls).values():
        function = inspect.unwrap(getattr(value, "__func__", value))
        if isinstance(function, FunctionType) and function.__module__ == cls.__module__:
            return function.__globals__, function.__code__
    return vars(sys.modules.get(cls.__module__, ModuleType("nothing"))), None


def _bound(names: Mapping[str, Any], code: Any) -> dict[str, _Statement]:
    """The last top-level statement that binds each name: of the cells run so far, or of the script."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    texts = names.get("In") or ["".join(linecache.getlines(code.co_filename if code else main or ""))]
    found: dict[str, _Statement] = {}
    place = 0
    for text in texts:
        try:
            body = ast.parse(text).body
        except (SyntaxError, TypeError):  # a cell that failed
            continue
        for node in body:
            place += 1
            if isinstance(node, ast.ImportFrom) and node.module == "__future__":
                continue
            statement = _Statement(place, _source(node, text))
            if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
                found |= {name: _Statement(place, statement.text.replace("*", name)) for name in _public(node.module)}
            else:
                found |= dict.fromkeys(statement.binds, statement)
    return found


def _public(module: str | None) -> list[str]:
    """Names that `from module import *` binds."""
    names = vars(sys.modules.get(str(module), ModuleType("nothing")))
    return list(names.get("__all__") or (name for name in names if not name.startswith("_")))


def _source(node: ast.stmt, text: str) -> str:
    """Source of a statement, a definition's with its comments and decorators."""
    if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return ast.unparse(node)
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return "\n".join(text.splitlines()[first - 1 : node.end_lineno])


def _import_of(name: str, value: Any) -> str | None:
    """Import of a name that the start of the session has bound."""
    if isinstance(value, ModuleType):
        return f"import {value.__name__} as {name}"
    module, attribute = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not module or not attribute or module == "__main__" or "." in attribute:
        return None
    found = getattr(importlib.import_module(module), attribute, None)
    return f"from {module} import {attribute} as {name}" if found is value else None


def _own_folder(value: Any) -> set[str]:
    """Folder on the search path of a user's own module that a name comes from."""
    module = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
    top = str(module).partition(".")[0]
    file = getattr(sys.modules.get(top), "__file__", None)
    if top in ("__main__", *PROJECT) or top in sys.stdlib_module_names or not file or is_installed(Path(file)):
        return set()
    path = Path(file).resolve()
    return {str(path.parent.parent if path.name == "__init__.py" else path.parent)}
