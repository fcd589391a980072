"""Names of variants: the method and the values in which it differs, for readers; ids in CSV files."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

from reports.distinct_names import natural
from reports.latex import to_latex
from reports.load import load
from reports.names import citation, display
from reports.page_rows import rows
from reports.paper import contents, paper
from reports.render import to_csv, to_markdown
from reports.study import METRICS, study
from reports.summary import summary
from tests.reports.synthetic import Synthetic

BASE = {"lr": 0.001, "capacity": 0.5, "optimizer": "adam"}


def names(results: Path) -> dict[str, str]:
    return {str(label): display(label) for label in study(load(results)).labels}


def test_a_variant_is_named_by_the_values_in_which_it_differs(tmp_path: Path) -> None:
    Synthetic("wsn", config=BASE).write(tmp_path)
    Synthetic("wsn", label="wsn-0.1", config={**BASE, "capacity": 0.1}).write(tmp_path)
    Synthetic("wsn", label="both", config={**BASE, "capacity": 0.3, "optimizer": "sgd"}).write(tmp_path)
    assert names(tmp_path) == {
        "both": "WSN (c = 0.3, optimizer = sgd)",
        "wsn": "WSN",
        "wsn-0.1": "WSN (c = 0.1)",
    }


def test_without_its_method_a_variant_is_named_by_the_chosen_values_in_its_id(tmp_path: Path) -> None:
    chosen = dict.fromkeys(["lr", "beta"], "a paper")
    config = {"lr": 0.1, "beta": 0.01, "hidden": [100]}
    Synthetic("hyperinterval", label="hyperinterval-beta-0.01", config=config, chosen=chosen).write(tmp_path)
    other = {**config, "beta": 0.02}
    Synthetic("hyperinterval", label="other", config=other, chosen=chosen).write(tmp_path)
    Synthetic("ewc", label="unchanged").write(tmp_path)
    assert names(tmp_path) == {
        "hyperinterval-beta-0.01": "HyperInterval (beta = 0.01)",
        "other": "HyperInterval (lr = 0.1, beta = 0.02)",
        "unchanged": "unchanged",
    }


def test_two_rows_never_share_a_name(tmp_path: Path) -> None:
    for label, scenario in (("one", "til"), ("two", "dil")):
        Synthetic("ewc", scenario=scenario).write(tmp_path)
        Synthetic("ewc", label=label, scenario=scenario, config={"lr": 0.5}).write(tmp_path)
    found = names(tmp_path)
    assert len(set(found.values())) == 3 and {"EWC", "EWC (lr = 0.5)"} < set(found.values())


def test_a_value_that_tells_rows_of_one_label_apart_is_named_once(tmp_path: Path) -> None:
    base = {"strength": 1.0, "hidden": [1, 2], "lr": 0.1}
    Synthetic("ewc", config=base).write(tmp_path)
    for strength in (7.0, 9.0):
        Synthetic("ewc", label="v", config={**base, "strength": strength, "hidden": [strength, 4]}).write(tmp_path)
    assert set(names(tmp_path).values()) == {
        "EWC",
        "EWC (strength = 7, hidden = 7-4)",
        "EWC (strength = 9, hidden = 9-4)",
    }


def test_long_lists_of_values_are_cut(tmp_path: Path) -> None:
    config = {"lr": 0.001, **{f"hyperparameter_{i}": i for i in range(9)}}
    Synthetic("ewc", config=config).write(tmp_path)
    Synthetic("ewc", label="far", config=dict.fromkeys(config, -1)).write(tmp_path)
    assert names(tmp_path)["far"] == "EWC (lr = -1, hyperparameter_0 = -1, …)"


def test_a_label_keeps_its_name_and_its_method_in_another_process(tmp_path: Path) -> None:
    Synthetic("wsn", config=BASE).write(tmp_path)
    Synthetic("wsn", label="wsn-0.1", config={**BASE, "capacity": 0.1}).write(tmp_path)
    (label,) = [label for label in pickle.loads(pickle.dumps(study(load(tmp_path)))).labels if label == "wsn-0.1"]
    assert display(label) == "WSN (c = 0.1)" and citation(label) == "kang2022"


def test_readers_see_no_id_of_a_variant_and_csv_files_have_it(tmp_path: Path) -> None:
    for seed in range(2):
        for scenario in ("til", "cil"):
            Synthetic("ewc", scenario=scenario, seed=seed).write(tmp_path)
            Synthetic("wsn", scenario=scenario, seed=seed, config=BASE, certifies=True).write(tmp_path)
            changed = {**BASE, "capacity": 0.1}
            variant = {"label": "wsn-0.1", "config": changed, "chosen": {"capacity": "a table"}, "certifies": True}
            Synthetic("wsn", scenario=scenario, seed=seed, **variant).write(tmp_path)
    found = study(load(tmp_path))
    document = paper(contents(found), [])
    for text in (json.dumps(document.data), *map(to_latex, document.tables), *map(to_markdown, document.tables)):
        assert "wsn-0.1" not in text
    assert "WSN (c = 0.1)" in json.dumps(document.data)
    (table,) = [table for table in document.tables if table.stem == "headline"]
    assert any(line.startswith("wsn-0.1,") for line in to_csv(table).splitlines())
    assert "wsn-0.1" in set(found.frame["label"]) and "wsn-0.1" in set(summary(found)["method"])
    shown = rows(found, [{"key": metric.key} for metric in METRICS], frozenset())
    assert {(row["id"], row["texts"]["method"]) for row in shown} >= {("wsn-0.1", "WSN (c = 0.1)")}


def test_decimals_are_in_their_order() -> None:
    names = ["a10", "a2", "a0.1", "a0.03", "a1e-05"]
    assert sorted(names, key=natural) == ["a1e-05", "a0.03", "a0.1", "a2", "a10"]
