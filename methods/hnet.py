"""HNET: a task-conditioned hypernetwork whose output for old tasks is held by a regulariser.

Source: von Oswald, Henning, Grewe & Sacramento (2020), "Continual learning with hypernetworks", ICLR,
arXiv 1906.00695. Equation 2: L = L_task(theta, e_t) + beta/t sum_{j<t} |h(e_j, theta*) - h(e_j, theta + dtheta)|^2.

TIL: one head per task (CL1). DIL: one head (CL2). CIL: one head per task (CL3), the task is inferred.
In DIL and CIL the embedding with the least predictive entropy is used (HNET+ENT).
Batch norm keeps running statistics of each task, as the authors' CIFAR runs do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, mse_loss

from methods.base import CIL, DIL, TIL, Batch, Exhibit, Method, Task, adam, register
from methods.nets import exhibits, inference
from methods.nets.functional import FunctionalNetwork, Statistics
from methods.nets.fused import FusedAdam
from methods.nets.hypernetwork import Hypernetwork, hypernetwork, xavier_
from methods.search import LEARNING_RATE, Log, ranges


@register("hnet")
class HNET(Method):
    """HNET: hypernetwork with output regulariser, chunked or full (von Oswald et al. 2020)."""

    @dataclass(frozen=True)
    class Config:
        lr: float = 1e-3
        """Adam learning rate of the hypernetwork and of the task embedding."""
        embedding: int = 96
        """Size of a task embedding."""
        hidden: tuple[int, ...] = (10, 10)
        """Hidden widths of the hypernetwork."""
        chunk: int = 42000
        """Target weights made at once; 0 for a full hypernetwork with one output for each weight."""
        chunk_embedding: int = 96
        """Size of a chunk embedding."""
        activation: str = "relu"
        """relu or elu."""
        beta: float = 0.01
        """Strength of the output regulariser."""
        look_ahead: bool = True
        """Regularise at theta + dtheta, where dtheta is the step that the task's gradient alone would take."""
        xavier: bool = True
        """Xavier-uniform matrices and zero biases (the authors' MNIST runs), else PyTorch's default."""
        search = ranges(lr=LEARNING_RATE, beta=Log(1e-5, 1e1))

    def build(self) -> None:
        c, tasks = self.config, self.spec.n_tasks
        self.target = FunctionalNetwork(self.network())
        n = self.target.n_weights
        self.embeddings = torch.randn(tasks, c.embedding, device=self.device)
        net = hypernetwork(c.embedding, c.hidden, n, c.activation, c.chunk, c.chunk_embedding)
        if c.xavier:
            xavier_(net)
        self.hypernetwork = net.to(self.device)
        self.statistics: list[Statistics] = []
        """Batch norm's running statistics of each task."""

    def learn(self, task: Task) -> None:
        t = task.index
        self.statistics.append({name: s.clone() for name, s in self.target.first_statistics.items()})
        embedding = nn.Parameter(self.embeddings[t : t + 1].clone())
        with torch.no_grad():
            targets = self.hypernetwork(self.embeddings[:t])
        if self.config.look_ahead and t:
            optimizer = adam([*self.hypernetwork.parameters(), embedding], self.config.lr)
            self.fit(task, self.look_ahead_loss(t, embedding, targets, optimizer), optimizer)
        elif isinstance(self.hypernetwork, Hypernetwork):
            small = [*self.hypernetwork.small_parameters(), embedding]
            with FusedAdam(self.hypernetwork.output, small, self.config.lr) as optimizer:
                self.fit(task, self.loss(t, embedding, targets), optimizer)
        else:
            parameters = [*self.hypernetwork.parameters(), embedding]
            self.fit(task, self.loss(t, embedding, targets), parameters, lr=self.config.lr)
        self.embeddings[t] = embedding.detach()[0]

    def loss(self, t: int, embedding: Tensor, targets: Tensor) -> Callable[[Batch], Tensor]:
        """Equation 2 with dtheta = 0: one pass of the hypernetwork for the current and all old tasks."""

        def total(batch: Batch) -> Tensor:
            if not t:
                return self.task_loss(self.hypernetwork(embedding)[0], batch)
            own, drift = self.hypernetwork.held(torch.cat([embedding, self.embeddings[:t]]), targets)
            return self.task_loss(own[0], batch) + self.config.beta / t * drift

        return total

    def look_ahead_loss(
        self, t: int, embedding: Tensor, targets: Tensor, optimizer: torch.optim.Adam
    ) -> Callable[[Batch], Tensor]:
        """Equation 2; dtheta is a constant in the gradient. Needs the optimiser's moments."""
        names = [name for name, _ in self.hypernetwork.named_parameters()]
        parameters = list(self.hypernetwork.parameters())

        def total(batch: Batch) -> Tensor:
            value = self.task_loss(self.hypernetwork(embedding)[0], batch)
            gradients = torch.autograd.grad(value, parameters, retain_graph=True)
            steps = next_step(optimizer, parameters, gradients)
            ahead = {name: p + d for name, p, d in zip(names, parameters, steps, strict=True)}
            others = functional_call(self.hypernetwork, ahead, (self.embeddings[:t],))
            return value + self.config.beta / t * mse_loss(others, targets, reduction="sum")

        return total

    def task_loss(self, weights: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy on the task's own head for flat target weights (N,)."""
        assert isinstance(batch.task, int)
        logits = self._head(self.target(weights, batch.x, self._statistics_of(batch.task), training=True), batch.task)
        return cross_entropy(logits, self.within_task(batch.y, batch.task))

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        if self.spec.scenario is TIL:
            return self._logits(x, slice(task_id, (task_id or 0) + 1))[0]
        logits = self._logits(x, slice(0, max(1, self.tasks_seen)))
        task = inference.least_entropy(logits)
        return inference.over_all_classes(logits, task) if self.spec.scenario is CIL else inference.chosen(logits, task)

    def infer_task(self, x: Tensor) -> Tensor:
        """The task whose model has the least predictive entropy, (b,) int64."""
        return inference.least_entropy(self._logits(x, slice(0, max(1, self.tasks_seen))))

    def _logits(self, x: Tensor, tasks: slice) -> Tensor:
        """Each task's model on its own head, (k, b, classes per task)."""
        weights = self.hypernetwork(self.embeddings[tasks])
        first = tasks.start or 0
        logits = [self.target(row, x, self._statistics_of(first + i)) for i, row in enumerate(weights)]
        return torch.stack([self._head(values, first + i) for i, values in enumerate(logits)])

    def _statistics_of(self, task: int) -> Statistics:
        known = self.statistics or [self.target.first_statistics]
        return known[min(task, len(known) - 1)]

    def _head(self, logits: Tensor, task: int) -> Tensor:
        if self.spec.scenario is DIL:
            return logits
        per_task = self.spec.classes_per_task
        return logits[:, task * per_task : (task + 1) * per_task]

    def exhibits(self) -> dict[str, Exhibit]:
        """The embeddings of the tasks learnt, as boxes of no width."""
        learnt = self.embeddings[: self.tasks_seen]
        return {"embeddings": exhibits.embeddings(learnt, torch.zeros_like(learnt))}


@torch.no_grad()
def next_step(optimizer: torch.optim.Adam, parameters: Sequence[Tensor], gradients: tuple[Tensor, ...]) -> list[Tensor]:
    """The change Adam would make with these gradients and its present moments; nothing is changed.

    As in the authors' look-ahead, eps joins the root of the second moment before its bias correction
    (Adam's own step adds it after), which differs only where a gradient is as small as eps.
    """
    group = optimizer.param_groups[0]
    beta1, beta2 = group["betas"]
    steps = []
    for p, g in zip(parameters, gradients, strict=True):
        kept = optimizer.state.get(p, {})
        count = kept["step"].double() + 1 if kept else torch.ones((), dtype=torch.float64, device=p.device)
        mean = kept["exp_avg"].lerp(g, 1 - beta1) if kept else (1 - beta1) * g
        square = kept["exp_avg_sq"] * beta2 + (1 - beta2) * g * g if kept else (1 - beta2) * g * g
        size = group["lr"] * (1 - beta2**count).sqrt() / (1 - beta1**count)
        steps.append(-size.to(p.dtype) * mean / (square.sqrt() + group["eps"]))
    return steps
