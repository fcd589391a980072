"""Recurrent hypernetwork: an LSTM over the chunks of the target weights, so that a chunk depends on those before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

HIDDEN_MAP = ("cell.weight_hh", "cell.bias_hh")
"""Parameters of the map from one hidden state to the next."""


class LSTMHypernetwork(nn.Module):
    """One LSTM layer over (task embedding, chunk embedding), then one linear layer with a row per weight of a chunk.

    Source: the generator of Chandra, Varshney, Srijith & Gupta (2022), arXiv 2209.07712. Chunk k of the weights is
    W h_k + b, with W and b shared by all chunks and h_k, c_k = LSTM([e; chunk_k], h_{k-1}, c_{k-1}) from a zero state.
    Every gate has an input map and a hidden map with a bias each, all drawn from U(-1/sqrt(H), 1/sqrt(H)); chunk
    embeddings are drawn from N(0, 1).

    The cells run one after the other as `nn.LSTMCell`, not as cuDNN's LSTM: that one wants its weights in one block of
    memory, which weights passed in by `functional_call` are not, and repeats its results to the bit under conditions
    only.
    """

    def __init__(self, n_inputs: int, hidden: int, n_outputs: int, chunk_size: int, chunk_embedding: int) -> None:
        super().__init__()
        chunk_size = min(chunk_size, n_outputs)
        self.n_outputs = n_outputs
        self.chunks = nn.Parameter(torch.randn(-(-n_outputs // chunk_size), chunk_embedding))
        self.cell = nn.LSTMCell(n_inputs + chunk_embedding, hidden)
        self.output = nn.Linear(hidden, chunk_size)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Embeddings (k, E) -> target weights (k, N)."""
        tasks, chunks = len(embeddings), len(self.chunks)
        inputs = [embeddings.expand(chunks, -1, -1), self.chunks[:, None].expand(-1, tasks, -1)]
        state, hidden = None, []
        for step in torch.cat(inputs, 2):
            state = self.cell(step, state)
            hidden.append(state[0])
        return self.output(torch.stack(hidden, 1)).flatten(1)[:, : self.n_outputs]

    def padded(self, embeddings: Tensor) -> Tensor:
        """Same contract as `ChunkedHypernetwork.padded`."""
        return self(embeddings)

    def held(self, embeddings: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (k + t, E) -> target weights (k, N), and the summed squared difference of the last t to `targets`.

        Same contract as `Hypernetwork.held`.
        """
        own, others = self(embeddings).split([len(embeddings) - len(targets), len(targets)])
        return own, nn.functional.mse_loss(others, targets, reduction="sum")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Context in which the hidden map gets gradients of zero; a fresh Adam does not move it then, not by one bit.

        It still requires a gradient, because HNET's look-ahead differentiates by all parameters of its generator.
        """
        handles = [self.get_parameter(name).register_hook(torch.zeros_like) for name in HIDDEN_MAP]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def copied(self) -> dict[str, Tensor]:
        """Copies of all parameters but the hidden map's, by name."""
        kept = (item for item in self.named_parameters() if item[0] not in HIDDEN_MAP)
        return {name: parameter.detach().clone() for name, parameter in kept}
