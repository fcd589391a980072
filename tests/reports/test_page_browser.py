"""The page in headless Chromium, on a desk and on a telephone; skipped where none is installed."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reports import page as html
from reports.build import Report
from reports.load import load
from reports.study import study
from tests.reports.browser import Page, browser, needs_browser
from tests.reports.synthetic import Synthetic
from tests.reports.test_costs import Costly

pytestmark = needs_browser
ROWS, FIRST = "#results > tbody > tr:not(.opened)", "#results > tbody > tr button"
WIDTHS = [(1280, 900), (390, 844)]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(chromium: Page, placed_report: Report) -> Page:
    chromium.open(placed_report.html.as_uri())
    return chromium


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Page, without figures, of two machines, of names with decimals, and of failures of some seeds."""
    results = tmp_path_factory.mktemp("mixed")
    for machine, seed in (("one", 0), ("two", 1)):
        Costly("finetune", seed=seed, machine=machine).write(results)
    for lr in (0.05, 0.3, 0.03, 1e-05):
        Costly("ewc", label=f"ewc-lr-{lr}", config={"lr": lr}).write(results)
    for seed, status in enumerate(("diverged", "failed")):
        Synthetic("hnet", seed=seed, status=status, reason=f"it {status}").write(results)
    Costly("mas", status="done").write(results)
    Synthetic("mas", seed=1, status="failed", reason="the machine said no").write(results)
    place = results / "report.html"
    text = html.page(study(load(results)), {"title": "", "subtitle": "", "summary": []}, [], results)
    place.write_text(text, encoding="utf-8")
    return place


def column(page: Page, key: str) -> list[str]:
    return page.texts(f"#results > tbody > tr > td[data-key={key}]")


def change(page: Page, name: str, value: str) -> None:
    event = "input" if name == "method" else "change"
    box = f"$({json.dumps(name)})"
    page.ask(f"{box}.value = {json.dumps(value)}; {box}.dispatchEvent(new Event('{event}'))")


def focused(page: Page) -> str:
    return page.ask("document.activeElement.textContent")


@pytest.mark.parametrize(("width", "height"), WIDTHS)
def test_the_table_is_in_view_and_nothing_comes_from_outside(
    chromium: Page, placed_report: Report, width: int, height: int
) -> None:
    chromium.open(placed_report.html.as_uri(), width, height)
    assert chromium.ask("innerWidth") == width
    lines = "[...document.querySelectorAll('#results > tbody > tr')]"
    assert chromium.ask(f"{lines}.filter((line) => line.getBoundingClientRect().bottom < innerHeight).length") >= 5
    chromium.ask("data.rows[0].texts.benchmark = 'Permuted MNIST-10 (5000 steps, mlp-100-100)'; draw()")
    cell = "document.querySelector('#results td[data-key=acc]').getBoundingClientRect()"
    assert chromium.ask(f"{cell}.left >= 0 && {cell}.right <= innerWidth")
    assert not chromium.ask("document.documentElement.scrollWidth > innerWidth")
    loaded = chromium.ask("performance.getEntriesByType('resource').map((one) => one.name)")
    assert [name for name in loaded if not name.startswith("blob:")] == []
    assert len(chromium.texts(ROWS)) == 15


def test_columns_out_of_view_are_hinted(chromium: Page, placed_report: Report) -> None:
    chromium.open(placed_report.html.as_uri(), 390, 844)
    assert "to the right" in chromium.ask("$('more').textContent")
    assert chromium.ask("$('pane').className").split() == ["scroll", "right"]
    chromium.ask("$('pane').scrollLeft = 1e5")
    chromium.wait("$('more').textContent === ''")
    assert chromium.ask("$('pane').className").split() == ["scroll", "left"]
    method = "document.querySelector('#results td[data-key=method]').getBoundingClientRect().left"
    assert chromium.ask(method) >= 0  # names stay in view
    assert "columns hidden" in chromium.ask("$('choice').querySelector('summary').textContent")
    chromium.open(placed_report.html.as_uri(), 1280, 900)
    assert chromium.ask("$('more').textContent") == ""


def test_headings_sort_by_key_and_keep_the_focus(page: Page) -> None:
    page.ask("document.querySelector('#results th[data-key=acc] button').focus()")
    page.press("Enter")
    down = [float(text.split()[0]) for text in column(page, "acc")[:-1]]
    assert column(page, "acc")[-1] == "skipped" and len(down) == 14 and down == sorted(down, reverse=True)
    assert page.ask("document.activeElement.parentElement.getAttribute('aria-sort')") == "descending"
    page.press(" ")
    assert [float(text.split()[0]) for text in column(page, "acc")[:-1]] == sorted(down)
    assert page.ask("document.activeElement.parentElement.getAttribute('aria-sort')") == "ascending"
    page.ask("document.querySelector('#results th[data-key=method] button').click()")
    assert column(page, "method") == sorted(column(page, "method"))


@pytest.mark.parametrize("key", ["Enter", " "])
def test_a_row_opens_and_closes_by_key_and_keeps_the_focus(page: Page, key: str) -> None:
    page.ask(f"document.querySelector({json.dumps(FIRST)}).focus()")
    before = focused(page)
    scrolled = page.ask("scrollY")
    page.press(key)
    assert page.ask("document.activeElement.getAttribute('aria-expanded')") == "true"
    controlled = "$(document.activeElement.getAttribute('aria-controls'))"
    assert page.ask(f"{controlled} === document.querySelector('tr.opened section')")
    assert (focused(page), page.ask("scrollY")) == (before, scrolled)
    page.press(key)
    assert page.ask("document.activeElement.getAttribute('aria-expanded')") == "false"
    assert page.ask("$('detail')") is None and focused(page) == before


def test_a_row_has_certificates_costs_tests_matrices_and_linked_records(page: Page) -> None:
    change(page, "scenario", "CIL")
    change(page, "method", "HYPER")
    assert (column(page, "scenario"), column(page, "method")) == (["CIL"], ["HyperInterval"])
    page.ask(f"document.querySelector({json.dumps(FIRST)}).closest('tr').firstChild.click()")
    text = page.ask("$('detail').textContent")
    for word in ("standing", "claims", "about old tasks", "training time", "highest mean ACC", "hyperparameters"):
        assert word in text
    canvases = "[...document.querySelectorAll('#detail canvas')]"
    labels = page.ask(f"{canvases}.map((one) => one.getAttribute('aria-label'))")
    assert [label.split(";")[0] for label in labels] == ["Accuracy R", "Certified C"]
    assert set(page.ask(f"{canvases}.map((one) => one.getAttribute('role'))")) == {"img"}
    links = page.ask("[...document.querySelectorAll('#detail a, #files a')].map((one) => one.href)")
    assert len([link for link in links if link.endswith("cell.json")]) == 3
    assert any("/cil/hyperinterval/seed0-" in link for link in links)
    for link in links:
        assert Path(link.removeprefix("file://")).is_file(), link


def test_columns_are_shown_and_hidden(page: Page) -> None:
    assert "standing" in page.ask("[...document.querySelectorAll('#results th')].map((one) => one.dataset.key)")
    press = "document.querySelector('#columns input[data-key={}]').click()"
    page.ask(press.format("fwt"))
    page.ask(press.format("standing"))
    keys = page.ask("[...document.querySelectorAll('#results th')].map((one) => one.dataset.key)")
    assert "fwt" in keys and "standing" not in keys
    assert len(column(page, "fwt")) == 15
    assert column(page, "standing") == []


def test_the_address_keeps_what_is_shown(page: Page) -> None:
    assert page.ask("location.hash") == ""
    change(page, "scenario", "TIL")
    change(page, "method", "h")
    page.ask("document.querySelector('#columns input[data-key=bwt]').click()")
    page.ask("document.querySelector('#results th[data-key=acc] button').click()")
    page.ask(f"document.querySelector({json.dumps(FIRST)}).click()")
    state = "[...document.querySelectorAll('#results > * > tr')].map((one) => one.textContent)"
    before, address = page.ask(state), page.ask("location.href")
    page.open(address)
    assert page.ask(state) == before
    assert column(page, "method")[0] == "HyperInterval" and page.ask("$('detail')") is not None
    page.ask("location.hash = ''")
    page.wait("document.querySelectorAll('#results > tbody > tr').length === 15")
    page.open(address.split("#")[0] + "#scenario=none&sort=none&columns=none&row=none")  # an address of other results
    assert len(column(page, "method")) == 15


def test_the_download_is_the_table_as_shown(page: Page, tmp_path: Path) -> None:
    change(page, "scenario", "DIL")
    page.ask("document.querySelector('#results th[data-key=acc] button').click()")
    page.ask("document.querySelector('#columns input[data-key=benchmark]').click()")
    page.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.ask("$('download').click()")
    file, end = tmp_path / "results.csv", time.monotonic() + 60
    while not file.is_file() or not file.stat().st_size:
        assert time.monotonic() < end
        time.sleep(0.02)
    lines = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    assert [line["method"] for line in lines] == column(page, "method")
    assert {line["scenario"] for line in lines} == {"DIL"} and "benchmark" not in lines[0] and "FWT" not in lines[0]
    shown = column(page, "acc")
    for line, text in zip(lines[:-1], shown, strict=False):
        assert f"{float(line['ACC %']):.1f} ± {float(line['ACC std %']):.1f}" == text and line["ACC n"] == "3"
    assert (lines[-1]["method"], lines[-1]["ACC %"], lines[-1]["ACC n"]) == ("HyperInterval", "", "0")
    assert page.ask("['=1+1', '-2.5', 'a,\"b'].map(field)") == ["'=1+1", "-2.5", '"a,""b"']


def downloaded(page: Page) -> dict[str, dict[str, str]]:
    return {line["method"]: line for line in csv.DictReader(page.ask("csv()").splitlines())}


def test_the_download_has_every_machine_a_unit_and_the_status(chromium: Page, mixed: Path) -> None:
    chromium.open(mixed.as_uri() + "#columns=method,train,memory,stored,claims")
    assert column(chromium, "train")[0] == "123 s (A), 123 s (B)"
    lines = downloaded(chromium)
    for machine in ("A: one, 1 thread", "B: two, 1 thread"):
        assert float(lines["Fine-tuning"][f"train s ({machine})"]) == pytest.approx(123.4)
        assert f"memory MB ({machine})" in lines["Fine-tuning"]
    assert (lines["MAS"]["train s (A: one, 1 thread)"], lines["MAS"]["train s (B: two, 1 thread)"]) == ("123.4", "")
    assert (lines["MAS"]["status"], lines["HNET"]["status"]) == ("1 done, 1 failed", "1 diverged, 1 failed")
    assert float(lines["Fine-tuning"]["stored numbers"]) > 0 and lines["HNET"]["stored numbers"] == ""


def test_failures_of_some_seeds_are_found(chromium: Page, mixed: Path) -> None:
    chromium.open(mixed.as_uri())
    assert "1 done, 1 failed" in column(chromium, "status")
    assert chromium.ask("[...$('status').options].map((one) => one.value)") == ["", "done", "diverged", "failed"]
    for status, methods in (("failed", ["HNET", "MAS"]), ("diverged", ["HNET"])):
        change(chromium, "status", status)
        assert column(chromium, "method") == methods
    assert chromium.ask("$('count').textContent") == "1 of 7 lines."
    chromium.ask(f"document.querySelector({json.dumps(FIRST)}).click()")
    text = chromium.ask("$('detail').textContent")
    assert "it diverged" in text and "it failed" in text
    chromium.ask("data.rows.length = 1; draw()")
    assert chromium.ask("$('count').textContent").endswith(" of 1 line.")


def test_names_with_decimals_are_in_the_order_of_their_numbers(chromium: Page, mixed: Path) -> None:
    chromium.open(mixed.as_uri() + "#sort=method")
    up = column(chromium, "method")
    assert [float(name.removeprefix("ewc-lr-")) for name in up[:4]] == [1e-05, 0.03, 0.05, 0.3]
    chromium.open(mixed.as_uri() + "#sort=-method")
    assert column(chromium, "method") == up[::-1]
    order = "['b10', 'a', 'B2', 'b2', 'a 0.3', 'a 0.05', 'a 1e-7', 'a 1E-06', 'é', 'e\u0301'].sort(compare)"
    found = chromium.ask(order)
    assert found[:5] == ["a", "a 1e-7", "a 1E-06", "a 0.05", "a 0.3"] and found[7] == "b10"
    assert chromium.ask(f"{order}.reverse()") == chromium.ask(order.replace("compare", "(x, y) => compare(y, x)"))


def test_values_of_a_map_are_reached_by_keys_and_by_touch(page: Page) -> None:
    page.ask(f"document.querySelector({json.dumps(FIRST)}).click()")
    canvas = "document.querySelector('#detail canvas')"
    page.ask(
        f"{canvas}.dispatchEvent(new PointerEvent('pointerdown', {{pointerType: 'touch', "
        f"clientX: {canvas}.getBoundingClientRect().left + 1, clientY: {canvas}.getBoundingClientRect().bottom - 1}}))"
    )
    told = page.ask("document.querySelector('#detail figcaption').textContent")
    page.ask("document.querySelector('#detail summary').focus()")
    page.press("Enter")
    page.wait("document.querySelector('#detail details table')")
    table = "#detail details tbody tr"
    assert len(page.texts(table)) == 5
    first, last = (page.texts(f"{table}:{place}-child > *") for place in ("first", "last"))
    assert first[0] == "1" and first[3:] == ["–"] * 3
    assert told == f"After task 5, on task 1: {last[1]} %" and len(last) == 6


@pytest.mark.parametrize("width", [390, 1280])
def test_lines_between_rows_are_not_painted_over(chromium: Page, placed_report: Report, width: int) -> None:
    """Every cell has its own line, also one that sticks, and rows begin on whole pixels."""
    chromium.open(placed_report.html.as_uri(), width, 844)
    assert chromium.ask("getComputedStyle($('results')).borderCollapse") == "separate"
    cells = "[...document.querySelectorAll('#results > tbody > tr:not(:first-child) > td')]"
    assert chromium.ask(f"{cells}.every((one) => getComputedStyle(one).borderTopWidth === '1px')")
    heights = f"{cells}.map((one) => one.getBoundingClientRect().height)"
    assert chromium.ask(f"{heights}.every(Number.isInteger)"), chromium.ask(heights)
    assert "\xa0" in chromium.ask("getComputedStyle(document.querySelector('td button'), '::before').content")


def test_figures_open_when_they_come_near(page: Page) -> None:
    figures = "[...document.querySelectorAll('#figures img')]"
    assert page.ask(f"{figures}.length") > 5
    assert page.ask(f"{figures}.at(-1).src") == ""
    page.ask(f"{figures}.at(-1).scrollIntoView()")
    page.wait(f"{figures}.at(-1).naturalWidth > 0")
    assert page.ask(f"{figures}.at(-1).closest('figure').querySelector('a').href").startswith("blob:")
    assert all(page.ask(f"{figures}.map((one) => one.alt)"))
