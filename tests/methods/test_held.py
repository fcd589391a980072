"""What a hypernetwork is held at: which old tasks a step looks at, how firmly, and from where the targets come."""

import pytest
import torch

from methods.hypernetworks.held import HeldOutputs, own_head
from methods.hypernetworks.network import Hypernetwork
from methods.hypernetworks.stateless import FunctionalNetwork
from methods.networks.mlp import MLP

TASKS, EMBEDDING, OUTPUTS = 4, 3, 5


def network() -> tuple[Hypernetwork, torch.Tensor]:
    torch.manual_seed(0)
    return Hypernetwork(EMBEDDING, (6,), OUTPUTS), torch.randn(TASKS, EMBEDDING)


def test_as_a_rule_all_tasks_are_held_alike_at_outputs_as_they_were_and_embeddings_stay() -> None:
    made, embeddings = network()
    held, wanted = HeldOutputs(made, embeddings), made(embeddings).detach()
    assert held.plain and held.draw() == slice(0, TASKS) and not held.embeddings.requires_grad
    assert held.network is None and held.targets is not None and torch.equal(held.targets, wanted)
    embeddings.zero_()
    with torch.no_grad():
        made.output.bias.add_(1)
        drift = held.drift(made(held.embeddings), held.draw())
    assert drift.item() == pytest.approx(OUTPUTS, rel=1e-5), "each of the outputs of each task moved by one"


@pytest.mark.parametrize(("at_once", "plain"), [(0, True), (1, False), (TASKS - 1, False), (TASKS, True), (9, True)])
def test_a_step_looks_at_so_many_tasks_all_of_them_sooner_or_later(at_once: int, plain: bool) -> None:
    held = HeldOutputs(*network(), at_once=at_once)
    assert held.plain is plain
    drawn = [torch.arange(TASKS)[held.draw()].tolist() for _ in range(60)]
    assert all(len(rows) == len(set(rows)) == (TASKS if plain else at_once) for rows in drawn)
    assert {row for rows in drawn for row in rows} == set(range(TASKS))


def test_weights_count_for_their_own_task_and_output() -> None:
    made, embeddings = network()
    weights = torch.rand(TASKS, OUTPUTS)
    held = HeldOutputs(made, embeddings, weights)
    rows = torch.tensor([2, 0])
    moved = made(embeddings[rows]).detach() + torch.tensor([[1.0], [2.0]])
    assert not held.plain
    torch.testing.assert_close(held.drift(moved, rows), (weights[2].sum() + 4 * weights[0].sum()) / 2)


def test_a_kept_copy_answers_as_the_network_did_then_and_is_not_trained() -> None:
    made, embeddings = network()
    stored, online = HeldOutputs(made, embeddings), HeldOutputs(made, embeddings, online=True, trained=True)
    with torch.no_grad():
        for p in made.parameters():
            p.mul_(2)
        online.embeddings.mul_(3)
    rows, outputs = torch.tensor([3, 1]), torch.zeros(2, OUTPUTS)
    assert not online.plain and online.targets is None and online.embeddings.requires_grad
    torch.testing.assert_close(online.drift(outputs, rows), stored.drift(outputs, rows))
    assert online.network is not None and not any(p.requires_grad for p in online.network.parameters())


def test_own_head_leaves_out_the_heads_of_other_tasks_only() -> None:
    net = MLP(3, (4,), 6)
    target = FunctionalNetwork(net)
    head = [name for name in target.shapes if target.shapes[name][0] == 6]
    masks = own_head(target, head, [slice(0, 2), slice(2, 4), slice(4, 6)])
    for t, mask in enumerate(masks):
        for name, part in target.named(mask).items():
            wanted = torch.ones_like(part)
            if name in head:
                wanted = torch.zeros_like(part)
                wanted[2 * t : 2 * t + 2] = 1
            assert torch.equal(part, wanted), name
    assert len(head) == 2
