"""Evaluation computes in IEEE float32, and leaves every setting as it was."""

import pytest
import torch
from torch.backends import cuda, cudnn, mkldnn

from runners.process.precision import ieee_float32, in_force

OPERATIONS = [cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]


def newer() -> list[str]:
    return [operation.fp32_precision for operation in OPERATIONS]


def every_setting() -> list:
    """As PyTorch reads them, by the newer and the older names; None where it refuses to say."""
    found: list = [torch.backends.fp32_precision, *newer()]
    for read in (torch.get_float32_matmul_precision, lambda: cudnn.allow_tf32, lambda: cuda.matmul.allow_tf32):
        try:
            found.append(read())
        except RuntimeError:
            found.append(None)
    return found


def nothing() -> None:
    pass


def tf32_by_the_older_names() -> None:
    cuda.matmul.allow_tf32 = cudnn.allow_tf32 = True


def bfloat16_on_the_cpu() -> None:
    torch.set_float32_matmul_precision("medium")


def tf32_by_the_newer_names() -> None:
    for operation in OPERATIONS[:3]:
        operation.fp32_precision = "tf32"


def tf32_everywhere() -> None:
    torch.backends.fp32_precision = "tf32"


@pytest.fixture(autouse=True)
def restored():
    before = newer()
    level, convolutions = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    yield
    torch.backends.fp32_precision = "none"
    torch.set_float32_matmul_precision(level)
    cudnn.allow_tf32 = convolutions
    for operation, value in zip(OPERATIONS, before, strict=True):
        operation.fp32_precision = value


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    "arrange", [nothing, tf32_by_the_older_names, bfloat16_on_the_cpu, tf32_by_the_newer_names, tf32_everywhere]
)
def test_settings_are_ieee_inside_and_as_before_afterwards(arrange, fails):
    arrange()
    before = every_setting()
    if arrange is not nothing:
        assert {"tf32", "bf16"} & set(newer())
    try:
        with ieee_float32():
            assert newer() == ["ieee"] * 6
            assert in_force(True) == in_force(False) == "matmul ieee, convolution ieee"
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert every_setting() == before
    assert fails or newer() != ["ieee"] * 6


def test_the_older_names_can_be_read_inside_where_they_could_before():
    tf32_by_the_older_names()
    with ieee_float32():
        assert not cudnn.allow_tf32 and not cuda.matmul.allow_tf32
        with cudnn.flags(enabled=False):  # what a method may do in `predict`
            pass
        assert "tf32" not in newer()
    assert cudnn.allow_tf32 and cuda.matmul.allow_tf32
