"""Every mistake a user can make with the compare command: one clear sentence, exit code 2, nothing lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.files import FILES
from benchmarks.types import UserError
from runners.command_line import refuse_empty
from runners.session import Options, check
from tests.runners.helpers import FOREIGN, call, command, environment, tables

TINY = ("--budget-scale", "0.02", "--seeds", "1", "--scenarios", "til", "--no-report", "--engine", "inline")


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The sentence of a refused command."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    return done.stderr


@pytest.mark.parametrize(
    "arguments, answer",
    [
        (("--suite", "quik"), "--suite quik: there is no such suite. Did you mean quick? Available: "),
        (("--suite", "none.toml"), "there is no suite file none.toml"),
        (("--benchmarks", "split-mist"), "unknown benchmark 'split-mist'. Did you mean split-mnist"),
        (("--scenarios", "til,clil"), "--scenarios clil: there is no such scenario. Did you mean cil?"),
        (("--methods", "finetun"), "unknown method 'finetun'. Did you mean finetune"),
        (("--methods", "ewc", "--methods", "si"), "--methods is given 2 times; write it once, a list with commas: A,B"),
        (("--seeds", "1", "--seeds=2"), "--seeds is given 2 times"),
        (("--results", "--dry-run"), "--results needs a value; --dry-run is an option"),
        (("--set", "--no-report"), "--set needs a value; --no-report is an option"),
        (
            ("--methods", "ewc", "si"),
            "write a list with commas and no spaces, --methods ewc,si, and a value with spaces in",
        ),
        (
            ("--scenarios", "til,", "dil"),
            "--scenarios has 2 values; write a list with commas and no spaces, --scenarios til,dil",
        ),
        (("--method", "nowhere.py:X"), "nowhere.py"),
        (("--seeds", "0"), "--seeds 0: must be at least 1"),
        (("--seeds", "5,x"), "--seeds 5,x: write how many seeds, 3, or the seeds with commas, 5,7"),
        (("--rerun", "ewc"), "--rerun ewc: this grid has no such cell"),
        (("--verbose",), "--verbose shows the cells of a plan: write --dry-run --verbose"),
        (("--workers", "0"), "--workers 0: must be at least 1"),
        (("--threads", "-1"), "--threads -1: must be at least 1"),
        (("--budget-scale", "0"), "--budget-scale 0: must be a positive number"),
        (("--engine", "warp"), "--engine warp: permitted are local, ray, inline"),
        (("--data", "nowhere"), "--data nowhere: there is no such folder"),
        (("--set", "ewc"), "--set ewc: write it as method.key=value"),
    ],
)
def test_mistakes_in_the_call(tmp_path, arguments, answer):
    sentence = refused(call(*arguments, "--results", tmp_path / "results", cwd=tmp_path))
    assert sentence.startswith("error: ") and answer in sentence
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "values, answer",
    [
        ({"budget_scale": 1e308}, "--budget-scale 1e+308: must be a positive number, at most 1e+06"),
        ({"budget_scale": float("nan")}, "--budget-scale nan: must be a positive number"),
        ({"engine": "ray", "cell_memory": float("inf")}, "--cell-memory inf: must be a positive number of GiB"),
        ({"threads": 3_000_000_000}, "--threads 3000000000: must be at least 1 and at most 1024"),
        ({"workers": 10**15}, "--workers 1000000000000000: must be at least 1 and at most 100000"),
    ],
)
def test_numbers_too_large_to_count_with(values, answer):
    with pytest.raises(UserError) as caught:
        check(Options(suites=("quick",), **values))
    assert str(caught.value).startswith(answer)


@pytest.mark.parametrize(
    "arguments, name",
    [
        (["--results", ""], "--results"),
        (["--seeds", "1", "--into="], "--into"),
        (["", "--into", "x"], "an argument"),
    ],
)
def test_an_empty_argument_is_no_path(arguments, name):
    """`--results "$UNSET"` would write into the working folder."""
    with pytest.raises(UserError, match=f"^{name} is empty; write a value, or leave it out"):
        refuse_empty(arguments)
    refuse_empty(["--set=ewc.name=", "--set", "ewc.name=", "results", "--dry-run"])


@pytest.mark.parametrize(
    "arguments, answer",
    [
        (("--set", "finetune.rate=1"), "finetune has no hyperparameter 'rate'. Permitted: lr"),
        (("--set", "finetune.lr=fast"), "finetune.lr = 'fast': permitted is a number"),
        (("--device", "tpu"), "--device tpu: write auto, cpu, cuda or cuda:N"),
        (("--device", "cuda"), "--device cuda: this machine has no CUDA device"),
    ],
)
def test_mistakes_found_when_the_methods_are_loaded(tmp_path, arguments, answer):
    done = subprocess.run(
        command("--methods", "finetune", *arguments, "--results", tmp_path / "results"),
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(CUDA_VISIBLE_DEVICES=""),
    )
    assert answer in refused(done)
    assert not (tmp_path / "results").exists()


def test_a_method_file_that_does_not_import(tmp_path):
    (tmp_path / "mine.py").write_text("from nowhere import something")
    sentence = refused(call("--method", "mine.py:Mine", *TINY, "--results", tmp_path / "results", cwd=tmp_path))
    assert "mine.py does not import: ModuleNotFoundError: No module named 'nowhere'" in sentence


def test_a_suite_file_with_a_wrong_key(tmp_path):
    (tmp_path / "mine.toml").write_text('description = "d"\nmethod = ["finetune"]\n')
    sentence = refused(call("--suite", "mine.toml", cwd=tmp_path))
    assert "mine.toml: unknown key method = ['finetune']. Did you mean methods? Permitted keys: description" in sentence


def test_a_results_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    sentence = refused(call("--methods", "finetune", *TINY, "--results", tmp_path / "file" / "results"))
    assert "cannot be written" in sentence and "give another folder" in sentence


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_results_folder_that_is_read_only(tmp_path):
    tmp_path.chmod(0o500)
    sentence = refused(call("--methods", "finetune", *TINY, "--results", tmp_path))
    assert "cannot be written: Permission denied" in sentence


def with_largest_file(n_bytes: int, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command where no file can grow beyond `n_bytes`, as on a disk that is filling up."""
    code = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2); "
        "os.execv(sys.argv[2], sys.argv[2:])"
    )
    return subprocess.run(
        [sys.executable, "-c", code, str(n_bytes), *command(*arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(),
    )


def test_a_disk_that_is_full_from_the_start_or_fills_up(tmp_path):
    arguments = ("--methods", "finetune", *TINY, "--results", tmp_path)
    assert "cannot be written: File too large" in refused(with_largest_file(1000, *arguments))
    local = (*(part for part in arguments if part not in ("--engine", "inline")), "--engine", "local", "--workers", "1")
    filling = with_largest_file(66_000, *local)  # room for records, not for the checkpoint
    assert filling.returncode == 2 and "Traceback" not in filling.stderr
    assert "cannot be written: File too large" in filling.stderr
    assert call(*arguments).returncode == 0
    assert len(tables(tmp_path)) == 2


@pytest.mark.parametrize("damage", ["missing", "corrupt"])
def test_missing_or_corrupt_data_fails_its_benchmark_before_any_training_and_the_others_run(tmp_path, damage):
    data = tmp_path / "data"
    data.mkdir()
    if damage == "corrupt":
        for file in FILES["mnist"]:
            path = data / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(file.size))
    results = tmp_path / "results"
    arguments = ("--methods", "finetune", "--benchmarks", "split-mnist,split-digits", *TINY, "--data", data)
    done = call(*arguments, "--results", results)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert "failed" in lines[1] and "split-mnist" in lines[1]
    assert any("done" in line and "split-digits" in line for line in lines)
    assert "train-images-idx3-ubyte" in done.stdout
    assert {name.split("/")[0] for name in tables(results)} == {"split-digits"}


def test_one_failing_cell_is_summed_up_at_the_end_and_the_exit_code_says_so(tmp_path):
    done = call("--methods", "finetune", "--method", f"{FOREIGN}:Raises", *TINY, "--results", tmp_path)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-2] == "1 done, 1 failed"
    last = done.stdout.splitlines()[-1]
    assert "RuntimeError: the third law does not hold" in last and last.endswith("traceback.txt)")
    assert Path(last.rpartition("(")[2].rstrip(")")).is_file()


@pytest.mark.parametrize("argument", ["--help", "--list"])
def test_help_and_list_load_no_torch(argument):
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'pandas', 'seaborn', 'matplotlib', 'sklearn', 'scipy', 'torchvision'} & set(sys.modules)\n"
        "print('LOADED', sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command(argument)[1:]], capture_output=True, text=True, env=environment()
    )
    assert done.stdout.endswith("LOADED []\n"), done.stdout + done.stderr
    assert ("quick" in done.stdout) and ("hyperinterval" in done.stdout or argument == "--help")


def test_a_path_that_is_too_long(tmp_path):
    sentence = refused(call("--list", "--data", tmp_path / ("a" * 300), script="data.py"))
    assert "is longer than the file system permits; write a shorter one" in sentence


def test_the_report_of_a_folder_without_records(tmp_path):
    sentence = refused(call(tmp_path / "none", script="report.py"))
    assert "there is no results folder" in sentence


def test_a_path_is_shown_as_it_was_written(capfd):
    """rich turns `:X:` into an emoji unless it is told not to."""
    from runners.command_line import complain

    complain("nowhere.py:X: there is no such file")
    assert "nowhere.py:X: there" in capfd.readouterr().err


def test_two_suite_files_of_one_name_keep_their_own_methods(tmp_path):
    text = 'description = "d"\nmethods = {}\nscenarios = ["til"]\nseeds = 1\n[[benchmarks]]\nname = "split-digits"\n'
    for name, methods in (("a", '["finetune", "l2"]'), ("b", '["ewc"]')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.toml").write_text(text.format(methods), encoding="utf-8-sig")
    files = ("--suite", "a/mine.toml", "--suite", "b/mine.toml")
    done = call(*files, "--dry-run", "--verbose", "--results", "results", cwd=tmp_path)
    listed = [line.split(":")[0].split()[-1] for line in done.stdout.splitlines() if "1 seed," in line]
    assert sorted(listed) == ["ewc", "finetune", "l2"], done.stdout + done.stderr


def test_imports_that_no_key_follows_are_told_once(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import importlib\nfrom methods.base import register\nfrom methods.finetune import Finetune\n"
        "importlib.import_module('js' + 'on')\n@register('mine')\nclass Mine(Finetune):\n    pass\n"
    )
    done = call("--method", "mine.py:Mine", *TINY, "--dry-run", "--results", "results", cwd=tmp_path)
    told = [line for line in done.stdout.splitlines() if "not followed" in line]
    assert len(told) == 1 and told[0].startswith("note: mine.py:4: "), done.stdout + done.stderr
