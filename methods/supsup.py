"""SupSup: supermasks in superposition; a trained mask for each task over weights that are random and never trained.

Wortsman et al. (2020), "Supermasks in Superposition", NeurIPS, arXiv 2006.14769. The weights W are signed constants,

    W = sign(W0) sqrt(2 / fan_in),   W0 the network as it is built from the seed,

without biases; norm layers have no scale and shift, and each task has its own statistics. A task draws scores
v ~ U(+-1/sqrt(fan_in)), one per weight, output layer included, and trains nothing else. Its mask is, tensor by tensor,

    mask="top-k"      m = 0 for the int((1 - k) n) smallest |v|, 1 for the others; the gradient of m goes to |v|
    mask="threshold"  m = [v >= 0]; the gradient of m goes to v

k = `keep`, or keep="budget": k = min(0.5, c (o + i) / (o i k1 k2)) with c = `budget` (Erdos-Renyi). The network has
`superfluous` outputs more than classes, which the loss includes and no answer uses.

TIL: the mask of the given task. DIL and CIL infer the task for each sample. The masks of the k tasks learnt are mixed
with shares alpha, W * sum_i alpha_i m_i, and g_i is the gradient of an objective F with respect to alpha_i:

    objective="entropy"      F = entropy of the softmax over all outputs
    objective="superfluous"  F = logsumexp of all outputs, those of classes being constants in the gradient
    inference="one-shot"     alpha_i = 1/k; the task of the least g_i
    inference="binary"       the half of the tasks with the least g_i stay, with equal shares, until one is left
    inference="entropy"      no mixture: the task whose own network is most certain, the suite's common inference

g is exact and of each sample alone: g_i = sum_l <d_l, W_l m_i,l a_l> with layer inputs a_l and deltas d_l of one
forward and one backward pass (methods/shared/superposed.py). So "one-shot" takes k products a layer and no k backward
passes; each further round of "binary" takes as long as a forward and a backward pass for each task.

The promise is exact: nothing that answers an old task is ever trained. `audit` draws the weights from the seed anew,
and compares them, copies of the masks and of the statistics bit by bit. With mixtures there are no bounds of answers
in DIL and CIL. Stored are 1 bit per weight and task, and the statistics. Weights count as nothing, since they come from
the seed, and neither do scores, since every task draws them anew; a checkpoint holds neither. In the exhibit
`capacity`, `union` has the weights that some mask uses, as if they were stored.

Deviations from the official code:
- The task is inferred for each sample. There the first sample of a batch decides for all of it, and a batch holds one
  task only, so that the published accuracies are of batches.
- Inference and answers use evaluation mode; there it is training mode, with the batch's statistics and dropout.
- Mixed masks use the mean of the tasks' statistics; there, those of the last task of the stream, trained or not.
- "binary" keeps a fixed number of tasks in each round. There gradients equal to the median stay too, so that a round
  may drop none, and a guard leaves the task that an earlier batch had.
- Weight decay acts on scores, and is refused with "threshold", where it would pull all of them to the threshold.
- Equal scores at the cut are dropped in order of index; there their order is that of an unstable sort.
- Under a plain budget the last scores are kept (selection="val": those of the epoch with the least validation
  loss); there the best test accuracy is reported next to that of the last ones.

Published settings: CIFAR-100 20 x 5 (TIL): "top-k", Adam 1e-3, weight_decay 1e-4, schedule="cosine" over 250 epochs,
batches of 128, budget from 1 to 32. Permuted MNIST (task inferred): "threshold", RMSprop 1e-4, batches of 128, 1000
steps, 500 outputs for 1024-1024 and 100 for 300-100.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.types import StreamSpec, derived_seed
from methods.base import TIL, Batch, Exhibit, Needs, Task, UserError, register
from methods.intervals.interval import Interval
from methods.networks import targets
from methods.point_per_task import PointPerTask, steps_per_epoch
from methods.point_promise import Numbers
from methods.search import LEARNING_RATE, OneOf, ranges
from methods.shared import inference, optimizers, supermasks, tables
from methods.shared.capacity import capacity
from methods.shared.grouped import Group, GroupedNetwork, Named, Point, layer_of
from methods.shared.inference import Classes, TaskInference
from methods.shared.linear import NORM_LAYERS, linear_in_weight
from methods.shared.maskable import Statistics
from methods.shared.ownership import WORD, pack, unpack
from methods.shared.superposed import Superposed, lowest, unlike_samples
from methods.shared.topk import above_rank, straight_through

INFERRED_AT_ONCE = 250
"""Samples whose task is inferred together, since a backward pass keeps the outputs of all layers."""


@dataclass(frozen=True)
class Scratch:
    """Scores of the task in training. A finished task has its mask, so that they are not part of the state."""

    stateless: ClassVar[bool] = True
    scores: nn.Parameter


@register("supsup")
class SupSup(PointPerTask):
    """Supermasks in superposition: a trained mask for each task over fixed random weights (Wortsman et al. 2020)."""

    capturable = True
    remedy = 'set superfluous, with inference = "one-shot" or "binary"'

    @dataclass(frozen=True)
    class Config:
        lr: float = 1e-3
        """Learning rate of the scores."""
        optimizer: Literal["adam", "rmsprop"] = "adam"
        """Adam, or RMSprop; a fresh one for each task."""
        schedule: Literal["constant", "cosine"] = "constant"
        """Learning rate: constant, or lowered after each epoch, along a half cosine that ends at 0."""
        weight_decay: float = 0.0
        """L2 penalty on the scores ("top-k" only)."""
        mask: Literal["top-k", "threshold"] = "top-k"
        """A task's mask: a fixed share of each tensor, of the largest |scores|; or all scores that are not negative."""
        keep: float | Literal["budget"] = "budget"
        """With "top-k", share of each tensor's weights in a mask; "budget": a share that depends on its shape."""
        budget: float = 32.0
        """With keep = "budget", the factor c of the share."""
        scale_fan: bool = False
        """Scale the constants as if only the kept share of the inputs were there."""
        superfluous: int = 0
        """Outputs beyond those of classes."""
        inference: Literal["one-shot", "binary", "entropy"] = "one-shot"
        """DIL, CIL: task inference by the gradient of mixed masks, once or by halving; or by least entropy."""
        objective: Literal["entropy", "superfluous"] = "entropy"
        """Objective of this gradient: the entropy of all outputs (H), or the superfluous outputs' logsumexp (G)."""
        selection: Literal["last", "val"] = "last"
        """Keep the last scores, or of every epoch's those with the least validation loss."""
        search = ranges(lr=LEARNING_RATE, mask=OneOf(("top-k", "threshold")))

        def __post_init__(self) -> None:
            if self.keep != "budget" and not 0 < self.keep <= 1:
                raise UserError(f'supsup: keep = {self.keep} must be "budget", or a share above 0 and up to 1')
            if self.budget <= 0 or self.weight_decay < 0 or self.superfluous < 0:
                raise UserError(
                    f"supsup: budget = {self.budget} must be positive; weight_decay = {self.weight_decay} and "
                    f"superfluous = {self.superfluous} must not be negative"
                )
            if self.weight_decay and self.mask == "threshold":
                raise UserError(
                    f"supsup: weight_decay = {self.weight_decay} would pull all scores to the threshold; write 0, or "
                    'mask = "top-k"'
                )
            if self.objective == "superfluous" and not self.superfluous and self.inference != "entropy":
                raise UserError('supsup: objective = "superfluous" needs outputs that no class has; set superfluous')

    config: Config

    # -- shapes and memory -------------------------------------------------------------------------

    @classmethod
    def grouped(cls, network: nn.Module, config: Any) -> GroupedNetwork:
        """The network with signed constants as its weights and constant norm layers; its values are overwritten."""
        linear = {name for name, module in network.named_modules() if linear_in_weight(module)}
        for name, p in network.named_parameters():
            supermasks.make_constant(name, p, cls.share(p.shape, config) if p.dim() > 1 and config.scale_fan else 1.0)

        def group_of(name: str, p: Tensor) -> Group:
            if p.dim() > 1:
                return Group.MASKED
            return Group.ABSENT if layer_of(name) in linear else Group.FIXED

        return GroupedNetwork(network, group_of, own_head=False)

    @classmethod
    def skip(cls, spec: StreamSpec, config: Any) -> str | None:
        """Skip also networks with parameters that are no weight, bias, scale or shift.

        A constant sign is no scale, and the product formula needs layers that are linear in their weight. Where it
        infers the task, a sample enters each of them as one row.
        """
        network = targets.on_meta(spec.network, spec.input_shape, spec.classes_per_task)
        modules = dict(network.named_modules())
        for name, _ in network.named_parameters():
            owner = modules[layer_of(name)]
            if not (linear_in_weight(owner) or isinstance(owner, NORM_LAYERS)):
                return (
                    f"{cls.name}: {spec.network} has parameters outside of linear layers, convolutions and norm "
                    f"layers, in {name} ({type(owner).__name__})"
                )
        if spec.scenario is not TIL and config.inference != "entropy":
            layers = [name for name, module in modules.items() if linear_in_weight(module)]
            layer = unlike_samples(network, layers, spec.input_shape)
            if layer:
                return (
                    f"{cls.name}: in {spec.network} a sample enters {layer} as several rows, which the gradients of "
                    'mixed masks do not tell apart; inference = "entropy" needs none'
                )
        return super().skip(spec, config)

    @classmethod
    def tells_lone_classes(cls, spec: StreamSpec, config: Any) -> bool:
        """Check for a second output: gradients of mixed masks are over all outputs, superfluous ones too."""
        return config.inference != "entropy" and spec.classes_per_task + config.superfluous > 1

    @classmethod
    def needs(cls, spec: StreamSpec, config: Any) -> Needs:
        """Mask and statistics of each task, and the audit's copies; weights, and all masks while tasks are inferred."""
        outputs = spec.classes_per_task + config.superfluous
        first = cls.grouped(targets.on_meta(spec.network, spec.input_shape, outputs), config).first
        kept = -(-first.masked.numel() // WORD) + sum(b.numel() for b in first.statistics.values())
        mixed = -(-spec.n_tasks // 4) if spec.scenario in cls.inferred_in else 0  # a byte for each entry of a mask
        return Needs(4 + (config.selection == "val"), floats_per_task=2 * kept, generated=4 + mixed)

    def build(self) -> None:
        self.inference, self.classes = TaskInference(), list[Classes]()  # no FeCAM
        self.drawn_from = derived_seed(self.seed, self.spec.benchmark, self.spec.scenario, "weights")
        """Seed of the weights, which are not part of the state."""
        self.target = self.drawn()
        self.scratch = Scratch(nn.Parameter(self.first_scores()))
        self.masks: list[Tensor] = []
        """Masks of the learnt tasks, as packed bits."""
        self.statistics: list[Statistics] = []
        """Batch norm's buffers of each task begun."""
        self.promise(torch.empty(0, device=self.device))

    def drawn(self) -> GroupedNetwork:
        """Draw the network from its seed."""
        with torch.random.fork_rng(devices=[]):
            # only the CPU's generator, from which networks are drawn for all devices
            torch.default_generator.manual_seed(self.drawn_from)
            network = self.network(self.spec.classes_per_task + self.config.superfluous)
        return self.grouped(network, self.config)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        super().load_state_dict(saved)
        self.target = self.drawn()

    # -- masks -------------------------------------------------------------------------------------

    @property
    def scores(self) -> Tensor:
        """Scores (n,) of the task in training."""
        return self.scratch.scores

    @property
    def weights(self) -> Tensor:
        """Random weights (n,) of all layers."""
        return self.target.first.masked

    def first_scores(self) -> Tensor:
        """Initial scores (n,) of a task, U(+-1/sqrt(fan_in)) in each tensor."""
        shapes = self.target.shapes[Group.MASKED].values()
        return torch.cat([supermasks.first_scores(shape) for shape in shapes]).to(self.weights)

    @staticmethod
    def share(shape: torch.Size, config: Any) -> float:
        """Share of a weight (o, i, ...) in a mask; with "threshold", that of a task's first mask."""
        if config.mask == "threshold":
            return 0.5
        return supermasks.budgeted_share(shape, config.budget) if config.keep == "budget" else config.keep

    def present_mask(self) -> Tensor:
        """0-1 mask (n,) of the present scores, as floats."""
        scores = self.scores.detach()
        if self.config.mask == "threshold":
            return (scores >= 0).to(scores)
        shapes = self.target.shapes[Group.MASKED].values()
        ranks = [int((1 - self.share(shape, self.config)) * shape.numel()) for shape in shapes]
        return above_rank(scores.abs(), self.target.sizes(Group.MASKED), ranks)

    def mask(self, task: int) -> Tensor:
        """Mask (n,) bool of a task; that of the latest one, in training or learnt, for a task not yet learnt."""
        in_training = len(self.statistics) > len(self.masks)
        if task >= len(self.masks) and (in_training or not self.masks):
            return self.present_mask().bool()
        return unpack(self.masks[min(task, len(self.masks) - 1)], len(self.weights))

    # -- training ----------------------------------------------------------------------------------

    def learn(self, task: Task) -> None:
        with torch.no_grad():
            self.scores.copy_(self.first_scores())
        statistics = {name: b.clone() for name, b in self.target.first.statistics.items()}
        self.statistics.append(statistics)
        shapes, sizes = self.target.shapes[Group.MASKED].items(), self.target.sizes(Group.MASKED)
        fixed = self.target.views(self.target.first.fixed, Group.FIXED)
        optimizer = self.fresh_optimizer()

        def masked() -> Named:
            mask, magnitude = self.present_mask(), self.config.mask == "top-k"
            parts = straight_through(self.weights, self.scores, mask, sizes, magnitude)
            return {name: part.view(shape) for part, (name, shape) in zip(parts, shapes, strict=True)}

        def loss(batch: Batch) -> Tensor:
            logits = self.target.trained({**masked(), **fixed}, statistics, batch.x)
            return cross_entropy(logits, self.within_task(batch.y, task.index))

        def cool(done: int) -> None:
            part = done // steps_per_epoch(task) / self.epochs(task)
            for group in optimizer.param_groups:
                group["lr"] = self.config.lr * (1 + math.cos(math.pi * part)) / 2

        kept, after_epoch = [self.scores, *statistics.values()], cool if self.config.schedule == "cosine" else None
        self.fit_best(task, loss, optimizer, kept, lambda: self.point(task.index), after_epoch)
        self.masks.append(pack(self.present_mask().bool()))
        self.freeze(task.index)

    def trained_outputs(self, logits: Tensor, task: int) -> Tensor:
        """All logits (b, outputs): outputs beyond a task's classes are superfluous ones."""
        return logits

    def fresh_optimizer(self) -> torch.optim.Optimizer:
        """Optimiser of the scores."""
        rate, decay = self.config.lr, self.config.weight_decay
        if self.config.optimizer == "adam":
            return optimizers.adam([self.scores], rate, weight_decay=decay)
        return torch.optim.RMSprop([self.scores], rate, weight_decay=decay, capturable=self.scores.is_cuda)

    def epochs(self, task: Task) -> int:
        """Epochs that a task is trained, the last of which may be incomplete."""
        return -(-task.budget.steps_for(len(task.train)) // steps_per_epoch(task))

    # -- answers -----------------------------------------------------------------------------------

    @torch.no_grad()
    def point(self, task: int) -> Point:
        """Network of a task; that of the latest one for a task not yet learnt."""
        return self.target.first._replace(masked=self.weights * self.mask(task), statistics=self.statistics_of(task))

    def statistics_of(self, task: int) -> Statistics:
        """Batch norm's buffers of a task."""
        return self.statistics[min(task, len(self.statistics) - 1)] if self.statistics else self.target.first.statistics

    def logits(self, x: Tensor, task: int) -> Tensor:
        """Within-task logits (b, C) of a task's network."""
        return super().logits(x, task)[:, : self.spec.classes_per_task]

    def logit_bounds(self, x: Tensor, task: int) -> Interval:
        """Bounds (b, C) of the within-task logits of a task's network, without rounding, float64."""
        found = super().logit_bounds(x, task)
        return Interval(*(bound[:, : self.spec.classes_per_task] for bound in (found.lower, found.upper)))

    def bounds(self, x: Tensor, task_id: int | None = None) -> tuple[Tensor, Tensor]:
        """Bounds of the answers, as in `PointPromise`; NotImplementedError where mixed masks infer the task."""
        if self.spec.scenario in self.inferred_in and self.config.inference != "entropy":
            raise NotImplementedError("bounds of the gradients by which the task is inferred are not computed")
        return super().bounds(x, task_id)

    @torch.no_grad()
    def infer_task(self, x: Tensor) -> Tensor:
        """Inferred task of each sample, one of those seen, (b,) int64."""
        if self.config.inference == "entropy":
            return super().infer_task(x)
        mixture = self.mixture()
        return torch.cat([self.infer(mixture, part) for part in x.split(INFERRED_AT_ONCE)])

    def answers_and_task(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Within-task answers of every task seen (k, b, C), and the inferred task of each sample (b,)."""
        if self.config.inference == "entropy":
            return super().answers_and_task(x)
        return self.every_head(x)[0], self.infer_task(x)

    def mixture(self) -> Superposed:
        """Masks of all tasks seen over one network, whose statistics are their mean."""
        tasks = range(max(1, self.tasks_seen))
        statistics = supermasks.mean_statistics([self.statistics_of(task) for task in tasks])
        point = self.target.first._replace(statistics=statistics)
        return Superposed(self.target, point, torch.stack([self.mask(task) for task in tasks]))

    def infer(self, mixture: Superposed, x: Tensor) -> Tensor:
        """Task of each sample (b,) by the gradients of mixed masks."""
        of_superfluous = partial(supermasks.superfluous_logsumexp, classes=self.spec.classes_per_task)
        objective = inference.entropy if self.config.objective == "entropy" else of_superfluous
        left = len(mixture.masks)
        _, gradients = mixture.gradients(x, objective)
        kept = torch.ones_like(gradients, dtype=torch.bool)
        while True:
            left = 1 if self.config.inference == "one-shot" else -(-left // 2)
            kept = lowest(gradients, kept, left)
            if left == 1:
                return kept.to(torch.uint8).argmax(1)
            _, gradients = mixture.gradients_at(kept.to(gradients) / left, x, objective)

    # -- promise and tables ------------------------------------------------------------------------

    def numbers(self, task: int) -> Numbers:
        """Weights, those that the task uses, and its statistics."""
        fixed = self.target.first.fixed
        used = torch.cat([self.mask(task), torch.ones_like(fixed, dtype=torch.bool)])
        statistics = [b.flatten() for b in self.statistics_of(task).values() if b.is_floating_point()]
        own = torch.cat([torch.empty_like(fixed[:0]), *statistics])
        return Numbers(torch.cat([self.weights, fixed]), used, own)

    def freeze_shared(self, shared: Tensor, used: Tensor) -> None:
        """Copy nothing: the audit draws the weights anew."""

    def frozen_shared(self) -> Tensor:
        """Weights and constants (n,) as their seed gives them."""
        first = self.drawn().first
        return torch.cat([first.masked, first.fixed])

    @torch.no_grad()
    def exhibits(self) -> dict[str, Exhibit]:
        """Capacity taken after each task, and the overlap of the masks."""
        masks = [self.mask(task) for task in range(len(self.masks))]
        return {"capacity": capacity(masks), "mask-overlap": tables.mask_overlap(mask.float() for mask in masks)}
