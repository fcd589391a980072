"""Machine code from C++ sources, compiled at first use, once per machine, and cached.

A user of a library checks `load`: where it returns None, the log gives the reason, and the same arithmetic runs in
PyTorch. CXX names the compiler (default c++, g++ or clang++). CONTINUAL_COMPILED=0 turns the machine code off.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from methods.compiled import ownership

# -ffp-contract=off: which products a compiler would fuse with a sum depends on the processor that it tunes for.
FLAGS = (
    "-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-std=c++17", "-shared", "-fPIC", "-Wno-psabi",
)  # fmt: skip
SECONDS_TO_COMPILE = 120

log = logging.getLogger(__name__)
Pointer = ctypes.c_void_p
ELEMENTWISE = Path(__file__).with_name("elementwise.h")
"""Header with passes over arrays in vectors."""


@dataclass(frozen=True)
class Library:
    """C++ code that is compiled into one library."""

    purpose: str
    """What the code computes, as the log names it."""
    files: Sequence[Path]
    """Headers and sources; the first source names the library."""
    digest: str
    """SHA-256 of the files in their order: a cell is keyed by Python code, which thereby names the machine code too."""
    functions: Mapping[str, Sequence[Any]]
    """Functions of the library and the types of their arguments; they return nothing."""

    @property
    def sources(self) -> list[Path]:
        """Files that the compiler is called with."""
        return [file for file in self.files if file.suffix == ".cpp"]

    def load(self) -> ctypes.CDLL | None:
        """Load the library, or return None and log the reason. Its user keeps the result."""
        try:
            return self.built()
        except (OSError, subprocess.SubprocessError) as error:
            log.info("%s runs without machine code: %s", self.purpose, error)
            return None

    def built(self) -> ctypes.CDLL:
        """Load the library from the cache, compiled if need be. Raises OSError or SubprocessError."""
        if os.environ.get("CONTINUAL_COMPILED", "1") == "0":
            raise OSError("CONTINUAL_COMPILED is 0")
        named = os.environ.get("CXX")
        found = shutil.which(named) if named else next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
        if found is None:
            raise OSError(f"there is no C++ compiler {named}" if named else "there is no C++ compiler")
        version = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
        # The library's name covers all that its machine code depends on.
        key = "\n".join([self.digest, *FLAGS, version, platform.platform(), _processor()])
        name = f"{self.sources[0].stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
        with ExitStack() as stack:
            try:
                target = _kept(name)
            except (OSError, RuntimeError) as error:  # RuntimeError: pathlib, for a user without a home
                log.info("the machine code of %s is compiled for this process alone: %s", self.purpose, error)
                target = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="continual-intervals-"))) / name
            if not target.exists():
                self.compile(found, target)
            return self.opened(target)  # a loaded library outlives its file

    def compile(self, compiler: str, target: Path, *more: str) -> None:
        """Compile under a temporary name first, so that processes that start together do not interfere."""
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            output = Path(scratch) / target.name
            done = subprocess.run(
                [compiler, *FLAGS, *more, *map(str, self.sources), "-o", str(output)],
                capture_output=True, text=True, timeout=SECONDS_TO_COMPILE,
            )  # fmt: skip
            if done.returncode:
                raise OSError(f"{compiler} fails: {done.stderr.strip()[-500:]}")
            output.chmod(0o700)  # the umask may let the group write, and `distrusted` would then refuse the file
            os.replace(output, target)

    def opened(self, target: Path) -> ctypes.CDLL:
        """Load a library that was compiled."""
        found = ctypes.CDLL(str(target))
        for name, types in self.functions.items():
            function = getattr(found, name)
            function.argtypes, function.restype = types, None
        return found


def _kept(name: str) -> Path:
    """Path of the library in the user's cache folder; deletes a file there that others could have written.

    Loading a library runs its code. Raises OSError if others can write the folder, or if it is not writable.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = root / "continual-intervals" / name
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if doubt := ownership.distrusted_folder(target.parent, root):
        raise OSError(doubt)
    if os.path.lexists(target) and (doubt := ownership.distrusted(target)):
        log.warning("%s; it is compiled anew", doubt)
        target.unlink()
    if not target.exists() and not os.access(target.parent, os.W_OK):
        raise OSError(f"{target.parent} cannot be written")
    return target


def _processor() -> str:
    """Properties of the processor on which -march=native depends."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
