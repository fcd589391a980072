"""Data that cannot be used fails its own benchmark with a sentence; what can be used is part of the key by content."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import data, files, plugins
from benchmarks.catalogue import find
from runners.cell.execution import run_cell
from runners.grid import build
from runners.records.record import Status
from tests.benchmarks.test_pictures import bomb
from tests.runners.helpers import cells, compare_here, job

MODULE = """
import sys
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.catalogue import Benchmark, Kind
from benchmarks.data import DataSet
from benchmarks.types import Budget

CALLS = [0]


def good():
    scale = float(Path(__file__).with_name("scale.txt").read_text())
    y = torch.arange(160) % 4
    x = scale * torch.rand(160, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return DataSet("theirs", x[:120], y[:120], x[120:], y[120:])


def spoilt():
    data = good()
    data.test_images[3, 0, 0, 0] = float("nan")
    return data


def drifting():
    CALLS[0] += 1
    return replace(good(), train_images=good().train_images / CALLS[0])


def raising():
    raise RuntimeError("the server is down")


def leaving():
    sys.exit(3)


def no_data():
    return [1, 2, 3]


def overlapping():
    data = good()
    return replace(data, test_images=data.train_images[:40].clone())


def made(name, function):
    return Benchmark(name, name, f"MODULE_NAME:{function}", Kind.SPLIT, 2, 2, (1, 4, 4), 8, "mlp-10",
                     Budget(16, steps=20), name)


GOOD, SPOILT, DRIFTING, RAISING = (made(f"MODULE_NAME-{n}", n) for n in ("good", "spoilt", "drifting", "raising"))
LEAVING, NO_DATA, NOTHING = (made(f"MODULE_NAME-{n}", n) for n in ("leaving", "no_data", "nothing"))
OVERLAPPING = made("MODULE_NAME-overlapping", "overlapping")
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of its own; nothing loaded before."""
    monkeypatch.delenv(files.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data._load.cache_clear()
    return tmp_path


@pytest.fixture
def package(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package with data sets of every kind; its benchmarks are called NAME-good, NAME-spoilt, ..."""
    name = f"theirs_{place.name}"
    (place / "site").mkdir()
    (place / "site" / f"{name}.py").write_text(MODULE.replace("MODULE_NAME", name))
    (place / "site/scale.txt").write_text("1.0")
    monkeypatch.syspath_prepend(str(place / "site"))
    values = ("good", "spoilt", "drifting", "raising", "leaving", "no_data", "nothing", "overlapping")
    points = {f"{name}-{value}": EntryPoint(f"{name}-{value}", f"{name}:{value.upper()}", "") for value in values}
    monkeypatch.setattr(plugins, "points", lambda: points)
    yield name


def folder(place: Path, name: str, red: int = 0) -> Path:
    """A folder of images with four classes of 14 training and 4 test images."""
    for part, n in (("train", 14), ("val", 4)):
        for k, label in enumerate("abcd"):
            for i in range(n):
                path = place / name / part / label / f"{i:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (16, 16), (red + 16 * i, 60 * k, 200 + (part == "val"))).save(path)
    return place / name


def compared(place: Path, *benchmarks: str, **options) -> tuple[int, str, dict[str, dict]]:
    """Exit code, what was printed, and the records by benchmark, of finetune in TIL."""
    data._load.cache_clear()
    options = {"methods": ("finetune",), "scenarios": ("til",), "seeds": 1, "data": place, **options}
    code, text = compare_here(place / "results", benchmarks=benchmarks, **options)
    records = [json.loads(file.read_text()) for file in sorted((place / "results").glob("*/til/*/*/cell.json"))]
    return code, text, {record["benchmark"]: record for record in records}


def test_what_cannot_be_used_fails_alone(place: Path, package: str) -> None:
    folder(place, "birds")
    (folder(place, "damaged") / "val/b/003.png").write_bytes(b"no image")
    (folder(place, "bomb") / "train/c/013.png").write_bytes(bomb(60_000, 60_000))
    (folder(place, "pipe") / "train/c/013.png").unlink()
    os.mkfifo(place / "pipe/train/c/013.png")
    Image.new("F", (16, 16)).save(folder(place, "floats") / "train/a/000.tif")
    sentences = {
        "images-damaged-2x2-16px": "val/b/003.png is no image that can be read",
        "images-bomb-2x2-16px": "train/c/013.png is no image that can be read: Image size (3600000000 pixels)",
        "images-pipe-2x2-16px": "train/c/013.png cannot be read: is a pipe or a device",
        "images-floats-2x2-16px": "train/a/000.tif holds floats",
        "images-nowhere-2x2-16px": "there is no folder",
        "images-birds-3x2-16px": "needs 6 classes, but folder/birds/16 has 4",
        f"{package}-spoilt": "test image 3 (counted from 0) has a value that is not finite",
        f"{package}-drifting": "gives others at each call (seed its generator)",
        f"{package}-raising": "RuntimeError: the server is down",
        f"{package}-leaving": "SystemExit: 3",
        f"{package}-no_data": "the function gives a list, not a DataSet",
        f"{package}-nothing": "cannot be imported",
    }
    fine = ["split-digits", "images-birds-2x2-16px", f"{package}-good"]
    code, text, records = compared(place, *sentences, *fine)
    assert code == 1 and "Traceback" not in text
    assert {name for name, record in records.items() if record["status"] == "done"} == set(fine)
    for name, sentence in sentences.items():
        assert records[name]["status"] == "failed" and sentence in records[name]["reason"], name
        of_theirs = name in (f"{package}-raising", f"{package}-leaving")
        assert (records[name]["traceback"] is None) != of_theirs, name


def test_data_of_a_package_is_part_of_the_key_by_content(place: Path, package: str) -> None:
    name = f"{package}-good"
    _, text, first = compared(place, name)
    assert "0 finished before, 1 to run" in text
    _, text, again = compared(place, name)
    assert "1 finished before, 0 to run" in text and again == first
    (place / "site/scale.txt").write_text("0.5")
    _, text, _ = compared(place, name)
    assert "0 finished before, 1 to run" in text


def test_an_image_changed_in_place_is_run_anew(place: Path) -> None:
    birds, name = folder(place, "birds"), "images-birds-2x2-16px"
    path = birds / "train/b/005.png"
    compared(place, name)
    before = path.stat()
    other = (folder(place, "other", red=1) / "train/b/005.png").read_bytes()
    assert len(other) == before.st_size and other != path.read_bytes()
    with path.open("r+b") as stream:
        stream.write(other)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert compared(place, name)[1].count("0 finished before, 1 to run") == 1
    assert len({file.name for file in (place / "cache/continual-intervals/decoded").glob("folder-*")}) == 1 + 1
    (birds / "notes.txt").write_text("what is no image decides no number")
    assert "1 finished before, 0 to run" in compared(place, name)[1]


@pytest.mark.parametrize("of", ["folder", "package"])
def test_a_cell_does_not_run_on_other_data_than_its_key_says(of: str, place: Path, package: str, monkeypatch) -> None:
    monkeypatch.setenv(files.FOLDER_VARIABLE, str(place))
    birds = folder(place, "birds")
    (cell,) = cells("finetune", benchmark="images-birds-2x2-16px" if of == "folder" else f"{package}-good")
    Image.new("RGB", (16, 16)).save(birds / "train/a/000.png")
    (place / "site/scale.txt").write_text("0.5")
    heard = []
    assert run_cell(job(cell, place / "results"), heard.append) is Status.FAILED
    assert "are not those of the cell's key: they changed while the run was under way" in heard[-1].reason


def test_what_is_to_be_known_of_the_data_is_kept_with_the_record(place: Path, package: str) -> None:
    birds = folder(place, "birds")
    (birds / "train/a/x.heic").write_text("x")
    (birds / "val/d/000.png").write_bytes((birds / "train/d/000.png").read_bytes())
    _, _, records = compared(place, "images-birds-1x2-16px", f"{package}-overlapping", "split-digits")
    assert records["images-birds-1x2-16px"]["environment"]["data_notes"] == [
        "folder/birds/16: 1 of 16 test images are also training images",
        "folder/birds/16: 1 files that are no images were left out (1 of .heic): train/a/x.heic",
        "images-birds-1x2-16px uses 2 of the 4 classes of folder/birds/16",
    ]
    (note,) = records[f"{package}-overlapping"]["environment"]["data_notes"]
    assert note == "theirs: 40 of 40 test images are also training images"
    assert "data_notes" not in records["split-digits"]["environment"]


def test_published_data_adds_nothing_to_a_key() -> None:
    names = ("split-digits", "permuted-digits", "split-mnist", "split-cifar-100", "split-tiny-imagenet", "cifar-mini")
    fields = {"n_tasks", "classes_per_task", "input_shape", "validation", "padding", "class_order", "augmentation"}
    for name in names:
        assert set(build.definition_of(find(name), None)) == fields | {"normalisation"}


def test_the_data_command_tells_and_goes_on(place: Path, package: str) -> None:
    from benchmarks import preparation

    birds = folder(place, "birds")
    (birds / "train/a/x.heic").write_text("x")
    (name,) = preparation.chosen(["images-birds-2x2-16px"], place)
    lines = preparation.check(name, place, lambda *_: None)
    assert "note: 1 files that are no images were left out (1 of .heic): train/a/x.heic" in lines
    (name,) = preparation.chosen([f"{package}-overlapping"], place)
    assert "note: 40 of 40 test images are also training images" in preparation.check(name, place, lambda *_: None)
    with pytest.raises(data.DataError, match="test image 3"):
        preparation.check(f"{package}:spoilt", place, lambda *_: None)
