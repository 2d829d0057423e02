"""How soon a worker is at work, and how much memory it takes."""

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, Final

import yaml

from worker.bench.comparison import Setup
from worker.bench.contest import UnableError
from worker.bench.rows import Row, compared, joined, unable
from worker.redis.embedded import embedded_redis

NAMES: Final = ("start/first_frame", "memory/worker")
CAMERAS: Final = 4
_DEADLINE_S: Final = 120.0
_POLL_S: Final = 0.02
_FRAMES_DONE: Final = re.compile(r'^facestream_stage_duration_seconds_count\{stage="track"\} ([\d.]+)', re.MULTILINE)


def measure(setup: Setup) -> Iterator[Row]:
    """``start/first_frame`` and ``memory/worker``."""
    names = [name for name in NAMES if setup.wanted(name)]
    if not names:
        return
    with embedded_redis() as redis_url:
        starts_s, peaks_mb, problem = _tutorial(setup, redis_url)
        problem = f"tutorial: {problem}" if problem else ""
        if "start/first_frame" in names:
            yield _row("start/first_frame", "s", lambda: [first_frame_s(setup, redis_url) for _ in range(setup.rounds)],
                       starts_s, joined("caches warm; beside the tutorial's start", problem))  # fmt: skip
        if "memory/worker" in names:
            note = f"largest, with {CAMERAS} files of 1080p; beside the tutorial with one"
            yield _row("memory/worker", "MB", lambda: [peak_mb(setup, redis_url)], peaks_mb, joined(note, problem))


def _row(name: str, unit: str, measure_ours: Callable[[], list[float]], peer: list[float], note: str) -> Row:
    try:
        return compared(name, measure_ours(), peer, unit, note=note)
    except UnableError as error:
        return unable(name, unit, f"ours: {error}")


def first_frame_s(setup: Setup, redis_url: str) -> float:
    """Seconds from the start of ``facestream run`` until its first frame went through, to 20 ms, by its own metrics.

    Raises:
        UnableError: it ended before, or took two minutes.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*_command(setup, redis_url), "--source", str(setup.material.clip), "--metrics-port", str(port)]
    begun_s = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)  # noqa: S603 - our own command
        try:
            while not _frames_done(port):
                if process.poll() is not None:
                    said.seek(0)
                    raise UnableError(f"the worker ended early: {said.read().decode(errors='replace')[-300:].strip()}")
                if time.perf_counter() - begun_s > _DEADLINE_S:
                    raise UnableError(f"no frame within {_DEADLINE_S:.0f} s")
                time.sleep(_POLL_S)
            return time.perf_counter() - begun_s
        finally:
            process.terminate()
            process.wait()


def peak_mb(setup: Setup, redis_url: str) -> float:
    """Largest resident memory of a worker that reads the clip as four cameras, MB.

    Raises:
        UnableError: the worker failed.
    """
    cameras = [{"id": f"camera-{number}", "source": str(setup.material.clip)} for number in range(1, CAMERAS + 1)]
    config = setup.material.frames.with_name("memory.yaml")
    config.write_text(yaml.safe_dump({"cameras": cameras, "metrics": {"host": "127.0.0.1", "port": 0}}))
    command = [*_command(setup, redis_url), "--config", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UnableError(f"the worker ended with {process.returncode}")
    return usage.ru_maxrss / 1000


def _command(setup: Setup, redis_url: str) -> list[str]:
    material = setup.material
    return [
        sys.executable, "-m", "worker", "run", "--gallery", str(material.gallery), "--model", str(material.manifest),
        "--models-dir", str(material.manifest.parent), "--redis", redis_url, "--log-level", "warning",
    ]  # fmt: skip


def _frames_done(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            found = _FRAMES_DONE.search(answer.read().decode())
    except (urllib.error.URLError, OSError):
        return False
    return found is not None and float(found.group(1)) >= 1


def _tutorial(setup: Setup, redis_url: str) -> tuple[list[float], list[float], str]:
    """Seconds to its first frame, its largest memory in MB, and why there are none."""
    material = setup.material
    arguments: dict[str, Any] = {
        "clip": str(material.clip),
        "manifest": str(material.manifest),
        "redis_url": redis_url,
        "people": material.people,
    }
    starts, peaks = [], []
    try:
        for _ in range(setup.rounds):
            begun_s = time.perf_counter()
            process = setup.start("worker.bench.peers:first_frame", arguments)
            starts.append(time.perf_counter() - begun_s)
            try:
                peaks.append(process.work("run").peak_mb)
            finally:
                process.close()
    except UnableError as error:
        return [], [], str(error)
    return starts, peaks, ""
