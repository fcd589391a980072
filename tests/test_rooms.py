"""The order of knowledge: CONTRIBUTING's table says which room may import which, and the imports keep to it."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOP = ("benchmarks", "methods", "reports", "runners", "continual_intervals")
ALL_OF_RUNNERS = "and all of `runners`"


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file."""
    files = (file for top in TOP for file in (ROOT / top).rglob("*.py"))
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def room_of(module: str) -> str:
    parts = module.split(".")
    inside = len(parts) > 2 or (len(parts) == 2 and (ROOT / parts[0] / parts[1]).is_dir())
    return "/".join(parts[:2]) if inside else f"{parts[0]}/*"


def imported(file: Path) -> set[str]:
    """Modules of this project that a file imports anywhere in it, for types too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: this project imports by absolute names"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules() else str(node.module) for name in names}
    return {name for name in found if name in modules()}


def edges() -> dict[tuple[str, str], set[str]]:
    """(room, known room or file) -> who imports what."""
    found = defaultdict(set)
    for name, file in modules().items():
        for other in imported(file):
            if room_of(name) != room_of(other):
                found[room_of(name), other.replace(".", "/")].add(f"{name} imports {other}")
    return found


def table() -> dict[str, list[str]]:
    """Room -> what it may know, in CONTRIBUTING's order."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| `([\w/*]+)` \|[^|]*\|([^|]*)\|$", text, re.MULTILINE)
    rooms = {room: re.findall(r"`([\w/*]+)`", knows.replace(ALL_OF_RUNNERS, "")) for room, knows in rows}
    everything = [room for room in rooms if room.startswith("runners/") and room != "runners/*"]
    return {room: knows + (everything if ALL_OF_RUNNERS in dict(rows)[room] else []) for room, knows in rooms.items()}


def permits(entry: str, other: str) -> bool:
    """Whether an entry of the table, a room or a file, covers the module `other` (with slashes)."""
    return other == entry or room_of(other.replace("/", ".")) == entry


def test_every_room_has_a_row():
    assert set(table()) == {room_of(name) for name in modules()}


def test_the_imports_keep_to_the_table():
    allowed = table()
    wrong = {
        who
        for (room, other), pairs in edges().items()
        if not any(permits(entry, other) for entry in allowed[room])
        for who in pairs
    }
    assert not wrong


def test_a_room_knows_rooms_above_it_only():
    """Which leaves no circle."""
    order = list(table())
    for room, knows in table().items():
        for entry in knows:
            above = entry if entry in order else room_of(entry.replace("/", "."))
            assert order.index(above) < order.index(room), f"{room} stands above {entry}, which it knows"


def test_the_table_permits_nothing_that_is_not_used():
    used = edges()
    for room, knows in table().items():
        for entry in knows:
            assert any(r == room and permits(entry, other) for r, other in used), f"{room} does not import {entry}"


def test_the_checks_of_a_gpu_machine_import_what_there_is():
    """`tests/gpu/first_run.sh` holds Python that no test runs."""
    text = (ROOT / "tests" / "gpu" / "first_run.sh").read_text()
    imports = re.findall(r"^ +from ((?:methods|benchmarks|runners)[\w.]*) import ([\w, ]+)$", text, re.MULTILINE)
    assert len(imports) > 15
    for module, names in imports:
        for name in re.split(r", *", names.strip()):
            name = name.split(" as ")[0]
            known = f"{module}.{name}" in modules() or re.search(
                rf"^\s*(class|def|import|from .* import|__all__).*\b{name}\b",
                modules()[module].read_text(),
                re.MULTILINE,
            )
            assert known, f"{module} has no {name}"
