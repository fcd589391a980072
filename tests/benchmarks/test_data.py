"""Loading data: the bundled digits, and clear sentences for files that are missing or damaged."""

import builtins
import gzip
import urllib.request
import weakref
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch

from benchmarks import data, files
from benchmarks.data import DataError, DataSet, check, load
from benchmarks.types import UserError

MNIST = files.files_of("mnist")


@pytest.fixture(autouse=True)
def no_folder_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(files.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies of its first use


def write_zeros(folder: Path, dataset: str = "mnist") -> None:
    """Files of the right names and sizes, but full of zeros (sparse: they take no space)."""
    for file in files.files_of(dataset):
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            stream.truncate(file.size)


def test_one_data_set_is_held_and_makes_way_before_another_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a cell would be charged with the data of the cells before it."""
    data._load.cache_clear()
    first = load("digits")
    assert load("digits") is first
    gone, read = weakref.ref(first.train_images), data._load.read
    del first

    def reading(*wanted: object) -> DataSet:
        assert gone() is None
        return read("digits", *wanted[1:])

    monkeypatch.setattr(data._load, "read", reading)
    load("tests.benchmarks.test_data:other")
    assert data._load.kept is not None and data._load.kept[0][0] == "tests.benchmarks.test_data:other"


def test_digits_need_no_files() -> None:
    digits = load("digits")
    assert digits.train_images.shape == (1347, 1, 8, 8) and digits.test_images.shape == (450, 1, 8, 8)
    assert digits.train_images.dtype == torch.float32 and digits.train_labels.dtype == torch.int64
    assert digits.train_images.min() == 0.0 and digits.train_images.max() == 1.0
    assert check("digits") is None


def test_the_digits_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.datasets import load_digits

    pixels, targets = load_digits(return_X_y=True)
    for _ in range(2):  # from its file, and by its function where a version has the file elsewhere
        found, labels = data._digits_table()
        assert found.dtype == pixels.dtype and (found == pixels).all() and (labels == targets).all()
        monkeypatch.setattr(data, "find_spec", lambda _: None)


def test_digits_split_is_stratified_and_whole() -> None:
    digits = load("digits")
    train, test = digits.train_labels.bincount(), digits.test_labels.bincount()
    assert ((test / (train + test) - 0.25).abs() < 0.004).all()
    images = torch.cat([digits.train_images, digits.test_images]).flatten(1)
    assert images.unique(dim=0).shape[0] == 1797, "an image is in both parts, or was lost"


def test_a_data_set_is_loaded_once_per_process() -> None:
    assert load("digits", device="cpu").train_images is load("digits").train_images


def test_missing_files_are_named_with_their_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load("mnist", tmp_path, download=True)
    message = str(caught.value)
    assert str(tmp_path) in message and all(file.path in message for file in MNIST)
    assert check("mnist", tmp_path) == message
    assert not list(tmp_path.iterdir()), "a folder that the user named is never written"


def test_only_what_is_missing_is_named(tmp_path: Path) -> None:
    write_zeros(tmp_path)
    (tmp_path / MNIST[1].path).rename(tmp_path / (MNIST[1].path + ".gz"))
    message = check("mnist", tmp_path)
    assert message is not None and f"{MNIST[1].path}.gz must be unpacked" in message
    assert MNIST[0].path not in message


def test_folder_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(files.FOLDER_VARIABLE, str(tmp_path / "there"))
    message = check("fashion-mnist")
    assert message is not None and "FashionMNIST/raw" in message and str(tmp_path / "there") in message


def test_default_folder_counts_as_usable_since_it_can_be_filled(tmp_path: Path) -> None:
    assert check("mnist") is None
    with pytest.raises(DataError, match="run once on a machine with the net"):
        load("mnist", download=False)


@pytest.mark.parametrize("broken", [0, 3])
def test_wrong_size_names_file_expected_and_found(tmp_path: Path, broken: int) -> None:
    write_zeros(tmp_path)
    path = tmp_path / MNIST[broken].path
    with path.open("r+b") as stream:
        stream.truncate(1234)
    message = check("mnist", tmp_path)
    assert message is not None and f"{path} is corrupt" in message
    assert f"expected {MNIST[broken].size} bytes, found 1234" in message


def test_wrong_content_names_file_expected_and_found(tmp_path: Path) -> None:
    write_zeros(tmp_path)
    assert check("mnist", tmp_path) is None, "the cheap check reads nothing"
    with pytest.raises(DataError) as caught:
        load("mnist", tmp_path)
    message = str(caught.value)
    assert f"{tmp_path / MNIST[0].path} is corrupt: expected SHA-256 {MNIST[0].sha256}, found" in message


def test_unreadable_content_is_a_data_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_zeros(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        load("mnist", tmp_path)


def test_failed_download_says_where_and_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there: this machine is off the net
    with pytest.raises(DataError) as caught:
        load("mnist", download=True)
    message = str(caught.value)
    assert "could not be fetched" in message and "Error downloading" in message and "\n" not in message
    assert str(tmp_path / "cache" / "continual-intervals") in message and MNIST[0].path in message
    assert capsys.readouterr().out == ""


def test_cache_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(DataError, match="could not be fetched"):
        load("mnist", download=True)


def test_unknown_data_set() -> None:
    with pytest.raises(UserError, match=r"unknown data set 'emnist'; available: digits, mnist"):
        check("emnist")


def test_torchvision_is_not_needed_for_the_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def no_torchvision(name: str, *args, **kwargs):
        assert not name.startswith("torchvision")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_torchvision)
    data._load.cache_clear()
    assert len(load("digits").test_labels) == 450


@pytest.mark.real_data
def test_real_mnist(real_data: Path) -> None:
    mnist = load("mnist", real_data)
    assert mnist.train_images.shape == (60000, 1, 28, 28) and mnist.train_images.dtype == torch.uint8
    assert mnist.test_labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert check("mnist", real_data) is None


@pytest.mark.real_data
def test_one_changed_byte_of_real_mnist_is_found(real_data: Path, tmp_path: Path) -> None:
    for file in MNIST:
        (tmp_path / file.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file.path).write_bytes((real_data / file.path).read_bytes())
    path = tmp_path / MNIST[1].path
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte is corrupt: expected SHA-256 65a50cbb"):
        load("mnist", tmp_path)


@pytest.mark.real_data
def test_packed_copy_of_real_mnist_is_explained(real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "MNIST/raw").mkdir(parents=True)
    labels = (real_data / MNIST[3].path).read_bytes()
    (tmp_path / (MNIST[3].path + ".gz")).write_bytes(gzip.compress(labels))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz must be unpacked with gunzip"):
        load("mnist", tmp_path)


@pytest.mark.real_data
def test_download_from_a_server_of_our_own(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real download, from a local server: the files arrive, nothing else stays, the second load fetches nothing."""
    from torchvision.datasets import MNIST as TorchvisionMNIST

    raw = real_data / "MNIST" / "raw"
    if not (raw / "train-images-idx3-ubyte.gz").is_file():
        pytest.skip("the folder holds no packed files to serve")
    handler = partial(QuietHandler, directory=str(raw))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(TorchvisionMNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.delenv(name, raising=False)
        load("mnist", download=True)
        server.shutdown()
    folder = tmp_path / "cache" / "continual-intervals"
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found - {".mnist.lock"} == {file.path for file in MNIST}
    data._load.cache_clear()
    assert len(load("mnist", download=True).test_labels) == 10_000


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
