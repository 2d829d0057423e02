"""What load costs: people walk past 1 to 16 real cameras, on this machine as it is and with others at work on it.

    python -m tests.bench.load_curve [--cameras 1 2 4 8 16] [--taken 0 0.5 0.75] [--seconds 40] [--plot FILE]

A worker of its own reads cameras of a real RTSP server, 1280x720 at 25 frames a second; five known people and five
strangers walk past each again and again, for five to seven seconds each. ``--taken`` is the share of processor time
that other work takes, at a higher priority. The server shares the processors with the worker, at the highest priority:
a camera is a machine of its own.
Needs the test data, and ends by itself.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import redis
import yaml

from tests.fault.cameras import Cameras, Shown
from tests.support.command_line import RETAIL, Running, facestream, running
from tests.support.redis_answers import entries_of
from worker.bench.run import machine
from worker.events.codec import decode
from worker.redis.embedded import embedded_redis
from worker.types import Event

STREAM = "facestream:load"
SETTLE_S = 6.0
_PERIOD_S = 0.1


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement. ``gap_s``: the longest usual time between two looks at a camera, as the worker tells."""

    cameras: int
    taken: float
    visits: int
    named: int
    strangers: int
    strangers_named: int
    wrong: int
    delay_s: float | None
    gap_s: float
    said: str

    @property
    def share(self) -> float:
        return self.named / max(self.visits, 1)


def measure(cameras: Cameras, number: int, taken: float, seconds: float, gallery: Path, models: Path) -> Point:
    """Lets a worker read the first ``number`` of ``cameras`` for ``seconds``, with ``taken`` of the machine gone."""
    with (
        tempfile.TemporaryDirectory() as name,
        embedded_redis() as url,
        burning(taken),
        _worker(cameras, number, Path(name), url, gallery, models) as worker,
    ):
        time.sleep(SETTLE_S)
        begun = time.time()
        time.sleep(seconds)
        ended = time.time()
        ready, metrics = json.loads(worker.get("/readyz")[1]), worker.get("/metrics")[1]
        time.sleep(2.0)
        with redis.Redis.from_url(url, decode_responses=True) as client:
            events = [decode(fields) for _, fields in entries_of(client, STREAM)]
    ids = set(cameras.ids[:number])
    shown = [visit for visit in cameras.shown(begun, ended) if visit.camera_id in ids]
    around = cameras.shown(begun - 60.0, ended + 60.0)
    gaps = [float(line.split()[-1]) for line in metrics.splitlines() if line.startswith("facestream_look_gap_seconds{")]
    return _judged(
        number, taken, shown, around, events, max(gaps, default=0.0), ready.get("warnings", {}).get("load", "")
    )


def _judged(
    number: int,
    taken: float,
    shown: Sequence[Shown],
    around: Sequence[Shown],
    events: Sequence[Event],
    gap_s: float,
    said: str,
) -> Point:
    named = [event for event in events if event.identity_name]
    visits = strangers = hits = alarms = wrong = 0
    delays = []
    for visit in shown:
        here = [
            event
            for event in named
            if event.camera_id == visit.camera_id
            and visit.start - 1.0 <= event.started_at.timestamp() <= visit.end
            and event.captured_at.timestamp() >= visit.start
        ]
        if not visit.enrolled:
            strangers += 1
            continue
        visits += 1
        right = [event.captured_at.timestamp() - visit.start for event in here if event.identity_name == visit.name]
        hits += bool(right)
        delays += [max(0.0, min(right))] if right else []
    by_camera: dict[str, list[Shown]] = {}
    for visit in around:
        by_camera.setdefault(visit.camera_id, []).append(visit)
    for event in {event.sighting_id: event for event in named}.values():
        at = event.started_at.timestamp()
        there = [visit for visit in by_camera.get(event.camera_id, []) if visit.start - 0.5 <= at <= visit.end + 0.5]
        if there and event.identity_name not in {visit.name for visit in there if visit.enrolled}:
            wrong += 1
            alarms += not any(visit.enrolled for visit in there)
    delay_s = round(statistics.median(delays), 2) if delays else None
    return Point(number, taken, visits, hits, strangers, alarms, wrong, delay_s, round(gap_s, 2), said)


@contextmanager
def _worker(cameras: Cameras, number: int, folder: Path, url: str, gallery: Path, models: Path) -> Iterator[Running]:
    file = folder / "worker.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "cameras": [{"id": one, "source": cameras.url(one)} for one in cameras.ids[:number]],
                "gallery": str(gallery),
                "models_dir": str(models),
                "redis": {"url": url, "stream": STREAM},
                "recognition": {"linger_s": 1.5},
                "metrics": {"host": "127.0.0.1", "port": 0},
                "history": {"enabled": False},
                "state_dir": str(folder / "state"),
            }
        )
    )

    def streaming() -> int:
        return sum(camera["state"] == "streaming" for camera in json.loads(worker.get("/status")[1]).get("cameras", []))

    with running("run", "--config", file) as worker:
        worker.until(lambda: streaming() == number, 120)
        yield worker


@contextmanager
def burning(taken: float) -> Iterator[None]:
    """Other work takes ``taken`` of the processor time of this machine, at a higher priority where that is allowed."""
    cores = sorted(os.sched_getaffinity(0))
    children = []
    for core in cores:
        # One core after the other, whole, and the last one in part.
        share = min(1.0, max(0.0, taken * len(cores) - cores.index(core)))
        if share:
            child = multiprocessing.get_context("spawn").Process(target=_burn, args=(core, share), daemon=True)
            child.start()
            children.append(child)
    try:
        yield
    finally:
        for child in children:
            child.kill()
            child.join()


def _burn(core: int, share: float) -> None:
    os.sched_setaffinity(0, {core})
    with suppress(PermissionError):
        os.nice(-15)
    parent = os.getppid()
    while os.getppid() == parent:
        until_s = time.perf_counter() + share * _PERIOD_S
        while time.perf_counter() < until_s:
            pass
        time.sleep((1.0 - share) * _PERIOD_S)


def main() -> None:
    """Measures, and prints a row a point."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cameras", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--taken", type=float, nargs="+", default=[0.0, 0.5, 0.75])
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--model", default=RETAIL)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("FACESTREAM_TEST_DATA", "../shared/data")))
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    described = machine()
    isa = os.environ.get("ONEDNN_MAX_CPU_ISA") or " ".join(described["isa"])
    print(f"{described['cpu']}, {described['cores']} cores, {isa}; {arguments.model}", flush=True)  # noqa: T201
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cameras = Cameras(
            folder, arguments.data / "lfw_dev", max(arguments.cameras), people=5, strangers=5,
            face_px=(90.0, 160.0), visit_s=(5.0, 7.0), size=(1280, 720), every=1,
        )  # fmt: skip
        cameras.start()
        models = arguments.data / "models"
        done = facestream("enroll", "--gallery", folder / "people", "--model", arguments.model, "--models-dir", models,
                          cameras.truth.enroll_folder)  # fmt: skip
        assert done.code == 0, done
        points = []
        try:
            for taken in arguments.taken:
                for number in arguments.cameras:
                    point = measure(cameras, number, taken, arguments.seconds, folder / "people", models)
                    points.append(point)
                    print(json.dumps(asdict(point) | {"share": round(point.share, 3)}), flush=True)  # noqa: T201
        finally:
            cameras.stop()
    if arguments.plot:
        _plot(points, arguments.plot)


def _plot(points: Sequence[Point], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for taken in sorted({point.taken for point in points}):
        line = [point for point in points if point.taken == taken]
        label = f"{taken:.0%} of the machine taken by others"
        axes.plot([p.cameras for p in line], [100 * p.share for p in line], marker="o", label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted({point.cameras for point in points}), sorted({str(p.cameras) for p in points}, key=int))
    axes.set_xlabel("cameras, 1280x720 at 25 frames a second")
    axes.set_ylabel("visits that are named, %")
    axes.set_ylim(0, 105)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="lower left")
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main()
