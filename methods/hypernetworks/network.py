"""Hypernetwork shared by all methods that use one: embeddings to flat target weights, all in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from methods.hypernetworks import compiled, compiled_drift
from methods.hypernetworks.drift import Frozen, squared_drift
from methods.hypernetworks.output_layer import OutputLayer, Targets

ACTIVATIONS = {"relu": torch.relu, "elu": nn.functional.elu}


class Hypernetwork(nn.Module):
    """Fully connected: embedding (E) -> hidden layers -> one linear output with a row per target weight.

    Source: von Oswald et al. (2020), ICLR; interval propagation: Krukowski et al. (2024), HINT.
    """

    def __init__(self, n_inputs: int, hidden: tuple[int, ...], n_outputs: int, activation: str = "relu") -> None:
        super().__init__()
        sizes = (n_inputs, *hidden)
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.output = OutputLayer(sizes[-1], n_outputs)
        self.activation = ACTIVATIONS[activation]

    def forward(self, embeddings: Tensor) -> Tensor:
        """Embeddings (k, E) -> target weights (k, N)."""
        return self.output(self._hidden(embeddings))[0]

    def padded(self, embeddings: Tensor) -> Tensor:
        """Same contract as `ChunkedHypernetwork.padded`."""
        return self(embeddings)

    def held(self, embeddings: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (k + t, E) -> target weights (k, N) of the first k, and the drift of the last t.

        The drift is the sum of squared differences to `targets` (t, N), 0-d.
        """
        theta, _, drift = self.output(self._hidden(embeddings), held=Targets(targets, targets[:0]))
        return theta, drift

    def intervals(
        self, centres: Tensor, radii: Tensor, with_radius: int | None = None, held: Targets | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes of embeddings, centres and radii (k, E) -> sound boxes of weights (k, N), and a drift.

        Radii are computed for the first `with_radius` = m boxes only (default: all k). With `held`
        targets for t boxes, the last t boxes yield only their drift; see `OutputLayer`. The centre
        of a box after a ReLU is the midpoint of its image, so it depends on the radius. Requires ReLU.
        """
        for layer in self.hidden:
            assert isinstance(layer, nn.Linear)
            middle = nn.functional.linear(centres, layer.weight, layer.bias)
            spread = nn.functional.linear(radii, layer.weight.abs())
            lower, upper = torch.relu(middle - spread), torch.relu(middle + spread)
            centres, radii = (upper + lower) / 2, (upper - lower) / 2
        return self.output(centres, radii[:with_radius], held)

    def _hidden(self, embeddings: Tensor, instead: Mapping[Tensor, Tensor] | None = None) -> Tensor:
        for layer in self.hidden:
            assert isinstance(layer, nn.Linear)
            weight, bias = ((instead or {}).get(p, p) for p in (layer.weight, layer.bias))
            embeddings = self.activation(nn.functional.linear(embeddings, weight, bias))
        return embeddings

    def small_parameters(self) -> Iterator[nn.Parameter]:
        """All parameters but the output layer's."""
        return self.hidden.parameters()


class ChunkedHypernetwork(nn.Module):
    """Small network that generates the target weights chunk by chunk from (task embedding, chunk embedding).

    Source: von Oswald et al. (2020), section 2. `chunk_first` is hypnettorch's input order; the
    authors' own scripts put the task embedding first.
    """

    def __init__(
        self, n_inputs: int, hidden: tuple[int, ...], n_outputs: int, chunk_size: int, chunk_embedding: int,
        activation: str = "relu", chunk_first: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.n_outputs, self.chunk_size, self.chunk_first = n_outputs, chunk_size, chunk_first
        self.chunks = nn.Parameter(torch.randn(-(-n_outputs // chunk_size), chunk_embedding))
        self.inner = Hypernetwork(n_inputs + chunk_embedding, hidden, chunk_size, activation)

    def forward(self, embeddings: Tensor, since: Frozen | None = None) -> Tensor:
        """Embeddings (k, E) -> target weights (k, N), or with a frozen state their drift since then.

        The drift is the sum of squared differences to what the frozen state generates for its k tasks, 0-d.
        """
        if since is None:
            return self._joined(self.inner(self._inputs(embeddings, self.chunks)))
        return squared_drift(self.hidden(embeddings), self.output.weight, self.output.bias, since, self.edge)

    def padded(self, embeddings: Tensor) -> Tensor:
        """Target weights (k, N or more) with what the last chunk has beyond N: their gradient needs no copy."""
        return self.inner(self._inputs(embeddings, self.chunks)).view(len(embeddings), -1)

    @property
    def edge(self) -> int:
        """Number of outputs in the last chunk that are target weights."""
        return self.n_outputs - (len(self.chunks) - 1) * self.chunk_size

    @torch.no_grad()
    def frozen(self, embeddings: Tensor) -> Frozen:
        """Copy of the state that generates the target weights of these embeddings (k, E)."""
        weight, bias = self.output.weight, self.output.bias
        blocks = compiled_drift.in_blocks(weight) if compiled.suits(weight) else weight.new_empty(0)
        return Frozen(self.hidden(embeddings), weight.clone(), bias.clone(), blocks)

    def of_low_rank(self, tasks: int) -> bool:
        """Check whether the outputs for so many tasks are more than the output layer has inputs.

        From there on their drift costs less without the outputs.
        """
        return tasks * len(self.chunks) >= self.output.weight.shape[1]

    def held(self, embeddings: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Same contract as `Hypernetwork.held`."""
        own, others = self(embeddings).split([len(embeddings) - len(targets), len(targets)])
        return own, nn.functional.mse_loss(others, targets, reduction="sum")

    def intervals(
        self, centres: Tensor, radii: Tensor, with_radius: int | None = None, held: Targets | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Same contract as `Hypernetwork.intervals`; chunk embeddings are points. Sound: a chunk uses the whole box."""
        k, m = len(centres), len(centres) if with_radius is None else with_radius
        middle, spread = self._inputs(centres, self.chunks), self._inputs(radii, torch.zeros_like(self.chunks))
        theta, rho, _ = self.inner.intervals(middle, spread, m * len(self.chunks))
        theta, rho = self._joined(theta), self._joined(rho)
        if held is None:
            return theta, rho, theta.new_zeros(())
        own, others = theta.split([k - len(held.theta), len(held.theta)])
        own_radii, other_radii = rho.split([m - len(held.rho), len(held.rho)])
        drift = (others - held.theta).square().sum()
        return own, own_radii, drift + held.radius_weight * (other_radii - held.rho).square().sum()

    @property
    def output(self) -> OutputLayer:
        """Largest layer, for which `FusedAdam` steps inside the backward pass."""
        return self.inner.output

    def small_parameters(self) -> Iterator[nn.Parameter]:
        """All parameters but the output layer's."""
        yield self.chunks
        yield from self.inner.small_parameters()

    def hidden(self, embeddings: Tensor, instead: Mapping[Tensor, Tensor] | None = None) -> Tensor:
        """Embeddings (k, E) -> inputs (k, c, h) of the output layer, with other values instead of parameters."""
        hidden = self.inner._hidden(self._inputs(embeddings, (instead or {}).get(self.chunks, self.chunks)), instead)
        return hidden.view(len(embeddings), len(self.chunks), -1)

    def _inputs(self, tasks: Tensor, chunks: Tensor) -> Tensor:
        """Pair every task (k, E) with every chunk (c, e): (k * c, E + e), task by task."""
        k, n_chunks = tasks.shape[0], chunks.shape[0]
        tasks, chunks = tasks.repeat_interleave(n_chunks, 0), chunks.repeat(k, 1)
        return torch.cat([chunks, tasks] if self.chunk_first else [tasks, chunks], 1)

    def _joined(self, outputs: Tensor) -> Tensor:
        """Join the chunks of k tasks: (k * c, size) -> (k, N)."""
        return _Joined.apply(outputs, len(self.chunks), self.n_outputs)


class _Joined(torch.autograd.Function):
    """Chunks (k * c, size) -> (k, N): a view, whose gradient is written once instead of onto zeros."""

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, chunks: int, n_outputs: int) -> Tensor:
        ctx.chunks, ctx.size = chunks, outputs.shape[1]
        return outputs.view(len(outputs) // chunks, chunks * ctx.size)[:, :n_outputs]

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = cotangents
        tasks, n_outputs = gradient.shape
        padded = gradient.new_empty(tasks, ctx.chunks * ctx.size)
        padded[:, :n_outputs] = gradient
        padded[:, n_outputs:] = 0
        return padded.view(tasks * ctx.chunks, ctx.size), None, None


def hypernetwork(
    n_inputs: int, hidden: tuple[int, ...], n_outputs: int, activation: str = "relu",
    chunk: int = 0, chunk_embedding: int = 0,
) -> Hypernetwork | ChunkedHypernetwork:  # fmt: skip
    """Make a full hypernetwork, or a chunked one that generates `chunk` target weights at once."""
    if not chunk:
        return Hypernetwork(n_inputs, hidden, n_outputs, activation)
    return ChunkedHypernetwork(n_inputs, hidden, n_outputs, min(chunk, n_outputs), chunk_embedding, activation)


def xavier_(hypernetwork: nn.Module) -> None:
    """Initialise with Xavier-uniform matrices and zero biases, as in the authors' MNIST runs."""
    for module in hypernetwork.modules():
        if isinstance(module, nn.Linear | OutputLayer):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
