"""The table of certificates: means over tasks, records that have none, and methods that cannot take a radius."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reports.certificates import RADIUS, certificate_table
from reports.load import load
from reports.paper import contents, paper
from reports.study import study
from tests.reports.synthetic import Synthetic

ONE_SEED, TWO_SEEDS = [0.5, 0.7, 0.1, 0.3], [0.6, 0.8, 0.2, None]


@dataclass(frozen=True)
class Certified(Synthetic):
    """With these shares by interval and affine propagation for radius 0, then for 1/255; twice for task 1."""

    shares: list[Any] = field(default_factory=list)

    def cell(self) -> Mapping[str, Any]:
        ways = [(radius, how) for radius in (0.0, RADIUS) for how in ("interval", "affine")]
        rows = [
            {"task": j, "samples": 40, "radius": radius, "propagation": how, "seconds": 0.5 if how == "affine" else 0.1}
            | {"certified": None if share is None else share / (j + 1)}
            for j in range(2)
            for (radius, how), share in zip(ways, self.shares, strict=True)
        ]
        return {**super().cell(), "certificates": rows}


def row(results: Path, label: str) -> list[str]:
    table = certificate_table(study(load(results)))
    assert table is not None
    return next([cell.text for cell in line[3:]] for line in table.rows if line[2].key == label)


def written(results: Path, method: str, *seeds: list[Any]) -> None:
    for seed, shares in enumerate(seeds):
        Certified(method, seed=seed, n_tasks=2, certifies=True, shares=shares).write(results)


def test_shares_are_means_over_tasks_and_seeds(tmp_path):
    written(tmp_path, "hyperinterval", ONE_SEED, [0.7, 0.9, 0.3, 0.5])
    mean_of = [75 * share for share in (0.6, 0.8, 0.2, 0.4)]  # 1 and 1/2
    assert row(tmp_path, "hyperinterval") == [*[f"{mean:.1f} ± 10.6" for mean in mean_of], "0.4", "2"]


def test_a_share_that_one_task_lacks_is_not_measured_nor_its_time_counted(tmp_path):
    written(tmp_path, "hyperinterval", TWO_SEEDS)
    assert row(tmp_path, "hyperinterval") == ["45.0", "60.0", "15.0", "not measured", "0.4", "1"]


def test_rows_of_earlier_versions_are_counted_in_a_note(tmp_path):
    written(tmp_path, "hyperinterval", ONE_SEED)
    Synthetic("intercontinet", n_tasks=2, certifies=True).write(tmp_path)
    Synthetic("ewc", n_tasks=2).write(tmp_path)
    table = certificate_table(study(load(tmp_path)))
    assert table is not None and [line[2].key for line in table.rows] == ["hyperinterval"]
    assert table.notes[-1].startswith(
        "1 further row of certifying methods has no such certificates: of an earlier version"
    )
    stems = [found.stem for found in paper(contents(study(load(tmp_path))), []).tables]
    assert stems.index("certificates") == stems.index("guarantees") + 1


def test_there_is_no_table_without_certificates(tmp_path):
    Synthetic("hyperinterval", n_tasks=2, certifies=True).write(tmp_path)
    assert certificate_table(study(load(tmp_path))) is None
