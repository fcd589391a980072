"""Features that never change once the first task has begun or ended, with their bounds."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from benchmarks.types import StreamSpec, derived_seed
from methods.base import Batch, Method, Task
from methods.intervals.bounding import Interval, linear, propagate
from methods.intervals.kernels import gaussian_bounds
from methods.shared import expansions, features
from methods.shared.expansions import RandomMatrix

FeatureName = Literal["random", "first-task", "none", "gaussian"]
MATRIX = ("random", "first-task")
"""Features with a random matrix."""
CONSTANT = "+frozen"
"""Part of the names of networks whose backbone is constant."""


class FixedFeatures(Method):
    """Base of methods that learn a head alone, on z(x): pixels, a frozen backbone, or a network of the first task.

    A subclass's `Config` has the fields `features`, `width`, `bias`, `stream`, `sigma`, `centres` and `lr`. Its `build`
    calls this one, and its `learn` begins with `prepare`.
    """

    config: Any

    @classmethod
    def inputs(cls, spec: StreamSpec, config: Any) -> int:
        """Length d of z(x)."""
        learnt = config.features == "first-task" or CONSTANT in spec.network
        return features.width(spec) if learnt else math.prod(spec.input_shape)

    @classmethod
    def rows(cls, spec: StreamSpec, config: Any) -> tuple[int, int]:
        """Number of features of the main stream, and of the second one, if any."""
        main = cls.inputs(spec, config) if config.features == "none" else config.width
        return main + config.bias, config.width if config.stream == "dual" else 0

    def build(self) -> None:
        self.body: nn.Module = nn.Flatten()
        """Network of z."""
        self.head: nn.Module = nn.Identity()
        """Head with which the first task trains the network."""
        if self.config.features == "first-task" or CONSTANT in self.spec.network:
            self.body, head = _parted(self.network(self.spec.classes_per_task))
            self.head = head if self.config.features == "first-task" else self.head
        d, wanted = self.inputs(self.spec, self.config), self.config.width
        self.drawn_from = derived_seed(self.seed, self.spec.benchmark, self.spec.scenario, "matrix")
        """Seed of the random matrix, which is not part of the state."""
        self.matrix = self.drawn()
        self.centres = torch.zeros(0, d, dtype=torch.float64, device=self.device)
        """Centres m (M, d) of Gaussian features."""
        if self.config.features == "gaussian":
            self.centres = self.centres.new_zeros(wanted, d)
            self.memory_samples = wanted

    def drawn(self) -> RandomMatrix:
        """Draw the random matrix B (M, d) from its seed; of no rows where there is none."""
        wanted = self.config.width if self.config.features in MATRIX else 0
        return RandomMatrix(wanted, self.inputs(self.spec, self.config), self.drawn_from, self.device)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        super().load_state_dict(saved)
        self.matrix = self.drawn()

    # -- first task --------------------------------------------------------------------------------

    def prepare(self, task: Task) -> None:
        """Fix the features by the first task's samples, where they depend on them."""
        if task.index == 0 and self.config.features == "first-task":
            self._train(task)
        if task.index == 0 and self.config.features == "gaussian":
            self._place(task)

    def _train(self, task: Task) -> None:
        def loss(batch: Batch) -> Tensor:
            logits = self.head(self.body(batch.x))[:, : self.spec.classes_of(task.index)]
            return cross_entropy(logits, self.within_task(batch.y, batch.task))

        trained = [*self.body.parameters(), *self.head.parameters()]
        self.fit(task, loss, trained, lr=self.config.lr, judge=loss)  # `predict` answers with the ridge head

    @torch.no_grad()
    def _place(self, task: Task) -> None:
        wanted, rule = self.config.width, self.config.centres
        chosen = expansions.chosen_samples(len(task.train), wanted, rule).to(self.device)
        self.centres = expansions.completed(self.base(task.train.batch(chosen).x), wanted, rule)

    # -- features ----------------------------------------------------------------------------------

    def base(self, x: Tensor) -> Tensor:
        """Inputs z(x) (b, d) of the features, float64."""
        return self.body(x).flatten(1).to(torch.float64)

    def streams(self, x: Tensor) -> list[Tensor]:
        """Features (b, M) float64 of the main stream, and of the second one, if any."""
        z = self.base(x)
        if self.config.features == "none":
            found = [z]
        elif self.config.features == "gaussian":
            found = [expansions.gaussian(z, self.centres, self.config.sigma)]
        else:
            z = z @ self.matrix.values.t()
            found = [z.relu(), z.tanh()] if self.config.stream == "dual" else [z.relu()]
        return [pad(found[0], (0, 1), value=1.0), *found[1:]] if self.config.bias else found

    def fixed_numbers(self) -> Tensor:
        """All numbers (n,) float64 that the features consist of."""
        floats = [t for t in self.body.state_dict().values() if t.is_floating_point()]
        some = [self.matrix.values, self.centres, *floats]
        return torch.cat([t.detach().flatten().to(torch.float64) for t in some])

    def head_bounds(self, x: Tensor, weights: Tensor) -> Interval:
        """Bounds (b, C) of the answers of a head (M, C) on the features of x, without rounding, float64.

        All but Gaussian features are layers of one network, so that affine forms go back to the inputs. The output of a
        frozen backbone counts as a point. Raises UserError for a layer of unknown bounds.
        """
        nonnegative = self.spec.nonnegative_inputs
        if self.config.features != "gaussian":
            return propagate(self._answers(weights), {}, x, nonnegative_inputs=nonnegative, rounded=True)
        z = propagate(self.body, {}, x, nonnegative_inputs=nonnegative, rounded=True)
        z = Interval.point(z.lower.flatten(1)) if z.is_point else Interval(z.lower.flatten(1), z.upper.flatten(1))
        found = gaussian_bounds(z, self.centres, self.config.sigma)
        if self.config.bias:
            found = Interval(*(pad(bound, (0, 1), value=1.0) for bound in (found.lower, found.upper)))
        return linear(found, Interval.point(weights.t()), rounded=True)

    def _answers(self, weights: Tensor) -> nn.Module:
        """Network x -> (b, C) of a head (M, C); its body is the method's own."""
        dual, bias = self.config.stream == "dual", int(self.config.bias)
        rows = len(weights) - dual * self.config.width
        layers = [self.body, nn.Flatten()]
        if self.config.features != "none":
            layers.append(_layer(self.matrix.values))
        head = _layer(weights[: rows - bias].t(), weights[rows - 1] if bias else None)
        if dual:
            return nn.Sequential(*layers, _Dual(head, _layer(weights[rows:].t())))
        if self.config.features != "none":
            layers.append(nn.ReLU())
        return nn.Sequential(*layers, head)


class _Dual(nn.Module):
    """Sum of a head on relu(z) and one on tanh(z)."""

    def __init__(self, main: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.main, self.second = main, second

    def forward(self, z: Tensor) -> Tensor:
        return self.main(z.relu()) + self.second(z.tanh())


def _layer(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """Linear layer of constant numbers; weight (outputs, inputs)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


def _parted(network: nn.Module) -> tuple[nn.Module, nn.Linear]:
    """Network without its output layer, the last linear one, and that layer."""
    name, head = [(name, m) for name, m in network.named_modules() if isinstance(m, nn.Linear)][-1]
    network.set_submodule(name, nn.Identity())
    return network, head
