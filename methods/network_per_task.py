"""The base of methods that keep a network for each task, generated or masked, and infer the task among them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks.types import Scenario, StreamSpec, UserError
from methods.base import CIL, DIL, TIL, Method, Task
from methods.search import Range
from methods.shared import heads, strengths
from methods.shared.inference import Classes, TaskInference, chosen, over_all_classes


class NetworkPerTask(Method):
    """HNET, HyperInterval, HyperMask and the methods of subnetworks: one task inference, and strengths of one meaning.

    A subclass's `Config` has the fields `strength_per`, `inference`, `fecam_answer` and `fecam_tukey`. Its `build`
    calls this one, and its `learn` ends with `describe_classes`.
    """

    published: ClassVar[tuple[strengths.Published, ...]] = ()
    """The authors' strengths."""
    inferred_in: ClassVar[frozenset[Scenario]] = frozenset({DIL, CIL})
    """Scenarios in which the task of a sample is inferred."""
    remedy: ClassVar[str] = 'write inference = "fecam"'
    """Setting with which tasks of one class are inferred."""

    @classmethod
    @abstractmethod
    def held_weights(cls, spec: StreamSpec, config: Any) -> dict[str, float]:
        """Strength -> divisor of its regulariser on this stream; see methods/shared/strengths.py."""

    @classmethod
    def searched(cls, spec: StreamSpec, config: Any, ranges: Mapping[str, Range]) -> Mapping[str, Range]:
        """Strengths per weight are searched where those of the paper's form would be."""
        return strengths.searched(cls, spec, config, ranges)

    @classmethod
    def remarks(cls, spec: StreamSpec, config: Any, tuned: Collection[str]) -> list[str]:
        """Strengths in a form that does not fit the network."""
        return strengths.remarks(cls, spec, config, tuned)

    @classmethod
    def floats_per_task(cls, spec: StreamSpec, config: Any) -> int:
        """Floats of the statistics of a task's classes; 0 where the task is not inferred by them."""
        return TaskInference.floats(spec, config) if spec.scenario in cls.inferred_in else 0

    @classmethod
    def tells_lone_classes(cls, spec: StreamSpec, config: Any) -> bool:
        """Check whether the task is inferred where a task has one class, of which its network is always certain."""
        return config.inference == "fecam"

    @classmethod
    def skip(cls, spec: StreamSpec, config: Any) -> str | None:
        """Skip also tasks of one class, which train nothing, where their certainty would tell the task."""
        alone = min(spec.sizes, default=spec.classes_per_task) == 1
        if alone and spec.scenario in cls.inferred_in and not cls.tells_lone_classes(spec, config):
            return (
                f"{cls.name} infers the task from the certainty about its classes, and a task of one class is always "
                f"certain; {cls.remedy}"
            )
        return super().skip(spec, config)

    def build(self) -> None:
        self.inference = TaskInference.of(self.config)
        self.classes: list[Classes] = []
        """With FeCAM, statistics of the classes of each task learnt."""

    @torch.no_grad()
    def predict(self, x: Tensor, task_id: int | None = None) -> Tensor:
        """Logits of the given task's network in TIL, else of that of the inferred task."""
        if self.spec.scenario is TIL:
            if task_id is None:
                raise UserError(f"{self.name}: a task id is needed in TIL")
            return self.of_task(self.logits(x, task_id), task_id)
        answers, task = self.answers_and_task(x)
        if self.spec.scenario is CIL:
            return heads.side_by_side(over_all_classes(answers, task), self.spec)
        return chosen(answers, task)

    def of_task(self, logits: Tensor, task: int) -> Tensor:
        """Logits (b, C) without the outputs beyond a task's classes, which the widest head has."""
        return logits[:, : self.spec.classes_of(task)] if self.spec.sizes else logits

    @abstractmethod
    def logits(self, x: Tensor, task: int) -> Tensor:
        """Within-task logits (b, C) of the network of a task, with or without the outputs beyond its classes."""

    @abstractmethod
    def every_task(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Within-task logits (k, b, C) of all tasks seen, and the weights of the entropy's terms, if any."""

    @abstractmethod
    def features(self, x: Tensor, task: int) -> Tensor:
        """Inputs of the output layer (b, d) in the network of a task."""

    @torch.no_grad()
    def infer_task(self, x: Tensor) -> Tensor:
        """Inferred task of each sample, one of those seen, (b,) int64."""
        return self.answers_and_task(x)[1]

    def answers_and_task(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Within-task answers of every task seen (k, b, C), and the inferred task of each sample (b,)."""
        answers, task = self.inference.decide(
            self.classes, max(1, self.tasks_seen), lambda: self.every_head(x), lambda task: self.features(x, task)
        )
        return heads.without_gaps(answers, self.spec), task

    def every_head(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """`every_task`; outputs beyond a task's classes have no probability, and entropies are over log C_k then."""
        logits, weights = self.every_task(x)
        weights = heads.per_capacity(weights, self.spec, len(logits), logits)
        return heads.without_gaps(logits, self.spec), weights

    @torch.no_grad()
    def describe_classes(self, task: Task) -> None:
        """Add the statistics of the task's classes, if the inference needs them; no sample is kept."""
        if self.config.inference == "fecam" and self.spec.scenario in self.inferred_in:
            found = torch.cat([self.features(batch.x, task.index) for batch in task.train.batches(2000)])
            labels = self.within_task(task.y, task.index)
            self.classes.append(self.inference.describe(found, labels, self.spec.classes_of(task.index)))
