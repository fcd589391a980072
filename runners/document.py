"""Write the page of all methods, methods/README.md, from their docstrings and options.

python runners/document.py
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from methods import registry

PAGE = Path(__file__).resolve().parent.parent / "methods" / "README.md"
HEAD = """# The methods

Made by `python runners/document.py` from the methods' own docstrings and options; a test keeps it current. Every option
is set in a suite file (`[[settings]]`) or by `--set METHOD.OPTION=VALUE`.
"""


def page() -> str:
    """The whole page, Markdown."""
    files = {info.file: info for info in registry.available().values() if info.file is not None}
    return "\n".join([HEAD, *(_section(file) for file in files if file is not None)])


def _section(file: Path) -> str:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    parts = [f"## {file.stem}\n", f"```text\n{ast.get_docstring(tree) or ''}\n```\n"]
    for info in registry.describe(file):
        scenarios = ", ".join(info.scenarios)
        parts.append(f"**`{info.name}`** ({scenarios}): {info.summary}\n")
        options = _options(tree, info.class_name)
        if options:
            parts += ["| option | default | meaning |", "|---|---|---|", *options, ""]
    return "\n".join(parts)


def _options(tree: ast.Module, class_name: str) -> list[str]:
    """Rows of the table of a method's own options, read from the docstring under each field."""
    (method,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name)
    config = [node for node in method.body if isinstance(node, ast.ClassDef) and node.name == "Config"]
    rows: list[str] = []
    for node in config[0].body if config else []:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                rows.append(f"| `{name}` | `{ast.unparse(value)}` |  |")
            case ast.Expr(value=ast.Constant(value=str(text))) if rows:
                meaning = " ".join(text.split()).replace("|", "\\|")
                rows[-1] = rows[-1].removesuffix("  |") + f" {meaning} |"
    return rows


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
