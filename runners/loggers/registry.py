"""Loggers by name or by file. Finding one imports nothing of its package."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.types import UserError, suggestion
from runners.loggers.logger import Logger


@dataclass(frozen=True)
class Known:
    """A logger of this package."""

    package: str
    """What it needs; also the name of its extra."""
    module: str
    class_name: str


KNOWN = {
    "tensorboard": Known("tensorboard", "runners.loggers.tensorboard", "TensorBoardLogger"),
    "wandb": Known("wandb", "runners.loggers.wandb", "WandbLogger"),
    "mlflow": Known("mlflow", "runners.loggers.mlflow", "MlflowLogger"),
}


def check(names: Sequence[str]) -> None:
    """Raise UserError for an unknown name, a missing file, or a package that is not installed."""
    for name in names:
        if is_file(name):
            _expect_class(name)
        elif name not in KNOWN:
            hint = suggestion(name, KNOWN, most=1)
            raise UserError(
                f"--logger {name}: there is no such logger.{hint} Available: {', '.join(KNOWN)}, FILE.py:CLASS"
            )
        elif importlib.util.find_spec(KNOWN[name].package) is None:
            raise UserError(
                f"--logger {name} needs the package {KNOWN[name].package}: "
                f"pip install -c constraints.txt -e '.[{name}]' (or: pip install {KNOWN[name].package})"
            )


def make(name: str, results: Path) -> Logger:
    """Build the logger of this name, or of FILE.py:CLASS. Raises UserError, and what the logger's start raises."""
    if not is_file(name):
        known = KNOWN[name]
        return getattr(importlib.import_module(known.module), known.class_name)(results)
    return _class(name)(results)


def is_file(name: str) -> bool:
    return ".py:" in name or name.endswith(".py")


def _file(name: str) -> Path:
    file = Path(name.partition(".py:")[0].removesuffix(".py") + ".py")
    if not file.is_file():
        raise UserError(f"--logger {name}: there is no file {file}")
    return file


def _expect_class(name: str) -> None:
    """Raise UserError if the file cannot be read or has no class of that name; nothing of it is run."""
    file = _file(name)
    try:
        there = [node.name for node in ast.parse(file.read_bytes()).body if isinstance(node, ast.ClassDef)]
    except (SyntaxError, ValueError, OSError) as error:
        raise UserError(f"--logger {name}: {file} cannot be read as Python: {error}") from error
    wanted = name.partition(".py:")[2]
    if wanted and wanted not in there:
        raise UserError(f"--logger {name}: {file} has no class {wanted!r}.{suggestion(wanted, there, most=1)}")


def _class(name: str) -> Any:
    from benchmarks.user_files import import_file

    file = _file(name)
    module = import_file(file)
    classes = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Logger) and value.__module__ == module.__name__
    }
    wanted = name.partition(".py:")[2] or (next(iter(classes)) if len(classes) == 1 else "")
    if wanted not in classes:
        holds = ", ".join(classes) or "none"
        raise UserError(f"{file} has no subclass {wanted!r} of continual_intervals.Logger; it has: {holds}")
    return classes[wanted]
