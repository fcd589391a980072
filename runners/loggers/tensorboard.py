"""TensorBoard: an event file for each cell in `tensorboard/` of the results folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runners.loggers.logger import Axis, Logger, Run

FOLDER, EVENTS = "tensorboard", "events.out.tfevents*"


class TensorBoardLogger(Logger):
    """Scalars by step and by task; the settings and the final accuracy in the tab HParams."""

    def __init__(self, results: Path) -> None:
        from torch.utils.tensorboard.summary import hparams
        from torch.utils.tensorboard.writer import SummaryWriter

        self.writer, self.hparams = SummaryWriter, hparams
        self.folder = results / FOLDER
        self.writers: dict[str, Any] = {}
        self.latest: dict[str, dict[str, float]] = {}

    def begin(self, run: Run) -> None:
        if not run.tasks_before:
            for file in (self.folder / run.folder).glob(EVENTS):  # of an attempt that does not go on
                file.unlink(missing_ok=True)
            self._open(run)

    def _open(self, run: Run, purge_step: int | None = None) -> Any:
        """The run's writer. purge_step: what was logged from this step on is void."""
        if run.key not in self.writers:
            self.writers[run.key] = self.writer(str(self.folder / run.folder), purge_step=purge_step)
        return self.writers[run.key]

    def log(self, run: Run, metrics: Mapping[str, float], axis: Axis, at: int) -> None:
        # A run that goes on repeats steps of the interrupted task; they exceed the number of tasks before it.
        writer = self._open(run, at if axis is Axis.STEP else None)
        for name, value in metrics.items():
            writer.add_scalar(name, value, at)
        if axis is Axis.TASK:
            self.latest[run.key] = {"accuracy/mean": metrics["accuracy/mean"]} if "accuracy/mean" in metrics else {}
            writer.flush()

    def end(self, run: Run, status: str, reason: str | None, metrics: Mapping[str, float]) -> None:
        writer = self._open(run)
        del self.writers[run.key]
        for name, value in metrics.items():
            writer.add_scalar(name, value)
        writer.add_text("status", f"{status}: {reason}" if reason else status)
        # `add_hparams` of the writer would begin a second event file.
        for summary in self.hparams(dict(run.config), self.latest.pop(run.key, {})):
            writer.file_writer.add_summary(summary)
        writer.close()

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()
