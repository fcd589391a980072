"""CIFAR, Tiny ImageNet and image folders: read as they lie on disk, decoded once, and never half."""

import errno
import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import cache, data, files
from benchmarks.catalogue import find
from benchmarks.data import DataError, check, load
from benchmarks.stream import open_stream
from benchmarks.types import TIL
from tests.benchmarks import image_files
from tests.benchmarks.image_files import jpeg, pack_cifar, publish_archive, write_cifar, write_image_folder, write_tiny

BIRDS = "folder/birds/64"


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv(files.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data._load.cache_clear()
    return tmp_path / "cache" / "continual-intervals" / "decoded"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock")) if folder.exists() else []


# -- CIFAR -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cifar-10", "cifar-100"])
@pytest.mark.parametrize("packed", [False, True])
def test_cifar_is_read_as_it_was_written(name, packed, root, monkeypatch, own_cache) -> None:
    written = write_cifar(root, monkeypatch, name)
    if packed:
        folder = "cifar-10-batches-py" if name == "cifar-10" else "cifar-100-python"
        publish_archive(monkeypatch, name, pack_cifar(root, folder, files.ARCHIVES[name].path))
        (root / folder).rename(root / "elsewhere")
    loaded = load(name, root)
    for key, expected in written.items():
        assert np.array_equal(getattr(loaded, key).numpy(), expected), key
    assert loaded.train_images.dtype == torch.uint8 and loaded.train_labels.dtype == torch.int64
    assert len(entries(own_cache)) == 1
    assert not list(root.glob(".*")), "a folder that the user named is never written"


def test_a_cell_learns_from_split_cifar_100(root, monkeypatch) -> None:
    written = write_cifar(root, monkeypatch, "cifar-100")
    benchmark = find("split-cifar-100")
    stream = open_stream(replace(benchmark, validation=2), TIL, 0, data_dir=root)
    task = stream.task(3)
    assert stream.classes[3] == list(range(30, 40)) and len(task.train) == 18 and len(task.validation) == 2
    rows = np.flatnonzero(np.isin(written["train_labels"], stream.classes[3]))[2:]
    assert np.array_equal(written["train_labels"][rows] - 30, task.y.numpy())
    shown = task.train.images(slice(0, 3)) * 255
    assert np.array_equal(shown.round().byte().numpy(), written["train_images"][rows[:3]])


def test_a_changed_byte_of_a_file_is_found(root, monkeypatch, own_cache) -> None:
    write_cifar(root, monkeypatch)
    path = root / "cifar-10-batches-py/data_batch_3"
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"data_batch_3 is corrupt: expected MD5 [0-9a-f]{32}, found [0-9a-f]{32}"):
        load("cifar-10", root)
    assert entries(own_cache) == []


@pytest.mark.parametrize("name", ["cifar-10", "cifar-100", "tiny-imagenet"])
def test_missing_files_are_named_with_the_archive(name, root) -> None:
    message = check(name, root)
    assert message is not None and str(root) in message and files.ARCHIVES[name].path in message
    with pytest.raises(DataError):
        load(name, root, download=True)
    assert check(name) is None, "the default folder can be filled from the net"


@pytest.mark.parametrize("change", ["cut", "bytes"])
def test_a_corrupt_archive_is_refused_with_what_was_expected_and_found(change, root, monkeypatch, own_cache) -> None:
    path = write_tiny(root, monkeypatch, packed=True)
    content = path.read_bytes()
    path.write_bytes(content[:-10] if change == "cut" else content[:-10] + bytes(10))
    expected = f"expected {len(content)} bytes, found {len(content) - 10}" if change == "cut" else "expected MD5 "
    with pytest.raises(DataError, match=rf"tiny-imagenet-200\.zip is corrupt: {expected}"):
        load("tiny-imagenet", root)
    assert entries(own_cache) == []


# -- Tiny ImageNet ---------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_tiny_imagenet_with_its_validation_folder_as_test_set(packed, root, monkeypatch) -> None:
    write_tiny(root, monkeypatch, packed)
    loaded = load("tiny-imagenet", root)
    assert loaded.train_images.shape == (12, 3, 64, 64) and loaded.test_images.shape == (6, 3, 64, 64)
    # Classes by name, and class by class in turn.
    assert loaded.train_labels.tolist() == [0, 1, 2] * 4
    assert loaded.test_labels.tolist() == [0, 1, 2] * 2
    content = image_files.tiny_files()
    for row, name in ((0, "train/n01/images/n01_0.JPEG"), (7, "train/n02/images/n02_2.JPEG")):
        expected = np.asarray(Image.open(io.BytesIO(content[name]))).transpose(2, 0, 1)
        assert np.array_equal(loaded.train_images[row].numpy(), expected)
    second_of_n03 = np.asarray(Image.open(io.BytesIO(content["val/images/val_3.JPEG"]))).transpose(2, 0, 1)
    assert np.array_equal(loaded.test_images[5].numpy(), second_of_n03)
    grey = loaded.train_images[2]
    assert torch.equal(grey[0], grey[1]) and torch.equal(grey[0], grey[2])


def test_incomplete_tiny_imagenet_folder(root, monkeypatch, own_cache) -> None:
    folder = write_tiny(root, monkeypatch, packed=False)
    (folder / "train/n02/images/n02_3.JPEG").unlink()
    with pytest.raises(DataError, match=r"class n02 has 3 images in train, expected 4; unpack the archive anew"):
        load("tiny-imagenet", root)
    (folder / "val/images/val_4.JPEG").unlink()
    with pytest.raises(DataError, match=r"val_annotations.txt, line 5: .* no file val/images/val_4.JPEG"):
        load("tiny-imagenet", root)
    assert entries(own_cache) == []


# -- image folders ---------------------------------------------------------------------------------


def test_an_image_folder_is_a_benchmark(root) -> None:
    write_image_folder(root, train=14)
    stream = open_stream(find("images-birds-2x2"), TIL, 0, data_dir=root)
    task = stream.task(1)
    assert (len(task.validation), len(task.train), len(stream.test(1))) == (20, 8, 6)
    assert task.validation.labels.bincount().tolist() == [10, 10], "validation has all classes in equal shares"
    assert task.x.shape == (8, 3, 64, 64) and task.x.min() < 0


def test_grey_and_odd_sized_images_are_made_to_fit_and_reported(root, own_cache) -> None:
    folder = write_image_folder(root)
    (folder / "train/bird-1/2.jpg").write_bytes(jpeg(5, mode="L"))
    (folder / "val/bird-2/1.jpg").write_bytes(jpeg(6, (100, 70)))
    (folder / "val/bird-0/notes.txt").write_text("no image")
    loaded = load(BIRDS, root)
    source = data.source_of(BIRDS, files.locate(root))
    assert isinstance(source, data.Decodable)
    entry = cache.find(BIRDS, source.key())
    assert entry is not None and entry.manifest["notes"] == [
        "1 images are grey and got three equal channels: train/bird-1/2.jpg",
        "1 images are not 64 x 64 and were resized and cut: val/bird-2/1.jpg",
        "1 files that are no images were left out (1 of .txt): val/bird-0/notes.txt",
    ]
    grey = loaded.train_images[4 * 2 + 1]
    assert torch.equal(grey[0], grey[1]) and loaded.test_images.shape == (12, 3, 64, 64)


def test_what_is_wrong_with_a_folder_is_said(root, own_cache) -> None:
    with pytest.raises(DataError, match=r"there is no folder .*birds/train; expected birds/train/CLASS/IMAGE and"):
        load(BIRDS, root)
    folder = write_image_folder(root)
    (folder / "train/bird-9").mkdir()
    assert "class 'bird-9' has no images" in str(check(BIRDS, root))
    (folder / "train/bird-9/0.jpg").write_bytes(jpeg(1))
    assert "train and val have not the same classes: bird-9" in str(check(BIRDS, root))
    (folder / "val/bird-9").mkdir()
    (folder / "val/bird-9/0.jpg").write_bytes(jpeg(1)[:200])
    with pytest.raises(DataError, match=r"val/bird-9/0\.jpg is no image that can be read"):
        load(BIRDS, root)
    assert entries(own_cache) == [], "nothing half-written is left"


# -- the cache -------------------------------------------------------------------------------------


def test_the_second_start_decodes_nothing_and_maps_the_same_file(root, monkeypatch) -> None:
    write_image_folder(root)
    first = load(BIRDS, root).train_images.clone()
    data._load.cache_clear()
    monkeypatch.setattr("benchmarks.folders._image", None)
    again = load(BIRDS, root)
    assert torch.equal(again.train_images, first)
    maps = Path("/proc/self/maps").read_text()
    assert "decoded/folder-birds-64" in maps, "the images are mapped, not read"


def test_a_change_of_the_source_is_decoded_anew(root) -> None:
    folder = write_image_folder(root)
    before = load(BIRDS, root).train_images.clone()
    (folder / "train/bird-0/0.jpg").write_bytes(jpeg(77))
    after = load(BIRDS, root).train_images
    assert not torch.equal(before[0], after[0]) and torch.equal(before[1:], after[1:])


@pytest.mark.parametrize("file", ["train-images", "test-labels", "manifest.json"])
def test_an_incomplete_entry_is_made_again(file, root, own_cache) -> None:
    write_image_folder(root)
    expected = load(BIRDS, root).train_images.clone()
    data._load.cache_clear()
    (name,) = entries(own_cache)
    path = own_cache / name / file
    path.write_bytes(path.read_bytes()[:-5])
    loaded = load(BIRDS, root)
    assert torch.equal(loaded.train_images, expected) and len(loaded.test_labels) == 12


def test_damage_of_an_entry_is_found_on_request(root, own_cache) -> None:
    write_image_folder(root)
    load(BIRDS, root)
    source = data.source_of(BIRDS, files.locate(root))
    assert isinstance(source, data.Decodable)
    entry = cache.find(BIRDS, source.key())
    assert entry is not None and entry.damage() is None
    path = entry.folder / "train-images"
    content = bytearray(path.read_bytes())
    content[9] ^= 255
    path.write_bytes(content)
    assert "train-images is damaged: expected SHA-256" in str(entry.damage())


def test_a_full_disk_is_said_before_anything_is_written(root, own_cache, monkeypatch) -> None:
    write_image_folder(root)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(
        DataError, match=r"decoded images take 0 MB, but .*decoded has only 0 MB free; make room, or set XDG"
    ):
        load(BIRDS, root)
    assert entries(own_cache) == []


def test_a_disk_that_fills_up_leaves_nothing(root, own_cache, monkeypatch) -> None:
    write_image_folder(root)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"cannot be written to .*: No space left on device; make room there"):
        load(BIRDS, root)
    assert entries(own_cache) == []


def test_processes_that_start_at_once_share_one_entry(root, own_cache) -> None:
    write_image_folder(root, classes=3, train=60, test=5)
    code = (
        "import sys; from pathlib import Path; from benchmarks.data import load; "
        f"d = load({BIRDS!r}, Path(sys.argv[1])); print(int(d.train_images.long().sum()), len(d.test_labels))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    answers = {process.communicate(timeout=300)[0] for process in running}
    assert len(answers) == 1 and "15" in answers.pop()
    assert len(entries(own_cache)) == 1


@pytest.mark.real_data
def test_real_cifar_100(real_data: Path) -> None:
    if not (real_data / "cifar-100-python/train").is_file():
        pytest.skip("the folder holds no CIFAR-100")
    loaded = load("cifar-100", real_data)
    assert loaded.train_images.shape == (50_000, 3, 32, 32) and loaded.test_images.shape == (10_000, 3, 32, 32)
    assert loaded.train_labels.bincount().tolist() == [500] * 100
    mean = loaded.train_images.double().mean((0, 2, 3)) / 255
    torch.testing.assert_close(mean, torch.tensor([0.5071, 0.4867, 0.4408]).double(), atol=2e-4, rtol=0)
