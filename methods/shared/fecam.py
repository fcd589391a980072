"""FeCAM: classes as Gaussians in feature space, classified by the Mahalanobis distance.

Goswami, Liu, Twardowski & van de Weijer (2023), NeurIPS, arXiv 2309.14062, as HyperMask uses it to infer the
task. Here the statistics of a class are computed once, at the end of its task. HyperMask's official program
recomputes them from all stored training data after every task, which violates the continual setting.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

JITTER = 1e-8
"""Jitter added to correlation matrices before the pseudo-inverse."""


class ClassStatistics(NamedTuple):
    """Statistics of one task's classes: prototypes (C, d) of length 1, precision matrices (C, d, d)."""

    prototypes: Tensor
    precisions: Tensor


def tukey(features: Tensor) -> Tensor:
    """Tukey's ladder with power 0.5, with the sign kept: (b, d) -> (b, d), closer to a Gaussian."""
    return features.sign() * features.abs().sqrt()


def shrunk(covariance: Tensor) -> Tensor:
    """Covariance (d, d) plus its mean variance on the diagonal and its mean non-zero covariance off it."""
    eye = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    beside = covariance * (1 - eye)
    mean_beside = beside.sum() / (beside != 0).sum().clamp_min(1)
    return covariance + covariance.diagonal().mean() * eye + mean_beside * (1 - eye)


def correlation(features: Tensor) -> Tensor:
    """Twice shrunk covariance of features (n, d), scaled to a unit diagonal, (d, d)."""
    centred = features - features.mean(0)
    covariance = shrunk(shrunk(centred.t() @ centred / max(1, len(features) - 1)))
    scale = covariance.diagonal().clamp_min(torch.finfo(covariance.dtype).tiny).rsqrt()
    return covariance * scale[:, None] * scale


def precision(correlations: Tensor, jitter: Literal["diagonal", "all"] = "diagonal") -> Tensor:
    """Pseudo-inverse of correlations (d, d); the official program adds the jitter to all entries."""
    if jitter == "diagonal":
        eye = torch.eye(len(correlations), dtype=correlations.dtype, device=correlations.device)
        return torch.linalg.pinv(correlations + JITTER * eye, hermitian=True)
    return torch.linalg.pinv(correlations + JITTER)


def statistics(features: Tensor, labels: Tensor, n_classes: int) -> ClassStatistics:
    """Prototypes and precisions of the classes 0..n_classes-1 of features (n, d) with labels (n,)."""
    groups = [features[labels == c] for c in range(n_classes)]
    prototypes = torch.stack([normalize(group.mean(0), dim=0) for group in groups])
    return ClassStatistics(prototypes, torch.stack([precision(correlation(group)) for group in groups]))


def distances(features: Tensor, prototypes: Tensor, precisions: Tensor) -> Tensor:
    """Squared Mahalanobis distances (b, C) of features (b, d), brought to length 1, to each class."""
    apart = normalize(features, dim=1)[None] - prototypes[:, None]
    return ((apart @ precisions) * apart).sum(-1).t()


def nearest_task(distances_by_task: Tensor) -> Tensor:
    """Task of each sample's nearest class: distances (T, b, C) -> (b,) int64."""
    return distances_by_task.amin(-1).argmin(0)
