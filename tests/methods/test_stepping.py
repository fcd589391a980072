"""Steps recorded once and replayed give what steps one by one give; and nothing in them waits for the device.

Without a GPU a recording is made on the CPU: every operation under autograd with the very tensors it read and wrote.
Replaying repeats those operations on those tensors and runs no Python of the method, as a CUDA graph does.
"""

import pickle

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from benchmarks.types import TIL
from methods import registry
from methods.base import Method
from methods.hypernetworks import compiled, look_ahead, output_layer, torch_passes
from methods.intercontinet import InterContiNet
from methods.intervals import compiled_rounding, compiled_scales
from methods.shared import masks, stepping, topk
from methods.shared.waits import sync_debug
from tests.methods.helpers import CASES, answers, learn, made, opened

WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2", "bincount"}
"""Operations whose result the host needs, or whose result's shape."""
FROM_HOST = {"lift_fresh", "lift_fresh_copy"}
"""torch.tensor(number): on a GPU a copy from the host, unless all that it serves is to fill a tensor, as in `x[3:] = 0`
(so in PyTorch 2.11): a fill takes the number itself."""
on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


class Recording(TorchDispatchMode):
    """Keeps every operation with its arguments and results."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self.operations.append((func, args, kwargs, result))
        return result

    def waits(self) -> set[str]:
        return {self._name(at) for at in range(len(self.operations))} & (WAITS | FROM_HOST)

    def _name(self, at: int) -> str:
        func, _, _, result = self.operations[at]
        name = func.overloadpacket.__name__
        if name not in FROM_HOST:
            return name
        users = {
            later.overloadpacket.__name__
            for later, args, kwargs, _ in self.operations[at + 1 :]
            if any(given is result for given in tree_flatten((args, kwargs))[0])
        }
        return "fill_" if users == {"fill_"} else name

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, recorded in self.operations:
            again = func(*args, **kwargs)
            for old, new in zip(tree_flatten(recorded)[0], tree_flatten(again)[0], strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def state_of(method: Method):
    return [tensor.clone() for tensor in tree_flatten(method.state_dict())[0] if isinstance(tensor, torch.Tensor)]


@pytest.fixture
def replayed(monkeypatch):
    """Makes `fit` record on the CPU what it would capture on a GPU; gives the recordings."""
    recordings = []

    def record(body):
        """As a capture: the step's Python runs, but what it did to any tensor is undone."""
        recording, before, drawn = Recording(), {}, torch.get_rng_state()

        class Guard(TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                for tensor in tree_flatten((args, kwargs or {}))[0]:
                    if isinstance(tensor, torch.Tensor):
                        storage = tensor.untyped_storage()
                        before.setdefault(storage.data_ptr(), (storage, storage.clone()))
                return func(*args, **(kwargs or {}))

        with Guard(), recording:
            body()
        for storage, saved in before.values():
            storage.copy_(saved)
        torch.set_rng_state(drawn)  # a capture draws no random numbers; its replays do
        recordings.append(recording)
        return recording.replay

    monkeypatch.setattr(stepping, "recorder_for", lambda device: record)
    return recordings


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """The operations that a GPU would be given: no machine code and none of the CPU's short cuts."""

    def cut(signed, sparsity):
        sizes = signed.abs()
        signed.mul_(sizes >= masks.percentile(sizes, sparsity))

    def gated(self, robust, given_up, closed):
        return robust * (1 - closed) + given_up * closed

    monkeypatch.setattr(output_layer, "passes_for", lambda weight, boxes: torch_passes)
    monkeypatch.setattr(compiled, "suits", lambda weight: False)
    monkeypatch.setattr(look_ahead, "_known_to_be_one", lambda scale: False)
    monkeypatch.setattr(compiled_scales, "suits", lambda *tensors: False)
    monkeypatch.setattr(compiled_rounding, "_served", lambda tensors: False)
    monkeypatch.setattr(InterContiNet, "_gated", gated)
    monkeypatch.setattr(masks, "_cut", cut)
    monkeypatch.setattr(masks, "neighbours", masks.neighbours_on_device)
    monkeypatch.setattr(topk, "_without_ties", lambda mask, zeros: False)
    monkeypatch.setattr(topk, "order_statistic", lambda values, rank: topk.kth_values(values, float(rank))[0])


@pytest.mark.parametrize(("name", "scenario"), [case for case in CASES if registry.load(case[0]).capturable])
def test_replayed_steps_train_as_steps_one_by_one(name, scenario, as_on_a_gpu, replayed):
    """12 steps: 3 by warm-up, one recorded, 9 replayed; on two tasks, in every phase of training."""
    stream = opened(scenario)
    recorded = made(name, stream)
    learn(recorded, stream, [0, 1])
    assert replayed and recorded.stepped == "captured"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stepping, "recorder_for", lambda device: None)
        plain = made(name, stream)
        learn(plain, stream, [0, 1])
    assert plain.stepped == "step by step"
    for a, b in zip(answers(plain, stream), answers(recorded, stream), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(state_of(plain), state_of(recorded), strict=True):
        assert torch.equal(a, b)
    assert not {name for recording in replayed for name in recording.waits()}


@pytest.mark.parametrize("statement", [lambda x: x.sum().item(), lambda x: x.nonzero(), lambda x: torch.tensor(2.0)])
def test_the_recording_notices_what_waits(statement):
    with Recording() as recording:
        statement(torch.ones(3))
    assert recording.waits()


class Chosen(Method):
    """Plain SGD; what goes into `fit` besides is the test's choice."""

    name = "chosen"
    capturable = True
    checks = 4
    options = staticmethod(lambda optimizer: {})

    def build(self):
        self.net = self.network()

    def learn(self, task):
        def loss(batch):
            return torch.nn.functional.cross_entropy(self.answerable(self.net(batch.x), batch.task), batch.y)

        optimizer = torch.optim.SGD(self.net.parameters(), 0.1)
        self.fit(task, loss, optimizer, check_every=self.checks, **type(self).options(optimizer))

    def predict(self, x, task_id=None):
        return self.answerable(self.net(x), task_id)


def chosen(**settings) -> Method:
    """A trained one, with other class attributes."""
    stream = opened(TIL)
    method = type("Other", (Chosen,), settings)(stream.spec)
    learn(method, stream, [0])
    return method


def same(a: Method, b: Method) -> bool:
    return all(torch.equal(left, right) for left, right in zip(state_of(a), state_of(b), strict=True))


def test_another_learning_rate_is_recorded_anew(replayed):
    """12 steps, the rate is lowered after 8: the recording of step 4 would go on with the old one."""

    def lowered(optimizer):
        return {"on_check": lambda done: optimizer.param_groups[0].update(lr=0.1 if done < 8 else 1e-4)}

    recorded = chosen(options=staticmethod(lowered))
    assert len(replayed) == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stepping, "recorder_for", lambda device: None)
        assert same(chosen(options=staticmethod(lowered)), recorded)


def test_a_recording_that_fails_ends_the_fit(monkeypatch):
    """The process is of no more use then; the runner begins another one, in which nothing is recorded."""

    def record(body):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(stepping, "recorder_for", lambda device: record)
    with pytest.raises(stepping.CaptureFailed, match=r"\(operation not permitted when stream is capturing\)") as failed:
        chosen()
    assert (
        pickle.loads(pickle.dumps(failed.value)).why == failed.value.why == str(failed.value.__cause__).splitlines()[0]
    )


def test_no_recording_is_tried_where_the_runner_says_so(replayed):
    method = chosen(step_by_step=property(lambda self: "a capture failed", lambda self, value: None))
    assert method.stepped == "step by step: a capture failed" and not replayed
    assert "step_by_step" not in method.state_dict()
    assert chosen(capturable=False).stepped == "step by step"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stepping, "recorder_for", lambda device: None)
        assert same(chosen(), method)


class Rehearsing:
    """A recorder that tells of a wait at the rehearsal."""

    def __init__(self, line):
        self.line, self.did = line, []

    def __call__(self, body):
        self.did.append("record")
        return body

    def aside(self, body):
        self.did.append("aside")
        body()

    def rehearse(self, body):
        self.did.append("rehearse")
        body()
        return self.line


def test_steps_in_which_the_host_waits_are_not_recorded(monkeypatch, caplog):
    recorder = Rehearsing("methods/mine.py:12")
    monkeypatch.setattr(stepping, "recorder_for", lambda device: recorder)
    method = chosen()
    assert method.stepped == "step by step: the host waits for the device at methods/mine.py:12"
    assert recorder.did == ["aside", "aside", "rehearse"]
    assert caplog.text.count("not captured as a CUDA graph: the host waits for the device at methods/mine.py:12") == 1
    monkeypatch.setattr(stepping, "recorder_for", lambda device: None)
    assert same(chosen(), method)


def test_the_last_warm_up_step_is_the_rehearsal(monkeypatch):
    """Also where warm-up steps are spread over several checks."""
    recorder = Rehearsing(None)
    monkeypatch.setattr(stepping, "recorder_for", lambda device: recorder)
    monkeypatch.setattr(Chosen, "checks", 2)
    assert chosen().stepped == "captured"
    assert recorder.did == ["aside", "aside", "rehearse", "record"]


def test_warm_up_happens_once_and_what_a_run_returned_stays(replayed):
    """Ten runs of four steps by one recording: the losses of each are those of its own batches, also afterwards."""
    recorder = Rehearsing(None)
    steps = stepping.Replayed(
        lambda indices: indices.double().mean().float(), recorder, lambda: None, torch.device("cpu"), 4, 2
    )
    batches = [torch.tensor([i, i + 1]) for i in range(40)]
    losses = [steps.run(batches[i : i + 4]) for i in range(0, 40, 4)]
    assert torch.cat(losses).tolist() == [i + 0.5 for i in range(40)]
    assert recorder.did == ["aside"] * (stepping.WARM_UP - 1) + ["rehearse", "record"]


@pytest.mark.parametrize("against", [{"capturable": False}, {"options": staticmethod(lambda _: {"capture": False})}])
def test_a_method_is_not_recorded_against_its_will(against, replayed):
    assert chosen(**against).stepped == "step by step"
    assert not replayed


def test_rules_that_look_at_numbers_on_the_host_are_not_recorded(replayed):
    stream = opened(TIL)
    method = made("hyperinterval", stream, select="official")
    learn(method, stream, [0])
    assert not replayed


@on_cuda
@pytest.mark.parametrize(("name", "scenario"), [case for case in CASES if registry.load(case[0]).capturable])
def test_a_cuda_graph_trains_as_steps_one_by_one(name, scenario, monkeypatch):
    stream = opened(scenario, device="cuda")
    captured = made(name, stream, device="cuda")
    learn(captured, stream, [0, 1])
    assert captured.stepped == "captured"
    monkeypatch.setenv("CONTINUAL_GRAPHS", "0")
    plain = made(name, stream, device="cuda")
    learn(plain, stream, [0, 1])
    for a, b in zip(state_of(plain), state_of(captured), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@on_cuda
@pytest.mark.parametrize("name", sorted({name for name, _ in CASES if registry.load(name).capturable}))
def test_no_step_waits_for_the_gpu(name, monkeypatch):
    """Within a check's steps torch raises at any operation for which the host waits."""
    monkeypatch.setenv("CONTINUAL_GRAPHS", "0")
    run = stepping.Plain.run

    def watched(self, batches):
        losses = run(self, batches[:1])  # the first step loads libraries
        with sync_debug("error"):
            return torch.cat([losses, run(self, batches[1:])]) if len(batches) > 1 else losses

    monkeypatch.setattr(stepping.Plain, "run", watched)
    stream = opened(TIL, device="cuda")
    learn(made(name, stream, device="cuda"), stream, [0, 1])
