"""Resolution of a source file's imports to files, without importing them."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

PROJECT = ("methods", "benchmarks", "runners", "reports", "continual_intervals")
"""Packages of this project, which take precedence over modules of the same name elsewhere."""
_INSTALLED = ("site-packages", "dist-packages")


@dataclass(frozen=True)
class Module:
    """Module or package: its file, None for a namespace package; its folder, None for a plain module."""

    file: Path | None
    folder: Path | None

    def inside(self, name: str) -> Module | None:
        """Find the submodule of this name."""
        return None if self.folder is None else in_folder(self.folder, name)


def in_folder(folder: Path, name: str) -> Module | None:
    """Find the module `name` in a folder: a package, a file or a C extension, in Python's order."""
    package = folder / name
    if (init := package / "__init__.py").is_file():
        return Module(init, package)
    for suffix in (*EXTENSION_SUFFIXES, ".py"):
        if (file := folder / f"{name}{suffix}").is_file():
            return Module(file, None)
    return Module(None, package) if package.is_dir() else None


def packages_of(file: Path) -> list[Path]:
    """List the `__init__.py` of the packages around a file, the innermost first."""
    found, folder = [], file.parent
    while (init := folder / "__init__.py").is_file() and folder != folder.parent:
        found.append(init)
        folder = folder.parent
    return found


def base_of(file: Path) -> Path:
    """Folder from which Python imports the file's top package, or the file if it is in no package."""
    packages = packages_of(file)
    return packages[-1].parent.parent if packages else file.parent


def dotted_name(file: Path) -> str:
    """Name by which Python imports a file."""
    parts = file.relative_to(base_of(file)).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def top_module(name: str, importer: Path, root: Path) -> Module | None:
    """Find the module or package that `import name` in a file yields, if it belongs to a project; else None.

    Search order: the importer's own package, this project below `root`, the standard library, the folder of the
    importer's package, Python's search path, a folder of that name around the importer (a package without
    `__init__.py`). Installed packages and the standard library give None.
    """
    packages = packages_of(importer)
    if packages and packages[-1].parent.name == name:
        return Module(packages[-1], packages[-1].parent)
    if name in PROJECT:
        return in_folder(root, name)
    if name in sys.stdlib_module_names:
        return None
    beside = base_of(importer)
    found = None if is_installed(beside) else in_folder(beside, name)
    if found is None or found.file is None:
        found = _on_search_path(name, tuple(sys.path)) or found
    around = (folder for folder in importer.parents if folder.name == name and not is_installed(folder))
    return found or next((Module(None, folder) for folder in around), None)


def is_installed(path: Path) -> bool:
    """Check whether a path belongs to an installed distribution; a package in editable mode does not."""
    return any(part in _INSTALLED for part in path.parts)


@cache
def _on_search_path(name: str, _path: tuple[str, ...]) -> Module | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a broken spec; importing the module will raise the reason
        return None
    if spec is None:
        return None
    origin = Path(spec.origin).resolve() if spec.has_location and spec.origin else None
    folders = [Path(folder).resolve() for folder in spec.submodule_search_locations or ()]
    if any(map(is_installed, [origin] if origin else folders)) or not (origin or folders):
        return None
    return Module(origin, folders[0] if folders else None)
