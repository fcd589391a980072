"""Which files of a folder are its images: none is dropped without a word, whatever its name and place."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import data, files, image_tree
from benchmarks.catalogue import find
from benchmarks.data import DataError, check, load
from benchmarks.stream import open_stream
from benchmarks.types import UserError

BIRDS = "folder/birds/16"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the folder `birds`: classes a to d of 14 training and 4 test images."""
    monkeypatch.delenv(files.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data._load.cache_clear()
    for part, n in (("train", 14), ("val", 4)):
        for k, name in enumerate("abcd"):
            for i in range(n):
                picture(tmp_path / "birds" / part / name / f"{i:03d}.png", 16 * i + (part == "val"), 60 * k)
    return tmp_path


def picture(path: Path, red: int, green: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (red, green, 200)).save(path)


def counts(root: Path) -> list[int]:
    return load(BIRDS, root).train_labels.bincount().tolist()


def notes(root: Path) -> list[str]:
    return list(load(BIRDS, root).known)


def test_every_kind_of_image_is_read_and_linked_folders_are_followed(root: Path) -> None:
    picture(root / "elsewhere/linked.png", 7)
    (root / "birds/train/c/more").symlink_to(root / "elsewhere")
    for ending in ("tif", "tiff", "pgm", "gif", "webp", "bmp", "JPG", "jpeg", "jfif", "ppm", "jp2", "tga"):
        folder = root / "birds/train/a"
        mode = "L" if ending == "pgm" else "RGB"
        Image.new(mode, (16, 16), 9).save(folder / f"x.{ending}")
    assert counts(root) == [26, 14, 15, 14]
    assert notes(root) == ["1 images are grey and got three equal channels: train/a/x.pgm"]


def test_what_torchvision_reads_is_read() -> None:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    assert set(IMG_EXTENSIONS) <= image_tree.EXTENSIONS


def test_files_of_other_kinds_are_counted_by_kind(root: Path) -> None:
    for name in (
        "train/a/x.heic",
        "train/a/y.HEIC",
        "train/a/deep/z.heic",
        "val/b/labels.csv",
        "train/README",
        "x.txt",
    ):
        (root / "birds" / name).parent.mkdir(exist_ok=True)
        (root / "birds" / name).write_text("x")
    picture(root / "birds/train/stray.png", 3)
    picture(root / "birds/stray.png", 3)
    picture(root / "birds/test/a/0.png", 3)
    picture(root / "birds/extra/a/0.png", 3)
    assert counts(root) == [14] * 4
    assert notes(root) == [
        "6 files that are no images were left out (1 of .csv, 3 of .heic, 1 of .txt, 1 of no ending): train/README, "
        "train/a/deep/z.heic, train/a/x.heic, ...",
        "2 images in no folder of a class were left out: stray.png, train/stray.png",
        "the folders extra, test were left out, only two parts are used",
    ]


def test_what_programs_leave_behind_is_no_part_of_the_data(root: Path) -> None:
    birds = root / "birds"
    expected = load(BIRDS, root).train_images.clone()
    for name in ("train/a/._000.png", "._train", "train/.DS_Store", "val/b/.ipynb_checkpoints/000-checkpoint.png"):
        (birds / name).parent.mkdir(exist_ok=True)
        (birds / name).write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        ")
    for name in ("train/.ipynb_checkpoints", "train/__MACOSX/a", "__MACOSX/train"):
        (birds / name).mkdir(parents=True)
    assert (load(BIRDS, root).train_images == expected).all()
    assert notes(root) == ["7 hidden names were left out: ._train, __MACOSX, train/.DS_Store, ..."]


def test_links_in_a_circle_end(root: Path) -> None:
    (root / "birds/train/a/again").symlink_to(root / "birds/train/a")
    (root / "birds/train/b/up").symlink_to(root / "birds")
    assert counts(root)[0] == 14
    (root / "birds/train/b/up").unlink()
    assert counts(root) == [14] * 4
    assert notes(root) == ["1 links to folders that were read already: train/a/again"]


@pytest.mark.parametrize("what", ["a broken link", "a link to itself", "a pipe", "a folder called so"])
def test_what_only_looks_like_an_image_is_named(what: str, root: Path) -> None:
    path = root / "birds/train/b/zzz.png"
    if what == "a broken link":
        path.symlink_to(root / "nowhere.png")
    elif what == "a link to itself":
        path.symlink_to(path)
    elif what == "a pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
        assert counts(root) == [14] * 4
        return
    with pytest.raises(DataError, match=r"birds/train/b/zzz\.png cannot be read: "):
        load(BIRDS, root)


def test_a_folder_that_cannot_be_listed_is_no_empty_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir
    deep = root / "birds/train/a/deep"
    picture(deep / "0.png", 1)

    def scandir(path):
        if Path(path) == deep:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert "birds/train/a/deep cannot be read: Permission denied" in str(check(BIRDS, root))


@pytest.mark.parametrize(
    "name", ["a b.png", "(1) [x].png", "Ä.png", "学习.png", "%s{}.png", "-.png", "a\nb.png", "a\x1b[31m.png"]
)
def test_files_and_classes_of_any_name(name: str, root: Path) -> None:
    picture(root / "birds/train/a" / name, 77)
    for part in ("train", "val"):
        for i in range(2):
            picture(root / "birds" / part / name.removesuffix(".png") / f"{i}.png", 100 + i, 99 + (part == "val"))
    assert sorted(counts(root)) == [2, 14, 14, 14, 15]
    source = data.source_of(BIRDS, files.locate(root))
    assert isinstance(source, data.Decodable) and source.key() == source.key()


def test_names_that_are_no_text(root: Path) -> None:
    """Bytes that are not UTF-8, as old archives have them; what is said of them can be recorded."""
    folder = os.fsencode(root / "birds/train/a")
    Image.new("L", (16, 16), 5).save(root / "birds/x.png")
    os.rename(root / "birds/x.png", folder + b"/\xff\xfe.png")
    assert counts(root) == [15, 14, 14, 14]
    assert notes(root) == [r"1 images are grey and got three equal channels: train/a/\udcff\udcfe.png"]
    os.rename(folder + b"/\xff\xfe.png", folder + b"/\xff\xfe.txt")
    assert r"train/a/\udcff\udcfe.txt" in notes(root)[0]


def test_an_accent_that_a_mac_writes_apart_is_the_same_class(root: Path) -> None:
    (root / "birds/train/a").rename(root / "birds/train/\u00e9")
    (root / "birds/val/a").rename(root / "birds/val/e\u0301")
    assert counts(root) == [14] * 4
    picture(root / "birds/train/e\u0301/0.png", 1)
    assert "two folders that both read" in str(check(BIRDS, root))


def test_a_test_folder_that_is_the_training_folder_is_refused(root: Path) -> None:
    (root / "twice/val").mkdir(parents=True)
    (root / "twice/val").rmdir()
    (root / "twice/train").symlink_to(root / "birds/train")
    (root / "twice/val").symlink_to(root / "birds/train")
    assert "twice/val is the folder train; give other images" in str(check("folder/twice/16", root))


def test_test_images_that_are_copies_of_the_training_images_are_refused(root: Path) -> None:
    shutil.rmtree(root / "birds/val")
    shutil.copytree(root / "birds/train", root / "birds/val")
    with pytest.raises(DataError, match=f"{BIRDS}: the test images are the training images, .*; give others"):
        load(BIRDS, root)


def test_images_of_two_classes_by_a_link_are_counted(root: Path) -> None:
    (root / "birds/train/a/more").symlink_to(root / "birds/train/b")
    assert counts(root) == [28, 14, 14, 14]
    assert notes(root) == ["14 different training images have more than one label"]


def test_test_images_that_were_trained_on_are_counted(root: Path) -> None:
    for i in range(3):
        (root / f"birds/val/b/{i:03d}.png").write_bytes((root / f"birds/train/b/{i:03d}.png").read_bytes())
    (root / "birds/val/c/000.png").write_bytes((root / "birds/train/b/000.png").read_bytes())
    assert notes(root) == ["4 of 16 test images are also training images, 1 of them with another label"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("folder/birds", "write folder/NAME/SIDE"),
        ("folder/birds/0", "write folder/NAME/SIDE"),
        ("folder/a/b/16", "write folder/NAME/SIDE"),
        ("folder/birds/x", "write folder/NAME/SIDE"),
        ("folder/../16", "would leave its folder"),
    ],
)
def test_a_name_of_no_data_set(name: str, sentence: str, root: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        load(name, root)


@pytest.mark.parametrize("name", ["my birds", "birds (1)", "a\u00e9", "x-2x2"])
def test_a_folder_of_any_name_is_a_benchmark(name: str, root: Path) -> None:
    (root / "birds").rename(root / name)
    stream = open_stream(find(f"images-{name}-2x2-16px"), "til", 0, data_dir=root)
    assert len(stream.test(1)) == 8
