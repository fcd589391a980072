"""HyperInterval (HINT): a hypernetwork maps interval embeddings of tasks to interval weights.

Source: Krukowski et al. (2024), "HINT: Hypernetwork Approach to Training Weight Interval Regions in
Continual Learning", arXiv 2405.15444. Three modes:

* TIL: each task owns a box in embedding space (learned centre and learned shape of fixed total
  radius). The box's image is the task's interval of weights.
* DIL: nested boxes. The centres e -> eps/(2E) cos(e) differ by at most the radius eps/E, so all
  boxes share an intersection; the network generated from it serves all tasks.
* CIL: the TIL model; the task of a sample is inferred: least entropy, plain or weighted by interval widths (both in the
  authors' entropy.py; which of them the paper's table used is not known here), or FeCAM, which is HyperMask's.

Options that select a deviation of the official code (default first):

    regulariser_norm  "official": divides by t twice, as published; "mean": once; "sum": never
    select            "val": candidates at full eps, judged and kept after the same update, by the accuracy of the
                      network that answers (DIL: the universal one); "claims": of the candidates within a standard
                      error of the best, the one with the fewest weights outside the boxes of old tasks; "last";
                      "official": judged before, kept after the update, also at annealed eps
                      (TIL), or by the training loss of a batch, only where round(eps) = eps (nested)
    universal         "point": the network at the intersection's centre lies in every task's box;
                      "intersection": its box; "official": full radius, sticks out of the boxes
    bounds            "interval": sound; "endpoints": three forwards, not a bound (official for conv)
    batch_norm        "running": running statistics per task (DIL: of the first task, then frozen), so
                      that bounds are sound and answers do not depend on the batch; "official": the
                      statistics of whatever batch is at hand, in testing too (needs "endpoints")
    inference         "entropy", "interval" (weighted by 1 / width); log-softmax, so 0 log 0 = 0. "fecam": nearest
                      class by features of the middle network, statistics of classes taken once at the end of their
                      task; nothing is certified then in CIL, since no bounds of distances are computed
    strength_per      "network": beta multiplies sums over weights, as published; "weight": means over all weights that
                      the hypernetwork makes, batch norm's included. In DIL a weight's lower end, middle and upper end
                      count a third each, so that it is one held weight there too

Defects of the official code, corrected without an option:
- dropout is active in every training step (there: in one iteration of each task) and never in the bounds' audit;
- the schedules exist for every number of steps (there: division by zero for 2 and 3 steps);
- with select="official" a task without a candidate keeps its last network (there: the untrained one, eps = 0.5);
- the intersection of nested boxes is never empty and needs no fallback (there: silently the midpoint);
- answers come from the middle network (there, for conv: after the exchange rule, from a mixture of three);
- accuracies are measured at full eps, because the centre of a box's image depends on eps (there: annealed eps);
- inputs may have any sign (there: negative inputs abort the program or are clipped);
- task inference uses the eps of training (there: always 1) and works for any number of tasks;
- CIL scores absolute labels ("CIL" there scores labels within a task, which is DIL here);
- a list of tasks selects those tasks (there: their positions, for the shapes of boxes);
- "custom_init" is not offered: it has no effect there. Nor is its interval ResNet, whose bounds are unsound.
The suite also measures whether old boxes stay where they were certified (`audit`), which the official program does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.types import StreamSpec, UserError
from methods.base import CIL, DIL, TIL, Batch, Exhibit, Needs, Task, register
from methods.box_per_task import BoxPerTask
from methods.hypernetworks.candidates import RULES
from methods.hypernetworks.ends import BoxByParameter
from methods.hypernetworks.network import hypernetwork
from methods.hypernetworks.output_layer import FusedAdam, Targets
from methods.hypernetworks.passes import Memory
from methods.hypernetworks.stateless import FunctionalNetwork, Statistics
from methods.intervals.boundable import unbounded
from methods.intervals.bounding import Interval, worst_case
from methods.networks import targets
from methods.search import LEARNING_RATE, Log, ranges
from methods.shared import domain, inference, strengths, tables
from methods.shared.inference import Inference
from methods.shared.needs import BOUNDS

_OWN_BOXES, _NESTED = (TIL, CIL), (DIL,)
PUBLISHED = tuple(
    strengths.Published(benchmark, network, MappingProxyType({"beta": beta}), scenarios)
    for benchmark, network, beta, scenarios in (
        ("split-mnist", "mlp-400-400", 0.01, _OWN_BOXES),
        ("split-mnist", "mlp-400-400", 0.001, _NESTED),
        ("permuted-mnist-10", "mlp-1000-1000", 0.01, _OWN_BOXES),
        ("permuted-mnist-10", "mlp-1000-1000", 0.005, _NESTED),
        ("split-cifar-10", "alexnet", 0.01, (TIL, DIL, CIL)),
        ("split-cifar-100", "alexnet", 0.01, _OWN_BOXES),
        ("split-cifar-100", "resnet-18", 0.01, _NESTED),
        ("split-cifar-100-20x5-fecam", "alexnet", 0.01, (TIL, DIL, CIL)),
        ("split-tiny-imagenet", "zenkenet-tiny", 0.01, (TIL, DIL, CIL)),
    )
)
"""Single-run settings of the authors' code (commit d42305d)."""


@register("hyperinterval")
class HyperInterval(BoxPerTask):
    """HyperInterval / HINT: interval embeddings of tasks give interval weights (Krukowski et al. 2024)."""

    capturable = True
    published = PUBLISHED
    inferred_in = frozenset({CIL})

    @dataclass(frozen=True)
    class Config:
        lr: float = 1e-3
        """Adam learning rate."""
        embedding: int = 24
        """Size E of a task embedding."""
        hidden: tuple[int, ...] = (100,)
        """Hidden widths of the hypernetwork."""
        chunk: int = 0
        """Target weights generated at once, if a full hypernetwork does not fit in memory; 0: one output per weight."""
        chunk_embedding: int = 32
        """Size of a chunk embedding."""
        beta: float = 0.01
        """Strength of the output regulariser."""
        strength_per: strengths.Per = "network"
        """Form of beta: factor of the sum over the weights (the paper's form), or of the mean over them."""
        eps: float = 1.0
        """L1 size of the radius vector of an embedding (the paper's gamma)."""
        kappa: float = 0.5
        """Final weight of the ordinary loss; 1 - kappa weighs the worst-case loss."""
        regulariser_norm: Literal["official", "mean", "sum"] = "official"
        """Normalisation of the summed drift of t old tasks."""
        select: Literal["val", "claims", "last", "official"] = "val"
        """Rule that selects the parameters kept of a task's training."""
        select_every: int = 10
        """Number of steps between two candidates."""
        plateau: bool = False
        """Multiply the learning rate by sqrt(0.1) after 6 validations without better accuracy: one an epoch, or one
        every `select_every` steps where an epoch is shorter."""
        universal: Literal["point", "intersection", "official"] = "point"
        """DIL: region generated from the universal embedding."""
        bounds: Literal["interval", "endpoints"] = "interval"
        """Evaluation of the interval target network in training."""
        batch_norm: Literal["running", "official"] = "running"
        """Statistics that batch norm uses outside training."""
        inference: Inference = "entropy"
        """CIL: how a task is inferred: least entropy, plain or weighted by intervals, or nearest class (FeCAM)."""
        fecam_answer: Literal["class", "task"] = "class"
        """With FeCAM, answer the nearest class itself, or use its task only."""
        fecam_tukey: bool = False
        """With FeCAM, take the square root of the features."""
        replaced = MappingProxyType({"entropy": 'inference; write "entropy" for "vanilla", "interval" as before'})
        search = ranges(lr=LEARNING_RATE, beta=Log(1e-5, 1e1), eps=Log(1e-2, 1e2))

        def __post_init__(self) -> None:
            if self.batch_norm == "official" and self.bounds == "interval":
                raise UserError('hyperinterval: batch_norm = "official" has no sound bounds; set bounds = "endpoints"')
            if self.batch_norm == "official" and self.inference == "fecam":
                raise UserError(
                    'hyperinterval: inference = "fecam" describes classes once, and with batch_norm = '
                    '"official" their features depend on the batch at hand; write batch_norm = "running"'
                )
            domain.hypernetwork("hyperinterval", self)
            domain.between("hyperinterval", self, 0, 1, "kappa")
            domain.at_least("hyperinterval", self, 0, "eps")
            domain.at_least("hyperinterval", self, 1, "select_every")
            strengths.check("hyperinterval", self, "beta")

    @classmethod
    def skip(cls, spec: StreamSpec, config: Any) -> str | None:
        """Skip also a network without known bounds, unless bounds are never computed (training or certificates)."""
        reason = super().skip(spec, config)
        if reason is None and (config.bounds == "interval" or config.batch_norm == "running"):
            reason = unbounded(cls.name, spec)
        return reason

    @classmethod
    def needs(cls, spec: StreamSpec, config: Any) -> Needs:
        """Memory without a stored gradient (fused optimiser), with targets and residuals for each task."""
        return Needs(
            per_trained=2 + (config.select in ("val", "claims")),
            per_task=4 if spec.scenario is DIL else 2,  # targets and residuals; the audit's boxes lie in a file
            floats_per_task=cls.floats_per_task(spec, config),
            generated=8,
            passes=BOUNDS if config.bounds == "interval" else 3,
            passes_evaluated=2 * BOUNDS,
        )

    @classmethod
    def held_weights(cls, spec: StreamSpec, config: Any) -> dict[str, float]:
        """Divisor of a strength per weight; see methods/shared/strengths.py."""
        network = targets.on_meta(spec.network, spec.input_shape, spec.classes_per_task)
        return {"beta": FunctionalNetwork(network).n_weights}

    # -- parameters --------------------------------------------------------------------------------

    def build(self) -> None:
        super().build()
        c, tasks = self.config, self.spec.n_tasks
        self.nested = self.spec.scenario is DIL
        self.target = FunctionalNetwork(self.network(self.spec.classes_per_task))
        self.embeddings = torch.randn(tasks, c.embedding).to(self.device)
        self.shapes = torch.full((tasks, c.embedding), 1 / c.embedding, device=self.device)
        """s_i: the radius is eps * softmax(s_i); learned in TIL, constant in the nested mode."""
        made = hypernetwork(
            c.embedding, c.hidden, self.target.n_weights, chunk=c.chunk, chunk_embedding=c.chunk_embedding
        )
        self.hypernetwork = made.to(self.device)
        self.statistics: list[Statistics] = []
        """Batch norm's running statistics per task; DIL has one set, from the first task."""

    def boxes(self, embeddings: Tensor, shapes: Tensor, eps: Tensor | float) -> tuple[Tensor, Tensor]:
        """Centres and radii (k, E) of the boxes at perturbation `eps`, a number or (k, 1)."""
        if not self.nested:
            return embeddings, eps * shapes.softmax(1)
        radius = eps / self.config.embedding
        return 0.5 * radius * embeddings.cos(), radius * torch.ones_like(embeddings)

    def weights(self, task: int | slice, radii: bool = True) -> tuple[Tensor, Tensor]:
        """Centres (k, N) and radii (k, N) of the tasks' weights at full eps; radii (0, N) without `radii`."""
        rows = slice(task, task + 1) if isinstance(task, int) else task
        centres, spread = self.boxes(self.embeddings[rows], self.shapes[rows], self.config.eps)
        theta, rho, _ = self.hypernetwork.intervals(centres, spread, None if radii else 0)
        return theta, rho

    def generators(self) -> list[Tensor]:
        """See `BoxPerTask`."""
        statistics = [value for known in self.statistics for value in known.values()]
        return [*self.hypernetwork.state_dict().values(), self.embeddings, self.shapes, *statistics]

    # -- training ----------------------------------------------------------------------------------

    def learn(self, task: Task) -> None:
        t, c = task.index, self.config
        judges = c.plateau or c.select in ("val", "claims") or (c.select == "official" and not self.nested)
        if judges and len(task.validation) == 0:
            raise UserError(
                f"hyperinterval: select = {c.select} and plateau need validation samples; this stream has none "
                '(set select = "last" and plateau = false)'
            )
        self.embeddings[t], self.shapes[t] = self._trained(task)
        self.promise_box(t)
        self.describe_classes(task)

    def _trained(self, task: Task) -> tuple[Tensor, Tensor]:
        """Embedding and shape (E,) of a task, after training; Adam's moments and the residuals end here."""
        t, c = task.index, self.config
        embedding = nn.Parameter(self.embeddings[t : t + 1].clone())
        shape = nn.Parameter(self.shapes[t : t + 1].clone(), requires_grad=not self.nested)
        steps = task.budget.steps_for(len(task.train))
        # DIL keeps one set of statistics for all tasks, that of the first.
        if not self.nested or not self.statistics:
            self.statistics.append({name: s.clone() for name, s in self.target.first_statistics.items()})
        loss = self.loss(t, embedding, shape, steps)

        own = [embedding] if self.nested else [embedding, shape]
        small = [*self.hypernetwork.small_parameters(), *own]
        with FusedAdam(self.hypernetwork.output, small, c.lr) as optimizer:
            candidates = RULES[c.select](self, task, embedding, shape, optimizer)
            self.fit(
                task, candidates.watch(loss), optimizer,
                check_every=c.select_every, on_check=candidates.consider, after_step=candidates.after_step,
                capture=candidates.capturable, scheduled=False,  # kappa and eps are annealed over the whole budget
            )  # fmt: skip
        candidates.restore()
        return embedding.detach()[0], shape.detach()[0]

    def loss(self, t: int, embedding: Tensor, shape: Tensor, steps: int) -> Callable[[Batch], Tensor]:
        """Loss of task t: classification at the annealed eps plus the drift of old tasks at full eps."""
        c = self.config
        with torch.no_grad():
            theta, rho = self.weights(slice(0, t), radii=self.nested)
        # nested: |low|^2 + |middle|^2 + |up|^2 = 3 |theta|^2 + 2 |rho|^2, averaged over the three
        held = Targets(theta, rho, radius_weight=2 / 3, memory=Memory()) if t else None
        beta = strengths.of_sum(c.beta, c.strength_per, self.target.n_weights)
        scale = {"official": beta / max(1, t) ** 2, "mean": beta / max(1, t), "sum": beta}[c.regulariser_norm]
        embeddings, shapes = self.embeddings[:t].clone(), self.shapes[:t].clone()
        schedule = self.schedule(steps)
        # A row holds kappa, the annealed eps of task t, and the full eps of the t old tasks.
        schedule = torch.cat([schedule, schedule.new_full((len(schedule), t), c.eps)], 1)

        def total(batch: Batch) -> Tensor:
            now = self.present(schedule)
            kappa, eps = now[0], now[1:, None]
            centres, radii = self.boxes(torch.cat([embedding, embeddings]), torch.cat([shape, shapes]), eps)
            theta, rho, drift = self.hypernetwork.intervals(centres, radii, None if self.nested else 1, held)
            # not theta[0], whose gradient would be written onto zeros
            return self.classification(theta.squeeze(0), rho.squeeze(0), batch, kappa) + scale * drift

        return total

    def schedule(self, steps: int) -> Tensor:
        """kappa and eps of every step up to the middle of training, (steps // 2 + 1, 2) (spec section 7.2).

        First half: kappa = max(1 - 5e-5 i, kappa_end), eps rises linearly from 0; then both are final. Computed
        before the first step, because inside a step each of these operations would be a kernel.
        """
        half = steps // 2
        i = torch.arange(half + 1, dtype=self.step.dtype)
        kappa = torch.where(i < half, (1 - 5e-5 * i).clamp(min=self.config.kappa), self.config.kappa)
        eps = torch.where(i < half, self.config.eps * i / max(1, half - 1), self.config.eps)
        return torch.stack([kappa, eps], 1).to(self.device)

    def present(self, schedule: Tensor) -> Tensor:
        """Row of the schedule for the current step; its last row after its end."""
        return schedule.index_select(0, self.step.clamp(max=len(schedule) - 1).long())[0]

    def classification(self, theta: Tensor, rho: Tensor, batch: Batch, kappa: Tensor) -> Tensor:
        """kappa CE(middle logits) + (1 - kappa) CE(worst-case logits) for weights theta -/+ rho (N,).

        Overwrites the memory of rho.
        """
        assert isinstance(batch.task, int)
        training = not self.nested or batch.task == 0
        if self.config.bounds == "endpoints":
            middle, bounds = self.interval_logits(theta, rho, batch.x, batch.task, training)
        else:
            box, statistics = BoxByParameter(theta, rho, self.target.shapes), self.statistics_of(batch.task)
            middle = self.target(box.middle, batch.x, statistics, training)
            bounds = self.target.bounds(*box.ends(), batch.x, self.spec.nonnegative_inputs, statistics)
        y = self.within_task(batch.y, batch.task)
        middle = self.of_task(middle, batch.task)
        bounds = Interval(self.of_task(bounds.lower, batch.task), self.of_task(bounds.upper, batch.task))
        return kappa * cross_entropy(middle, y) + (1 - kappa) * cross_entropy(worst_case(bounds, y), y)

    def interval_logits(
        self, theta: Tensor, rho: Tensor, x: Tensor, task: int = 0, training: bool = False
    ) -> tuple[Tensor, Interval]:
        """Middle logits (b, C) and their bounds, by the configured arithmetic, with the task's statistics."""
        statistics, batch_norm = self.statistics_of(task), training or self.config.batch_norm == "official"
        if self.config.bounds == "endpoints":
            low, middle, up = self.target.endpoints(theta - rho, theta, theta + rho, x, statistics, batch_norm)
            return middle, Interval(low, up)
        middle = self.target(theta, x, statistics, training)
        return middle, self.target.bounds(theta - rho, theta + rho, x, self.spec.nonnegative_inputs, statistics)

    def middle(self, theta: Tensor, x: Tensor, task: int) -> Tensor:
        """Logits (b, C) of the network at the centre of the box."""
        official = self.config.batch_norm == "official"
        return self.target(theta, x, self.statistics_of(task), training=official)

    def statistics_of(self, task: int) -> Statistics:
        """Batch norm's statistics of a task (a copy if evaluation would change them)."""
        known = self.statistics or [self.target.first_statistics]
        found = known[min(task, len(known) - 1)]
        evaluating = not torch.is_grad_enabled()
        official = self.config.batch_norm == "official"
        return {name: s.clone() for name, s in found.items()} if evaluating and official else found

    # -- answers -----------------------------------------------------------------------------------

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        """Logits of the universal network in DIL; else see `NetworkPerTask`."""
        if self.nested:
            return self.middle(self.universal_weights(radii=False)[0], x, 0)
        return super().predict(x, task_id)

    def logits(self, x: Tensor, task: int) -> Tensor:
        """Logits (b, C) of the network at the centre of a task's box."""
        return self.middle(self.weights(task, radii=False)[0][0], x, task)

    def features(self, x: Tensor, task: int) -> Tensor:
        """Inputs of the output layer (b, d) in the network at the centre of the task's box."""
        theta, _ = self.weights(task, radii=False)
        return self.target.features(theta[0], x, self.statistics_of(task))

    def every_task(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Middle logits (k, b, C) of all tasks seen, and the entropy's weights where they are asked for."""
        weighted = self.config.inference == "interval"
        theta, rho = self.weights(slice(0, max(1, self.tasks_seen)), radii=weighted)
        # Not those of `interval_logits`: with "endpoints" they come from a mixture of three networks.
        middles = torch.stack([self.middle(row, x, j) for j, row in enumerate(theta)])
        if not weighted:
            return middles, None
        boxes = [self.interval_logits(*row, x, j)[1] for j, row in enumerate(zip(theta, rho, strict=True))]
        return middles, torch.stack([inference.width_weights(box.lower, box.upper) for box in boxes])

    def universal_box(self, newest: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """DIL: lower and upper corner (E,) of the intersection of the boxes of all tasks seen.

        It is never empty, because two centres differ by at most one radius in each coordinate.
        newest: embedding (1, E) of the last task, while it is being learnt.
        """
        rows = slice(0, max(1, self.tasks_seen))
        embeddings = self.embeddings[rows] if newest is None else torch.cat([self.embeddings[rows][:-1], newest])
        centres, radii = self.boxes(embeddings, self.shapes[rows], self.config.eps)
        return (centres - radii).amax(0), (centres + radii).amin(0)

    def universal_weights(self, newest: Tensor | None = None, radii: bool = True) -> tuple[Tensor, Tensor]:
        """DIL: centre and radius (N,) of the weights generated from the universal embedding.

        newest: see `universal_box`. radii: False leaves the radius out, (0,).
        """
        lower, upper = self.universal_box(newest)
        half = (upper - lower) / 2
        radius = {
            "point": torch.zeros_like(half),
            "intersection": half,
            "official": torch.full_like(half, self.config.eps / self.config.embedding),
        }[self.config.universal]
        theta, rho, _ = self.hypernetwork.intervals(((lower + upper) / 2)[None], radius[None], None if radii else 0)
        return theta[0], rho[0] if radii else rho.flatten()

    # -- the guarantee -----------------------------------------------------------------------------

    def bounds(self, x: Tensor, task_id: int | None = None) -> tuple[Tensor, Tensor]:
        """See `BoxPerTask`. Raises NotImplementedError where batch norm uses the statistics of the batch at hand."""
        if self.config.batch_norm == "official":
            raise NotImplementedError("no bounds hold with batch norm on the statistics of an unknown batch")
        return super().bounds(x, task_id)

    def deployed(self, newest: Tensor | None = None) -> Tensor | None:
        """DIL: weights (N,) generated from the universal embedding; see `universal_box`."""
        return self.universal_weights(newest, radii=False)[0] if self.nested else None

    def rebuilt(self) -> list[Tensor]:
        """Initial embeddings and radii of the tasks not yet learnt; in the nested mode no radius is learnt."""
        return [self.embeddings[self.tasks_seen :], self.shapes[0 if self.nested else self.tasks_seen :]]

    @torch.no_grad()
    def exhibits(self) -> dict[str, Exhibit]:
        """Boxes of the learnt tasks at full eps."""
        rows = slice(0, self.tasks_seen)
        centres, radii = self.boxes(self.embeddings[rows], self.shapes[rows], self.config.eps)
        return {"embeddings": tables.embeddings(centres, radii)}
