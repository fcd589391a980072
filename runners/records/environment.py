"""Environment of a record: versions, device, commit."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runners.grid.fingerprint import ROOT, installed_modules

if TYPE_CHECKING:
    import torch

    from methods.base import Method

_DISTRIBUTIONS = ("torch", "numpy", "torchvision", "avalanche-lib")
CPU_KERNELS = ("cpu_capability", "mkl", "onednn", "kernel_settings")
"""Fields of a worker's environment that identify its CPU kernels; other kernels round differently."""
_KERNEL_VARIABLES = (
    "ATEN_CPU_CAPABILITY", "MKL_CBWR", "MKL_DEBUG_CPU_TYPE", "MKL_ENABLE_INSTRUCTIONS", "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "ONEDNN_MAX_CPU_ISA",
)  # fmt: skip
"""By these a user has PyTorch's libraries choose other kernels than the processor's own."""


@cache
def of_driver() -> dict[str, Any]:
    """Python, platform and packages, and the git commit of this repository (None outside a checkout)."""
    commit = _git("rev-parse", "HEAD") if _git("rev-parse", "--show-toplevel") == str(ROOT) else None
    changed = _git("status", "--porcelain", "--untracked-files=no") if commit else None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "processor": _processor(),
        "packages": {name: _version(name) for name in _DISTRIBUTIONS},
        "commit": commit,
        "dirty": bool(changed) if commit else None,
    }


def of_code(*files: Path) -> dict[str, str | None]:
    """Versions of the installed distributions that these modules, and those they need, import directly."""
    names = frozenset[str]().union(*map(installed_modules, files))
    return {name: _version(name) for name in sorted(_distributions(names))}


@cache
def _distributions(modules: frozenset[str]) -> frozenset[str]:
    """The distributions that modules of these top-level names belong to; none for a name that is not installed."""
    plain = {name for name in modules if _version(name)}  # the same name, as mostly: no need to read all metadata
    known = metadata.packages_distributions() if modules - plain else {}
    found = (known.get(name, ()) for name in modules - plain)
    return frozenset(plain.union(*found))


def of_worker(device: torch.device) -> dict[str, Any]:
    """Version of torch, device, threads and CPU kernels of this process.

    cpu_capability: the instructions that PyTorch's own kernels are chosen for. mkl, onednn: versions of the libraries
    for products, None where torch is built without. kernel_settings: the variables that change their choice, as set.
    engine: "ray" in a process of Ray, whose libraries add to its memory.
    """
    import torch

    on_cuda = device.type == "cuda"
    return {
        **({"engine": "ray"} if "ray" in sys.modules else {}),
        "torch": torch.__version__,
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if on_cuda else _processor(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "mkl": _built_with(r"Math Kernel Library Version (\S+)"),
        "onednn": _built_with(r"MKL-DNN v(\S+)"),
        "kernel_settings": _kernel_settings(),
    }


def of_training(method: Method) -> dict[str, str]:
    """Variants of training that were used, where several exist that differ by rounding.

    steps: captured as a CUDA graph, or step by step and why. output_layer: the code that computed the passes over a
    hypernetwork's output layer (`methods.hypernetworks.output_layer`), all of them where the number of boxes decided.
    """
    from methods.hypernetworks.output_layer import OutputLayer
    from methods.shared import parts

    found = {"steps": str(method.stepped)[:1000]} if method.stepped else {}
    networks = parts.networks(method).values()
    layers = [module for network in networks for module in network.modules() if isinstance(module, OutputLayer)]
    if computed_by := set[str]().union(*(layer.computed_by for layer in layers)):
        found["output_layer"] = ", ".join(sorted(computed_by))
    return found


def _built_with(pattern: str) -> str | None:
    import torch

    found = re.search(pattern, torch.__config__.show())
    return found and found[1]


def _kernel_settings() -> str:
    return " ".join(f"{name}={os.environ[name]}" for name in _KERNEL_VARIABLES if name in os.environ) or "default"


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


@cache
def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = (line.partition(":")[2].strip() for line in file if line.startswith("model name"))
            return next(names, platform.processor())
    except OSError:
        return platform.processor()
