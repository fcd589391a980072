from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.types import UserError
from runners.cell.events import Event, EventKind, Throttle
from runners.engines import shipping
from runners.grid.fingerprint import source_hash
from runners.process.resources import GIB, Need, fitting, largest
from runners.session import Options, run
from tests.runners.helpers import cells, environment, foreign, job

SMALL, LARGE = {"CPU": 4.0, "memory": 8.0 * GIB}, {"CPU": 32.0, "GPU": 8.0, "memory": 256.0 * GIB}


@pytest.mark.parametrize(
    "need, count",
    [
        (Need(), 36),
        (Need(cpus=3), 1 + 10),
        (Need(cpus=64), 0),
        (Need(gpus=1), 8),
        (Need(gpus=0.25), 32),
        (Need(gpus=0.4), 16),  # two on each GPU: no cell lies on two
        (Need(gpus=3), 2),
        (Need(memory=3 * GIB), 2 + 32),
        (Need(gpus=0.5, memory=64 * GIB), 4),
    ],
)
def test_how_many_cells_fit(need, count):
    assert fitting(need, [SMALL, LARGE]) == count


def test_resources_in_words():
    assert str(Need(2, 0.5, 3 * GIB)) == "2 CPU, 0.5 GPU, 3 GiB of memory" and str(Need()) == "1 CPU"
    assert largest([SMALL, LARGE]) == "32 CPU, 8 GPU, 256 GiB of memory"
    assert largest([]) == "nothing: no node is alive"


@pytest.mark.parametrize(
    "options, answer",
    [
        ({"cell_gpus": 1.5}, r"--cell-gpus 1\.5: must be a fraction of one GPU or a whole number"),
        ({"cell_gpus": 0.0}, "--cell-gpus 0"),
        ({"cell_memory": -1.0}, "--cell-memory -1: must be a positive number of GiB"),
        ({"on_oom": "retry"}, "--on-oom retry: permitted are record, retry-smaller"),
        ({"engine": "slurm"}, "--engine slurm: permitted are local, ray, inline"),
        ({"engine": "ray", "device": "cuda:1"}, "with --engine ray, Ray chooses the GPU"),
        ({"ray_address": "ray://head:10001"}, "run this command on a node of the cluster"),
    ],
)
def test_mistakes_in_options_are_user_errors(options, answer):
    from rich.console import Console

    with pytest.raises(UserError, match=answer):
        run(Options(suites=("quick",), **options), Console())


def test_progress_is_throttled_and_nothing_else():
    heard: list[Event] = []
    tell = Throttle(heard.append, seconds=1000)
    for kind in (EventKind.PROGRESS, EventKind.PROGRESS, EventKind.TASK_DONE, EventKind.PROGRESS, EventKind.ENDED):
        tell(Event(kind))
    assert [event.kind for event in heard] == [EventKind.PROGRESS, EventKind.TASK_DONE, EventKind.ENDED]


def told(code: str, staged: Path):
    """JSON that code prints where nothing but the staged copy is on the path."""
    command, env = [sys.executable, "-c", code], environment(PYTHONPATH=str(staged))
    done = subprocess.run(command, cwd=staged, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_code_that_travels_has_the_hash_of_the_code_at_home(tmp_path):
    """Also where a method lies in a file of its own and imports a module beside it."""
    home, staged = tmp_path / "home", tmp_path / "staged"
    home.mkdir()
    (home / "helper.py").write_text("FACTOR = 2.0\n")
    (home / "unrelated.py").write_text("raise RuntimeError\n")
    mine = home / "mine.py"
    mine.write_text(
        "import continual_intervals\nfrom helper import FACTOR\nfrom methods.finetune import Finetune\n"
        "from methods.base import register\n"
        '@register("mine")\nclass Mine(Finetune):\n    """Mine."""\n    factor = FACTOR\n'
    )
    reference = f"{mine}:Mine"
    there = shipping.stage(staged, [reference])
    assert there == {reference: "foreign/0/mine.py:Mine"}
    assert sorted(file.name for file in (staged / "foreign" / "0").iterdir()) == ["helper.py", "mine.py"]
    code = (
        "import json; from runners.grid.loading import load_method; from runners.grid import fingerprint\n"
        f"sources = [load_method(name).source for name in ({there[reference]!r}, 'hnet')]\n"
        "print(json.dumps([*sources, str(fingerprint.ROOT)]))"
    )
    found = told(code, staged)
    [cell] = cells("hnet")
    assert found == [source_hash(mine), cell.source, str(staged)]


def test_two_files_of_one_package_travel_as_one_package(tmp_path, monkeypatch):
    """With a package from elsewhere that both import; there, as here, no module is loaded from two places."""
    home, staged = tmp_path / "home", tmp_path / "staged"
    for name in ("travelling", "elsewhere/shared_parts"):
        (home / name).mkdir(parents=True)
        (home / name / "__init__.py").touch()
    (home / "elsewhere" / "shared_parts" / "losses.py").write_text("FACTOR = 2.0\n")
    monkeypatch.syspath_prepend(home / "elsewhere")
    files = [home / "travelling" / f"{name}.py" for name in ("one", "two")]
    for file in files:
        file.write_text(
            "from shared_parts.losses import FACTOR\nfrom methods.finetune import Finetune\n"
            f"from methods.base import register\n@register({file.stem!r})\nclass Mine(Finetune):\n    pass\n"
        )
    there = shipping.stage(staged, [f"{file}:Mine" for file in files])
    code = (
        "import json; from runners.engines import shipping; from runners.grid.loading import load_method\n"
        "shipping.arrive()\n"
        f"print(json.dumps([load_method(name).source for name in {list(there.values())!r}]))"
    )
    found = told(code, staged)
    assert found == [source_hash(file) for file in files]


def test_a_job_is_readdressed_to_the_code_that_travelled(tmp_path):
    [cell] = cells(foreign("Good"))
    at_home = job(cell, tmp_path)
    sent = shipping.readdressed(at_home, {cell.reference: "foreign/0/foreign.py:Good"})
    [other] = cells(foreign("TilOnly"))
    sent_too = shipping.readdressed(job(other, tmp_path), {cell.reference: "foreign/0/foreign.py:Good"})
    assert sent_too.cell.reference == "foreign/0/foreign.py:TilOnly"
    assert shipping.foreign_of(at_home) == [cell.reference] and sent.cell.reference == "foreign/0/foreign.py:Good"
    assert replace(sent.cell, reference=cell.reference).to_json() == cell.to_json() and sent.cell.key == cell.key


def test_a_cluster_that_wants_a_token_is_not_taken_for_an_absent_one():
    from runners.engines.ray_engine import _refusal

    wanted = ConnectionError("Failed to connect")
    wanted.__cause__ = RuntimeError("RPC error: InvalidAuthToken: missing")
    assert "asks for a token" in _refusal(wanted)
    assert _refusal(ConnectionError("refused\nmore")) == "no Ray cluster answers there (refused)"
