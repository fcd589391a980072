"""Headless Chromium over its debugging pipe: real keys, clicks and downloads, without a driver."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here (Debian: apt install chromium)")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe")
KEYS = {"Enter": (13, "\r"), " ": (32, " "), "Tab": (9, "")}
PATIENCE = 60
"""Seconds until a condition must hold; far more than needed, also on a loaded machine."""
BEFORE = "window.failures = []; window.onerror = (text) => { window.failures.push(String(text)); };"


class Page:
    """One page in a browser."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, os.fdopen(answers, "rb")
        self._last, self._session, self._rest = 0, "", b""

    def close(self) -> None:
        self._answers.close()

    def start(self) -> None:
        """Open the page once the browser answers."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.send("Page.enable")
        self.send("Page.addScriptToEvaluateOnNewDocument", source=BEFORE)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the protocol and wait for its answer. Raises AssertionError if it is refused."""
        self._last += 1
        command: dict[str, Any] = {"id": self._last, "method": method, "params": params}
        if self._session and not method.startswith(("Target.", "Browser.")):
            command["sessionId"] = self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while True:
            answer = json.loads(self._message())
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                return answer["result"]

    def _message(self) -> bytes:
        while b"\0" not in self._rest:
            more = self._answers.read1(1 << 16)
            assert more, "the browser ended"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        return message

    def open(self, address: str, width: int = 1280, height: int = 900) -> None:
        """Load a page in a window of this size and wait until its scripts ran."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.send("Page.navigate", url="about:blank")  # an address that differs in its fragment only loads nothing
        self.wait("location.href === 'about:blank'")
        self.send("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")
        assert self.ask("window.failures") == []

    def ask(self, expression: str) -> Any:
        """Value of a JavaScript expression, a promise's once it is there."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        end = time.monotonic() + PATIENCE
        while not self.ask(f"Boolean({condition})"):
            assert time.monotonic() < end, condition
            time.sleep(0.02)

    def press(self, key: str) -> None:
        """Press and release a key, as a person does: the element in focus gets it."""
        code, text = KEYS[key]
        same = {"key": key, "windowsVirtualKeyCode": code, "code": "Space" if key == " " else key}
        self.send("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **same)
        self.send("Input.dispatchKeyEvent", type="keyUp", **same)

    def texts(self, selector: str) -> list[str]:
        return self.ask(f"[...document.querySelectorAll({json.dumps(selector)})].map((one) => one.textContent)")


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """Start Chromium with an empty profile; it ends with the context."""
    to_read, to_write = os.pipe(), os.pipe()  # its file descriptors 3 and 4
    command = [str(BROWSER), *OPTIONS, f"--user-data-dir={profile}"]
    # The shell gives the pipes their numbers in the child alone.
    line = f'exec "$@" 3<&{to_read[0]} 4>&{to_write[1]}'
    done = subprocess.Popen(
        ["/bin/bash", "-c", line, "chromium", *command],
        pass_fds=(to_read[0], to_write[1]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read[0])
    os.close(to_write[1])
    page = Page(to_read[1], to_write[0])
    try:
        page.start()
        yield page
        page.send("Browser.close")
    finally:
        done.kill()
        done.wait()
        os.close(to_read[1])
        page.close()
