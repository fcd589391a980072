"""The front of the report: abstract, names, looks and headline."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest

from reports.abstract import WORDS_AT_MOST, abstract
from reports.build import Report
from reports.front import limitations, methods_table, protocol_table
from reports.front_figures import guarantees_by_family
from reports.headline import headline_table, shared_groups
from reports.load import load
from reports.names import METHODS, ROWS, Family, display, family
from reports.setting import budget_words
from reports.study import Study, study
from reports.style import HUES, looks
from tests.reports.synthetic import Synthetic


def a_study(tmp_path: Path, methods: list[str], **rest: object) -> Study:
    for method in methods:
        Synthetic(method, **rest).write(tmp_path)  # type: ignore[arg-type]
    return study(load(tmp_path))


def test_the_abstract_has_at_most_120_words(several_results: Path, quick_results: Path) -> None:
    for results in (several_results, quick_results):
        words = " ".join(abstract(study(load(results)))).split()
        assert 40 < len(words) <= WORDS_AT_MOST == 120


def test_the_abstract_leaves_out_whole_sentences(several_results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = study(load(several_results))
    whole = abstract(found)
    monkeypatch.setattr("reports.abstract.WORDS_AT_MOST", len(" ".join(whole).split()) - 1)
    shorter = abstract(found)
    assert len(shorter) == len(whole) - 1 and set(shorter) < set(whole)
    assert any("over fine-tuning" in sentence for sentence in shorter)


def test_what_failed_is_in_the_abstract_however_full_it_is(
    several_results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = study(load(several_results))
    for most in (60, 40, 30):
        monkeypatch.setattr("reports.abstract.WORDS_AT_MOST", most)
        shown = abstract(found)
        assert any("gain less than 5 points over fine-tuning" in sentence for sentence in shown), shown
        assert len(" ".join(shown).split()) <= most


def test_the_abstract_tells_a_significant_lead_from_another(tmp_path: Path) -> None:
    for seeds, verdict in ((8, "by 20.0 points (significant)"), (3, "by 20.0 points (not significant)")):
        for seed in range(seeds):
            for method, value in (("hnet", 0.9), ("ewc", 0.7)):
                r = np.full((6, 5), value + seed / 1000)
                Synthetic(method, seed=seed, accuracy=r).write(tmp_path / str(seeds))
        (sentence,) = [s for s in abstract(study(load(tmp_path / str(seeds)))) if s.startswith("In TIL")]
        assert sentence == f"In TIL, HNET has the highest accuracy on Split Digits, {verdict}."


@pytest.mark.parametrize(
    ("lacking", "verdict"),
    [
        ({"ewc": 2}, "(not significant, on 1 of 3 seeds)"),
        ({"hnet": 2}, "(not significant, HNET on 1 of 3 seeds)"),
        ({"ewc": 1, "hnet": 2}, "(not significant, on 2 of 3 seeds)"),
        ({"si": 2}, "(not significant)"),
    ],
)
def test_a_lead_by_some_seeds_only_is_said_to_be_one(tmp_path: Path, lacking: dict[str, int], verdict: str) -> None:
    for method, value in (("ewc", 0.9), ("hnet", 0.8), ("si", 0.7)):
        for seed in range(3):
            status = "diverged" if seed >= 3 - lacking.get(method, 0) else "done"
            r = np.full((6, 5), value)
            Synthetic(method, seed=seed, accuracy=r, status=status, reason="nan").write(tmp_path)
    (sentence,) = [s for s in abstract(study(load(tmp_path))) if s.startswith("In TIL, EWC")]
    assert sentence == f"In TIL, EWC has the highest accuracy on Split Digits, by 10.0 points {verdict}."


def test_leads_by_some_seeds_only_are_counted(tmp_path: Path) -> None:
    for benchmark in ("split-digits", "split-mnist"):
        for method, value in (("ewc", 0.9), ("hnet", 0.8)):
            for seed in range(2):
                lost = seed and (benchmark, method) == ("split-mnist", "ewc")
                r, status = np.full((6, 5), value), "diverged" if lost else "done"
                Synthetic(method, benchmark, seed=seed, accuracy=r, status=status, reason="nan").write(tmp_path)
    sentences = " ".join(abstract(study(load(tmp_path))))
    assert "on 2 of 2 benchmarks, by 10.0 points (not significant, some seeds missing on 1)." in sentences


def test_gains_over_fine_tuning_are_those_of_each_methods_benchmarks(tmp_path: Path) -> None:
    """EWC gains 2 points on one benchmark; HNET gains none there, and 20 on the other."""

    def write(benchmark: str, **values: float) -> str:
        for method, value in {"finetune": 0.5, **values}.items():
            Synthetic(method, benchmark, accuracy=np.full((6, 5), value)).write(tmp_path)
        (said,) = [sentence for sentence in abstract(study(load(tmp_path))) if "over fine-tuning" in sentence]
        return said

    assert write("split-digits", ewc=0.52) == "In TIL, EWC gains less than 5 points over fine-tuning."
    assert write("split-digits", hnet=0.5) == "In TIL, 2 of 2 methods gain less than 5 points over fine-tuning."
    assert write("split-mnist", hnet=0.7) == (
        "In TIL, 1 of 2 methods gains less than 5 points over fine-tuning, averaged over each one's benchmarks."
    )


def test_one_method_that_gains_is_named(tmp_path: Path) -> None:
    for method, value in (("finetune", 0.5), ("hnet", 0.9)):
        Synthetic(method, accuracy=np.full((6, 5), value)).write(tmp_path)
    assert "In TIL, HNET gains at least 5 points over fine-tuning." in abstract(study(load(tmp_path)))


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        (("ewc", "finetune"), "1 continual learner and fine-tuning"),
        (("ewc", "hnet"), "2 continual learners"),
        (("finetune", "joint"), "fine-tuning and Joint"),
    ],
)
def test_the_abstract_counts_all_that_may_be_best(tmp_path: Path, methods: tuple[str, ...], words: str) -> None:
    assert abstract(a_study(tmp_path, [*methods]))[0] == f"We compare {words} on 1 benchmark (1 seed)."


def test_a_lead_of_less_than_one_test_image_is_no_lead(tmp_path: Path) -> None:
    for method, value in (("hnet", 0.9), ("ewc", 0.8999)):
        Synthetic(method, accuracy=np.full((6, 5), value)).write(tmp_path)
    assert "In TIL, methods are tied for the highest accuracy everywhere." in abstract(study(load(tmp_path)))


def test_a_method_looks_the_same_whatever_else_is_in_the_report(tmp_path: Path) -> None:
    few = looks(a_study(tmp_path / "few", ["ewc", "hnet", "my-method"]))
    many = looks(a_study(tmp_path / "many", [*METHODS, "my-method", "another"]))
    assert {label: many[label] for label in few} == few


def test_looks_differ_and_families_share_a_hue(tmp_path: Path) -> None:
    found = looks(a_study(tmp_path, [*METHODS, *(f"own-{i}" for i in range(30))]))
    assert len(set(found.values())) == len(found)
    for label, look in found.items():
        assert look.colour in HUES[family(label)], label
    colours = [found[name].colour for name in METHODS]
    assert len(set(colours)) == len(colours), "two shipped methods share a colour"


def test_families_have_no_hue_in_common() -> None:
    colours = [colour for hues in HUES.values() for colour in hues]
    assert set(HUES) == set(Family) and len(set(colours)) == len(colours)


def test_display_names() -> None:
    names = ["hyperinterval", "intercontinet", "hnet", "lwf", "ewc-online", "ewc (strength=9)", "my_method"]
    shown = ["HyperInterval", "InterContiNet", "HNET", "LwF", "EWC online", "EWC (strength = 9)", "my_method"]
    assert [display(name) for name in names] == shown
    assert not ROWS.keys() & METHODS.keys()


def test_every_shipped_method_is_described(tmp_path: Path) -> None:
    files = resources.files("methods").iterdir()
    found = {name for file in files if file.name.endswith(".py") for name in _registered(file.read_text("utf-8"))}
    assert found == set(METHODS)


def _registered(source: str) -> list[str]:
    return re.findall(r'^@register\("([\w-]+)"\)', source, re.MULTILINE)


def test_every_citation_is_in_the_bibliography() -> None:
    library = resources.files("reports").joinpath("references.bib").read_text("utf-8")
    keys = set(re.findall(r"@\w+\{(\w+),", library))
    cited = {about.cite for about in METHODS.values() if about.cite}
    assert keys == cited | {"vandeven2022", "agarwal2021"}
    for about in METHODS.values():
        if about.cite:
            (entry,) = [line for line in library.splitlines() if f"{{{about.cite}," in line]
            assert f"year={{{about.source[-4:]}}}" in entry


def test_readers_see_names_and_csv_files_ids(quick_report: Report) -> None:
    (table,) = [path for path in quick_report.csv if path.stem == "headline"]
    assert [line.split(",")[0] for line in table.read_text().splitlines()[1:]][:2] == ["ewc", "hnet"]
    data = json.loads((quick_report.folder / "source" / "report.json").read_text())
    (shown,) = [item for item in data["body"] if item.get("stem") == "headline"]
    assert [row[0]["text"] for row in shown["rows"]][:2] == ["EWC", "HNET"]
    assert [row[0].get("cite") for row in shown["rows"]][:2] == ["kirkpatrick2017", "oswald2020"]


def test_the_protocol_has_length_and_network_in_columns_and_all_numbers_of_trials(tmp_path: Path) -> None:
    """Of one method of two the values come from a search, and one of two lengths follows the validation loss."""
    steps = {"batch_size": 32, "steps": 100, "epochs": None}
    epochs = {"batch_size": 64, "epochs": 3, "steps": None, "patience": 6, "divisor": 2.0, "lowest_rate": 1e-6}
    for budget in (steps, epochs):
        for method in ("ewc", "hnet"):
            Synthetic(method, config={"lr": 0.25}, budget=budget).write(tmp_path)
    (tmp_path / "tuning").mkdir()
    (tmp_path / "tuning" / "mine.toml").write_text(
        '[[settings]]\nmethod = "ewc"\nbenchmark = "split-digits"\nscenario = "til"\nvalues = { lr = 0.25 }\n'
        "[[provenance]]\naccuracy = 0.5\naccuracy_before = 0.5\ntrials = 16\nseeds = [1]\n"
    )
    table = protocol_table(study(load(tmp_path)))
    names, budgets, trials = (
        [row[table.columns.index(name)].text for row in table.rows] for name in ("benchmark", "budget", "trials")
    )
    assert names == ["Split Digits", "Split Digits"] and trials == ["0–16", "0–16"]
    assert set(budgets) == {"100 steps, batch 32", "at most 3 epochs, batch 64, by validation loss"}
    assert "after 6 epochs" in budget_words(epochs), "the appendix has the rule"


@pytest.mark.parametrize(
    ("benchmark", "held_out", "words"),
    [
        ("split-digits", 30, "1,197 / 30 / 450"),
        ("permuted-digits", 150, "11,970 / 150 / 4,500"),
        ("split-mnist", 1000, "55,000 / 1,000 / 10,000"),
        ("split-mnist", None, "– / – / 10,000"),
    ],
)
def test_images_for_training_are_those_of_the_stream(
    tmp_path: Path, benchmark: str, held_out: int | None, words: str
) -> None:
    """As `open_stream` gives them: those held out for validation are not trained on."""
    tasks, classes = (10, 10) if benchmark == "permuted-digits" else (5, 2)
    definition = {} if held_out is None else {"validation": held_out}
    Synthetic("ewc", benchmark, n_tasks=tasks, classes_per_task=classes, definition=definition).write(tmp_path)
    table = protocol_table(study(load(tmp_path)))
    assert table.rows[0][table.columns.index("train / val / test")].text == words


def test_what_is_stored_and_promised_is_what_the_methods_do() -> None:
    """Anchors of all tasks are merged into one; masks answer by the task; LID may keep several boxes."""
    assert all(METHODS[name].stored == "weights, importances" for name in ("l2", "ewc", "ewc-online", "si", "mas"))
    exact = {name for name, about in METHODS.items() if about.promise == "old answers unchanged if the task is given"}
    assert exact == {"separate", "packnet", "wsn", "supsup", "hat"}
    assert METHODS["lid"].stored == "one or more boxes of weights"
    assert "TIL: a head a task" in METHODS["analytic"].stored and "TIL: old answers" in METHODS["analytic"].promise


def test_zero_trials_are_not_said_to_be_published_values(tmp_path: Path) -> None:
    caption = protocol_table(a_study(tmp_path, ["ewc"])).caption
    assert "trials of runners/tune.py" in caption and "published values" not in caption


@pytest.mark.parametrize("certifies", [True, False])
def test_certificates_are_a_limitation_only_where_there_are_some(tmp_path: Path, certifies: bool) -> None:
    Synthetic("hyperinterval", certifies=certifies).write(tmp_path)
    assert ("certificate" in " ".join(limitations(study(load(tmp_path))))) is certifies


def test_the_headline_equals_the_records(tmp_path: Path) -> None:
    """Mean of the last row of R over tasks, then over seeds; half of the t interval by its formula for n = 3."""
    values = [0.80, 0.90, 0.85]
    for seed, value in enumerate(values):
        Synthetic("ewc", seed=seed, accuracy=np.full((6, 5), value)).write(tmp_path)
        Synthetic("hnet", seed=seed, accuracy=np.full((6, 5), 0.5)).write(tmp_path)
    rows = {row[0].key: row[1] for row in headline_table(study(load(tmp_path))).rows}
    half = 4.302652729911275 * stdev(values) / 3**0.5
    assert rows["ewc"].value == pytest.approx(fmean(values)) and rows["ewc"].best and not rows["hnet"].best
    assert rows["ewc"].text == f"85.0 ± {100 * half:.1f}"


def test_the_headline_says_where_seeds_are_missing(tmp_path: Path) -> None:
    for seed in range(4):
        Synthetic("ewc", seed=seed, accuracy=np.full((6, 5), 0.8)).write(tmp_path)
    for seed in range(2):
        Synthetic("hnet", seed=seed, accuracy=np.full((6, 5), 0.9)).write(tmp_path)
    texts = {row[0].key: row[1].text for row in headline_table(study(load(tmp_path))).rows}
    assert texts == {"ewc": "80.0 ± 0.0", "hnet": "90.0 (n=2)"}


def test_means_over_benchmarks_tie_as_their_caption_says(tmp_path: Path) -> None:
    """80.049 and 80.051 % are printed as 80.0 and 80.1, and lie less than one of 899 test images apart."""
    for benchmark in ("split-digits", "split-digits-shuffled"):
        for method, value in (("ewc", 0.80049), ("hnet", 0.80051), ("si", 0.7)):
            for seed in range(2):
                Synthetic(method, benchmark, seed=seed, accuracy=np.full((6, 5), value)).write(tmp_path)
    found = study(load(tmp_path))
    assert len(shared_groups(found, "til")) == 2
    assert {row[0].key: row[1].best for row in headline_table(found).rows} == {"ewc": True, "hnet": True, "si": False}


def test_the_figure_of_guarantees_weighs_benchmarks_alike(tmp_path: Path) -> None:
    """However many seeds one of them has."""
    for benchmark, seeds, value in (("split-digits", 4, 0.9), ("permuted-digits", 1, 0.5)):
        for seed in range(seeds):
            r = np.full((6, 5), value)
            Synthetic("hyperinterval", benchmark, seed=seed, accuracy=r, certifies=True).write(tmp_path)
    found = study(load(tmp_path))
    (ax,) = guarantees_by_family(found, looks(found)).figure.axes
    _, learnt, _, accuracy = (list(line.get_xdata()) for line in ax.lines[:4])
    assert accuracy == [pytest.approx(70)] and learnt == [pytest.approx(62)]


def test_the_headline_averages_over_benchmarks_that_all_rows_share(tmp_path: Path) -> None:
    for benchmark, methods in (("split-digits", ("ewc", "hnet", "lwf")), ("permuted-digits", ("ewc", "hnet"))):
        for method in methods:
            Synthetic(method, benchmark, accuracy=np.full((6, 5), 0.7)).write(tmp_path)
    found = study(load(tmp_path))
    assert [group.benchmark for group in shared_groups(found, "til")] == ["split-digits"]
    Synthetic("lwf", "permuted-digits", accuracy=np.full((6, 5), 0.9)).write(tmp_path)
    found = study(load(tmp_path))
    assert len(shared_groups(found, "til")) == 2
    assert {row[0].key: row[1].value for row in headline_table(found).rows}["lwf"] == pytest.approx(0.8)


def test_methods_without_a_description_are_the_users_own(tmp_path: Path) -> None:
    rows = methods_table(a_study(tmp_path, ["my_method", "ewc"])).rows
    assert [[cell.text for cell in row[:3]] for row in rows] == [
        ["regularisation", "EWC", "weights, importances"],
        ["own", "my_method", "not described"],
    ]
