"""Messages to a logger, as plain values, and their delivery, in which a fault of the logger ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from benchmarks.types import UserError
from runners.loggers.logger import Axis, Logger, Run

LONGEST = 200
"""Characters of an error that the user is told."""
MOST_FAILURES = 3
"""Failed runs, one after the other, after which a logger gets no more."""


class Kind(StrEnum):
    BEGIN = "begin"
    LOG = "log"
    END = "end"


@dataclass(frozen=True)
class Message:
    """One call of a logger."""

    kind: Kind
    run: Run
    metrics: Mapping[str, float] = field(default_factory=dict)
    axis: Axis = Axis.STEP
    at: int = 0
    status: str = ""
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> Message:
        kinds = {"kind": Kind, "axis": Axis, "run": lambda values: Run(**values)}
        return Message(**{name: kinds[name](value) if name in kinds else value for name, value in data.items()})


class Delivery:
    """Caller of one logger. What it raises is said once for each run, whose later messages are dropped."""

    def __init__(
        self,
        name: str,
        make: Callable[[], Logger],
        say: Callable[[str], None],
        keep: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        """keep: writes an error down in full, of which the user is told the beginning."""
        self.name, self.make, self.say, self.keep = name, make, say, keep
        self.logger: Logger | None = None
        self.over = False
        self.failures = 0
        self.dropped: set[str] = set()

    def start(self) -> None:
        try:
            self.logger = self.make()
        except Exception as error:
            self.keep(error)
            self._stop(f"does not start: {_said(error)}; the cells run without it")

    def deliver(self, message: Message) -> None:
        run = message.run
        if message.kind is Kind.BEGIN:
            self.dropped.discard(run.key)
        if self.logger is None or self.over or run.key in self.dropped:
            return
        try:
            if message.kind is Kind.BEGIN:
                self.logger.begin(run)
            elif message.kind is Kind.LOG:
                self.logger.log(run, message.metrics, message.axis, message.at)
            else:
                self.logger.end(run, message.status, message.reason, message.metrics)
                self.failures = 0
        except Exception as error:
            self.keep(error)
            self.dropped.add(run.key)
            self.failures += 1
            if self.failures >= MOST_FAILURES:
                self._stop(f"failed {self.failures} times and gets no more: {_said(error)}")
            else:
                self.say(f"logger {self.name}: {run.name} is no longer logged: {_said(error)}")

    def close(self) -> None:
        if self.logger is not None:
            try:
                self.logger.close()
            except Exception as error:
                self.keep(error)
                self.say(f"logger {self.name} did not close: {_said(error)}")

    def _stop(self, what: str) -> None:
        self.over = True
        self.say(f"logger {self.name} {what}")


def _said(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    text = short(str(error))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def short(text: str) -> str:
    """A text in one line of at most LONGEST characters, without the statement that a failed database quotes."""
    text = " ".join(text.split()).partition(" [SQL:")[0]
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
