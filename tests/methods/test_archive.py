"""Tensors in a temporary file: read as added, guarded by digests, without litter."""

from __future__ import annotations

import os
import tempfile

import pytest
import torch

from methods.shared.archive import Altered, Archive

ADDED = [
    torch.arange(6.0).view(2, 3),
    torch.zeros(0),
    torch.tensor(True),
    torch.randn(5).double(),
    torch.ones(4, 2).t(),
]


def test_tensors_are_read_as_they_were_added() -> None:
    archive = Archive(ADDED[:2])
    for tensor in ADDED[2:]:
        archive.append(tensor)
    assert len(archive) == len(ADDED)
    for added, found in zip(ADDED, archive, strict=True):
        assert found.dtype == added.dtype and found.shape == added.shape and torch.equal(found, added)


@pytest.mark.parametrize("full", [False, True])
def test_neither_an_added_nor_a_read_tensor_leads_to_the_kept_one(monkeypatch, full) -> None:
    if full:
        monkeypatch.setattr(tempfile, "TemporaryFile", _refused)
    added = torch.ones(3)
    archive = Archive([added])
    added.zero_()
    next(iter(archive)).zero_()
    assert next(iter(archive)).tolist() == [1, 1, 1]


def _refused(**_):
    raise OSError(28, "No space left on device")


def test_a_full_disk_costs_memory_only(monkeypatch, caplog) -> None:
    archive = Archive([torch.ones(3)])

    class Full:
        def seek(self, _): ...
        def write(self, _):
            raise OSError(28, "No space left on device")

    file, archive._file = archive._file, Full()
    archive.append(torch.full((2,), 2.0))
    archive._file = file
    archive.append(torch.full((1,), 3.0))
    assert [tensor.tolist() for tensor in archive] == [[1, 1, 1], [2, 2], [3]]
    assert "No space left" in caplog.text


@pytest.mark.parametrize("damage", ["changed", "cut"])
def test_a_file_that_was_changed_is_told(damage) -> None:
    archive = Archive([torch.ones(3), torch.ones(4)])
    file = archive._file
    assert file is not None
    if damage == "changed":
        file.seek(4)
        file.write(b"\1")
    else:
        file.truncate(16)
    with pytest.raises(Altered):
        list(archive)


def test_a_file_has_no_name_so_that_a_killed_process_leaves_none(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    archive = Archive([torch.ones(1000)])
    file = archive._file
    assert file is not None and os.fstat(file.fileno()).st_size == 4000 and not list(tmp_path.iterdir())
    del archive
    assert file.closed
