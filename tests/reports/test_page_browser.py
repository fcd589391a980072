"""The page in headless Chromium, on a desk and on a telephone; skipped where none is installed."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reports.build import Report
from tests.reports.browser import Page, browser, needs_browser

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
        assert f"{float(line['ACC']):.1f} ± {float(line['ACC std']):.1f}" == text and line["ACC n"] == "3"
    assert (lines[-1]["method"], lines[-1]["ACC"], lines[-1]["ACC n"]) == ("HyperInterval", "", "0")
    assert page.ask("['=1+1', '-2.5', 'a,\"b'].map(field)") == ["'=1+1", "-2.5", '"a,""b"']


def test_figures_open_when_they_come_near(page: Page) -> None:
    figures = "[...document.querySelectorAll('#figures img')]"
    assert page.ask(f"{figures}.length") > 5
    assert page.ask(f"{figures}.at(-1).src") == ""
    page.ask(f"{figures}.at(-1).scrollIntoView()")
    page.wait(f"{figures}.at(-1).naturalWidth > 0")
    assert page.ask(f"{figures}.at(-1).closest('figure').querySelector('a').href").startswith("blob:")
    assert all(page.ask(f"{figures}.map((one) => one.alt)"))
