"""Live 1080p25 cameras that the worker keeps up with."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from worker.bench.comparison import Setup
from worker.bench.contest import UnableError
from worker.bench.rows import Row, unable

NAMES: Final = ("live_1080p25/cameras",)
CAMERAS: Final = (1, 2, 4, 6, 8)
_SECONDS: Final = 20.0
_QUICK_CAMERAS: Final = (1, 4)
_QUICK_SECONDS: Final = 8.0


def measure(setup: Setup) -> Iterator[Row]:
    """The row, where it is wanted."""
    if not setup.wanted(NAMES[0]):
        return
    cameras = _QUICK_CAMERAS if setup.quick else CAMERAS
    try:
        material = setup.material
        contestant = setup.start(
            "worker.bench.live:sweep",
            {
                "cameras": cameras,
                "seconds": _QUICK_SECONDS if setup.quick else _SECONDS,
                "clip": str(material.clip),
                "model": str(material.manifest),
                "models_dir": str(material.manifest.parent),
                "gallery": str(material.gallery),
            },
        )
        try:
            results = [contestant.work(str(count)).answer for count in cameras]
        finally:
            contestant.close()
    except UnableError as error:
        yield unable(NAMES[0], "cameras", str(error))
    else:
        yield row(results)


def row(results: Sequence[Mapping[str, Any]]) -> Row:
    """The row of a sweep: the most cameras up to which all were kept up with; no peer serves cameras."""
    kept = 0
    for result in results:
        if not result["kept_up"]:
            break
        kept = result["cameras"]
    steps = "; ".join(_step(result) for result in results)
    note = f"no peer reads live cameras; the RTSP server runs on the same processors; {steps}"
    return Row(NAMES[0], float(kept), None, "cameras", None, None, None, note)


def _step(result: Mapping[str, Any]) -> str:
    frames = max(1, result["frames"])
    latency = result["latency_s"]
    times = f"p50/p95 {1000 * latency['p50']:.0f}/{1000 * latency['p95']:.0f} ms" if latency else "no events"
    dropped = 100 * sum(result["dropped"].values()) / frames
    shed = 100 * result["skipped"].get("load", 0) / frames
    read = f"{result['cameras']}: {result['read_fps']:g} frames/s read"
    return f"{read}, {times}, {dropped:.0f} % dropped, {shed:.0f} % shed"
