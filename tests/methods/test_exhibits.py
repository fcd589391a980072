"""The tables that methods give for the report: what they say, and that giving them changes nothing."""

import pytest
import torch

from benchmarks.types import CIL, DIL, TIL
from methods.shared.tables import embeddings, mask_overlap
from tests.methods.helpers import assert_equal, learn, made, opened


def test_the_overlap_of_masks_by_hand():
    found = mask_overlap([torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 1.0, 0.0]), torch.zeros(4)])
    table = dict(zip(zip(found["task"], found["other"], strict=True), found["overlap"], strict=True))
    assert table[0, 0] == table[1, 1] == 1
    assert table[0, 1] == table[1, 0] == pytest.approx(1 / 3)
    assert table[0, 2] == table[2, 2] == 0


def test_soft_masks_overlap_by_their_smaller_values():
    found = mask_overlap([torch.tensor([0.5, 0.2]), torch.tensor([0.25, 0.4])])
    assert found["overlap"][1] == pytest.approx((0.25 + 0.2) / (0.5 + 0.4))


def test_embeddings_are_listed_task_by_task():
    found = embeddings(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.5, 0.0], [1.0, 1.0]]))
    assert list(zip(*found.values(), strict=True)) == [
        (0, 0, 0.5, 1, 1.5), (0, 1, 2, 2, 2), (1, 0, 2, 3, 4), (1, 1, 3, 4, 5),
    ]  # fmt: skip


@pytest.mark.parametrize("scenario", [TIL, DIL, CIL])
@pytest.mark.parametrize(
    "name", ["hat", "hnet", "hnet-lstm", "hypermask", "hyperinterval", "intact", "packnet", "supsup", "wsn"]
)
def test_giving_exhibits_changes_no_state(name, scenario):
    stream = opened(scenario)
    method = made(name, stream)
    learn(method, stream, [0])
    before = {key: _copy(value) for key, value in method.state_dict().items()}
    assert method.exhibits()
    assert_equal(method.state_dict(), before)


def _copy(value):
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copy(part) for key, part in value.items()}
    return [_copy(part) for part in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("scenario", [TIL, DIL])
def test_the_intervals_of_hyperinterval_are_its_boxes(scenario):
    stream = opened(scenario)
    method = made("hyperinterval", stream)
    learn(method, stream, [0, 1])
    found = method.exhibits()["embeddings"]
    widths = torch.tensor(found["upper"]) - torch.tensor(found["lower"])
    per_task = widths.view(2, -1).sum(1)
    assert torch.allclose(per_task, torch.full((2,), 2 * method.config.eps), atol=1e-4)


def test_hypermask_shows_its_masks():
    stream = opened(TIL)
    method = made("hypermask", stream)
    learn(method, stream, [0, 1])
    found = method.exhibits()["mask-overlap"]
    assert found["overlap"][0] == found["overlap"][3] == pytest.approx(1)
    assert 0 < found["overlap"][1] < 1
