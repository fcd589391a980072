"""Write the headline table of the reference results into README.md.

python runners/headline.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import typer

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder; with -m, not the working directory

from benchmarks.types import UserError
from runners import command_line
from runners.records.folder import write_atomically

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- headline: python runners/headline.py -->\n", "<!-- end of headline -->\n"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def headline() -> None:
    """Write the headline table of the reference results into README.md."""
    with command_line.interruptible():
        try:
            text = README.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise UserError(
                f"{README} cannot be read ({error}); run this command in a clone of the repository"
            ) from None
        renewed(text, "")  # the marks are checked before the table, which takes long
        rewrite(README, renewed(text, table()))


def rewrite(page: Path, text: str) -> None:
    """Write a page of the repository anew. Raises UserError if that is not possible."""
    try:
        write_atomically(page, text.encode())
    except OSError as error:
        raise UserError(f"{page} cannot be written: {error.strerror}") from None


def table() -> str:
    """Headline of the shipped records, in Markdown."""
    from reports.build import headline
    from runners.records import reference_records

    with TemporaryDirectory() as folder:
        reference_records.unpack(Path(folder))
        return headline(Path(folder))


def renewed(text: str, headline: str) -> str:
    """Text of the README with this headline between the marks. Raises UserError if a mark is missing."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UserError(f"README.md needs the lines {BEGIN.strip()!r} and {END.strip()!r} once each; restore them")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{headline}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    command_line.main(app)
