"""HNET: a task-conditioned hypernetwork; a regulariser keeps its outputs for old tasks.

Source: von Oswald, Henning, Grewe & Sacramento (2020), "Continual learning with hypernetworks", ICLR,
arXiv 1906.00695. Equation 2: L = L_task(theta, e_t) + beta/t sum_{j<t} |h(e_j, theta*) - h(e_j, theta + dtheta)|^2.

TIL: one head per task (CL1). DIL: one head (CL2). CIL: one head per task (CL3), the task is inferred.
In DIL and CIL the embedding with the least predictive entropy is used (HNET+ENT). With `inference="fecam"`, which is
HyperMask's and no part of the paper, it is that of the nearest class in its network's feature space; the statistics of
classes are taken once, at the end of their task. Each task has a fresh Adam; its embedding sees the task's loss only.
Batch norm keeps running statistics of each task, as in the authors' CIFAR runs.

Every variant of the regulariser in the authors' codes (hypercl, hypnettorch) is an option:

    look_ahead            True: at theta + dtheta, as in the paper's experiments; False: dtheta = 0, as in HyperInterval
    held_heads            "all" outputs (MNIST), or of an old task's output layer its "own" head only (CIFAR)
    held_weights          all weights equally ("equal"), or by Fisher information ("fisher")
    task_scaling          one factor per old task
    held_tasks            a random subset of old tasks at each step; the mean is over the subset
    online_targets        targets recomputed from a copy of the earlier hypernetwork: memory independent of tasks
    train_old_embeddings  the embeddings of old tasks are trained further
    start_at_previous     e_t starts at e_{t-1}

With `strength_per="weight"` the sum over weights is divided by their number: all weights that the hypernetwork makes,
those of batch norm and of every head included, since the sum runs over them; with held_heads = "own" without the other
tasks' heads, which count 0. Fisher information and task_scaling stay factors.

Deviations from the authors' code: Fisher information and own heads may be combined (their shapes do not fit there);
no learning-rate scheduler that reads test accuracy; entropy from log-softmax. Their generative replay (HNET+R) and
task classifier (HNET+TIR) are separate methods, not implemented here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.types import StreamSpec
from methods.base import DIL, TIL, Batch, Exhibit, Needs, Task, UserError, adam, register
from methods.hypernetworks import look_ahead
from methods.hypernetworks.held import HeldOutputs, own_head
from methods.hypernetworks.network import Hypernetwork, hypernetwork, xavier_
from methods.hypernetworks.output_layer import FusedAdam
from methods.hypernetworks.stateless import FunctionalNetwork, Statistics
from methods.intervals.weights import head_names
from methods.network_per_task import NetworkPerTask
from methods.networks import targets
from methods.search import LEARNING_RATE, Log, ranges
from methods.shared import domain, heads, inference, strengths, tables
from methods.shared.fisher import fisher
from methods.shared.inference import Inference

FISHER_SAMPLES = 2048
"""Training samples from which the Fisher information of `held_weights` is estimated."""

PUBLISHED = (
    *(
        strengths.Published(benchmark, network, MappingProxyType({"beta": beta}))
        for benchmark, network, beta in (
            ("split-mnist", "mlp-400-400", 0.01),
            ("permuted-mnist-10", "mlp-1000-1000", 0.1),
            ("permuted-mnist-100", "mlp-1000-1000", 0.01),
        )
    ),
    *(
        strengths.Published(
            "split-cifar-100",
            network,
            MappingProxyType({"beta": beta}),
            (TIL,),
            stream=MappingProxyType({"n_tasks": 6}),
            options=MappingProxyType({"held_heads": "own"}),
        )
        for network, beta in (("resnet-32", 0.05), ("zenkenet", 0.01))
    ),
)
"""The authors' scripts (hypercl, commit e325678). Their CIFAR stream is CIFAR-10, then five tasks of CIFAR-100; there
they hold only an old task's own head."""


@register("hnet")
class HNET(NetworkPerTask):
    """HNET: hypernetwork with output regulariser, chunked or full (von Oswald et al. 2020)."""

    capturable = True
    published = PUBLISHED

    @dataclass(frozen=True)
    class Config:
        lr: float = 1e-3
        """Adam learning rate of the hypernetwork and of the task embedding."""
        embedding: int = 96
        """Size of a task embedding."""
        hidden: tuple[int, ...] = (10, 10)
        """Hidden widths of the hypernetwork."""
        chunk: int = 42000
        """Target weights generated at once; 0 for a full hypernetwork with one output per weight."""
        chunk_embedding: int = 96
        """Size of a chunk embedding."""
        activation: Literal["relu", "elu"] = "relu"
        """Activation of the hypernetwork's hidden layers."""
        beta: float = 0.01
        """Strength of the output regulariser."""
        strength_per: strengths.Per = "network"
        """Form of beta: factor of the sum over the weights (the paper's form), or of the mean over held ones."""
        look_ahead: bool = True
        """Regularise at theta + dtheta, with dtheta the step of the task's gradient alone."""
        xavier: bool = True
        """Xavier-uniform matrices and zero biases (the authors' `custom_network_init`), else PyTorch's default."""
        held_heads: Literal["all", "own"] = "all"
        """TIL, CIL: regularise all outputs of an old task's network, or of its output layer only its own head."""
        held_weights: Literal["equal", "fisher"] = "equal"
        """Factor of each regularised weight: 1, or its Fisher information in the old task's network."""
        task_scaling: tuple[float, ...] = ()
        """Factor of each old task in the regulariser, in the order of the tasks (none: all 1)."""
        held_tasks: int = 0
        """Number of old tasks regularised per step, drawn anew for each; 0: all."""
        online_targets: bool = False
        """Keep the earlier hypernetwork instead of its outputs for all old tasks: constant memory, same numbers."""
        train_old_embeddings: bool = False
        """Train the embeddings of old tasks together with the hypernetwork."""
        start_at_previous: bool = False
        """Start a task's embedding at the previous task's, not at random."""
        inference: Inference = "entropy"
        """DIL, CIL: task inference by least entropy, or nearest class (FeCAM); "interval" is refused."""
        fecam_answer: Literal["class", "task"] = "class"
        """With FeCAM, answer the nearest class itself, or use its task only."""
        fecam_tukey: bool = False
        """With FeCAM, take the square root of the features."""
        search = ranges(lr=LEARNING_RATE, beta=Log(1e-5, 1e1))

        def __post_init__(self) -> None:
            if self.held_tasks < 0:
                raise UserError(f"hnet: held_tasks = {self.held_tasks} must not be negative")
            if any(factor < 0 for factor in self.task_scaling):
                raise UserError("hnet: task_scaling must not hold negative factors")
            domain.hypernetwork("hnet", self)
            strengths.check("hnet", self, "beta")
            inference.check("hnet", self.inference)

    @classmethod
    def needs(cls, spec: StreamSpec, config: Any) -> Needs:
        """The step ahead keeps the parameters twice more; targets of the regulariser grow by one a task."""
        remembered = cls.floats_per_task(spec, config)
        return Needs(5 if config.look_ahead else 3, per_task=1, floats_per_task=remembered, generated=8, passes=2)

    @classmethod
    def held_weights(cls, spec: StreamSpec, config: Any) -> dict[str, float]:
        """Divisor of a strength per weight; see methods/shared/strengths.py."""
        network = targets.on_meta(spec.network, spec.input_shape, spec.n_outputs)
        return {"beta": cls._held(FunctionalNetwork(network), spec, config)}

    @staticmethod
    def _held(target: FunctionalNetwork, spec: StreamSpec, config: Any) -> int:
        """Number of held weights of an old task; with own heads of unequal sizes, of a head of mean size."""
        if config.held_heads == "all" or spec.scenario is DIL:
            return target.n_weights
        head = sum(target.shapes[name].numel() for name in head_names(target.network))
        return target.n_weights - head // spec.n_tasks * (spec.n_tasks - 1)

    def build(self) -> None:
        super().build()
        c, tasks = self.config, self.spec.n_tasks
        if c.task_scaling and len(c.task_scaling) < tasks - 1:
            raise UserError(f"hnet: task_scaling has {len(c.task_scaling)} factors for {tasks - 1} old tasks")
        self.target = FunctionalNetwork(self.network())
        n = self.target.n_weights
        self.embeddings = torch.randn(tasks, c.embedding).to(self.device)
        net = hypernetwork(c.embedding, c.hidden, n, c.activation, c.chunk, c.chunk_embedding)
        if c.xavier:
            xavier_(net)
        self.hypernetwork = net.to(self.device)
        self.statistics: list[Statistics] = []
        """Batch norm's running statistics per task."""
        self.importances: list[Tensor] = []
        """Fisher information (N,) of each old task's network, if it weighs the regulariser."""

    def learn(self, task: Task) -> None:
        t, c = task.index, self.config
        self.statistics.append({name: s.clone() for name, s in self.target.first_statistics.items()})
        start = t - 1 if t and c.start_at_previous else t
        embedding = nn.Parameter(self.embeddings[start : start + 1].clone())
        held = self.held(t)
        moving = [embedding, held.embeddings] if c.train_old_embeddings and t else [embedding]
        trained = [*self.hypernetwork.parameters(), *moving]
        judged: Any = {"judge": self.validation_loss(embedding), "keep": [*trained, *self.statistics[t].values()]}
        if c.look_ahead and t:
            optimizer = adam(trained, c.lr)
            self.fit(task, self.look_ahead_loss(embedding, held, optimizer), optimizer, **judged)
        elif isinstance(self.hypernetwork, Hypernetwork) and (not t or held.plain):
            small = [*self.hypernetwork.small_parameters(), *moving]
            with FusedAdam(self.hypernetwork.output, small, c.lr) as optimizer:
                self.fit(task, self.loss(embedding, held), optimizer, **judged)
        else:
            self.fit(task, self.loss(embedding, held), trained, lr=c.lr, **judged)
        self.embeddings[:t], self.embeddings[t] = held.embeddings.detach(), embedding.detach()[0]
        if c.held_weights == "fisher":
            self.importances.append(self._fisher(task))
        self.describe_classes(task)

    def held(self, t: int) -> HeldOutputs:
        """Regularisation targets of task t: the outputs for tasks 0..t-1, weighted as configured."""
        c = self.config
        weights: Tensor | None = None
        if c.held_heads == "own" and self.spec.scenario is not DIL:
            rows = [self._rows(j) for j in range(t)]
            weights = own_head(self.target, head_names(self.target.network), rows).to(self.embeddings)
        if c.held_weights == "fisher" and t:
            importance = torch.stack(self.importances)
            weights = importance if weights is None else weights * importance
        if c.task_scaling:
            factors = self.embeddings.new_tensor(c.task_scaling[:t])[:, None]
            ones = factors.expand(t, self.target.n_weights)
            weights = ones if weights is None else weights * factors
        return HeldOutputs(
            self.hypernetwork, self.embeddings[:t], weights, c.held_tasks, c.online_targets, c.train_old_embeddings
        )

    def loss(self, embedding: Tensor, held: HeldOutputs) -> Callable[[Batch], Tensor]:
        """Equation 2 with dtheta = 0: one pass of the hypernetwork for the current and all old tasks."""
        t, beta = len(held.embeddings), self.beta()

        def total(batch: Batch) -> Tensor:
            if not t:
                return self.task_loss(self.hypernetwork.padded(embedding).squeeze(0), batch)
            if held.plain:
                assert held.targets is not None
                own, drift = self.hypernetwork.held(torch.cat([embedding, held.embeddings]), held.targets)
                return self.task_loss(own[0], batch) + beta / t * drift
            rows = held.draw()
            if held.frozen is not None:
                value = self.task_loss(self.hypernetwork.padded(embedding).squeeze(0), batch)
                return value + beta * held.drift_of(self.hypernetwork, rows)
            outputs = self.hypernetwork(torch.cat([embedding, held.embeddings[rows]]))
            return self.task_loss(outputs[0], batch) + beta * held.drift(outputs[1:], rows)

        return total

    def look_ahead_loss(
        self, embedding: Tensor, held: HeldOutputs, optimizer: torch.optim.Adam
    ) -> Callable[[Batch], Tensor]:
        """Equation 2; dtheta is a constant in the gradient. Needs the optimiser's moments."""
        beta = self.beta()

        def total(batch: Batch) -> Tensor:
            value = self.task_loss(self.hypernetwork.padded(embedding).squeeze(0), batch)
            return look_ahead.regularised(value, self.hypernetwork, embedding, optimizer, held, beta)

        return total

    def validation_loss(self, embedding: Tensor) -> Callable[[Batch], Tensor]:
        """Cross-entropy of the network of an embedding in training, which `predict` does not use yet."""

        def loss(batch: Batch) -> Tensor:
            assert isinstance(batch.task, int)
            weights = self.hypernetwork(embedding)[0]
            logits = self._head(self.target(weights, batch.x, self._statistics_of(batch.task)), batch.task)
            return cross_entropy(logits, self.within_task(batch.y, batch.task))

        return loss

    def beta(self) -> float:
        """The factor of the sum over weights."""
        return strengths.of_sum(
            self.config.beta, self.config.strength_per, self._held(self.target, self.spec, self.config)
        )

    def task_loss(self, weights: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy on the task's own head for flat target weights (N,) or, padded, more."""
        assert isinstance(batch.task, int)
        logits = self._head(self.target(weights, batch.x, self._statistics_of(batch.task), training=True), batch.task)
        return cross_entropy(logits, self.within_task(batch.y, batch.task))

    def logits(self, x: Tensor, task: int) -> Tensor:
        """Logits (b, C) of a task's network on its own head."""
        return self._logits(x, slice(task, task + 1))[0]

    def every_task(self, x: Tensor) -> tuple[Tensor, None]:
        """Logits of every task seen on its own head."""
        return self._logits(x, slice(0, max(1, self.tasks_seen))), None

    def features(self, x: Tensor, task: int) -> Tensor:
        """Inputs of the output layer (b, d) in the task's network."""
        weights = self.hypernetwork(self.embeddings[task : task + 1])[0]
        return self.target.features(weights, x, self._statistics_of(task))

    def _logits(self, x: Tensor, tasks: slice) -> Tensor:
        """Logits of each task's model on its own head, (k, b, classes per task)."""
        weights = self.hypernetwork(self.embeddings[tasks])
        first = tasks.start or 0
        logits = [self.target(row, x, self._statistics_of(first + i)) for i, row in enumerate(weights)]
        return heads.stacked([self._head(values, first + i) for i, values in enumerate(logits)])

    def _statistics_of(self, task: int) -> Statistics:
        known = self.statistics or [self.target.first_statistics]
        return known[min(task, len(known) - 1)]

    def _head(self, logits: Tensor, task: int) -> Tensor:
        return logits if self.spec.scenario is DIL else logits[:, self._rows(task)]

    def _rows(self, task: int) -> slice:
        """Output rows of a task's own head."""
        return self.spec.outputs_of(task)

    def _fisher(self, task: Task) -> Tensor:
        """Diagonal Fisher information of the task's network just learnt, (N,)."""
        network = self.network()
        with torch.no_grad():
            weights = self.target.named(self.hypernetwork(self.embeddings[task.index : task.index + 1])[0])
            for name, parameter in network.named_parameters():
                parameter.copy_(weights[name])
            for name, buffer in network.named_buffers():
                buffer.copy_(self.statistics[task.index][name])
        own = functools.partial(self._head, task=task.index)
        return fisher(network, task.train, own, "exact", task.budget.batch_size, FISHER_SAMPLES)

    def rebuilt(self) -> Sequence[Tensor | Mapping[str, Tensor]]:
        """Initial embeddings of the tasks not yet learnt."""
        return [self.embeddings[self.tasks_seen :]]

    def exhibits(self) -> dict[str, Exhibit]:
        """Embeddings of the learnt tasks, as boxes of zero width."""
        learnt = self.embeddings[: self.tasks_seen]
        return {"embeddings": tables.embeddings(learnt, torch.zeros_like(learnt))}
