"""How long ``facestream forget`` takes: 20,000 people in a folder, and workers that are processes of their own.

python -m tests.bench.erasure [--people 20000] [--workers 10]
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from tests.support.stand_ins import StandInDetector, StandInEmbedder, detector_of, embedder_of
from worker.cli import run_command_line
from worker.config import Config, OutboxConfig
from worker.erasure.attendance import attendants
from worker.erasure.own import OwnErasure, erasure_folders
from worker.events.outbox import Outbox
from worker.gallery.contents import NewSample
from worker.gallery.folder import FolderGallery
from worker.recognition.pipeline import Pipeline

DIMENSION = 2048
MODEL = StandInEmbedder()


def serve(people: Path, name: str) -> None:
    """A worker without cameras, until it is ended."""
    config = Config(gallery=str(people), worker_id=name)
    pipeline = Pipeline(config, detector_of(StandInDetector()), embedder_of(MODEL), FolderGallery.open(people))
    outbox = Outbox(OutboxConfig(), path=erasure_folders(config)[1] / f"outbox-{name}.sqlite3")
    orders: SimpleQueue[object] = SimpleQueue()
    own = OwnErasure(erasure_folders(config), name, pipeline, outbox, orders.put)
    own.catch_up()
    own.start()
    while True:
        action = orders.get()
        if callable(action):
            action()


def measure(count: int, workers: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        people = Path(folder) / "people"
        os.environ["FACESTREAM_CACHE_DIR"] = str(Path(folder) / "cache")
        vectors = np.random.default_rng(0).normal(size=(count, DIMENSION)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        gallery = FolderGallery.create(people, MODEL.model_id, MODEL.preprocessing_digest, DIMENSION)
        gallery.add(
            [
                NewSample(f"Person {number}", vector, "photo", hashlib.sha256(vector.tobytes()).hexdigest())
                for number, vector in enumerate(vectors)
            ]
        )
        del gallery
        command = [sys.executable, "-m", "tests.bench.erasure", "--serve", str(people)]
        processes = [subprocess.Popen([*command, f"w{number}"]) for number in range(workers)]
        folders = erasure_folders(Config(gallery=str(people)))
        try:
            while len([worker for worker in attendants(folders) if not worker.problem]) < workers:
                time.sleep(0.2)
            receipt = Path(folder) / "receipt.json"
            begun_s = time.monotonic()
            code = run_command_line(
                ["forget", f"Person {count // 2}", "--gallery", str(people), "--yes", "--no-events", "--json",
                 "--receipt", str(receipt), "--wait-s", "60"]
            )  # fmt: skip
            taken_s = time.monotonic() - begun_s
        finally:
            for process in processes:
                process.terminate()
                process.wait()
        told = json.loads(receipt.read_text())
        done = sum(worker["done"] for worker in told["workers"])
        searched = told["searched"]
        sys.stdout.write(
            f"\n{count} people, {done} of {workers} workers done, exit code {code}: receipt after {taken_s:.2f} s; "
            f"{searched['files']} files, {searched['bytes'] / 1e6:.0f} MB searched, {len(searched['found_in'])} hold it"
            "\n"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(Path(given.serve[0]), given.serve[1])
    else:
        measure(given.people, given.workers)


if __name__ == "__main__":
    main()
