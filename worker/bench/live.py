"""How many live cameras one worker keeps up with: a real RTSP server, the real command, a real Redis.

The server sends a clip to every camera at the speed of the clip, again and again until the measurement ends. It
decodes nothing, but it shares the processor with the worker. The worker itself reports the latency: from the arrival
of the frame that caused an event until Redis has accepted the event.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from worker.bench.comparison import Row, Setup, unable
from worker.bench.contest import Contestant, UnableError, Work
from worker.bench.material import REAL_MODEL_ID
from worker.bench.scraping import counters, events, free_port, gauge, quantile_s, since
from worker.errors import SourceError
from worker.files import scratch_folder
from worker.redis.embedded import embedded_redis
from worker.video.clips import repeat_clip

NAMES: Final = ("live_1080p25/cameras",)
CAMERAS: Final = (1, 2, 4, 6, 8)
_SECONDS: Final = 20.0
_QUICK_CAMERAS: Final = (1, 4)
_QUICK_SECONDS: Final = 8.0
SYSTEM_PYTHON: Final = "/usr/bin/python3"
MOST_CAMERAS: Final = 64
STREAM: Final = "facestream:bench"
MAX_P95_S: Final = 0.5
"""The worker keeps up with cameras only if 95 % of the events come within this time, also in the last third."""
MIN_READ_SHARE: Final = 0.97
"""The worker keeps up only if it decodes this share of the frames. A decoded frame that a newer one replaces still
counts: the worker only looks less often."""
_START_S: Final = 90.0
_SETTLE_S: Final = 3.0


def measure(setup: Setup) -> Iterator[Row]:
    """The row, if it is wanted."""
    if not setup.wanted(NAMES[0]):
        return
    cameras = _QUICK_CAMERAS if setup.quick else CAMERAS
    try:
        with closing(start_sweep(setup, cameras, _QUICK_SECONDS if setup.quick else _SECONDS)) as contestant:
            results = [contestant.work(str(count)).answer for count in cameras]
    except UnableError as error:
        yield unable(NAMES[0], "cameras", str(error))
    else:
        yield row(results)


def measure_capacity(setup: Setup, say: Callable[[str], None]) -> Row:
    """How many cameras like the clip this machine carries; ``say`` is told what each number of cameras gave.

    Raises:
        UnableError: there is no RTSP server or no Redis, or the worker does not start.
    """
    results: list[Mapping[str, Any]] = []
    with closing(start_sweep(setup, range(1, MOST_CAMERAS + 1), _QUICK_SECONDS)) as contestant:

        def keeps_up(cameras: int) -> bool:
            results.append(contestant.work(str(cameras)).answer)
            say(f"{'kept up with' if results[-1]['kept_up'] else 'fell behind with'} {step(results[-1])}")
            return bool(results[-1]["kept_up"])

        find_capacity(keeps_up)
    return row(sorted(results, key=lambda result: int(result["cameras"])))


def start_sweep(setup: Setup, cameras: Sequence[int], seconds: float, *, real: bool = False) -> Contestant:
    """A contestant with a work for each number of ``cameras``; see :func:`sweep`.

    With ``real`` it has the model that recognises people; otherwise that of the default's size, whose names mean
    nothing.

    Raises:
        UnableError: it cannot be started.
    """
    material = setup.material
    model = {
        "model": str(material.manifest),
        "models_dir": str(material.manifest.parent),
        "gallery": str(material.gallery),
    }
    if real:
        model = {
            "model": REAL_MODEL_ID,
            "models_dir": str(material.models_dir or ""),
            "gallery": str(material.real_gallery),
        }
    return setup.start(
        "worker.bench.live:sweep", {"cameras": list(cameras), "seconds": seconds, "clip": str(material.clip), **model}
    )


def find_capacity(keeps_up: Callable[[int], bool]) -> int:
    """A number of cameras with which a machine ``keeps_up``; up to :data:`MOST_CAMERAS` are tried.

    The number is doubled until it is too large; then the middle is tried. From eight cameras on, a quarter more may be
    possible: an exact answer would take minutes.
    """
    carried, too_many, cameras = 0, MOST_CAMERAS + 1, 2
    while too_many - carried > max(1, carried // 4):
        if keeps_up(cameras):
            carried = cameras
        else:
            too_many = cameras
        cameras = min(2 * carried or 1, (carried + too_many) // 2)
    return carried


def row(results: Sequence[Mapping[str, Any]]) -> Row:
    """The row of a sweep: the largest number of cameras that the worker kept up with. No peer serves cameras.

    Larger numbers do not count after the first one at which the worker fell behind.
    """
    kept = 0
    for result in results:
        if not result["kept_up"]:
            break
        kept = result["cameras"]
    steps = "; ".join(step(result) for result in results)
    note = f"no peer reads live cameras; the RTSP server runs on the same processors; {steps}"
    return Row(NAMES[0], float(kept), None, "cameras", None, None, None, note)


def step(result: Mapping[str, Any]) -> str:
    """What one number of cameras gave, in words."""
    frames = max(1, result["frames"])
    latency = result["latency_s"]
    times = f"p50/p95 {1000 * latency['p50']:.0f}/{1000 * latency['p95']:.0f} ms" if latency else "no events"
    dropped = 100 * sum(result["dropped"].values()) / frames
    shed = 100 * result["skipped"].get("load", 0) / frames
    read = f"{result['cameras']}: {result['read_fps']:g} frames/s read"
    return f"{read}, {times}, {dropped:.0f} % dropped, {shed:.0f} % shed"


@dataclass(frozen=True, slots=True)
class LiveResult:
    """What a worker did with ``cameras`` live cameras for ``seconds``.

    ``read_fps`` is the number of frames that were decoded a second and camera. ``dropped`` and ``skipped`` count
    frames by reason. ``named`` is how many sightings ended with a name. ``latency_s`` is the time from a frame's
    arrival to its event in Redis: p50 and p95 of the whole time, and p95 of its first and last third. ``worker_cpu``
    and ``server_cpu`` are the processors in use on average.
    """

    cameras: int
    seconds: float
    clip_fps: float
    frames: int
    read_fps: float
    dropped: dict[str, int]
    skipped: dict[str, int]
    events: int
    named: int
    latency_s: dict[str, float] = field(default_factory=dict)
    worker_cpu: float = 0.0
    server_cpu: float = 0.0

    @property
    def kept_up(self) -> bool:
        """Whether every camera was followed at full speed and events came in time until the end."""
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

    A sighting ends one second after the person was last seen, so that the people of the clip come and go repeatedly.

    Args:
        settings: further fields of the configuration.

    Raises:
        UnableError: there is no RTSP server or no Redis, or the worker does not start.
    """
    require_rtsp_server()
    with scratch_folder() as folder, embedded_redis() as redis_url:
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
    """A contestant with a work for each number of ``cameras``.

    Each work answers with the fields of a :class:`LiveResult`, and with ``kept_up``.
    """

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
    """Returns if the parts of a GStreamer RTSP server are installed.

    Raises:
        UnableError: they are missing; the message names their packages.
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
    before, cpu_before, begun_s = counters(url), _cpu_s(worker, server), time.monotonic()
    readings, named_before = [events(url)], _named(url)
    for third in (1, 2, 3):
        _wait_until(begun_s + third * seconds / 3, worker)
        readings.append(events(url))
    after, cpu_after, passed_s = counters(url), _cpu_s(worker, server), time.monotonic() - begun_s
    frames = int(sum(since(before, after, "frames_read").values()))
    count = max(readings[-1].values(), default=0.0) - max(readings[0].values(), default=0.0)
    return LiveResult(
        cameras=cameras,
        seconds=round(passed_s, 1),
        clip_fps=clip_fps,
        frames=frames,
        read_fps=round(frames / passed_s / cameras, 2),
        dropped=since(before, after, "frames_dropped"),
        skipped=since(before, after, "frames_skipped"),
        events=int(count),
        named=_named(url) - named_before,
        latency_s={
            "p50": quantile_s(readings[0], readings[3], 0.5),
            "p95": quantile_s(readings[0], readings[3], 0.95),
            "p95_first": quantile_s(readings[0], readings[1], 0.95),
            "p95_last": quantile_s(readings[2], readings[3], 0.95),
        }
        if count
        else {},
        worker_cpu=round((cpu_after[0] - cpu_before[0]) / passed_s, 2),
        server_cpu=round((cpu_after[1] - cpu_before[1]) / passed_s, 2),
    )


def _named(url: str) -> int:
    """How many sightings have ended with a name."""
    return int(gauge(url, "facestream_match_similarity_count", named="yes"))


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
            streaming = gauge(url, "facestream_source_state", state="streaming")
        except httpx.HTTPError:
            streaming = 0
        if streaming == cameras:
            return
        time.sleep(0.2)
    raise UnableError(f"not all cameras came within {_START_S:g} s")


def _cpu_s(*processes: subprocess.Popen[Any]) -> Sequence[float]:
    import psutil

    used = []
    for process in processes:
        times = psutil.Process(process.pid).cpu_times()
        used.append(float(times.user + times.system))
    return used


def _numbers(cameras: int) -> range:
    return range(1, cameras + 1)
