"""Records as the runners write them, with made-up numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from benchmarks import catalogue

KEEPS = {"joint": 1.0, "hyperinterval": 0.985, "hnet": 0.97, "ewc": 0.8, "finetune": 0.5}


@dataclass(frozen=True)
class Synthetic:
    """One made-up cell; `write` puts its folder below a results folder."""

    method: str = "finetune"
    benchmark: str = "split-digits"
    scenario: str = "til"
    seed: int = 0
    n_tasks: int = 5
    classes_per_task: int = 2
    status: str = "done"
    reason: str | None = None
    label: str | None = None
    config: Mapping[str, Any] = field(default_factory=lambda: {"lr": 0.001})
    chosen: Mapping[str, str] = field(default_factory=dict)
    budget: Mapping[str, Any] = field(default_factory=dict)
    """Empty: the benchmark's own, as `network`."""
    network: str = ""
    source: str = "aa11"
    command: str = "python runners/compare.py --suite quick"
    finished: str = "2026-01-02T03:04:05+00:00"
    certifies: bool = False
    carried: str | None = None
    fairness: Mapping[str, Any] = field(default_factory=dict)
    definition: Mapping[str, Any] = field(default_factory=lambda: {"validation": 100})
    parts: Mapping[str, str] = field(default_factory=dict)
    accuracy: np.ndarray | None = None

    def __post_init__(self) -> None:
        own = catalogue.BENCHMARKS.get(self.benchmark, catalogue.BENCHMARKS["split-digits"])
        object.__setattr__(self, "budget", self.budget or vars(own.budget))
        object.__setattr__(self, "network", self.network or own.network)

    @property
    def key(self) -> str:
        names = [self.method, self.benchmark, self.scenario, self.seed, dict(self.config), dict(self.budget)]
        if self.parts or self.definition != {"validation": 100}:
            names += [dict(self.definition), dict(self.parts)]
        return hashlib.sha256(json.dumps([*names, self.source]).encode()).hexdigest()

    def matrix(self) -> np.ndarray:
        """R with a plausible shape: new tasks well learnt, old ones fading by method."""
        if self.accuracy is not None:
            return self.accuracy
        rng = np.random.default_rng(int(hashlib.sha256(self.key.encode()).hexdigest()[:8], 16))
        tasks, chance = self.n_tasks, 1 / self.classes_per_task
        keep = KEEPS.get(self.method, 0.9) ** (1.5 if self.scenario == "dil" else 3 if self.scenario == "cil" else 1)
        r = np.full((tasks + 1, tasks), np.nan)
        for after in range(tasks + 1):
            for task in range(tasks if after == 0 and self.scenario != "cil" else min(after + 1, tasks)):
                if task < after:
                    value = chance + (0.985 - chance) * keep ** (after - 1 - task) + rng.normal(0, 0.006)
                elif self.scenario == "cil":
                    continue
                else:
                    value = chance + rng.normal(0, 0.05)
                r[after, task] = min(1.0, max(0.0, value))
        return r

    def cell(self) -> dict[str, Any]:
        tasks = self.n_tasks
        return {
            "schema": 1,
            "key": self.key,
            "status": self.status,
            "reason": self.reason,
            "traceback": "Traceback ..." if self.status == "failed" else None,
            "benchmark": self.benchmark,
            "scenario": self.scenario,
            "method": self.method,
            "label": self.label or self.method,
            "seed": self.seed,
            "config": dict(self.config),
            "chosen": dict(self.chosen),
            "definition": dict(self.definition),
            "budget": dict(self.budget),
            "network": self.network,
            "n_tasks": tasks,
            "classes_per_task": self.classes_per_task,
            "task_names": [f"{2 * j} {2 * j + 1}" for j in range(tasks)],
            "source": self.source,
            "parts": dict(self.parts),
            "carried": self.carried,
            "fairness": dict(self.fairness),
            "suite": "quick",
            "command": self.command,
            "environment": {
                "python": "3.11.7",
                "torch": "2.12.0",
                "platform": "Linux",
                "device": "cpu",
                "device_name": "",
                "threads": 1,
                "commit": "0123456789abcdef",
                "dirty": False,
            },
            "started": "2026-01-02T03:00:00+00:00",
            "finished": self.finished,
            "seconds": {"train": [1.5 + len(self.method) / 7] * tasks, "evaluate": [0.1] * tasks},
            "memory_bytes": {"peak_rss": 400_000_000 + 1_000_000 * len(self.method), "peak_device": None},
            "parameters": {"trained": 100_000 * len(self.method), "stored": 120_000 * len(self.method)},
            "stored_per_task": [20_000 + 100 * len(self.method) * (j + 1) for j in range(tasks)],
        }

    def write(self, results: Path) -> Path:
        folder = results / self.benchmark / self.scenario / _safe(self.method) / f"seed{self.seed}-{self.key[:12]}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cell.json").write_text(json.dumps(self.cell(), indent=1), encoding="utf-8")
        if self.status == "done":
            r = self.matrix()
            write_matrix(folder / "accuracy.csv", r)
            self._steps(folder / "steps.csv")
            if self.certifies:
                certified = np.where(np.isnan(r), np.nan, np.clip(r - 0.08, 0, 1))
                certified[0] = np.nan
                write_matrix(folder / "certified.csv", certified)
                self._claims(folder / "claims.csv")
            self._exhibits(folder)
            if self.scenario == "cil" and self.method in {"hnet", "hyperinterval"}:
                write_matrix(folder / "inferred.csv", np.clip(r + 0.01, 0, 1))
        return folder

    def _exhibits(self, folder: Path) -> None:
        if self.method == "hyperinterval":
            lines = ["task,dimension,lower,middle,upper"]
            for task in range(self.n_tasks):
                for k in range(20):
                    middle = np.sin(3 * task + k + self.seed)
                    lines.append(f"{task},{k},{middle - 0.3:.5f},{middle:.5f},{middle + 0.3:.5f}")
            (folder / "exhibit-embeddings.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        if self.method == "hypermask":
            lines = ["task,other,overlap"]
            for i in range(self.n_tasks):
                lines += [f"{i},{j},{1 / (1 + abs(i - j)) + self.seed / 1000:.5f}" for j in range(self.n_tasks)]
            (folder / "exhibit-mask-overlap.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _steps(self, path: Path) -> None:
        lines = ["task,step,loss"]
        for task in range(self.n_tasks):
            lines += [f"{task},{step},{0.05 + 0.9 * np.exp(-step / 60):.5f}" for step in range(50, 201, 50)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _claims(self, path: Path) -> None:
        lines = ["after,task,contained,outside,drift,median_width,median_logit_width,violation,reason"]
        for after in range(1, self.n_tasks + 1):
            for task in range(after):
                void = after == self.n_tasks and task == 0
                lines.append(
                    f"{after},{task},{int(not void)},{12 if void else 0},{0.001 * (after - task - 1):.4f},"
                    f"{0.02 / (task + 1):.5f},{0.3 / (task + 1):.4f},0,{'the region has drifted' if void else ''}"
                )
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_samples(results: Path, benchmark: str, n_tasks: int = 5, columns: int = 10, tile: int = 8) -> None:
    """samples.png as the runners leave it beside the records of a benchmark."""
    tasks = np.unique(np.linspace(0, n_tasks - 1, min(n_tasks, 10)).round().astype(int))
    pixels = np.random.default_rng(0).integers(0, 256, (len(tasks) * tile, columns * tile), dtype=np.uint8)
    info = PngInfo()
    fields = {
        "tasks": " ".join(map(str, tasks)),
        "names": "\n".join(f"{2 * j} {2 * j + 1}" for j in tasks),
        "tile": tile,
        "columns": columns,
        "seed": 0,
    }
    for key, value in fields.items():
        info.add_itxt(key, str(value))
    (results / benchmark).mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(results / benchmark / "samples.png", pnginfo=info)


def write_matrix(path: Path, r: np.ndarray) -> None:
    """`after,task0,...`: rows 0..T, empty where not measured."""
    lines = ["after," + ",".join(f"task{j}" for j in range(r.shape[1]))]
    for after, row in enumerate(r):
        lines.append(f"{after}," + ",".join("" if np.isnan(value) else f"{value:.6g}" for value in row))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def quick(results: Path, seeds: int = 3) -> Path:
    """As `--suite quick` leaves it: one benchmark, three scenarios, five methods, one cell skipped."""
    for scenario in ("til", "dil", "cil"):
        for method in KEEPS:
            for seed in range(seeds):
                skipped = method == "hyperinterval" and scenario == "dil"
                Synthetic(
                    method,
                    scenario=scenario,
                    seed=seed,
                    status="skipped" if skipped else "done",
                    reason="hyperinterval is not defined in dil" if skipped else None,
                    certifies=method == "hyperinterval",
                ).write(results)
    return results


def several(results: Path, seeds: int = 6) -> Path:
    """Three benchmarks, three scenarios, six methods, and one of every misfortune."""
    tasks = {"split-digits": (5, 2), "split-mnist": (5, 2), "permuted-mnist-10": (10, 10)}
    for benchmark, (n_tasks, classes) in tasks.items():
        write_samples(results, benchmark, n_tasks)
        for scenario in ("til", "dil", "cil"):
            for method in (*KEEPS, "hypermask"):
                for seed in range(seeds):
                    status, reason = "done", None
                    if (method, scenario) == ("hypermask", "dil"):
                        status, reason = "skipped", "hypermask is not defined in dil"
                    if (method, scenario, benchmark, seed) == ("ewc", "cil", "split-mnist", 1):
                        status, reason = "failed", "RuntimeError: the machine said no"
                    if (method, scenario, benchmark) == ("hnet", "dil", "permuted-mnist-10"):
                        status, reason = "diverged", "the loss of task 3 is nan at step 50"
                    Synthetic(
                        method,
                        benchmark,
                        scenario,
                        seed,
                        n_tasks,
                        classes,
                        status,
                        reason,
                        certifies=method == "hyperinterval",
                        chosen={"lr": "chosen on validation data"} if method == "ewc" else {},
                    ).write(results)
    return results


def _safe(name: str) -> str:
    return "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in name)
