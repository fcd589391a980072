"""The context without PyTorch's compiler, in a process of its own: this one may have imported it."""

from __future__ import annotations

import subprocess
import sys

from tests.runners.helpers import ROOT

CODE = """
import sys, torch
from runners.process.dispatch import COMPILER, uncompiled

def on_meta():
    with torch.device("meta"):
        found = torch.cat([torch.zeros(3), torch.ones(2, dtype=torch.float64)])
    return found.shape, found.dtype

with uncompiled():
    inside = on_meta()
    print("imported:", COMPILER in sys.modules)
    from torch._dynamo.utils import is_compile_supported
    print("its own:", torch._dynamo is sys.modules[COMPILER], hasattr(torch._dynamo, "config"))
    functions = [function for finder in sys.meta_path if hasattr(finder, "met") for function in finder.met]
print("left as within:", any(hasattr(function, "__dynamo_disable") for function in functions), len(functions) > 0)
print("the same outside:", on_meta() == inside)
"""


def test_operations_on_meta_import_no_compiler_and_code_that_needs_it_gets_it() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines() == [
        "imported: False",
        "its own: True True",
        "left as within: False True",
        "the same outside: True",
    ], done.stderr
