"""A search over a suite of three methods on Split Digits, by the command line and in this process."""

import csv
from pathlib import Path

from typer.testing import CliRunner

from runners import tune

RUN = CliRunner()

SUITE = """description = "values of its own"
methods = ["finetune", "ewc", "hypermask"]
[[benchmarks]]
name = "split-digits"
[[settings]]
method = "ewc"
values = { strength = 1000.0 }
[[settings]]
method = "hypermask"
values = { lam = 1e-2 }
"""


SEARCHED = {
    "method": "ewc", "benchmark": "split-digits", "scenario": "til",
    "source": "tuned on validation data: 16 trials, runners/tune.py",
    "values": {"lr": 0.03, "strength": 7.0}, "provenance": {"trials": 16, "study": "search"},
}  # fmt: skip
"""Values that a search chose, as `runners.tuning.chosen` writes them."""


def tuned(results: Path, *arguments: str, number: int = 5, text: str = SUITE):
    results.mkdir(parents=True, exist_ok=True)
    (results / "quick.toml").write_text(text)
    common = [
        "--suite",
        str(results / "quick.toml"),
        "--budget-scale",
        "0.02",
        "--scenarios",
        "til",
        "--engine",
        "inline",
        "--device",
        "cpu",
    ]
    length = () if "--grid" in arguments else ("--trials", str(number))
    options = [*common, *length, "--results", str(results)]
    done = RUN.invoke(tune.app, [*options, *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def trials_of(results: Path) -> list[dict[str, str]]:
    with (results / "tuning" / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))
