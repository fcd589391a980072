"""Embeddings with their intervals, overlap of masks and sample images: from the records into the report."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reports import figure_files
from reports.build import Report
from reports.exhibits import OVERLAP, exhibits, read_sheet
from reports.layer_exhibits import layer_exhibits
from reports.load import load
from reports.matrices import heat_maps
from reports.schema import EXHIBITS
from reports.study import Group, study
from reports.style import drawing, looks
from tests.reports.synthetic import Synthetic, write_samples

GROUP = Group("split-digits", "til")


def stems(results: Path, out: Path) -> list[str]:
    out.mkdir()
    found = study(load(results))
    artist = figure_files.Artist(found, out)
    return [artist.draw(job)["stem"] for job in exhibits(found)]


def test_the_report_shows_what_the_records_carry(several_report: Report) -> None:
    drawn = {path.stem for path in several_report.figures}
    assert {"samples", "embeddings-split-mnist", "masks-permuted-mnist-10"} <= drawn


def test_nothing_is_drawn_where_nothing_is_recorded(tmp_path: Path) -> None:
    Synthetic("ewc").write(tmp_path / "r")
    assert stems(tmp_path / "r", tmp_path / "out") == []


def test_the_overlap_is_that_of_the_table(tmp_path: Path) -> None:
    Synthetic("hypermask", n_tasks=3).write(tmp_path)
    found = OVERLAP.of(study(load(tmp_path)), GROUP, "hypermask")
    assert found.keys() == {0} and found[0] == pytest.approx(
        np.array([[1, 1 / 2, 1 / 3], [1 / 2, 1, 1 / 2], [1 / 3, 1 / 2, 1]]), abs=1e-5
    )


@pytest.mark.parametrize(("measured", "words"), [([2], "Seed 2."), ([0, 2], "Mean over 2 seeds.")])
def test_a_map_says_over_how_many_seeds_it_is(tmp_path: Path, measured: list[int], words: str) -> None:
    """Not all seeds of a suite leave the table."""
    for seed in range(3):
        folder = Synthetic("hypermask", seed=seed, n_tasks=2).write(tmp_path)
        if seed not in measured:
            (folder / "exhibit-mask-overlap.csv").unlink()
    found = study(load(tmp_path))
    (job,) = exhibits(found)
    assert job(found, looks(found)).caption.endswith(words)
    (accuracies,) = heat_maps(found)
    assert accuracies(found, looks(found)).caption.endswith("Mean over 3 seeds.")


def test_a_figure_of_several_embeddings_tells_the_sizes_of_all(tmp_path: Path) -> None:
    for scenario, seed, dimensions, tasks in (("til", 0, 24, 12), ("cil", 1, 72, 11)):
        folder = Synthetic("hyperinterval", scenario=scenario, seed=seed, n_tasks=12).write(tmp_path)
        rows = ["task,dimension,lower,middle,upper", f"{tasks - 1},{dimensions - 1},-1,0,1"]
        (folder / "exhibit-embeddings.csv").write_text("\n".join(rows))
    found = study(load(tmp_path))
    (job,) = exhibits(found)
    with drawing():
        caption = job(found, looks(found)).caption
    assert "seed 0 or 1; the first 16 of 24 or 72 dimensions, 10 of the 11 or 12 tasks" in caption


@pytest.mark.parametrize("text", ["", "task,dimension\n0,0\n", "task,dimension,lower,middle,upper\n0,0,a,b,c\n"])
def test_a_table_that_cannot_be_read_is_not_drawn(tmp_path: Path, text: str) -> None:
    folder = Synthetic("hyperinterval").write(tmp_path / "r")
    (folder / "exhibit-embeddings.csv").write_text(text)
    assert stems(tmp_path / "r", tmp_path / "out") == []


TABLES = {"embeddings": "hyperinterval", "mask-overlap": "hypermask", "bases": "gpm", "drift": "intact"}
NO_COUNTS = ("-1", "-99", "0.5", "nan", "inf", "1e9", "1e308")


@pytest.mark.parametrize(
    ("column", "text"),
    [(0, "5"), *((column, text) for column in (0, 1) for text in NO_COUNTS), *((i, "-1e308") for i in range(2, 7))],
)
@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_does_not_fit_its_stream_is_not_drawn(tmp_path: Path, name: str, column: int, text: str) -> None:
    """Of 5 tasks. It would end the report of all methods."""
    columns = EXHIBITS[name]
    if column >= len(columns):
        return
    fit = ["1" if column in ("upper", "inputs") else "0" for column in columns]
    folder = Synthetic(TABLES[name]).write(tmp_path)
    (folder / f"exhibit-{name}.csv").write_text("\n".join(map(",".join, (columns, fit))))
    assert len(list(exhibits(study(load(tmp_path))))) == 1
    unfit = [text if i == column else value for i, value in enumerate(fit)]
    (folder / f"exhibit-{name}.csv").write_text("\n".join(map(",".join, (columns, fit, unfit))))
    assert list(exhibits(study(load(tmp_path)))) == []


def test_of_many_dimensions_the_first_are_drawn(tmp_path: Path) -> None:
    folder = Synthetic("hyperinterval").write(tmp_path)
    rows = ["task,dimension,lower,middle,upper", "0,0,-1,0,1", "4,1,-2,0,2", "4,19999,-3,0,3"]
    (folder / "exhibit-embeddings.csv").write_text("\n".join(rows))
    found = study(load(tmp_path))
    (job,) = exhibits(found)
    with drawing():
        drawn = job(found, looks(found))
    bars = [segment for segment in drawn.figure.axes[0].collections[0].get_segments() if len(segment)]
    assert [[*bar[:, 1]] for bar in bars] == [[-1, 1], [-2, 2]]
    assert "the first 16 of 20000 dimensions" in drawn.caption


def test_embeddings_without_intervals_are_not_drawn(tmp_path: Path) -> None:
    folder = Synthetic("hyperinterval").write(tmp_path / "r")
    (folder / "exhibit-embeddings.csv").write_text("task,dimension,lower,middle,upper\n0,0,1,1,1\n")
    assert stems(tmp_path / "r", tmp_path / "out") == []


@pytest.mark.parametrize(("radius", "label"), [(0.5, "value"), (1e-3, "value − centre")])
def test_intervals_that_would_be_too_short_are_drawn_about_their_centres(
    tmp_path: Path, radius: float, label: str
) -> None:
    folder = Synthetic("hyperinterval").write(tmp_path)
    rows = [f"{task},{j},{m - radius},{m},{m + radius}" for task in range(2) for j in range(3) for m in [task - j]]
    (folder / "exhibit-embeddings.csv").write_text("\n".join(["task,dimension,lower,middle,upper", *rows]))
    found = study(load(tmp_path))
    (job,) = exhibits(found)
    with drawing():
        drawn = job(found, looks(found))
    ax = drawn.figure.axes[0]
    bars = max(segment[1][1] - segment[0][1] for c in ax.collections[:1] for segment in c.get_segments())
    assert ax.get_ylabel() == label and bars / np.ptp(ax.get_ylim()) > 0.1
    assert ("centres are subtracted" in drawn.caption) is (label != "value")


def listing(folder: Path, *left_out: str) -> Path:
    """The folder, its record now listing its tables by checksum, but those left out."""
    path = folder / "cell.json"
    files = {f.name: sha256(f.read_bytes()).hexdigest() for f in folder.glob("*.csv") if f.name not in left_out}
    path.write_text(json.dumps({**json.loads(path.read_text()), "files": files}))
    return folder


def test_an_altered_table_is_noticed_by_its_checksum(tmp_path: Path) -> None:
    table = listing(Synthetic("hyperinterval").write(tmp_path)) / "exhibit-embeddings.csv"
    assert load(tmp_path).problems == ()
    Synthetic("ewc").write(tmp_path)
    table.write_text(table.read_text() + "9,9,9,9,9\n")
    (problem,) = load(tmp_path).problems
    assert "exhibit-embeddings.csv" in problem.reason


def test_a_table_that_the_record_does_not_list_is_not_read(tmp_path: Path) -> None:
    """What another run left in the folder is no part of this record."""
    folder = Synthetic("hyperinterval", certifies=True).write(tmp_path)
    names = ("exhibit-embeddings.csv", "claims.csv", "steps.csv", "certified.csv")
    for left_out in ((), names):
        listing(folder, *left_out)
        (record,) = load(tmp_path).records
        found = record.exhibit("embeddings"), record.claims, record.losses, record.certified is not None
        assert [bool(part) for part in found] == [not left_out] * 4


def test_a_sheet_of_samples_is_read_with_its_fields(tmp_path: Path) -> None:
    write_samples(tmp_path, "split-digits", n_tasks=40)
    sheet = read_sheet(tmp_path / "split-digits" / "samples.png", "Split Digits")
    assert sheet and len(sheet.tasks) == 10 and sheet.tasks[-1] == 39 and sheet.names[-1] == "78 79"
    assert sheet.pixels.shape == (80, 80)


def test_other_pictures_are_no_sheets(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "plain.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    for name in ("plain.png", "broken.png", "missing.png"):
        assert read_sheet(tmp_path / name, "x") is None


BASES = (
    "task,layer,columns,inputs,captured,leak,drift\n0,0,7,65,0.95,0,0\n0,1,2,101,0.99,0,0\n1,0,13,65,0.93,1e-7,0.125\n"
)


def test_bases_are_drawn_with_the_drift_next_to_the_promise(tmp_path: Path) -> None:
    folder = Synthetic("gpm", n_tasks=2).write(tmp_path)
    (folder / "exhibit-bases.csv").write_text(BASES)
    found = study(load(tmp_path))
    with drawing():
        (drawn,) = [job(found, looks(found)) for job in layer_exhibits(found)]
    size, captured, drift = drawn.figure.axes
    assert list(size.lines[0].get_ydata()) == pytest.approx([100 * 7 / 65, 20.0]) and len(size.lines) == 2
    assert list(captured.lines[0].get_ydata()) == pytest.approx([95, 93])
    solid, dashed = drift.lines[:2]
    assert solid.get_ydata()[1] == 0.125 and dashed.get_ydata()[1] == 1e-7 and dashed.get_linestyle() == "--"
    assert "largest leak: 1e-07; largest drift: 0.12." in drawn.caption and drawn.caption.startswith("GPM: ")


def ranges(results: Path) -> str:
    """Caption of the figure of ranges."""
    found = study(load(results))
    (job,) = layer_exhibits(found)
    with drawing():
        return job(found, looks(found)).caption


def test_ranges_are_drawn_and_an_incomplete_table_is_not(tmp_path: Path) -> None:
    folder = Synthetic("intact", n_tasks=2).write(tmp_path)
    table = folder / "exhibit-drift.csv"
    table.write_text("task,layer,lower,upper,inside,width\n0,1,0,0,0.5,1\n1,1,0.25,0.5,0.75,2\n")
    out = tmp_path / "out"
    assert stems(tmp_path, out) == ["ranges"]
    assert "0 is not drawn on a log scale" in ranges(tmp_path)
    table.write_text("task,layer,lower,upper,inside,width\n0,1,0.1,0.1,0,1\n1,1,0.25,0.5,0.75,0\n")
    assert "not drawn" not in ranges(tmp_path)
    table.write_text("task,layer,lower\n0,1,0\n")
    assert stems(tmp_path, tmp_path / "again") == []
