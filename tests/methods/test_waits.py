"""The line at which the host waits for a GPU is found; on a pretended one, whose waits warn as torch's do."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from benchmarks.types import TIL
from methods.base import Method
from methods.shared import stepping
from methods.shared.waits import first_wait, sync_debug
from tests.methods.helpers import learn, opened
from tests.pretended import pretended

HERE = "methods/test_waits.py"


@pytest.fixture
def device():
    stepping._stream.cache_clear()
    with pretended() as found:
        yield found
    stepping._stream.cache_clear()


def test_setting_the_mode_raises_no_warning_and_it_is_put_back(device):
    """Under pytest warnings are errors; the mode warns of itself."""
    with sync_debug("error"):
        with pytest.raises(RuntimeError, match="synchronizing"):
            float(torch.ones((), device="cuda"))
        with pytest.raises(ValueError), sync_debug("warn"):
            raise ValueError
        assert device.sync_debug_mode == "error"
    assert device.sync_debug_mode == "default"


def read_by_torch(x: torch.Tensor) -> None:
    torch.unique(x)  # the wait is in torch's code, the line is ours


def test_the_first_line_that_waits_is_told(device):
    x = torch.ones(3, device="cuda")

    def body() -> None:
        x.add_(1)
        read_by_torch(x)
        x.sum().item()

    assert first_wait(body) == f"{HERE}:{read_by_torch.__code__.co_firstlineno + 1}"
    assert first_wait(lambda: x.add_(1)) is None
    assert device.sync_debug_mode == "default" and float(x[0]) == 3


def test_other_warnings_stay_what_they_were(device):
    with pytest.raises(UserWarning, match="another"):
        first_wait(lambda: warnings.warn("another", stacklevel=1))
    with pytest.warns(UserWarning, match="another"):
        first_wait(lambda: warnings.warn("another", stacklevel=1))
    assert device.sync_debug_mode == "default"


class Waiting(Method):
    """Says that its steps may be captured, and reads its loss on the host where it is told to."""

    name = "waiting"
    capturable = True
    waits = True

    def build(self) -> None:
        self.net = self.network()

    def learn(self, task) -> None:
        def loss(batch):
            value = torch.nn.functional.cross_entropy(self.answerable(self.net(batch.x), batch.task), batch.y)
            if self.waits:
                value.item()
            return value

        self.fit(task, loss, self.net.parameters(), check_every=5)

    def predict(self, x, task_id=None):
        return self.answerable(self.net(x), task_id)


def learned(monkeypatch, waits: bool) -> tuple[Method, list[str]]:
    """A method trained with the recorder of a GPU, and what was captured."""
    captured: list[str] = []

    def record(self, body):
        captured.append("a step")
        return body

    monkeypatch.setattr(stepping.CudaRecorder, "__call__", record)
    monkeypatch.delenv("CONTINUAL_GRAPHS", raising=False)
    stream = opened(TIL, device="cuda")
    method = type("Other", (Waiting,), {"waits": waits})(stream.spec, device="cuda")
    learn(method, stream, [0])
    return method, captured


def test_a_step_that_waits_is_found_before_anything_is_captured(device, monkeypatch, caplog):
    method, captured = learned(monkeypatch, waits=True)
    line = next(n for n, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "value.item()" in text)
    assert method.stepped == f"step by step: the host waits for the device at {HERE}:{line}"
    assert method.stepped.removeprefix("step by step: ") in caplog.text
    assert not captured


def test_a_step_that_does_not_wait_is_captured(device, monkeypatch):
    method, captured = learned(monkeypatch, waits=False)
    assert method.stepped == "captured" and captured == ["a step"]


def test_all_captures_of_a_device_share_a_stream(device, monkeypatch):
    """cuBLAS keeps a workspace for every stream that it has met."""
    made = []

    class Counted(torch.cuda.Stream):
        def __init__(self, index) -> None:
            made.append(index)

    monkeypatch.setattr(torch.cuda, "Stream", Counted)
    streams = {id(stepping.CudaRecorder(torch.device(name)).stream) for name in ("cuda", "cuda:0", "cuda:0", "cuda:1")}
    assert made == [0, 1] and len(streams) == 2
