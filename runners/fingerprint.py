"""A method's source hash: its file and every project module it imports, without comments and layout."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("methods", "benchmarks")
_NEUTRAL = frozenset({"methods.registry", "methods.search", "methods.nets.targets"})
"""Modules that find methods, their hyperparameters or networks, and decide no number."""


def source_hash(file: Path) -> str:
    """SHA-256 over the syntax trees of `file` and of the modules it imports, directly or not.

    Followed are this project's methods.* and benchmarks.*, and modules that lie beside a foreign
    file. Comments, docstrings, formatting and the ranges that a Config's `search` names do not count.
    """
    found = {name: digest for name, (_, digest) in _closure(file).items()}
    listing = "\n".join(f"{name} {found[name]}" for name in sorted(found))
    return hashlib.sha256(listing.encode()).hexdigest()


def files_beside(file: Path) -> list[Path]:
    """A foreign file and the modules beside it that it imports, directly or not."""
    folder = file.resolve().parent
    return [path for path, _ in _closure(file).values() if path.is_relative_to(folder)]


def _closure(file: Path) -> dict[str, tuple[Path, str]]:
    """Path and hash of `file` and of each module that it imports, directly or not, by module name."""
    file = file.resolve()
    found: dict[str, tuple[Path, str]] = {}
    waiting = [(_module_name(file), file)]
    while waiting:
        name, path = waiting.pop()
        if name in found or name in _NEUTRAL:
            continue
        digest, imported = _read(path, name, path.stat().st_mtime_ns)
        found[name] = path, digest
        for target in imported:
            located = _locate(target, path)
            if located is not None and target not in found:
                waiting.append((target, located))
    return found


def module_hash(module: str) -> str:
    """`source_hash` of a module of this project, by its dotted name."""
    path = _locate(module, ROOT)
    assert path is not None, module
    return source_hash(path)


def _module_name(path: Path) -> str:
    try:
        relative = path.relative_to(ROOT).with_suffix("")
    except ValueError:
        return path.stem
    parts = relative.parts[:-1] if relative.name == "__init__" else relative.parts
    return ".".join(parts) if parts and parts[0] in _PACKAGES else path.stem


def _locate(module: str, importer: Path) -> Path | None:
    parts = module.split(".")
    base = ROOT if parts[0] in _PACKAGES else importer.parent
    for candidate in (base.joinpath(*parts).with_suffix(".py"), base.joinpath(*parts, "__init__.py")):
        if candidate.is_file():
            return candidate
    return None


@cache
def _read(path: Path, name: str, _modified: int) -> tuple[str, tuple[str, ...]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    imported = tuple(dict.fromkeys(_imports(tree, package)))
    return hashlib.sha256(_canonical(tree).encode()).hexdigest(), imported


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if _is_neutral(node):
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                kept = package.split(".")[: len(package.split(".")) - node.level + 1] if package else []
                base = ".".join([*kept, *([base] if base else [])])
            if base:
                yield from _with_parents(base)
            yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names)


def _with_parents(module: str) -> Iterator[str]:
    parts = module.split(".")
    yield from (".".join(parts[: n + 1]) for n in range(len(parts)))


def _canonical(node: object) -> str:
    """The tree as text, the same for all Python versions: empty fields and bare strings are left out."""
    if isinstance(node, list):
        kept = (item for item in node if not (_is_bare_string(item) or _is_neutral(item)))
        return "[" + ",".join(map(_canonical, kept)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = (
        f"{name}={_canonical(value)}"
        for name, value in ast.iter_fields(node)
        if value not in (None, []) and name not in ("ctx", "kind", "type_comment", "type_ignores")
    )
    return f"{type(node).__name__}({','.join(fields)})"


def _is_bare_string(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_neutral(node: object) -> bool:
    """Whether a statement imports from a neutral module, or is the `search = ranges(...)` of a Config."""
    match node:
        case ast.ImportFrom(module=str(module)):
            return module in _NEUTRAL
        case ast.Assign(targets=[ast.Name(id="search")], value=ast.Call(func=ast.Name(id="ranges"))):
            return True
    return False
