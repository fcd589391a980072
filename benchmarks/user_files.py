"""Import of a method's file as by Python, with its package, relative imports and neighbouring modules.

A file's imports from its own folder are found there and nowhere else, whatever other folders contain. Names that two
modules of one process cannot share are refused before anything runs.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from benchmarks.modules import PROJECT, Module, base_of, dotted_name, in_folder, is_installed, packages_of
from benchmarks.types import UserError

ROOT = Path(__file__).resolve().parent.parent


class _Finder(MetaPathFinder):
    """Finder of the modules and packages next to files loaded so far, by their top-level names."""

    def __init__(self) -> None:
        self.homes: dict[str, Module] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        home = self.homes.get(fullname)
        if home is None or home.file is None:
            return None
        inside = [str(home.folder)] if home.folder else None
        return importlib.util.spec_from_file_location(fullname, home.file, submodule_search_locations=inside)


_FINDER = _Finder()


def import_file(file: Path) -> ModuleType:
    """Import a file, as part of its package if it has one. Raises UserError if the import fails."""
    file = file.resolve()
    try:
        homes = dict(_homes(file, set()))
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{file} does not import: {type(error).__name__}: {error}") from error
    _FINDER.homes |= homes
    if homes and _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    base = str(base_of(file))
    if base not in sys.path:
        sys.path.append(base)  # last: serves imports whose names are known only at run time
    try:
        return importlib.import_module(dotted_name(file)) if packages_of(file) else _on_its_own(file)
    except (Exception, SystemExit) as error:
        raise UserError(f"{file} does not import: {type(error).__name__}: {error}{_hint(error, file)}") from error


def _hint(error: BaseException, file: Path) -> str:
    """Advice on an import that failed, where the file's folder was to be a package, or the module lies elsewhere."""
    lacking = error.name.partition(".")[0] if isinstance(error, ModuleNotFoundError) and error.name else None
    if "relative import" in str(error) or lacking == file.parent.name:
        return f"; put an empty __init__.py into {file.parent}, so that it is a package"
    if lacking is not None:
        return f"; put the module next to {file.name}, install its package, or add its folder to PYTHONPATH"
    return ""


def _on_its_own(file: Path) -> ModuleType:
    """Run a file outside any package, under a name unique among files of its stem."""
    unique = hashlib.sha256(str(file).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(f"_method_{file.stem}_{unique}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and type hints look up their module here
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


def _homes(file: Path, seen: set[Path]) -> Iterator[tuple[str, Module]]:
    """Yield the top-level names that a file and its neighbouring modules import from their folder, or belong to.

    Raises UserError for a name that is already taken in this process.
    """
    if file in seen or file.suffix != ".py":
        return
    seen.add(file)
    base, packages = base_of(file), packages_of(file)
    if base == ROOT or is_installed(base):
        return
    if packages:
        top = packages[-1].parent.name
        own = Module(packages[-1], packages[-1].parent)
        _check(top, own, f"{file} lies in the package {top!r}")
        yield top, own
    for name in dict.fromkeys(_imported(ast.parse(file.read_bytes()))):
        top = name.partition(".")[0]
        home = in_folder(base, top)
        if home is None or home.file is None or (packages and top == packages[-1].parent.name):
            continue
        if top in PROJECT and not _is_theirs(home, name):
            continue
        _check(top, home, f"{file} imports {name} from {base}")
        yield top, home
        yield from _homes(home.file, seen)


def _is_theirs(home: Module, name: str) -> bool:
    """Check whether this module is in the user's package and not in the project's package of the same name."""
    ours, theirs = Module(None, ROOT / name.partition(".")[0]), home
    for part in name.split(".")[1:]:
        mine, own = ours.inside(part), theirs.inside(part)
        if mine is None or own is None:
            return mine is None and own is not None
        ours, theirs = mine, own
    return False


def _check(top: str, home: Module, what: str) -> None:
    advice = "rename one of the two, or put yours into a package of another name"
    if top in PROJECT:
        raise UserError(f"{what}, but this project has a package called {top} too; rename yours")
    if top in sys.stdlib_module_names:
        raise UserError(f"{what}, but Python's own library has a module called {top} too; rename yours")
    claimed, loaded = _FINDER.homes.get(top), sys.modules.get(top)
    other = claimed.file if claimed is not None else getattr(loaded, "__file__", None)
    if other is not None and home.file is not None and Path(other).resolve() != home.file:
        raise UserError(f"{what}, but {other} is loaded as {top} already; {advice}")


def _imported(tree: ast.Module) -> Iterator[str]:
    """Yield the dotted names of the modules that a file imports, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
