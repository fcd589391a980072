"""Sentences of the summary, by hand: joint, forgetting, transfer, inference, violations and seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reports.findings import findings
from reports.load import load
from reports.study import study
from tests.reports.synthetic import Synthetic
from tests.reports.test_guarantees import FIRST, SECOND, Claiming


def write(results: Path, method: str, learnt: float, lost: float, scenario: str, benchmark: str = "split-digits"):
    """Two tasks: each answered at `learnt` when learnt, the first one `lost` lower at the end."""
    r = np.array([[0.5, 0.5], [learnt, 0.5], [learnt - lost, learnt]])
    for seed in range(2):
        Synthetic(method, benchmark, scenario, seed, n_tasks=2, accuracy=r).write(results)


def sentence(results: Path, words: str) -> str:
    """The one sentence with these words."""
    (found,) = [one for one in findings(study(load(results))) if words in one]
    return found


@pytest.fixture
def two_scenarios(tmp_path: Path) -> Path:
    """In TIL HNET is ahead of joint, in DIL behind it; fine-tuning forgets 10 points, or 30."""
    for scenario, joint, lost in (("til", 0.80, 0.1), ("dil", 0.96, 0.3)):
        write(tmp_path, "joint", joint, 0.0, scenario)
        write(tmp_path, "hnet", 0.90, 0.005, scenario)
        write(tmp_path, "ewc", 0.75, 0.05, scenario)
        write(tmp_path, "finetune", 0.70, lost, scenario)
    return tmp_path


def test_joint_is_beaten_where_the_best_other_mean_is_higher(two_scenarios: Path) -> None:
    assert "in 1 of 2 combinations of benchmark and scenario (Split Digits, TIL)." in sentence(two_scenarios, "Joint, ")


def test_forgetting_spans_from_the_least_to_the_most(two_scenarios: Path) -> None:
    found = sentence(two_scenarios, "Plain fine-tuning")
    assert found.endswith("between 10.0 points (Split Digits, TIL) and 30.0 points (Split Digits, DIL).")


def test_backward_transfer_is_counted_without_the_reference(two_scenarios: Path) -> None:
    """HNET loses half a point, EWC five; joint, which loses none, has no rows in the count."""
    found = sentence(two_scenarios, "Backward transfer")
    assert "at least −1 point in 2 of 6 rows of the tables without Joint;" in found
    assert found.endswith("the lowest is −30.0 points (Fine-tuning, Split Digits, DIL).")


def test_shares_of_inferred_tasks_span_the_benchmarks(tmp_path: Path) -> None:
    """The synthetic records infer one point more than they answer rightly; the extremes are not the first."""
    for benchmark, learnt in (("split-digits", 0.80), ("split-mnist", 0.90), ("split-cifar-10", 0.60)):
        write(tmp_path, "hnet", learnt, 0.0, "cil", benchmark)
    found = sentence(tmp_path, "inferred")
    assert found == "In CIL the right task is inferred by HNET for 61.0 to 91.0 % of the test samples."


def test_of_the_violations_those_of_claims_that_held_are_told(tmp_path: Path) -> None:
    for seed, lines in enumerate((FIRST, SECOND)):
        Claiming("hyperinterval", seed=seed, n_tasks=2, certifies=True, lines=lines).write(tmp_path)
    found = sentence(tmp_path, "guarantee")
    assert found.endswith("certificates were contradicted 4 times, 2 while the claim held.")


def test_methods_that_tie_are_noted_by_the_one_with_the_fewest_seeds(tmp_path: Path) -> None:
    for method, value, seeds in (("ewc", 0.8, 2), ("si", 0.8, 1), ("hnet", 0.5, 2)):
        for seed in range(seeds):
            Synthetic(method, seed=seed, n_tasks=2, accuracy=np.full((3, 2), value)).write(tmp_path)
    assert "EWC and SI are tied for best on Split Digits (80.0 %, 30.0 points ahead of HNET, SI on 1 of 2 seeds)" in (
        sentence(tmp_path, "In TIL")
    )
