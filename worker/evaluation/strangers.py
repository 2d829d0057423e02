"""Footage and photos of people who are not enrolled: how similar they are to the gallery, visit by visit."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

from worker.config import Config, load_config
from worker.errors import SourceError
from worker.evaluation.photo_faces import embed_photos
from worker.evaluation.replay import replay
from worker.faces.detection import FaceDetector
from worker.faces.embedding import FaceEmbedder
from worker.gallery.gallery import Gallery
from worker.recognition.sighting import Sighting
from worker.types import Embeddings
from worker.video.photos import SUFFIXES

VIDEO_SUFFIXES: Final = frozenset({".mp4", ".mkv", ".avi", ".mov", ".webm", ".ts", ".m4v", ".mpg", ".mpeg"})


@dataclass(frozen=True, slots=True)
class StrangerVisits:
    """Visits (n,): the highest ``similarities`` that a verdict was taken on, to the person named in ``nearest``;
    ``people`` int64 (n,) numbers who is taken for one person; ``places`` says where each was seen."""

    similarities: NDArray[np.float64]
    people: NDArray[np.int64]
    nearest: tuple[str, ...]
    places: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.similarities)


@dataclass(slots=True)
class _Visit:
    vector: NDArray[np.float32]
    similarity: float
    nearest: str
    place: str


def visits_of_strangers(
    paths: Sequence[Path],
    gallery: Gallery,
    photo_detector: FaceDetector,
    stream_detector: FaceDetector,
    embedder: FaceEmbedder,
    *,
    threshold: float,
    advance: Callable[[str], None] = lambda _done: None,
) -> StrangerVisits:
    """Everybody in videos (each track is a visit, judged as the worker would) and photos (the face nearest the centre).

    ``threshold`` is the one in use so far. Visits whose faces are as similar as the model takes for one person count
    as one, who is one piece of evidence; look-alikes too, so that there is rather too little evidence than too much.
    ``advance`` is told what was done.

    Raises:
        SourceError: a path is missing, or holds neither videos nor photos.
    """
    videos, photos = _kinds(paths)
    visits: list[_Visit] = []
    for video in videos:
        visits += _visits_in_video(video, gallery, stream_detector, embedder, threshold)
        advance(video.name)
    faces = embed_photos(photos, photo_detector, embedder)
    vectors = faces.vectors[faces.found]
    shown = [photo for photo, found in zip(photos, faces.found.tolist(), strict=True) if found]
    for photo, vector, candidate in zip(
        shown, vectors, gallery.search(Embeddings(vectors, embedder.model_id)), strict=True
    ):
        visits.append(_Visit(vector, candidate.similarity, candidate.identity_name, photo.name))
    if photos:
        advance(f"{len(photos)} photos")
    return StrangerVisits(
        np.array([visit.similarity for visit in visits], np.float64),
        group_people(_stack(visits, embedder.dimension), max(threshold, embedder.threshold)),
        tuple(visit.nearest for visit in visits),
        tuple(visit.place for visit in visits),
    )


def group_people(vectors: NDArray[np.float32], same_person: float) -> NDArray[np.int64]:
    """Numbers of people (n,), the same for groups of vectors that are on average as similar as ``same_person``."""
    if len(vectors) < 2:
        return np.zeros(len(vectors), np.int64)
    tree = linkage(pdist(vectors, "cosine").clip(min=0), "average")
    numbers: NDArray[np.int64] = fcluster(tree, 1 - same_person, "distance").astype(np.int64) - 1
    return numbers


def _stack(visits: Sequence[_Visit], dimension: int) -> NDArray[np.float32]:
    return np.array([visit.vector for visit in visits], np.float32).reshape(-1, dimension)


def _visits_in_video(
    video: Path, gallery: Gallery, detector: FaceDetector, embedder: FaceEmbedder, threshold: float
) -> list[_Visit]:
    config: Config = load_config(
        None,
        {
            "cameras": [{"id": "strangers", "source": str(video), "policy": "every"}],
            "recognition": {"threshold": max(0.0, threshold)},
        },
    )
    visits: dict[str, _Visit] = {}

    def note(sighting: Sighting) -> None:
        match, template = sighting.match, sighting.template
        if match is None or template.count < config.recognition.min_embeddings:
            return
        place = f"{video.name} at {sighting.started_pts_s:.1f} s"
        visit = visits.setdefault(sighting.sighting_id, _Visit(template.vector, -1.0, "", place))
        visit.vector = template.vector
        if match.similarity > visit.similarity:
            visit.similarity = match.similarity
            (candidate,) = gallery.search(Embeddings(template.vector[None], embedder.model_id))
            visit.nearest = candidate.identity_name

    replay(config, detector, embedder, gallery, on_verdict=note)
    return list(visits.values())


def _kinds(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The videos and the photos among ``paths`` and in the folders among them."""
    videos: list[Path] = []
    photos: list[Path] = []
    for path in paths:
        if not path.exists():
            raise SourceError(f"no video, photo or folder at {path}")
        if path.is_file():
            # Recorders name their files as they like; what cannot be decoded is told when it is opened.
            (photos if path.suffix.lower() in SUFFIXES - {".gif"} else videos).append(path)
            continue
        files = sorted(Path(root, name) for root, _, names in os.walk(path, followlinks=True) for name in names)
        found_videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
        found_photos = [file for file in files if file.suffix.lower() in SUFFIXES]
        if not found_videos and not found_photos:
            raise SourceError(f"{path} holds neither videos nor photos: give footage of people who are not enrolled")
        videos += found_videos
        photos += found_photos
    return videos, photos
