"""A method's source hash: its file and every module it imports that belongs to no installed distribution.

The hash of a module is that of its code (`canonical`) with the hashes of the modules that its imports reach
in place of their names. Modules may therefore be moved and renamed; what they hold and what of it is imported counts.
Modules that import each other are hashed together: each by its code, then repeatedly with the others' hashes of
the round before.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

from benchmarks.modules import PROJECT, Module, is_installed, packages_of, top_module
from benchmarks.types import UserError
from runners.grid.canonical import Item, Ref, Skeleton, skeleton

ROOT = Path(__file__).resolve().parents[2]
_NEUTRAL = {"methods/registry.py": "registry", "methods/search.py": "search", "methods/networks/targets.py": "networks"}
"""Modules that find methods, their hyperparameters or networks and decide no number, each with a name that stays."""
_LARGEST_DATA = 1 << 28
"""Bytes of a data file in a module's folder, above which its size is hashed instead of its content."""
_DEPTH = 32
"""Imports that pass a name on, one after the other, that are followed."""

Text = list[str | Path]
"""Pieces of a text: as they are, or the hash of the module in that file."""
_Texts = tuple[list[Text], list[tuple[list[Text], list[Text]]]]


class Sources:
    """Source hashes of several files of one state of the disk: modules that they share are read and hashed once."""

    def __init__(self) -> None:
        self._graphs: dict[Path, _Graph] = {}

    def hash(self, file: Path) -> str:
        """See the function `source_hash`."""
        return self._graph(file).hash(file.resolve())

    def not_followed(self, file: Path) -> list[str]:
        """Places in foreign code that `file` reaches whose imports cannot be followed, as `name.py:line`."""
        graph = self._graph(file)
        found = ((path, graph.skeleton(path)) for path in graph.closure(file.resolve()) if not _in_project(path))
        return [f"{path.name}:{line}" for path, code in found for line in code.computed]

    def _graph(self, file: Path) -> _Graph:
        graph = _Graph(file.resolve())
        return self._graphs.setdefault(graph.package, graph)


def source_hash(file: Path) -> str:
    """SHA-256 over the code of `file` and of all modules it imports, directly or not.

    Followed are this project's modules, those in the file's folder, its package, and whatever Python's search path has
    outside installed distributions (packages in editable mode too). Of installed ones, `distributions_of` tells.
    Raises UserError for a file that is no Python, or not in the encoding it declares.
    """
    return Sources().hash(file)


def file_of(module: str) -> Path:
    """The file of a module of this project, by its dotted name."""
    return ROOT.joinpath(*module.split(".")).with_suffix(".py")


def foreign_files(file: Path) -> list[Path]:
    """A foreign file and what it needs outside this project: modules, their packages, data files they name."""
    graph = _Graph(file := file.resolve())
    mine = [path for path in graph.closure(file) if not _in_project(path)]
    inits = (init for path in mine for init in packages_of(path))
    return list(dict.fromkeys([*mine, *inits, *(data for path in mine for data in graph.data_of(path))]))


def installed_modules(file: Path) -> set[str]:
    """Top-level names outside Python's own library that the followed modules import and that are not followed."""
    graph = _Graph(file := file.resolve())
    return {name for path in graph.closure(file) for name in graph.outside(path) if name not in sys.stdlib_module_names}


def _in_project(path: Path) -> bool:
    return path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in PROJECT


class _Graph:
    """Import graph of the files of a package, or of a file outside packages.

    Rebuilt for each query, unless `Sources` shares it: files may change between two.
    """

    def __init__(self, file: Path) -> None:
        packages = packages_of(file)
        self.package = packages[-1].parent if packages else file
        """Followed even where it is installed."""
        self.neutral = {ROOT / path: name for path, name in _NEUTRAL.items()}
        self.skeletons: dict[Path, Skeleton] = {}
        self.tops: dict[tuple[str, Path], Module | None] = {}
        self.insides: dict[tuple[Module, str], Module | None] = {}
        self.needs: dict[Path, list[Path]] = {}
        self.texts: dict[Path, _Texts] = {}
        self.hashes: dict[Path, str] = {}

    def hash(self, file: Path) -> str:
        if file not in self.hashes:
            for group in _components(file, self._unhashed):
                self._hash_together(group)
        return self.hashes[file]

    def _unhashed(self, path: Path) -> list[Path]:
        return [part for part in self.needed(path) if part not in self.hashes]

    def closure(self, file: Path) -> list[Path]:
        return [path for group in _components(file, self.needed) for path in group]

    def skeleton(self, path: Path) -> Skeleton:
        if path not in self.skeletons:
            self.skeletons[path] = _read(path, _stamp(path))
        return self.skeletons[path]

    # -- references ------------------------------------------------------------------------------

    def needed(self, path: Path) -> list[Path]:
        """The modules whose hashes a module's own needs."""
        if path not in self.needs:
            uses, runs = self._resolved(path)
            groups = [*uses, *(group for run in runs for part in run for group in part)]
            modules = (part for group in groups for part in group if isinstance(part, Path))
            self.needs[path] = list(dict.fromkeys([*modules, *self._packages(path)]))
        return self.needs[path]

    def _packages(self, path: Path) -> list[Path]:
        return [init for init in packages_of(path) if init != path and not self.skeleton(init).empty]

    def _resolved(self, path: Path) -> _Texts:
        """Resolved references of a module, and its runs of imports: unordered ones, then those whose names count."""
        if path not in self.texts:
            code = self.skeleton(path)
            uses = [self._meaning(path, ref) for ref in code.refs]
            runs = [([self._run(path, i) for i in run], self._named(path, run)) for run in code.runs]
            self.texts[path] = uses, runs
        return self.texts[path]

    def _run(self, path: Path, item: Item) -> Text:
        """The module that an import statement runs."""
        module, _ = self._walk(path, item.ref)
        if module is None:
            return [".".join(item.ref.parts[: item.ref.modules])]
        if module.file is None or module.file in self.neutral:
            return []
        return [module.file]

    def _named(self, path: Path, run: Iterable[Item]) -> list[Text]:
        return [[f"{item.name}=", *self._meaning(path, item.ref)] for item in run if item.name is not None]

    def _meaning(self, path: Path, ref: Ref, depth: int = 0) -> Text:
        """A reference as text: its defining module and the name in it, resolved through re-exports."""
        module, rest = self._walk(path, ref)
        if module is None:
            return [".".join(ref.parts)]
        if module.file is None:
            return ["namespace:", ".".join(rest)]
        if module.file in self.neutral:
            return [f"{self.neutral[module.file]}:", ".".join(rest)]
        code = self.skeleton(module.file)
        if rest and rest[0] in code.exports and depth < _DEPTH:
            return self._meaning(module.file, code.exports[rest[0]].then(rest[1:]), depth + 1)
        if rest:
            return [module.file, ":", ".".join(rest)]
        if depth:
            return [module.file]
        passed_on: Text = [module.file]  # any of its names may be asked for, also those of its imports
        for name in sorted(code.exports):
            passed_on += [f",{name}=", *self._meaning(module.file, code.exports[name], _DEPTH)]
        return passed_on

    def _walk(self, importer: Path, ref: Ref) -> tuple[Module | None, tuple[str, ...]]:
        """The module that a reference reaches and the attributes that remain; no module: nothing that is followed."""
        if ref.level:
            folder = importer.parent
            for _ in range(ref.level - 1):
                folder = folder.parent
            init = folder / "__init__.py"
            module, rest, sure = Module(init if init.is_file() else None, folder), ref.parts, ref.modules
        else:
            found = self._top(ref.parts[0], importer)
            if found is None:
                return None, ref.parts
            module, rest, sure = found, ref.parts[1:], ref.modules - 1
        while rest:
            code = self.skeleton(module.file) if module.file and sure <= 0 and module.file not in self.neutral else None
            if code is not None and (rest[0] in code.exports or rest[0] in code.bound):
                break
            inside = self._inside(module, rest[0])
            if inside is None:
                break
            module, rest, sure = inside, rest[1:], sure - 1
        return module, rest

    def _top(self, name: str, importer: Path) -> Module | None:
        place = name, importer.parent
        if place not in self.tops:
            found = top_module(name, importer, ROOT)
            where = found and (found.file or found.folder)
            own = where is not None and (where.is_relative_to(self.package) or _in_project(where))
            if where is not None and is_installed(where) and not own:
                found = None
            self.tops[place] = found
        return self.tops[place]

    def _inside(self, module: Module, name: str) -> Module | None:
        if (module, name) not in self.insides:
            self.insides[module, name] = module.inside(name)
        return self.insides[module, name]

    def outside(self, path: Path) -> Iterator[str]:
        """Top-level names that a module imports and that lead nowhere from here."""
        for item in (item for run in self.skeleton(path).runs for item in run):
            if not item.ref.level and self._top(item.ref.parts[0], path) is None:
                yield item.ref.parts[0]

    def data_of(self, path: Path) -> list[Path]:
        """Files in a module's folder that its code names."""
        return [file for name in self.skeleton(path).files if (file := path.parent / name).is_file()]

    # -- hashes ----------------------------------------------------------------------------------

    def _hash_together(self, group: list[Path]) -> None:
        """Hash modules that need each other; the hashes of all others are known."""
        self.hashes |= dict.fromkeys(group, "")
        # After as many rounds as modules, each hash depends on every module of the group.
        try:
            for _ in group:
                self.hashes |= {path: self._hash_of(path) for path in group}
        except BaseException:  # a data file that cannot be read; the next query must not take what is unfinished
            for path in group:
                del self.hashes[path]
            raise

    def _hash_of(self, path: Path) -> str:
        uses, runs = self._resolved(path)
        lines = [self.skeleton(path).body, *map(self._joined, uses)]
        for unordered, named in runs:
            lines += ["imports", *sorted({text for text in map(self._joined, unordered) if text})]
            lines += map(self._joined, named)
        lines += ["packages", *(self.hashes[init] for init in self._packages(path))]
        lines += [f"{file.name} {_content(file, _stamp(file))}" for file in self.data_of(path)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def _joined(self, parts: Text) -> str:
        return "".join(self.hashes[part] if isinstance(part, Path) else part for part in parts)


def _components(start: Path, needed: Callable[[Path], list[Path]]) -> Iterator[list[Path]]:
    """Groups of modules that need each other, each after the groups that it needs (Tarjan's algorithm)."""
    order: dict[Path, int] = {}
    low: dict[Path, int] = {}
    stack: list[Path] = []
    path: list[tuple[Path, Iterator[Path]]] = []

    def enter(node: Path) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        path.append((node, iter(needed(node))))

    done: set[Path] = set()
    enter(start)
    while path:
        node, targets = path[-1]
        for target in targets:
            if target not in order:
                enter(target)
                break
            if target not in done:
                low[node] = min(low[node], order[target])
        else:
            path.pop()
            if path:
                low[path[-1][0]] = min(low[path[-1][0]], low[node])
            if low[node] == order[node]:
                first = stack.index(node)
                group = stack[first:]
                del stack[first:]
                done.update(group)
                yield group


Stamp = tuple[int, int, int]


def _stamp(path: Path) -> Stamp:
    found = os.stat(path)
    return found.st_mtime_ns, found.st_size, found.st_ino


@cache
def _read(path: Path, stamp: Stamp) -> Skeleton:
    if path.suffix == ".py":
        try:
            return skeleton(path.read_bytes())
        except (SyntaxError, ValueError, RecursionError) as error:  # ValueError: zero bytes
            raise UserError(f"{path} cannot be read as Python: {error}") from error
    return Skeleton(_content(path, stamp), (), (), {}, frozenset(), (), (), empty=False)


@cache
def _content(path: Path, stamp: Stamp) -> str:
    """SHA-256 of a file that is no Python source."""
    if stamp[1] > _LARGEST_DATA:
        return f"{stamp[1]} bytes"
    return hashlib.sha256(path.read_bytes()).hexdigest()
