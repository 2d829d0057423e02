"""A site that knows two people and remembers their past: everything that may hold a trace of one of them."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.past import sighting, unknown
from tests.support.sample_events import make_event
from worker.config import EvidenceConfig, OutboxConfig
from worker.events.codec import encode
from worker.events.outbox import Outbox
from worker.events.spool import StateTable
from worker.gallery import opening
from worker.gallery.contents import NewSample
from worker.gallery.crops import Crop, CropStore
from worker.gallery.folder import FolderGallery
from worker.history.evidence_store import open_store, paths_of, picture_path
from worker.history.records import Account, EmbedderId
from worker.history.store import History
from worker.types import Detections

ANNA, BEN = "Anna Ångström-Berg", "Benjamin Okafor"
MODEL = EmbedderId("tiny", "digest-1")
DIMENSION = 64
WEEK_S = 7 * 86_400.0
OUTBOX = "outbox-door.sqlite3"


def face(seed: int, of: int = 0) -> np.ndarray:
    """A unit vector; those ``of`` one number resemble each other."""
    made = np.eye(DIMENSION)[of] + 0.05 * np.random.default_rng(seed).normal(size=DIMENSION)
    return np.asarray(made / np.linalg.norm(made), np.float32)


def sample(name: str, vector: np.ndarray) -> NewSample:
    return NewSample(name, vector, "photo.jpg", hashlib.sha256(vector.tobytes()).hexdigest(), quality=0.5)


ANNAS = [face(1), face(2), face(3)]
"""As enrolled (two photos), and as an unknown person before."""


@dataclass(frozen=True, slots=True)
class Site:
    """The folder of everything, the gallery in it, and Anna's id."""

    folder: Path
    gallery: Path
    anna: str

    @property
    def state(self) -> Path:
        return self.gallery.with_name("people.state")

    @property
    def pictures(self) -> Path:
        return self.folder / "pictures"

    def files_with(self, *needles: bytes) -> list[str]:
        """The files, of any kind, that hold one of these."""
        return [
            str(path.relative_to(self.folder))
            for path in self.folder.rglob("*")
            if path.is_file() and any(needle in path.read_bytes() for needle in needles)
        ]

    @property
    def traces(self) -> list[bytes]:
        """Anna as bytes: her name and her vectors in every form."""
        vectors = [form for one in ANNAS for form in (one.tobytes(), one.astype("<f2").tobytes())]
        return [ANNA.encode(), json.dumps(ANNA)[1:-1].encode(), ANNA.encode("utf-16-le"), *vectors]


def make_site(folder: Path) -> Site:
    """Two people, versions and a gallery put aside, crops, past sightings, corrections, pictures, waiting events."""
    gallery = folder / "people"
    opened = FolderGallery.create(gallery, MODEL.model_id, MODEL.preprocessing_digest, DIMENSION)
    stored = opened.add([sample(ANNA, ANNAS[0])])
    opened.add([sample(BEN, face(10, 1))])
    opened.rename(BEN, "Ben")
    opened.rename("Ben", BEN)
    opening.copy_gallery(gallery, folder / "new")
    opening.switch(gallery, folder / "new")
    for path in sorted((folder / "new").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    opened = FolderGallery.open(gallery)
    stored += opened.add([sample(ANNA, ANNAS[1])])
    crops = CropStore(gallery)
    crops.open_for_writing()
    for kept in stored:
        assert kept is not None
        crops.add(kept.sample_id, _crop())
    site = Site(folder, gallery, opened.person(ANNA).identity_id)
    _remember(site, opened.person(BEN).identity_id)
    _leave_waiting(site, opened.person(BEN).identity_id)
    return site


def _crop() -> Crop:
    image = np.full((64, 64, 3), 90, np.uint8)
    box = np.array([[8, 8, 40, 48]], np.float32)
    return Crop(image, Detections(box, np.ones(1, np.float32), np.zeros((1, 5, 2), np.float32)))


def _remember(site: Site, ben: str) -> None:
    about = Account(faces=5, rejected=Counter(), embedded=3, nearest=BEN, similarity=0.8, runner_up=ANNA,
                    runner_up_similarity=0.4, reason="matched")  # fmt: skip
    anna = {"identity_id": site.anna, "identity_name": ANNA}
    past = [
        sighting(
            1, ANNAS[0], embedder=MODEL, **anna, event=encode(make_event(identity_id=site.anna, identity_name=ANNA))
        ),
        sighting(2, ANNAS[2], embedder=MODEL, unknown_id="u-1"),
        sighting(3, face(11, 1), embedder=MODEL, identity_id=ben, identity_name=BEN, account=about),
        sighting(
            4, face(12, 1), embedder=MODEL, **anna, event=encode(make_event(identity_id=site.anna, identity_name=ANNA))
        ),
        sighting(5, face(20, 5), embedder=MODEL, unknown_id="u-2"),
    ]
    people = [unknown("u-1", ANNAS[2], embedder=MODEL), unknown("u-2", face(20, 5), embedder=MODEL)]
    with History.open(site.state, create=True) as history:
        history.write(past, people, keep_s=WEEK_S, remember_s=WEEK_S)
        (wrong,) = history.sightings(sighting_id="door_4")
        history.deny(wrong, identity_id=ben, identity_name=BEN)
    store = open_store(EvidenceConfig(store=str(site.pictures)))
    for one in past:
        for path in paths_of(picture_path(one.camera_id, one.started_at, one.sighting_id)):
            store.put(path, b"JPEG")


def _leave_waiting(site: Site, ben: str) -> None:
    """Events and a state that a worker which is gone has not delivered."""
    outbox = Outbox(OutboxConfig(), path=site.state / OUTBOX)
    outbox.append(make_event(1, identity_id=site.anna, identity_name=ANNA))
    outbox.append(make_event(2, identity_id=ben, identity_name=BEN))
    state = {"format": "facestream.sightings.v1", "sightings": [
        {"sighting_id": "a", "match": {"identity_id": site.anna, "identity_name": ANNA}},
        {"sighting_id": "b", "match": {"identity_id": ben, "identity_name": BEN}},
    ]}  # fmt: skip
    outbox.with_file(lambda spool: StateTable(spool).save("door", 0, json.dumps(state)))
    outbox.close()


def waiting(site: Site) -> Iterator[Mapping[str, Any]]:
    """The events and the state that wait."""
    outbox = Outbox(OutboxConfig(), path=site.state / OUTBOX)
    yield from (entry.fields for entry in outbox.take(10))
    state = outbox.with_file(lambda spool: StateTable(spool).load("door"))
    outbox.close()
    if state is not None:
        yield json.loads(state)
