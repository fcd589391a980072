"""Canonical text of a module's code, without the names of imported things; it is compared and hashed.

Names that an import binds are replaced by references to what is imported, so that neither the place of a module nor
the name it is imported under counts. Comments, docstrings, formatting and the order of neighbouring imports do not
count either. `runners.grid.fingerprint` resolves the references later.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

_FILE_NAME = re.compile(r"[\w-][\w ./-]{0,120}\.\w{1,8}")
_LOADERS = {
    ("importlib", "util", "spec_from_file_location"),
    ("importlib", "machinery", "SourceFileLoader"),
    ("runpy", "run_path"),
    ("runpy", "run_module"),
}
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_OPENING = frozenset({*_FUNCTIONS, *_COMPREHENSIONS, ast.ClassDef, ast.comprehension})
"""Nodes of which a part is evaluated in another scope."""
_BINDING = frozenset(
    {*_FUNCTIONS, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal, ast.NamedExpr}
    | {ast.ExceptHandler, ast.MatchAs, ast.MatchStar, ast.MatchMapping}
)
_LEFT_OUT = frozenset({"ctx", "kind", "type_comment", "type_ignores"})


class Ref(NamedTuple):
    """Something that an import reaches: `from ..a import b` and a use `b.c` are (2, ("a", "b", "c"), 1)."""

    level: int
    """Leading dots."""
    parts: tuple[str, ...]
    modules: int
    """Number of the parts that are certainly modules; the others may be attributes."""

    def then(self, names: tuple[str, ...]) -> Ref:
        return self._replace(parts=self.parts + names)


class Item(NamedTuple):
    """One name of an import statement; `name` is None where every use of it is replaced by a reference."""

    ref: Ref
    name: str | None


@dataclass(frozen=True)
class Skeleton:
    """A module's code without names of imported things."""

    body: str
    """SHA-256 of the text, in which references and runs of imports are numbers."""
    refs: tuple[Ref, ...]
    """Uses of imported things, by first appearance."""
    runs: tuple[tuple[Item, ...], ...]
    """Neighbouring import statements."""
    exports: dict[str, Ref]
    """Names of the module that one import binds and nothing else."""
    bound: frozenset[str]
    """All other names of the module's top level."""
    computed: tuple[int, ...]
    """Lines that import a module by a name known at run time only."""
    files: tuple[str, ...]
    """Texts that may name files in the module's folder."""
    empty: bool
    """True if running the module has no effect."""


@dataclass
class _Scope:
    parent: _Scope | None
    kind: str
    """module, class, function or comprehension."""
    imports: dict[str, set[Ref]] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    star: bool = False

    def lookup(self, name: str) -> _Scope | None:
        """Scope that binds `name` as used in this scope; None for builtins and names from star imports."""
        scope: _Scope | None = self
        while scope is not None:
            if (name in scope.imports or name in scope.others) and (scope is self or scope.kind != "class"):
                return scope
            scope = scope.parent
        return None


def skeleton(source: bytes) -> Skeleton:
    """The skeleton of a module's source. Raises SyntaxError."""
    return _Reader(ast.parse(source)).read()


class _Reader:
    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.inner: dict[int, _Scope] = {}
        self.first_iterables: set[int] = set()
        self.fixed: set[str] = set()
        """Names in `global` and `nonlocal` statements: bound from elsewhere, therefore never replaced."""
        self.top = _Scope(None, "module")
        self.refs: dict[Ref, int] = {}
        self.runs: list[tuple[Item, ...]] = []
        self.computed: list[int] = []
        self.files: set[str] = set()

    def read(self) -> Skeleton:
        self._bind(self.tree, self.top)
        text = self._text(self.tree, self.top)
        exports = {name: next(iter(refs)) for name, refs in self.top.imports.items() if self._replaced(self.top, name)}
        return Skeleton(
            body=hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
            refs=tuple(self.refs),
            runs=tuple(self.runs),
            exports=exports,
            bound=frozenset((self.top.imports.keys() | self.top.others) - exports.keys()),
            computed=tuple(self.computed),
            files=tuple(sorted(self.files)),
            empty=text == "Module()",
        )

    # -- scopes ----------------------------------------------------------------------------------

    def _scope_of(self, node: ast.AST, part: str, scope: _Scope) -> _Scope:
        """The scope in which a part of a node is evaluated: `part` is the field's name."""
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)) and part in ("body", "type_params"):
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
        elif isinstance(node, _COMPREHENSIONS):
            self.first_iterables.add(id(node.generators[0].iter))
            kind = "comprehension"
        elif isinstance(node, ast.comprehension) and id(node.iter) in self.first_iterables and part == "iter":
            return scope.parent or scope
        else:
            return scope
        return self.inner.setdefault(id(node), _Scope(scope, kind))

    def _bind(self, node: ast.AST, scope: _Scope) -> None:
        """Record the names that `node` and its descendants bind in `scope` and in the scopes below it."""
        kind = type(node)
        if kind is ast.Name:
            if type(node.ctx) is not ast.Load:  # type: ignore[attr-defined]
                scope.others.add(node.id)  # type: ignore[attr-defined]
            return
        if kind in _BINDING:
            self._bind_names(node, scope)
        opens = kind in _OPENING
        for part, value in ast.iter_fields(node):
            within = self._scope_of(node, part, scope) if opens else scope
            if isinstance(value, ast.AST):
                self._bind(value, within)
            elif isinstance(value, list):
                for child in _expanded(value):
                    if isinstance(child, ast.AST):
                        self._bind(child, within)

    def _bind_names(self, node: ast.AST, scope: _Scope) -> None:
        match node:
            case ast.Import() | ast.ImportFrom():
                for item in _items(node):
                    if item.name == "*":
                        scope.star = True
                    else:
                        scope.imports.setdefault(str(item.name), set()).add(_bound_to(item, node))
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                self.fixed.update(names)
            case ast.NamedExpr(target=ast.Name(id=name)):
                owner = scope
                while owner.kind == "comprehension" and owner.parent is not None:
                    owner = owner.parent
                owner.others.add(name)
            case (
                ast.FunctionDef(name=str(name))
                | ast.AsyncFunctionDef(name=str(name))
                | ast.ClassDef(name=str(name))
                | ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
                | ast.MatchMapping(rest=str(name))
            ):
                scope.others.add(name)
        if isinstance(node, _FUNCTIONS):
            arguments = (part.arg for part in ast.walk(node.args) if isinstance(part, ast.arg))
            self._scope_of(node, "body", scope).others.update(arguments)

    def _replaced(self, scope: _Scope, name: str) -> bool:
        """Check whether uses of a name that `scope` binds become references."""
        only_one = len(scope.imports.get(name, ())) == 1 and name not in scope.others
        return only_one and name not in self.fixed and not scope.star and scope.kind != "class"

    def _reference(self, node: ast.expr, scope: _Scope) -> Ref | None:
        """Reference of an expression `name.attribute...` or `import_module("name")`, if an import decides it."""
        match node:
            case ast.Name(id=name):
                owner = scope.lookup(name)
                return next(iter(owner.imports[name])) if owner is not None and self._replaced(owner, name) else None
            case ast.Attribute(value=value, attr=attribute):
                found = self._reference(value, scope)
                return found and found.then((attribute,))
            case ast.Call(func=function, args=[ast.Constant(value=str(module)), *rest]):
                named = module.lstrip(".")
                relative_to_own = len(rest) == 1 and isinstance(rest[0], ast.Name) and rest[0].id == "__package__"
                if named and self._imports(function, scope) and (relative_to_own or named == module):
                    parts = tuple(named.split("."))
                    return Ref(len(module) - len(named), parts, len(parts))
        return None

    def _imports(self, function: ast.expr, scope: _Scope) -> bool:
        """Check whether a function is importlib.import_module."""
        found = self._reference(function, scope)
        return found is not None and found.parts == ("importlib", "import_module")

    def _is_computed(self, node: ast.Call, scope: _Scope) -> bool:
        found = self._reference(node.func, scope)
        built_in = isinstance(node.func, ast.Name) and node.func.id in ("__import__", "exec", "eval")
        return built_in or self._imports(node.func, scope) or (found is not None and found.parts in _LOADERS)

    # -- text ------------------------------------------------------------------------------------

    def _text(self, node: object, scope: _Scope) -> str:
        """Text of a node, identical in all Python versions: empty fields are left out."""
        if not isinstance(node, ast.AST):
            if isinstance(node, str) and _FILE_NAME.fullmatch(node):
                self.files.add(node)
            return repr(node)
        if isinstance(node, ast.Name | ast.Attribute | ast.Call):
            found = self._reference(node, scope)
            if found is not None:
                return f"<{self.refs.setdefault(found, len(self.refs))}>"
        if isinstance(node, ast.Call) and self._is_computed(node, scope):
            self.computed.append(node.lineno)
        opens = type(node) in _OPENING
        fields = (
            f"{name}={self._value(value, self._scope_of(node, name, scope) if opens else scope)}"
            for name, value in ast.iter_fields(node)
            if name not in _LEFT_OUT and not _is_nothing(value)
        )
        return f"{type(node).__name__}({','.join(fields)})"

    def _value(self, value: object, scope: _Scope) -> str:
        if not isinstance(value, list):
            return self._text(value, scope)
        return "[" + ",".join(self._list(value, scope)) + "]"

    def _list(self, values: list[object], scope: _Scope) -> Iterator[str]:
        run: list[Item] = []
        for value in _expanded(values):
            if isinstance(value, ast.Import | ast.ImportFrom):
                run += [self._item(item, scope) for item in _items(value)]
                continue
            if run:
                yield self._run(run)
                run = []
            yield self._text(value, scope)
        if run:
            yield self._run(run)

    def _item(self, item: Item, scope: _Scope) -> Item:
        return Item(item.ref, None) if self._replaced(scope, str(item.name)) else item

    def _run(self, run: list[Item]) -> str:
        self.runs.append(tuple(run))
        return f"<imports {len(self.runs) - 1}>"


def _items(node: ast.Import | ast.ImportFrom) -> Iterator[Item]:
    """Items of an import statement, each with the name that it binds."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            parts = tuple(alias.name.split("."))
            yield Item(Ref(0, parts, len(parts)), alias.asname or parts[0])
        return
    module = tuple((node.module or "").split(".")) if node.module else ()
    for alias in node.names:
        parts = module if alias.name == "*" else (*module, alias.name)
        yield Item(Ref(node.level, parts, len(module)), alias.asname or alias.name)


def _bound_to(item: Item, node: ast.Import | ast.ImportFrom) -> Ref:
    """Reference that the name is bound to: `import a.b` binds the package a."""
    parts = item.ref.parts
    plain = isinstance(node, ast.Import) and not any(alias.asname == item.name for alias in node.names)
    return Ref(0, parts[:1], 1) if plain else item.ref


def _expanded(values: list[object]) -> Iterator[object]:
    """Statements that can decide a number: no docstrings, no ranges of a search, nothing for type checkers only."""
    for value in values:
        if not isinstance(value, ast.stmt):
            yield value
        elif isinstance(value, ast.If) and _is_type_checking(value.test):
            yield from _expanded(list(value.orelse))
        elif not (_is_bare_string(value) or _is_search(value)):
            yield value


def _is_nothing(value: object) -> bool:
    return value is None or (isinstance(value, list) and not any(True for _ in _expanded(value)))


def _is_type_checking(test: ast.expr) -> bool:
    match test:
        case ast.Name(id="TYPE_CHECKING") | ast.Attribute(value=ast.Name(id="typing"), attr="TYPE_CHECKING"):
            return True
    return False


def _is_bare_string(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_search(node: object) -> bool:
    """Check whether a statement is the `search = ranges(...)` of a Config."""
    match node:
        case ast.Assign(targets=[ast.Name(id="search")], value=ast.Call(func=ast.Name(id="ranges"))):
            return True
    return False
