"""Write the page of all methods, methods/README.md, from their docstrings and options.

python runners/document.py
"""

from __future__ import annotations

import ast
import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder; with -m, not the working directory

from benchmarks import catalogue
from benchmarks.types import Scenario
from methods import registry, search

_LEARNING_RATE = f"Log({search.LEARNING_RATE.low:g}, {search.LEARNING_RATE.high:g})"
MEASURED = Path(__file__).resolve().parent.parent / "reports" / "deviations.csv"
PAGE = Path(__file__).resolve().parent.parent / "methods" / "README.md"
HEAD = """# The methods

Made by `python runners/document.py` from the methods' own docstrings and options; a test keeps it current. Every option
is set in a suite file (`[[settings]]`) or by `--set METHOD.OPTION=VALUE`.
"""

STRENGTHS = """## Strengths on other networks

The output regularisers of HNET, HyperInterval and HyperMask, and HyperMask's movement of weights, are sums over the
target network's weights, as published; the loss of the task is a mean over samples. On a network of n weights the
strength that a paper found on one of N weighs a drift of each weight N/n times less against the task's loss. With
`strength_per = "weight"` the strength multiplies the mean over the held weights instead, and a value carries over from
network to network. A published strength becomes, per weight,

    strength x number of held weights of the network that it was published for

Held are the weights that the sum runs over. HNET: all that the hypernetwork makes, those of batch norm and of all heads
included (with `held_heads = "own"` less the heads of other tasks). HyperInterval: all that it makes, for one head; in
DIL a weight's two ends and its middle are averaged, so that it counts once. HyperMask: all target weights but those of
batch norm, which have no mask; a mask is a factor and not a count, since the share of a network that it lets through
does not depend on the network's size (with `norm = 2` the divisor of `lam` is the sum of the square roots of the
tensors' sizes). How the regularisers average over old tasks (`regulariser_norm`) is the same in both forms.

The table has the authors' values, from their code; `compare.py` says what to write where a suite or `--set` gives a
strength in the papers' form and the network is not the paper's.

| method | benchmark | scenarios | network | held weights | option | published | per weight |
|---|---|---|---|---|---|---|---|"""

DEVIATIONS = """## What the deviations cost

Test accuracy in percent after the last task, mean (standard deviation; number of seeds), and for interval methods the
share certified then, of `reports/deviations.csv`: from the `summary.csv` of the report of `python runners/compare.py
--suite deviations`. A row is the method as it is by default, or with one option changed; the suite file says which and
why. An empty field: the row is not run there. With three seeds a few points of accuracy say nothing. What stands out:
bounds that the training did not use ("endpoints") certify nothing in TIL, and the official selection of HyperInterval
in TIL, which takes networks from before the boxes have grown, loses most of the certificate.

| row | til | dil | cil |
|---|---|---|---|"""


def page() -> str:
    """The whole page, Markdown."""
    files = {info.file: info for info in registry.available().values() if info.file is not None}
    sections = (_section(file) for file in files if file is not None)
    return "\n".join([HEAD, *sections, STRENGTHS, *_strengths(), "", *_deviations()])


def _strengths() -> Iterator[str]:
    """A line for every published strength and every size that its network has in the scenarios."""
    for name in registry.available():
        cls: Any = registry.load(name)
        for paper in getattr(cls, "published", ()):
            config, scenarios = cls.Config(), {}
            for scenario in sorted(paper.scenarios, key=list(Scenario).index):
                spec = paper.spec(catalogue.find(paper.benchmark).spec(scenario))
                held = cls.held_weights(spec, config)
                scenarios.setdefault(tuple(held[option] for option in paper.values), []).append(scenario)
            for held, some in scenarios.items():
                for (option, value), weights in zip(paper.values.items(), held, strict=True):
                    place = f"`{name}` | `{paper.benchmark}` | {' '.join(some)} | {paper.network}"
                    yield f"| {place} | {weights:,} | `{option}` | {value:g} | {value * weights:.6g} |"


def _deviations() -> list[str]:
    """The measured accuracies of the suite of deviations, a line for every row of it."""
    if not MEASURED.exists():
        return []
    fields: dict[str, dict[str, str]] = {}
    with MEASURED.open(encoding="utf-8", newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["mean"]]
    for line in lines:
        if line["metric"] == "acc":
            spread = f"{float(line['std']):.1f}" if line["std"] else "-"
            text = f"{float(line['mean']):.1f} ({spread}; {line['n']})"
            fields.setdefault(line["method"], {})[line["scenario"]] = text
    for line in lines:
        if line["metric"] == "certified":
            fields[line["method"]][line["scenario"]] += f", certified {float(line['mean']):.1f}"
    rows = [
        " | ".join([f"| `{label}`", *(found.get(scenario, "") for scenario in ("til", "dil", "cil"))]) + " |"
        for label, found in sorted(fields.items())
    ]
    return [DEVIATIONS, *rows, ""]


def _section(file: Path) -> str:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    parts = [f"## {file.stem}\n", f"```text\n{ast.get_docstring(tree) or ''}\n```\n"]
    for info in registry.describe(file):
        scenarios = ", ".join(info.scenarios)
        parts.append(f"**`{info.name}`** ({scenarios}): {info.summary}\n")
        options = _options(tree, info.class_name)
        if options:
            parts += ["| option | default | searched by tune.py | meaning |", "|---|---|---|---|", *options, ""]
    return "\n".join(parts)


def _options(tree: ast.Module, class_name: str) -> list[str]:
    """Rows of the table of a method's own options, read from the docstring under each field."""
    (method,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name)
    config = [node for node in method.body if isinstance(node, ast.ClassDef) and node.name == "Config"]
    searched = dict(_ranges(config[0])) if config else {}
    rows: list[str] = []
    for node in config[0].body if config else []:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                rows.append(f"| `{name}` | `{ast.unparse(value)}` | {searched.get(name, '')} |  |")
            case ast.Expr(value=ast.Constant(value=str(text))) if rows:
                meaning = " ".join(text.split()).replace("|", "\\|")
                rows[-1] = rows[-1].removesuffix("  |") + f" {meaning} |"
    return rows


def _ranges(config: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Field and range of what the Config's `search` names."""
    for node in config.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="search")], value=ast.Call(keywords=keywords)):
                for part in keywords:
                    yield part.arg or "", f"`{ast.unparse(part.value).replace('LEARNING_RATE', _LEARNING_RATE)}`"


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
