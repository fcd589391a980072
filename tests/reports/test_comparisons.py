"""The best against every other method, by hand; and where hyperparameters come from."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from reports.abstract import abstract
from reports.comparisons import comparison_table
from reports.findings import findings
from reports.hyperparameters import hyperparameters
from reports.latex import to_latex
from reports.leads import leads, means, significance
from reports.load import load
from reports.marks import marked
from reports.metrics import ACC
from reports.paper import contents, paper
from reports.provenance import commands
from reports.render import to_csv, to_data, to_markdown
from reports.setting import setting_table
from reports.study import study
from reports.tables import Cell, Table, split, without_repeats
from tests.reports.synthetic import Synthetic


def write(results: Path, method: str, values: list[float]) -> None:
    for seed, value in enumerate(values):
        Synthetic(method, seed=seed, n_tasks=2, accuracy=np.full((3, 2), value)).write(results)


def test_differences_are_paired_tested_and_sized(tmp_path: Path) -> None:
    write(tmp_path, "hnet", [0.90, 0.91, 0.92, 0.93, 0.94, 0.95])
    write(tmp_path, "ewc", [0.80, 0.80, 0.83, 0.83, 0.85, 0.85])
    write(tmp_path, "si", [0.90, 0.90, 0.92, 0.92])
    table = comparison_table(study(load(tmp_path)))
    assert table
    rows = {row[2].key: [cell.text for cell in row] for row in table.rows}
    assert list(rows) == ["si", "ewc"]
    assert rows["si"][:5] == ["Split Digits, TIL", "HNET", "SI", "4", "+0.5"]
    differences = [0.10, 0.11, 0.09, 0.10, 0.09, 0.10]
    assert rows["ewc"][3:5] == ["6", f"+{100 * np.mean(differences):.1f}"]
    assert rows["ewc"][6] == "0.0312"  # the least of six seeds, although three pairs were compared
    assert float(rows["si"][6]) > 0.05
    assert float(rows["ewc"][7]) == pytest.approx(np.mean(differences) / np.std(differences, ddof=1), abs=0.06)


def test_a_p_is_marked_where_it_is_significant_among_all_pairs(tmp_path: Path) -> None:
    """0.031 of six seeds in one direction: significant alone, and not where another pair may be as clear by chance."""
    write(tmp_path, "hnet", [0.90, 0.91, 0.92, 0.93, 0.94, 0.95])
    write(tmp_path, "ewc", [0.80, 0.80, 0.83, 0.83, 0.85, 0.85])
    table = comparison_table(study(load(tmp_path)))
    assert table
    assert [[cell.text for cell in row if cell.best] for row in table.rows] == [["0.0312"]]
    assert table.rows[0][6].best
    # Signs that agree with the differences of si and mas make that pair as clear as any: two of 32 choices do so.
    write(tmp_path, "si", [0.3, 0.2, 0.3, 0.2, 0.3, 0.2])
    write(tmp_path, "mas", [0.2, 0.3, 0.2, 0.3, 0.2, 0.3])
    table = comparison_table(study(load(tmp_path)))
    assert table and {row[2].key: row[6].text for row in table.rows}["ewc"] == "0.0625"
    assert not any(cell.best for row in table.rows for cell in row)


def test_the_interval_is_that_of_the_paired_differences(tmp_path: Path) -> None:
    """Seeds differ by 40 points and the methods by ten in each of them: nothing about the difference is uncertain."""
    write(tmp_path, "hnet", [0.50, 0.70, 0.90])
    write(tmp_path, "ewc", [0.40, 0.60, 0.80])
    table = comparison_table(study(load(tmp_path)))
    assert table and table.rows[0][5].text == "+10.0 to +10.0"
    # Of 20, 40 and 60: 40 plus or minus 4.303 times 20 over the root of 3, the t interval of two degrees of freedom.
    write(tmp_path, "si", [0.30, 0.30, 0.30])
    table = comparison_table(study(load(tmp_path)))
    assert table and {row[2].key: row[5].text for row in table.rows}["si"] == "−9.7 to +89.7"


def test_rounding_is_no_difference(tmp_path: Path) -> None:
    """Means of accuracies with one sum differ in the last bit, always in one direction, however sums are rounded."""
    for seed in range(6):
        for method, last in (("hnet", [0.05, 0.05, 0.05, 0.05, 0.4]), ("ewc", [0.05, 0.05, 0.05, 0.1, 0.35])):
            Synthetic(method, seed=seed, accuracy=np.tile(last, (6, 1))).write(tmp_path)
    found = study(load(tmp_path))
    (ours, theirs) = (values for _, values in means(found, found.groups[0]))
    assert ours != theirs, "the example is one of rounding"
    table = comparison_table(found)
    assert table and [cell.text for cell in table.rows[0][4:]] == ["0.0", "0.0 to 0.0", "1", "0.0"]


def test_a_lead_that_common_seeds_contradict_is_not_shown(tmp_path: Path) -> None:
    """EWC is ahead in each of the eight seeds that both have; SI, in its mean, as it lacks the two bad ones."""
    write(tmp_path, "si", [0.79 + k / 1000 for k in range(8)])
    write(tmp_path, "ewc", [0.81 + k / 999 for k in range(8)] + [0.1, 0.1])
    found = study(load(tmp_path))
    (lead,) = leads(found)
    assert lead.best == "si" and not lead.shown
    (sentence,) = significance(found)
    assert "significant in 0 of 1 comparison" in sentence
    cells = {
        label: Cell("", fmean(values.values()), n=len(values))
        for label in ("si", "ewc")
        if (values := found.values(found.groups[0], label, ACC))
    }
    of_si, of_ewc = marked(found, found.groups[0], ACC, cells)
    assert of_si.best and of_ewc.level
    assert "2 of 10 seeds" not in findings(found)[1] and "8 of 10 seeds" in findings(found)[1]
    assert "but 2.0 points behind EWC on the 8 seeds of both" in findings(found)[1]
    assert "(not significant, on 8 of 10 seeds, behind on common seeds)" in " ".join(abstract(found))
    table = comparison_table(found)
    assert table and table.rows[0][4].text == "−2.0" and float(table.rows[0][6].text) < 0.05
    assert not table.rows[0][6].best


def test_seeds_that_the_second_lacks_are_said(tmp_path: Path) -> None:
    """EWC is best by its mean of ten seeds; HNET lacks the three easy ones, and is ahead on the seven others."""
    write(tmp_path, "ewc", [0.5 + k / 1000 for k in range(7)] + [0.99] * 3)
    write(tmp_path, "hnet", [0.6 + k / 999 for k in range(7)])
    write(tmp_path, "finetune", [0.4] * 10)
    found = study(load(tmp_path))
    assert "HNET on 7 of 10 seeds, but 10.0 points behind HNET on the 7 seeds of both" in findings(found)[1]
    write(tmp_path, "hnet", [0.6 + k / 999 for k in range(10)])
    assert "seeds" not in findings(study(load(tmp_path)))[1]


def test_one_seed_has_no_interval_and_no_effect(tmp_path: Path) -> None:
    write(tmp_path, "hnet", [0.9])
    write(tmp_path, "ewc", [0.8])
    table = comparison_table(study(load(tmp_path)))
    assert table and [cell.text for cell in table.rows[0]][5:] == ["–", "1", "–"]


def test_one_method_has_nobody_to_be_compared_with(tmp_path: Path) -> None:
    write(tmp_path, "hnet", [0.9, 0.8])
    assert comparison_table(study(load(tmp_path))) is None


def test_where_hyperparameters_come_from(tmp_path: Path) -> None:
    config = {"lr": 0.1, "strength": 5.0}
    Synthetic("ewc", config=config, chosen={"strength": "chosen on validation data"}).write(tmp_path)
    Synthetic("ewc", scenario="cil", config=config, chosen={"strength": "a paper"}).write(tmp_path)
    Synthetic("si", config=config, chosen={"lr": "a, b", "strength": "a, b"}).write(tmp_path)
    table = hyperparameters(study(load(tmp_path)))
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["EWC", "Split Digits TIL", "strength = 5", "a"],
        ["EWC", "Split Digits CIL", "strength = 5", "b"],
        ["SI", "Split Digits TIL", "lr = 0.1, strength = 5", "c"],
    ]
    assert table.notes == ("(a) chosen on validation data", "(b) a paper", "(c) a, b")
    first = to_csv(table).splitlines()[1]
    assert first == 'ewc,Split Digits TIL,"lr=0.1, strength=5",strength: chosen on validation data; others: defaults'


def test_the_setting_says_what_is_held_out_for_selection(tmp_path: Path) -> None:
    Synthetic("ewc").write(tmp_path)
    table = setting_table(study(load(tmp_path)))
    assert dict(zip(table.columns, (cell.text for cell in table.rows[0]), strict=True))["validation"] == "100"


def test_the_setting_says_by_which_rule_a_budget_ends(tmp_path: Path) -> None:
    budget = {"batch_size": 64, "steps": None, "epochs": 50, "patience": 6, "divisor": 2.0, "lowest_rate": 1e-5}
    Synthetic("ewc", "split-cifar-100-superclass", network="lenet-20-50", budget=budget).write(tmp_path)
    found = study(load(tmp_path))
    table = setting_table(found)
    assert dict(zip(table.columns, (cell.text for cell in table.rows[0]), strict=True))["budget"] == (
        "at most 50 epochs, batch 64, rate / 2.0 after 6 epochs without a lower validation loss, down to 1e-05"
    )
    assert [group.title for group in found.groups] == ["Split CIFAR-100 Superclass, TIL"]


def test_a_command_says_what_it_gave(tmp_path: Path) -> None:
    for scenario in ("til", "cil"):
        Synthetic("ewc", scenario=scenario).write(tmp_path)
    assert commands(study(load(tmp_path))) == (
        [("python runners/compare.py --suite quick", "2 cells: Split Digits in TIL, CIL")],
        "",
    )


def test_of_commands_that_differ_in_their_seeds_the_one_that_gives_all_is_printed(tmp_path: Path) -> None:
    for seed in range(12):
        Synthetic("ewc", seed=seed, command=f"compare.py --seeds {seed + 1} --no-report").write(tmp_path)
    Synthetic("hnet", command="compare.py --no-report").write(tmp_path)
    Synthetic("si", command="compare.py --no-report --seeds=3").write(tmp_path)
    assert [command for command, _ in commands(study(load(tmp_path)))[0]] == [
        "compare.py --seeds 12 --no-report",
        "compare.py --no-report",
        "compare.py --no-report --seeds=3",
    ]


def test_every_benchmark_and_method_has_a_command_line_and_the_others_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most cells: EWC on Split Digits, then HNET there in two lines, and last EWC on Split MNIST."""
    for method, benchmark, line, seeds in (
        ("ewc", "split-digits", "a", range(5)),
        ("ewc", "split-digits", "b", range(5, 9)),
        ("hnet", "split-digits", "c", range(3)),
        ("hnet", "split-digits", "d", range(3, 5)),
        ("ewc", "split-mnist", "e", range(1)),
    ):
        for seed in seeds:
            Synthetic(method, benchmark, seed=seed, command=line).write(tmp_path)
    found = study(load(tmp_path))
    assert [command for command, _ in commands(found)[0]] == ["a", "b", "c", "d", "e"]
    monkeypatch.setattr("reports.provenance.LINES_AT_MOST", 1)
    lines, further = commands(found)
    assert [command for command, _ in lines] == ["a", "c", "e"]
    assert further == "2 further command lines made 6 cells; the column `command` of cells.csv has them."
    texts = [item["text"] for item in paper(contents(found), []).data["appendix"] if "text" in item]
    assert further in texts and "e" in texts


def test_names_are_written_once_for_readers_and_in_every_line_for_machines(tmp_path: Path) -> None:
    for i in range(6):
        write(tmp_path, f"m{i}", [0.9 - i / 100, 0.9])
    table = comparison_table(study(load(tmp_path)))
    assert table
    first, second = split(table, 3)
    assert [len(part.rows) for part in (first, second)] == [3, 2]
    assert second.caption.endswith("continued.")

    def shown(part: Table) -> list[list[str]]:
        return [[cell["text"] for cell in row[:3]] for row in to_data(part)["rows"]]

    assert shown(first) == [["Split Digits, TIL", "m0", "m1"], ["", "", "m2"], ["", "", "m3"]]
    assert shown(second) == [["Split Digits, TIL", "m0", "m4"], ["", "", "m5"]]
    assert [line.startswith('"Split Digits, TIL",m0,') for line in to_csv(table).splitlines()[1:]] == [True] * 5
    assert sum("Split Digits, TIL" in line for line in to_markdown(table).splitlines()) == 1
    assert to_latex(table).count("Split Digits, TIL") == 1


def test_a_name_below_another_one_of_a_higher_column_is_written_again() -> None:
    rows = [("TIL", "a", "x"), ("TIL", "a", "y"), ("DIL", "a", "y"), ("DIL", "b", "y")]
    table = Table("t", "", ("scenario", "benchmark", "method"), tuple(tuple(map(Cell, r)) for r in rows), named_once=2)
    texts = [[cell.text for cell in row] for row in without_repeats(table)]
    assert texts == [["TIL", "a", "x"], ["", "", "y"], ["DIL", "a", "y"], ["", "b", "y"]]
