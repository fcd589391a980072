"""What the values of an image file mean, which way is up, and what is refused, each with the file's name."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import pictures
from benchmarks.catalogue import find
from benchmarks.data import DataError, DataSet, _load
from benchmarks.files import FOLDER_VARIABLE
from benchmarks.pictures import Changes, decode
from benchmarks.stream import open_stream

SIDE = 8


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(content: bytes, name: str = "train/a/0.png", side: int = SIDE) -> tuple[np.ndarray, list[str]]:
    changes = Changes()
    return decode(
        lambda _: content, name, place=Path("D"), side=side, exact=False, changes=changes
    ), changes.sentences()


def grey16(values: np.ndarray, kind: str) -> bytes:
    if kind == "PPM":
        return f"P5 {values.shape[1]} {values.shape[0]} 65535\n".encode() + values.astype(">u2").tobytes()
    return encoded(Image.fromarray(values.astype(np.uint16)), kind)


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSet:
    """A folder of grey PNGs of 16 bits."""
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _load.cache_clear()
    for part in ("train", "val"):
        for number, name in enumerate("abcd"):
            folder = tmp_path / "scans" / part / name
            folder.mkdir(parents=True)
            for i in range(12):
                level = 40 + 50 * number + i + 15 * (part == "val")
                (folder / f"{i:03d}.png").write_bytes(grey16(np.full((16, 16), level * 257), "PNG"))
    return open_stream(find("images-scans-2x2-16px"), "til", 0, data_dir=tmp_path).data


def test_a_folder_of_16_bit_images_keeps_its_values(scans: DataSet) -> None:
    means = [float(scans.train_images[scans.train_labels == c].float().mean()) for c in range(4)]
    assert means == [45.5, 95.5, 145.5, 195.5]
    assert "96 images have 16 bits a pixel and were divided by 257: train/a/000.png, train/a/001.png" in scans.known[1]
    assert torch.equal(scans.train_images[:, 0], scans.train_images[:, 2])


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_become_8_in_every_format(kind: str) -> None:
    values = np.arange(64).reshape(SIDE, SIDE) * 1040
    pixels, notes = decoded(grey16(values, kind))
    assert np.array_equal(pixels[0], np.round(values / 257)) and np.array_equal(pixels[0], pixels[2])
    assert [note.split(":")[0] for note in notes] == [
        "1 images are grey and got three equal channels",
        "1 images have 16 bits a pixel and were divided by 257",
    ]


@pytest.mark.parametrize(("dtype", "words"), [(np.float32, "floats"), (np.int32, "whole numbers of 32 bits")])
def test_values_without_black_and_white_are_refused_by_name(dtype, words: str) -> None:
    content = encoded(Image.fromarray(np.ones((SIDE, SIDE), dtype)), "TIFF")
    with pytest.raises(DataError, match=rf"^D/train/a/0\.png holds {words}, which have no black and white"):
        decoded(content)


def test_eight_bits_are_kept_as_they_are() -> None:
    values = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    for kind in ("PNG", "TIFF", "PPM", "BMP", "TGA"):
        pixels, notes = decoded(encoded(Image.fromarray(values), kind))
        assert np.array_equal(pixels, values.transpose(2, 0, 1)) and notes == []
    pixels, notes = decoded(encoded(Image.fromarray(values[..., 0]), "PPM"))
    assert np.array_equal(pixels[1], values[..., 0]) and "are grey" in notes[0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_viewers_show_them(orientation: int) -> None:
    values = np.zeros((SIDE, SIDE, 3), np.uint8)
    values[:2, :4] = 255  # told apart in all eight positions
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels, notes = decoded(encoded(Image.fromarray(values), "PNG", exif=exif))
    turned = {
        1: values, 2: values[:, ::-1], 3: values[::-1, ::-1], 4: values[::-1], 5: values.transpose(1, 0, 2),
        6: np.rot90(values, -1), 7: values[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(values),
    }  # fmt: skip
    assert np.array_equal(pixels, turned[orientation].transpose(2, 0, 1))
    assert ("EXIF orientation" in " ".join(notes)) == (orientation > 1)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_the_first_of_several_frames_is_taken_and_told(kind: str) -> None:
    first, second = (Image.new("RGB", (SIDE, SIDE), colour) for colour in ((255, 0, 0), (0, 255, 0)))
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels, notes = decoded(encoded(first, kind, save_all=True, append_images=[second], **options))
    assert (pixels[0] == 255).all() and (pixels[1:] == 0).all()
    assert notes == ["1 images have several frames, of which the first was taken: train/a/0.png"]


def test_transparency_is_left_out_and_told() -> None:
    pixels, notes = decoded(encoded(Image.new("RGBA", (SIDE, SIDE), (9, 8, 7, 0)), "PNG"))
    assert pixels[:, 0, 0].tolist() == [9, 8, 7] and "partly transparent" in notes[0]


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize(("mode", "kind"), [("P", "PNG"), ("P", "GIF"), ("RGB", "PNG"), ("L", "PNG"), ("I;16", "PNG")])
def test_a_transparent_colour_is_left_out_and_told(mode: str, kind: str) -> None:
    colour = (9, 8, 7) if mode == "RGB" else 9
    image = Image.new(mode, (SIDE, SIDE), colour)
    assert "transparent" not in " ".join(decoded(encoded(image, kind))[1])
    assert "partly transparent" in " ".join(decoded(encoded(image, kind, transparency=colour))[1])


@pytest.mark.parametrize("alpha", [False, True])
def test_colours_of_16_bits_lose_the_lower_half_and_it_is_told(alpha: bool) -> None:
    channels = 3 + alpha
    rows = SIDE * (b"\0" + np.full(SIDE * channels, 0x12FF, ">u2").tobytes())
    pixels, notes = decoded(png(SIDE, SIDE, 16, 6 if alpha else 2, rows))
    assert (pixels == 0x12).all()
    assert "1 images have colours of 16 bits, of which the upper 8 were taken: train/a/0.png" in notes


def png(width: int, height: int, bits: int, colours: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes that says it is huge."""
    return png(width, height, 8, 2, bytes(1000))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(9_500, 9_500), (60_000, 60_000)])
def test_huge_images_are_refused_before_they_are_decoded(size: tuple[int, int], monkeypatch) -> None:
    monkeypatch.setattr(Image.Image, "convert", None)
    with pytest.raises(DataError, match=r"^D/train/a/0\.png (has 9500 x 9500 pixels|is no image .* read: Image s)"):
        decoded(bomb(*size))


def damaged() -> dict[str, bytes]:
    whole = encoded(Image.effect_noise((64, 64), 50), "PNG")
    return {
        "empty": b"",
        "text": b"no image at all",
        "cut": whole[:700],
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n",
        "cut tiff": encoded(Image.effect_noise((64, 64), 50), "TIFF")[:100],
        "cut webp": encoded(Image.effect_noise((64, 64), 50).convert("RGB"), "WEBP")[:60],
    }


@pytest.mark.parametrize("kind", damaged())
def test_damaged_files_are_named_without_an_address(kind: str) -> None:
    with pytest.raises(DataError, match=r"^D/train/a/0\.png is no image that can be read: ") as caught:
        decoded(damaged()[kind])
    assert "0x" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_name_that_is_no_text_can_be_printed() -> None:
    with pytest.raises(DataError) as caught:
        decoded(b"", name="train/a/\udcff\n\x1b[31m.png")
    assert str(caught.value).isprintable()


def test_the_programs_that_pillow_would_start_are_not_started() -> None:
    assert not {"EPS", "WMF", "HDF5", "FITS", "GRIB"} & set(pictures._formats())
    assert {"JPEG", "PNG", "TIFF", "GIF", "WEBP", "PPM"} <= set(pictures._formats())
