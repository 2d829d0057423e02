import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from worker.config import DetectionConfig, cache_dir, load_config
from worker.faces.detection import load_detector
from worker.faces.embedding import FaceEmbedder, load_embedder
from worker.gallery import opening as migration
from worker.gallery.contents import NewSample
from worker.gallery.crops import CropStore
from worker.gallery.enrolment import enroll_photos
from worker.gallery.folder import FolderGallery
from worker.gallery.re_embedding import re_embed
from worker.recognition.attention import TrackedFace
from worker.recognition.shadow import FORGET_AFTER_S, OUTCOMES, Shadow, outcome_of
from worker.recognition.sighting import Sighting
from worker.service.metrics import PrometheusObserver
from worker.service.service import Service
from worker.types import Chips, Detections, Embeddings, Event, Frame, Image, Match, Picture, image_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ANN, BOB, CEM = np.eye(4, dtype=np.float32)[:3]


class StandInEmbedder:
    """The first row of the picture is the vector."""

    model_id, preprocessing_digest, dimension, threshold = "second", "d2", 4, 0.5

    def align(self, image: Image, detections: Detections) -> Chips:
        return Chips(image[None, :4, :4])

    def embed(self, chips: Chips) -> Embeddings:
        vectors = chips.images[:, 0, :4, 0].astype(np.float32)
        return Embeddings(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), self.model_id)

    def embed_found(self, faces: Sequence[tuple[Picture, Detections]]) -> Embeddings:
        return self.embed(Chips.joined([self.align(image_of(picture), face) for picture, face in faces]))


def match(identity_id: str | None, name: str = "") -> Match:
    return Match(identity_id, name, 0.8, 0.1, 0.5, 1, "matched" if identity_id else "below_threshold")


def tracked(vector: NDArray[np.float32], track_id: int, pts_s: float) -> TrackedFace:
    image = np.zeros((4, 4, 3), np.uint8)
    image[0, :, 0] = vector * 200
    face = Detections(np.array([[0, 0, 4, 4]], np.float32), np.ones(1, np.float32), np.zeros((1, 5, 2), np.float32))
    return TrackedFace(Frame("door", 0, pts_s, NOW, 0.0, image), face, track_id, 0.9)


def sighting(track_id: int, pts_s: float, primary: Match | None) -> Sighting:
    made = Sighting(f"s{track_id}", "door", track_id, NOW, 0.0, 4)
    made.match, made.seen_pts_s = primary, pts_s
    return made


@pytest.fixture
def gallery() -> FolderGallery:
    made = FolderGallery.in_memory("second", "d2", 4)
    made.add([NewSample(name, v, name, name, identity_id=f"id-{name}") for name, v in (("Ann", ANN), ("Bob", BOB))])
    return made


@pytest.fixture
def observer() -> PrometheusObserver:
    return PrometheusObserver()


@pytest.fixture
def shadow(gallery: FolderGallery, observer: PrometheusObserver) -> Shadow:
    return Shadow(load_config(None, {}), cast(FaceEmbedder, StandInEmbedder()), gallery, observer)


def see(
    shadow: Shadow, track_id: int, vectors: Sequence[NDArray[np.float32]], primary: Match, pts_s: float = 1.0
) -> None:
    for vector in vectors:
        shadow.learn([tracked(vector, track_id, pts_s)])
        shadow.compare(sighting(track_id, pts_s, primary))


def test_each_track_counts_once_with_its_last_verdicts(shadow: Shadow, observer: PrometheusObserver) -> None:
    see(shadow, 1, [ANN, ANN, ANN], match("id-Ann", "Ann"))
    see(shadow, 2, [ANN, ANN], match("id-Bob", "Bob"))
    see(shadow, 3, [CEM, CEM], match("id-Bob", "Bob"))
    see(shadow, 4, [BOB, BOB], match(None))
    see(shadow, 5, [CEM, CEM], match(None))
    report = shadow.report()
    assert {name: report[name] for name in OUTCOMES} == {
        "agree": 2, "only_primary": 1, "only_shadow": 1, "different": 1,
    }  # fmt: skip
    assert (report["tracks"], report["agreement"], report["model_id"]) == (5, 0.4, "second")
    value = observer.registry.get_sample_value
    labels = {"camera": "door", "outcome": "different"}
    assert value("facestream_shadow_verdicts_total", labels) == 1
    assert shadow.report() == report


def test_tracks_that_have_ended_are_forgotten(shadow: Shadow, observer: PrometheusObserver) -> None:
    see(shadow, 1, [ANN, ANN], match("id-Ann", "Ann"), 1.0)
    see(shadow, 2, [BOB, BOB], match("id-Bob", "Bob"), 2.0 + FORGET_AFTER_S)
    labels = {"camera": "door", "outcome": "agree"}
    assert observer.registry.get_sample_value("facestream_shadow_verdicts_total", labels) == 1
    assert shadow.report()["agree"] == 2


def test_without_a_track_there_is_no_agreement(shadow: Shadow) -> None:
    shadow.compare(sighting(1, 1.0, match(None)))
    assert (shadow.report()["tracks"], shadow.report()["agreement"]) == (0, None)


@pytest.mark.parametrize(
    ("primary", "second", "outcome"),
    [
        (None, match(None), "agree"),
        (match("a", "Ann"), match("a", "Ann renamed"), "agree"),
        (match("a", "Ann"), match("b", "Ann"), "agree"),
        (match("a", "Ann"), match("b", "Bob"), "different"),
        (match("a", "Ann"), match(None), "only_primary"),
        (None, match("b", "Bob"), "only_shadow"),
    ],
)
def test_outcomes(primary: Match | None, second: Match, outcome: str) -> None:
    assert outcome_of(primary, second) == outcome


@pytest.mark.data
def test_a_running_worker_scores_in_the_shadow_and_follows_the_switch(
    test_data: Path, tmp_path: Path, redis_url: str
) -> None:
    models = test_data / "models"
    first, second = (
        load_embedder(f"face-reidentification-retail-0095{ending}", models_dir=models, cache_dir=cache_dir())
        for ending in ("", "+flip")
    )
    clip = test_data / "video" / "speaker_katie_hill.mp4"
    photo = _first_frame(clip, tmp_path / "photos" / "Katie Hill.png")
    old = FolderGallery.create(tmp_path / "g", first.model_id, first.preprocessing_digest, first.dimension)
    crops = CropStore(old.path)
    assert all(
        r.accepted
        for r in enroll_photos(photo, old, load_detector(DetectionConfig(), cache_dir=cache_dir()), first, crops=crops)
    )
    new = FolderGallery.create(tmp_path / "new", second.model_id, second.preprocessing_digest, second.dimension)
    re_embed(old, new, second, crops=crops)
    shutil.copytree(new.path, tmp_path / "shadow")
    config = load_config(
        None,
        {
            "cameras": [{"id": "desk", "source": str(clip), "policy": "every"}],
            "gallery": str(old.path), "shadow_gallery": str(tmp_path / "shadow"), "models_dir": models,
            "redis": {"url": redis_url}, "metrics": {"enabled": False},
        },
    )  # fmt: skip
    events: list[Event] = []

    def on_event(event: Event) -> None:
        events.append(event)
        if len(events) == 1:
            migration.switch(old.path, new.path)

    stopped = Service(config, on_event=on_event).run()
    assert [(e.type, e.identity_name, e.model_id) for e in events] == [
        (kind, "Katie Hill", model)
        for model in (first.model_id, second.model_id)
        for kind in ("started", "ended")
    ]  # fmt: skip
    assert stopped.summary.shadow is not None
    assert stopped.summary.shadow["tracks"] >= 1
    assert stopped.summary.shadow["agreement"] == 1.0


def _first_frame(clip: Path, path: Path) -> Path:
    from worker.video.clips import open_clip
    from worker.video.drawing import save_picture

    path.parent.mkdir()
    with open_clip(clip) as frames:
        save_picture(next(iter(frames)), path)
    return path
