"""Methods whose promise or formula needs layers that are linear in their weight, on networks that have others."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from benchmarks.types import CIL, DIL, TIL, Scenario, StreamSpec
from methods.shared import bases
from methods.shared.linear import linear_in_weight
from methods.supsup import SupSup
from methods.wsn import first_scores


class Standardised(nn.Linear):
    """Linear layer whose weight is divided by its size, as in networks without norm layers."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight / self.weight.norm(), self.bias)


def skipped(network: str, scenario: Scenario = DIL, **options: Any) -> str | None:
    return SupSup.skip(StreamSpec("test", scenario, 2, 2, (3, 32, 32), network), SupSup.Config(**options))


def test_a_subclass_or_a_parametrised_layer_does_not_count_as_linear_in_its_weight() -> None:
    assert linear_in_weight(nn.Linear(2, 2)) and linear_in_weight(nn.Conv2d(1, 1, 1))
    assert not linear_in_weight(Standardised(2, 2)) and not linear_in_weight(nn.ReLU())
    assert not linear_in_weight(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))


def test_gpm_keeps_no_basis_of_a_layer_that_computes_its_weight() -> None:
    """A step outside of the basis would move its old answers all the same."""
    layers = bases.layers_of(nn.Sequential(Standardised(4, 4), nn.Linear(4, 2)), constant=False)
    assert [layer.name for layer in layers] == ["1"]


@pytest.mark.parametrize(
    ("network", "named"),
    [
        ("timm:test_convnext", "gamma (ConvNeXtBlock)"),  # a scale that the constants 0 of biases would end
        ("timm:test_nfnet", "weight (ScaledStdConv2d)"),
        ("timm:test_vit", "cls_token"),
    ],
)
def test_supsup_skips_a_network_with_parameters_of_unknown_use(network: str, named: str) -> None:
    reason = skipped(network, TIL)
    assert reason is not None and named in reason


@pytest.mark.parametrize("scenario", [DIL, CIL])
def test_supsup_skips_a_network_that_splits_samples_into_rows_where_gradients_infer_the_task(
    scenario: Scenario,
) -> None:
    network = "timm:mobilevit_xxs"
    assert "as several rows" in str(skipped(network, scenario))
    assert "as several rows" in str(skipped(network, scenario, inference="binary"))
    assert skipped(network, scenario, inference="entropy") is None
    assert skipped(network, TIL) is None


@pytest.mark.parametrize("network", ["timm:test_resnet", "timm:test_efficientnet", "mlp-100-100", "alexnet-hat-norm"])
def test_supsup_takes_networks_of_linear_and_norm_layers(network: str) -> None:
    assert skipped(network) is None


def test_wsns_scores_of_each_tensor_of_a_layer_have_its_own_inputs() -> None:
    """The layer's weight has 36 inputs, its gain one, and its bias those of the tensor that is named last."""
    shapes = {"conv.weight": torch.Size((64, 4, 3, 3)), "conv.gain": torch.Size((400, 1, 1, 1))}
    weight, gain = first_scores(shapes).abs().split([64 * 36, 400])
    assert 0.95 / 6 < weight.max() <= 1 / 6 < 0.95 < gain.max() <= 1
