"""Figures to files: SVG by matplotlib, PDF and PNG from it by typst; in several processes where that pays."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pickle
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.study import Study

if TYPE_CHECKING:
    from reports.panels import Job
    from reports.style import Look

FORMATS = ("svg", "pdf", "png")
PIXELS_PER_INCH = 160.0
PARALLEL_FROM = 1_000
"""Cells from which on processes are started; below, they take longer to start than the figures to draw."""
PROCESSES_AT_MOST = 8


class Artist:
    """Draws the figures of one study into one folder."""

    def __init__(self, study: Study, folder: Path) -> None:
        from reports.style import looks

        self.study, self.folder = study, folder
        self.looks: dict[str, Look] = looks(study)

    def draw(self, job: Job) -> dict[str, Any]:
        """Draw and save one figure; what the template needs of it: stem, path, caption, width, appendix."""
        from reports.style import drawing

        with drawing():
            drawn = job(self.study, self.looks)
            drawn.figure.savefig(self.folder / f"{drawn.stem}.svg", metadata={"Date": None})
        _convert(self.folder / f"{drawn.stem}.svg")
        return {
            "stem": drawn.stem,
            "path": f"../figures/{drawn.stem}.svg",
            "caption": drawn.caption,
            "width": round(float(drawn.figure.get_figwidth()), 3),
            "appendix": drawn.appendix,
        }


def save_figures(study: Study, folder: Path, helpers: Helpers | None = None) -> Iterable[dict[str, Any]]:
    """Every figure of the report, drawn into `folder`, in order. With helpers they are being drawn on return."""
    from reports.figures import plan

    folder.mkdir(parents=True)
    jobs, artist = plan(study), Artist(study, folder)
    return map(artist.draw, jobs) if helpers is None else helpers.draw(artist, jobs)


class Helpers:
    """Processes that draw, started before there is anything to draw: what they import takes them seconds."""

    def __init__(self, processes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.processes, self.queue = processes, context.Queue()
        self.pool = ProcessPoolExecutor(processes, context, initializer=_prepare, initargs=(self.queue,))
        for _ in range(processes):
            self.pool.submit(_prepared)

    def draw(self, artist: Artist, jobs: Iterable[Job]) -> Iterator[dict[str, Any]]:
        pickled = pickle.dumps(artist)
        for _ in range(self.processes):
            self.queue.put(pickled)
        return self.pool.map(_draw, jobs)


@contextmanager
def helpers(cells: int) -> Iterator[Helpers | None]:
    """Helpers for a report of so many cells; None where it is drawn sooner without."""
    processes = min(_cores(), PROCESSES_AT_MOST)
    if cells < PARALLEL_FROM or processes < 2:
        yield None
        return
    found = Helpers(processes)
    try:
        yield found
    finally:
        found.pool.shutdown(cancel_futures=True)
        found.queue.cancel_join_thread()


_received: list[Artist] = []
"""In a helper: what it draws with."""
_inbox: list[Any] = []


def _prepare(queue: Any) -> None:
    for module in ("matplotlib.figure", "seaborn", "typst", "reports.figures"):
        importlib.import_module(module)
    _inbox.append(queue)


def _prepared() -> None:
    """Does nothing, but in a process of its own."""


def _draw(job: Job) -> dict[str, Any]:
    if not _received:
        _received.append(pickle.loads(_inbox[0].get()))
    return _received[0].draw(job)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _convert(svg: Path) -> None:
    """An SVG figure as PDF and PNG too; typst is many times faster at it than drawing again."""
    import typst

    page = svg.with_suffix(".typ")
    page.write_text(f'#set page(width: auto, height: auto, margin: 0pt)\n#image("{svg.name}")\n', encoding="utf-8")
    for kind in FORMATS[1:]:
        output = str(svg.with_suffix(f".{kind}"))
        typst.compile(str(page), output=output, root=str(svg.parent), format=kind, ppi=PIXELS_PER_INCH)
    page.unlink()
