"""Counts of one are singular in what the report and the commands say."""

from benchmarks.types import Budget, ValidatedBudget
from reports.distinct_names import _with
from reports.words import count
from runners.listing import budget_in_words


def test_counts() -> None:
    assert [count(n, "cell") for n in (0, 1, 2)] == ["0 cells", "1 cell", "2 cells"]
    assert [count(n, "cell is", "cells are") for n in (1, 2)] == ["1 cell is", "2 cells are"]


def test_budgets_of_one() -> None:
    assert budget_in_words(Budget(32, epochs=1)) == "1 epoch of 32"
    assert budget_in_words(Budget(32, steps=1)) == "1 step of 32"
    assert budget_in_words(ValidatedBudget(64, epochs=50)) == "at most 50 epochs of 64"


def test_names_of_benchmarks_with_a_setting_of_one() -> None:
    settings = {"epochs": 1, "steps": 2, "tasks": 1, "classes": 3}
    assert _with("mine", settings, settings) == "mine (1 epoch, 2 steps, 1 task, 3 classes)"
