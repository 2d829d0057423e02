"""The command as its users start it: a process with arguments, output, errors and an exit code."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RETAIL = "face-reidentification-retail-0095"
ERROR = "facestream: error: "


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended and what it said."""

    code: int
    stdout: str
    stderr: str

    @property
    def documents(self) -> list[dict[str, Any]]:
        """Standard output as one JSON document a line; fails on anything else there."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def complaints(self) -> list[str]:
        """Standard error without log lines."""
        return [line for line in self.stderr.splitlines() if not line.startswith("{")]

    def only_error(self, code: int) -> str:
        """The one line that says what is wrong; fails where the command said more, or ended otherwise."""
        assert self.code == code, self
        assert self.stdout == "", self
        assert len(self.stderr.splitlines()) == 1, self
        assert self.stderr.startswith(ERROR), self
        return self.stderr.removeprefix(ERROR).strip()


def facestream(*arguments: object, timeout_s: float = 120, **environment: str) -> Ended:
    """Runs one command to its end."""
    process = _start(arguments, environment)
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        stdout, stderr = process.communicate()
        raise AssertionError(f"it did not end within {timeout_s} s: {stdout[-1000:]} {stderr[-2000:]}") from None
    return Ended(process.returncode, stdout, stderr)


class Running:
    """A command that runs; what it says is collected meanwhile."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self._readers = [
            threading.Thread(target=lambda: self.stdout.extend(process.stdout or []), daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        self._said = threading.Condition()
        for reader in self._readers:
            reader.start()

    def said(self, pattern: str, timeout_s: float = 60) -> str:
        """The first line on standard error that ``pattern`` is found in, as soon as there is one."""
        deadline = time.monotonic() + timeout_s
        with self._said:
            while True:
                for line in self.stderr:
                    if re.search(pattern, line):
                        return line
                assert self._said.wait(deadline - time.monotonic()), (pattern, self.stderr[-20:])

    def until(self, condition: Callable[[], Any], timeout_s: float = 60) -> Any:
        """What ``condition`` gives, as soon as that is true."""
        deadline = time.monotonic() + timeout_s
        while not (value := condition()):
            assert self.process.poll() is None, ("".join(self.stderr)[-3000:], self.process.returncode)
            assert time.monotonic() < deadline, "".join(self.stderr)[-3000:]
            time.sleep(0.05)
        return value

    @property
    def port(self) -> int:
        """That of metrics and probes."""
        return int(json.loads(self.said("metrics and health are served"))["port"])

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a probe."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, sample: str) -> float:
        """The value of ``sample`` in /metrics, 0 where it does not appear."""
        _, text = self.get("/metrics")
        found = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def end(self, number: signal.Signals, timeout_s: float = 30) -> Ended:
        """Sends a signal and waits."""
        self.process.send_signal(number)
        return self.ended(timeout_s)

    def ended(self, timeout_s: float = 120) -> Ended:
        self.process.wait(timeout_s)
        for reader in self._readers:
            reader.join(10)
        return Ended(self.process.returncode, "".join(self.stdout), "".join(self.stderr))

    def _read_errors(self) -> None:
        for line in self.process.stderr or []:
            with self._said:
                self.stderr.append(line)
                self._said.notify_all()


@contextmanager
def running(*arguments: object, standard_input: str | None = None, **environment: str) -> Iterator[Running]:
    """A command that is killed at the end of the block if it still runs; ``standard_input`` is all that it can read."""
    process = _start(arguments, environment, standard_input)
    command = Running(process)
    try:
        yield command
    finally:
        process.kill()
        command.ended(10)
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()


def worker_arguments(source: Path | str, redis_url: str, models: Path, *more: object) -> list[object]:
    """``run`` with the small real model and a free port."""
    return [
        "run", "--source", source, "--redis", redis_url, "--models-dir", models / "models",
        "--metrics-port", 0, *more,
    ]  # fmt: skip


def _start(
    arguments: tuple[object, ...], environment: dict[str, str], standard_input: str | None = None
) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FACESTREAM_")}
    if cache := os.environ.get("FACESTREAM_CACHE_DIR"):
        clean["FACESTREAM_CACHE_DIR"] = cache
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", *map(str, arguments)],
        stdin=None if standard_input is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean | environment,
    )
    if process.stdin is not None:
        process.stdin.write(standard_input or "")
        process.stdin.close()
    return process
