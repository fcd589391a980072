"""Staging of code for the nodes of a cluster: this project's and that of methods named by file."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import plugins
from benchmarks.modules import PROJECT, base_of
from runners.grid.cells import Job
from runners.grid.fingerprint import ROOT, foreign_files

FOREIGN = "foreign"


def stage(folder: Path, foreign: Sequence[str]) -> dict[str, str]:
    """Copy the code into `folder`; map each of the `foreign` references to the one to use there.

    A foreign reference is `/path/file.py:NAME`, of a method or a benchmark; its file and what it imports outside
    installed distributions go along, packages as packages: one folder for all that Python finds in one folder here, so
    that nothing is copied twice. References in the answer are relative to `folder`.
    """
    for package in PROJECT:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "reference"))
    there: dict[str, str] = {}
    numbers: dict[Path, int] = {}
    for reference in foreign:
        path, colon, class_name = reference.removesuffix(".py").partition(".py:")
        file = Path(f"{path}.py").resolve()
        files = foreign_files(file)
        bases = {base_of(source) for source in files if source.suffix == ".py"}
        for source in files:
            base = max((base for base in bases if source.is_relative_to(base)), key=lambda base: len(base.parts))
            _copy(source, folder / FOREIGN / str(numbers.setdefault(base, len(numbers))), base)
        base = base_of(file)
        there[reference] = f"{FOREIGN}/{numbers[base]}/{file.relative_to(base).as_posix()}{colon and ':'}{class_name}"
    return there


def _copy(source: Path, folder: Path, base: Path) -> None:
    target = folder / source.relative_to(base)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def arrive() -> None:
    """Extend the search path on a node, so that foreign files can import packages from other original folders."""
    for folder in sorted(Path(FOREIGN).glob("*")):
        if str(folder.resolve()) not in sys.path:
            sys.path.append(str(folder.resolve()))


def foreign_of(job: Job) -> list[str]:
    """References of a job to files of the user's: of its method, of its benchmark."""
    return list(filter(plugins.is_file, (job.cell.reference, job.cell.benchmark_file)))


def readdressed(job: Job, there: dict[str, str]) -> Job:
    """The job with the references that are valid where the code was staged."""
    files = {known.partition(".py:")[0]: place.partition(".py:")[0] for known, place in there.items()}

    def moved(reference: str) -> str:
        file, _, name = reference.partition(".py:")
        if reference in there:
            return there[reference]
        return f"{files[file]}.py:{name}" if file in files and name else reference  # another name of a known file

    cell = job.cell
    found = replace(cell, reference=moved(cell.reference), benchmark_file=moved(cell.benchmark_file))
    return replace(job, cell=found)
