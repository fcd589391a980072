"""Figures of the report, drawn of `Frames`; these may be narrowed first: `plot.accuracy(frames.where(seed=0))`."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.types import UserError

if TYPE_CHECKING:
    from continual_intervals.frames import Frames
    from reports.panels import Drawn

DOTS_PER_INCH = 160


@dataclass(frozen=True)
class Figures:
    """Figures with their captions; a notebook shows them. Each has `stem`, `caption` and matplotlib's `figure`."""

    drawn: tuple[Drawn, ...]

    def __iter__(self) -> Iterator[Drawn]:
        return iter(self.drawn)

    def __len__(self) -> int:
        return len(self.drawn)

    def __getitem__(self, index: int) -> Drawn:
        return self.drawn[index]

    def save(self, folder: str | Path, kind: str = "pdf") -> list[Path]:
        """Write each figure as FOLDER/STEM.KIND (pdf, svg, png) and return the paths."""
        from reports.style import drawing

        Path(folder).mkdir(parents=True, exist_ok=True)
        paths = [Path(folder) / f"{one.stem}.{kind}" for one in self.drawn]
        with drawing():
            for one, path in zip(self.drawn, paths, strict=True):
                one.figure.savefig(path, dpi=DOTS_PER_INCH)
        return paths

    def _repr_html_(self) -> str:
        return "\n".join(
            f'<figure><img alt="{html.escape(one.stem)}" src="data:image/png;base64,{_png(one)}">'
            f"<figcaption>{html.escape(one.caption)}</figcaption></figure>"
            for one in self.drawn
        )


def accuracy(frames: Frames) -> Figures:
    """Average accuracy on the tasks learnt so far."""
    return _figures(frames, "accuracy_curves")


def per_task(frames: Frames) -> Figures:
    """Accuracy on each task after the last one."""
    return _figures(frames, "final_accuracy")


def forgetting(frames: Frames) -> Figures:
    """Forgetting of the tasks learnt so far."""
    return _figures(frames, "forgetting_curves")


def bwt(frames: Frames) -> Figures:
    """Backward transfer of each method."""
    return _figures(frames, "transfer_bars")


def trade_offs(frames: Frames) -> Figures:
    """Accuracy against transfer and against cost."""
    return _figures(frames, "reports.trade_offs", "loss_curves")


def losses(frames: Frames) -> Figures:
    """Training loss over the stream."""
    return _figures(frames, "loss_curves")


def guarantees(frames: Frames) -> Figures:
    """Certified accuracies and the widths of the boxes; of methods that certify."""
    return _figures(frames, "reports.guarantee_figures")


def matrices(frames: Frames) -> Figures:
    """R as heat maps, the mean over seeds; and the overlap of masks, of methods that have masks."""
    return _figures(frames, "reports.matrices")


def exhibits(frames: Frames) -> Figures:
    """Samples of the benchmarks and learnt structure, such as embeddings with their intervals."""
    return _figures(frames, "reports.exhibits")


def _figures(frames: Frames, what: str, but: str = "") -> Figures:
    """Figures of the report that a function, or a module, of this name draws, except those of another function."""
    from reports import figures
    from reports.style import drawing, looks
    from reports.variants import compared

    study = compared(frames.study)
    found = looks(study)
    jobs = [job for job in figures.plan(frames.study) if what in _drawer(job) and but not in _drawer(job)]
    if not jobs:
        raise UserError(
            "these records support no such figure: it needs finished cells, and values of this kind in them"
        )
    with drawing():
        return Figures(tuple(job(study, found) for job in jobs))


def _drawer(job: Any) -> tuple[str, str]:
    """Module and name of the function that draws a figure of the report's plan."""
    function = getattr(job, "func", job)
    return function.__module__, function.__name__


def _png(one: Drawn) -> str:
    from reports.style import drawing

    kept = io.BytesIO()
    with drawing():
        one.figure.savefig(kept, format="png", dpi=DOTS_PER_INCH)
    return base64.b64encode(kept.getvalue()).decode()
