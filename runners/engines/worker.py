"""A worker process: reads jobs as JSON lines, runs them, writes events as JSON lines.

Started by runners.engines.local as `python -P -m runners.engines.worker`. Standard output carries events only: what a
method prints goes to standard error. When the driver is gone, the worker ends at once.
"""

from __future__ import annotations

import faulthandler
import json
import os
import queue
import signal
import sys
import threading

from runners.cell.events import Event, EventKind, Throttle, spoils
from runners.grid.cells import Job
from runners.process import cpu

SECONDS_BETWEEN_PROGRESS = 0.2


def main() -> None:
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver decides
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    jobs: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    from methods.shared.stepping import CaptureFailed
    from runners.cell.execution import run_cell
    from runners.process import known_state
    from runners.records.folder import StorageError

    cpu.prepare(int(os.environ["OMP_NUM_THREADS"]))

    def tell(event: Event) -> None:
        pipe.write(json.dumps(event.to_json()) + "\n")
        pipe.flush()

    emit = Throttle(tell, SECONDS_BETWEEN_PROGRESS)
    while True:
        emit(Event(EventKind.READY))
        job = Job.from_json(json.loads(jobs.get()))
        try:
            status = run_cell(job, emit)
        except StorageError as error:
            emit(Event(EventKind.STORAGE, reason=str(error)))
            continue
        except CaptureFailed as error:
            emit(Event(EventKind.AGAIN, reason=error.why))
            os._exit(1)  # without a word to CUDA, which might wait for the capture for ever
        if spoils(status, job.conditions.device) or known_state.taken().changed:
            return  # the driver starts a fresh process


def _listen(jobs: queue.Queue[str]) -> None:
    for line in sys.stdin:
        jobs.put(line)
    os._exit(0)  # the driver is gone or asks to stop; whatever is under way has its checkpoint


if __name__ == "__main__":
    main()
