"""The page in a browser: its data, and where Chromium is installed that it sorts, filters and shows matrices."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from reports.build import Report, build_report
from reports.load import load
from reports.metrics import ACC
from reports.study import Group, study
from tests.reports.synthetic import Synthetic

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here (Debian: apt install chromium)")
SCRIPT = """
<script>
const log = { errors: window.failures };
const column = (i) => [...document.querySelectorAll("#results tbody tr")].map((line) => line.children[i].textContent);
const press = (key) => document.querySelector(`#results th[data-key=${key}] button`).click();
log.lines = column(2).length;
press("acc"); log.down = column(3);
press("acc"); log.up = column(3);
press("method"); log.byName = column(2);
const scenario = document.getElementById("scenario");
scenario.value = "CIL"; scenario.dispatchEvent(new Event("change")); log.cil = column(1);
const box = document.getElementById("method");
box.value = "HYPER"; box.dispatchEvent(new Event("input")); log.hyper = column(2);
document.querySelector("#results tbody tr").click();
log.canvases = document.querySelectorAll("#detail canvas").length;
log.detail = document.getElementById("detail").textContent;
log.wide = document.documentElement.scrollWidth > window.innerWidth;
log.outside = performance.getEntriesByType("resource").map((e) => e.name).filter((name) => !name.startsWith("data:"));
document.body.replaceChildren();
document.body.textContent = "LOG" + JSON.stringify(log) + "END";
</script>
"""
CATCH = "<script>window.failures = []; window.onerror = (text) => { window.failures.push(String(text)); };</script>"


def data_of(report: Report) -> dict[str, Any]:
    text = report.html.read_text(encoding="utf-8")
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found.group(1))


def test_the_page_has_the_numbers_of_the_records(quick_report: Report, quick_results: Path) -> None:
    found = study(load(quick_results))
    rows = {(row["scenario"], row["method"]): row for row in data_of(quick_report)["rows"]}
    assert len(rows) == 15
    for label in ("hnet", "joint"):
        values = found.values(Group("split-digits", "til"), label, ACC)
        row = rows["TIL", label]
        assert row["values"]["acc"]["mean"] == pytest.approx(sum(values.values()) / 3)
        assert [cell["acc"] for cell in row["cells"]] == pytest.approx(list(values.values()))
        assert all((quick_results / cell["folder"] / "cell.json").is_file() for cell in row["cells"])
    assert rows["DIL", "hyperinterval"]["status"] == "skipped"


def test_the_page_needs_nothing_from_outside(quick_report: Report) -> None:
    text = quick_report.html.read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:)""", text)
    assert "http://" not in re.sub(r'"svg":"[^"]*"', "", text)


def test_names_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    Synthetic("<!-- <script><img src=x> & 'q'").write(tmp_path)
    report = build_report(tmp_path)
    text = report.html.read_text(encoding="utf-8")
    assert "<!-- <script>" not in text  # which would let the page's own script element swallow its end
    assert data_of(report)["rows"][0]["method"] == "<!-- <script><img src=x> & 'q'"


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_works_in_a_browser(quick_report: Report, tmp_path: Path, width: int) -> None:
    text = quick_report.html.read_text(encoding="utf-8")
    page = tmp_path / "page.html"
    page.write_text(text.replace("<head>", "<head>" + CATCH).replace("</body>", SCRIPT + "</body>"), encoding="utf-8")
    log = browse(page, width, tmp_path)
    assert log["errors"] == []
    assert log["outside"] == []
    assert log["lines"] == 15
    numbers = [float(value.split()[0]) for value in log["down"][:-1]]
    assert log["down"][-1] == "skipped" and numbers == sorted(numbers, reverse=True) and len(numbers) == 14
    assert [float(value.split()[0]) for value in log["up"][:-1]] == sorted(numbers)
    assert log["byName"] == sorted(log["byName"])
    assert set(log["cil"]) == {"CIL"} and len(log["cil"]) == 5
    assert log["hyper"] == ["hyperinterval"]
    assert log["canvases"] == 2
    assert "split-digits/cil/hyperinterval/seed0-" in log["detail"]
    assert not log["wide"]


def browse(page: Path, width: int, profile: Path) -> dict[str, Any]:
    """What SCRIPT wrote after the page ran in headless Chromium."""
    command = [
        str(BROWSER),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={profile / 'profile'}",
        f"--window-size={width},900",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    found = re.search(r"LOG(.*)END", done.stdout, re.DOTALL)
    assert found, done.stderr
    return json.loads(html.unescape(found.group(1)))
