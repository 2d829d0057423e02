"""What a scrape costs: GET /metrics of a worker with many cameras, over the loopback interface.

Usage: python -m tests.bench.scrape [CAMERAS]
"""

import statistics
import sys
import time
import urllib.request
from contextlib import closing

from worker.config import MetricsConfig
from worker.observer import SOURCE_STATES
from worker.service.health import Health, HealthServer
from worker.service.metrics import PrometheusObserver

SCRAPES = 200
OUTCOMES = ("matched", "below_threshold", "ambiguous", "not_enough_evidence", "too_short", "blurred", "too_small")
STAGES = ("decode", "detect", "follow", "track", "align", "embed", "search", "decide", "publish")


def tell(observer: PrometheusObserver, cameras: int) -> None:
    """Everything that a busy worker reports of its cameras."""
    for camera in (f"camera-{number:02}" for number in range(cameras)):
        observer.frame_read(camera)
        observer.source_state(camera, SOURCE_STATES[1])
        observer.lease_gained(camera, 1_700_000_000_000)
        observer.queue_depth(camera, 1)
        observer.faces_detected(camera, 3)
        observer.face_quality(camera, 0.6)
        observer.event_latency(camera, 0.2)
        for reason in ("interval", "no_motion", "load"):
            observer.frame_skipped(camera, reason)
        for reason in ("superseded", "stale", "undecodable"):
            observer.frame_dropped(camera, reason)
        for reason in ("too_small", "blurred", "pose", "exposure", "low_score", "low_start_score"):
            observer.face_rejected(camera, reason)
        for outcome in OUTCOMES:
            observer.track_ended(camera, outcome)
        for kind in ("started", "updated", "ended"):
            observer.event_published(camera, kind)
        for named in (True, False):
            observer.verdict(camera, named=named, similarity=0.5, margin=0.1)
    for stage in STAGES:
        with observer.stage(stage):  # type: ignore[arg-type]
            observer.batch(stage, 4)  # type: ignore[arg-type]


def main() -> None:
    cameras = int(sys.argv[1]) if len(sys.argv) > 1 else 16
    observer = PrometheusObserver()
    tell(observer, cameras)
    took_ms, busy_ms, body = [], [], b""
    with closing(HealthServer(MetricsConfig(host="127.0.0.1", port=0), Health(), observer.registry)) as server:
        for _ in range(SCRAPES):
            begun_s, busy_s = time.perf_counter(), time.process_time()
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as answer:
                body = answer.read()
            took_ms.append(1000 * (time.perf_counter() - begun_s))
            busy_ms.append(1000 * (time.process_time() - busy_s))
    series = sum(not line.startswith(b"#") for line in body.splitlines())
    tenths = statistics.quantiles(took_ms, n=10)
    print(  # noqa: T201 - it is a script
        f"{cameras} cameras, {series} series, {len(body) / 1024:.0f} KiB: "
        f"median {statistics.median(took_ms):.1f} ms, from {tenths[0]:.1f} to {tenths[-1]:.1f} ms for 8 of 10 scrapes; "
        f"{statistics.median(busy_ms):.1f} ms of processor time, both ends together"
    )


if __name__ == "__main__":
    main()
