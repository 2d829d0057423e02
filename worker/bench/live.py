"""How many live cameras one worker keeps up with: a real RTSP server, the real command, a real Redis.

The server sends a clip, joined to itself for as long as is measured, at its own speed to every camera; it decodes
nothing, but shares the processor with the worker. Latency is what the worker itself reports: from the arrival of the
frame that caused an event until Redis has accepted it.
"""

import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from worker.bench.contest import UnableError, Work
from worker.errors import SourceError
from worker.redis.embedded import embedded_redis
from worker.video.clips import repeat_clip

SYSTEM_PYTHON: Final = "/usr/bin/python3"
STREAM: Final = "facestream:bench"
MAX_P95_S: Final = 0.5
"""Cameras are kept up with where events come within this time, to the end,"""
MIN_READ_SHARE: Final = 0.97
"""and frames are decoded as fast as they come. Frames superseded by newer ones only make looks rarer."""
Buckets = Mapping[float, float]
_START_S: Final = 90.0
_SETTLE_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class LiveResult:
    """What a worker did with ``cameras`` live cameras for ``seconds``.

    ``read_fps`` frames a second and camera that were decoded; ``dropped`` and ``skipped`` frames by reason;
    ``latency_s`` from a frame's arrival to its event in Redis: p50 and p95, over all and over the first and the last
    third of the time; ``worker_cpu`` and ``server_cpu`` processors in use on average.
    """

    cameras: int
    seconds: float
    clip_fps: float
    frames: int
    read_fps: float
    dropped: dict[str, int]
    skipped: dict[str, int]
    events: int
    latency_s: dict[str, float] = field(default_factory=dict)
    worker_cpu: float = 0.0
    server_cpu: float = 0.0

    @property
    def kept_up(self) -> bool:
        """Every camera was followed at full speed, and events came in time to the end."""
        return (
            self.read_fps >= MIN_READ_SHARE * self.clip_fps
            and not self.dropped.keys() - {"superseded"}
            and bool(self.latency_s)
            and max(self.latency_s["p95"], self.latency_s["p95_last"]) < MAX_P95_S
        )


def measure_live(
    cameras: int,
    seconds: float,
    clip: Path,
    *,
    model: str | None = None,
    models_dir: Path | None = None,
    gallery: Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> LiveResult:
    """Lets a worker read ``clip`` (H.264 in MP4) from ``cameras`` live cameras for ``seconds``.

    People linger for a second only, so that the clip's people come and go again and again.

    Args:
        settings: further fields of the configuration.

    Raises:
        UnableError: no RTSP server, no Redis, or the worker does not start.
    """
    require_rtsp_server()
    with tempfile.TemporaryDirectory(prefix="facestream-live-") as name, embedded_redis() as redis_url:
        folder = Path(name)
        clip_fps = _long_clip(clip, folder / "long.mp4", seconds + _START_S + _SETTLE_S)
        with _server(folder / "long.mp4", cameras) as (server, port):
            config: dict[str, Any] = {
                "cameras": [{"id": f"live-{n}", "source": f"rtsp://127.0.0.1:{port}/{n}"} for n in _numbers(cameras)],
                "gallery": str(gallery) if gallery else None,
                "model": model,
                "models_dir": str(models_dir) if models_dir else None,
                "redis": {"url": redis_url, "stream": STREAM},
                "recognition": {"linger_s": 1.0, "verdict_timeout_s": 1.0},
                "metrics": {"host": "127.0.0.1", "port": free_port()},
                "log": {"level": "warning"},
            }
            config |= dict(settings or {})
            with _worker(config, folder) as worker:
                return _observe(worker, server, config, cameras, seconds, clip_fps)


def sweep(
    cameras: Sequence[int], seconds: float, clip: str, model: str, models_dir: str | None, gallery: str | None
) -> Mapping[str, Work]:
    """A contestant with a work for each number of ``cameras``; each answers with the fields of a LiveResult and
    ``kept_up``."""

    def work(count: int) -> Work:
        def run() -> LiveResult:
            folder, people = models_dir and Path(models_dir), gallery and Path(gallery)
            return measure_live(
                count, seconds, Path(clip), model=model, models_dir=folder or None, gallery=people or None
            )

        return run, lambda result: asdict(result) | {"kept_up": result.kept_up}

    return {str(count): work(count) for count in cameras}


def _long_clip(clip: Path, target: Path, seconds: float) -> float:
    try:
        return repeat_clip(clip, target, seconds)
    except SourceError as error:
        raise UnableError(str(error)) from None


def require_rtsp_server() -> None:
    """
    Raises:
        UnableError: the parts of a GStreamer RTSP server are missing; the message names their packages.
    """
    check = (
        "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst, GstRtspServer; "
        "Gst.init(None); assert all(map(Gst.ElementFactory.find, ('qtdemux', 'h264parse', 'rtph264pay')))"
    )
    if shutil.which(SYSTEM_PYTHON):
        found = subprocess.run([SYSTEM_PYTHON, "-c", check], capture_output=True, timeout=60, check=False)  # noqa: S603
        if not found.returncode:
            return
    raise UnableError(
        "no GStreamer RTSP server: install python3-gi, gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-good and "
        "gstreamer1.0-plugins-bad"
    )


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _server(clip: Path, cameras: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    port = free_port()
    script = Path(__file__).with_name("rtsp_server.py")
    process = subprocess.Popen(  # noqa: S603 - our own script
        [SYSTEM_PYTHON, str(script), str(port), str(clip), str(cameras)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        if not process.stdout or process.stdout.readline().strip() != "ready":
            raise UnableError("the RTSP server did not start")
        yield process, port
    finally:
        process.kill()
        process.communicate()


@contextmanager
def _worker(config: Mapping[str, Any], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    file, log = folder / "config.yaml", folder / "worker.log"
    file.write_text(yaml.safe_dump(dict(config)))
    with log.open("wb") as errors:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "worker", "run", "--config", str(file)],
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
        )
        try:
            yield process
        except UnableError as error:
            said = log.read_text(errors="replace").strip().splitlines()
            raise UnableError(f"{error}: {said[-1] if said else 'it said nothing'}") from None
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _observe(
    worker: subprocess.Popen[bytes],
    server: subprocess.Popen[str],
    config: Mapping[str, Any],
    cameras: int,
    seconds: float,
    clip_fps: float,
) -> LiveResult:
    url = f"http://127.0.0.1:{config['metrics']['port']}/metrics"
    _wait_for_cameras(worker, url, cameras)
    time.sleep(_SETTLE_S)
    before, cpu_before, begun_s = _counters(url), _cpu_s(worker, server), time.monotonic()
    readings = [_events(url)]
    for third in (1, 2, 3):
        _wait_until(begun_s + third * seconds / 3, worker)
        readings.append(_events(url))
    after, cpu_after, passed_s = _counters(url), _cpu_s(worker, server), time.monotonic() - begun_s
    frames = int(sum(_since(before, after, "frames_read").values()))
    events = max(readings[-1].values(), default=0.0) - max(readings[0].values(), default=0.0)
    return LiveResult(
        cameras=cameras,
        seconds=round(passed_s, 1),
        clip_fps=clip_fps,
        frames=frames,
        read_fps=round(frames / passed_s / cameras, 2),
        dropped=_since(before, after, "frames_dropped"),
        skipped=_since(before, after, "frames_skipped"),
        events=int(events),
        latency_s={
            "p50": quantile_s(readings[0], readings[3], 0.5),
            "p95": quantile_s(readings[0], readings[3], 0.95),
            "p95_first": quantile_s(readings[0], readings[1], 0.95),
            "p95_last": quantile_s(readings[2], readings[3], 0.95),
        }
        if events
        else {},
        worker_cpu=round((cpu_after[0] - cpu_before[0]) / passed_s, 2),
        server_cpu=round((cpu_after[1] - cpu_before[1]) / passed_s, 2),
    )


def _wait_until(deadline_s: float, worker: subprocess.Popen[bytes]) -> None:
    while (left_s := deadline_s - time.monotonic()) > 0:
        time.sleep(min(1.0, left_s))
        if worker.poll() is not None:
            raise UnableError(f"the worker ended with {worker.returncode}")


def _wait_for_cameras(worker: subprocess.Popen[bytes], url: str, cameras: int) -> None:
    deadline_s = time.monotonic() + _START_S
    while time.monotonic() < deadline_s:
        if worker.poll() is not None:
            raise UnableError(f"the worker ended with {worker.returncode}")
        try:
            streaming = _gauge(url, "facestream_source_state", state="streaming")
        except httpx.HTTPError:
            streaming = 0
        if streaming == cameras:
            return
        time.sleep(0.2)
    raise UnableError(f"not all cameras came within {_START_S:g} s")


def _events(url: str) -> Buckets:
    """How many events came within each bound (seconds), over all cameras. By the frame that caused the event: an
    event's own ``captured_at`` is when its face was last seen, which for a verdict that fell due later is long past."""
    counts: dict[float, float] = {}
    for family in _scrape(url):
        for sample in family.samples:
            if sample.name == "facestream_event_latency_seconds_bucket":
                bound_s = float(sample.labels["le"])
                counts[bound_s] = counts.get(bound_s, 0.0) + sample.value
    return dict(sorted(counts.items()))


def quantile_s(before: Buckets, after: Buckets, share: float) -> float:
    """The latency within which ``share`` of the events between two readings came, linear within a bucket; infinite
    where there were none."""
    grown = [(bound_s, count - before.get(bound_s, 0.0)) for bound_s, count in after.items()]
    wanted = share * grown[-1][1] if grown else 0.0
    lower_s = below = 0.0
    for bound_s, count in grown:
        if wanted and count >= wanted:
            if math.isinf(bound_s):
                break
            return round(lower_s + (bound_s - lower_s) * (wanted - below) / (count - below), 3)
        lower_s, below = bound_s, count
    return math.inf


def _counters(url: str) -> dict[tuple[str, str], float]:
    """Frames by metric and reason, summed over cameras."""
    sums: dict[tuple[str, str], float] = {}
    for family in _scrape(url):
        if family.name.startswith("facestream_frames_"):
            for sample in family.samples:
                if sample.name.endswith("_total"):
                    key = family.name.removeprefix("facestream_"), sample.labels.get("reason", "")
                    sums[key] = sums.get(key, 0.0) + sample.value
    return sums


def _since(
    before: Mapping[tuple[str, str], float], after: Mapping[tuple[str, str], float], name: str
) -> dict[str, int]:
    grown = {
        reason: int(value - before.get((key, reason), 0.0)) for (key, reason), value in after.items() if key == name
    }
    return {reason: count for reason, count in grown.items() if count}


def _gauge(url: str, name: str, **labels: str) -> float:
    return sum(
        float(sample.value)
        for family in _scrape(url)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def _scrape(url: str) -> Any:
    return list(text_string_to_metric_families(httpx.get(url, timeout=5.0).raise_for_status().text))


def _cpu_s(*processes: subprocess.Popen[Any]) -> Sequence[float]:
    import psutil

    used = []
    for process in processes:
        times = psutil.Process(process.pid).cpu_times()
        used.append(float(times.user + times.system))
    return used


def _numbers(cameras: int) -> range:
    return range(1, cameras + 1)
