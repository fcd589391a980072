"""HAT: hard attention to the task; each task learns gates of all units, and trains weights that no task has gated in.

Serra et al. (2018), "Overcoming Catastrophic Forgetting with Hard Attention to the Task", ICML, arXiv 1801.01423. The
network is a chain of layers. A task draws an embedding e ~ N(0, 1), one number for each unit below its own head (for
each map of a convolution), and the gate of a unit multiplies its output:

    a = sigmoid(s e),   which is the unit's row of weights and its bias times a, since ReLU and pooling scale

s rises in every epoch from 1/S to S (`steepest`); answers use s = S. With A the largest gates of earlier tasks,

    loss       cross-entropy + lam R,   R = sum a (1 - A) / sum (1 - A)        (A = 0 in the first task)
    gradients  dW_oi (1 - min(A_o, A_i)),   db_o (1 - A_o),   de (S/s) (cosh(s e) + 1) / (cosh(e) + 1)

then the norm of all gradients is limited to `clip`, and after the step e to [-6, 6]. Finally A <- max(A, sigmoid(S e)).

With `gates = "hard"`, the default, answers use the gates a = [e > 0], and A is 0 or 1. An open unit's weights from open
units and its bias are then frozen, a closed unit's are times 0, and the promise is exact: old answers are the same bit
by bit. After each step the frozen weights get their frozen values back, so no optimiser can move them.

With `gates = "soft"`, the published form, the promise is approximate: where 0 < A < 1, weights of old tasks move on,
the more the smaller S is. `audit` compares the network that answers a task with a copy, counts the entries that moved,
and reports by how much. The row of a unit and the columns that read it have a square root of the gate each there, so
that the drift of a weight with a nearly closed end is small.

Adam makes a whole step of any gradient, however small soft gates have made it, and is refused with them. Momentum
begins anew with each task, so that it holds what soft gates have left of gradients and nothing of earlier tasks.

DIL and CIL by the shared task inference are an addition to the paper, which has TIL only. Networks with norm layers or
residual streams are skipped, since several layers would have to share gates. The table `gates` has the share of open
units, and of units whose A is neither 0 nor 1; with hard gates `capacity` has the share of weights taken.

Deviations from the official code, and the option that restores its behaviour:
- Gates are hard in answers and in what is frozen (gates="soft").
- s reaches S at the last step of an epoch, as in the paper. There it depends on the position of a batch's first sample,
  so that the last batch does not reach S (schedule="official").
- R is 0 once all units are taken; there, 0/0.
- `clip_embedding` may limit the embedding's gradient apart; by default, and there, one norm includes it after the
  compensation, so that a large one shortens the step of the weights.
- Under a plain budget the last parameters are kept; there, those of the epoch with the least validation loss
  (selection="val"), which on Permuted MNIST is the loss of the training samples. The rate is lowered on a plateau under
  a validated budget alone, and not with selection="val".
- The head of the task alone is computed; there, all heads in every pass.

Published settings: SGD 0.05, a third of it after 5 epochs without a lower validation loss, at most 200 epochs, batches
of 64, lam 0.75, S 400; searched were lam from 0.1 to 4 and S from 25 to 800.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from benchmarks.types import StreamSpec, UserError
from methods.base import Batch, Exhibit, Needs, Task, register
from methods.networks import targets
from methods.point_per_task import PointPerTask
from methods.point_promise import Numbers
from methods.search import Log, OneOf, ranges
from methods.shared import inference, optimizers, tables
from methods.shared.attention import Annealing, Schedule, capacity_of_units, compensation, gate_table, occupancy
from methods.shared.chain import Gating, chain_of, no_chain
from methods.shared.grouped import Group, GroupedNetwork, Named, Point
from methods.shared.inference import Inference
from methods.shared.optimizers import OptimizerName
from methods.shared.ownership import WORD, holding, pack, unpack

LARGEST_EMBEDDING = 6.0
"""Limit of |e| after each step (official code)."""


@register("hat")
class HAT(PointPerTask):
    """Hard attention to the task: a gate for each unit and task, and weights frozen by gates (Serra et al. 2018)."""

    capturable = True

    @dataclass(frozen=True)
    class Config:
        lr: float = 0.05
        """Learning rate."""
        optimizer: OptimizerName = "sgd"
        """SGD, or Adam (with hard gates only); a fresh one for each task."""
        momentum: float = 0.0
        """Momentum of SGD."""
        gates: Literal["hard", "soft"] = "hard"
        """Gates of answers, and of what is frozen: 0 or 1, or sigmoids of slope S (official code)."""
        steepest: float = 400.0
        """S, the largest slope s of the gates; the smallest is 1/S."""
        lam: float = 0.75
        """Strength of the regulariser R, which keeps units closed."""
        schedule: Schedule = "paper"
        """Slope in an epoch: S at its last step, or by the position of a batch's first sample (official code)."""
        clip: float = 10000.0
        """Largest norm of the gradients."""
        clip_embedding: float | None = None
        """Largest norm of the embedding's gradient alone; None: it counts in `clip` (official code)."""
        selection: Literal["last", "val"] = "last"
        """Keep the last parameters, or of every epoch's those with the least validation loss."""
        inference: Inference = "entropy"
        """DIL, CIL: task inference by least entropy, or nearest class (FeCAM); "interval" is refused."""
        fecam_answer: Literal["class", "task"] = "class"
        """With FeCAM, answer with the nearest class itself, or use only its task."""
        fecam_tukey: bool = False
        """With FeCAM, take the square root of the features."""
        search = ranges(
            lr=Log(1e-3, 1.0),
            lam=OneOf((0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 4.0)),
            steepest=OneOf((25.0, 50.0, 100.0, 200.0, 400.0, 800.0)),
        )

        def __post_init__(self) -> None:
            if not 0 <= self.momentum < 1:
                raise UserError(f"hat: momentum = {self.momentum} must be at least 0 and less than 1")
            if self.steepest < 1 or self.lam < 0:
                raise UserError(f"hat: steepest = {self.steepest} must be at least 1, and lam = {self.lam} at least 0")
            if self.clip <= 0 or (self.clip_embedding is not None and self.clip_embedding <= 0):
                raise UserError(f"hat: clip = {self.clip} and clip_embedding = {self.clip_embedding} must be above 0")
            if self.optimizer == "adam" and self.gates == "soft":
                raise UserError(
                    'hat: optimizer = "adam" makes whole steps of what soft gates leave of the gradients of old '
                    'weights; write "sgd", or gates = "hard"'
                )
            inference.check("hat", self.inference)

    config: Config

    # -- shapes and memory -------------------------------------------------------------------------

    @classmethod
    def skip(cls, spec: StreamSpec, config: Any) -> str | None:
        """Skip also networks that are no chain of layers."""
        return super().skip(spec, config) or no_chain(cls.name, spec.network, spec.input_shape)

    @classmethod
    def needs(cls, spec: StreamSpec, config: Any) -> Needs:
        """Gates and head of each task, and the audit's copies; scaled and frozen weights of a step."""
        network = targets.on_meta(spec.network, spec.input_shape, spec.classes_per_task)
        units = sum(layer.units for layer in chain_of(network)[:-1])
        first = GroupedNetwork(network, lambda *_: Group.MASKED).first
        n, head = first.masked.numel(), first.own.numel()
        gates, copies = (-(-units // WORD), -(-n // WORD)) if config.gates == "hard" else (units, n)
        kept = gates + 2 * head + copies + cls.floats_per_task(spec, config)
        return Needs(3 + (config.selection == "val"), floats_per_task=kept, generated=5)

    def build(self) -> None:
        super().build()
        network = self.network(self.spec.classes_per_task)
        layers = chain_of(network)
        self.target = GroupedNetwork(network, lambda *_: Group.MASKED)
        self.gating = Gating(layers, self.target.shapes[Group.MASKED])
        masked, _, own, _ = self.target.first
        self.weights, self.own = nn.Parameter(masked.clone()), nn.Parameter(own.clone())
        self.embedding = nn.Parameter(self.first_embedding(0))
        """Embedding (u,) of the task in training."""
        self.gates: list[Tensor] = []
        """Gates of the learnt tasks: packed bits of hard ones, or (u,)."""
        self.kept: list[Tensor] = []
        """Head (h,) of each learnt task."""
        self.promise(self.weights if self.hard else self.weights[:0])

    # -- gates -------------------------------------------------------------------------------------

    @property
    def hard(self) -> bool:
        """True if gates are 0 or 1."""
        return self.config.gates == "hard"

    def first_embedding(self, task: int) -> Tensor:
        """Initial embedding (u,) of a task."""
        return torch.randn(sum(self.gating.units)).to(self.weights)

    def first_head(self, task: int) -> Tensor:
        """Values (h,) with which the head of a task starts: those of the network as it was built."""
        return self.target.first.own

    @torch.no_grad()
    def gates_of(self, task: int) -> Tensor:
        """Gates (u,) of a task's answers; those of the latest one for a task not yet learnt."""
        if task < len(self.gates):
            kept = self.gates[task]
            return unpack(kept, len(self.embedding)).to(self.weights) if self.hard else kept
        return (self.embedding > 0).to(self.weights) if self.hard else (self.config.steepest * self.embedding).sigmoid()

    def taken(self) -> Tensor:
        """Largest gates A (u,) of the learnt tasks; 0 before the first."""
        every = [self.gates_of(task) for task in range(len(self.gates))]
        return torch.stack(every).amax(0) if every else torch.zeros_like(self.embedding, requires_grad=False)

    def mask(self, task: int) -> Tensor:
        """Mask (n,) bool of the weights between units that are more than half open in a task, and of their biases."""
        return self.gating.least(self.gates_of(task)) > 0.5

    # -- training ----------------------------------------------------------------------------------

    def learn(self, task: Task) -> None:
        with torch.no_grad():
            self.own.copy_(self.first_head(task.index))
            self.embedding.copy_(self.first_embedding(task.index))
        weights = _leaves(self.target.views(self.weights, Group.MASKED))
        own = _leaves(self.target.views(self.own, Group.OWN))
        trained, taken = [*weights.values(), *own.values()], self.taken()
        optimizer = self.fresh_optimizer([*trained, self.embedding])
        budget, samples = task.budget, len(task.train)
        annealing = Annealing.over(
            budget.steps_for(samples), samples, budget.batch_size, self.config.steepest, self.config.schedule
        )

        def loss(batch: Batch) -> Tensor:
            gates = (annealing.slope(self.step) * self.embedding).sigmoid()
            logits = self.target.trained({**self.gating.scaled(weights, gates), **own}, {}, batch.x)
            error = cross_entropy(self.of_task(logits, task.index), self.within_task(batch.y, task.index))
            return error + self.config.lam * occupancy(gates, taken)

        self.change_gradients(optimizer, weights, trained, self.gating.least(taken), annealing)
        hold = self.holding(taken)
        self.fit_best(
            task, loss, optimizer, [*trained, self.embedding], lambda: self.point(task.index), after_step=hold
        )
        gates = self.gates_of(task.index)
        self.gates.append(pack(gates > 0) if self.hard else gates)
        self.kept.append(self.own.detach().clone())
        self.describe_classes(task)
        self.freeze(task.index)

    def fresh_optimizer(self, trained: list[Tensor]) -> torch.optim.Optimizer:
        """Optimiser of a task."""
        if self.config.optimizer == "adam":
            return optimizers.adam(trained, self.config.lr)
        return optimizers.SGD(trained, self.config.lr, momentum=self.config.momentum, fused=True)

    def change_gradients(
        self,
        optimizer: torch.optim.Optimizer,
        weights: Named,
        trained: list[Tensor],
        used: Tensor,
        annealing: Annealing,
    ) -> None:
        """Let the optimiser, before each step, mask, compensate and clip the gradients; used: min(A_o, A_i) (n,)."""
        free = self.target.views(1 - used, Group.MASKED) if self.gates else {}
        apart = self.config.clip_embedding

        @torch.no_grad()
        def before(*_: Any) -> None:
            for name, part in free.items():
                gradient = weights[name].grad
                assert gradient is not None
                gradient.mul_(part)
            assert self.embedding.grad is not None
            slope = annealing.slope(self.step)
            self.embedding.grad.mul_(compensation(self.embedding, slope, self.config.steepest))
            clip_grad_norm_([*trained, *([] if apart else [self.embedding])], self.config.clip)
            if apart:
                clip_grad_norm_([self.embedding], apart)

        optimizer.register_step_pre_hook(before)

    def holding(self, taken: Tensor) -> Any:
        """Function to call after each step: limits the embedding, and sets frozen weights back if gates are hard."""
        # a gradient of 0 moves nothing under SGD, but Adam's steps and a sign of zero are the optimiser's business
        hold = holding(self.weights, self.gating.least(taken) == 0) if self.hard else lambda: None

        @torch.no_grad()
        def after() -> None:
            self.embedding.clamp_(-LARGEST_EMBEDDING, LARGEST_EMBEDDING)
            hold()

        return after

    # -- answers -----------------------------------------------------------------------------------

    @torch.no_grad()
    def point(self, task: int) -> Point:
        """Network of a task; that of the latest one for a task not yet learnt."""
        weights = self.gating.split(self.target.views(self.weights, Group.MASKED), self.gates_of(task))
        own = self.kept[task] if task < len(self.kept) else self.own
        return self.target.first._replace(masked=weights, own=own)

    @torch.no_grad()
    def numbers(self, task: int) -> Numbers:
        """With hard gates the shared weights, those that are open, and the head; else the task's network."""
        if self.hard:
            return Numbers(self.weights.detach(), self.mask(task), self.kept[task])
        nothing = self.weights.detach()[:0]
        # + 0: the zero of a closed entry changes its sign with the weight, which no answer shows
        return Numbers(nothing, nothing.bool(), torch.cat([self.point(task).masked + 0.0, self.kept[task]]))

    def rebuilt(self) -> list[Tensor]:
        """The latest task's head, of which a copy is kept, and its embedding, of which the gates are kept."""
        return [self.own, self.embedding] if self.kept else []

    # -- tables ------------------------------------------------------------------------------------

    @torch.no_grad()
    def exhibits(self) -> dict[str, Exhibit]:
        """Gates and their overlap; with hard gates also the capacity taken after each task."""
        every = [self.gates_of(task) for task in range(len(self.gates))]
        found: dict[str, Exhibit] = {"gates": gate_table(every), "mask-overlap": tables.mask_overlap(every)}
        if self.hard:
            masks = [self.mask(task) for task in range(len(self.gates))]
            found["capacity"] = capacity_of_units([gates > 0 for gates in every], masks)
        return found


def _leaves(views: Named) -> Named:
    """Trainable tensors in the memory of the views."""
    return {name: view.detach().requires_grad_() for name, view in views.items()}
