"""What a cell leaves for the report: a method's own tables, and one sheet of sample images for a benchmark."""

from __future__ import annotations

import csv
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.catalogue import find
from benchmarks.samples import Samples
from benchmarks.stream import open_stream
from runners.cell import exhibits, sample_sheet
from runners.cell.events import Event, EventKind
from runners.records.record import Status
from tests.runners.helpers import cells, foreign
from tests.runners.test_execution import run


def test_the_tables_of_a_method_are_kept_with_its_record(tmp_path):
    [cell] = cells("hyperinterval", assignments=(("hyperinterval", "hidden", "10"),))
    record = run(cell, tmp_path)
    assert "exhibit-embeddings.csv" in record.files
    with (cell.folder(tmp_path) / "exhibit-embeddings.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * cell.config["embedding"]
    assert all(float(row["lower"]) <= float(row["middle"]) <= float(row["upper"]) for row in rows)


@pytest.mark.parametrize(
    "kind, reason", [("Name", "lower-case"), ("Ragged", "different lengths"), ("Huge", "20000"), ("Raises", "no table")]
)
def test_a_bad_table_is_said_and_costs_no_result(tmp_path, kind, reason):
    [cell] = cells(foreign("Exhibits"), assignments=(("exhibits", "kind", kind),))
    heard: list[Event] = []
    record = run(cell, tmp_path, heard.append)
    assert record.status is Status.DONE and not [name for name in record.files if name.startswith("exhibit")]
    assert reason in next(event.reason for event in heard if event.kind is EventKind.NOTE and event.reason)


TABLES = {
    "mask-overlap": {"task": [0], "other": [0], "overlap": [1.0]},
    "embeddings": {"task": [0], "dimension": [0], "lower": [0.0], "middle": [0.0], "upper": [1.0]},
    "bases": {key: [0] for key in ("task", "layer", "columns", "inputs", "captured", "leak", "drift")},
    "drift": {key: [0] for key in ("task", "layer", "lower", "upper", "inside", "width")},
}


def collected(name, **columns):
    """What is kept of a method's table on a stream of 5 tasks."""
    method = SimpleNamespace(exhibits=lambda: {name: TABLES[name] | columns}, spec=SimpleNamespace(n_tasks=5))
    return exhibits.collect(method)


@pytest.mark.parametrize(
    "name, column, value, reason",
    [
        ("mask-overlap", "other", 99, "has 99, no whole number from 0 to 4"),
        ("mask-overlap", "task", -1, "has -1, no whole number from 0 to 4"),
        ("embeddings", "task", 5, "has 5, no whole number from 0 to 4"),
        ("embeddings", "dimension", 10**9, "no whole number from 0 to 19999"),
        ("embeddings", "dimension", float("nan"), "no whole number"),
        ("embeddings", "upper", 1e300, r"the column upper of the exhibit embeddings has 1e\+300"),
        ("bases", "layer", 0.5, "has 0.5, no whole number"),
        ("drift", "layer", float("inf"), "has inf, no whole number"),
        ("drift", "width", -1e300, "at most"),
    ],
)
def test_a_table_that_the_report_cannot_draw_is_not_kept(name, column, value, reason):
    with pytest.raises(ValueError, match=reason):
        collected(name, **{column: [value]})


def test_tables_that_the_report_can_draw_are_kept():
    for name, columns in TABLES.items():
        assert collected(name) == {name: columns}
    assert collected("embeddings", task=[4], dimension=[19_999], lower=[float("-inf")], upper=[float("nan")])
    others = {"drift": {"task": [7]}, "own": {"task": [-1]}}
    method = SimpleNamespace(exhibits=lambda: others, spec=SimpleNamespace(n_tasks=5))
    assert exhibits.collect(method) == others


def test_one_sheet_of_samples_lies_beside_the_records(tmp_path):
    for cell in cells("finetune", scenarios=("til", "cil")):
        run(cell, tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")] == ["split-digits/samples.png"]


def test_the_sheet_shows_the_first_training_samples_of_every_task():
    stream = open_stream(find("split-digits"), "til", 0)
    with Image.open(io_of(sample_sheet.sheet(stream))) as image:
        pixels, fields = np.asarray(image), getattr(image, "text", {})
    assert (fields["tasks"], fields["tile"], fields["columns"]) == ("0 1 2 3 4", "8", "10")
    assert fields["names"].splitlines() == ["0 1", "2 3", "4 5", "6 7", "8 9"]
    assert pixels.shape == (5 * 8, 10 * 8)
    train = stream.task(3).train
    first_nine = train.batch((train.labels == 1).nonzero()[:1, 0]).x[0, 0] * 255
    assert np.abs(pixels[24:32, 40:48].astype(float) - first_nine.numpy()).max() <= 0.5


@pytest.mark.parametrize("shape, drawn", [((3, 4, 4), True), ((48,), True), ((5,), False), ((2, 4, 4), False)])
def test_inputs_that_are_no_images_have_no_sheet(shape, drawn):
    stream = open_stream(find("split-digits"), "til", 0)
    x = torch.rand(20, *shape)
    stream.task = lambda j, previous=False: replace(  # type: ignore[method-assign]
        stream._task(j), train=Samples(x, torch.arange(20), torch.arange(20) % 2, j)
    )
    assert (sample_sheet.sheet(stream) is not None) == drawn


def io_of(content: bytes | None):
    import io

    assert content is not None
    return io.BytesIO(content)
