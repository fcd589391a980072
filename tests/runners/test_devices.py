"""Every command that has --device answers a device that is not there with one sentence."""

from __future__ import annotations

import re
import subprocess

import pytest
import torch

from benchmarks.types import UserError
from runners.process import devices
from tests.runners.helpers import ROOT, command, environment

COMMANDS = {
    "compare.py": ("--methods", "finetune", "--dry-run"),
    "tune.py": ("--suite", "quick", "--method", "ewc", "--trials", "1"),
    "speed.py": ("--methods", "finetune", "--steps", "1"),
    "check_method.py": ("finetune",),
}


def test_every_command_with_a_device_is_among_these():
    found = {
        file.name
        for file in (ROOT / "runners").glob("*.py")
        if re.search(r"^    device: Annotated\[", file.read_text(), re.M)
    }
    assert found == set(COMMANDS)


@pytest.mark.parametrize("script", COMMANDS)
@pytest.mark.parametrize(
    "device, answer",
    [
        ("gpu", "error: --device gpu: write auto, cpu, cuda or cuda:N"),
        ("cuda", "error: --device cuda: this machine has no CUDA device that torch can use; take --device cpu"),
    ],
)
def test_a_device_that_is_not_there(tmp_path, script, device, answer):
    done = subprocess.run(
        command(*COMMANDS[script], "--device", device, script=script),
        capture_output=True, text=True, timeout=300, env=environment(CUDA_VISIBLE_DEVICES=""), cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.strip() == answer and done.stdout == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments, answer", [
    (("--engine", "ray", "--device", "cuda:1"), "with --engine ray, Ray chooses the GPU; write auto, cpu or cuda"),
    (("--engine", "warp"), "--engine warp: permitted are local, ray, inline"),
    (("--workers", "0"), "--workers 0: must be at least 1"),
])  # fmt: skip
def test_tuning_refuses_what_a_comparison_refuses(tmp_path, arguments, answer):
    done = subprocess.run(
        command(*COMMANDS["tune.py"], *arguments, script="tune.py"),
        capture_output=True, text=True, timeout=300, env=environment(), cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2 and answer in done.stderr and "Traceback" not in done.stderr


def test_the_one_device_of_a_command(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    asked = {name: devices.single(name) for name in ("auto", "cpu", "cuda", "cuda:1")}
    assert asked == {"auto": "cuda:0", "cpu": "cpu", "cuda": "cuda:0", "cuda:1": "cuda:1"}
    with pytest.raises(UserError, match="--device cuda:2: there are 2 CUDA devices, numbered from 0"):
        devices.single("cuda:2")
