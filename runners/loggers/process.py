"""A logger's own process, where it can neither delay the cells nor change their numbers, nor take them down.

Started by `Remote` as `python -P -m runners.loggers.process NAME RESULTS`: reads messages as JSON lines; writes an
empty line once it has started, then sentences to the user, and a second empty line once it has finished. What the
logger prints goes to its log file.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from runners.loggers.messages import Delivery, Message, short

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "loggers"
"""In the results folder: what each logger printed."""
SECONDS_TO_START, SECONDS_TO_CLOSE = 60.0, 60.0
SECONDS_TO_JOIN = 1.0
LAST_WORDS = 2000


class Remote:
    """Sender of messages to a logger's process; never waits for it, except in `close`."""

    def __init__(self, name: str, results: Path, say: Callable[[str], None]) -> None:
        self.name, self.say = name, say
        self.printed = results / FOLDER / f"{Path(name).name.replace(':', '-')}.log"
        self.printed.parent.mkdir(parents=True, exist_ok=True)
        self.started = threading.Event()
        """Set too when it has ended."""
        self.marks = 0
        """Empty lines that it wrote; it ended early where there are fewer than two."""
        self.late = False
        """True once the process is ended from here."""
        self.outbox: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        with self.printed.open("ab") as printed:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, name, str(results)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=printed,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,  # a signal to the command's group ends neither the logger nor its children
            )
        self.start_by, self.end_by = time.monotonic() + SECONDS_TO_START, float("inf")
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self._write, self._read)]
        for thread in self.threads:
            thread.start()

    def send(self, message: Message) -> None:
        self.outbox.put(json.dumps(message.to_json()))

    def wait(self) -> None:
        """Wait until the logger has started: its imports would disturb the clocks of cells."""
        if not self.started.wait(max(0.0, self.start_by - time.monotonic())):
            self.say(f"logger {self.name} has not started after {SECONDS_TO_START:g} s; the cells do not wait for it")

    def finish(self) -> None:
        """Tell the logger that no message follows."""
        self.outbox.put(None)
        self.end_by = time.monotonic() + SECONDS_TO_CLOSE

    def close(self) -> None:
        """Wait until the logger has done what it was sent; a minute after `finish` it is ended."""
        try:
            self.process.wait(max(0.0, self.end_by - time.monotonic()))
        except subprocess.TimeoutExpired:
            late = f"did not end in {SECONDS_TO_CLOSE:g} s; its last entries may be missing"
            self.say(f"logger {self.name} {late if self.started.is_set() else 'never started: nothing was logged'}")
            self.late = True
        finally:
            self.late |= self.process.poll() is None  # a second Ctrl-C
            self.process.kill()
            self.process.wait()
        for thread in self.threads:
            thread.join(SECONDS_TO_JOIN)

    def _write(self) -> None:
        pipe = self.process.stdin
        assert pipe is not None
        while (line := self.outbox.get()) is not None:
            with contextlib.suppress(OSError, ValueError):  # `_read` tells of its end
                pipe.write(line.encode() + b"\n")
                pipe.flush()
        with contextlib.suppress(OSError):
            pipe.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as pipe:
            for line in pipe:
                self.started.set()
                if sentence := line.decode(errors="replace").rstrip():
                    self.say(sentence)
                else:
                    self.marks += 1
        self.started.set()
        if (self.process.wait() or self.marks < 2) and not self.late:
            self.say(f"logger {self.name} ended early{self._last_words()} ({self.printed}); the cells go on without it")

    def _last_words(self) -> str:
        lines = self.printed.read_bytes()[-LAST_WORDS:].decode(errors="replace").strip().splitlines()
        return f": {short(lines[-1])}" if lines else ""


def main(name: str, results: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # may reach every process of a job; the driver closes the pipe
        signal.signal(number, signal.SIG_IGN)
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from runners.loggers import registry

    def say(sentence: str) -> None:
        pipe.write(" ".join(sentence.split()) + "\n")
        pipe.flush()

    delivery = Delivery(name, lambda: registry.make(name, results), say, traceback.print_exception)
    delivery.start()
    say("")
    for line in sys.stdin:
        delivery.deliver(Message.from_json(json.loads(line)))
    delivery.close()
    say("")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
