"""Joint: training on all tasks so far; the reference that sees every task again."""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.samples import Samples
from methods.base import Batch, Method, Task, register
from methods.search import LEARNING_RATE, ranges


@register("joint")
class Joint(Method):
    """Continued training on the mixed data of all tasks so far (a reference, no upper bound)."""

    rehearses = True
    capturable = True

    @dataclass(frozen=True)
    class Config:
        lr: float = 1e-3
        """Adam learning rate."""
        search = ranges(lr=LEARNING_RATE)

    def build(self) -> None:
        self.net = self.network()
        self.n_samples = 0
        """Training samples of all tasks so far, which the next task trains on again."""

    def learn(self, task: Task) -> None:
        def loss(batch: Batch) -> Tensor:
            return cross_entropy(self.answerable(self.net(batch.x), batch.task), batch.y)

        everything = Samples.concatenate([t.train for t in (*task.previous, task)])
        self.fit(task, loss, self.net.parameters(), lr=self.config.lr, samples=everything)
        self.n_samples = len(everything)

    def parameters_stored(self) -> int:
        """Size of the network and of all samples, every value and label of which counts as one number."""
        return super().parameters_stored() + self.n_samples * (math.prod(self.spec.input_shape) + 1)

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        return self.answerable(self.net(x), task_id)
