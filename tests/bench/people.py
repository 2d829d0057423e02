"""How long the server works on each page about people, with thousands of them.

Usage: python -m tests.bench.people [--people 3000] [--unknown 3000] [--dimension 2048] [--times 5]

A console on this machine, over a gallery folder and a SQLite history of random vectors; two sightings of each
person and of each unknown person. The first time of a page is told beside the medians of the others; the time of
the CPU includes what goes on in the background.
"""

import argparse
import statistics
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import numpy as np

from tests.support.console import LONG_S, console_config, of_anna, place_of, running_console
from tests.support.past import MODEL, NOON, unknown
from worker.gallery.contents import NewSample
from worker.gallery.opening import create_gallery
from worker.history.store import History
from worker.redis.embedded import embedded_redis

PAGES = ("/people", "/people?q=person+29", "/people/p-7", "/sightings", "/sightings?person=p-7", "/sightings/known_7",
         "/unknown", "/unknown/u-7", "/find")  # fmt: skip


def fill(gallery: Path | str, past: Path | str, people: int, strangers: int, dimension: int) -> None:
    """Random people, each with two sightings."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((people + strangers, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    made = create_gallery(gallery, MODEL.model_id, MODEL.preprocessing_digest, dimension)
    made.add(
        [
            NewSample(f"Person {n}", vectors[n], f"{n}.jpg", f"{n:064x}", quality=0.5, identity_id=f"p-{n}")
            for n in range(people)
        ]
    )
    made.close()
    seen = [
        of_anna(n, sighting_id=f"{name}_{n}", identity_id=f"p-{n}", identity_name=f"Person {n}", template=vectors[n])
        for name in ("known", "again") for n in range(people)
    ]  # fmt: skip
    seen += [
        of_anna(n, sighting_id=f"{name}_{n}", unknown_id=f"u-{n}", template=vectors[people + n])
        for name in ("stranger", "twice") for n in range(strangers)
    ]  # fmt: skip
    with History.open(past, create=True) as history:
        history.write(
            seen,
            [unknown(f"u-{n}", vectors[people + n], last_seen=NOON + timedelta(minutes=n)) for n in range(strangers)],
            keep_s=LONG_S, remember_s=LONG_S,
        )  # fmt: skip


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("people", 3000), ("unknown", 3000), ("dimension", 2048), ("times", 5)):
        asked.add_argument(f"--{name}", type=int, default=default)
    wanted = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder, embedded_redis() as url:
        config = console_config(Path(folder), url)
        fill(config.gallery, place_of(config), wanted.people, wanted.unknown, wanted.dimension)
        with running_console(config, filled=False) as console:
            client = console.as_role("operator")
            for page in PAGES:
                took_ms = []
                for _ in range(wanted.times + 1):
                    begun_s, worked_s = time.monotonic(), time.process_time()
                    answer = client.get(page)
                    took_ms.append((1000 * (time.monotonic() - begun_s), 1000 * (time.process_time() - worked_s)))
                    assert answer.status_code == 200, (page, answer.text)
                (first, _), later, cpu = (
                    took_ms[0],
                    *(statistics.median(each) for each in zip(*took_ms[1:], strict=True)),
                )
                size_kb = len(answer.content) / 1000
                sys.stdout.write(
                    f"{page:24} first {first:5.0f} ms, then {later:5.0f} ms ({cpu:4.0f} ms of CPU), {size_kb:4.0f} kB\n"
                )


if __name__ == "__main__":
    main()
