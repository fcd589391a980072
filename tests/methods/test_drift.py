"""The drift of a chunked hypernetwork's outputs without the outputs, in PyTorch and in machine code."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from methods.hypernetworks import compiled, compiled_drift, look_ahead
from methods.hypernetworks.drift import Frozen, squared_drift
from methods.hypernetworks.held import HeldOutputs
from methods.hypernetworks.network import ChunkedHypernetwork

TASKS, EMBEDDING = 3, 4
SHAPES = [((6,), 90, 25), ((9,), 100, 25), ((8, 3), 21, 7), ((7,), 30, 30)]
"""Hidden widths, outputs and chunk: the last chunk cut or whole, and one chunk that is both first and last."""


def moved(hidden: tuple[int, ...], n_outputs: int, chunk: int, double: bool = True) -> tuple[ChunkedHypernetwork, Any]:
    """A hypernetwork, and what it was before its parameters moved a little."""
    torch.manual_seed(0)
    network = ChunkedHypernetwork(EMBEDDING, hidden, n_outputs, chunk, 3)
    if double:
        network.double()
    before = copy.deepcopy(network)
    with torch.no_grad():
        for p in network.parameters():
            p += 0.05 * torch.randn_like(p)
    return network, before


def gradients(value: Tensor, network: ChunkedHypernetwork, *more: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(value, [*network.parameters(), *more]))


@pytest.mark.parametrize(("hidden", "n_outputs", "chunk"), SHAPES)
def test_the_drift_and_its_gradients_are_those_of_the_outputs(hidden, n_outputs, chunk):
    network, before = moved(hidden, n_outputs, chunk)
    then = torch.randn(TASKS, EMBEDDING, dtype=torch.float64)
    now = (then + 0.1).requires_grad_()
    wanted = (network(now) - before(then).detach()).square().sum()
    found = network(now, before.frozen(then))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=0)
    for a, b in zip(gradients(3 * found, network, now), gradients(3 * wanted, network, now), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_a_frozen_state_stays_as_it_was():
    network, _ = moved(*SHAPES[0])
    embeddings = torch.randn(TASKS, EMBEDDING, dtype=torch.float64)
    frozen = network.frozen(embeddings)
    assert float(network(embeddings, frozen).detach()) == 0
    with torch.no_grad():
        network.output.weight += 1
        network.output.bias += 1
    assert float(network(embeddings, frozen).detach()) > 1


def test_terms_that_cancel_are_summed_in_double_precision():
    """Smaller inputs and larger weights make the same outputs, up to the rounding of both, by terms as large as these.

    Not by a power of two, with which all roundings are the same ones.
    """
    torch.manual_seed(0)
    inputs, weight, bias = torch.randn(TASKS, 4, 8), torch.randn(50, 8), torch.randn(50)
    since = Frozen(inputs, weight, bias, torch.empty(0))
    found = squared_drift(inputs / 1.5, 1.5 * weight, bias, since, 50)
    assert abs(float(found)) < 1e-10 * float((inputs @ weight.t()).square().sum())


@pytest.mark.parametrize(
    ("tasks", "options", "frozen"),
    [(3, {}, True), (3, {"online": True}, True), (2, {}, True), (1, {}, False), (3, {"at_once": 1}, False)],
)
def test_outputs_are_left_out_where_they_are_more_than_the_output_layer_has_inputs(tasks, options, frozen):
    network = ChunkedHypernetwork(EMBEDDING, (8,), 100, 25, 3)  # four chunks a task
    held = HeldOutputs(network, torch.randn(tasks, EMBEDDING), **options)
    assert (held.frozen is not None) is frozen
    assert (held.targets is None) is frozen and (held.network is None)


def test_outputs_that_count_differently_are_computed():
    network = ChunkedHypernetwork(EMBEDDING, (8,), 100, 25, 3)
    assert HeldOutputs(network, torch.randn(3, EMBEDDING), torch.rand(3, 100)).frozen is None


def test_the_mean_is_over_the_drawn_tasks():
    network, before = moved((6,), 90, 25)
    held = HeldOutputs(before, torch.randn(TASKS, EMBEDDING, dtype=torch.float64), at_once=2)
    assert held.frozen is not None
    rows = torch.tensor([2, 0])
    wanted = (network(held.start[rows]) - before(held.start[rows])).square().sum() / 2
    torch.testing.assert_close(held.drift_of(network, rows), wanted)


# -- machine code ----------------------------------------------------------------------------------


@pytest.fixture
def machine_code(monkeypatch):
    if compiled.library() is None:
        pytest.skip("needs machine code")
    monkeypatch.setattr(compiled, "parts", lambda rows: min(rows, 3))
    return monkeypatch


def after_steps(
    hidden: tuple[int, ...], n_outputs: int, chunk: int, held: dict[str, Any], steps: int = 3
) -> list[Tensor]:
    """Losses and parameters of some steps with look-ahead, of a made-up task."""
    network, _ = moved(hidden, n_outputs, chunk, double=False)
    outputs = HeldOutputs(network, torch.randn(TASKS, EMBEDDING), **held)
    embedding = torch.randn(1, EMBEDDING).requires_grad_()
    trained = [*network.parameters(), embedding, *([outputs.embeddings] if held.get("trained") else [])]
    optimizer = torch.optim.Adam(trained, lr=0.01)
    wanted, losses = torch.randn(n_outputs), []
    for _ in range(steps):
        optimizer.zero_grad()
        value = (network(embedding)[0] - wanted).square().mean()
        loss = look_ahead.regularised(value, network, embedding, optimizer, outputs, 0.7)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return [*losses, *(p.detach() for p in trained)]


@pytest.mark.parametrize("held", [{}, {"trained": True}, {"at_once": 2}], ids=["all", "trained", "drawn"])
@pytest.mark.parametrize(("hidden", "n_outputs", "chunk"), [*SHAPES[:3], ((10,), 3000, 800), ((19,), 500, 21)])
def test_machine_code_takes_the_steps_of_pytorch(machine_code, hidden, n_outputs, chunk, held):
    calls = []
    machine_code.setattr(ChunkedHypernetwork, "of_low_rank", lambda *_: True)
    count = compiled_drift.add_gradient
    machine_code.setattr(compiled_drift, "add_gradient", lambda *given: (calls.append(1), count(*given))[1])
    found = after_steps(hidden, n_outputs, chunk, held)
    assert len(calls) == 2  # the first step has no moments
    machine_code.setattr(compiled, "suits", lambda weight: False)
    for a, b in zip(found, after_steps(hidden, n_outputs, chunk, held), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-5)


def test_the_step_ahead_is_that_of_pytorch(machine_code):
    torch.manual_seed(0)
    parameter = torch.randn(37, 5).requires_grad_()
    optimizer = torch.optim.Adam([parameter], lr=0.01, betas=(0.8, 0.97), eps=1e-3)
    for _ in range(2):
        parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    gradient = torch.randn_like(parameter)
    (wanted,) = look_ahead.next_step(optimizer, [parameter], [gradient])
    rule = look_ahead._rule(optimizer, parameter)
    found = compiled_drift.step_ahead(parameter.detach(), gradient, optimizer.state[parameter], rule)
    torch.testing.assert_close(found, (parameter + wanted).detach(), rtol=1e-6, atol=1e-7)


def test_gradients_follow_the_factor_of_the_loss(machine_code):
    """The loss knows them beforehand and hands them on; a caller may scale it all the same."""
    found = []
    for factor in (1.0, 3.0):
        network, _ = moved(*SHAPES[1], double=False)
        outputs, embedding = (
            HeldOutputs(network, torch.randn(TASKS, EMBEDDING)),
            torch.randn(1, EMBEDDING).requires_grad_(),
        )
        optimizer = torch.optim.Adam([*network.parameters(), embedding], lr=0.01)
        for last in (False, True):
            optimizer.zero_grad()
            value = network(embedding).square().mean()
            (
                look_ahead.regularised(value, network, embedding, optimizer, outputs, 0.7) * (factor if last else 1)
            ).backward()
            if not last:
                optimizer.step()
        found.append([p.grad for p in (*network.parameters(), embedding)])
    for one, three in zip(*found, strict=True):
        torch.testing.assert_close(3 * one, three)
