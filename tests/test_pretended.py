"""The pretended device refuses what a GPU refuses, and notices what makes the host wait."""

import copy
import io
import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from methods.shared import stepping
from tests.pretended import CUDA, Kind, Mismatch, pretended, recorder


@pytest.fixture
def device():
    """Not in use yet, unlike the fixture of all other tests."""
    with pretended() as found:
        yield found


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(shape, device="cuda")


MIXED = {
    "a sum": lambda x: x + torch.ones(3),
    "a sum in place": lambda x: torch.ones(3).add_(x),
    "a sum in place of a number of the CPU's": lambda x: torch.zeros(()).add_(x.sum()),
    "a stack": lambda x: torch.stack([x, torch.ones(3)]),
    "a stack of numbers": lambda x: torch.stack([x.sum(), torch.tensor(1.0)]),
    "a product": lambda x: torch.ones(2, 3) @ x,
    "rows": lambda x: x.index_select(0, torch.tensor([0])),
    "values put": lambda x: x.index_put_((torch.zeros(2, dtype=torch.int64, device="cuda"),), torch.ones(2)),
    "a result's place": lambda x: torch.add(x, x, out=torch.zeros(3)),
    "a CPU tensor's rows by indices of the device": lambda x: torch.ones(3)[x.long()],
    "labels": lambda x: nn.functional.cross_entropy(x[None], torch.tensor([0])),
}


@pytest.mark.parametrize("mistake", MIXED.values(), ids=MIXED)
def test_tensors_of_two_devices(mistake, device):
    with pytest.raises(Mismatch):
        mistake(ones(3))


def test_a_number_of_the_cpus_is_an_argument_of_a_kernel(device):
    """As on a GPU: it is no tensor there, and nobody waits."""
    number = torch.tensor(2.0)
    assert (ones(3) * number).device == ones(3).fill_(number).device == CUDA
    assert torch.zeros_like(torch.ones(3), device="cuda").is_cuda
    assert not device.events


WAITS = {
    "float": (float, Kind.READ),
    "if": (bool, Kind.READ),
    "item": (lambda x: x.item(), Kind.READ),
    "equal": (lambda x: torch.equal(x, x), Kind.READ),
    "a mask": (lambda x: x[None][x[None] > 0], Kind.SHAPE),
    "a mask put": (lambda x: x[None].index_put_((x[None] > 0,), x), Kind.SHAPE),
    "nonzero": (lambda x: x.nonzero(), Kind.SHAPE),
    "unique": (lambda x: x[None].unique(), Kind.SHAPE),
    "repeats": (lambda x: torch.repeat_interleave(x[None].long()), Kind.SHAPE),
    "one-hot without a number": (lambda x: nn.functional.one_hot(x.long()), Kind.READ),
    "to the host": (lambda x: x.cpu(), Kind.TO_HOST),
    "a copy to the host": (lambda x: torch.zeros(()).copy_(x), Kind.TO_HOST),
    "tolist": (lambda x: x.tolist(), Kind.TO_HOST),
    "saving": (lambda x: torch.save(x, io.BytesIO()), Kind.TO_HOST),
    "a new tensor": (lambda _: torch.tensor(1.0, device="cuda"), Kind.FROM_HOST),
    "a new tensor like": (lambda x: x.new_tensor([1.0]), Kind.FROM_HOST),
    "from the host": (lambda _: torch.ones(3).to("cuda"), Kind.FROM_HOST),
    "from the host, pageable": (lambda _: torch.ones(3).to("cuda", non_blocking=True), Kind.FROM_HOST),
    "a copy from the host": (lambda x: x.copy_(torch.ones(())), Kind.FROM_HOST),
    "indices of the host": (lambda x: x[None][torch.tensor([0])], Kind.FROM_HOST),
    "an inverse": (lambda x: torch.linalg.inv(x[None, None]), Kind.LIBRARY),
    "a synchronisation": (lambda _: torch.cuda.synchronize(), Kind.SYNCHRONIZE),
}


@pytest.mark.parametrize(("wait", "kind"), WAITS.values(), ids=WAITS)
def test_waits(wait, kind, device):
    with device.during("this"):
        wait(torch.full((), 1.0, device="cuda"))
    assert kind in [event.kind for event in device.waits("this")] and not device.waits("other")


NO_WAITS = {
    "arithmetic": lambda x: torch.where(x > 0, x, 0).sum(),
    "slices": lambda x: x[None].fill_(2).zero_(),
    "one-hot": lambda x: nn.functional.one_hot(x.long(), 3),
    "random numbers": lambda x: torch.rand_like(x) + torch.randperm(3, device="cuda"),
    "from the host, pinned": lambda _: torch.ones(3).pin_memory().to("cuda", non_blocking=True),
}


@pytest.mark.parametrize("harmless", NO_WAITS.values(), ids=NO_WAITS)
def test_what_does_not_wait(harmless, device):
    harmless(torch.full((), 1.0, device="cuda"))
    assert not device.waits()


@pytest.mark.parametrize("mistake", [lambda x: x.numpy(), np.asarray, np.linalg.norm])
def test_numpy(mistake, device):
    with pytest.raises(TypeError, match="numpy"):
        mistake(ones(3))


@pytest.mark.parametrize(
    "draw",
    [
        lambda generator: torch.randn(3, generator=generator, device="cuda"),
        lambda generator: torch.randperm(3, generator=generator, device="cuda"),
        lambda generator: ones(3).normal_(generator=generator),
    ],
)
def test_a_generator_of_the_cpu(draw, device):
    with pytest.raises(RuntimeError, match="generator"):
        draw(torch.Generator())


def test_the_device_draws_other_numbers_than_the_cpu_and_the_same_for_the_same_seed(device):
    drawn = []
    for _ in range(2):
        torch.manual_seed(0)
        drawn.append((torch.rand(3, device="cuda").cpu(), torch.rand(3), nn.Dropout()(ones(9)).cpu()))
    for a, b in zip(*drawn, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(*drawn[0][:2])


def test_an_event_names_the_projects_code(device):
    mask = ones(3) > 0
    stepping.Plain(lambda indices: ones(3)[indices].sum()).run([mask])
    float(ones())
    masked, read = map(str, device.events)
    place = r"methods/shared/stepping\.py:\d+ \S+"
    assert re.fullmatch(place + r": index \(shape decided on the device\), during other", masked)
    assert read == "?: _local_scalar_dense (host reads), during other"


@pytest.mark.parametrize(
    "mistake",
    [
        float,
        lambda x: x.add_(torch.tensor(1.0).to("cuda")),
        lambda x: x.add_(torch.ones(()).pin_memory().to("cuda", non_blocking=True)),
        lambda x: x.mul_(torch.rand(())),
        lambda _: torch.cuda.synchronize(),
        lambda _: torch.cuda.empty_cache(),
        lambda _: torch.manual_seed(0),
        lambda _: torch.optim.Adam([nn.Parameter(ones(3))], capturable=False).step(),
    ],
)
def test_a_capture_forbids(mistake, device):
    """Whatever waits, copies from the host or is drawn there; and after the error CUDA is of no use to the process."""
    x = torch.full((), 1.0, device="cuda")
    with pytest.raises(RuntimeError, match="captur"):
        recorder(device)(lambda: mistake(x))
    with pytest.raises(RuntimeError, match="previous error during capture"):
        ones(3)


def test_a_capture_is_not_felt_and_a_replay_repeats_operations_alone(device):
    """The host's numbers stay what they were in the capture."""
    x, factor = ones(3).requires_grad_(), [2.0]
    optimizer = torch.optim.Adam([x], lr=0.1, capturable=True, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        (factor[0] * x.square()).sum().backward()
        optimizer.step()
        x.detach().add_(torch.rand(3, device="cuda"))

    def values() -> list[torch.Tensor]:
        moments = [value for value in optimizer.state[x].values() if isinstance(value, torch.Tensor)]
        return [tensor.detach() for tensor in (x, *moments)]

    step()
    before, random_state = [tensor.clone() for tensor in values()], device.random_state
    step()
    step()
    expected = [tensor.clone() for tensor in values()]
    for tensor, saved in zip(values(), before, strict=True):
        tensor.copy_(saved)
    device.random_state = random_state
    replay = recorder(device)(step)
    assert all(map(torch.equal, values(), before))
    factor[0] = -100.0
    replay()
    replay()
    assert all(map(torch.equal, values(), expected))


def test_the_projects_own_recorder_captures_here(device):
    x = ones(3)
    record = stepping.recorder_for(torch.device("cuda"))
    assert record is not None
    replay = record(lambda: (x.add_(1), None)[1])
    replay()
    replay()
    assert x.tolist() == [3.0, 3.0, 3.0] and device.streams == 1


def test_the_sync_debug_mode(device):
    x = torch.full((), 1.0, device="cuda")
    with pytest.warns(UserWarning, match="prototype"):
        torch.cuda.set_sync_debug_mode("warn")
    with pytest.warns(UserWarning, match="called a synchronizing CUDA operation"):
        assert float(x) == 1.0
    with pytest.warns(UserWarning, match="prototype"):
        torch.cuda.set_sync_debug_mode("error")
    with pytest.raises(RuntimeError, match="called a synchronizing CUDA operation"):
        float(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.cuda.set_sync_debug_mode("default")
        assert float(x) == 1.0


def test_the_allocator_is_there_once_cuda_was_asked_for(device):
    with pytest.raises(RuntimeError, match="did you call init"):
        torch.cuda.reset_peak_memory_stats("cuda:0")
    assert torch.cuda.max_memory_allocated("cuda:0") == 0
    torch.cuda.set_device("cuda:0")
    torch.cuda.reset_peak_memory_stats("cuda:0")
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        torch.cuda.set_device("cuda:1")


def test_modules_are_copied_saved_and_put_back(device):
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).to("cuda")
    twin, buffer = copy.deepcopy(net), io.BytesIO()
    torch.save(net.state_dict(), buffer)
    with torch.no_grad():
        net[0].weight.zero_()
        twin[0].weight.data = net[0].weight.data
    assert not twin[0].weight.any() and twin[0].weight.is_cuda and isinstance(twin[0].weight, nn.Parameter)
    buffer.seek(0)
    saved = torch.load(buffer, map_location="cpu", weights_only=True)
    net.load_state_dict(saved)
    assert not saved["0.weight"].is_cuda and torch.equal(net[0].weight.cpu(), saved["0.weight"])


def test_nothing_is_left_behind():
    before = torch.cuda.is_available(), torch.cuda.Stream, torch.cuda.graph
    with pretended(), pytest.raises(ZeroDivisionError):
        raise ZeroDivisionError
    assert (torch.cuda.is_available(), torch.cuda.Stream, torch.cuda.graph) == before
    assert type(torch.tensor(1.0)) is torch.Tensor
