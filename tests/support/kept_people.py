"""A worker's folders after some work: everything that facestream keeps of people, with bytes that can be looked for."""

from datetime import timedelta
from pathlib import Path

import cv2
import numpy as np

from tests.support.galleries import DIGEST, DIMENSION, MODEL, sample, vector
from tests.support.past import NOON, sighting, unknown
from tests.support.sample_events import make_event
from worker.config import EvidenceConfig, OutboxConfig
from worker.evaluation.face_cache import FaceCache
from worker.events.outbox import Outbox
from worker.events.spool import StateTable
from worker.gallery.crops import CropStore, cut_crop
from worker.gallery.folder import FolderGallery
from worker.gallery.snapshots import SnapshotStore
from worker.history.evidence import Evidence
from worker.history.evidence_store import open_store
from worker.history.records import EmbedderId
from worker.history.store import History
from worker.types import Detections

NAME = "Canary Q. Person"
FACE = np.arange(12, 12 + DIMENSION, dtype=np.float32) / np.linalg.norm(np.arange(12, 12 + DIMENSION))
"""The template of a past sighting and of an unknown person."""
KEEP_S = 9e9
PEOPLE = 5


def keep_everything(folder: Path) -> None:
    """``gallery``, ``gallery.state``, ``evidence`` and ``cache`` below ``folder``."""
    FolderGallery.create(folder / "gallery", MODEL, DIGEST, DIMENSION).close()
    # Full blocks are shared by versions, and memory-mapped.
    gallery = FolderGallery(SnapshotStore(folder / "gallery"), block_samples=2)
    crops = CropStore(folder / "gallery")
    crops.open_for_writing()
    for number in range(PEOPLE):
        (kept,) = gallery.add([sample(NAME if number == 0 else f"{NAME} {number}", number)])
        assert kept is not None
        crops.add(kept.sample_id, cut_crop(_picture(), _found()))
    state = folder / "gallery.state"
    embedder = EmbedderId(MODEL, DIGEST)
    with History.open(state, create=True) as history:
        seen = sighting(1, FACE, identity_id="p-1", identity_name=NAME, embedder=embedder)
        history.write([seen], [unknown("u-1", FACE, embedder=embedder)], keep_s=KEEP_S, remember_s=KEEP_S)
        history.deny(history.sightings()[0], unknown_id="u-1")
    outbox = Outbox(OutboxConfig(), path=state / "outbox-w.sqlite3")
    outbox.append(make_event(identity_id="p-1", identity_name=NAME))
    outbox.with_file(lambda spool: StateTable(spool).save("door", 1, f'{{"who": "{NAME}"}}'))
    outbox.close()
    config = EvidenceConfig(store=str(folder / "evidence"))
    evidence = Evidence(config, open_store(config))
    event = make_event(sighting_id="s1", started_at=NOON, captured_at=NOON + timedelta(seconds=1))
    evidence.face("s1", _picture(), _found().boxes[0], 0.9)
    evidence.told(event)
    evidence.close()
    cache = FaceCache.open(folder / "cache", ["model"])
    cache.put([(cache.key(b"a photo"), vector(0))])
    cache.close()


def plain_traces(folder: Path) -> dict[str, int]:
    """How many files below ``folder`` hold the bytes of the name, of a vector, and those that begin a JPEG."""
    wanted = {
        "name": NAME.encode(), "vector": vector(0).tobytes(), "template": FACE.astype("<f4").tobytes(),
        "jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF",
    }  # fmt: skip
    contents = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert len(contents) > PEOPLE
    return {kind: sum(trace in content for content in contents) for kind, trace in wanted.items()}


def _picture() -> np.ndarray:
    return np.asarray(cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8), (5, 5), 2))


def _found() -> Detections:
    landmarks = np.array([[[34, 40], [60, 40], [48, 52], [38, 64], [58, 64]]], np.float32)
    return Detections(np.array([[24, 20, 72, 76]], np.float32), np.ones(1, np.float32), landmarks)
