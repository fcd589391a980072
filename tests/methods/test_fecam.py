"""FeCAM against the recorded numbers, and on Gaussians."""

from __future__ import annotations

import torch

from methods.shared import fecam
from tests.methods import golden

GOLD = golden.tensors(golden.group(golden.load("interval"), "hm/fecam"))
N_CLASSES = sum(key.startswith("cov") for key in GOLD)


def features_of(c: int) -> torch.Tensor:
    return GOLD["X"][GOLD["y"] == c]


def test_correlations_and_prototypes_equal_the_recorded_ones() -> None:
    for c in range(N_CLASSES):
        golden.assert_close(fecam.correlation(features_of(c)), GOLD[f"cov{c}"], 1e-9)
        golden.assert_close(features_of(c).mean(0), GOLD[f"proto{c}"], 1e-9)


def test_distances_equal_the_recorded_ones() -> None:
    precisions = torch.stack([fecam.precision(GOLD[f"cov{c}"], jitter="all") for c in range(N_CLASSES)])
    prototypes = fecam.statistics(GOLD["X"], GOLD["y"], N_CLASSES).prototypes
    found = fecam.distances(GOLD["query"], prototypes, precisions)
    golden.assert_close(found.t(), GOLD["mahalanobis"], 1e-9)
    sound = fecam.statistics(GOLD["X"], GOLD["y"], N_CLASSES).precisions
    golden.assert_close(fecam.distances(GOLD["query"], prototypes, sound).t(), GOLD["mahalanobis"], 1e-6)


def test_nearest_task_and_class_equal_the_recorded_ones() -> None:
    by_task, class_of = GOLD["task_distances"], GOLD["task_classes"]
    distances = torch.full((*by_task.shape, int(class_of.max()) + 1), torch.inf, dtype=torch.float64)
    distances.scatter_(2, class_of[:, :, None], by_task[:, :, None])
    task = fecam.nearest_task(distances)
    answered = distances[task, torch.arange(len(task))].argmin(1)
    assert answered.tolist() == GOLD["nearest_class"].tolist()


def test_classes_of_one_centre_are_told_apart_by_their_shape() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(2000) % 2
    long, short = torch.randn(2000, generator=generator), 0.1 * torch.randn(2000, generator=generator)
    slope = 1.0 - 2.0 * labels
    x = torch.stack([long - short, slope * (long + short), 8.0 + torch.randn(2000, generator=generator)], 1)
    prototypes, precisions = fecam.statistics(x, labels, 2)
    shaped = fecam.distances(x, prototypes, precisions).argmin(1)
    round_ones = fecam.distances(x, prototypes, torch.eye(3).expand(2, 3, 3)).argmin(1)
    assert (shaped == labels).float().mean() > 0.9
    assert (round_ones == labels).float().mean() < 0.6


def test_the_root_of_a_feature_keeps_its_sign() -> None:
    assert fecam.tukey(torch.tensor([[-4.0, 0.0, 9.0]])).tolist() == [[-2.0, 0.0, 3.0]]


def test_a_feature_that_never_varies_gives_finite_distances() -> None:
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
    x[:, 2] = 0.0
    labels = torch.arange(50) % 2
    assert torch.isfinite(fecam.distances(x, *fecam.statistics(x, labels, 2))).all()
    assert torch.isfinite(fecam.distances(x, *fecam.statistics(torch.zeros(50, 4), labels, 2))).all()
