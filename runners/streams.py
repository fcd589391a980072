"""Standard output and error of a command, for every encoding, for readers that close the pipe early and full disks."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Any

EXIT_UNWRITABLE = 2
EXIT_READER_GONE = 141
"""Exit code of a program that SIGPIPE ended. The signal itself stays ignored: it would end a run when a worker dies."""
PLAIN = {"…": "...", "–": "-", "—": "-", "−": "-", "×": "x", "±": "+-", "→": "->", "•": "*"}
"""Replacements of characters that an encoding lacks; all others become escapes."""
_HANDLER = "continual-plain"


class Unwritable(SystemExit):
    """A standard stream cannot be written to. As a SystemExit, no handler of errors on the way reports it."""

    def __init__(self, error: OSError) -> None:
        gone = isinstance(error, BrokenPipeError)
        super().__init__(EXIT_READER_GONE if gone else EXIT_UNWRITABLE)
        said = f"the output cannot be written: {error.strerror or error}; send it to another file or device"
        self.sentence = "" if gone else said
        """Empty where the reader has closed the stream, which is no mistake."""


class Stream(io.TextIOWrapper):
    """A standard stream that raises Unwritable instead of OSError."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise Unwritable(error) from None

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise Unwritable(error) from None


def prepare() -> None:
    """Replace standard output and error with streams that accept every character in every encoding."""
    codecs.register_error(_HANDLER, _plain)
    for name in ("stdout", "stderr"):
        old: Any = getattr(sys, name)
        if not isinstance(old, io.TextIOWrapper):
            continue  # closed, or replaced by the caller
        encoding, lines, through = old.encoding, old.line_buffering, old.write_through
        made = Stream(old.detach(), encoding, _HANDLER, line_buffering=lines, write_through=through)
        # detach() left the old object unusable, and it may also be the one in sys.__stdout__ or sys.__stderr__.
        setattr(sys, name, made)
        setattr(sys, f"__{name}__", made)


def flush() -> None:
    """Write the buffered text. Raises Unwritable."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()


def silence() -> None:
    """Discard the text of streams that cannot be written to; else the interpreter reports an error at its exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            if isinstance(stream, Stream):
                stream.flush()
        except Unwritable:
            os.dup2(nowhere, stream.fileno())


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    sign = error.object[error.start]
    plain = PLAIN.get(sign)
    if plain is None:
        return codecs.backslashreplace_errors(
            UnicodeEncodeError(error.encoding, error.object, error.start, error.start + 1, error.reason)
        )
    return plain, error.start + 1
