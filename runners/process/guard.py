"""Guard against side effects of a cell on later cells: changes of the shared data or of the process."""

from __future__ import annotations

from benchmarks.stream import Stream
from benchmarks.types import Task
from runners.process import known_state
from runners.process.shared_data import ChangedData, Watch, renew


class Guard:
    """Guard of one cell."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.before: known_state.Snapshot | None = None
        self.watch: Watch | None = None
        self.changed = ""
        """Sentence on the data that the method has changed; empty if none."""

    def begin(self) -> None:
        """Note the process as it is. Call it before any code of the method runs, and after the device is in use.

        PyTorch changes the process when it starts a GPU: there is a current stream from then on.
        """
        self.before = known_state.Snapshot()

    def over(self, stream: Stream) -> None:
        """Watch the stream's tensors from now on."""
        self.watch = Watch(stream)

    def lend(self, task: Task) -> Task:
        """Also watch the task's own tensors until content is compared; return the task."""
        if self.watch is not None:
            self.watch.lend(task)
        return task

    def assure(self, when: str, content: bool = False) -> None:
        """Raise ChangedData where `look` finds something."""
        if self.look(when, content):
            raise ChangedData(self.changed)

    def look(self, when: str, content: bool = False) -> str:
        """Sentence on the data that the method has changed, if any. After a change the next cell reloads the data.

        content: also compare the bytes, which finds changes that PyTorch does not count.
        """
        if self.watch is None or self.changed:
            return self.changed
        change = self.watch.compare() if content else self.watch.look()
        if change is not None:
            self.changed = f"{self.method} has changed {change.name} in place ({when})"
            advice = "have it work on a copy, as `task.x` is one"
            if not change.shared:
                self.changed += f", and has another task than the benchmark's now; {advice}"
                return self.changed
            self.changed += (
                f", which all tasks and methods share; {advice}. The data set is loaded anew for the next cell"
            )
            if not renew(self.watch.stream):
                known_state.note(known_state.Left((change.name,), (change.name,)))
        return self.changed

    def put_back(self) -> str:
        """Restore the process and note the changed settings for the caller that runs cells; return their names."""
        left = self.before.put_back() if self.before is not None else known_state.Left()
        if left.changed:
            known_state.note(left)
        return ", ".join(left.changed)
