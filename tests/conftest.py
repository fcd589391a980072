"""What all tests share: one thread, repeatable property tests, and the folder with real data."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import settings

from benchmarks.files import FOLDER_VARIABLE

if TYPE_CHECKING:
    from tests.pretended import Device

# Property tests must not fail for a slow machine, nor differ from run to run: failures found here are bugs.
settings.register_profile("suite", deadline=None, derandomize=True, max_examples=50, print_blob=True)
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--method path/to/file.py:Class` asks of a method what tests/methods/test_conformance.py asks of all."""
    parser.addoption("--method", action="append", metavar="FILE.py:CLASS", help="test this method, and only it")


def pytest_configure(config: pytest.Config) -> None:
    """Settings of this process, of the tests' workers and of the commands that the tests start."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # processes must not fight for cores
    torch.set_num_threads(1)
    # Hundreds of commands start here: each would compile two hundred modules, which takes as long as many a cell.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--method` only its conformance is tested; tests marked `real_data` need a folder."""
    if config.getoption("--method"):
        own = [item for item in items if item.path.name == "test_conformance.py" and item.path.parent.name == "methods"]
        config.hook.pytest_deselected(items=[item for item in items if item not in own])
        items[:] = own
    if os.environ.get(FOLDER_VARIABLE):
        return
    skip = pytest.mark.skip(reason=f"set {FOLDER_VARIABLE} to a folder with MNIST/raw/... to run this")
    for item in items:
        if "real_data" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def no_stream_of_a_pretended_device():
    """The stream of captures is kept as long as the process; one of a pretended device is nothing for the next test."""
    yield
    from methods.shared import stepping

    stepping._stream.cache_clear()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real image data, laid out as torchvision does (for tests marked `real_data`)."""
    return Path(os.environ[FOLDER_VARIABLE])


@pytest.fixture(scope="session", autouse=True)
def no_flushes_to_the_disk():
    """Only a machine that fails needs them; they take a sixth of the time of tests that write records."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(autouse=True)
def tiny_numbers_again():
    """An engine in the test's own process flushes tiny numbers to zero; the next test would find it so."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def passes_that_ran(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each module computed an output layer's forward pass; PyTorch's code stands in for Triton's kernels."""
    from tests.pretended.cells import install_kernels

    return install_kernels(monkeypatch)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, passes_that_ran: Counter[str]) -> Iterator[Device]:
    """A pretended CUDA device that is in use already, and small benchmarks in the catalogue."""
    from tests.pretended import pretended
    from tests.pretended.cells import install_benchmarks

    install_benchmarks(monkeypatch)
    with pretended() as found:
        found.require()
        yield found
