"""What it costs to decode cameras in processes of their own.

    python -m tests.bench.decoders CLIP [--cameras 4] [--seconds 15] [--rounds 3]

A real RTSP server shows the clip (H.264 in MP4) at so many cameras. A worker without networks reads them, and looks at
the frames that are due; both ways take turns. Processor time is that of the worker and all of its processes.
"""

import argparse
import os
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.processes import decoders_of, fork_servers_of
from tests.support.rtsp import LiveRtspServer
from worker.config import CameraConfig, Config, DecodingConfig
from worker.observer import Observer
from worker.types import Attention
from worker.video.cameras import Cameras

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
ATTENTION: Attention = "deciding"


@dataclass
class Seen(Observer):
    """Frames that were read, and when the first one came."""

    read: int = 0
    dropped: int = 0
    first_s: dict[str, float] = field(default_factory=dict)

    def frame_read(self, camera_id: str) -> None:
        self.read += 1
        self.first_s.setdefault(camera_id, time.monotonic())

    def frame_dropped(self, camera_id: str, reason: str, count: int = 1) -> None:
        self.dropped += count


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def pss_mb(pid: int) -> float:
    """Its memory; what it shares with others counts by its share."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1000


def measure(processes: str, server: LiveRtspServer, number: int, seconds: float) -> dict[str, float]:
    seen = Seen()
    config = Config(worker_id="w", decoding=DecodingConfig.model_validate({"processes": processes}))
    cameras = Cameras(config, seen, lasting=True)
    me, looked = os.getpid(), 0
    begun_s = time.monotonic()
    try:
        for index in range(number):
            camera_id = f"camera-{index}"
            cameras.start(CameraConfig.model_validate({"id": camera_id, "source": server.url(f"/{camera_id}")}))
        while len(seen.first_s) < number:
            cameras.next_batch(0.1)
        started_s = max(seen.first_s.values()) - begun_s
        pids = [me, *fork_servers_of(me), *decoders_of(me)]
        before_s, read, since_s = {pid: cpu_s(pid) for pid in pids}, seen.read, time.monotonic()
        while time.monotonic() < since_s + seconds:
            for frame in cameras.next_batch(0.1) or ():
                cameras.schedule.attend(frame.camera_id, ATTENTION)
                looked += 1
        passed_s = time.monotonic() - since_s
        used_s = sum(cpu_s(pid) - before_s[pid] for pid in pids)
        mine_s = cpu_s(me) - before_s[me]
        children = decoders_of(me)
        return {
            "processor time, ms a frame": 1000 * used_s / (seen.read - read),
            "of that in the worker, ms a frame": 1000 * mine_s / (seen.read - read),
            "frames/s read": (seen.read - read) / passed_s / number,
            "looks/s": looked / passed_s / number,
            "until the last camera's first frame, s": started_s,
            "memory of a decoder, MB": statistics.mean(pss_mb(pid) for pid in children) if children else 0.0,
            "memory of the fork server, MB": sum(pss_mb(pid) for pid in fork_servers_of(me)),
            "memory of the worker, MB": pss_mb(me),
        }
    finally:
        cameras.close()


def main() -> None:
    """Measures, and prints medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("clip", type=Path)
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {"off": [], "live": []}
    server = LiveRtspServer([f"/camera-{index}" for index in range(given.cameras)], given.clip, apart_s=0.5)
    server.start()
    try:
        for number in range(given.rounds):
            for processes in ("off", "live") if number % 2 else ("live", "off"):
                found[processes].append(measure(processes, server, given.cameras, given.seconds))
    finally:
        server.stop()
    for what in found["off"][0]:
        values = {mode: [measured[what] for measured in rounds] for mode, rounds in found.items()}
        spans = {mode: f"{statistics.median(v):8.2f} ({min(v):.2f} to {max(v):.2f})" for mode, v in values.items()}
        print(f"{what:42} in the worker {spans['off']:28} in processes {spans['live']}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
