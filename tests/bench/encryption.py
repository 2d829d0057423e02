"""What encryption at rest costs: ``python -m tests.bench.encryption [PEOPLE]`` prints a table of times without and with
a key. A figure is the median of several in each of three rounds; files are in the page cache."""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.support.past import sighting
from tests.support.sample_events import make_event
from worker.config import OutboxConfig
from worker.encryption import Keys, new_key, parse_keys, use
from worker.events.outbox import Outbox
from worker.gallery.contents import NewSample
from worker.gallery.folder import FolderGallery
from worker.history.records import EmbedderId
from worker.history.store import History
from worker.sqlite import convert

DIMENSION = 512
KEEP_S = 86_400.0
ROUNDS = 3


def milliseconds(action: Callable[[int], object], times: int) -> float:
    taken = []
    for number in range(times):
        begun = time.perf_counter()
        action(number)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1000


def vectors(count: int) -> np.ndarray:
    made = np.random.default_rng(count).normal(size=(count, DIMENSION)).astype(np.float32)
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), np.float32)


def costs(folder: Path, people: int) -> dict[str, float]:
    """Milliseconds by what is done."""
    gallery = FolderGallery.create(folder / "gallery", "model", "digest", DIMENSION)
    rows = vectors(people + 100)
    samples = [NewSample(f"person {n}", row, f"{n}.jpg", f"{n:064x}", quality=0.5) for n, row in enumerate(rows)]
    gallery.add(samples[:people])
    history = History.open(folder / "state", create=True)
    embedder = EmbedderId("model", "digest")

    def write_sighting(number: int) -> None:
        seen = sighting(number, rows[number % people], embedder=embedder, identity_name="somebody", identity_id="p")
        history.write([seen], keep_s=KEEP_S, remember_s=KEEP_S)

    outbox = Outbox(OutboxConfig(), path=folder / "state" / "outbox-w.sqlite3")
    found = {
        f"open a gallery of {people:,}": milliseconds(lambda _: FolderGallery.open(folder / "gallery").close(), 5),
        "enrol one more person": milliseconds(lambda number: gallery.add([samples[people + number]]), 21),
        "write a sighting": milliseconds(write_sighting, 500),
        "write an event that waits": milliseconds(lambda _: outbox.append(make_event()), 500),
        "open a history of 500 sightings": milliseconds(lambda _: History.open(folder / "state").close(), 11),
        "search 500 sightings": milliseconds(lambda _: history.similar(rows[0], embedder, 0.5), 11),
    }
    outbox.close()
    history.close()
    return found


def main() -> None:
    people = int(sys.argv[1]) if sys.argv[1:] else 20_000
    with tempfile.TemporaryDirectory() as folder:
        rounds: dict[str, list[dict[str, float]]] = {"plain": [], "encrypted": []}
        for number in range(ROUNDS):
            for kind, found in rounds.items():
                use(Keys() if kind == "plain" else parse_keys(new_key()))
                found.append(costs(Path(folder) / f"{kind}-{number}", people))
        for what in rounds["plain"][0]:
            plain, sealed = (statistics.median(found[what] for found in rounds[kind]) for kind in rounds)
            sys.stdout.write(f"{what:32} {plain:8.2f} ms plain {sealed:8.2f} ms encrypted\n")
        use(parse_keys(new_key()))
        begun = time.perf_counter()
        convert(Path(folder) / "plain-0" / "state" / "history.sqlite3")
        sys.stdout.write(f"encrypt a history of 500 sightings: {(time.perf_counter() - begun) * 1000:.0f} ms\n")


if __name__ == "__main__":
    main()
