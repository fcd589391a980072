"""Finetune: plain sequential training on each new task; the reference without any defence against forgetting."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from methods.base import Batch, Method, Task, register
from methods.search import LEARNING_RATE, ranges


@register("finetune")
class Finetune(Method):
    """Sequential training with no defence against forgetting (a reference)."""

    capturable = True

    @dataclass(frozen=True)
    class Config:
        lr: float = 1e-3
        """Adam learning rate."""
        search = ranges(lr=LEARNING_RATE)

    def build(self) -> None:
        self.net = self.network()

    def learn(self, task: Task) -> None:
        def loss(batch: Batch) -> Tensor:
            return cross_entropy(self.answerable(self.net(batch.x), batch.task), batch.y)

        self.fit(task, loss, self.net.parameters(), lr=self.config.lr)

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        return self.answerable(self.net(x), task_id)
