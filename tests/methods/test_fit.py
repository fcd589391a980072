"""The order of batches: every sweep holds every sample once, and phases of training go on where the last one ended."""

import pytest
import torch
from torch import nn

from benchmarks.samples import Samples
from benchmarks.types import TIL, Budget, StreamSpec, Task, UserError
from methods.base import Method, batch_order

CPU = torch.device("cpu")


@pytest.mark.parametrize(("n", "size"), [(1000, 96), (7, 3), (5, 8), (64, 64)])
def test_batches_one_after_another_are_whole_sweeps(n, size):
    """No sample is left out or seen twice in a sweep, also where batches straddle sweeps and blocks of 65,536."""
    order = batch_order(n, size, 3, CPU)
    drawn = torch.cat([next(order) for _ in range(3 * 65_536 // size)])
    sweeps = drawn[: len(drawn) // n * n].view(-1, n)
    assert len(sweeps) > 150 and torch.equal(sweeps.sort(1).values, torch.arange(n).expand_as(sweeps))
    assert len({tuple(sweep.tolist()) for sweep in sweeps[:4]}) > 1, "sweeps are shuffled anew"


class Listening(Method):
    """Keeps which samples it is given at which step, in phases of so many steps each."""

    name = "listening"
    phases: tuple[int, ...] = (10,)

    def build(self) -> None:
        self.seen: list[tuple[int, ...]] = []
        self.at: list[int] = []
        self.weight = nn.Linear(1, 1)

    def learn(self, task: Task) -> None:
        def loss(batch):
            self.seen.append(tuple(batch.x[:, 0].int().tolist()))
            self.at.append(int(self.step))
            return self.weight(batch.x).mean()

        first = 0
        for steps in self.phases:
            self.fit(task, loss, self.weight.parameters(), lr=0.0, first_step=first, steps=steps, check_every=4)
            first += steps

    def predict(self, x, task_id=None):
        return x


def heard(*phases: int) -> Listening:
    x = torch.arange(30.0)[:, None]
    samples = Samples(x, torch.arange(30), torch.zeros(30, dtype=torch.int64), 0)
    method = type("Phased", (Listening,), {"phases": phases})(StreamSpec("t", TIL, 1, 2, (1,), "mlp"))
    task = Task(0, samples, samples, Budget(7, steps=sum(phases)), order_seed=5)
    method.begin(task)
    method.learn(task)
    return method


@pytest.mark.parametrize("phases", [(5, 5), (1, 9), (4, 3, 3)])
def test_phases_of_training_see_the_batches_of_one_without_phases(phases):
    whole, parts = heard(10), heard(*phases)
    assert parts.seen == whole.seen and parts.at == whole.at == list(range(10))
    assert len(set(whole.seen)) == 10


def test_the_curve_says_task_steps_done_steps_to_do_and_the_mean_loss():
    method = heard(10)
    assert [tuple(point)[:3] for point in method.curve] == [(0, 4, 10), (0, 8, 10), (0, 10, 10)]
    weight, bias = method.weight.weight.item(), method.weight.bias.item()
    for point, at in zip(method.curve, ((0, 4), (4, 8), (8, 10)), strict=True):
        means = [weight * sum(batch) / len(batch) + bias for batch in method.seen[slice(*at)]]
        assert point.loss == pytest.approx(sum(means) / len(means), rel=1e-5)


def test_an_accuracy_is_a_share_of_samples_and_there_is_none_over_none():
    method = heard(1)
    x = torch.eye(3)[[0, 1, 2, 2]]
    samples = Samples(x, torch.arange(4), torch.tensor([0, 1, 2, 0]), 0)
    assert method.accuracy(samples, batch_size=3) == 0.75
    for row, right in ((0, 1), (3, 0)):
        one = Samples(x, torch.tensor([row]), samples.labels[[row]], 0)
        assert method.accuracy(one) == right
    with pytest.raises(UserError, match="no accuracy over no samples"):
        method.accuracy(Samples(x, torch.arange(0), torch.zeros(0, dtype=torch.int64), 0))
