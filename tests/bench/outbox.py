"""What keeping an event costs the pipeline, and how fast a backlog is delivered: ``python -m tests.bench.outbox``."""

import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from tests.support.sample_events import make_event
from worker.config import OutboxConfig
from worker.events.outbox import Outbox
from worker.events.states import LocalStates
from worker.types import Event

_EVENTS = 5000
_STATE = {"format": "facestream.sightings.v1", "sightings": [{"sum": "A" * 2732, "best": "A" * 2732}] * 5}


def main() -> None:
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        for name, path in (("memory", None), ("disk", Path(folder) / "outbox-a.sqlite3")):
            outbox = Outbox(OutboxConfig(), path=path)
            with_delivery(outbox, partial(one_by_one, outbox, name))
            backlog(outbox, name)
            outbox.close()


def one_by_one(outbox: Outbox, name: str) -> None:
    """A thousand a second, while another thread delivers."""
    events = [make_event(number) for number in range(_EVENTS)]
    states = LocalStates(outbox)
    report(f"{name}: append", [timed(partial(append, outbox, event)) for event in events])
    report(f"{name}: keep a state of 27 kB", [timed(lambda: states.keep("door", 0, _STATE)) for _ in range(500)])


def append(outbox: Outbox, event: Event) -> None:
    outbox.append(event, time.monotonic())


def backlog(outbox: Outbox, name: str) -> None:
    for number in range(10_000):
        outbox.append(make_event(number))
    log_bytes = outbox.with_file(lambda spool: spool.log_bytes) or 0
    size_mb = (outbox.path.stat().st_size + log_bytes) / 1e6 if outbox.path else 0.0
    begun_s = time.perf_counter()
    while entries := outbox.take(256):
        outbox.settle([entry.seq for entry in entries])
    took_s = time.perf_counter() - begun_s
    print(f"{name}: a backlog of 10,000 ({size_mb:.0f} MB) is taken at {10_000 / took_s:,.0f} events a second")  # noqa: T201


def with_delivery(outbox: Outbox, action: Callable[[], None]) -> None:
    done = threading.Event()

    def deliver() -> None:
        while not done.wait(0.02):
            outbox.settle([entry.seq for entry in outbox.take(256)])
            outbox.tend()

    thread = threading.Thread(target=deliver)
    thread.start()
    action()
    done.set()
    thread.join()


def timed(action: Callable[[], object]) -> float:
    time.sleep(0.001)
    begun_s = time.perf_counter()
    action()
    return time.perf_counter() - begun_s


def report(what: str, seconds: list[float]) -> None:
    figures = np.quantile(np.array(seconds) * 1e6, [0.5, 0.95, 0.99, 1.0])
    print(f"{what}: median {figures[0]:.0f} us, 95 % {figures[1]:.0f}, 99 % {figures[2]:.0f}, longest {figures[3]:.0f}")  # noqa: T201


if __name__ == "__main__":
    main()
