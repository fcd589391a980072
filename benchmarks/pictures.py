"""Decoding of one image file to 8-bit pixels of a given size: value range, orientation, changes made.

Every fault is a DataError with the file's name. Imports no torch.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.files import DataError
from benchmarks.untrusted import printable

if TYPE_CHECKING:
    from PIL.Image import Image

PIXELS_AT_MOST = 89_000_000
"""Of one image; Pillow warns of a decompression bomb above about as many."""
NAMED_AT_MOST = 3
"""So many files are named in a note."""
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "WEBP", "PPM", "TIFF", "TGA", "JPEG2000", "AVIF")
"""Formats that Pillow decodes by itself; others would start programs (PostScript) or hold no picture."""
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_ORIENTATION = 0x0112
"""The EXIF tag; 1 is upright."""


@dataclass
class Changes:
    """Changes made to images to make them fit, with the images' names; filled from several threads."""

    names: dict[str, list[str]] = field(default_factory=dict)

    def note(self, what: str, name: str) -> None:
        self.names.setdefault(what, []).append(name)

    def sentences(self) -> list[str]:
        """One for each kind of change."""
        return [f"{len(names)} images {what}: {some(names)}" for what, names in sorted(self.names.items())]


def shown(name: str) -> str:
    """A path as one line of text, which the name of a file need not be."""
    return printable(name).replace("\n", "\\n").replace("\t", "\\t")


def some(names: set[str] | list[str]) -> str:
    """The first names in order, fit to be printed."""
    first = sorted(names)[:NAMED_AT_MOST]
    return ", ".join(map(shown, first)) + (", ..." if len(names) > NAMED_AT_MOST else "")


def decode(
    read: Callable[[str], bytes], name: str, *, place: Path, side: int, exact: bool, changes: Changes
) -> np.ndarray:
    """An image as uint8 (3, side, side). `exact`: another size is an error, and metadata turn nothing.

    Grey images get three equal channels, grey values of 16 bits are divided by 257, of colours of 16 bits the upper 8
    are taken, several frames give the first, EXIF's orientation is followed, transparency is left out; all of it is
    added to `changes`. Raises DataError, which names the file below `place`.
    """
    from PIL import Image, ImageOps

    content, path = read(name), shown(str(place / name))
    try:
        with Image.open(io.BytesIO(content), formats=_formats()) as image:
            _check_size(image, path)
            found = ["have colours of 16 bits, of which the upper 8 were taken"] if _is_deep(image) else []
            upright = image if exact else _upright(image, found)
            rgb = _rgb(upright, path, found)
    except DataError:
        raise
    except Exception as error:  # decoders raise nearly everything on damaged files, also struct.error and IndexError
        raise DataError(f"{path} is no image that can be read: {_why(error)}") from error
    if rgb.size != (side, side):
        if exact:
            raise DataError(f"{path} has {rgb.size[0]} x {rgb.size[1]} pixels, expected {side} x {side}")
        rgb = ImageOps.fit(rgb, (side, side), Image.Resampling.BILINEAR)
        found.append(f"are not {side} x {side} and were resized and cut")
    for what in found:
        changes.note(what, name)
    return np.asarray(rgb).transpose(2, 0, 1)


def _check_size(image: Image, path: str) -> None:
    width, height = image.size
    if width * height > PIXELS_AT_MOST:
        raise DataError(
            f"{path} has {width} x {height} pixels, at most {PIXELS_AT_MOST / 1e6:.0f} million are decoded; "
            "make it smaller"
        )


def _is_deep(image: Image) -> bool:
    """Check for colours of 16 bits, of which Pillow keeps 8: only the decoder's argument, before decoding, tells."""
    whole = image.mode not in (*_SIXTEEN_BITS, "I", "F")
    return whole and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _upright(image: Image, found: list[str]) -> Image:
    """The first frame, turned as viewers of pictures show it."""
    from PIL import ImageOps

    if getattr(image, "is_animated", False):
        found.append("have several frames, of which the first was taken")
    try:
        turned = image.getexif().get(_ORIENTATION, 1) in range(2, 9)
    except Exception:  # damaged metadata; the picture may be whole
        turned = False
    if not turned:
        return image
    found.append("were turned as their EXIF orientation says")
    return ImageOps.exif_transpose(image)


def _rgb(image: Image, path: str, found: list[str]) -> Image:
    from PIL import Image as images

    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        found.append("are partly transparent, which was left out")
    if image.mode in _SIXTEEN_BITS or (image.mode == "I" and image.format in (None, "PNG", "PPM")):
        found += ["have 16 bits a pixel and were divided by 257", "are grey and got three equal channels"]
        return images.fromarray(_eight_bits(np.asarray(image), path)).convert("RGB")
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        kind = "floats" if image.mode == "F" else "whole numbers of 32 bits"
        raise DataError(f"{path} holds {kind}, which have no black and white; convert it to 8 or 16 bits a pixel")
    if image.mode in ("L", "LA", "La", "1"):
        found.append("are grey and got three equal channels")
    return image.convert("RGB")


def _eight_bits(values: np.ndarray, path: str) -> np.ndarray:
    """0 to 65535 as 0 to 255, rounded."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise DataError(f"{path} has values from {low} to {high}, more than 16 bits; convert it to 8 bits")
    return ((values.astype(np.int64) + 128) // 257).astype(np.uint8)


@cache
def _formats() -> list[str]:
    """Formats of `_FORMATS` that the installed Pillow supports."""
    from PIL import Image

    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _why(error: Exception) -> str:
    """Reason given by the decoder; replaced for unknown formats, where it only holds a memory address."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "its content is of no known format"
    return shown(" ".join(str(error).split())[:200]) or type(error).__name__
