"""A user's modules that are edited while the process runs: what runs next is what the files hold then."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import continual_intervals as ci
from runners.grid import edits
from runners.grid.loading import load_method
from tests.runners.test_user_files import _as_before, code, factor_of, written

assert _as_before  # a fixture, used by each test of this module


@pytest.mark.parametrize(
    ("files", "edited"),
    [
        ({"mine.py": code("from edited_a import FACTOR"), "edited_a.py": "FACTOR = 1.5\n"}, "edited_a.py"),
        (
            {
                "mine.py": code("from edited_b import FACTOR"),
                "edited_b.py": "from edited_c import FACTOR\n",
                "edited_c.py": "FACTOR = 1.5\n",
            },
            "edited_c.py",
        ),
        (
            {
                "edited_d/mine.py": code("from . import parts", "parts.FACTOR"),
                "edited_d/__init__.py": "",
                "edited_d/parts.py": "FACTOR = 1.5\n",
            },
            "edited_d/parts.py",
        ),
        (
            {"mine.py": code("from edited_e import parts", "parts.FACTOR"), "edited_e/parts.py": "FACTOR = 1.5\n"},
            "edited_e/parts.py",
        ),
    ],
    ids=["same folder", "two away", "package", "folder"],
)
def test_an_edited_module_is_loaded_again(tmp_path, files, edited):
    """Also if its size and the second of its time stay, by which Python knows a compiled file."""
    file = written(tmp_path, files)
    assert factor_of(file) == 1.5
    seconds = (tmp_path / edited).stat().st_mtime_ns // 10**9
    (tmp_path / edited).write_text("FACTOR = 2.5\n")
    os.utime(tmp_path / edited, ns=(seconds * 10**9 + 1, seconds * 10**9 + 1))
    assert factor_of(file) == 2.5


def test_what_was_not_edited_stays_loaded(tmp_path):
    file = written(tmp_path, {"mine.py": code("from edited_f import FACTOR"), "edited_f.py": "FACTOR = 1.5\n"})
    load_method(f"{file}:Mine")
    module = sys.modules["edited_f"]
    assert not edits.forget_edited(file) and sys.modules["edited_f"] is module


def test_a_module_that_the_user_loaded_and_edited_is_loaded_again(tmp_path, monkeypatch):
    """In a notebook it may be loaded before this package sees it."""
    file = written(tmp_path, {"mine.py": code("from edited_g import FACTOR"), "edited_g.py": "FACTOR = 1.5\n"})
    monkeypatch.syspath_prepend(tmp_path)
    __import__("edited_g")
    (tmp_path / "edited_g.py").write_text("FACTOR = 22.5\n")
    assert factor_of(file) == 22.5


def test_cells_of_this_process_have_the_numbers_of_their_key(tmp_path: Path):
    answers = "\n    def predict(self, x, task_id=None):\n        return self.factor * super().predict(x, task_id)\n"
    text = code("from edited_h import FACTOR") + answers
    file = written(tmp_path, {"mine.py": text, "edited_h.py": "FACTOR = 1.0\n"})
    few = {"budget_scale": 0.02, "engine": "inline", "device": "cpu", "progress": False, "results": tmp_path / "out"}
    first = ci.run(f"{file}:Mine", "split-digits", "til", **few)
    (tmp_path / "edited_h.py").write_text("FACTOR = -1.0\n")
    second = ci.run(f"{file}:Mine", "split-digits", "til", **few)
    assert first.iloc[-1].to_list() == pytest.approx((1 - second.iloc[-1]).to_list())
    assert len(list((tmp_path / "out").glob("*/*/mine/seed*"))) == 2
