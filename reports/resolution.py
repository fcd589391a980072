"""Resolution of an accuracy: one test image. Mean accuracies closer than that, or equal as printed, are ties."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from benchmarks import catalogue
from reports.study import Group, Study
from reports.words import percent

TEST_IMAGES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "digits": (450, 10),
        "mnist": (10_000, 10),
        "fashion-mnist": (10_000, 10),
        "cifar-10": (10_000, 10),
        "cifar-100": (10_000, 100),
        "tiny-imagenet": (10_000, 200),
    }
)
"""Test images and classes of the shipped data sets."""
TRAIN_IMAGES: Mapping[str, int] = MappingProxyType(
    {
        "digits": 1_347,
        "mnist": 60_000,
        "fashion-mnist": 60_000,
        "cifar-10": 50_000,
        "cifar-100": 50_000,
        "tiny-imagenet": 100_000,
    }
)
"""Training images of the shipped data sets, those held out for validation included."""
ROUNDING = 1e-9


def images_of(study: Study, group: Group) -> int | None:
    """Number of test images of all tasks of a group; None for a data set that is not shipped."""
    record = next(study.at(group, label)[0].record for label in study.rows(group))
    benchmark = catalogue.BENCHMARKS.get(record.benchmark.removesuffix(catalogue.SHUFFLED_SUFFIX))
    if benchmark is None or not isinstance(benchmark.dataset, str) or benchmark.dataset not in TEST_IMAGES:
        return None
    images, classes = TEST_IMAGES[benchmark.dataset]
    if benchmark.kind is catalogue.Kind.SPLIT:
        return images * record.n_tasks * record.classes_per_task // classes
    return images * record.n_tasks


def tie(first: float, second: float, images: int | None) -> bool:
    """Check whether two mean accuracies are equal as printed, or closer than one of `images` test images."""
    near = images is not None and abs(first - second) < 1 / images - ROUNDING
    return near or percent(first) == percent(second)
