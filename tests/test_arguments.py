"""The password in an argument is not shown by ps, and need not stand there at all."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.repository import REPOSITORY

SECRET = "c4n4ry-hunter22"
SHOW = (
    "import worker.arguments as a, pathlib; a.blank_secrets(); print(pathlib.Path('/proc/self/cmdline').read_bytes())"
)
pytestmark = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs Linux")


def shown(*arguments: str) -> list[str]:
    """The arguments of a process as others see them, after it has begun."""
    ended = subprocess.run(
        [sys.executable, "-c", SHOW, *arguments], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    return [part.decode() for part in eval(ended.stdout).split(b"\0")[3:-1]]


@pytest.mark.parametrize(
    "argument",
    [
        f"rtsp://admin:{SECRET}@10.0.0.7:554/s", f"--source=rtsp://admin:{SECRET}@10.0.0.7/é",
        f"redis://:{SECRET}@cache:6379/0", f"http://camera/snap?password={SECRET}&x=1", f"rtsp://{SECRET}@h/x",
        f"redis://cache/0?gallery=a&token={SECRET}",
    ],
)  # fmt: skip
def test_credentials_are_blanked_and_nothing_else(argument: str) -> None:
    before, seen, after = shown("--camera-id", argument, "ünïcode")
    assert (before, after) == ("--camera-id", "ünïcode")
    assert SECRET not in seen
    assert len(seen.encode()) == len(argument.encode())


def test_what_holds_no_secret_stays() -> None:
    arguments = ["run", "--source", "rtsp://10.0.0.7/stream", "--redis", "redis://cache:6379/0", "", "a b"]
    assert shown(*arguments) == arguments
