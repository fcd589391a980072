"""Save figures: SVG by matplotlib, PDF and PNG from it by typst; in several processes for large reports."""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.types import UserError
from reports.load import Found, read
from reports.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from reports.panels import Job
    from reports.style import Look

FORMATS = ("svg", "pdf", "png")
PIXELS_PER_INCH = 160.0
PARALLEL_FROM = 1_000
"""Least number of cells for which processes are started; below it, starting them takes longer than drawing."""
PROCESSES_AT_MOST = 8
DRAWS_WITH = ("reports.figures", "matplotlib.figure", "matplotlib.backends.backend_svg", "scikit_posthocs", "typst")
"""Modules that a studio imports while it waits for work."""


class Artist:
    """Drawer of the figures of one study into one folder."""

    def __init__(self, study: Study, folder: Path) -> None:
        from reports.style import looks
        from reports.variants import compared

        self.study, self.folder = compared(study), folder
        self.looks: dict[str, Look] = looks(self.study)

    def draw(self, job: Job) -> dict[str, Any]:
        """Draw and save one figure; returns its data for the template: stem, path, caption, width, appendix."""
        from reports.glossary import complete
        from reports.style import drawing

        with drawing():
            drawn = job(self.study, self.looks)
            texts = list(_texts(drawn.figure))
            drawn.figure.savefig(self.folder / f"{drawn.stem}.svg", metadata={"Date": None})
        _convert(self.folder / f"{drawn.stem}.svg")
        return {
            "stem": drawn.stem,
            "path": f"../figures/{drawn.stem}.svg",
            "caption": complete(drawn.caption, texts),
            "width": round(float(drawn.figure.get_figwidth()), 3),
            "appendix": drawn.appendix,
        }


def _texts(figure: Figure) -> Iterator[str]:
    """Titles, labels and notes of a figure; tick labels are no terms, and matplotlib would have to make them first."""
    for ax in figure.axes:
        yield from (ax.get_title(), ax.get_xlabel(), ax.get_ylabel())
    yield from (text.get_text() for holder in (figure, *figure.axes) for text in holder.texts)


def save_figures(study: Study, folder: Path, studio: Studio | None = None) -> Callable[[], list[dict[str, Any]]]:
    """Draw every figure of the report into `folder`; the result waits for them and returns those of `Artist.draw`.

    With a studio drawing runs in the background; without one it runs when the result is called.
    """
    folder.mkdir(parents=True)
    return partial(_draw_here, study, folder) if studio is None else studio.draw(study, folder)


def _draw_here(study: Study, folder: Path) -> list[dict[str, Any]]:
    from reports.figures import plan

    artist = Artist(study, folder)
    return [artist.draw(job) for job in plan(study)]


class Studio:
    """Process that reads half of the records and then draws, in one process of its own per core.

    It receives the study once and then forks, so that its slow imports and the study are shared. Without fork it draws
    alone.
    """

    def __init__(self, processes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.processes, self.closed = processes, context.Event()
        self.pool = ProcessPoolExecutor(1, context, initializer=_begin, initargs=(self.closed,))

    def read(self, folders: list[Path], root: Path) -> Callable[[], Found]:
        """Helper for `reports.load.load`; prepares to draw afterwards."""
        pickled = self.pool.submit(_read_all, folders, root)
        self.pool.submit(_prepare)
        return lambda: _unpickled(pickled.result())

    def draw(self, study: Study, folder: Path) -> Callable[[], list[dict[str, Any]]]:
        pickled = pickle.dumps(study)  # not in the pool's thread: the study changes meanwhile
        return self.pool.submit(_draw_all, pickled, folder, self.processes).result

    def close(self) -> None:
        """End the process soon, if need be in the middle of its work."""
        self.closed.set()
        self.pool.shutdown(cancel_futures=True)


@contextmanager
def studio(cells: int) -> Iterator[Studio | None]:
    """Open a studio for a report of `cells` cells; None if the report is faster without.

    Raises UserError if one of its processes is killed.
    """
    processes = min(_cores(), PROCESSES_AT_MOST)
    if cells < PARALLEL_FROM or processes < 2:
        yield None
        return
    found = Studio(processes)
    try:
        yield found
    except BrokenProcessPool:
        raise UserError("a process of the report was killed, possibly for lack of memory") from None
    finally:
        found.close()


# -- in the studio's process, and in those that it forks -----------------------------------------------

_closed: list[Any] = []
"""Event that the studio is closed."""
_work: list[tuple[Artist, list[Job]]] = []
"""Figures to draw; forked processes inherit them from the studio."""


def _begin(closed: Any) -> None:
    _end_with_parent()
    _closed.append(closed)


def _read_all(folders: list[Path], root: Path) -> bytes:
    return pickle.dumps(read(folders, root))


def _prepare() -> None:
    for module in DRAWS_WITH:
        importlib.import_module(module)


def _unpickled(content: bytes) -> Any:
    """Unpickle with the garbage collector off, which would traverse the records again and again meanwhile."""
    gc.disable()
    try:
        return pickle.loads(content)
    finally:
        gc.enable()


def _end_with_parent() -> None:
    """End this process when its parent ends, even if killed; a pool's worker would otherwise wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _draw_all(pickled: bytes, folder: Path, processes: int) -> list[dict[str, Any]]:
    from reports.figures import plan

    study = _unpickled(pickled)
    artist, jobs = Artist(study, folder), list(plan(study))
    gc.freeze()  # otherwise each collection traverses all records again
    _work.append((artist, jobs))
    if sys.platform != "linux":
        return [_draw(i) for i in range(len(jobs))]
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, context, initializer=_end_with_parent) as pool:
        return list(pool.map(_draw, range(len(jobs))))


def _draw(index: int) -> dict[str, Any]:
    if _closed[0].is_set():
        return {}
    artist, jobs = _work[0]
    return artist.draw(jobs[index])


def _cores() -> int:
    # The cores that this process may use can be fewer than the machine has, e.g. in a container.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _convert(svg: Path) -> None:
    """Convert an SVG figure to PDF and PNG; typst is many times faster than drawing again.

    System fonts are not loaded, which would take most of the time: the text in our figures is outlines.
    """
    import typst

    page = svg.with_suffix(".typ")
    page.write_text(f'#set page(width: auto, height: auto, margin: 0pt)\n#image("{svg.name}")\n', encoding="utf-8")
    compiler = typst.Compiler(str(page), root=str(svg.parent), ignore_system_fonts=True)
    for kind in FORMATS[1:]:
        compiler.compile(output=str(svg.with_suffix(f".{kind}")), format=kind, ppi=PIXELS_PER_INCH)
    page.unlink()
