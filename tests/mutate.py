"""Mutation run: change one file in many small ways, and list the changes that its tests do not notice.

    python tests/mutate.py methods/ewc.py --sample 30

Changed are comparisons, operators, conditions and numbers; arguments change places, keywords are dropped, statements
are left out. Everything happens in a temporary copy of the working tree. The tests are those in `tests/` that import
the module, or those given by --tests. A survivor is either a test that is missing, or no change at all: say which.
"""

from __future__ import annotations

import argparse
import ast
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas  # noqa: F401 - loaded once; every run is a fork of this process
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
COMPARISONS: dict[type, tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip
OPERATORS: dict[type, type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
SYMMETRIC = ("max", "min", "maximum", "minimum", "dot", "mse_loss")
FORK = multiprocessing.get_context("fork")
SLOWER = 5.0
"""A run of so many times the unchanged file's length, and half a minute, counts as noticed."""


@dataclass(frozen=True)
class Mutant:
    """One change: what stands at these bytes of the source gives way to `new`."""

    start: int
    end: int
    line: int
    old: str
    new: str

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.new.encode() + source[self.end :]

    def __str__(self) -> str:
        old, new = (" ".join(text.split()) for text in (self.old, self.new))
        return f"line {self.line}: {old}  ->  {new}"


def mutants(source: bytes) -> list[Mutant]:
    """All changes of a module that give another valid one."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = {}
    for node in _nodes(ast.parse(source)):
        for new in _changed(node):
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
            mutant = Mutant(start, end, node.lineno, source[start:end].decode(), new)
            try:
                ast.parse(mutant.applied(source))
                found[start, end, new] = mutant
            except SyntaxError:
                continue
    return list(found.values())


def _nodes(node: ast.AST) -> Iterator[Any]:
    """What may be changed: no annotations, decorators, texts, assertions, logging, nor the defaults of a Config."""
    match node:
        case ast.JoinedStr() | ast.Assert() | ast.keyword(arg="strict") | ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="log")))):
            return
        case ast.ClassDef(name="Config", body=body):
            for child in body:
                yield from () if isinstance(child, ast.Assign | ast.AnnAssign) else _nodes(child)
            return
    yield node
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and name not in ("annotation", "returns", "decorator_list"):
                yield from _nodes(child)


def _bracketed(expression: ast.expr) -> str:
    return f"({ast.unparse(expression)})"


def _changed(node: ast.AST) -> Iterator[str]:
    """The node's source after each change of it alone."""
    match node:
        case ast.Compare(left=left, ops=ops, comparators=others):
            for i, op in enumerate(ops):
                for other in COMPARISONS[type(op)]:
                    yield _bracketed(ast.Compare(left, [*ops[:i], other(), *ops[i + 1 :]], others))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            yield _bracketed(ast.BinOp(left, OPERATORS[type(op)](), right))
        case ast.AugAssign(target=target, op=op, value=value):
            if type(op) in OPERATORS:
                yield ast.unparse(ast.AugAssign(target, OPERATORS[type(op)](), value))
            yield "pass"
        case ast.BoolOp(op=op, values=values):
            yield _bracketed(ast.BoolOp(ast.And() if isinstance(op, ast.Or) else ast.Or(), values))
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield _bracketed(operand)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield _bracketed(ast.IfExp(test, orelse, body))
        case ast.Constant(value=int(value)):
            yield str(not value) if isinstance(value, bool) else str(value + 1)
        case ast.Constant(value=float(value)):
            yield repr(2 * value if value else 1.0)
        case ast.Call(func=func, args=args, keywords=keywords):
            if len(args) > 1 and ast.unparse(func).rpartition(".")[2] not in SYMMETRIC:
                yield ast.unparse(ast.Call(func, [args[1], args[0], *args[2:]], keywords))
            for keyword in (keyword for keyword in keywords if keyword.arg != "strict"):
                yield ast.unparse(ast.Call(func, args, [other for other in keywords if other is not keyword]))
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.Continue() | ast.Break():
            yield "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "pass"


def tests_of(file: Path) -> list[str]:
    """The test files that import a module of the project, and those named after it."""
    module = ".".join(file.with_suffix("").parts)
    found = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        nodes = [node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.ImportFrom)]
        names = {node.module for node in nodes} | {
            f"{node.module}.{alias.name}" for node in nodes for alias in node.names
        }
        if module in names or path.stem.startswith(f"test_{file.stem}"):
            found.append(str(path.relative_to(ROOT)))
    return found


def copied(folder: Path) -> None:
    """Copy all files of the working tree that git knows or would know."""
    listing = ["git", "ls-files", "-coz", "--exclude-standard"]
    for name in subprocess.check_output(listing, cwd=ROOT, text=True).split("\0")[:-1]:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def noticed(folder: Path, tests: list[str], seconds: float | None) -> bool:
    """Whether a test fails in this copy, or does not end in time."""
    process = FORK.Process(target=_run, args=(folder, tests))
    process.start()
    process.join(seconds)
    if process.is_alive():
        os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()
    return process.exitcode != 0


def _run(folder: Path, tests: list[str]) -> None:
    os.setsid()  # whatever the tests start ends with them
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    os.chdir(folder)
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    sys.exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="file of the project, relative to its root")
    parser.add_argument("--tests", nargs="+", help="pytest's arguments (default: tests that import the module)")
    parser.add_argument("--sample", type=int, help="try so many changes, drawn at random (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    options = parser.parse_args()
    source = (ROOT / options.file).read_bytes()
    tests, tried = options.tests or tests_of(options.file), mutants(source)
    if options.sample is not None and options.sample < len(tried):
        tried = random.Random(options.seed).sample(tried, options.sample)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copied(folder)
        begun = time.monotonic()
        if not tests or noticed(folder, tests, None):
            sys.exit(f"{options.file}: there must be tests, and they must pass before anything is changed; run {tests}")
        limit = 30 + SLOWER * (time.monotonic() - begun)
        survivors = 0
        for mutant in tried:
            for compiled in (folder / options.file).parent.glob(f"__pycache__/{options.file.stem}.*.pyc"):
                compiled.unlink()  # Python compares whole seconds and sizes, and a change may keep both
            (folder / options.file).write_bytes(mutant.applied(source))
            if not noticed(folder, tests, limit):
                survivors += 1
                print(mutant, flush=True)
    print(f"{options.file}: {len(tried) - survivors} of {len(tried)} changes noticed by {' '.join(tests)}")


if __name__ == "__main__":
    main()
