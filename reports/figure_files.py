"""Figures to files: SVG by matplotlib, PDF and PNG from it by typst; in several processes where that pays."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
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


def save_figures(study: Study, folder: Path) -> list[dict[str, Any]]:
    """Every figure of the report, drawn into `folder`, in order."""
    from reports.figures import plan

    folder.mkdir(parents=True)
    jobs = plan(study)
    artist, processes = Artist(study, folder), min(_cores(), PROCESSES_AT_MOST, len(jobs))
    if len(study.entries) < PARALLEL_FROM or processes < 2:
        return [artist.draw(job) for job in jobs]
    with ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=_receive, initargs=(pickle.dumps(artist),)
    ) as pool:
        return list(pool.map(_draw, jobs))


_received: list[Artist] = []
"""In a worker process: what it draws with."""


def _receive(pickled: bytes) -> None:
    _received.append(pickle.loads(pickled))


def _draw(job: Job) -> dict[str, Any]:
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
