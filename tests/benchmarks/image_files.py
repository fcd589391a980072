"""Small data sets in the exact on-disk layouts of the real ones."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from benchmarks import data, files, folders
from benchmarks.files import RawFile


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def pixels(n: int, seed: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 3, size, size), dtype=np.uint8)


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch, name: str = "cifar-10") -> dict[str, np.ndarray]:
    """20 images a file, as pickles of the published layout; their checksums become the published ones.

    Returns images and labels: train_images (n, 3, 32, 32), train_labels, test_images, test_labels.
    """
    from torchvision import datasets

    ten = name == "cifar-10"
    cls, n_classes = (datasets.CIFAR10, 10) if ten else (datasets.CIFAR100, 100)
    folder, key = root / cls.base_folder, "labels" if ten else "fine_labels"
    folder.mkdir(parents=True)
    parts: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    labels: dict[str, list[int]] = {"train": [], "test": []}
    lists: dict[str, list[list[str]]] = {"train": [], "test": []}
    for number, (file, _) in enumerate([*cls.train_list, *cls.test_list]):
        part = "test" if [file, _] in cls.test_list else "train"
        n = 20 if ten else 2 * n_classes
        images = pixels(n, number)
        targets = [i % n_classes for i in range(n)]
        content = {"data": images.reshape(n, -1), key: targets, "filenames": [f"{i}.png" for i in range(n)]}
        (folder / file).write_bytes(pickle.dumps(content))
        parts[part].append(images)
        labels[part] += targets
        lists[part].append([file, md5(folder / file)])
    meta = cls.meta["filename"]
    (folder / meta).write_bytes(pickle.dumps({cls.meta["key"]: [f"class {i}" for i in range(n_classes)]}))
    monkeypatch.setattr(cls, "train_list", lists["train"])
    monkeypatch.setattr(cls, "test_list", lists["test"])
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": md5(folder / meta)})
    names = [file for file, _ in (*lists["train"], *lists["test"])] + [meta]
    publish_files(monkeypatch, name, [RawFile(f"{cls.base_folder}/{n}", None, md5=md5(folder / n)) for n in names])
    return {
        **{f"{part}_images": np.concatenate(images) for part, images in parts.items()},
        **{f"{part}_labels": np.array(targets) for part, targets in labels.items()},
    }


def publish_files(monkeypatch: pytest.MonkeyPatch, name: str, listed: list[RawFile]) -> None:
    changed = {**files.FILES, name: tuple(listed)}
    for module in (files, data):
        monkeypatch.setattr(module, "FILES", changed)


def publish_archive(monkeypatch: pytest.MonkeyPatch, name: str, path: Path) -> None:
    """The file becomes the published archive of the data set."""
    changed = {**files.ARCHIVES, name: RawFile(path.name, path.stat().st_size, md5=md5(path))}
    for module in (files, data, folders):
        monkeypatch.setattr(module, "ARCHIVES", changed)


def pack_cifar(root: Path, folder: str, archive: str) -> Path:
    """The unpacked folder as a tar.gz beside it."""
    with tarfile.open(root / archive, "w:gz") as tar:
        tar.add(root / folder, arcname=folder)
    return root / archive


def jpeg(seed: int, size: tuple[int, int] = (64, 64), mode: str = "RGB") -> bytes:
    """A smooth image, so that JPEG keeps it nearly."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize(size, Image.Resampling.BILINEAR).convert(mode).save(buffer, "jpeg", quality=95)
    return buffer.getvalue()


WNIDS = ["n03", "n01", "n02"]


def tiny_files() -> dict[str, bytes]:
    """Tiny ImageNet's files by path: three classes of four training and two validation images, one of them grey."""
    found = {"wnids.txt": "\n".join(WNIDS).encode() + b"\n", "words.txt": b"n01\ta thing\n"}
    for c, wnid in enumerate(WNIDS):
        found[f"train/{wnid}/{wnid}_boxes.txt"] = b""
        for i in range(4):
            mode = "L" if (c, i) == (0, 0) else "RGB"
            found[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = jpeg(10 * c + i, mode=mode)
    order = [0, 1, 2, 0, 1, 2]
    lines = [f"val_{i}.JPEG\t{WNIDS[c]}\t0\t0\t62\t62" for i, c in enumerate(order)]
    found["val/val_annotations.txt"] = "\n".join(lines).encode()
    for i in range(6):
        found[f"val/images/val_{i}.JPEG"] = jpeg(100 + i)
    found["test/images/test_0.JPEG"] = jpeg(200)
    return found


def write_tiny(root: Path, monkeypatch: pytest.MonkeyPatch, packed: bool) -> Path:
    """Tiny ImageNet in small, as its zip or unpacked; returns the zip or the folder."""
    for key, value in {"classes": 3, "train_each": 4, "test_each": 2}.items():
        monkeypatch.setattr(folders.TinyImageNet, key, value)
    name = folders.TinyImageNet.root
    if not packed:
        write_tree(root / name, tiny_files())
        return root / name
    path = root / "tiny-imagenet-200.zip"
    with ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/", "")
        for inner, content in tiny_files().items():
            archive.writestr(f"{name}/{inner}", content)
    publish_archive(monkeypatch, "tiny-imagenet", path)
    return path


def write_tree(root: Path, content: dict[str, bytes]) -> None:
    for name, body in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(body)


def write_image_folder(root: Path, classes: int = 4, train: int = 6, test: int = 3, size: int = 64) -> Path:
    """root/birds/train/<class>/<image>, root/birds/val/..."""
    content = {
        f"{part}/bird-{c}/{i}.jpg": jpeg(1000 * c + 10 * i + (part == "val"), (size, size))
        for part, n in (("train", train), ("val", test))
        for c in range(classes)
        for i in range(n)
    }
    write_tree(root / "birds", content)
    return root / "birds"


def write_png_folder(folder: Path, train: dict[str, int], test: int = 4) -> None:
    """folder/train/<class>/<image> with so many images of each class, all different, and folder/val/..."""
    for part, counts in (("train", train), ("val", dict.fromkeys(train, test))):
        for c, (name, n) in enumerate(counts.items()):
            (folder / part / name).mkdir(parents=True)
            for i in range(n):
                image = Image.new("RGB", (16, 16), (i, 50 * c, 200 if part == "train" else 100))
                image.save(folder / part / name / f"{i:03d}.png")
