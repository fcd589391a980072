"""Measure of the empty space of a report: the sum over its pages of the height that nothing fills."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import typst
from PIL import Image

PIXELS_PER_INCH = 36.0
HEIGHT = 29.7
"""Height of a page in cm."""
MARGIN, GAP = 1.9, 1.2
"""Margin above and below the text, and height from which a strip without ink is empty, in cm."""


def empty_pages(report: Path, folder: Path) -> list[float]:
    """Share of the text height of each page that lies in empty strips. report: a report's folder; folder: scratch."""
    source = report / "source" / "report.typ"
    images = str(folder / "page-{0p}.png")
    typst.compile(str(source), output=images, root=str(report), format="png", ppi=PIXELS_PER_INCH)
    return [empty_share(np.asarray(Image.open(path).convert("L"))) for path in sorted(folder.glob("page-*.png"))]


def empty_share(page: np.ndarray) -> float:
    """Share of one page. page: grey values (height, width), 255 is paper."""
    cm = len(page) / HEIGHT
    inked = (page < 230).any(axis=1)[round(MARGIN * cm) : round((HEIGHT - MARGIN) * cm)]
    edges = np.flatnonzero(np.diff(np.concatenate([[True], inked, [True]]).astype(int)))
    lengths = edges[1::2] - edges[::2]
    return float(lengths[lengths > GAP * cm].sum() / len(inked))
