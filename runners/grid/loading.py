"""A method's class together with the hash of its code."""

from __future__ import annotations

import inspect
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.catalogue import Augmentation, Benchmark, Kind
from benchmarks.types import UserError
from methods import registry
from methods.networks import targets
from runners.grid.edits import forget_edited
from runners.grid.fingerprint import ROOT, Sources, file_of
from runners.grid.hyperparameters import check_defaults

if TYPE_CHECKING:
    from methods.base import Method


@dataclass(frozen=True)
class LoadedMethod:
    """A method's class with what the key of a cell needs of it."""

    name: str
    reference: str
    cls: type
    file: Path
    source: str


def load_method(reference: str, sources: Sources | None = None) -> LoadedMethod:
    """Load a method's class, check the defaults of its Config and hash its code. Raises UserError.

    sources: hashes of the present state of the files, where several are needed.
    """
    cls, file, reference = _loaded(reference)
    check_defaults(cls.name, cls.Config)
    return LoadedMethod(cls.name, reference, cls, file, (sources or Sources()).hash(file))


def source_file(reference: str) -> Path:
    """The file of a method's class. Raises UserError."""
    return _loaded(reference)[1]


def _loaded(reference: str) -> tuple[type[Method], Path, str]:
    if reference.endswith(".py") or ".py:" in reference:
        path, _, class_name = reference.partition(".py:")
        file = Path(path if path.endswith(".py") else path + ".py").resolve()
        reference = f"{file}:{class_name}" if class_name else str(file)
        with suppress(UserError, OSError):  # the import says what is wrong with the file
            forget_edited(file)
        cls = registry.load(reference)
        known = registry.available().get(cls.name)
        if known is not None and known.file != file:
            raise UserError(f"{file} registers the name {cls.name!r}, which {known.module} has; choose another name")
    else:
        cls = registry.load(reference)
        file = Path(inspect.getfile(sys.modules[cls.__module__]))
        if not file.is_relative_to(ROOT) and forget_edited(file):
            cls = registry.load(reference)
    return cls, file, reference


def parts_of(benchmark: Benchmark, network: str, sources: Sources | None = None) -> dict[str, str]:
    """Hashes of the code that a cell uses in addition to its method's. Raises UserError for an unknown network."""
    sources = sources or Sources()
    return {part: sources.hash(file) for part, file in _modules(benchmark, network).items()}


def modules_of(benchmark: Benchmark, network: str) -> list[Path]:
    """The files whose hashes `parts_of` gives."""
    return list(_modules(benchmark, network).values())


def _modules(benchmark: Benchmark, network: str) -> dict[str, Path]:
    parts = {"network": targets.module_of(network)}
    if benchmark.kind in (Kind.PERMUTED, Kind.ROTATED) or benchmark.normalisation is not None:
        parts["transforms"] = "benchmarks.transforms"
    if benchmark.augmentation is not Augmentation.NONE:
        parts["augmentation"] = "benchmarks.augmentation"
    return {part: file_of(module) for part, module in parts.items()}
