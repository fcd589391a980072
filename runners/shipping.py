"""The code that travels to the nodes of a cluster: this project's and that of methods named by file."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from runners.cells import Job
from runners.fingerprint import ROOT, files_beside

PACKAGES = ("benchmarks", "methods", "runners")
FOREIGN = "foreign"


def stage(folder: Path, foreign: Sequence[str]) -> dict[str, str]:
    """Copy the code into `folder`; for each of the `foreign` references the one to use there.

    A foreign reference is `/path/file.py:Class`; its file and the modules beside it that it imports go along.
    References in the answer are relative to `folder`.
    """
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    there = {}
    for number, reference in enumerate(foreign):
        path, colon, class_name = reference.removesuffix(".py").partition(".py:")
        file = Path(f"{path}.py")
        for source in files_beside(file):
            target = folder / FOREIGN / str(number) / source.relative_to(file.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        there[reference] = f"{FOREIGN}/{number}/{file.name}{colon and ':'}{class_name}"
    return there


def arrive() -> None:
    """Where the code was staged: let foreign files import the modules that lie beside them."""
    for folder in sorted(Path(FOREIGN).glob("*")):
        if str(folder.resolve()) not in sys.path:
            sys.path.append(str(folder.resolve()))


def is_foreign(job: Job) -> bool:
    return ".py:" in job.cell.reference or job.cell.reference.endswith(".py")


def readdressed(job: Job, there: dict[str, str]) -> Job:
    """The job with the reference that holds where the code was staged."""
    reference = there.get(job.cell.reference, job.cell.reference)
    return replace(job, cell=replace(job.cell, reference=reference))
