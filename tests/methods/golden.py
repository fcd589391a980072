"""Golden vectors: inputs and outputs of the official codes, recorded in `tests/golden`.

Other sets of the same layout are tested with GOLDEN_FOLDER (where they lie) and GOLDEN_SET (the letter in
`hyper_a.npz`, `interval_a.npz`).
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(os.environ.get("GOLDEN_FOLDER") or Path(__file__).parent.parent / "golden")
SET = os.environ.get("GOLDEN_SET") or "a"


@cache
def load(name: str) -> dict[str, np.ndarray]:
    """All arrays of the set's file `name`, "hyper" or "interval", by key; shared, do not write to them."""
    with np.load(FOLDER / f"{name}_{SET}.npz") as archive:
        return {key: archive[key] for key in archive.files}


def group(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays below `prefix` (as in a folder), keyed by the rest of their name."""
    prefix = prefix.rstrip("/") + "/"
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Copies as tensors of the recorded type (strings are left out)."""
    return {key: torch.from_numpy(value.copy()) for key, value in arrays.items() if value.dtype.kind in "fiub"}


def assert_close(actual: Tensor, expected: np.ndarray | Tensor, tolerance: float, what: str = "") -> None:
    """Every difference is at most tolerance * (1 + |expected|), the measure of the golden READMEs."""
    expected = torch.as_tensor(expected)
    assert actual.shape == expected.shape, f"{what}: shape {tuple(actual.shape)} != {tuple(expected.shape)}"
    error = ((actual - expected).abs() / (1 + expected.abs())).max().item() if expected.numel() else 0.0
    assert error <= tolerance, f"{what}: error {error:.3g} > {tolerance:.3g}"
