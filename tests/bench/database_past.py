"""How many sightings a second a PostgreSQL takes, and how long a search through them takes.

python tests/bench/database_past.py --sightings 40000 --more 960000 --workers 4 --dimension 512

Workers write the ``--sightings``; ``--more`` are copied into the table at once, so that the search has a long past.
"""

# ruff: noqa: T201
import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psycopg

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.support.past import MODEL, sighting  # noqa: E402
from tests.support.postgres import running_postgres  # noqa: E402
from worker.database.address import parse_database_url  # noqa: E402
from worker.database.database import open_postgres  # noqa: E402
from worker.database.layout import upgrade  # noqa: E402
from worker.history.rows import sighting_row  # noqa: E402
from worker.history.store import History  # noqa: E402
from worker.types import Vectors  # noqa: E402

BATCH = 100
KEEP_S = 1e6


def write(url: str, worker: int, count: int, dimension: int) -> None:
    rng = np.random.default_rng(worker)
    with History.open(url) as past:
        for first in range(0, count, BATCH):
            rows = [
                sighting(first + row, vector, sighting_id=f"w{worker}_{first + row}")
                for row, vector in enumerate(unit(rng, BATCH, dimension))
            ]
            past.write(rows, keep_s=KEEP_S, remember_s=KEEP_S)


def fill(url: str, count: int, dimension: int) -> None:
    """Puts so many sightings into the table, without a worker."""
    rng = np.random.default_rng(0)
    row = sighting_row(sighting()) | {"recorded_s": time.time(), "expires_s": time.time() + KEEP_S}
    kinds = {"template": "bytea", "evidence": "int4", "corrections": "int4", "quality": "float8"}
    rows = f"COPY facestream.sightings ({', '.join(row)}) FROM STDIN (FORMAT BINARY)"
    with psycopg.connect(url) as connection, connection.cursor().copy(rows) as out:
        out.set_types([kinds.get(name) or ("float8" if name.endswith("_s") else "text") for name in row])
        for first in range(0, count, BATCH):
            for number, vector in enumerate(unit(rng, BATCH, dimension), first):
                at_s = row["started_s"] + number
                new = {"sighting_id": f"more_{number}", "started_s": at_s, "ended_s": at_s + 10}
                out.write_row(list((row | new | {"template": vector.tobytes()}).values()))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE facestream.sightings")


def unit(rng: np.random.Generator, count: int, dimension: int) -> Vectors:
    vectors: Vectors = rng.normal(size=(count, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def measure(sightings: int, more: int, workers: int, dimension: int) -> None:
    with running_postgres("fsync=on", "shared_buffers=512MB", "max_wal_size=8GB") as server:
        url = server.new_database("bench")
        upgrade(open_postgres(parse_database_url(url)))
        started = time.monotonic()
        with ThreadPoolExecutor(workers) as pool:
            share = sightings // workers
            list(pool.map(lambda worker: write(url, worker, share, dimension), range(workers)))
        took_s = time.monotonic() - started
        print(f"{workers} workers wrote {sightings} sightings in {took_s:.1f} s: {sightings / took_s:.0f} a second")
        if more:
            fill(url, more, dimension)
        probe = np.zeros(dimension, np.float32)
        probe[0] = 1.0
        with History.open(url) as past:
            for _ in range(3):
                started, own_s = time.monotonic(), time.process_time()
                past.similar(probe, MODEL, 0.9)
                print(
                    f"a search through {sightings + more}: {time.monotonic() - started:.2f} s, "
                    f"{time.process_time() - own_s:.2f} s of them this process computed"
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sightings", type=int, default=100_000)
    parser.add_argument("--more", type=int, default=0)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--dimension", type=int, default=512)
    options = parser.parse_args()
    measure(options.sightings, options.more, options.workers, options.dimension)
