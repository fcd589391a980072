"""References from paragraphs to tables and figures: `@[tab:stem]`, which paper.typ turns into numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

CITED = ("vandeven2022", "agarwal2021")
"""Keys of references.bib that paragraphs cite."""
REFERENCE = re.compile(r"@\[([^\]]+)\]")
"""Pattern of references in paragraphs; see paper.typ."""


def settle(items: Sequence[dict[str, Any]]) -> None:
    """Escape text that looks like a reference but names no table or figure here, such as a label `@[x]`."""
    known = {item["label"] for item in items if "label" in item}
    for item in items:
        if item["kind"] == "paragraph":
            plain = REFERENCE.sub(
                lambda found: found[0] if _named(found[1], known) else f"@ [{found[1]}]",
                item["text"],
            )
            item["text"] = plain


def span(kind: str, stems: Sequence[str]) -> str:
    """Reference to tables or figures: the only one, or first to last."""
    return " to ".join(f"@[{kind}:{stem}]" for stem in dict.fromkeys([*stems[:1], *stems[-1:]]))


def _named(name: str, known: set[str]) -> bool:
    return name in known or (name.startswith("cite:") and name[5:] in CITED)
