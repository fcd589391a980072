"""`runners/data.py` on small files in the layouts of the real data sets."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from benchmarks import cache, data, files, preparation
from benchmarks.files import FOLDER_VARIABLE, DataError
from benchmarks.types import UserError
from runners import command_line
from runners import data as data_command
from tests.benchmarks.image_files import jpeg, write_cifar, write_image_folder
from tests.runners.helpers import call


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data._load.cache_clear()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def nothing(_done: int, _total: int) -> None:
    """Shows no progress."""


def test_the_list_says_what_is_there_and_where_the_rest_goes(root, monkeypatch) -> None:
    write_cifar(root, monkeypatch)
    rows = {row.name: row for row in preparation.survey(root)}
    assert set(rows) == {"digits", "mnist", "fashion-mnist", "cifar-10", "cifar-100", "tiny-imagenet"}
    assert (rows["digits"].state, rows["cifar-10"].state, rows["cifar-10"].decoded) == ("there", "there", "no")
    assert rows["cifar-100"].state == "missing" and rows["cifar-100"].size == "186 MB"
    assert "cifar-100-python.tar.gz" in rows["cifar-100"].advice and str(root) in rows["cifar-100"].advice
    preparation.prepare("cifar-10", root, nothing)
    assert {row.name: row for row in preparation.survey(root)}["cifar-10"].decoded == "yes"


def test_the_list_has_folders_of_images(root) -> None:
    for part in ("birds/train/a", "birds/train/b", "birds/val/a", "cats/train/x", ".hidden/train/x", "notes"):
        (root / part).mkdir(parents=True)
    rows = {row.name: row for row in preparation.survey(root) if row.name.startswith("images-")}
    assert {name: (row.state, row.size) for name, row in rows.items()} == {
        "images-birds-TASKSxCLASSES": ("there", "2 classes"),
        "images-cats-TASKSxCLASSES": ("damaged", "1 class"),
    }
    assert rows["images-cats-TASKSxCLASSES"].advice.endswith("cats has no folder val or test with images to test on")


def test_prepare_counts_images_and_reports_progress(root, monkeypatch) -> None:
    write_cifar(root, monkeypatch)
    seen: list[tuple[int, int]] = []
    lines = preparation.prepare("cifar-10", root, lambda done, total: seen.append((done, total)))
    assert lines[0] == "cifar-10: 100 training images (10 each) and 20 test images (2 each) of 10 classes, 3 x 32 x 32"
    assert seen[-1] == (120, 120) and lines[1].startswith("decoded, 0 MB: ")


def test_check_finds_damage_of_the_source_and_mends_the_cache(root, monkeypatch) -> None:
    write_cifar(root, monkeypatch)
    preparation.prepare("cifar-10", root, nothing)
    source = data.source_of("cifar-10", files.locate(root))
    assert isinstance(source, data.Decodable)
    entry = cache.find("cifar-10", source.key())
    assert entry is not None
    images = entry.folder / "test-images"
    images.write_bytes(b"\1" + images.read_bytes()[1:])
    lines = preparation.check("cifar-10", root, nothing)
    assert any("test-images is damaged" in line and "made again" in line for line in lines)
    entry = cache.find("cifar-10", source.key())
    assert entry is not None and entry.damage() is None
    path = root / "cifar-10-batches-py/test_batch"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="test_batch is corrupt: expected MD5"):
        preparation.check("cifar-10", root, nothing)


def test_check_of_a_folder_reports_what_was_made_to_fit(root) -> None:
    folder = write_image_folder(root)
    (folder / "train/bird-1/2.jpg").write_bytes(jpeg(5, (80, 64), mode="L"))
    (name,) = preparation.chosen(["images-birds-2x2"], root)
    lines = preparation.check(name, root, nothing)
    assert "not decoded yet; this is done now" in lines
    assert any("note: 1 images are grey" in line and "train/bird-1/2.jpg" in line for line in lines)
    assert any("note: 1 images are not 64 x 64" in line for line in lines)


def test_names_of_data_sets_of_benchmarks_and_all(root, monkeypatch) -> None:
    write_cifar(root, monkeypatch)
    assert preparation.chosen(["split-cifar-100-5x20-fecam", "cifar-100"], root) == ["cifar-100"]
    assert preparation.chosen(["all"], root) == ["digits", "cifar-10"]
    with pytest.raises(UserError, match=r"'cifar-1000' is neither a data set \(digits, mnist.*nor a benchmark"):
        preparation.chosen(["cifar-1000"], root)


def test_the_command(tmp_path: Path, root: Path) -> None:
    done = call("--list", "--data", root, script="data.py")
    assert (
        "resnet-20, 10 epochs of 32 a task, 64 x 64 pixels, 10 images for each class of a task for validation"
        in done.stdout
    )
    assert done.returncode == 0 and "tiny-imagenet-200.zip" in done.stdout
    done = call("--check", "digits", "--check", "tiny-imagenet", "--data", root, script="data.py")
    assert done.returncode == 1 and "digits: 1347 training images" in done.stdout
    assert "error: tiny-imagenet:" in done.stderr and "lacks tiny-imagenet-200.zip" in done.stderr
    done = call("--data", tmp_path / "nowhere", "--list", script="data.py")
    assert done.returncode == 2 and "there is no such folder" in done.stderr


def test_a_function_that_raises_fails_its_data_set_alone(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import sys\nfrom benchmarks.definition import Benchmark, Kind\nfrom benchmarks.types import Budget\n"
        "def raises():\n    raise KeyError('boom')\n\ndef leaves():\n    sys.exit(3)\n\n"
        "def made(f):\n    return Benchmark(f.__name__, 'x', f, Kind.SPLIT, 2, 2, (4,), 4, 'mlp-5', Budget(8, 3), '')\n"
        "RAISES, LEAVES = made(raises), made(leaves)\n"
    )
    names = [word for name in (f"{file}:RAISES", f"{file}:LEAVES", "digits") for word in ("--check", name)]
    done = CliRunner().invoke(data_command.app, names, catch_exceptions=False)
    assert done.exit_code == 1 and "digits: 1347 training images" in done.stdout
    assert "error: data set raises: its function raises KeyError: 'boom' (mine.py, line 5)" in done.stderr
    assert "error: data set leaves: its function raises SystemExit: 3 (mine.py, line 8)" in done.stderr


def test_a_benchmark_that_does_not_fit_its_data_is_told(tmp_path: Path) -> None:
    file = tmp_path / "cuts.py"
    file.write_text(
        "import torch\nfrom benchmarks.data import DataSet\nfrom benchmarks.definition import Benchmark\n"
        "from benchmarks.types import Budget\n"
        "def theirs():\n    x, y = torch.rand(120, 1, 4, 4), torch.arange(120) % 4\n"
        "    return DataSet('theirs', x[:80], y[:80], x[80:], y[80:])\n\n"
        "def made(name, tasks=2, shape=(1, 4, 4), validation=8):\n"
        "    return Benchmark(name, name, theirs, 'split', tasks, 2, shape, validation, 'mlp-5', Budget(8, 3), '')\n"
        "FITS, SHAPE, FEWER, NONE = made('a'), made('b', shape=(3, 9, 9)), made('c', 1), made('d', validation=39)\n"
    )
    names = [word for name in ("FITS", "SHAPE", "FEWER", "NONE") for word in ("--check", f"{file}:{name}")]
    done = CliRunner().invoke(data_command.app, names, catch_exceptions=False)
    assert done.exit_code == 1 and "a: 2 tasks can be cut; 8 training images of each are set aside" in done.stdout
    assert "note: c uses 2 of the 4 classes of theirs" in done.stdout
    assert "error: b: images of theirs have the shape (1, 4, 4), not (3, 9, 9)" in done.stderr
    assert "error: d: class" in done.stderr and "none is left as a training image" in done.stderr
    assert CliRunner().invoke(data_command.app, names[:2], catch_exceptions=False).exit_code == 0


def test_the_bar_is_told_how_far_things_are() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with command_line.progress_bar(console, "cifar-10") as progress:
        progress(30, 120)
    assert "cifar-10" in console.file.getvalue() and "30/120" in console.file.getvalue()  # type: ignore[attr-defined]
