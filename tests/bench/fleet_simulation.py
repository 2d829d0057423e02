"""A whole fleet on one Redis: what its leases cost, how fast take-overs are, how many cameras move.

    python -m tests.bench.fleet_simulation [--workers 1000] [--cameras 10000] [--lease-s 3] [--processes 2] [--json]

Runs the workers' own code (:class:`worker.fleet.assignment.Assignment`, a connection each) without cameras, in two
processes, on a redis-server of its own. Bounded to about two minutes. A beat is late where this machine is too slow
for so many workers in Python; then take-overs say little, so the share of late beats is printed as well.
"""

import argparse
import heapq
import itertools
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import redis

from tests.support.redis_servers import RedisServer
from tests.support.sample_events import make_event
from worker.config import CameraConfig, Config, FleetConfig
from worker.events.codec import encode
from worker.events.fencing import Fenced, append_fenced
from worker.fleet.assignment import Assignment
from worker.fleet.registry import PAGE, CameraRegistry, Definition, encode_camera
from worker.observer import Observer

STOPPING_S = 0.1
"""From being told to give a camera up until it is handed back."""
STEADY_S = 15.0
QUIET_S = 5.0
"""So long without a camera changing hands is the end of a phase."""
PHASE_S = 25.0
THREADS = 4
EVENTS = 5000


@dataclass
class Notes:
    """What happened in one process: (time, camera) of gains, seconds that beats took and were late."""

    gains: list[tuple[float, str]] = field(default_factory=list)
    superseded: int = 0
    beats: int = 0
    took_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)


class SimulatedWorker:
    """Beats when it is due; gives cameras up a moment after it is told to."""

    def __init__(self, url: str, config: Config, notes: Notes) -> None:
        self._notes = notes
        self._stopping: list[str] = []
        self.dead = False
        self.assignment = Assignment(
            redis.Redis.from_url(url, socket_timeout=config.redis.timeout_s), config, Observer(), lambda: 0.3,
            self._gained, self._lost,
        )  # fmt: skip

    def beat(self, due_s: float) -> float:
        """Returns when the next beat is due."""
        if self._stopping:
            for camera_id in self._stopping:
                self.assignment.release(camera_id)
            self._stopping.clear()
        begun_s = time.monotonic()
        pause_s = self.assignment.beat()
        ended_s = time.monotonic()
        self._notes.beats += 1
        self._notes.took_s.append(ended_s - begun_s)
        self._notes.late_s.append(begun_s - due_s)
        return ended_s + (STOPPING_S if self._stopping else pause_s)

    def _gained(self, camera: CameraConfig, _epoch: int) -> None:
        self._notes.gains.append((time.monotonic(), camera.id))

    def _lost(self, camera_id: str, reason: str) -> None:
        if reason == "superseded":
            self._notes.superseded += 1
        else:
            self._stopping.append(camera_id)


class Share:
    """The workers of one process, on a few threads."""

    def __init__(self, url: str, lease_s: float, number: int) -> None:
        self._url = url
        self._config = Config(fleet=FleetConfig(lease_s=lease_s))
        self._names = (f"w{number}-{count}" for count in itertools.count())
        self._heaps: list[list[tuple[float, int, SimulatedWorker]]] = [[] for _ in range(THREADS)]
        self._locks = [threading.Lock() for _ in range(THREADS)]
        self._order = itertools.count()
        self._live: list[SimulatedWorker] = []
        self.notes = Notes()
        for thread in range(THREADS):
            threading.Thread(target=self._run, args=(thread,), daemon=True).start()

    def join(self, count: int, spread_s: float) -> None:
        now_s = time.monotonic()
        for number in range(count):
            config = self._config.model_copy(update={"worker_id": next(self._names)})
            worker = SimulatedWorker(self._url, config, self.notes)
            self._live.append(worker)
            self._push(number % THREADS, now_s + spread_s * number / count, worker)

    def kill(self, count: int) -> tuple[float, list[str]]:
        """The time, and the cameras that the killed workers had."""
        victims, self._live = self._live[:count], self._live[count:]
        for worker in victims:
            worker.dead = True
        return time.monotonic(), [camera_id for worker in victims for camera_id in worker.assignment.owned]

    def leave(self, count: int) -> tuple[float, list[str]]:
        leaving = self._live[:count]
        begun_s, cameras = self.kill(count)
        time.sleep(0.2)  # beats that are under way
        for worker in leaving:
            worker.assignment.close()
        return begun_s, cameras

    def _push(self, thread: int, due_s: float, worker: SimulatedWorker) -> None:
        with self._locks[thread]:
            heapq.heappush(self._heaps[thread], (due_s, next(self._order), worker))

    def _run(self, thread: int) -> None:
        while True:
            with self._locks[thread]:
                due = self._heaps[thread][0] if self._heaps[thread] else None
                if due and due[0] <= time.monotonic():
                    heapq.heappop(self._heaps[thread])
            if due is None or due[0] > time.monotonic():
                time.sleep(0.002)
                continue
            due_s, _, worker = due
            if not worker.dead:
                self._push(thread, worker.beat(due_s), worker)


def serve(url: str, lease_s: float, number: int, orders: Connection) -> None:
    """Runs in a process: does what it is told, and hands over its notes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    share = Share(url, lease_s, number)
    while True:
        name, arguments = orders.recv()
        if name == "notes":
            notes, share.notes.gains = Notes(**vars(share.notes)), []
            share.notes.took_s, share.notes.late_s, share.notes.beats, share.notes.superseded = [], [], 0, 0
            orders.send(notes)
        else:
            orders.send(getattr(share, name)(*arguments))


class Fleet:
    """All processes, and the Redis that they share."""

    def __init__(self, url: str, lease_s: float, processes: int) -> None:
        self._redis = redis.Redis.from_url(url)
        self._pipes: list[Connection] = []
        for number in range(processes):
            ours, theirs = multiprocessing.Pipe()
            multiprocessing.Process(target=serve, args=(url, lease_s, number, theirs), daemon=True).start()
            self._pipes.append(ours)
        self._gains: list[tuple[float, str]] = []
        self.notes = Notes()

    def order(self, name: str, count: int = 0, *more: Any) -> list[Any]:
        """Has ``count`` workers, spread over the processes, do something."""
        parts = [count // len(self._pipes) + (number < count % len(self._pipes)) for number in range(len(self._pipes))]
        for pipe, part in zip(self._pipes, parts, strict=True):
            pipe.send((name, (part, *more) if name != "notes" else ()))
        return [pipe.recv() for pipe in self._pipes]

    def collect(self) -> Notes:
        """What happened since the last call."""
        notes = Notes()
        for part in self.order("notes"):
            notes.gains += part.gains
            notes.took_s += part.took_s
            notes.late_s += part.late_s
            notes.beats += part.beats
            notes.superseded += part.superseded
        return notes

    def until_quiet(self, cameras: int) -> Notes:
        """Waits until every camera is owned and none has changed its owner for a while."""
        total = Notes()
        begun_s = time.monotonic()
        moved_s = begun_s
        while time.monotonic() - begun_s < PHASE_S:
            time.sleep(0.5)
            part = self.collect()
            total.gains += part.gains
            total.superseded += part.superseded
            total.late_s += part.late_s
            if part.gains:
                moved_s = time.monotonic()
            if time.monotonic() - moved_s > QUIET_S and self.owned() == cameras:
                break
        return total

    def owned(self) -> int:
        now_s, micros = self._redis.time()
        return int(self._redis.zcount("{facestream}:leases", 1000 * now_s + micros // 1000, "+inf"))

    def usage(self) -> dict[str, float]:
        """Sums so far: seconds of processor, calls of scripts, all commands, bytes sent, and the time."""
        info = self._redis.info("all")
        script = info["cmdstat_evalsha"]
        return {
            "time_s": time.monotonic(),
            "cpu_s": info["used_cpu_user"] + info["used_cpu_sys"],
            "calls": script["calls"],
            "script_s": script["usec"] / 1e6,
            "commands": sum(row["calls"] for name, row in info.items() if name.startswith("cmdstat_")),
            "bytes": info["total_net_output_bytes"] + info["total_net_input_bytes"],
        }

    def event_cost(self) -> tuple[float, float]:
        """Microseconds inside Redis, and bytes kept, for each event of an owner."""
        before, script = self._redis.info("memory")["used_memory"], self._redis.info("commandstats")["cmdstat_evalsha"]
        for number in range(EVENTS):
            event = make_event(number, camera_id=f"camera-{number % 100:05}", epoch=1_750_000_000_000)
            entry = Fenced(event.camera_id, event.epoch, 0.1, encode(event))
            append_fenced(self._redis, "facestream:events", [entry], max_events=EVENTS)
        memory, after = self._redis.info("memory")["used_memory"], self._redis.info("commandstats")["cmdstat_evalsha"]
        return (after["usec"] - script["usec"]) / EVENTS, (memory - before) / EVENTS

    def memory_mib(self) -> float:
        return float(self._redis.info("memory")["used_memory"]) / 2**20


def quantiles(values: list[float]) -> str:
    """p50 / p95 / max."""
    if not values:
        return "none"
    ordered = sorted(values)
    return f"{statistics.median(ordered):.2f} / {ordered[int(0.95 * (len(ordered) - 1))]:.2f} / {ordered[-1]:.2f}"


def taken_over(gone: list[tuple[float, list[str]]], gains: list[tuple[float, str]]) -> list[float]:
    """For each camera of the workers that went, the seconds until another worker gained it."""
    first = {camera_id: moment_s for moment_s, camera_id in sorted(gains, reverse=True)}
    return [first.get(camera_id, float("inf")) - begun_s for begun_s, ids in gone for camera_id in ids]


def simulate(fleet: Fleet, workers: int, cameras: int, say: Callable[..., None]) -> None:
    tenth = workers // 10
    begun_s = time.monotonic()
    fleet.order("join", workers, 3.0)
    start = fleet.until_quiet(cameras)
    say("all cameras owned after the start, s", f"{max(moment_s for moment_s, _ in start.gains) - begun_s:.1f}")
    say("cameras gained at the start (least possible: all, once)", len(start.gains))

    fleet.collect()
    before = fleet.usage()
    time.sleep(STEADY_S)
    after, steady = fleet.usage(), fleet.collect()
    span = {name: after[name] - before[name] for name in after}
    say("beats a second", f"{steady.beats / span['time_s']:.0f}")
    say("script calls a second, all there is between workers and Redis", f"{span['calls'] / span['time_s']:.0f}")
    say("Redis commands a second, those inside scripts included", f"{span['commands'] / span['time_s']:.0f}")
    say("processor share of Redis, % of one core", f"{100 * span['cpu_s'] / span['time_s']:.1f}")
    say("one beat inside Redis, us", f"{1e6 * span['script_s'] / span['calls']:.0f}")
    say("network, MB/s both ways", f"{span['bytes'] / span['time_s'] / 1e6:.1f}")
    say("memory of Redis, MiB", f"{fleet.memory_mib():.1f}")
    say("one beat as the worker sees it, ms, p50 / p95 / max", quantiles([1000 * took_s for took_s in steady.took_s]))
    say("beats late by, ms, p50 / p95 / max", quantiles([1000 * late_s for late_s in steady.late_s]))
    say("cameras that moved meanwhile", len(steady.gains))

    gone = fleet.order("kill", tenth)
    notes = fleet.until_quiet(cameras)
    lost = sum(len(ids) for _, ids in gone)
    say(f"{tenth} workers killed: their cameras", lost)
    say("owned again after, s, p50 / p95 / max", quantiles(taken_over(gone, notes.gains)))
    say("cameras moved beyond those", len(notes.gains) - lost)

    begun_s = time.monotonic()
    fleet.order("join", tenth, 1.0)
    notes = fleet.until_quiet(cameras)
    say(f"{tenth} workers join: cameras moved (fair share: {tenth * cameras // workers})", len(notes.gains))
    if notes.gains:
        say("the last one after, s", f"{max(moment_s for moment_s, _ in notes.gains) - begun_s:.1f}")

    gone = fleet.order("leave", tenth)
    notes = fleet.until_quiet(cameras)
    lost = sum(len(ids) for _, ids in gone)
    say(f"{tenth} workers stop gracefully: their cameras", lost)
    say("owned again after, s, p50 / p95 / max", quantiles(taken_over(gone, notes.gains)))
    say("cameras moved beyond those", len(notes.gains) - lost)
    say("cameras without an owner at the end", cameras - fleet.owned())
    fleet.order("kill", workers)
    time.sleep(0.5)
    cost_us, size = fleet.event_cost()
    say("for comparison: one event, us inside Redis", f"{cost_us:.0f}")
    say("one event, bytes in the stream", f"{size:.0f}")


@contextmanager
def redis_of_its_own() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            yield server.url
        finally:
            server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--cameras", type=int, default=10_000)
    parser.add_argument("--lease-s", type=float, default=3.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows: dict[str, Any] = {}

    def say(name: str, value: Any) -> None:
        rows[f"{name} ({len(rows)})" if name in rows else name] = value
        if not options.json:
            sys.stdout.write(f"| {name} | {value} |\n")
            sys.stdout.flush()

    with redis_of_its_own() as url, redis.Redis.from_url(url) as client:
        registry = CameraRegistry(client, FleetConfig(lease_s=options.lease_s))
        ids = [f"camera-{number:05}" for number in range(options.cameras)]
        for begin in range(0, len(ids), PAGE):
            page = ids[begin : begin + PAGE]
            registry.seed(Definition(camera_id, 1, False, _document(camera_id)) for camera_id in page)
        fleet = Fleet(url, options.lease_s, options.processes)
        simulate(fleet, options.workers, options.cameras, say)
    if options.json:
        sys.stdout.write(json.dumps(rows) + "\n")


def _document(camera_id: str) -> str:
    source = f"rtsp://viewer:{camera_id}@10.20.30.40:554/Streaming/Channels/101"
    return encode_camera(CameraConfig(id=camera_id, source=source))


if __name__ == "__main__":
    main()
