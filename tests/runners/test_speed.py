"""The measurement of speed measures every phase of the first, middle and last task."""

import csv
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from typer import testing

from benchmarks import catalogue
from benchmarks.samples import Samples
from benchmarks.types import CIL, TIL, UserError
from methods.base import STEPS_BETWEEN_CHECKS
from runners import speed
from runners.timing import by_hand, official
from runners.timing.made_up import SAMPLES
from runners.timing.measure import measure, opened
from runners.timing.rounds import ROUNDS, WARM_UP, Order, rounds
from runners.timing.table import compare, machines, rows, table

from .helpers import ROOT


class Operations(TorchDispatchMode):
    """Counts PyTorch's operations, those of the backward pass too."""

    number = 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def an_operation_a_second(monkeypatch):
    """A clock that no other process disturbs: it ticks with PyTorch's operations."""
    with Operations() as operations:
        monkeypatch.setattr(by_hand, "now", lambda device: operations.number)
        yield


@pytest.mark.usefixtures("an_operation_a_second")
@pytest.mark.parametrize(("method", "phases", "has_floor"), [("finetune", 1, False), ("hyperinterval", 1, True)])
def test_rows(method, phases, has_floor):
    settings = {"hidden": [10]} if method == "hyperinterval" else {}
    found = rows(measure(Order(method, "split-digits", TIL, "cpu", 1, 2, None, None, settings)))
    assert [(row["task"], row["phase"]) for row in found] == [(t, p) for t in (0, 2, 4) for p in range(phases)]
    for row in found:
        assert row["ms_per_step"] > 0 and row["over_plain_loop"] > 0
        assert row["steps"] == "step by step" and row["ms_one_by_one"] is None
        assert row["output_layer"] in (("compiled", "torch_passes") if has_floor else (None,))
        assert (row["over_floor"] is not None) == has_floor
        assert row["over_same_by_hand"] is None
    if has_floor:  # W has a row of 10 weights and no bias for each of the target's 64-100-100-2 weights
        assert found[0]["output_weights"] == 10 * (64 * 100 + 100 + 100 * 100 + 100 + 2 * 100 + 2)


KERNELS = "triton_passes" if find_spec("triton") else "torch_passes"


@pytest.mark.parametrize(("method", "layer"), [("finetune", None), ("hyperinterval", KERNELS)])
def test_on_a_gpu_it_says_what_was_captured_what_that_gains_and_whose_kernels_ran(method, layer, device):
    settings = {"hidden": [10]} if method == "hyperinterval" else {}
    result = measure(Order(method, "split-digits", TIL, "cuda", 1, 2, None, None, settings, seen=(0, 2)))
    for row in rows(result):
        assert row["steps"] == "captured" and row["ms_one_by_one"] > 0
        assert (row["output_layer"], row["device"]) == (layer, "pretended")
        assert (row["floor_ms"] is None) == (layer is None)
    assert machines([result]).startswith(f"pretended, torch {torch.__version__}, 1 thread of the host; a copy moves ")


def test_what_was_measured_is_printed_in_as_many_columns_as_have_something_to_say():
    [row] = rows(measure(Order("finetune", "split-digits", TIL, "cpu", 1, 1, None, None, seen=(0,))))
    compare([row])
    shown = [str(column.header) for column in table([row]).columns]
    assert "ms per step" in shown and not {"steps", "ms one by one", "floor ms", "ours faster"} & set(shown)
    captured = {**row, "steps": "captured", "ms_one_by_one": 3.0}
    assert {"steps", "ms one by one"} <= {str(column.header) for column in table([row, captured]).columns}


@pytest.mark.usefixtures("an_operation_a_second")
def test_ewc_has_a_loop_of_its_own_kind_to_be_compared_with():
    """It has a penalty for each old task and each parameter, so it costs more than finetuning's loop."""
    found = rows(measure(Order("ewc", "split-digits", TIL, "cpu", 1, 1, None, None, seen=(0, 9))))
    first, last = (row["over_same_by_hand"] / row["over_plain_loop"] for row in found)
    assert 0 < 2 * last < first == 1


def test_a_split_benchmark_is_lengthened_for_timing():
    """Split Digits has 5 tasks; the eighth has the third's samples, under its own index."""
    order = Order("finetune", "split-digits", TIL, "cpu", 1, 1, None, None, seen=(0, 7))
    stream = opened(order)
    assert len(stream) == stream.spec.n_tasks == 8
    eighth, third = stream.task(7, previous=True), opened(order).task(2)
    assert (eighth.index, eighth.train.batch(slice(2)).task, len(eighth.previous)) == (7, 7, 7)
    assert torch.equal(eighth.x, third.x) and torch.equal(eighth.y, third.y)
    with pytest.raises(UserError, match="only split benchmarks in til and dil"):
        opened(Order("finetune", "split-digits", CIL, "cpu", 1, 1, None, None, seen=(7,)))


def test_steps_after_a_chosen_number_of_tasks():
    found = rows(measure(Order("finetune", "split-digits", TIL, "cpu", 1, 2, None, None, seen=(1, 6))))
    assert [row["task"] for row in found] == [1, 6]
    assert all(row["cpu_ms_per_step"] > 0 and row["growth"] is None for row in found)


def test_other_programs_are_compared_with_our_row_of_the_same_task_and_phase():
    def row(method, task, ms, phase=0):
        return {"benchmark": "b", "scenario": "til", "method": method, "task": task, "phase": phase, "ms_per_step": ms}

    found = [
        row("hyperinterval", 0, 10.0), row("hyperinterval", 4, 20.0), row("hyperinterval (official)", 4, 300.0),
        row("hyperinterval (official)", 9, 400.0), row("ewc", 4, 2.0, "epoch"), row("avalanche:EWC", 4, 6.0, "epoch"),
        row("avalanche:EWC (PIL)", 4, 9.0, "epoch"), row("avalanche:EWC", 4, 9.0),
        row("hyperinterval (official)", 0, 0.3),
    ]  # fmt: skip
    compare(found)
    assert [entry["ours_faster"] for entry in found] == [None, None, 15.0, None, None, 3.0, 4.5, None, 0.03]


def test_an_epoch_has_the_fisher_pass_in_it_and_avalanches_beside_it():
    pytest.importorskip("avalanche")
    order = Order("ewc", "split-digits", TIL, "cpu", 1, 1, None, None, {"fisher_samples": None}, (0, 1), epochs=True)
    theirs = replace(order, method="avalanche:EWC", settings={})
    found = [row for one in (order, theirs) for row in rows(measure(one))]
    assert [(row["method"], row["task"], row["phase"]) for row in found] == [
        (method, task, "epoch") for method in ("ewc", "avalanche:EWC") for task in (0, 1)
    ]
    for row in found:
        assert row["seconds_per_epoch"] == pytest.approx(8 * row["ms_per_step"] / 1000, abs=1e-3)  # 256 images of 32


def test_avalanche_sees_the_same_samples_as_pil_images_and_as_tensors():
    pytest.importorskip("avalanche")
    from benchmarks.avalanche import dataset_of
    from runners.timing.pictures import data_set

    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (6, 1, 4, 4), dtype=torch.uint8, generator=rng)
    samples = Samples(pixels, torch.tensor([5, 0, 3]), torch.tensor([1, 0, 1]), 2, transform=None)
    for (x, y, t), (x_, y_, t_) in zip(data_set(samples, 2), dataset_of(samples, 2), strict=True):
        assert torch.equal(x, x_) and (y, t) == (y_, t_)
    with pytest.raises(UserError, match="plain 8-bit images"):
        data_set(replace(samples, transform=lambda x, task: x), 2)
    with pytest.raises(UserError, match="only methods of Avalanche"):
        measure(Order("finetune", "split-digits", TIL, "cpu", 1, 1, None, None, pictures=True))


def test_a_profile_names_the_operations_of_a_step():
    order = Order("finetune", "split-digits", TIL, "cpu", 1, 1, None, None, seen=(0,), profile=True)
    (timing,) = measure(order).timings
    products = [part for part in timing.profile if part.name in ("aten::mm", "aten::addmm")]
    assert {part.name for part in products} == {"aten::mm", "aten::addmm"}
    assert products[0].calls >= 3 and 0 < sum(part.share for part in timing.profile) <= 1 + 1e-9


@pytest.fixture
def here(monkeypatch):
    """Orders measured in this process, with a plain loop of one step and no copies for the bandwidth; lists them."""
    orders = []

    def apart(order):
        orders.append(order)
        return measure(order)

    monkeypatch.setattr(speed, "_apart", apart)
    monkeypatch.setattr(by_hand, "STEPS_AT_LEAST", 1)
    monkeypatch.setattr("runners.timing.measure.copy_bandwidth", lambda device: 1e9)
    return orders


def call(*arguments) -> str:
    tiny = ["--random-images", "--tasks-seen", "1", "--steps", "1", "--threads", "1"]
    done = testing.CliRunner().invoke(speed.app, [*arguments, *tiny], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_group_times_masks_next_to_a_plain_step_by_their_suites_settings(here, tmp_path):
    """Without data. PackNet has two phases: training, and training again after pruning."""
    files = ["--csv", str(tmp_path / "csv"), "--profile", str(tmp_path / "profile.md")]
    call("--group", "masks", "--benchmarks", "permuted-mnist-10-wsn", *files)
    with (tmp_path / "csv").open() as table:
        found = list(csv.DictReader(table))
    methods = ["finetune", "packnet", "packnet", "supsup", "wsn", "hat"]
    assert [(row["method"], row["phase"]) for row in found] == list(zip(methods, "001000", strict=True))
    assert all(float(row["over_plain_loop"]) > 0 for row in found)
    settings = {order.method: order.settings for order in here}
    assert settings["wsn"]["capacity"] == 0.5 and settings["packnet"]["biases"] == "none"
    headings = [line for line in (tmp_path / "profile.md").read_text().splitlines() if line.startswith("## ")]
    assert headings == [f"## {name} on permuted-mnist-10-wsn, til, task 1" for name in dict.fromkeys(methods)]


def test_the_group_has_wsns_large_network_too(here):
    call("--group", "masks", "--methods", "wsn")
    small, large = here
    assert (small.benchmark, large.benchmark) == ("permuted-mnist-10-wsn", "split-cifar-100-wsn-shuffled")
    networks = [opened(order).spec.network for order in here]
    assert networks == ["mlp-100-100-nobias", "alexnet-hat-norm"]


def test_a_method_that_skips_a_network_is_not_timed_there(here):
    """HAT needs a network without norms; the others are timed all the same."""
    output = call("--group", "masks", "--methods", "finetune,hat")
    assert [(order.method, opened(order).spec.network) for order in here] == [
        ("finetune", "mlp-100-100-nobias"),
        ("hat", "mlp-100-100-nobias"),
        ("finetune", "alexnet-hat-norm"),
    ]
    assert "not timed: hat" in output


@pytest.mark.parametrize("name", ["split-mnist", "permuted-mnist-10", "split-cifar-100-superclass", "cifar-mini"])
def test_random_images_make_every_task_of_the_benchmarks_shape(name):
    """Each task has its validation images and training images of all its classes, so that no batch is repeated."""
    order = Order("finetune", name, TIL, "cpu", 1, 1, None, None, random_images=True)
    stream, benchmark = opened(order), catalogue.find(name)
    for task in (stream.task(0), stream.task(len(stream) - 1)):
        assert len(task.validation) == benchmark.validation and len(task.train) >= SAMPLES
        assert task.x.shape[1:] == benchmark.input_shape and len(task.y.unique()) == benchmark.classes_per_task


def test_an_unknown_group_is_answered_with_those_there_are():
    answer = testing.CliRunner().invoke(speed.app, ["--group", "mask"]).exception
    assert str(answer) == "--group mask: there is no such group. Did you mean masks? Groups: masks"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--epochs", "--profile", "p.md"], "--profile shows the operations of a step; leave --epochs out"),
        (["--methods", "ewc", "--set", "ewcc.lr=1"], "--set ewcc.lr: ewcc is not among the methods to time, ewc"),
        (["--tasks-seen", "a"], "--tasks-seen a: write numbers of old tasks with commas, from 0: 0,4,9"),
        (["--tasks-seen", "0,-3"], "--tasks-seen 0,-3: write numbers of old tasks with commas, from 0: 0,4,9"),
        (["--tasks-seen", ","], "',' contains no names; write names separated by commas"),
        (["--csv", "."], "--csv .: this is no file that can be written; name another one"),
        (["--csv", f"{__file__}/t.csv"], f"the folder {__file__} cannot be written: "),
        (["--profile", f"{__file__}/p.md"], f"the folder {__file__} cannot be written: "),
        (["--methods", "finetune,nix"], "unknown method 'nix'."),
        (["--benchmarks", "split-digits,nix"], "unknown benchmark 'nix'."),
        (["--methods", "ewc", "--set", "ewc.lr=x"], "ewc.lr = 'x': permitted is a number"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is(arguments, sentence, monkeypatch):
    monkeypatch.setattr(speed, "_apart", lambda order: pytest.fail("something is measured"))
    answer = testing.CliRunner().invoke(speed.app, arguments).exception
    assert isinstance(answer, UserError) and str(answer).startswith(sentence)


@pytest.mark.parametrize("arguments", [["--threads", "0"], ["--threads", "3000000000"], ["--tasks", "0"]])
def test_numbers_out_of_range_are_said_before_anything_is_measured(arguments, monkeypatch):
    monkeypatch.setattr(speed, "_apart", lambda order: pytest.fail("something is measured"))
    answer = testing.CliRunner().invoke(speed.app, arguments)
    assert answer.exit_code == 2 and f"Invalid value for '{arguments[0]}'" in answer.output


def test_a_file_that_cannot_be_written_after_all_is_said_below_the_table(here):
    tiny = ["--methods", "finetune", "--random-images", "--tasks-seen", "0", "--steps", "1", "--threads", "1"]
    answer = testing.CliRunner().invoke(speed.app, [*tiny, "--csv", "/dev/full"])
    assert str(answer.exception).startswith("/dev/full cannot be written: No space left on device")
    assert "ms per step" in " ".join(answer.output.split())


def test_what_happens_once_in_a_call_is_no_part_of_a_step(monkeypatch):
    """Training begins with the order of the samples, and on CUDA with a capture; both are paid once, not by round."""
    clock, calls = [0.0], []
    monkeypatch.setattr(by_hand, "now", lambda device: clock[0])

    def run(first, steps, every, on_check):
        calls.append((first, steps, every))
        clock[0] += 1000.0
        for i in range(steps):
            clock[0] += 50.0 if i < 2 else 1.0
            if (i + 1) % every == 0:
                on_check()

    order = Order("finetune", "split-digits", TIL, "cpu", 1, 20, None, None)
    timing = rounds(run, order, 3, 0, torch.device("cpu"))
    assert (timing.task, timing.phase, timing.seconds) == (3, 0, 1.0)
    assert calls == [(0, 24, 4)]


@pytest.mark.parametrize(("ordered", "timed"), [(1, 1), (4, 4), (5, 5), (7, 10), (24, 25)])
def test_no_fewer_steps_are_timed_than_ordered(ordered, timed):
    marks = []

    def run(first, steps, every, on_check):
        for step in range(every, steps + 1, every):
            marks.append(step)
            on_check()

    rounds(run, Order("finetune", "split-digits", TIL, "cpu", 1, ordered, None, None), 0, 0, torch.device("cpu"))
    first = next(step for step in marks if step >= WARM_UP["cpu"])
    assert marks[-1] - first == timed


def test_on_cuda_a_round_is_as_long_as_training_runs_between_two_checks():
    """A check waits for the device; in shorter rounds that would count for more than it does in training."""
    assert speed.STEPS["cuda"] == ROUNDS * STEPS_BETWEEN_CHECKS


CHECKOUT_FILES = {
    "hyperinterval": "IntervalNets/interval_MLP.py",
    "hypermask": "FeCAM.py",
    "intercontinet": "intervalnet/models/interval.py",
}


@pytest.mark.parametrize("method", CHECKOUT_FILES)
def test_a_checkout_is_known_by_its_files(method, tmp_path):
    file = tmp_path / CHECKOUT_FILES[method]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    assert official.method_of(tmp_path) == method
    args = ["--methods", "finetune", "--official", str(tmp_path)]
    with pytest.raises(UserError, match=f"{method} is not among the methods to time"):
        testing.CliRunner().invoke(speed.app, args, catch_exceptions=False)


@pytest.mark.slow
def test_the_official_intercontinet_is_called_in_its_order(tmp_path):
    """Centres, then contraction; from the second task on it is frozen first, and shifts take the centres' place."""
    pytest.importorskip("avalanche")
    file = tmp_path / CHECKOUT_FILES["intercontinet"]
    file.parent.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("official_intercontinet.py"), file)
    args = "--suite quick --methods intercontinet --benchmarks split-digits --tasks-seen 0,4 --steps 2 --threads 1"
    files = ["--official", str(tmp_path), "--csv", str(tmp_path / "csv")]
    done = subprocess.run(
        [sys.executable, "runners/speed.py", *args.split(), *files],
        env={**os.environ, "NOTES": str(tmp_path / "notes")}, cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "colours" not in done.stdout
    first, *notes = (tmp_path / "notes").read_text().splitlines()
    settings = ["bias", "max_radius", "normalize_scale", "normalize_shift", "radius_multiplier", "scale_init"]
    assert first == f"built 64 100 2 5 {settings}"
    runs = [(name, sum(1 for _ in group)) for name, group in groupby(line for line in notes if line != "clamped")]
    assert [name for name, _ in runs] == [
        "forward VANILLA head 0", "forward CONTRACTION_SCALE head 0",
        "froze in CONTRACTION_SHIFT", "forward CONTRACTION_SHIFT head 4", "forward CONTRACTION_SCALE head 4",
    ]  # fmt: skip
    assert notes.count("clamped") == sum(number for name, number in runs if name.startswith("forward")) == 4 * 4
    with (tmp_path / "csv").open() as table:
        found = list(csv.DictReader(table))
    assert [(row["method"], row["task"], row["phase"]) for row in found] == [
        (name, task, phase)
        for name in ("intercontinet", "intercontinet (official)") for task in "04" for phase in "01"
    ]  # fmt: skip
    ours, theirs = ([float(row["ms_per_step"]) for row in half] for half in (found[:4], found[4:]))
    wanted = [pytest.approx(their / our, rel=0.005) for our, their in zip(ours, theirs, strict=True)]
    assert [float(row["ours_faster"]) for row in found[4:]] == wanted


def test_a_folder_that_is_no_checkout_is_named(tmp_path):
    order = Order("hyperinterval", "split-digits", TIL, "cpu", 1, 1, None, None, official=tmp_path)
    with pytest.raises(UserError, match="no checkout"):
        measure(order)
