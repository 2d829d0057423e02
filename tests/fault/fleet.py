"""Real workers, started and broken as the world would: killed, frozen, started again under their name."""

import http.client
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import redis
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.command_line import RETAIL
from tests.support.redis_answers import entries_of
from worker.config import CameraConfig, FleetConfig
from worker.events.codec import decode
from worker.fleet.registry import CameraRegistry
from worker.types import Event

LEASE_S: Final = 3.0
STREAM: Final = "facestream:events"
PATIENCE_S: Final = 1200.0
"""How long a worker may need to answer on a machine that has other work."""


@dataclass
class Worker:
    """One process of ``facestream run --fleet``, by its name."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=self.environment)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def ended(self) -> bool:
        """By itself, with an error."""
        return self.process is not None and (self.process.poll() or 0) > 0

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, timeout_s: float = 30) -> int:
        """Asks it to stop, and returns its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        return self.process.wait(timeout_s)

    @property
    def port(self) -> int:
        """That of its metrics, since it was started last."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if "metrics and health" in line]
        return int(json.loads(lines[-1])["port"])

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels."""
        return float(sum(sample.value for sample in self._samples(name) if labels.items() <= sample.labels.items()))

    def by_camera(self, name: str) -> dict[str, float]:
        """The value of each camera."""
        return {sample.labels["camera"]: sample.value for sample in self._samples(name)}

    def _samples(self, name: str) -> list[Any]:
        families = text_string_to_metric_families(self._metrics())
        return [sample for family in families for sample in family.samples if sample.name == name]

    def _metrics(self) -> str:
        """A port whose worker has no time to answer ends a request after a while: that is no answer yet."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=60) as answer:
                    return str(answer.read().decode())
            except (OSError, http.client.HTTPException):
                if not self.alive or time.monotonic() > deadline_s:
                    raise

    @property
    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=60) as answer:
                return bool(answer.status == 200)
        except (IndexError, OSError, http.client.HTTPException):
            return False

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


class Fleet:
    """Workers ``w0`` and so on, which share a Redis, a gallery and a folder for what outlives them."""

    def __init__(
        self,
        folder: Path,
        redis_url: str,
        workers: int,
        *,
        gallery: Path | str | None,
        models_dir: Path,
        worker_redis_url: str = "",
        **settings: Any,
    ) -> None:
        self.redis_url = redis_url
        self.client = redis.Redis.from_url(redis_url, decode_responses=True, socket_timeout=5)
        self.fleet = FleetConfig(enabled=True, lease_s=LEASE_S)
        config = folder / "fleet.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "redis": {"url": worker_redis_url or redis_url, "stream": STREAM, "timeout_s": 2.0},
                    "fleet": {"enabled": True, "lease_s": LEASE_S},
                    "gallery": str(gallery) if gallery else None,
                    "model": RETAIL,
                    "models_dir": str(models_dir),
                    "threads": 1,
                    "metrics": {"host": "127.0.0.1", "port": 0},
                    "log": {"format": "json"},
                    **settings,
                }
            )
        )
        self.workers = [self._worker(folder, config, f"w{number}") for number in range(workers)]

    def read(self, camera_id: str) -> float:
        """How many frames of the camera all workers together have read."""
        return sum(
            worker.metric("facestream_frames_read_total", camera=camera_id) for worker in self.workers if worker.alive
        )

    def read_by_all(self) -> float:
        """How many frames of all cameras all workers together have read."""
        return sum(worker.metric("facestream_frames_read_total") for worker in self.workers if worker.alive)

    def wait_until_read(self, camera_ids: Sequence[str], frames: int = 10) -> None:
        """Until so many frames of each camera have been read: an owned camera is connected to first."""
        self.wait_until(
            lambda: all(self.read(camera_id) >= frames for camera_id in camera_ids), 120, f"each of {camera_ids} read"
        )

    def wait_until_read_on(self, camera_ids: Sequence[str]) -> None:
        """Until more frames of each camera have been read, by whoever owns it; a counter that begins anew is none."""
        last: dict[tuple[str, str], float] = {}
        going = set()

        def all_go_on() -> bool:
            for worker in self.workers:
                for camera_id, frames in worker.by_camera("facestream_frames_read_total").items():
                    if frames > last.get((worker.name, camera_id), frames):
                        going.add(camera_id)
                    last[worker.name, camera_id] = frames
            return going >= set(camera_ids)

        self.wait_until(all_go_on, 120, f"each of {camera_ids} read on", every_s=0.2)

    def _worker(self, folder: Path, config: Path, name: str) -> Worker:
        state = folder / "state" / name
        state.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "worker", "run", "--config", str(config), "--worker-id", name]
        environment = os.environ | {"FACESTREAM_STATE_DIR": str(state), "PYTHONWARNINGS": "ignore"}
        return Worker(name, command, environment, folder / f"{name}.log")

    def add_camera(self, camera_id: str, url: str) -> None:
        CameraRegistry(self.client, self.fleet).add(CameraConfig.model_validate({"id": camera_id, "source": url}))

    def owners(self) -> dict[str, tuple[str, int]]:
        """The owner's name (empty: nobody) and the epoch of each camera, as Redis has it now."""
        registered = CameraRegistry(self.client, self.fleet).cameras()
        return {
            camera.definition.camera_id: (camera.owner.rpartition(":")[0] or camera.owner, camera.epoch)
            for camera in registered
        }

    def wait_until(self, condition: Callable[[], bool], timeout_s: float, what: str, *, every_s: float = 0.02) -> float:
        """After how many seconds ``condition`` held."""
        begun_s = time.monotonic()
        while not condition():
            waited_s = time.monotonic() - begun_s
            gone = [worker.name for worker in self.workers if worker.ended]
            if waited_s > timeout_s or gone:
                logs = "\n".join(f"--- {worker.name}\n{worker.tail()}" for worker in self.workers)
                raise AssertionError(f"{what}: not within {timeout_s} s (ended: {gone})\n{self.owners()}\n{logs}")
            time.sleep(every_s)
        return time.monotonic() - begun_s

    def all_owned(self, by: set[str] | None = None) -> bool:
        owners = self.owners()
        names = by if by is not None else {worker.name for worker in self.workers if worker.alive}
        return bool(owners) and all(owner in names for owner, _ in owners.values())

    def balanced(self) -> bool:
        """Every camera is owned, and no worker has two more than another."""
        owners = [owner for owner, _ in self.owners().values()]
        shares = [owners.count(worker.name) for worker in self.workers if worker.alive]
        return sum(shares) == len(owners) > 0 and max(shares) - min(shares) <= 1

    def events(self, after: str = "") -> list[tuple[str, Event]]:
        """The entries of the stream, or those behind the one of the id ``after``: id and event."""
        return [(entry_id, decode(fields)) for entry_id, fields in entries_of(self.client, STREAM, after)]

    @contextmanager
    def running(self) -> Iterator["Fleet"]:
        for worker in self.workers:
            worker.start()
        try:
            yield self
        finally:
            for worker in self.workers:
                if worker.alive:
                    worker.send(signal.SIGCONT)
                    worker.kill()

    def victim(self, chance: random.Random) -> Worker:
        """Some worker that is alive and owns something, so that its loss is noticed."""
        owning = {owner for owner, _ in self.owners().values()}
        return chance.choice([worker for worker in self.workers if worker.alive and worker.name in owning])
