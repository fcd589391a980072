"""GPM: gradient projection memory; each layer's weight changes only outside of the space of its old inputs.

Saha, Garg & Roy (2021), ICLR, arXiv 2103.09762. A layer with weights W_l (o, d) keeps an orthonormal basis M_l (d, r)
of the inputs of earlier tasks. In every task but the first the gradient G is projected before the step of plain SGD,

    G <- G - (G M_l) M_l'

so that W_l x stays for all x in the span of M_l. After task t (0-based) the inputs R of the layer for some training
samples (of a convolution: all patches) extend the basis: with R^ = R - M M' R = U S V', columns of U are taken until

    |M M' R|^2 + sum_j S_j^2  >=  (threshold + increment * t) |R|^2

The promise covers inputs in the span only. What real inputs have outside of it lets old answers drift, so nothing is
certified. The table `bases` of a record sets the drift against the promise, for each task and layer: columns r and
inputs d of the basis (a full basis ends learning in the layer), the share of the energy of the task's validation
inputs that the basis captured (training inputs where there are no others), the largest entry of dW M (`leak`: the
promise, 0 but for rounding), and the relative change |dW X| / |W X| of the layer's answers to the validation inputs X
of all earlier tasks, as they were then (`drift`). Of X only the second moments X X' are kept, for the audit.

TIL: heads are free. DIL: one head, projected like the other layers (the paper's Permuted MNIST). CIL is an extension
of ours: the loss runs over the classes seen, the new task's rows of the head are free, old rows are projected.

Adam leaves the projected space, since it scales each coordinate. `optimizer = "adam"` therefore projects the steps
themselves (Adam-NSCL, Wang et al. 2021, CVPR, arXiv 2103.07113, eq. 6); with `basis = "smallest"` the basis is theirs:
the complement of the eigenvectors of the summed second moments of all training inputs so far with eigenvalues up to
`smallest` times the smallest one.

Biases are the column of a constant input 1, or with `biases = "freeze"` constant after the first task; the paper's
networks have none. All other parameters (batch norm's, embeddings, those of layers that are not linear in their weight)
are constant after the first task, as in the official code. Batch norm keeps running statistics of each task in TIL;
where no task is told, those of the first.

Deviations from the official code:
- The first basis reaches the threshold like all others; theirs stays below it and may be empty (`first_rule`).
- Batch norm's statistics are not those of the batch, on which answers would depend.
- Bases are orthonormalised anew whenever they grow, and belong to layers by name.
- Under a plain budget the last weights are kept: neither early stopping nor a schedule by validation.
Deviations from Adam-NSCL's code: moments of samples, not of batch means (`covariance`); a floor for the smallest
eigenvalue, which is 0 with dead inputs (`floor`); no division by the projector's norm (`normalise`); norm layers are
constant, not under EWC; no weight decay.

Defaults: thresholds of the authors' Permuted MNIST, whose learning rate is 0.01 with 300 samples; 0.05 and 125 are
ours. For CIFAR-100 on AlexNet they use 0.97 and increment 0.003 with 24, 100, 100, 125 and 125 samples, for
superclasses on LeNet 0.98 and 0.001; learning rate 0.01 and batches of 10 or 64. There LeNet starts from weights 2.4
times as large as here (Kaiming initialisation for ReLU), which matters to plain SGD.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.types import StreamSpec
from methods.base import CIL, DIL, TIL, Batch, Exhibit, Method, Needs, Task, UserError, register
from methods.networks import targets
from methods.search import LEARNING_RATE, Log, OneOf, Range, ranges
from methods.shared import bases, optimizers
from methods.shared.bases import Inputs, Layer
from methods.shared.fisher import draw
from methods.shared.optimizers import OptimizerName
from methods.shared.projection import Held, project_gradients, project_updates

MEASURES = ("task", "layer", "columns", "inputs", "captured", "leak", "drift")
"""Columns of the table `bases`."""


@register("gpm")
class GPM(Method):
    """Gradient projection memory: steps orthogonal to the inputs of earlier tasks (Saha et al. 2021)."""

    supports = frozenset({TIL, DIL, CIL})
    capturable = True

    @dataclass(frozen=True)
    class Config:
        lr: float = 0.05
        """Learning rate."""
        threshold: tuple[float, ...] = (0.95, 0.99)
        """Share of the energy that a basis holds, by layer; the last one is that of all further layers."""
        increment: float = 0.0
        """Increase of the thresholds with every task, up to 1."""
        basis_samples: tuple[int, ...] = (125,)
        """Training samples whose inputs extend a basis, by layer like the threshold."""
        first_rule: Literal["reach", "official"] = "reach"
        """First basis: reach the threshold, or stay below it (official code)."""
        biases: Literal["augment", "freeze"] = "augment"
        """Biases as weights of a constant input, or constant after the first task."""
        optimizer: OptimizerName = "sgd"
        """Plain SGD with projected gradients, or Adam with projected steps."""
        basis: Literal["energy", "smallest"] = "energy"
        """Basis: most of the energy (GPM), or all but the directions of the smallest eigenvalues (Adam-NSCL)."""
        smallest: float = 10.0
        """With basis = smallest: directions are free up to this multiple of the smallest eigenvalue."""
        floor: float = 1e-10
        """With basis = smallest: directions are free up to this share of the largest eigenvalue; official: 0."""
        covariance: Literal["samples", "batch-means"] = "samples"
        """Inputs of single samples, or means over batches (official code of Adam-NSCL)."""
        normalise: bool = False
        """Divide steps by the projector's Frobenius norm (official code of Adam-NSCL)."""
        search = ranges(
            lr=Log(1e-3, 1.0),
            threshold=OneOf(((0.9,), (0.95,), (0.97,), (0.95, 0.99), (0.99,), (0.995,), (0.999,))),
            smallest=Log(1.0, 1e4),
        )

        def __post_init__(self) -> None:
            if not self.threshold or not all(0 < share <= 1 for share in self.threshold):
                raise UserError(f"gpm: threshold = {self.threshold} must have numbers above 0 and up to 1")
            if not self.basis_samples or min(self.basis_samples) < 1:
                raise UserError(f"gpm: basis_samples = {self.basis_samples} must have numbers of at least 1")
            if self.increment < 0:
                raise UserError(f"gpm: increment = {self.increment} must not be negative")
            if self.smallest < 1 or self.floor < 0:
                raise UserError(
                    f"gpm: smallest = {self.smallest} must be at least 1 and floor = {self.floor} not negative"
                )

    config: Config

    @classmethod
    def needs(cls, spec: StreamSpec, config: Any) -> Needs:
        """Bases and the audit's moments grow to d x d scalars a layer, with basis = smallest further moments."""
        network = targets.on_meta(spec.network, spec.input_shape, spec.n_outputs)
        squares = sum(layer.size**2 for layer in _projected(network, spec, config))
        kept = squares * (2 + (config.basis == "smallest"))
        # A gradient and the weights before the task; Adam's moments and the weights before the step.
        return Needs(2 if config.optimizer == "sgd" else 5, floats_per_task=-(-kept // spec.n_tasks))

    @classmethod
    def searched(cls, spec: StreamSpec, config: Any, ranges: Mapping[str, Range]) -> Mapping[str, Range]:
        """Leave out what the basis does not depend on. Adam's learning rate has the range of all methods."""
        idle = "smallest" if config.basis == "energy" else "threshold"
        found = {name: values for name, values in ranges.items() if name != idle}
        return {**found, "lr": LEARNING_RATE} if config.optimizer == "adam" and "lr" in found else found

    def build(self) -> None:
        self.net = self.network()
        weights = {layer.name: layer.module.weight for layer in self.layers}
        self.bases = {layer.name: weights[layer.name].new_empty(layer.size, 0) for layer in self.layers}
        """Basis (d, r) of each projected layer."""
        self.moments: dict[str, Tensor] = {}
        """With basis = smallest, the summed second moments (d, d) of the training inputs of each layer."""
        self.statistics: list[dict[str, Tensor]] = []
        """TIL: running statistics of batch norm, for each task."""
        self.audit_moments: dict[str, Tensor] = {}
        """Summed second moments (d, d) of the validation inputs of each layer."""
        self.audit_rows: list[list[float]] = []
        """Rows of the table `bases`."""

    @property
    def layers(self) -> list[Layer]:
        """Layers with a basis: all but free heads."""
        return _projected(self.net, self.spec, self.config)

    # -- training ---------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy over the admissible classes."""
        return cross_entropy(self.answerable(self.net(batch.x), batch.task), batch.y)

    def learn(self, task: Task) -> None:
        before = {layer.name: layer.matrix() for layer in self.layers} if task.index else {}
        constant = self.constants() if task.index else []
        with _constant(constant):
            trained = [p for p in self.net.parameters() if p.requires_grad]
            optimizer = optimizers.make(self.config.optimizer, trained, self.config.lr)
            if task.index:
                project = project_gradients if self.config.optimizer == "sgd" else project_updates
                project(optimizer, self.held(task.index))
            self._training(task.index)
            self.fit(task, self.loss, optimizer, judge=self.loss)  # `predict` has no statistics of the task yet
            self.net.eval()
        if self.spec.scenario is TIL:
            self.statistics.append({name: b.clone() for name, b in _running(self.net)})
        old = dict(self.bases)
        self.extend(task)
        self.measure(task, before, old)

    def held(self, task: int) -> list[Held]:
        """Projections of a task's steps; in CIL the head's rows of the new classes are free."""
        head = _head(self.net)
        free_from = self.spec.outputs_before(task) if self.spec.scenario is CIL else self.spec.n_outputs
        return [
            Held(
                layer,
                self.bases[layer.name],
                free_from if layer.module is head else len(layer.module.weight),
                self.config.normalise,
            )
            for layer in self.layers
        ]

    def constants(self) -> list[nn.Parameter]:
        """Parameters that only the first task trains: those of no projected layer and no head."""
        modules: list[nn.Module | None] = [_head(self.net), *(layer.module for layer in self.layers)]
        changing = {id(p) for module in modules if module is not None for p in module.parameters()}
        return [p for p in self.net.parameters() if id(p) not in changing]

    def _training(self, task: int) -> None:
        """Enter training mode. Where no task is told, the statistics of batch norm are the first task's."""
        self.net.train()
        if task and self.spec.scenario is not TIL:
            for module in self.net.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    # -- bases and their measures -----------------------------------------------------------------

    def extend(self, task: Task) -> None:
        """Extend the bases by the inputs of a task's training samples."""
        layers, batch_means = self.layers, self.config.covariance == "batch-means"
        limits = _by_layer(self.config.basis_samples, len(layers))
        if self.config.basis == "smallest":
            limits = [len(task.train)] * len(layers)
        samples = draw(task.train, max(limits, default=0))
        size = task.budget.batch_size if batch_means else 1000
        found = bases.gather(self.net, layers, samples, limits, size, batch_means)
        chosen = [self._directions(*each, task.index) for each in zip(layers, found, range(len(layers)), strict=True)]
        if not chosen:
            return
        # One transfer for all layers.
        for layer, inputs, candidates, n in zip(
            layers, found, chosen, torch.stack([c.take for c in chosen]).tolist(), strict=True
        ):
            basis = self.bases[layer.name]
            if not inputs.count:  # the layer's inputs pass by it, so that nothing is known about them
                self.bases[layer.name] = torch.eye(len(basis), dtype=basis.dtype, device=basis.device)
            elif n or self.config.basis == "smallest":
                start = basis[:, :0] if self.config.basis == "smallest" else basis
                self.bases[layer.name] = bases.joined(start, candidates.columns[:, :n])

    def _directions(self, layer: Layer, inputs: Inputs, index: int, task: int) -> bases.Directions:
        """Directions to add to the basis of a layer; with basis = smallest all of the new basis."""
        config, basis = self.config, self.bases[layer.name]
        if config.basis == "smallest":
            moments = inputs.second_moments()
            self.moments[layer.name] = self.moments[layer.name] + moments if layer.name in self.moments else moments
            return bases.above_smallest(self.moments[layer.name], config.smallest, config.floor)
        threshold = min(1.0, _by_layer(config.threshold, index + 1)[index] + config.increment * task)
        official = config.first_rule == "official" and task == 0
        return (bases.staying_below if official else bases.reaching)(inputs, basis, threshold)

    @torch.no_grad()
    def measure(self, task: Task, before: Mapping[str, Tensor], old: Mapping[str, Tensor]) -> None:
        """Add a task's rows to the table `bases`.

        before, old: weights and bases of the layers before the task, no weights before the first one.
        """
        layers = self.layers
        limits = _by_layer(self.config.basis_samples, len(layers))
        samples = draw(task.validation if len(task.validation) else task.train, max(limits, default=0))
        values = []
        for layer, inputs in zip(layers, bases.gather(self.net, layers, samples, limits), strict=True):
            basis, moments = self.bases[layer.name], inputs.second_moments().to(layer.module.weight.dtype)
            captured = (basis * (moments @ basis)).sum() / moments.trace()
            leak = drift = torch.zeros_like(captured)
            if before:
                held = next(each.rows for each in self.held(task.index) if each.layer.name == layer.name)
                then = before[layer.name][:held]
                moved, seen = layer.matrix()[:held] - then, self.audit_moments[layer.name]
                leak = (moved @ old[layer.name]).abs().max() if old[layer.name].shape[1] else leak
                drift = (_energy(moved, seen) / _energy(then, seen)).sqrt()
                moments = seen + moments
            self.audit_moments[layer.name] = moments
            values.append(torch.stack([captured, leak, drift]))
        measured = torch.stack(values).nan_to_num().tolist() if values else []
        self.audit_rows += [
            [task.index, index, self.bases[layer.name].shape[1], layer.size, *row]
            for index, (layer, row) in enumerate(zip(layers, measured, strict=True))
        ]

    def exhibits(self) -> dict[str, Exhibit]:
        """Bases, what they capture, and what moved in spite of them."""
        return (
            {"bases": dict(zip(MEASURES, zip(*self.audit_rows, strict=True), strict=True))} if self.audit_rows else {}
        )

    # -- answers ----------------------------------------------------------------------------------

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        if task_id is None or not self.statistics:
            return self.answerable(self.net(x), task_id)
        statistics = self.statistics[min(task_id, len(self.statistics) - 1)]
        return self.answerable(functional_call(self.net, statistics, (x,)), task_id)


def _head(network: nn.Module) -> nn.Linear | None:
    """The output layer: the last linear one."""
    return next((module for module in reversed(list(network.modules())) if isinstance(module, nn.Linear)), None)


def _projected(network: nn.Module, spec: StreamSpec, config: Any) -> list[Layer]:
    layers = bases.layers_of(network, config.biases == "augment")
    return [layer for layer in layers if spec.scenario is not TIL or layer.module is not _head(network)]


def _by_layer(values: Sequence[Any], n: int) -> list[Any]:
    """Values of n layers, of which the last is repeated."""
    return [values[min(i, len(values) - 1)] for i in range(n)]


def _energy(weights: Tensor, moments: Tensor) -> Tensor:
    """Squared norm of W X, 0-d, from X X'."""
    return (weights * (weights @ moments)).sum().clamp_min(0)


def _running(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Running statistics of batch norm by name."""
    return ((name, b) for name, b in network.named_buffers() if name.rpartition(".")[2].startswith("running_"))


@contextmanager
def _constant(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Withhold the parameters from training."""
    trainable = [p for p in parameters if p.requires_grad]
    for p in trainable:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)
