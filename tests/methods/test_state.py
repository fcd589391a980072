"""A state read back is the state that was saved: the same values, the same tensors, the same containers."""

from __future__ import annotations

import io
from collections import OrderedDict, deque
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.catalogue import find
from methods.base import Method, Task
from methods.shared import parts, state
from methods.shared.state import StateError


class Blank(Method):
    """Holds what a test puts there."""

    name = "blank"

    def learn(self, task: Task) -> None: ...

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        raise NotImplementedError


def made(build, cls=Blank) -> Method:
    spec = find("split-digits").spec("til")
    return type("Made", (cls,), {"build": build})(spec)


def carried(method: Method, build) -> Method:
    """A fresh build with the method's state, by way of a file."""
    assert state.unkept(method) == ""
    buffer = io.BytesIO()
    torch.save(method.state_dict(), buffer)
    fresh = made(build)
    fresh.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    return fresh


def changed(method: Method) -> Method:
    """All tensors in place, as training does."""
    with torch.no_grad():
        for tensor in parts.anchors(method).values():
            tensor.copy_(torch.rand_like(tensor))
    return method


def test_kept_parameters_are_those_of_the_network():
    def build(self):
        self.trained = None
        self.net = nn.Linear(3, 2)
        self.trained = list(self.net.parameters())
        self.by_name = dict(self.net.named_parameters())

    before = changed(made(build))
    after = carried(before, build)
    assert after.trained[0] is after.by_name["weight"] is after.net.weight and torch.equal(
        after.net.weight, before.net.weight
    )
    assert after.parameters_stored() == before.parameters_stored() == after.parameters_trained() == 8


def test_parameters_kept_since_the_first_task_are_those_of_the_network():
    def build(self):
        self.net, self.kept = nn.Linear(3, 2), []

    before = made(build)
    before.kept = [before.net.bias]
    after = carried(before, build)
    assert after.kept[0] is after.net.bias


def test_views_and_names_of_one_tensor_are_so_again():
    def build(self):
        self.net = nn.Linear(4, 2)
        self.first_row = self.net.weight.data[0]
        self.row = None
        self.all = None

    before = made(build)
    before.all = torch.arange(12.0).view(3, 4)
    before.row, before.again, before.column = before.all[1], before.all, before.all[:, 2]
    before.flat = before.all.view(-1).detach()
    before.first_row[0] = 7.0
    after = carried(before, build)
    assert after.again is after.all and after.net.weight[0, 0] == 7.0
    after.first_row[1] = -3.0
    assert after.net.weight[0, 1] == -3.0
    after.all[1, 2] = 100.0
    assert after.row[2] == after.column[1] == after.flat[6] == 100.0 and torch.equal(after.column, after.all[:, 2])
    assert before.parameters_stored() == 10 + 12


def test_tensors_side_by_side_in_one_memory_are_kept_apart():
    def build(self):
        self.parts = []

    before = made(build)
    before.parts = list(torch.arange(6.0).view(2, 3).unbind(0))
    after = carried(before, build)
    after.parts[0][:] = 0
    assert after.parts[1].tolist() == [3.0, 4.0, 5.0]


def test_memory_that_overlaps_in_part_is_refused_with_both_names():
    method = made(lambda self: None)
    whole = torch.arange(6.0)
    method.left, method.right = whole[:4], whole[2:]
    assert "'left' and 'right' share memory" in state.unkept(method) and "clone" in state.unkept(method)
    assert method.parameters_stored() == 8


class Kind(Enum):
    ONE = 1
    TWO = 2


@dataclass
class Pair:
    net: nn.Module
    scale: Tensor


@dataclass(frozen=True)
class Cold:
    values: list[Tensor]


class Named(NamedTuple):
    mean: Tensor
    n: int


def test_containers_of_all_kinds():
    def build(self):
        self.nets = [nn.Linear(2, 2), {"head": nn.Linear(2, 1)}]
        self.pair, self.cold = Pair(nn.Linear(2, 2), torch.zeros(2)), Cold([])
        self.named, self.kind = Named(torch.zeros(1), 0), Kind.ONE
        self.ordered = OrderedDict(a=1)
        self.kept = None

    before = changed(made(build))
    before.pair.scale = torch.ones(2)
    before.cold = Cold([torch.ones(3)])
    before.named, before.kind = Named(torch.tensor([5.0]), 4), Kind.TWO
    before.ordered = OrderedDict(b=torch.ones(1), a=2)
    before.kept = {1: (deque([1, 2], maxlen=3), {3, 4}, frozenset({5})), "two": np.float64(0.5)}
    before.list_a = before.list_b = [1]
    after = carried(before, build)
    assert type(after.nets[0]) is nn.Linear and torch.equal(after.nets[0].weight, before.nets[0].weight)
    assert torch.equal(after.nets[1]["head"].bias, before.nets[1]["head"].bias)
    assert torch.equal(after.pair.net.weight, before.pair.net.weight) and after.pair.scale.tolist() == [1.0, 1.0]
    assert after.cold.values[0].tolist() == [1.0] * 3 and type(after.cold) is Cold
    assert after.named.n == 4 and after.named.mean.tolist() == [5.0] and after.kind is Kind.TWO
    assert list(after.ordered) == ["b", "a"] and type(after.ordered) is OrderedDict
    assert after.kept[1] == before.kept[1] and after.kept[1][0].maxlen == 3 and after.kept["two"] == 0.5
    after.list_a.append(2)
    assert after.list_b == [1, 2]
    assert after.parameters_trained() == before.parameters_trained() == 6 + 3 + 6


def test_what_is_trained_and_in_which_mode_is_kept():
    def build(self):
        self.net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        self.vector = torch.zeros(2, requires_grad=True)

    before = made(build)
    before.net[0].weight.requires_grad_(False)
    before.net[1].eval()
    after = carried(before, build)
    assert not after.net[0].weight.requires_grad and after.net[0].bias.requires_grad
    assert after.net[0].training and not after.net[1].training
    assert after.vector.requires_grad and after.vector.is_leaf
    assert after.parameters_trained() == before.parameters_trained() == 6


def grow(self):
    self.heads.append(nn.Linear(2, 2))


def replace_network(self):
    self.old = nn.Linear(2, 2)


def other_network(self):
    self.current = self.nets[1]


def other_object(self):
    self.pair = Pair(nn.Linear(2, 2), torch.zeros(1))


@pytest.mark.parametrize(
    "change, path", [(grow, "heads"), (replace_network, "old"), (other_network, "current"), (other_object, "pair")]
)
def test_networks_that_build_does_not_make_are_refused_by_name(change, path):
    def build(self):
        self.heads, self.old, self.pair = nn.ModuleList(), None, None
        self.nets = [nn.Linear(2, 2), nn.Linear(2, 2)]
        self.current = self.nets[0]

    method = made(build)
    assert state.unkept(method) == ""
    change(method)
    assert state.unkept(method).startswith(f"'{path}") and "make them in build" in state.unkept(method)


def cycle(self):
    self.notes = {"own": []}
    self.notes["own"].append(self.notes)


def enormous(self):
    self.notes = torch.zeros(1).expand(1 << 40)


def endless(self):
    self.notes = list(range(parts.PARTS_AT_MOST + 1))


def foreign(self):
    self.notes = [np.zeros(3)]


@pytest.mark.parametrize(
    "change, said",
    [
        (cycle, r"'notes.own\[0\]' leads back to itself"),
        (enormous, "too large: with 'notes' it has 2 values and 4.1e\\+03 GiB; at most"),
        (endless, "too large: with 'notes' it has 100000"),
        (foreign, r"'notes\[0\]' is of type ndarray, which a checkpoint cannot keep"),
    ],
)
def test_what_cannot_be_kept_gets_a_sentence_with_the_attribute(change, said):
    method = made(lambda self: None)
    change(method)
    with pytest.raises(StateError, match=said):
        method.state_dict()
