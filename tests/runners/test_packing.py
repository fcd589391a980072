from __future__ import annotations

from dataclasses import replace

from runners.engines.local import LocalEngine
from runners.engines.packing import MARGIN, Packer
from runners.engines.scheduler import run_grid
from runners.grid.cells import Cell
from runners.records.record import Status
from tests.runners.helpers import Watching, cells, foreign, job


def some(n: int = 3) -> list[Cell]:
    return cells("finetune", seeds=n)


def a_packer(capacity: int = 1000, overhead: int = 100) -> Packer:
    return Packer({"cuda:0": capacity, "cuda:1": capacity}, 2 * ["cuda:0", "cuda:1"], overhead)


def test_a_kind_that_was_never_measured_runs_alone():
    packer, (first, second, _) = a_packer(), some()
    packer.take("cuda:0", 0, first)
    assert not packer.fits("cuda:0", 1, second) and packer.fits("cuda:1", 1, second)
    packer.release("cuda:0", 0)
    assert packer.fits("cuda:0", 1, second)


def test_measured_cells_share_a_device_up_to_its_memory():
    packer, seeds = a_packer(capacity=1000), some()
    packer.note(seeds[0], 250)
    assert packer.expected(1, seeds[1]) == round(MARGIN * 250)
    for index in (0, 1):
        assert packer.fits("cuda:0", index, seeds[index])
        packer.take("cuda:0", index, seeds[index])
    assert not packer.fits("cuda:0", 2, seeds[2])


def test_only_cells_that_differ_in_the_seed_alone_are_alike():
    packer, [cell] = a_packer(), some(1)
    packer.note(cell, 250)
    for changed in ({"config": {"lr": 0.5}}, {"network": "mlp-10"}, {"budget": replace(cell.budget, batch_size=64)}):
        assert packer.expected(0, replace(cell, **changed)) is None
    assert packer.expected(0, replace(cell, seed=9)) is not None


def test_an_unknown_cell_is_never_joined():
    packer, (first, second, _) = a_packer(), some()
    [other] = cells("joint")
    packer.take("cuda:0", 0, other)
    packer.note(first, 10)
    assert not packer.fits("cuda:0", 1, second)


def test_records_of_earlier_runs_count(tmp_path):
    import json

    from runners.cell.execution import run_cell
    from tests.runners.helpers import silent

    cell, other = some(2)
    run_cell(job(cell, tmp_path), silent)
    file = cell.folder(tmp_path) / "cell.json"
    body = json.loads(file.read_text())
    file.write_text(json.dumps({**body, "memory_bytes": {"peak_rss": 1, "peak_device": 500}}))
    packer = a_packer()
    packer.note_records(tmp_path)
    assert packer.expected(1, other) == 600


def test_a_process_takes_its_memory_between_cells_too():
    """Four processes leave 600 of 1000 bytes: two cells of 300 exceed 95 % of that."""
    for workers, fits in ((1, True), (4, False)):
        packer, (first, second, _) = Packer({"cuda:0": 1000}, workers * ["cuda:0"], overhead=100), some()
        packer.note(first, 250)
        packer.take("cuda:0", 0, first)
        assert packer.fits("cuda:0", 1, second) == fits


def together(results, capacity: int) -> int:
    """The most cells that the engine had in hand at once, on one device of `capacity` bytes."""
    engine = LocalEngine(["cpu", "cpu"], threads=1, packer=Packer({"cpu": capacity}, ["cpu", "cpu"], overhead=0))
    seen = []
    watcher = Watching(lambda *_: seen.append(sum(worker.job is not None for worker in engine.workers)))
    from runners.grid.cells import Conditions

    try:
        outcomes = run_grid(cells(foreign("Good"), seeds=4), results, Conditions(command="test"), engine, watcher)
    finally:
        engine.close()
    assert {outcome.status for outcome in outcomes} == {Status.DONE}
    return max(seen)


def test_the_engine_keeps_to_what_was_measured(tmp_path):
    assert together(tmp_path / "small", capacity=1 << 20) == 1
    assert together(tmp_path / "large", capacity=1 << 40) == 2
