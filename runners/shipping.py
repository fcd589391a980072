"""The code that travels to the nodes of a cluster: this project's and that of methods named by file."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from methods.modules import base_of
from runners.cells import Job
from runners.fingerprint import ROOT, foreign_files

PACKAGES = ("benchmarks", "methods", "runners")
FOREIGN = "foreign"


def stage(folder: Path, foreign: Sequence[str]) -> dict[str, str]:
    """Copy the code into `folder`; for each of the `foreign` references the one to use there.

    A foreign reference is `/path/file.py:Class`; its file and what it imports outside installed distributions go
    along, packages as packages. References in the answer are relative to `folder`.
    """
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    there = {}
    for number, reference in enumerate(foreign):
        path, colon, class_name = reference.removesuffix(".py").partition(".py:")
        file = Path(f"{path}.py")
        target = folder / FOREIGN / str(number)
        files = foreign_files(file)
        bases = {base_of(source) for source in files if source.suffix == ".py"}
        for source in files:
            _copy(source, target, max((base for base in bases if source.is_relative_to(base)), key=lambda b: b.parts))
        place = file.resolve().relative_to(base_of(file.resolve()))
        there[reference] = f"{FOREIGN}/{number}/{place.as_posix()}{colon and ':'}{class_name}"
    return there


def _copy(source: Path, folder: Path, base: Path) -> None:
    target = folder / source.relative_to(base)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def is_foreign(job: Job) -> bool:
    return ".py:" in job.cell.reference or job.cell.reference.endswith(".py")


def readdressed(job: Job, there: dict[str, str]) -> Job:
    """The job with the reference that holds where the code was staged."""
    reference = there.get(job.cell.reference, job.cell.reference)
    return replace(job, cell=replace(job.cell, reference=reference))
