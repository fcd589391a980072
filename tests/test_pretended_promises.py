"""What the suite promises of a GPU beside its methods' good behaviour, on a pretended one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from torch.nn.functional import cross_entropy

from benchmarks.types import CIL, TIL, Scenario
from methods import registry
from methods.base import Method
from runners.cell.execution import run_cell
from runners.conformance import conform
from runners.records.folder import CellFolder
from runners.records.record import Status
from tests.methods.helpers import CASES, learn, opened
from tests.pretended import Device, pretended
from tests.pretended.cells import cell_of, install_benchmarks, job_of, lived
from tests.pretended.phases import STEPS
from tests.runners.helpers import compare_here, silent, tables


class Waiting(Method):
    """Says that its steps may be captured, and looks at its loss on the host."""

    name = "waiting"
    supports = frozenset({TIL})
    capturable = True

    def build(self) -> None:
        self.net = self.network()

    def learn(self, task) -> None:
        def loss(batch):
            value = cross_entropy(self.answerable(self.net(batch.x), batch.task), batch.y)
            return value if float(value.detach()) > 0 else 2 * value

        self.fit(task, loss, self.net.parameters())

    def predict(self, x, task_id=None):
        return self.answerable(self.net(x), task_id)


def test_a_cell_may_be_the_first_that_asks_for_cuda(tmp_path, monkeypatch):
    """The allocator that is to count a cell's memory is there only once CUDA is initialised."""
    install_benchmarks(monkeypatch)
    with pretended() as device:
        assert not device.initialised
        assert run_cell(job_of(cell_of("finetune", TIL), tmp_path), silent) is Status.DONE


def test_a_step_that_waits_is_found_before_it_is_captured(device):
    """A capture that failed leaves a process in which nothing of CUDA works any more."""
    stream = opened(TIL, device="cuda")
    method = Waiting(stream.spec, device="cuda")
    learn(method, stream, [0, 1])
    assert not device.spoilt and method.stepped.startswith("step by step: ")
    assert "test_pretended_promises.py" in method.stepped


def test_all_that_a_process_captures_is_captured_on_one_stream(device, tmp_path, monkeypatch):
    """For every stream that it meets cuBLAS keeps a workspace for ever."""
    lived(cell_of("intercontinet", TIL), device, tmp_path, monkeypatch)
    assert device.streams <= 1


@pytest.mark.parametrize("chunk", [50, 500])
def test_the_record_names_the_passes_that_ran(chunk, device, passes_that_ran, tmp_path, monkeypatch):
    """More than 32 chunks of 50 weights; whether Triton's kernels take so many is theirs to say."""
    life = lived(cell_of("hnet", TIL, chunk=chunk), device, tmp_path, monkeypatch, pause=False)
    assert life.record.environment["output_layer"] == ", ".join(sorted(+passes_that_ran))


def test_a_known_share_of_a_mask_is_cut_without_sorting(device, tmp_path, monkeypatch):
    lived(cell_of("hypermask", TIL, adaptive_sparsity=False), device, tmp_path, monkeypatch)
    assert device.kernels[STEPS, "topk"] and not device.kernels[STEPS, "sort"]


EQUAL = [("hyperinterval", CIL), ("intercontinet", TIL)]


@pytest.mark.parametrize(
    ("name", "scenario"),
    [*EQUAL, *(pytest.param(*case, marks=pytest.mark.slow) for case in CASES if case not in EQUAL)],
)
def test_captured_and_paused_a_cell_ends_in_the_same_numbers_as_step_by_step(
    name: str, scenario: Scenario, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay runs operations on tensors that do not move; the checkpoint goes over the host."""
    cell = cell_of(name, scenario)
    lived(cell, device, tmp_path / "captured", monkeypatch)
    monkeypatch.setenv("CONTINUAL_GRAPHS", "0")
    run_cell(job_of(cell, tmp_path / "one by one"), silent)
    assert len(found := tables(tmp_path / "captured")) >= 2
    assert found == tables(tmp_path / "one by one")


def test_the_command_compares_on_a_gpu(device, tmp_path):
    code, printed = compare_here(
        tmp_path, device="cuda", methods=("finetune", "hyperinterval"), benchmarks=("split-digits",), seeds=1,
        scenarios=(TIL,),
    )  # fmt: skip
    assert code == 0, printed
    records = [CellFolder(file.parent).read() for file in sorted(tmp_path.rglob("cell.json"))]
    assert [record and (record.method, record.environment["device"]) for record in records] == [
        ("finetune", "cuda:0"), ("hyperinterval", "cuda:0")
    ]  # fmt: skip


def test_a_trial_of_tuning_is_judged_on_a_gpu(device, tmp_path, monkeypatch):
    trial = replace(cell_of("finetune", TIL), judged_on="validation")
    assert lived(trial, device, tmp_path, monkeypatch).record.status is Status.DONE


@pytest.mark.slow
def test_the_check_of_a_method_counts_its_waits(device):
    assert not conform(registry.load("finetune"), [TIL], device="cuda", with_fields=False)
    [finding] = conform(Waiting, [TIL], device="cuda", with_fields=False)
    assert finding.check == "waiting" and "1.0 times in every step" in str(finding)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", [TIL, CIL])
@pytest.mark.parametrize("name", ["EWC", "GEM", "Replay", "AGEM"])
def test_strategies_of_avalanche_mix_no_devices(name, scenario, device, tmp_path, monkeypatch):
    """They wait as often as they like; where, the log of this test says."""
    pytest.importorskip("avalanche")
    life = lived(cell_of(f"avalanche:{name}", scenario), device, tmp_path, monkeypatch, pause=False)
    assert life.record.status is Status.DONE
