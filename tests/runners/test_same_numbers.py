"""A change of code that changes no number leaves the reference records valid, and nothing else does."""

import re
import shutil
from dataclasses import replace

import pytest

from benchmarks.types import UserError
from runners import reference
from runners.records import reference_records, same_numbers
from runners.records.environment import CPU_KERNELS
from runners.records.folder import CellFolder

from .helpers import cells, job, silent

LATER = "f" * 64


@pytest.fixture(scope="module")
def grid():
    return cells("finetune", scenarios=("til", "dil"))


@pytest.fixture(scope="module")
def before(grid, tmp_path_factory):
    """The cells as run by the code at hand, which is the earlier one here."""
    from runners.cell.execution import run_cell

    results = tmp_path_factory.mktemp("before")
    for cell in grid:
        run_cell(job(cell, results), silent)
    return results


@pytest.fixture
def shipped(before, tmp_path):
    folder = tmp_path / "reference"
    reference_records.write(reference_records.collect(before), folder)
    return folder


def rerun(before, after, change=lambda record: record, tables=lambda name, text: text):
    """The same cells as by later code: a copy whose records name another source."""
    for path, record in reference_records.finished(before):
        texts = {name: tables(name, (path / name).read_text()) for name in record.files}
        files = {name: reference_records.digest(text) for name, text in texts.items()}
        place = after / path.relative_to(before)
        place.mkdir(parents=True)
        CellFolder(place).write_files(change(replace(record, source=LATER, files=files)), texts)
    return after


def test_records_get_the_keys_that_the_later_code_asks_for(grid, before, shipped, tmp_path):
    after = rerun(before, tmp_path / "after")
    reference.reference([after], out=shipped, before=before)
    later = [replace(cell, source=LATER) for cell in grid]
    found = reference_records.read(shipped)
    assert found.keys() == {cell.key for cell in later}
    known = {cell.record.key: cell for cell in reference_records.collect(before)}
    for cell in grid:
        carried = found[replace(cell, source=LATER).key]
        assert carried.tables == known[cell.key].tables
        assert carried.record.source == LATER
        assert cell.source[:12] in carried.record.carried
        assert "2 cells on" in carried.record.carried
    assert reference_records.take(later, tmp_path / "taken", pytest.fail, shipped) == len(grid)
    assert reference_records.take(grid, tmp_path / "not taken", pytest.fail, shipped) == 0


def test_every_method_whose_code_changed_is_shown(before):
    one, other = (record for _, record in reference_records.finished(before))
    run = [one, replace(other, method="ewc")]
    shown = same_numbers.compare(run, [replace(record, source=LATER) for record in run])
    assert [(each.method, each.earlier, each.later, each.scenarios) for each in shown] == [
        (record.method, record.source, LATER, {str(record.scenario)}) for record in run
    ]


def without(name, grid):
    """Change of a record to one of code before it had this hyperparameter."""
    by_scenario = {cell.scenario: cell for cell in grid}

    def change(record):
        config = {key: value for key, value in record.config.items() if key != name}
        key = replace(by_scenario[record.scenario], source=LATER, config=config).key
        return replace(record, source=LATER, key=key, config=config)

    return change


def test_a_new_hyperparameter_at_its_default_is_no_other_cell(grid, before, tmp_path):
    earlier = rerun(before, tmp_path / "earlier", without("lr", grid))
    shipped = tmp_path / "reference"
    reference_records.write(reference_records.collect(earlier), shipped)
    reference.reference([before], out=shipped, before=earlier)
    found = reference_records.read(shipped)
    assert found.keys() == {cell.key for cell in grid}
    assert all(cell.record.config == grid[0].config for cell in found.values())


def test_a_new_hyperparameter_at_another_value_is_another_cell(grid, before, tmp_path):
    earlier = rerun(before, tmp_path / "earlier", without("lr", grid))
    after = rerun(before, tmp_path / "after", lambda record: replace(record, config={**record.config, "lr": 0.5}))
    with pytest.raises(UserError, match="run with the earlier code only"):
        reference.reference([after], out=tmp_path / "reference", before=earlier)


def test_what_is_carried_twice_names_both_codes(before, shipped, tmp_path):
    after = rerun(before, tmp_path / "after")
    last = rerun(before, tmp_path / "last", lambda record: replace(record, source="e" * 64))
    reference.reference([after], out=shipped, before=before)
    reference.reference([last], out=shipped, before=after)
    for cell in reference_records.read(shipped).values():
        assert cell.record.source == "e" * 64
        assert cell.record.carried.count("computed by source") == 2
        assert LATER[:12] in cell.record.carried


def test_a_record_that_is_stale_for_another_reason_stays_so(grid, before, shipped, tmp_path):
    """Its key is not that of its fields and the network at hand."""
    known = list(reference_records.read(shipped).values())
    stale = replace(known[0], record=replace(known[0].record, key="0" * 64))
    reference_records.write([stale, *known[1:]], shipped)
    reference.reference([rerun(before, tmp_path / "after")], out=shipped, before=before)
    found = reference_records.read(shipped)
    assert "0" * 64 in found
    assert found["0" * 64].record.carried is None
    assert len(found.keys() & {replace(cell, source=LATER).key for cell in grid}) == len(grid) - 1


def other_accuracy(name, text):
    head, _, last = text.rpartition(",")
    return f"{head},{float(last) + 1e-6}\n" if name == "accuracy.csv" else text


def under(**conditions):
    return lambda record: replace(record, environment={**record.environment, **conditions})


def without_kernels(record):
    """As records of code that did not tell its kernels."""
    kept = {name: value for name, value in record.environment.items() if name not in CPU_KERNELS}
    return replace(record, environment=kept)


def test_records_that_do_not_tell_their_kernels_can_be_compared(grid, before, shipped, tmp_path):
    source = grid[0].source
    earlier = rerun(before, tmp_path / "earlier", lambda record: replace(without_kernels(record), source=source))
    reference_records.write(reference_records.collect(earlier), shipped)
    reference.reference([rerun(before, tmp_path / "after")], out=shipped, before=earlier)
    assert {cell.record.source for cell in reference_records.read(shipped).values()} == {LATER}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tables": other_accuracy}, r"finetune seed 0: the later code gives other numbers \(accuracy\.csv\)"),
        ({"change": under(device_name="another processor")}, "device_name was .* and is another processor"),
        ({"change": under(threads=2)}, "threads was 1 and is 2"),
        (
            {"change": under(resumed_from=[{"tasks_done": 1, "threads": 2}])},
            "finetune seed 0: resumed under other cond",
        ),
        ({"change": under(cpu_capability="DEFAULT")}, "cpu_capability was .* and is DEFAULT"),
        ({"change": under(mkl="2019.0")}, "mkl was .* and is 2019.0"),
        ({"change": under(kernel_settings="MKL_CBWR=COMPATIBLE")}, "kernel_settings was default and is MKL_CBWR=C"),
        ({"change": lambda record: replace(record, status=reference_records.Status.DIVERGED)}, "done with the earlier"),
        ({"change": lambda record: replace(record, seed=7)}, "run with the earlier code only"),
    ],
    ids=[
        "other numbers",
        "another machine",
        "other threads",
        "other threads in the first task",
        "other kernels",
        "another MKL",
        "MKL told otherwise",
        "another end",
        "no counterpart",
    ],
)
def test_without_the_same_numbers_nothing_is_written(before, shipped, tmp_path, options, said):
    after = rerun(before, tmp_path / "after", **options)
    files = {file: file.read_bytes() for file in shipped.iterdir()}
    with pytest.raises(UserError, match=said):
        reference.reference([after], out=shipped, before=before)
    assert {file: file.read_bytes() for file in shipped.iterdir()} == files


def test_records_of_a_scenario_that_was_not_compared_stay_stale_and_are_counted(before, shipped, tmp_path, capsys):
    shutil.copytree(before / "split-digits" / "til", tmp_path / "b" / "split-digits" / "til")
    after = rerun(tmp_path / "b", tmp_path / "a")
    keys = {cell.record.scenario: cell.record.key for cell in reference_records.read(shipped).values()}
    reference.reference([after], out=shipped, before=tmp_path / "b")
    now = {cell.record.scenario: cell.record.key for cell in reference_records.read(shipped).values()}
    assert now["dil"] == keys["dil"] and now["til"] != keys["til"]
    said = capsys.readouterr().out
    assert "finetune dil: not compared, so 1 records stay stale" in said and "1 reference records carried" in said


def test_a_change_of_the_networks_code_is_carried_too(grid, before, shipped, tmp_path):
    """Records hold the hashes of both codes; the method's own stays the same here."""
    parts = dict.fromkeys(grid[0].parts, LATER)
    after = rerun(before, tmp_path / "after", lambda record: replace(record, source=grid[0].source, parts=parts))
    reference.reference([after], out=shipped, before=before)
    found = reference_records.read(shipped)
    assert found.keys() == {replace(cell, parts=parts).key for cell in grid}
    assert all(cell.record.parts == parts and cell.record.carried for cell in found.values())


def test_records_without_hashes_of_the_networks_code_are_carried(grid, before, shipped, tmp_path):
    known = reference_records.read(shipped).values()
    reference_records.write([replace(cell, record=replace(cell.record, parts={})) for cell in known], shipped)
    reference.reference([rerun(before, tmp_path / "after")], out=shipped, before=before)
    assert reference_records.read(shipped).keys() == {replace(cell, source=LATER).key for cell in grid}


def test_equal_code_shows_nothing(before):
    records = [record for _, record in reference_records.finished(before)]
    with pytest.raises(UserError, match="nothing can be shown"):
        same_numbers.compare(records, records)


@pytest.mark.parametrize("name", ["device_name", "torch", "threads", "steps", "output_layer"])
def test_every_condition_that_may_change_a_number_is_compared(before, name):
    records = [record for _, record in reference_records.finished(before)]
    later = [under(**{name: "another"})(replace(record, source=LATER)) for record in records]
    with pytest.raises(UserError, match=f"{name} was .* and is another"):
        same_numbers.compare(records, later)


@pytest.mark.parametrize("lacking", ["earlier", "later"])
def test_a_table_that_one_of_the_two_lacks_is_a_difference(before, lacking):
    records = [record for _, record in reference_records.finished(before)]
    missing = next(iter(records[0].files))
    fewer = [replace(r, files={name: r.files[name] for name in r.files if name != missing}) for r in records]
    earlier, later = (fewer, records) if lacking == "earlier" else (records, fewer)
    with pytest.raises(UserError, match=rf"other numbers \({re.escape(missing)}\)"):
        same_numbers.compare(earlier, [replace(record, source=LATER) for record in later])
