"""How soon an enrolment is matched by other processes, and a removal by none, on a real PostgreSQL.

python tests/bench/database_gallery.py --readers 2 --rounds 50 --samples 1000 --dimension 512
"""

# ruff: noqa: T201
import argparse
import json
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.support.postgres import running_postgres  # noqa: E402
from worker.database.address import parse_database_url  # noqa: E402
from worker.database.database import open_postgres  # noqa: E402
from worker.database.layout import upgrade  # noqa: E402
from worker.gallery.contents import NewSample  # noqa: E402
from worker.gallery.database.gallery import DatabaseGallery  # noqa: E402

MODEL, DIGEST = "bench", "digest"


def unit(rng: np.random.Generator, count: int, dimension: int) -> Any:
    vectors = rng.normal(size=(count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def read(url: str, worker_id: str) -> None:
    """One reader: says the time at which each vector that it is given is matched, or no longer is."""
    from worker.types import Embeddings

    gallery = DatabaseGallery.open(url)
    gallery.follow(worker_id)
    print("ready", flush=True)
    for line in sys.stdin:
        name, wanted, raw = json.loads(line)
        probe = Embeddings(np.frombuffer(bytes.fromhex(raw), np.float32)[None], MODEL)
        while (gallery.search(probe)[0].identity_name == name) != wanted:
            # As a worker does for each frame: it asks whether there is a new version, which costs nothing.
            while not gallery.reload_if_changed():
                time.sleep(0.005)
        print(time.monotonic(), flush=True)
    gallery.close()


def spread(name: str, seconds: list[float]) -> str:
    return (
        f"{name}: median {statistics.median(seconds) * 1000:.0f} ms, worst {max(seconds) * 1000:.0f} ms "
        f"of {len(seconds)}"
    )


def measure(readers: int, rounds: int, samples: int, dimension: int) -> None:
    rng = np.random.default_rng(1)
    with running_postgres("fsync=on") as server, tempfile.TemporaryDirectory() as folder:
        url = f"{server.new_database('bench')}?gallery=bench"
        database = open_postgres(parse_database_url(url))
        upgrade(database)
        gallery = DatabaseGallery.create(url, MODEL, DIGEST, dimension)
        known = unit(rng, samples, dimension)
        started = time.monotonic()
        for first in range(0, samples, 1000):
            gallery.add([NewSample(f"person {row}", known[row], f"{row}", f"{row}") for row in
                         range(first, min(first + 1000, samples))])  # fmt: skip
        print(f"enrolled {samples} samples of {dimension} in {time.monotonic() - started:.1f} s")
        ((size,),) = server.execute("SELECT pg_database_size('bench')")
        print(f"the database has {size / samples:.0f} bytes a sample")
        for what in ("without a copy on disk", "with one"):
            started = time.monotonic()
            opened = DatabaseGallery.open(url, copies=Path(folder) / "copy")
            print(f"opened {what} in {time.monotonic() - started:.2f} s")
            opened.follow("copying")
            opened.close()
        command = [sys.executable, __file__, "--read", url]
        processes = [
            subprocess.Popen([*command, f"reader-{number}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for number in range(readers)
        ]
        enrolled_s: list[float] = []
        removed_s: list[float] = []
        acknowledged_s: list[float] = []
        try:
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            for number, vector in enumerate(unit(rng, rounds, dimension)):
                name = f"new {number}"
                for times, wanted in ((enrolled_s, True), (removed_s, False)):
                    for process in processes:
                        assert process.stdin is not None
                        process.stdin.write(json.dumps([name, wanted, vector.tobytes().hex()]) + "\n")
                        process.stdin.flush()
                    time.sleep(rng.uniform(0.1, 0.5))
                    started = time.monotonic()
                    if wanted:
                        gallery.add([NewSample(name, vector, name, secrets.token_hex(8))])
                    else:
                        gallery.remove(name)
                        assert all(done for _, done in gallery.wait_for_workers(60.0))
                        acknowledged_s.append(time.monotonic() - started)
                    for process in processes:
                        assert process.stdout is not None
                        times.append(float(process.stdout.readline()) - started)
        finally:
            for process in processes:
                assert process.stdin is not None
                process.stdin.close()
                process.wait()
            gallery.close()
    print(f"{readers} readers, {rounds} rounds, from the call of add or remove on:")
    print(spread("enrolment matched by a reader", enrolled_s))
    print(spread("removal matched by a reader no more", removed_s))
    print(spread("removal acknowledged by all", acknowledged_s))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--read", nargs=2, metavar=("URL", "WORKER"), help=argparse.SUPPRESS)
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--dimension", type=int, default=512)
    options = parser.parse_args()
    if options.read:
        read(*options.read)
    else:
        measure(options.readers, options.rounds, options.samples, options.dimension)
