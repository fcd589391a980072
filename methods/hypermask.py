"""HyperMask: one trained network shared by all tasks; a hypernetwork generates a mask of it per task.

Ksiazek & Spurek (2023), arXiv 2310.00113. With W the target's weights, e_t the task's embedding and h the
hypernetwork, task t is answered by the network with weights W * mask_t. mask_t is |tanh h(e_t)| with the entries
below the sparsity-th percentile of their tensor set to 0. The loss of task t (0-based) is

    CE(f(x; W * mask_t), y)  +  beta H  +  lambda N
    H = 1/t sum_{j<t} |h(e_j) - h*(e_j)|^2,   h* the hypernetwork before the task
    N = sum_i |(W_i - W_i*) mask_i|_p,        W* the target weights before the task, p = 1 or 2

minimised by one fresh Adam over hypernetwork, embeddings and W. One head of within-task classes serves all
tasks. Task identity: given in TIL; in CIL and DIL the task whose masked network answers with the smallest
entropy is taken (CIL: its class; DIL: its within-task label), or, with `inference="fecam"`, the task of the
nearest class in the feature space of its masked network. Both are the authors': entropy.py and FeCAM.py of their
repository serve Permuted MNIST, Split MNIST and CIFAR-100 in FeCAM's set-up alike. Which of them a table of the paper
used is not known here; its text was not at hand.

With `strength_per="weight"` H is divided by the N outputs of h (masks of tensors that are used unmasked included, since
H holds them too) and N by the number of target weights without batch norm, for p = 2 by the sum of the roots of the
tensors' sizes. A mask stays the factor that it is: the share it lets through does not depend on the network's size.

Deviations from the official program, and the option that restores its behaviour:
- H is divided by the number of old tasks once, as in the paper; the program divides twice
  (`regulariser_norm="official"`; "sum" does not divide).
- Selection on validation judges the very weights it keeps; the program judges those before the step, starts
  with the untrained network, and never turns dropout on again afterwards.
- Entropies come from log-softmax; the program's p log p is NaN where p underflows.
- FeCAM's statistics are computed once, at the end of a task, with jitter on the diagonal, and its Tukey option takes
  the root; the program re-reads all old training data, adds jitter to all entries and squares.
- Batch norm keeps running statistics per task; the program normalises with the test batch.
- Same as in the program, each with an option: only the output bias counts as last layer (`unmasked`); N also
  shrinks the masks of weights that moved (`detach_mask`); old embeddings are trained further (`freeze_embeddings`).

On a network without biases the last tensor is the head's matrix. There `unmasked="bias"` leaves the whole head unmasked
and shared by all tasks; "nothing" masks it too, as the suite `wsn-permuted` does.

Defaults are the published settings for Split MNIST, where the program also normalises and crops the images. For
Permuted MNIST-10: embedding 24, hidden (100, 100), sparsity 0, beta 5e-4, lambda 1e-3. (Published betas go with the
official division.)
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Collection
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.types import StreamSpec
from methods.base import TIL, Batch, Exhibit, Needs, Task, UserError, register
from methods.hypernetworks.network import hypernetwork
from methods.hypernetworks.output_layer import FusedAdam
from methods.network_per_task import NetworkPerTask
from methods.networks import targets
from methods.search import LEARNING_RATE, Even, Log, ranges
from methods.shared import domain, inference, strengths, tables
from methods.shared.inference import Inference
from methods.shared.maskable import MaskableNetwork, Statistics, WeightCache
from methods.shared.masks import Percent, masked, ramp, semi_binary_mask
from methods.shared.selection import Selection

PUBLISHED = tuple(
    strengths.Published(benchmark, network, MappingProxyType({"beta": beta, "lam": lam}))
    for benchmark, network, beta, lam in (
        ("split-mnist", "mlp-400-400", 1e-3, 1e-3),
        ("permuted-mnist-10", "mlp-1000-1000", 5e-4, 1e-3),
        ("split-cifar-100", "resnet-20x2", 0.01, 1.0),
        ("split-cifar-100", "zenkenet", 0.01, 0.01),
        ("split-cifar-100-5x20-fecam", "resnet-20x2", 0.01, 1.0),
        ("split-cifar-100-5x20-fecam", "zenkenet", 0.01, 0.01),
        ("split-tiny-imagenet", "resnet-20x2", 1.0, 0.1),
        ("split-tiny-imagenet", "zenkenet-tiny", 0.01, 1.0),
    )
)
"""The authors' datasets.py (commit 674bf9b)."""


@dataclass(frozen=True)
class Before:
    """Snapshot from before a task, with which its regularisers compare."""

    outputs: Tensor
    """Hypernetwork outputs h*(e_j) of the old tasks, before tanh, (t, N)."""
    weights: Tensor
    """Target weights W*, (N,)."""


class LossTerms(NamedTuple):
    """Three terms of the loss, 0-d, unweighted; the last two are 0 in the first task."""

    cross_entropy: Tensor
    output_drift: Tensor
    """H, the mean over old tasks."""
    weight_drift: Tensor
    """N."""


@register("hypermask")
class HyperMask(NetworkPerTask):
    """Task masks from a hypernetwork over one trained network (Ksiazek & Spurek 2023)."""

    capturable = True
    published = PUBLISHED

    @dataclass(frozen=True)
    class Config:
        lr: float = 1e-3
        """Adam learning rate."""
        embedding: int = 128
        """Length of a task's embedding."""
        hidden: tuple[int, ...] = (25, 25)
        """Widths of the hypernetwork's hidden layers (ELU)."""
        chunk: int = 0
        """Weights masked at once, if a full hypernetwork does not fit in memory; 0: one output per weight."""
        chunk_embedding: int = 32
        """Size of a chunk embedding."""
        sparsity: float = 30.0
        """Percentage of each tensor's mask set to zero; 0 keeps a soft mask of all weights."""
        adaptive_sparsity: bool = True
        """Increase the sparsity linearly during the first task."""
        beta: float = 1e-3
        """Weight of the drift of old tasks' masks, H."""
        lam: float = 1e-3
        """Weight of the movement of target weights, N."""
        strength_per: strengths.Per = "network"
        """Form of beta and lam: factors of sums over the weights (the paper's form), or of means over them."""
        norm: int = 1
        """p of the norms in N: 1 or 2 (not squared)."""
        masked_norm: bool = True
        """Weight the movement in N by the current task's mask."""
        detach_mask: bool = False
        """Restrict the gradient of N to the target weights, not the masks."""
        regulariser_norm: Literal["mean", "official", "sum"] = "mean"
        """Divide H's sum over t old tasks by t (mean), by t squared (official program) or not at all (sum)."""
        unmasked: Literal["bias", "layer", "nothing"] = "bias"
        """Part of the output layer that is not masked: its last tensor (official program), all of it, nothing."""
        freeze_embeddings: bool = False
        """Keep the embeddings of old tasks as they were."""
        selection: Literal["last", "val"] = "last"
        """Keep the last weights, or those with the highest validation accuracy."""
        plateau: bool = False
        """Multiply the learning rate by sqrt(0.1) after 6 epochs without better validation accuracy."""
        inference: Inference = "entropy"
        """Task inference: least entropy, or nearest class in feature space (FeCAM); "interval" is refused."""
        fecam_answer: Literal["class", "task"] = "class"
        """With FeCAM, answer with the nearest class itself, or use only its task."""
        fecam_tukey: bool = False
        """With FeCAM, take the square root of the features."""
        check_every: int = 100
        """Steps between two validations (with plateau: an epoch)."""
        search = ranges(lr=LEARNING_RATE, beta=Log(1e-5, 1e1), lam=Log(1e-5, 1e1), sparsity=Even(0.0, 80.0))

        def __post_init__(self) -> None:
            if not 0 <= self.sparsity <= 100:
                raise UserError(f"hypermask: sparsity = {self.sparsity} must be a percentage, 0 to 100")
            if self.norm not in (1, 2):
                raise UserError(f"hypermask: norm = {self.norm} must be 1 or 2")
            domain.hypernetwork("hypermask", self)
            domain.at_least("hypermask", self, 1, "check_every")
            strengths.check("hypermask", self, "beta", "lam")
            inference.check("hypermask", self.inference)

    config: Config

    @classmethod
    def needs(cls, spec: StreamSpec, config: Any) -> Needs:
        """The fused optimiser keeps no gradient; old tasks have targets and cached masks."""
        remembered = cls.floats_per_task(spec, config)
        return Needs(2 + (config.selection == "val"), per_task=2, floats_per_task=remembered, generated=8)

    @classmethod
    def held_weights(cls, spec: StreamSpec, config: Any) -> dict[str, float]:
        """Divisor of a strength per weight; see methods/shared/strengths.py."""
        network = targets.on_meta(spec.network, spec.input_shape, spec.classes_per_task)
        return cls._held(MaskableNetwork(network), config)

    @staticmethod
    def _held(target: MaskableNetwork, config: Any) -> dict[str, float]:
        n = sum(target.sizes)
        # `sum` of floats rounds otherwise from Python 3.12 on
        roots = functools.reduce(operator.add, map(math.sqrt, target.sizes))
        return {"beta": n, "lam": n if config.norm == 1 else roots}

    @classmethod
    def remarks(cls, spec: StreamSpec, config: Any, tuned: Collection[str]) -> list[str]:
        """Strengths in a form that does not fit the network."""
        without_paper = () if config.norm == 1 else ("lam",)  # the papers' values go with p = 1
        return super().remarks(spec, config, {*tuned, *without_paper})

    def build(self) -> None:
        super().build()
        config = self.config
        self.target = MaskableNetwork(self.network(self.spec.classes_per_task))
        self.cache = WeightCache()
        self.weights = nn.Parameter(self.target.first_weights.clone())
        self.affine = nn.Parameter(self.target.first_affine.clone().to(self.device))
        self.statistics: list[Statistics] = []
        """Running statistics of batch norm, for each task."""
        n_weights = self.weights.shape[0]
        made = hypernetwork(config.embedding, config.hidden, n_weights, "elu", config.chunk, config.chunk_embedding)
        self.hypernetwork = made.to(self.device)
        self.embeddings = nn.Parameter(torch.randn(self.spec.n_tasks, config.embedding).to(self.device))
        open_tensors = {"bias": 1, "layer": self.target.tensors_of_last_layer(), "nothing": 0}[config.unmasked]
        self.n_thresholded = len(self.target.sizes) - open_tensors

    # -- masks and masked networks ----------------------------------------------------------------

    def sparsity(self, steps_begun: Tensor | int = 1, steps: int = 1) -> Percent | None:
        """Percentage of masked weights after `steps_begun` of `steps` steps; None where no mask is cut."""
        return ramp(self.config.sparsity, steps_begun, steps) if self.config.sparsity else None

    def mask(self, outputs: Tensor, sparsity: Percent | None) -> Tensor:
        """Hypernetwork outputs (N,) -> mask (N,) in [0, 1)."""
        return semi_binary_mask(outputs, self.target.sizes, self.n_thresholded, sparsity)

    def masked_weights(self, mask: Tensor) -> Tensor:
        """Target weights times mask (N,); the unmasked tensors at the end pass unchanged."""
        return masked(self.weights, mask, sum(self.target.sizes[self.n_thresholded :]))

    @torch.no_grad()
    def weights_of(self, task: int) -> Tensor:
        """Masked weights (N,) of a task's network."""

        def compute() -> Tensor:
            outputs = self.hypernetwork(self.embeddings[task : task + 1])[0]
            return self.masked_weights(self.mask(outputs, self.sparsity()))

        return self.cache.get(task, [*self.hypernetwork.parameters(), self.embeddings, self.weights], compute)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        super().load_state_dict(saved)
        self.cache.clear()

    # -- training ---------------------------------------------------------------------------------

    def learn(self, task: Task) -> None:
        config, steps = self.config, task.budget.steps_for(len(task.train))
        if (config.selection == "val" or config.plateau) and len(task.validation) == 0:
            raise UserError("hypermask: selection = val and plateau need validation samples; this stream has none")
        self.cache.clear()
        self.statistics.append({name: b.clone() for name, b in self.target.first_statistics.items()})
        before = self.remember(task.index)
        ramps = config.adaptive_sparsity and task.index == 0
        fixed = self.sparsity()

        def loss(batch: Batch) -> Tensor:
            sparsity = self.sparsity(self.step + 1, steps) if ramps else fixed
            return self.total(self.loss_terms(batch, task.index, before, sparsity), task.index)

        others = [*self.hypernetwork.small_parameters(), self.embeddings, self.weights, self.affine]
        with FusedAdam(self.hypernetwork.output, others, config.lr) as optimizer:
            selection = self._selection(task, optimizer)
            epoch = -(-len(task.train) // task.budget.batch_size)
            every = epoch if config.plateau else config.check_every
            self.fit(
                task, loss, optimizer, on_check=selection.look, check_every=every,
                scheduled=config.selection == "last" and not config.plateau, judge=self.validation_loss,
                keep=self._trained(task.index),
            )  # fmt: skip
        selection.restore()
        self.cache.clear()
        self.describe_classes(task)

    def validation_loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of the batch's task under its mask, at the final sparsity."""
        assert isinstance(batch.task, int)
        self.cache.clear()
        logits = self.of_task(self.logits(batch.x, batch.task), batch.task)
        return cross_entropy(logits, self.within_task(batch.y, batch.task))

    def _selection(self, task: Task, optimizer: FusedAdam) -> Selection:
        task_id = task.index if self.spec.scenario is TIL else None

        def judge() -> Tensor:
            self.cache.clear()
            return self.accuracy(task.validation, task_id)

        keep = self._trained(task.index) if self.config.selection == "val" else []
        return Selection(judge, keep, optimizer if self.config.plateau else None)

    def _trained(self, task: int) -> list[Tensor]:
        """Tensors that the training of a task changes."""
        statistics = self.statistics[task].values()
        return [*self.hypernetwork.parameters(), self.embeddings, self.weights, self.affine, *statistics]

    @torch.no_grad()
    def remember(self, task: int) -> Before | None:
        """Take the snapshot for the regularisers of a task; None for the first task."""
        if task == 0:
            return None
        return Before(self.hypernetwork(self.embeddings[:task]), self.weights.detach().clone())

    def total(self, terms: LossTerms, task: int) -> Tensor:
        """Loss of a task, 0-d: the weighted sum of its terms."""
        factor = {"mean": 1.0, "official": 1.0 / max(1, task), "sum": float(task)}[self.config.regulariser_norm]
        c, held = self.config, self._held(self.target, self.config)
        beta = strengths.of_sum(c.beta, c.strength_per, held["beta"]) * factor
        lam = strengths.of_sum(c.lam, c.strength_per, held["lam"])
        return terms.cross_entropy + beta * terms.output_drift + lam * terms.weight_drift

    def loss_terms(self, batch: Batch, task: int, before: Before | None, sparsity: Percent | None) -> LossTerms:
        """Terms of the loss on one batch of a task, by one pass of the hypernetwork for all tasks so far."""
        config = self.config
        old = self.embeddings[:task]
        old = old.detach() if config.freeze_embeddings else old
        embeddings = torch.cat([self.embeddings[task : task + 1], old])
        if before is None:
            outputs, drift = self.hypernetwork(embeddings), None
        else:
            outputs, drift = self.hypernetwork.held(embeddings, before.outputs)
        mask = self.mask(outputs[0], sparsity)
        logits = self.target(self.masked_weights(mask), self.affine, self.statistics[task], batch.x, training=True)
        entropy = cross_entropy(self.of_task(logits, task), self.within_task(batch.y, task))
        if before is None or drift is None:
            return LossTerms(entropy, torch.zeros_like(entropy), torch.zeros_like(entropy))
        return LossTerms(entropy, drift / task, self._weight_drift(mask, before))

    def _weight_drift(self, mask: Tensor, before: Before) -> Tensor:
        config, moved = self.config, self.weights - before.weights
        mask = mask.detach() if config.detach_mask else mask
        if config.norm == 1:
            return torch.dot(moved.abs(), mask) if config.masked_norm else moved.abs().sum()
        moved = moved * mask if config.masked_norm else moved
        return torch.stack([torch.linalg.vector_norm(part) for part in moved.split(self.target.sizes)]).sum()

    # -- answers ----------------------------------------------------------------------------------

    def logits(self, x: Tensor, task: int) -> Tensor:
        """Within-task logits (b, C) under the mask of a task."""
        return self.target(self.weights_of(task), self.affine, self._statistics_of(task), x, training=False)

    def features(self, x: Tensor, task: int) -> Tensor:
        """Inputs of the output layer (b, d) under the mask of a task."""
        return self.target.features(self.weights_of(task), self.affine, self._statistics_of(task), x)

    def _statistics_of(self, task: int) -> Statistics:
        known = self.statistics or [self.target.first_statistics]
        return known[min(task, len(known) - 1)]

    def every_task(self, x: Tensor) -> tuple[Tensor, None]:
        """Within-task logits of every task seen, under its mask."""
        return torch.stack([self.logits(x, task) for task in range(max(1, self.tasks_seen))]), None

    def rebuilt(self) -> list[Tensor]:
        """Initial embeddings of the tasks not yet learnt."""
        return [self.embeddings[self.tasks_seen :]]

    @torch.no_grad()
    def exhibits(self) -> dict[str, Exhibit]:
        """Embeddings of the learnt tasks, and the overlap of their masks (masked tensors only)."""
        learnt, thresholded = self.embeddings[: self.tasks_seen], sum(self.target.sizes[: self.n_thresholded])
        masks = (self.mask(self.hypernetwork(row[None])[0], self.sparsity())[:thresholded] for row in learnt)
        points = tables.embeddings(learnt, torch.zeros_like(learnt))
        return {"embeddings": points, "mask-overlap": tables.mask_overlap(masks)}
