"""What processes that train are told about threads, before their libraries are loaded."""

from pathlib import Path

import pytest

from runners.engines.local import LocalEngine
from runners.process import cpu

WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in WAITING:
        monkeypatch.delenv(name, raising=False)


def test_threads_without_work_soon_sleep():
    found = cpu.variables(3)
    assert found["OMP_NUM_THREADS"] == found["MKL_NUM_THREADS"] == "3"
    assert found["GOMP_SPINCOUNT"] == str(cpu.SPINS)


@pytest.mark.parametrize("name", WAITING)
def test_what_the_user_set_about_waiting_stays(name, monkeypatch):
    monkeypatch.setenv(name, "ACTIVE")
    assert "GOMP_SPINCOUNT" not in cpu.variables(2)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the environment of another process is read there")
def test_workers_are_told():
    engine = LocalEngine(["cpu"], 2)
    try:
        engine.start(1)
        told = Path(f"/proc/{engine.workers[0].process.pid}/environ").read_bytes().split(b"\0")
    finally:
        engine.close()
    assert {f"{name}={value}".encode() for name, value in cpu.variables(2).items()} <= set(told)
