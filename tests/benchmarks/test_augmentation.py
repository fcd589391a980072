"""Augmentation and normalisation: per image, the same wherever and whenever a batch is drawn, and never in tests."""

from dataclasses import replace

import pytest
import torch

from benchmarks.augmentation import FlipCrop, random_bits
from benchmarks.catalogue import IMAGENET, Augmentation, Normalisation
from benchmarks.samples import Samples
from benchmarks.types import CIL, TIL
from tests.benchmarks.synthetic import stream

CPU = torch.device("cpu")


def by_hand(image: torch.Tensor, top: int, left: int, flipped: bool, padding: int = 4) -> torch.Tensor:
    size = image.shape[-1]
    canvas = torch.zeros(image.shape[0], size + 2 * padding, size + 2 * padding, dtype=image.dtype)
    canvas[:, padding : padding + size, padding : padding + size] = image
    crop = canvas[:, top : top + size, left : left + size]
    return crop.flip(2) if flipped else crop


def test_every_image_is_a_crop_of_its_own_padded_image_flipped_or_not() -> None:
    images = torch.randint(1, 256, (40, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    out = FlipCrop(seed=5)(images, 3)
    assert out.dtype == torch.uint8 and out.shape == images.shape
    found = set()
    for image, crop in zip(images, out, strict=True):
        places = [(t, x, f) for t in range(9) for x in range(9) for f in (False, True)]
        (place,) = [p for p in places if torch.equal(by_hand(image, *p), crop)]
        found.add(place)
    assert len(found) > 25, "the images share their crops"


@pytest.mark.parametrize("padding", [1, 4])
def test_every_place_and_both_directions_occur_equally_often(padding: int) -> None:
    """From the first to the last place in each direction, flipped or not: by a gradient the place can be read off."""
    size, n, offsets = 12, 40_000, 2 * padding + 1
    image = 1 + torch.arange(size * size).view(1, 1, size, size)
    out = FlipCrop(seed=3, padding=padding)(image.expand(n, -1, -1, -1), 1)
    middle = out[:, 0, size // 2, size // 2 - 1 : size // 2 + 1]  # away from the padding, whatever the place
    flipped = middle[:, 0] > middle[:, 1]
    left_one = middle.amin(1) - 1
    row, column = left_one // size, left_one % size
    top, left = row - size // 2 + padding, column - (size // 2 - 1) + padding
    for values, several in ((top, offsets), (left, offsets), (flipped.long(), 2)):
        share = values.bincount(minlength=several) / n
        assert len(share) == several and ((share - 1 / several).abs() < 0.015).all()


def test_crops_and_flips_are_uniform() -> None:
    bits = random_bits(1, 0, 90_000, CPU)
    assert (bits >= 0).all() and bits.unique().numel() == len(bits)
    for values, n in (((bits >> 1) % 9, 9), ((bits >> 21) % 9, 9), (bits & 1, 2)):
        share = values.bincount(minlength=n) / len(bits)
        assert ((share - 1 / n).abs() < 0.006).all()


@pytest.mark.parametrize("step", [7, torch.tensor(7), torch.tensor(7.0)])
def test_the_same_step_gives_the_same_and_others_do_not(step) -> None:
    images = torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8)
    first = FlipCrop(seed=2)(images, 7)
    torch.manual_seed(123)  # torch's generator has no part in it
    assert torch.equal(FlipCrop(seed=2)(images, step), first)
    assert not torch.equal(FlipCrop(seed=2)(images, 8), first)
    assert not torch.equal(FlipCrop(seed=3)(images, 7), first)


def test_random_bits_are_those_of_splitmix64() -> None:
    # By arithmetic without bounds, from the published constants.
    def reference(counter: int, seed: int) -> int:
        mask = (1 << 64) - 1
        z = (counter * 0x9E3779B97F4A7C15 + seed) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return (z ^ (z >> 31)) >> 1

    expected = [reference((3 << 20) + i, 2**62 + 11) for i in range(5)]
    assert random_bits(2**62 + 11, 3, 5, CPU).tolist() == expected


def augmented_stream(**changes: object):
    options = {"augmentation": Augmentation.FLIP_CROP, "normalisation": Normalisation((0.5,), (0.25,)), **changes}
    return stream("split-mnist", TIL, **options)


def test_only_training_batches_are_augmented() -> None:
    task = augmented_stream().task(0)
    everything = torch.arange(8)
    for samples in (task.train, task.validation, augmented_stream().test(0)):
        plain, training = samples.batch(everything), samples.training_batch(everything, 0)
        assert torch.equal(plain.x, training.x) == (samples is not task.train)
        assert torch.equal(plain.y, training.y)


def test_inputs_are_normalised_and_images_are_not() -> None:
    samples = augmented_stream().test(1)
    images = samples.images(slice(0, 5))
    assert images.min() >= 0 and images.max() <= 1
    torch.testing.assert_close(samples.batch(slice(0, 5)).x, (images - 0.5) / 0.25)


def test_a_normalised_stream_declares_signed_inputs() -> None:
    assert augmented_stream().spec.nonnegative_inputs is False
    assert augmented_stream(normalisation=None).spec.nonnegative_inputs is True
    assert augmented_stream().test(0).x.min() < 0
    assert len(IMAGENET.mean) == len(IMAGENET.std) == 3


def test_rehearsal_augments_samples_of_all_tasks() -> None:
    opened = augmented_stream()
    parts = [opened.task(j).train for j in range(2)]
    joined = Samples.concatenate(parts)
    rows = torch.tensor([0, len(parts[0])])
    assert torch.equal(joined.batch(rows).x, torch.cat([p.batch(slice(0, 1)).x for p in parts]))
    plain, augmented = replace(joined, augment=None).training_batch(rows, 1), joined.training_batch(rows, 1)
    assert not torch.equal(plain.x, augmented.x)
    assert joined.training_batch(rows, 1).task.tolist() == [0, 1]


def test_each_task_and_each_stream_has_a_seed_of_its_own() -> None:
    """Otherwise the same row of two tasks would be cropped and flipped alike at every step."""
    streams = [stream("split-mnist", TIL, seed, augmentation=Augmentation.FLIP_CROP) for seed in (0, 1)]
    augmented = [opened.task(j).train.augment for opened in streams for j in range(5)]
    assert len({one.seed for one in augmented if one}) == 10


def test_scenarios_draw_the_same_images() -> None:
    til, cil = augmented_stream(), stream("split-mnist", CIL, augmentation=Augmentation.FLIP_CROP)
    a = til.task(1).train.training_batch(slice(0, 6), 2).x * 0.25 + 0.5
    torch.testing.assert_close(a, cil.task(1).train.training_batch(slice(0, 6), 2).x)
