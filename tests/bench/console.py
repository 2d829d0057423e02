"""How soon an event is on the pages of the console, beside a worker that reads a camera.

Usage: python -m tests.bench.console [--pages 50] [--rate 20] [--seconds 60]

Everything is real and on this machine: a Redis, a worker that reads the demo's camera, ``facestream console``, pages
that follow live events, and one more page, Now, in Chromium. Delays are from just before an event is written to Redis
until it has arrived; in Chromium, until its line is on the page.
"""

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import redis
from playwright.sync_api import sync_playwright

from tests.support.command_line import Running, running
from tests.support.console import API, PASSWORD
from tests.support.publishing import STREAM
from tests.support.sample_events import make_event, stream_fields
from worker.demo.footage import make_demo_clip
from worker.demo.pages import camera
from worker.demo.stranger import make_stranger_clip
from worker.redis.embedded import embedded_redis

CAMERA = "bench"
OBSERVE = f"""() => {{
  window.seen = {{}};
  new MutationObserver((changes) => {{
    for (const each of changes) for (const line of each.addedNodes)
      if (line.dataset && line.dataset.id.startsWith("{CAMERA}_")) window.seen[line.dataset.id] ??= Date.now() / 1000;
  }}).observe(document.getElementById("strip"), {{ childList: true }});
}}"""
WEIGHT = """() => {
  const loaded = performance.getEntriesByType("resource");
  const page = performance.getEntriesByType("navigation")[0];
  return { bytes: loaded.reduce((sum, each) => sum + each.transferSize, page.transferSize), ms: page.loadEventEnd };
}"""


def publish(url: str, rate: float, seconds: float) -> dict[str, float]:
    """Writes events of new sightings, evenly; returns when each was written, by its sighting."""
    written: dict[str, float] = {}
    with redis.Redis.from_url(url) as client:
        due_s = time.monotonic()
        for number in range(round(rate * seconds)):
            now = datetime.now(UTC)
            sighting_id = f"{CAMERA}_{now.isoformat(timespec='milliseconds').replace('+00:00', 'Z')}_{number}"
            event = make_event(number, type="started", camera_id=CAMERA, sighting_id=sighting_id, started_at=now)
            written[sighting_id] = time.time()
            client.xadd(STREAM, stream_fields(event))
            due_s += 1 / rate
            time.sleep(max(0.0, due_s - time.monotonic()))
    return written


async def follow(port: int, cookie: str, arrived: list[tuple[str, float]], pages: int) -> None:
    """As many pages as wanted, which do nothing but take events."""

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {API}/events HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n".encode())
        while line := await reader.readline():
            if found := re.search(rb'"sighting_id": "([^"]+)"', line):
                arrived.append((found[1].decode(), time.time()))

    await asyncio.gather(*(one() for _ in range(pages)))


def percentile(values: list[float], share: float) -> float:
    return statistics.quantiles(values, n=1000)[round(share * 1000) - 1]


def told(name: str, delays: list[float], expected: int) -> str:
    return (
        f"{name}: {len(delays)} of {expected} arrived; median {percentile(delays, 0.5) * 1000:.0f} ms, "
        f"95 of 100 within {percentile(delays, 0.95) * 1000:.0f} ms, the last after {max(delays) * 1000:.0f} ms"
    )


def entered(console: Running) -> tuple[str, httpx.Client]:
    """The address, and a client that is logged in as the first admin."""
    found = console.until(lambda: re.search(r"(http://127\.0\.0\.1:\d+)/setup#(\S+)", "".join(console.stdout)), 120)
    client = httpx.Client(base_url=found[1], timeout=60, trust_env=False)
    made = client.post(f"{API}/setup", json={"code": found[2], "name": "bench", "password": PASSWORD})
    made.raise_for_status()
    return found[1], client


def measure(pages: int, rate: float, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as name, embedded_redis() as url:
        folder = Path(name)
        make_demo_clip(folder)
        place = ["--gallery", str(folder / "people")]
        subprocess.run(
            [sys.executable, "-m", "worker", "enroll", *place, "--model", "dlib-resnet", str(folder / "photos")],
            check=True, capture_output=True,
        )  # fmt: skip
        pictures = {"FACESTREAM_EVIDENCE__STORE": str(folder / "pictures")}
        with (
            camera(make_stranger_clip(folder)) as source,
            running("run", "--source", source, "--camera-id", "lobby", *place, "--redis", url, "--metrics-port", 0,
                    **pictures) as worker,
            running("console", *place, "--redis", url, "--port", 0, **pictures) as console,
        ):  # fmt: skip
            worker.until(lambda: worker.metric('facestream_source_state{camera="lobby",state="streaming"}'), 120)
            address, client = entered(console)
            with sync_playwright() as driver:
                browser = driver.chromium.launch(
                    executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
                )
                context = browser.new_context(base_url=address)
                context.add_cookies(
                    [
                        {"name": cookie.name, "value": cookie.value or "", "url": address}
                        for cookie in client.cookies.jar
                    ]
                )
                page = context.new_page()
                page.goto("/", wait_until="load")
                weights: list[Any] = [page.evaluate(WEIGHT)]
                page.evaluate(OBSERVE)
                arrived: list[tuple[str, float]] = []
                port = int(address.rpartition(":")[2])
                secret = f"facestream_session={client.cookies['facestream_session']}"
                loop = asyncio.new_event_loop()
                threading.Thread(
                    target=lambda: loop.run_until_complete(follow(port, secret, arrived, pages)), daemon=True
                ).start()
                time.sleep(3)
                frames = worker.metric('facestream_frames_read_total{camera="lobby"}')
                process = psutil.Process(console.process.pid)
                busy_s = sum(process.cpu_times()[:2])
                begun_s = time.monotonic()
                written = publish(url, rate, seconds)
                took_s = time.monotonic() - begun_s
                busy_s = sum(process.cpu_times()[:2]) - busy_s
                frames = worker.metric('facestream_frames_read_total{camera="lobby"}') - frames
                time.sleep(3)
                seen: dict[str, float] = page.evaluate("window.seen")
                again = context.new_page()
                again.goto("/", wait_until="load")
                weights.append(again.evaluate(WEIGHT))
                browser.close()
                client.close()
            delays = [at - written[sighting] for sighting, at in arrived if sighting in written]
            say(
                f"{os.cpu_count()} cores; {pages} pages, {len(written) / took_s:.1f} events a second for {took_s:.0f} s"
            )
            say(f"beside them the worker read {frames / took_s:.1f} frames a second")
            say(f"the console took {busy_s / took_s:.0%} of one core")
            say(told("at a page", delays, pages * len(written)))
            say(told("on the page Now in Chromium", [at - written[each] for each, at in seen.items()], len(written)))
            for when, weight in zip(("the first time", "again, with faces"), weights, strict=True):
                say(f"the page Now, {when}: {weight['ms']:.0f} ms, {weight['bytes'] / 1000:.0f} kB")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--pages", type=int, default=50)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    asked = parser.parse_args()
    measure(asked.pages, asked.rate, asked.seconds)
