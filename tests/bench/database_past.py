"""How many sightings a second a PostgreSQL takes, and how long a search through them takes.

python tests/bench/database_past.py --sightings 40000 --more 960000 --workers 4 --dimension 512

Workers write the ``--sightings``; ``--more`` are copied into the table at once, so that the search has a long past.
With ``--pgvector`` the database has the extension; it then also measures the index that is not used, HNSW.
"""

# ruff: noqa: T201
import argparse
import statistics
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
from worker.people_keys import Owned  # noqa: E402
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
    # As they are stored where people have no keys of their own.
    plain = {name: each.value if isinstance(each, Owned) else each for name, each in sighting_row(sighting()).items()}
    row = plain | {"recorded_s": time.time(), "expires_s": time.time() + KEEP_S}
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


def measure_index(url: str, dimension: int) -> None:
    """How quick the index of the extension is, what it costs, and what it misses."""
    # Those are looked for who resemble somebody that is there as two photos of one person do.
    probes = unit(np.random.default_rng(0), BATCH, dimension) + 0.5 * unit(np.random.default_rng(1), BATCH, dimension)
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    column = f"(template::halfvec({dimension}))"
    nearest = f"SELECT sighting_id FROM facestream.half_templates ORDER BY {column} <#> %s::halfvec LIMIT 100"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET maintenance_work_mem = '1GB'")
        before = [fetch(connection, nearest, probe) for probe in probes[:5]]
        started = time.monotonic()
        connection.execute(
            f"CREATE INDEX near ON facestream.half_templates USING hnsw ({column} halfvec_ip_ops)".encode()
        )
        print(f"the HNSW index was made in {time.monotonic() - started:.1f} s")
        connection.execute("SET hnsw.ef_search = 100")
        tell(connection, "the 100 nearest by the index", nearest, probes[:50])
        found = [
            len(set(fetch(connection, nearest, probe)) & set(known))
            for probe, known in zip(probes, before, strict=False)
        ]
        print(f"the index gives {sum(found)} of the {100 * len(found)} that a scan gives")


def fetch(connection: "psycopg.Connection[tuple[str]]", query: str, probe: Vectors) -> list[str]:
    text = "[" + ",".join(f"{number:.6f}" for number in probe.tolist()) + "]"
    return [sighting_id for (sighting_id,) in connection.execute(query.encode(), (text,)).fetchall()]


def tell(connection: "psycopg.Connection[tuple[str]]", what: str, query: str, probes: Vectors) -> None:
    times = []
    for probe in probes:
        started = time.monotonic()
        fetch(connection, query, probe)
        times.append(time.monotonic() - started)
    print(f"{what}: {statistics.median(times) * 1000:.1f} ms (median of {len(times)})")


def measure(sightings: int, more: int, workers: int, dimension: int, pgvector: bool) -> None:
    settings = "fsync=on", "shared_buffers=512MB", "max_wal_size=8GB"
    with running_postgres(*settings, carried=pgvector) as server:
        url = server.new_database("bench")
        if pgvector:
            server.execute("CREATE EXTENSION vector", database="bench")
        upgrade(open_postgres(parse_database_url(url)))
        started = time.monotonic()
        with ThreadPoolExecutor(workers) as pool:
            share = sightings // workers
            list(pool.map(lambda worker: write(url, worker, share, dimension), range(workers)))
        took_s = time.monotonic() - started
        print(f"{workers} workers wrote {sightings} sightings in {took_s:.1f} s: {sightings / took_s:.0f} a second")
        if more:
            fill(url, more, dimension)
        if pgvector:
            started = time.monotonic()
            upgrade(open_postgres(parse_database_url(url)))
            print(f"an upgrade added what {more} templates lacked in {time.monotonic() - started:.1f} s")
            server.execute("VACUUM ANALYZE facestream.half_templates", database="bench")
            ((size,),) = server.execute("SELECT pg_total_relation_size('facestream.half_templates')", database="bench")
            print(f"{size / (sightings + more):.0f} bytes a sighting for the templates in 16 bits")
        probe = unit(np.random.default_rng(0), 1, dimension)[0]
        with History.open(url) as past:
            for _ in range(3):
                started, own_s = time.monotonic(), time.process_time()
                found = past.similar(probe, MODEL, 0.9)
                took_s, own_s = time.monotonic() - started, time.process_time() - own_s
                print(f"a search through {sightings + more} finds {len(found)}: {took_s:.2f} s, {own_s:.2f} s here")
        if pgvector:
            measure_index(url, dimension)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sightings", type=int, default=100_000)
    parser.add_argument("--more", type=int, default=0)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--pgvector", action="store_true")
    options = parser.parse_args()
    measure(options.sightings, options.more, options.workers, options.dimension, options.pgvector)
