"""What a cell leaves behind is found, put back and named; what it changes of the shared data is never recorded."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import data
from runners.cell.events import Event, EventKind
from runners.cell.execution import run_cell
from runners.engines.engine import InlineEngine
from runners.engines.local import LocalEngine
from runners.engines.scheduler import run_grid
from runners.grid.cells import Conditions
from runners.process import cpu, known_state, shared_data
from runners.records.folder import CHECKPOINT, CellFolder
from runners.records.record import Status
from tests.runners.helpers import Watching, cells, job, silent, tables
from tests.runners.leaving import SETTINGS

LEAVING = Path(__file__).with_name("leaving.py")


def leaving(name: str, **assignments: str):
    """The cell of a class of leaving.py."""
    label = "".join("-" + c.lower() if c.isupper() else c for c in name).lstrip("-")
    chosen = tuple((label, key, value) for key, value in assignments.items())
    return cells(f"{LEAVING}:{name}", assignments=chosen)[0]


def run(cell, results, engine=None):
    watcher = Watching()
    outcomes = run_grid(cell, results, Conditions(command="test"), engine or InlineEngine(1), watcher)
    return outcomes, [str(event.reason) for _, event in watcher.events if event.kind is EventKind.NOTE]


@pytest.fixture(autouse=True)
def this_process():
    """Whatever a test leaves behind in spite of the code that it tests."""
    cpu.prepare(1)
    before = known_state.Snapshot()
    yield
    before.put_back()
    known_state.taken()
    data._load.cache_clear()


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """What ewc gives where nobody was before."""
    folder = tmp_path_factory.mktemp("clean")
    run(cells("ewc"), folder)
    return tables(folder)


@pytest.mark.parametrize("what", [*SETTINGS])
def test_the_next_cell_finds_every_setting_as_it_was_and_the_method_is_named(tmp_path, clean, what):
    cell, name = leaving("Leaves", what=what), SETTINGS[what][1]
    before = known_state.Snapshot()
    outcomes, notes = run([cell, *cells("ewc")], tmp_path)
    assert [outcome.status for outcome in outcomes] == [Status.DONE] * 2, [outcome.reason for outcome in outcomes]
    assert len(notes) == 1 and notes[0].startswith("leaves left its process changed: ") and name in notes[0]
    assert before.put_back() == known_state.Left()
    assert {path: text for path, text in tables(tmp_path).items() if "/ewc/" in path} == clean
    record = CellFolder(cell.folder(tmp_path)).read()
    assert record is not None and name in record.environment["left_behind"]


def test_methods_of_the_suite_leave_nothing(tmp_path):
    outcomes, notes = run(cells("ewc", "hypermask", "hyperinterval", "intercontinet", "lwf"), tmp_path)
    assert {outcome.status for outcome in outcomes} == {Status.DONE} and not notes


def test_filters_of_warnings_are_put_back_without_a_word(tmp_path):
    """Libraries add theirs when they are imported."""
    outcomes, notes = run([leaving("LeavesWarnings"), *cells("hyperinterval")], tmp_path)
    assert {outcome.status for outcome in outcomes} == {Status.DONE} and not notes


def test_a_worker_in_which_something_was_left_is_replaced(tmp_path):
    engine, processes = LocalEngine(["cpu"], threads=1), []
    watcher = Watching(lambda *_: processes.append(engine.workers[0].process.pid))
    try:
        both = [leaving("Leaves"), *cells("finetune", "ewc")]
        outcomes = run_grid(both, tmp_path, Conditions(command="test"), engine, watcher)
    finally:
        engine.close()
    assert [outcome.status for outcome in outcomes] == [Status.DONE] * 3
    by_cell = [process for (_, event), process in zip(watcher.events, processes, strict=True) if event.task == 4]
    assert by_cell[0] != by_cell[-1] and len(set(by_cell)) == 2


def test_what_cannot_be_put_back_here_ends_the_run_with_a_sentence(tmp_path):
    def in_a_thread() -> None:  # inference mode is a thread's own: this one's stays
        outcomes.extend(run([leaving("LeavesInference"), *cells("ewc")], tmp_path)[0])

    outcomes: list = []
    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join()
    assert [outcome.status for outcome in outcomes] == [Status.DONE, Status.FAILED]
    wanted = "leaves-inference has changed torch's inference mode of this process, which cannot be put back"
    assert str(outcomes[1].reason).startswith(wanted) and "--engine local" in str(outcomes[1].reason)


def test_a_method_that_asks_python_to_end_fails_and_the_run_goes_on(tmp_path):
    outcomes, _ = run([leaving("Exits"), *cells("ewc")], tmp_path)
    assert [outcome.status for outcome in outcomes] == [Status.FAILED, Status.DONE]
    assert outcomes[0].reason == "SystemExit: enough"


def test_a_cell_whose_method_changes_the_directory_is_recorded_where_it_belongs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cell = leaving("Leaves", what="directory")
    assert run_cell(replace(job(cell, Path("results")), folder=Path("results", "a", "b", "c", "seed0")), silent)
    assert CellFolder(tmp_path / "results/a/b/c/seed0").read() is not None and Path.cwd() == tmp_path


# -- shared data ---------------------------------------------------------------------------------

CHANGES = {
    "pixels": "the training images in place (learning task 1)",
    "rows": "the training row numbers in place (learning task 1)",
    "numpy": "the training images in place (by the end of task 1)",
    "data": "the training images in place (learning task 1)",
    "gradients": "the training images in place (learning task 1)",
    "test": "the test images in place (answering after 2 of 5 tasks)",
}


@pytest.mark.parametrize("how", [*CHANGES])
def test_a_cell_that_changes_shared_data_fails_by_name_and_the_next_has_clean_data(tmp_path, clean, how):
    cell = leaving("Poisons", how=how)
    outcomes, _ = run([cell, *cells("ewc")], tmp_path)
    assert outcomes[0].status is Status.FAILED
    reason = str(outcomes[0].reason)
    assert reason.startswith("poisons has changed ") and CHANGES[how] in reason and "work on a copy" in reason
    again, _ = run([cell], tmp_path)
    assert not again[0].cached
    assert {path: text for path, text in tables(tmp_path).items() if "/ewc/" in path} == clean


def test_labels_that_all_tasks_share_are_watched_too():
    """A permuted benchmark gives all tasks the data set's own labels."""
    from benchmarks.catalogue import find
    from benchmarks.stream import Stream

    bench = find("split-digits")
    digits = data.load("digits")
    shared = replace(bench, kind=type(bench.kind).PERMUTED, n_tasks=2, classes_per_task=10, validation=0)
    stream = Stream(shared, replace(bench.spec("dil"), n_tasks=2, classes_per_task=10), 0, digits)
    watch = shared_data.Watch(stream)
    stream.task(0).y[:3] = 0
    assert watch.look() == watch.compare() == shared_data.Change("the training labels", shared=True)


@pytest.mark.parametrize(("benchmark", "shared"), [("split-digits", False), ("permuted-digits", True)])
@pytest.mark.parametrize("how", ["pixels", "numpy"])
def test_only_what_others_have_too_is_loaded_anew(tmp_path, monkeypatch, benchmark, shared, how):
    """Images of a split benchmark's task are its own: the data set's tensors stay as they were."""
    from runners.process import guard

    renewed: list[object] = []
    monkeypatch.setattr(guard, "renew", lambda stream: renewed.append(stream) or shared_data.renew(stream))
    before = data.load("digits").train_images
    sums = shared_data.checksum(before)
    (cell,) = cells(f"{LEAVING}:Poisons", benchmark=benchmark, assignments=(("poisons", "how", how),))
    outcomes, _ = run([cell], tmp_path)
    assert outcomes[0].status is Status.FAILED and "the training images in place" in str(outcomes[0].reason)
    assert bool(renewed) == shared
    if not shared:
        assert data.load("digits").train_images is before and shared_data.checksum(before) == sums


def test_labels_and_validation_images_of_a_task_are_watched_until_it_was_judged():
    from benchmarks.catalogue import find
    from benchmarks.stream import open_stream

    stream = open_stream(find("split-digits"), "til", 0)
    watch = shared_data.Watch(stream)
    for change, name in (
        (lambda task: task.train.labels.fill_(0), "the training labels"),
        (lambda task: task.validation.pixels.zero_(), "the validation images"),
        (lambda task: task.validation.labels.numpy().fill(1), "the validation labels"),
        (lambda task: task.previous[0].train.pixels.zero_(), "the training images of task 0"),
    ):
        task = stream.task(1, previous=True)
        watch.lend(task)
        assert watch.look() is None
        change(task)
        assert watch.compare() == shared_data.Change(name, shared=False)
        assert watch.look() is watch.compare() is None, "what is no longer lent may be changed"


def test_a_cell_that_changes_data_and_diverges_is_no_result(tmp_path):
    cell = leaving("PoisonsAndDiverges")
    outcomes, _ = run([cell], tmp_path)
    assert outcomes[0].status is Status.FAILED and "has changed the training images" in str(outcomes[0].reason)


def test_no_checkpoint_is_written_of_what_was_learnt_from_changed_data(tmp_path):
    cell = leaving("Poisons", how="numpy")
    assert run_cell(job(cell, tmp_path), silent) is Status.FAILED
    heard: list[Event] = []
    run_cell(job(cell, tmp_path), heard.append)
    assert (cell.folder(tmp_path) / CHECKPOINT).exists()
    assert "resumed after task 1 of 5" in [event.reason for event in heard]


def test_the_checksum_depends_on_every_byte_and_its_place():
    for n in (5, 8, 64, (1 << 23) + 3):
        content = torch.randint(0, 256, (n,), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))
        content[0], content[-1] = 1, 2
        first = shared_data.checksum(content)
        assert first == shared_data.checksum(content.clone())
        assert first != shared_data.checksum(content.flip(0)) and first != shared_data.checksum(content[:-1])
        for place in (0, n // 2, n - 1):
            other = content.clone()
            other[place] += 1
            assert first != shared_data.checksum(other)
    rows = torch.arange(64, dtype=torch.int64)
    swapped = rows.clone()
    swapped[[3, 40]] = rows[[40, 3]]
    assert shared_data.checksum(rows) != shared_data.checksum(swapped)


def test_records_are_those_of_before(tmp_path, clean):
    """Nothing that a cell runs under is changed by taking a look."""
    before = known_state.Snapshot()
    before.put_back()
    run(cells("ewc"), tmp_path)
    assert tables(tmp_path) == clean
