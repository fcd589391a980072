"""A logger's own process, where it can neither delay the cells nor change their numbers, nor take them down.

Started by `Remote` as `python -P -m runners.loggers.process NAME RESULTS`: reads messages as JSON lines; writes an
empty line once it has started, then sentences to the user. What the logger prints goes to its log file.
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
from collections.abc import Callable
from pathlib import Path

from runners.loggers.messages import Delivery, Message

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
            )
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self._write, self._read)]
        for thread in self.threads:
            thread.start()

    def send(self, message: Message) -> None:
        self.outbox.put(json.dumps(message.to_json()))

    def wait(self) -> None:
        """Wait until the logger has started: its imports would disturb the clocks of cells."""
        self.started.wait(SECONDS_TO_START)

    def close(self) -> None:
        """Let the logger finish what it was sent; after a minute it is ended."""
        self.outbox.put(None)
        try:
            self.process.wait(SECONDS_TO_CLOSE)
        except subprocess.TimeoutExpired:
            self.say(f"logger {self.name} did not end in {SECONDS_TO_CLOSE:g} s; its last entries may be missing")
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
        self.started.set()
        if self.process.wait() and not self.late:
            self.say(f"logger {self.name} ended early{self._last_words()} ({self.printed}); the cells go on without it")

    def _last_words(self) -> str:
        lines = self.printed.read_bytes()[-LAST_WORDS:].decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""


def main(name: str, results: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver closes the pipe
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from runners.loggers import registry

    def say(sentence: str) -> None:
        pipe.write(" ".join(sentence.split()) + "\n")
        pipe.flush()

    delivery = Delivery(name, lambda: registry.make(name, results), say)
    delivery.start()
    say("")
    for line in sys.stdin:
        delivery.deliver(Message.from_json(json.loads(line)))
    delivery.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
