"""Inputs of layers and their bases: what a layer multiplies, shares of energy, orthonormality."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from methods.shared import bases
from methods.shared.bases import Inputs, Layer
from tests.methods.golden import assert_close, group, load
from tests.methods.regularised import make_task

CPU = torch.device("cpu")
LAYERS = [
    (nn.Linear(5, 3), (7, 5)),
    (nn.Linear(5, 3), (7, 4, 5)),
    (nn.Conv2d(2, 3, 3, padding=1), (4, 2, 6, 7)),
    (nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(0, 1), dilation=(1, 2)), (4, 2, 6, 7)),
    (nn.Conv2d(2, 3, 3, padding="same", dilation=2), (4, 2, 6, 7)),
    (nn.Conv2d(2, 3, 3, padding=2, padding_mode="reflect"), (4, 2, 6, 7)),
    (nn.Conv2d(2, 3, 4, bias=False), (4, 2, 6, 7)),
]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("module", "shape"), LAYERS, ids=lambda value: str(value)[:60])
@pytest.mark.parametrize("constant", [True, False])
def test_the_weight_times_the_inputs_is_the_output(module, shape, constant, monkeypatch) -> None:
    """For every kind of padding, stride and dilation, also in parts."""
    monkeypatch.setattr(bases, "SCALARS_AT_ONCE", 100)
    x = torch.randn(shape)
    layer = Layer("layer", module, constant and module.bias is not None)
    rows = torch.cat(list(layer.inputs(x)))
    found = rows @ layer.matrix().double().t()
    if module.bias is not None and not constant:
        found = found + module.bias.detach()
    output = module(x)
    output = output.flatten(0, -2) if isinstance(module, nn.Linear) else output.permute(0, 2, 3, 1).flatten(0, 2)
    torch.testing.assert_close(found.float(), output.detach(), rtol=1e-4, atol=1e-5)


def test_a_convolution_in_groups_answers_the_patches_of_each_group() -> None:
    """A change without answer to the patches of every group does not change any output."""
    module, x = nn.Conv2d(4, 6, 3, groups=2, bias=False, dtype=torch.float64), torch.randn(1, 4, 3, 4).double()
    rows = torch.cat(list(Layer("layer", module, False).inputs(x)))
    assert rows.shape == (1 * 2 * 2, 2 * 9)
    direction = torch.linalg.svd(rows)[2][-1]
    assert float((rows @ direction).abs().max()) < 1e-12
    before = module(x)
    module.weight.data += direction.view(2, 3, 3)
    torch.testing.assert_close(module(x), before, rtol=0, atol=1e-12)


def inputs_of(rows: Tensor, parts: int = 1) -> Inputs:
    found = Inputs(rows.shape[1], CPU)
    for part in rows.chunk(parts):
        found.add(part)
    return found


def outer(basis: Tensor) -> Tensor:
    return basis @ basis.t()


def test_few_inputs_and_their_moments_give_the_same_basis() -> None:
    """The decomposition of the inputs, and that of their second moments."""
    rows = torch.randn(6, 8, dtype=torch.float64)
    old = torch.linalg.qr(torch.randn(8, 2, dtype=torch.float64)).Q
    few = inputs_of(rows)
    many = inputs_of(torch.cat([rows, rows.new_zeros(6, 8)]))
    assert few.rows and not many.rows
    made = []
    for inputs in (few, many):
        found = bases.reaching(inputs, old, 0.9)
        made.append(bases.joined(old, found.columns[:, : int(found.take)]))
    assert made[0].shape == made[1].shape
    torch.testing.assert_close(outer(made[0]), outer(made[1]), rtol=0, atol=1e-10)


def test_moments_do_not_depend_on_the_parts() -> None:
    rows = torch.randn(20, 8, dtype=torch.float64)
    for parts in (1, 3, 20):
        torch.testing.assert_close(inputs_of(rows, parts).second_moments(), rows.t() @ rows)


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("n", [5, 40])
def test_reaching_takes_just_enough(threshold: float, n: int) -> None:
    rows, old = torch.randn(n, 8, dtype=torch.float64), torch.eye(8, 2, dtype=torch.float64)
    found = bases.reaching(inputs_of(rows), old, threshold)
    shares = []
    for k in (int(found.take), int(found.take) - 1):
        basis = bases.joined(old, found.columns[:, :k])
        shares.append(float((rows @ basis).square().sum() / rows.square().sum()))
    assert shares[0] >= threshold - 1e-12
    assert shares[1] < threshold


def test_the_first_direction_alone_may_exceed_the_official_threshold() -> None:
    """Then the official first basis is empty and protects nothing; ours has the direction."""
    rows = torch.ones(20, 4, dtype=torch.float64) + 0.01 * torch.randn(20, 4, dtype=torch.float64)
    nothing = torch.zeros(4, 0, dtype=torch.float64)
    assert int(bases.staying_below(inputs_of(rows), nothing, 0.9).take) == 0
    assert int(bases.reaching(inputs_of(rows), nothing, 0.9).take) == 1


@pytest.mark.parametrize("n", [3, 40])
def test_directions_without_energy_are_never_taken(n: int) -> None:
    """Rounding of a decomposition is no input, also where all of the energy is to be held."""
    rows = torch.randn(n, 8, dtype=torch.float64)
    rows[:, 2:] = 0
    nothing = torch.zeros(8, 0, dtype=torch.float64)
    found = bases.reaching(inputs_of(rows), nothing, 1.0)
    basis = bases.joined(nothing, found.columns[:, : int(found.take)])
    assert basis.shape[1] == 2
    assert int(bases.reaching(inputs_of(rows), basis, 1.0).take) == 0
    assert int(bases.reaching(inputs_of(torch.zeros(n, 8, dtype=torch.float64)), nothing, 0.9).take) == 0


def test_bases_stay_orthonormal_over_many_tasks() -> None:
    basis = torch.zeros(60, 0)
    for _ in range(40):
        found = bases.reaching(inputs_of(torch.randn(30, 60, dtype=torch.float64)), basis, 0.6)
        basis = bases.joined(basis, found.columns[:, : int(found.take)])
    assert 30 < basis.shape[1] <= 60 and basis.dtype == torch.float32
    torch.testing.assert_close(basis.t() @ basis, torch.eye(basis.shape[1]), rtol=0, atol=1e-6)


def test_dead_inputs_leave_the_small_directions_free() -> None:
    """With an eigenvalue of 0 only the dead direction is below ten times the smallest; the floor frees the others."""
    moments = torch.tensor([1.0, 1e-6, 1e-12, 1e-13, 0.0], dtype=torch.float64).diag()
    assert int(bases.above_smallest(moments, 10.0, 0.0).take) == 4
    assert int(bases.above_smallest(moments, 10.0, 1e-10).take) == 2


def test_each_layer_sees_the_first_samples_up_to_its_limit() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    x = torch.randn(10, 1, 4, 4)
    layers = bases.layers_of(network, constant=False)
    samples = make_task(0, x, torch.zeros(10), 4, 1).train
    for batch_size in (3, 100):
        found = bases.gather(network, layers, samples, [5, 7], batch_size)
        assert [inputs.count for inputs in found] == [5 * 4, 7]
        torch.testing.assert_close(torch.cat(found[1].rows).float(), network[:2](x[:7]))


def test_a_layer_whose_weight_has_two_owners_has_no_basis() -> None:
    first, second, other = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    assert [layer.name for layer in bases.layers_of(nn.Sequential(first, second, other), constant=True)] == ["2"]


@pytest.mark.parametrize("covariance", ["samples", "means"])
def test_recorded_moments_of_a_convolution(covariance: str) -> None:
    """Adam-NSCL's, of samples as in the paper and of batch means as in the code."""
    arrays, chosen = group(load("frontier"), f"nscl/conv/{covariance}"), json.loads(str(load("frontier")["nscl/json"]))
    x = torch.from_numpy(arrays["0/x"].copy())
    network = nn.Conv2d(1, chosen["m"], 3, stride=2, padding=1, bias=False, dtype=torch.float64)
    samples, layers = make_task(0, x, torch.zeros(len(x)), 5, 1).train, bases.layers_of(network, constant=False)
    (found,) = bases.gather(network, layers, samples, [len(x)], chosen["batch"], means=covariance == "means")
    assert_close(found.second_moments(), arrays["0/cov/conv1.weight"], 1e-9)
