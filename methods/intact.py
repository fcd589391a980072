"""InTAct: a soft penalty on what can move in a layer while its inputs stay in the ranges of earlier tasks.

Krukowski et al. (2025), arXiv 2511.17439. The network is a chain of layers. Each unit below the output layer (each map
of a convolution) has a range [lo, up] of its activations a_l. With theta' the weights after the latest task, a layer
that reads units in their ranges moves, for D = W - W' and d = b - b', between

    L = D+ lo - D- up + d        and        U = D+ up - D- lo + d                      (x+ = max(x, 0), x- = max(-x, 0))

The loss of a task is its cross-entropy, plus

    lam_variance  sum over l of the mean over units of var(a_l), in the batch; also in the first task

and in later tasks, on inputs of the new task alone,

    lam_drift     sum over the layers after a range of mean(L^2) + mean(U^2), over outputs
    lam_feature   mean of (a_1(x; theta') - a_1(x; theta))^2 over those a_1(x; theta) that lie in their range
    1             sum over l of |c - c'| / mean radius, over units whose range in the batch lies wholly outside of
                  [lo, up]; c, c' are the middles of the two ranges, the radii those of all units' [lo, up] (`align`)

After a task, in one pass over its training samples through the network as it is now, the `percentiles` of each unit's
activations make its range, which is merged with the earlier one.

TIL is ours: each task has rows of its own in the head, which no later task moves, so the head has no penalty. DIL: one
head, always held. CIL: rows of old classes are held (`hold_head`), those of new ones are free (`new_rows`).

Nothing is promised: L and U are small, not 0; the first layer is held on the new task's inputs only; and the ranges
leave out up to a tenth of each unit's values, so that many an input has some activation outside. The table `drift` says
so for each task and layer: the largest |L| (`lower`) and |U| (`upper`) at the task's end, over the ranges that
were held during it and the rows that earlier tasks answer with; and, with the task's own ranges merged, the share of
its training samples with all activations inside, up to this layer (`inside`), and the median width of the ranges of
this layer's inputs (`width`).

Our networks have ReLU, the authors' leaky ReLU of slope 0.01. A unit that is above 0 on fewer samples than the upper
percentile leaves out has the range [0, 0], and the weights that read it are free, although some old samples use it. No
activation is negative, so a batch lies outside of a range only above it, or at 0 where lo > 0; there the unit has no
gradient that would bring it back.

Of a convolution, units are maps and their values those of all pixels. Ranges of maps contain 0, which padding puts next
to them. Activations are taken before pooling and dropout, which stay in these ranges, in evaluation mode for ranges.
Networks with norm layers or residual streams are skipped. Where all activations of a task's samples are more than
2^24 numbers, as many samples as that permits are drawn at random.

Deviations from the official code:
- Ranges come from training inputs only. There, every input that passes is kept, those of test passes over this and
  earlier tasks included; `ranges_on` has the one value "train", since methods do not see the others in training.
- Rows of new classes are free; there, they are held at their random initial values (new_rows="official").
- Two forms of the drift: the mean of squares over outputs, or, before the repository's commit 247160f, the square of
  the sum over outputs, in which opposite drifts cancel (drift="sum"). Strengths of one form do not suit the other.
- One pass instead of one for each epoch; the percentiles are the same.

Published strengths (variance / drift / feature; MLP 400-400, Adam, batches of 512, 5 epochs): MNIST CIL 4.2 / 5.7 /
779 at rate 1.67e-4, DIL 3.9 / 634 / 602 at 1.24e-4; FashionMNIST CIL 0.83 / 732 / 227 at 4.1e-4 with batches of 128
for 10 epochs, DIL 1.6 / 196 / 927 at 1.34e-4. Defaults here are those of the code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.functional import cross_entropy

from benchmarks.samples import Samples
from benchmarks.types import CIL, DIL, StreamSpec, UserError
from methods.base import Batch, Exhibit, Method, Needs, Task, register
from methods.search import LEARNING_RATE, Log, ranges
from methods.shared import optimizers
from methods.shared.chain import LAYERS, Layer, Linear, chain_of, no_chain
from methods.shared.fisher import draw
from methods.shared.optimizers import OptimizerName

Form = Literal["outputs", "sum"]
ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, torch.relu, functional.relu, functional.leaky_relu, "relu")
"""Functions after which activations are taken: of what a chain may have, those that change a range."""
VALUES_AT_ONCE = 1 << 24
"""Bound on the activations kept while ranges are found (64 MiB of float32)."""
TINY = 1e-8
"""Addend of denominators (official code)."""
MEASURES = ("task", "layer", "lower", "upper", "inside", "width")
"""Columns of the table `drift`."""


@register("intact")
class InTAct(Method):
    """Soft penalty on the movement of layers over the ranges of their old inputs (Krukowski et al. 2025)."""

    capturable = True

    @dataclass(frozen=True)
    class Config:
        lr: float = 1e-3
        """Learning rate."""
        lam_variance: float = 0.01
        """Strength of the variance of activations, which keeps ranges narrow."""
        lam_drift: float = 1.0
        """Strength of the drift L, U of the layers after a range."""
        lam_feature: float = 1.0
        """Strength of the movement of the first layer's activations."""
        percentiles: tuple[float, float] = (0.05, 0.95)
        """Shares of a unit's activations below lo and below up; (0, 1): their minimum and maximum."""
        drift: Form = "outputs"
        """Squares of L and U averaged over outputs, or the square of their sums over outputs (older official code)."""
        align: bool = True
        """Draw units whose activations lie wholly outside of their range back to its middle."""
        hold_head: bool = True
        """CIL: hold the head. In DIL it is always held, in TIL its rows belong to one task each."""
        ranges_on: Literal["train"] = "train"
        """Inputs from which ranges are found: the task's training samples."""
        new_rows: Literal["free", "official"] = "free"
        """CIL: rows of the head of new classes are free, or held at their initial values (official code)."""
        optimizer: OptimizerName = "adam"
        """Adam, or plain SGD; a fresh one for each task."""
        search = ranges(
            lr=LEARNING_RATE, lam_variance=Log(1e-3, 1e1), lam_drift=Log(1e-1, 1e4), lam_feature=Log(1e-1, 1e4)
        )

        def __post_init__(self) -> None:
            low, high = self.percentiles
            if not 0 <= low <= high <= 1:
                raise UserError(f"intact: percentiles = {self.percentiles} must rise and lie in [0, 1]")
            for name in ("lam_variance", "lam_drift", "lam_feature"):
                if getattr(self, name) < 0:
                    raise UserError(f"intact: {name} = {getattr(self, name)} must not be negative")

    config: Config

    @classmethod
    def skip(cls, spec: StreamSpec, config: Any) -> str | None:
        """Skip also networks that are no chain of layers."""
        return super().skip(spec, config) or no_chain(cls.name, spec.network, spec.input_shape)

    @classmethod
    def needs(cls, spec: StreamSpec, config: Any) -> Needs:
        """Movements of the weights, their sizes and the gradients of both; activations of the old first layer."""
        return Needs(generated=4, passes=2)

    def build(self) -> None:
        self.net = self.network()
        units = [layer.units for layer in chain_of(self.net)[:-1]]
        self.lower = [torch.zeros(u, device=self.device) for u in units]
        """lo (u,) of the units of each layer but the last."""
        self.upper = [torch.zeros(u, device=self.device) for u in units]
        """up (u,)."""
        self.old = {name: p.detach().clone() for name, p in self.net.named_parameters()}
        """Weights after the latest task."""
        self.audit_rows: list[list[float]] = []
        """Rows of the table `drift`."""

    # -- training ----------------------------------------------------------------------------------

    def learn(self, task: Task) -> None:
        optimizer = optimizers.make(self.config.optimizer, self.net.parameters(), self.config.lr)
        self.fit(task, self.objective(task.index), optimizer)
        self.extend(task)

    def objective(self, task: int) -> Callable[[Batch], Tensor]:
        """Loss of a task's batches."""
        config, layers = self.config, chain_of(self.net)
        seen = Seen.of(self.net, layers, training=True)
        held = [self.reader(layers, i, task) for i in self.held(len(layers))]
        first = {name: p for name, p in self.old.items() if name.rpartition(".")[0] == layers[0].name}

        def loss(batch: Batch) -> Tensor:
            logits, activations = seen(batch.x)
            error = cross_entropy(self.answerable(logits, batch.task), batch.y)
            error = error + config.lam_variance * sum(a.var(0, correction=0).mean() for a in activations)
            if task == 0:
                return error
            error = error + config.lam_drift * sum(each.penalty(config.drift) for each in held)
            with torch.no_grad():
                before = seen.first_of(batch.x, first)
            error = error + config.lam_feature * moved(activations[0], before, self.lower[0], self.upper[0])
            if config.align:
                found = zip(activations, self.lower, self.upper, strict=True)
                error = error + sum(misplaced(a, low, high) for a, low, high in found)
            return error

        return loss

    def held(self, n_layers: int) -> range:
        """Layers with a penalty on their drift: all but the first, and but a head that is free."""
        scenario = self.spec.scenario
        head = scenario is DIL or (scenario is CIL and self.config.hold_head)
        return range(1, n_layers if head else n_layers - 1)

    def reader(self, layers: Sequence[Layer], i: int, task: int, old_rows: bool = False) -> Reader:
        """Layer i over the ranges of its inputs; old_rows: with the rows alone that earlier tasks answer with."""
        rows = layers[i].units
        if i == len(layers) - 1 and self.spec.scenario is not DIL:
            official = self.config.new_rows == "official" and not old_rows
            rows = self.spec.outputs_before(task + official)
        name, module = layers[i].name, _module(self.net, layers[i])
        repeat = layers[i].repeat * module.weight[0, 0].numel()  # inputs that one unit feeds, side by side in a row
        lower, upper = (bound[i - 1].repeat_interleave(repeat) for bound in (self.lower, self.upper))
        return Reader(
            module,
            rows,
            self.old[f"{name}.weight"],
            self.old.get(f"{name}.bias"),
            (lower + upper) / 2,
            (upper - lower) / 2,
        )

    # -- ranges and their measures -----------------------------------------------------------------

    @torch.no_grad()
    def extend(self, task: Task) -> None:
        """Measure what moved in a task, extend the ranges by its training samples, and take the weights as old ones."""
        layers = chain_of(self.net)
        zero = torch.zeros((), device=self.device)
        rows, every = [], activations_of(Seen.of(self.net, layers, training=False), task.train)
        inside = torch.ones(len(every[0]), dtype=torch.bool, device=self.device)
        for i, values in enumerate(every):
            reader = self.reader(layers, i + 1, task.index, old_rows=True)
            low, high = reader.bounds() if task.index else (zero, zero)
            maps = not isinstance(_module(self.net, layers[i]), nn.Linear)
            self.merge(i, range_of(values, self.config.percentiles), maps, fresh=not task.index)
            kept = (values >= self.lower[i][:, None]) & (values <= self.upper[i][:, None])
            inside = inside & kept.flatten(1).all(1)
            width = (self.upper[i] - self.lower[i]).median()
            rows.append(torch.stack([low.abs().max(), high.abs().max(), inside.to(width.dtype).mean(), width]))
        for name, p in self.net.named_parameters():
            self.old[name].copy_(p)
        # One transfer for all layers.
        self.audit_rows += [[task.index, i + 1, *row] for i, row in enumerate(torch.stack(rows).tolist())]

    def merge(self, i: int, found: tuple[Tensor, Tensor], maps: bool, fresh: bool) -> None:
        """Merge a range into that of layer i, which is empty if `fresh`; ranges of maps contain 0."""
        low, high = (found[0].clamp(max=0), found[1].clamp(min=0)) if maps else found
        self.lower[i].copy_(low if fresh else torch.minimum(self.lower[i], low))
        self.upper[i].copy_(high if fresh else torch.maximum(self.upper[i], high))

    def exhibits(self) -> dict[str, Exhibit]:
        """Drift of each task and layer, and how much of it its ranges cover."""
        columns = zip(*self.audit_rows, strict=True)
        return {"drift": dict(zip(MEASURES, columns, strict=True))} if self.audit_rows else {}

    def rebuilt(self) -> list[Mapping[str, Tensor]]:
        """The weights after the latest task, which are the network's."""
        return [self.old]

    # -- answers -----------------------------------------------------------------------------------

    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        return self.answerable(self.net(x), task_id)


class Reader(NamedTuple):
    """Layer whose inputs lie in ranges, and the weights from which it moves; only its first `rows` outputs count."""

    module: Linear
    rows: int
    weight: Tensor
    """Old weight (o, d) of a linear layer or (o, i, ...) of a convolution."""
    bias: Tensor | None
    middle: Tensor
    """Middles (d,) of the ranges of its inputs, in the order of a row of the weight."""
    radius: Tensor
    """Radii (d,)."""

    def movement(self) -> tuple[Tensor, Tensor]:
        """Middle and radius (rows,) of the interval [L, U]."""
        change = (self.module.weight - self.weight)[: self.rows].flatten(1)
        middle = change @ self.middle
        if self.bias is not None and self.module.bias is not None:
            middle = middle + (self.module.bias - self.bias)[: self.rows]
        return middle, change.abs() @ self.radius

    def bounds(self) -> tuple[Tensor, Tensor]:
        """L and U (rows,)."""
        middle, radius = self.movement()
        return middle - radius, middle + radius

    def penalty(self, form: Form) -> Tensor:
        """Mean of L^2 + U^2 over outputs, or the squares of their sums, 0-d; with L, U = m -+ r it is 2 (m^2 + r^2)."""
        middle, radius = self.movement()
        if form == "sum":
            return 2 * (middle.sum().square() + radius.sum().square())
        return 2 * (middle.square() + radius.square()).mean()


def moved(now: Tensor, before: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Mean squared movement of the activations (b, u, p) that lie in their range now, 0-d; lower, upper: (u,)."""
    within = ((now >= lower[:, None]) & (now <= upper[:, None])).to(now.dtype)
    return (within * (before - now).square()).sum() / (within.sum() + TINY)


def misplaced(values: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Distance of the middles, over the mean radius of all units, of those that are wholly outside of their range; 0-d.

    values (b, u, p): activations in a batch; lower, upper: (u,).
    """
    low, high = values.amin((0, 2)), values.amax((0, 2))
    outside = (high < lower) | (low > upper)
    distance = torch.where(outside, (low + high - lower - upper) / 2, 0.0)
    # the norm's gradient at 0 is 0, as in a batch without such units
    return torch.linalg.vector_norm(distance) / (((upper - lower) / 2).mean() + TINY)


def range_of(values: Tensor, percentiles: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Values (u,) that stand at the percentiles of each unit's activations (n, u, p) in ascending order."""
    ordered = values.transpose(0, 1).flatten(1).sort(1).values
    n = ordered.shape[1]
    first, last = (min(int(share * n), n - 1) for share in percentiles)
    return ordered[:, first], ordered[:, last]


@torch.no_grad()
def activations_of(seen: Seen, samples: Samples) -> list[Tensor]:
    """Activations (n, u, p) of each layer for a task's samples, or for as many as `VALUES_AT_ONCE` permits."""
    _, one = seen(samples.batch(slice(0, 1)).x)
    some = draw(samples, max(1, VALUES_AT_ONCE // sum(a.numel() for a in one)))
    parts = [seen(batch.x)[1] for batch in some.batches(1000)]
    return [torch.cat(each) for each in zip(*parts, strict=True)]


class Seen:
    """A chain of layers that returns its activations too, all in the memory of the network's own parameters.

    training: as the network computes in training mode.
    """

    stateless = True

    def __init__(self, whole: fx.GraphModule, first: fx.GraphModule, units: Sequence[int]) -> None:
        self.whole, self.first, self.units = whole, first, list(units)

    @classmethod
    def of(cls, network: nn.Module, layers: Sequence[Layer], training: bool) -> Seen:
        """Trace a network that is in evaluation mode."""
        network.train(training)  # functions with a mode of their own are traced in the present one
        whole, first = fx.Tracer().trace(network), fx.Tracer().trace(network)
        network.eval()
        [output] = whole.find_nodes(op="output")
        output.args = ((output.args[0], tuple(_taken_at(network, whole, layers))),)
        last = _taken_at(network, first, layers)[0]
        for node in reversed(list(first.nodes)):
            if node is last:
                break
            first.erase_node(node)
        first.output(last)
        units = [layer.units for layer in layers[:-1]]
        return cls(fx.GraphModule(network, whole), fx.GraphModule(network, first), units)

    def __call__(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits of inputs (b, ...), and the activations (b, u, p) of p pixels for each layer but the last."""
        logits, found = self.whole(x)
        return logits, [a.reshape(len(a), u, -1) for a, u in zip(found, self.units, strict=True)]

    def first_of(self, x: Tensor, weights: dict[str, Tensor]) -> Tensor:
        """Activations (b, u, p) of the first layer with other weights, by name."""
        found = functional_call(self.first, weights, (x,))
        return found.reshape(len(found), self.units[0], -1)


def _taken_at(network: nn.Module, graph: fx.Graph, layers: Sequence[Layer]) -> list[fx.Node]:
    """Nodes whose values are the activations of each layer but the last: the latest function that changes a range."""
    modules = dict(network.named_modules())

    def is_last(node: fx.Node) -> bool:
        kind = type(modules[str(node.target)]) if node.op == "call_module" else node.target
        return kind in ACTIVATIONS or kind in LAYERS

    found = []
    for layer in layers[1:]:
        [node] = graph.find_nodes(op="call_module", target=layer.name)
        node = node.all_input_nodes[0]
        while not is_last(node):
            node = node.all_input_nodes[0]
        found.append(node)
    return found


def _module(network: nn.Module, layer: Layer) -> Linear:
    module = network.get_submodule(layer.name)
    assert isinstance(module, LAYERS)
    return module
