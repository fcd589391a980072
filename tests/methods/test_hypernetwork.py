"""The chunked hypernetwork: chunk embeddings are points, boxes of weights are sound, radii weigh as told."""

import pytest
import torch

from methods.hypernetworks.network import ChunkedHypernetwork, hypernetwork
from methods.hypernetworks.output_layer import Targets
from methods.intervals.bounding import Interval, contains

EMBEDDING, CHUNK_EMBEDDING, CHUNK, OUTPUTS = 4, 2, 5, 13
"""Three chunks, the last of which is not used to its end; no two of the sizes are alike."""


def chunked(hidden: tuple[int, ...], seed: int = 0) -> ChunkedHypernetwork:
    torch.manual_seed(seed)
    made = hypernetwork(EMBEDDING, hidden, OUTPUTS, chunk=CHUNK, chunk_embedding=CHUNK_EMBEDDING).double()
    assert isinstance(made, ChunkedHypernetwork)
    return made


def boxes(k: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return (torch.randn(k, EMBEDDING, generator=g).double(), torch.rand(k, EMBEDDING, generator=g).double())


@torch.no_grad()
def test_without_hidden_layers_the_radius_is_that_of_the_task_alone():
    """rho = |W_task| r in each chunk, whatever the chunk's embedding."""
    made = chunked(())
    centres, radii = boxes(2)
    theta, rho, drift = made.intervals(centres, radii)
    weight, bias = made.output.weight.double(), made.output.bias.double()
    own, of_chunk = weight[:, :EMBEDDING], weight[:, EMBEDDING:]
    wanted = torch.cat([centres @ own.t() + chunk @ of_chunk.t() + bias for chunk in made.chunks], 1)[:, :OUTPUTS]
    torch.testing.assert_close(theta, wanted)
    torch.testing.assert_close(rho, (radii @ own.abs().t()).repeat(1, len(made.chunks))[:, :OUTPUTS])
    assert drift == 0


@torch.no_grad()
@pytest.mark.parametrize("hidden", [(), (6,), (6, 5)])
def test_a_box_without_width_makes_weights_without_width(hidden):
    made = chunked(hidden)
    centres, radii = boxes(3)
    theta, rho, _ = made.intervals(centres, 0 * radii)
    assert (rho == 0).all() and rho.shape == (3, OUTPUTS)
    torch.testing.assert_close(theta, made(centres))


@torch.no_grad()
def test_every_embedding_of_a_box_makes_weights_of_its_image():
    made = chunked((6, 5))
    centres, radii = boxes(2)
    theta, rho, _ = made.intervals(centres, radii)
    corners = torch.randint(0, 2, (50, 2, EMBEDDING), generator=torch.Generator().manual_seed(2)) * 2 - 1
    for corner in corners:
        assert contains(Interval.around(theta, rho + 1e-9), made(centres + corner * radii)).all()


@torch.no_grad()
@pytest.mark.parametrize("weight", [0.0, 2 / 3, 1.0])
@pytest.mark.parametrize("radii_held", [True, False])
def test_the_drift_is_the_weighted_sum_of_squares_and_the_rest_is_as_without_it(weight, radii_held):
    """One box of its own and two held, whose centres are off by 2 and whose radii by 3 everywhere."""
    made = chunked((6,))
    centres, radii = boxes(3)
    theta, rho, _ = made.intervals(centres, radii)
    held = Targets(theta[1:] - 2, rho[1:] + 3 if radii_held else rho[:0], weight)
    own, own_radii, drift = made.intervals(centres, radii, 3 if radii_held else 1, held)
    torch.testing.assert_close(own, theta[:1])
    torch.testing.assert_close(own_radii, rho[:1])
    assert drift.item() == pytest.approx(2 * OUTPUTS * (4 + (9 * weight if radii_held else 0)))
    own, drift = made.held(centres, made(centres)[1:] + 2)
    torch.testing.assert_close(own, made(centres)[:1])
    assert drift.item() == pytest.approx(2 * OUTPUTS * 4)


@torch.no_grad()
@pytest.mark.parametrize("chunk_first", [False, True])
def test_every_chunk_of_every_task_is_made_from_its_own_pair_of_embeddings(chunk_first):
    """In the order asked for: task by task, in each the chunks one after the other, cut where the weights end."""
    torch.manual_seed(0)
    made = ChunkedHypernetwork(EMBEDDING, (6,), OUTPUTS, CHUNK, CHUNK_EMBEDDING, chunk_first=chunk_first).double()
    centres, radii = boxes(2)
    for task, theta, of_box in zip(centres, made(centres), made.intervals(centres, 0 * radii)[0], strict=True):
        pairs = [(chunk, task) if chunk_first else (task, chunk) for chunk in made.chunks]
        wanted = torch.cat([made.inner(torch.cat(pair)[None])[0] for pair in pairs])[:OUTPUTS]
        torch.testing.assert_close(theta, wanted)
        torch.testing.assert_close(of_box, wanted)
