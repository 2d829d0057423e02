"""Simple stand-ins for the networks: who stands where decides whom a face belongs to.

A picture is 100 px wide for each place. A person at place ``n`` has a face there, and its vector is the ``n``-th axis.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import numpy as np

from worker.config import CameraConfig
from worker.faces.detection import FaceDetector
from worker.faces.embedding import FaceEmbedder
from worker.gallery.contents import NewSample
from worker.gallery.folder import FolderGallery
from worker.types import Chips, Detections, Embeddings, Frame, Image, Picture, image_of

PLACES = 8
LIKENESS = 0.8
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PICTURE = np.random.default_rng(0).integers(0, 255, (100, 100 * PLACES, 3), np.uint8)
_FIVE_POINTS = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32)


class StandInDetector:
    """Finds the faces of those who stand at ``places``; counts what it looks at, whole or in part."""

    def __init__(self, *places: int) -> None:
        self.places: Collection[int] = places
        self.searched = 0
        self.followed = 0

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        self.searched += len(images)
        return [_faces_at(self.places) for _ in images]

    def follow(self, images: Sequence[Image], expected: Sequence[np.ndarray]) -> list[Detections]:
        self.followed += sum(1 for boxes in expected if len(boxes))
        wanted = [{round(float(left)) // 100 for left in boxes[:, 0]} for boxes in expected]
        return [_faces_at(place for place in self.places if place in places) for places in wanted]


class StandInEmbedder:
    """Makes the vector of the place at which a face is; keeps the sizes of its batches."""

    dimension, threshold, engine = PLACES, 0.5, "openvino"

    def __init__(self, model_id: str = "model") -> None:
        self.model_id = model_id
        self.preprocessing_digest = f"digest of {model_id}"
        self.batches: list[int] = []

    def align(self, image: Image, detections: Detections) -> Chips:
        places = (detections.boxes[:, 0] // 100).astype(np.uint8)
        return Chips(np.broadcast_to(places[:, None, None, None], (len(places), 2, 2, 3)).copy())

    def embed(self, chips: Chips) -> Embeddings:
        self.batches.append(len(chips))
        return Embeddings(np.eye(PLACES, dtype=np.float32)[chips.images[:, 0, 0, 0]], self.model_id)

    def embed_found(self, faces: Sequence[tuple[Picture, Detections]]) -> Embeddings:
        return self.embed(Chips.joined([self.align(image_of(picture), face) for picture, face in faces]))


def detector_of(stand_in: StandInDetector) -> FaceDetector:
    return cast(FaceDetector, stand_in)


def embedder_of(stand_in: StandInEmbedder) -> FaceEmbedder:
    return cast(FaceEmbedder, stand_in)


def gallery_of(embedder: StandInEmbedder, **places: int) -> FolderGallery:
    """A gallery in memory of people by name, each at the place where they stand."""
    gallery = FolderGallery.in_memory(embedder.model_id, embedder.preprocessing_digest, PLACES)
    enroll(gallery, **places)
    return gallery


def enroll(gallery: FolderGallery, **places: int) -> None:
    """Adds people, each with a photo whose cosine to the face at their place is :data:`LIKENESS`."""
    axes = np.eye(PLACES, dtype=np.float32)
    apart = np.sqrt(1 - LIKENESS**2) * axes[-1]
    gallery.add(
        [
            NewSample(name, (LIKENESS * axes[place] + apart).astype(np.float32), name, name, identity_id=name)
            for name, place in places.items()
        ]
    )


def camera(camera_id: str = "door", source: str = "rtsp://127.0.0.1/nothing", **settings: Any) -> CameraConfig:
    return CameraConfig.model_validate({"id": camera_id, "source": source, **settings})


class Film:
    """Frames of one camera, 0.1 s apart."""

    def __init__(self, camera_id: str = "door", clock: Callable[[], float] = lambda: 0.0) -> None:
        self.camera_id = camera_id
        self.number = 0
        self.clock = clock

    @property
    def pts_s(self) -> float:
        """Of the last frame."""
        return round((self.number - 1) / 10, 3)

    def frame(self) -> Frame:
        self.number += 1
        at = NOON + timedelta(seconds=self.pts_s)
        return Frame(self.camera_id, self.number, self.pts_s, at, self.clock(), PICTURE)


def _faces_at(places: Iterable[int]) -> Detections:
    lefts = np.array([100.0 * place + 5 for place in places], np.float32).reshape(-1)
    boxes = np.stack([lefts, 0 * lefts + 5, lefts + 90, 0 * lefts + 95], axis=1)
    landmarks = boxes[:, None, :2] + 90 * _FIVE_POINTS
    return Detections(boxes, np.full(len(boxes), 0.99, np.float32), landmarks.astype(np.float32))
