"""How many sightings a second a PostgreSQL takes, and how long a search through them takes.

python tests/bench/database_past.py --sightings 100000 --workers 4 --dimension 512
"""

# ruff: noqa: T201
import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.support.past import MODEL, sighting  # noqa: E402
from tests.support.postgres import running_postgres  # noqa: E402
from worker.database.address import parse_database_url  # noqa: E402
from worker.database.database import open_postgres  # noqa: E402
from worker.database.layout import upgrade  # noqa: E402
from worker.history.store import History  # noqa: E402

BATCH = 100
KEEP_S = 1e6


def write(url: str, worker: int, count: int, dimension: int) -> None:
    rng = np.random.default_rng(worker)
    with History.open(url) as past:
        for first in range(0, count, BATCH):
            vectors = rng.normal(size=(BATCH, dimension)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            rows = [
                sighting(first + row, vector, sighting_id=f"w{worker}_{first + row}")
                for row, vector in enumerate(vectors)
            ]
            past.write(rows, keep_s=KEEP_S, remember_s=KEEP_S)


def measure(sightings: int, workers: int, dimension: int) -> None:
    with running_postgres("fsync=on", "shared_buffers=512MB") as server:
        url = server.new_database("bench")
        upgrade(open_postgres(parse_database_url(url)))
        started = time.monotonic()
        with ThreadPoolExecutor(workers) as pool:
            share = sightings // workers
            list(pool.map(lambda worker: write(url, worker, share, dimension), range(workers)))
        took_s = time.monotonic() - started
        print(f"{workers} workers wrote {sightings} sightings in {took_s:.1f} s: {sightings / took_s:.0f} a second")
        probe = np.zeros(dimension, np.float32)
        probe[0] = 1.0
        with History.open(url) as past:
            for _ in range(2):
                started = time.monotonic()
                past.similar(probe, MODEL, 0.9)
                print(f"a search through all of them: {time.monotonic() - started:.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sightings", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--dimension", type=int, default=512)
    options = parser.parse_args()
    measure(options.sightings, options.workers, options.dimension)
