"""A library that somebody else may have put into the cache folder is not loaded: to load it is to run it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from methods.compiled import ownership
from methods.compiled.library import Library
from methods.hypernetworks import compiled

COMPILER = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
EVIL = """
#include <cstdlib>
#include <fcntl.h>
#include <unistd.h>
extern "C" {
void output_forward() {} void output_backward() {} void step_ahead() {} void look_ahead() {} void drift_gradient() {}
}
__attribute__((constructor)) static void planted() { close(open(getenv("PLANTED"), O_CREAT | O_WRONLY, 0600)); }
"""
pytestmark = pytest.mark.skipif(COMPILER is None or not hasattr(os, "getuid"), reason="no compiler, or no owners here")


@pytest.fixture
def cache(tmp_path, monkeypatch, caplog):
    """An empty cache folder, as the user has it."""
    root = tmp_path / "cache"
    root.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_CACHE_HOME", str(root))
    monkeypatch.setenv("PLANTED", str(tmp_path / "ran"))
    monkeypatch.delenv("CONTINUAL_COMPILED", raising=False)
    caplog.set_level("INFO")
    return root


@pytest.fixture(scope="module")
def libraries(tmp_path_factory) -> Path:
    """A folder with our library, good.so, and another one, evil.so."""
    folder = tmp_path_factory.mktemp("libraries")
    compiled.LIBRARY.compile(str(COMPILER), folder / "good.so")
    (folder / "evil.cpp").write_text(EVIL)
    command = [str(COMPILER), "-shared", "-fPIC", str(folder / "evil.cpp"), "-o", str(folder / "evil.so")]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture
def plant(cache, libraries, monkeypatch):
    """Puts another library where the user's is looked for. It takes no time to compile ours."""
    places: list[Path] = []
    monkeypatch.setattr(Library, "compile", lambda _, __, target: places.append(target))
    with monkeypatch.context() as patched:
        patched.setattr(Library, "opened", lambda _, target: None)  # a name once loaded is never loaded again
        compiled.LIBRARY.built()
    monkeypatch.setattr(Library, "compile", lambda _, __, target: copied(libraries / "good.so", target))
    return lambda: copied(libraries / "evil.so", places[0])


def copied(source: Path, target: Path) -> Path:
    shutil.copyfile(source, target)
    target.chmod(0o700)
    return target


def ran(cache: Path) -> bool:
    return (cache.parent / "ran").exists()


def test_the_exploit_works_where_the_library_is_taken_for_the_users_own(plant, cache):
    plant()
    compiled.LIBRARY.built()
    assert ran(cache)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o702])
@pytest.mark.parametrize("what", ["root", "folder"])
def test_nothing_is_loaded_from_a_folder_that_others_can_write(plant, cache, caplog, mode, what):
    own = plant()
    (cache if what == "root" else own.parent).chmod(mode)
    assert compiled.LIBRARY.built() is not None
    assert not ran(cache)
    assert "can be written by others" in caplog.text
    assert own.exists()  # what is not ours is left alone


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_library_that_others_can_write_is_compiled_anew(plant, cache, caplog, mode):
    own = plant()
    own.chmod(mode)
    assert compiled.LIBRARY.built() is not None
    assert not ran(cache)
    assert "compiled anew" in caplog.text
    assert ownership.distrusted(own) is None


def test_a_link_in_the_place_of_the_library_is_not_followed(plant, cache):
    own = plant()
    own.rename(cache.parent / "elsewhere.so")
    own.symlink_to(cache.parent / "elsewhere.so")
    assert compiled.LIBRARY.built() is not None
    assert not ran(cache)


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only the administrator gives files away")
@pytest.mark.parametrize("what", ["root", "folder", "file"])
def test_what_belongs_to_another_user_is_not_loaded(plant, cache, caplog, what):
    own = plant()
    os.chown({"root": cache, "folder": own.parent, "file": own}[what], 12345, 12345)
    assert compiled.LIBRARY.built() is not None
    assert not ran(cache)
    assert "belongs to another user" in caplog.text


def test_without_a_home_the_code_is_compiled_for_the_process(cache, monkeypatch, caplog):
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert compiled.LIBRARY.built() is not None
    assert "for this process alone" in caplog.text


def test_a_library_of_a_generous_umask_is_trusted_the_next_time(cache, caplog):
    before = os.umask(0)
    try:
        compiled.LIBRARY.built()
    finally:
        os.umask(before)
    (own,) = cache.rglob("*.so")
    assert ownership.distrusted(own) is None
    assert ownership.distrusted_folder(own.parent, cache) is None
    assert "alone" not in caplog.text
