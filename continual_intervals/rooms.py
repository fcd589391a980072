"""The packages of this project under their own names, also where a user's folder has packages of these names.

Python looks in the folder of the script or notebook first. Imports nothing of this project.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("benchmarks", "methods", "reports", "runners")


class _Advice(MetaPathFinder):
    """Finder of nothing, asked last: the reason why a module of a user's package of such a name is not found."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top, *inner = fullname.split(".")
        if top not in ROOMS or not inner:
            return None
        for folder in map(Path, sys.path):
            place = folder.joinpath(top, *inner)
            if place.with_suffix(".py").is_file() or (place / "__init__.py").is_file():
                # No ModuleNotFoundError: `from package import module` would replace it by a sentence of its own.
                raise ImportError(_clash(top, (folder / top).resolve()), name=fullname)
        return None


def claim() -> None:
    """Load the packages of this project. Raises ImportError if another package of such a name is loaded already."""
    for name in ROOMS:
        loaded = sys.modules.get(name)
        if loaded is None:
            _load(name)
        elif Path(str(loaded.__file__)).resolve().parent != ROOT / name:
            raise ImportError(_clash(name, Path(str(loaded.__file__)).parent), name=name)
    if not any(isinstance(finder, _Advice) for finder in sys.meta_path):
        sys.meta_path.append(_Advice())


def _load(name: str) -> None:
    spec = PathFinder.find_spec(name, [str(ROOT)])
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def _clash(name: str, theirs: Path) -> str:
    return f"continual_intervals has a package called {name}, and so has this program: {theirs}; rename yours"
