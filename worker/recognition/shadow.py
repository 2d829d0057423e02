"""A second model beside the first: it sees the same faces, takes its own verdicts, and publishes nothing."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from worker.config import Config
from worker.erased import Erased
from worker.faces.embedding import FaceEmbedder
from worker.gallery.gallery import Gallery
from worker.observer import Observer
from worker.recognition import matching
from worker.recognition.attention import TrackedFace
from worker.recognition.matching import TrackTemplate
from worker.recognition.sighting import Sighting
from worker.types import Embeddings, Match

OUTCOMES: Final = ("agree", "only_primary", "only_shadow", "different")
FORGET_AFTER_S: Final = 30.0
"""A track on which no verdict was taken for this long has ended; even a settled track is looked at more often."""


@dataclass(slots=True)
class _Track:
    template: TrackTemplate
    match: Match | None = None
    outcome: str = ""
    decided_pts_s: float = field(default=float("-inf"))


class Shadow:
    """Hand :meth:`learn` and :meth:`compare` to the pipeline. Each track counts once, with its last verdicts.

    People are the same if they have the same ``identity_id`` or the same name.
    """

    def __init__(self, config: Config, embedder: FaceEmbedder, gallery: Gallery, observer: Observer) -> None:
        self._config, self._embedder, self._gallery, self._observer = config.recognition, embedder, gallery, observer
        self._tracks: dict[tuple[str, int], _Track] = {}
        self._outcomes: Counter[str] = Counter()

    def learn(self, faces: Sequence[TrackedFace]) -> None:
        """Embeds the faces that the first model has just embedded."""
        found = self._embedder.embed_found([(face.frame.picture, face.detection) for face in faces])
        for face, vector in zip(faces, found.vectors, strict=True):
            track = self._tracks.setdefault(
                (face.frame.camera_id, face.track_id), _Track(TrackTemplate(self._embedder.dimension))
            )
            track.template.add(vector, face.quality)

    def compare(self, sighting: Sighting) -> None:
        """Takes the second verdict on a track, after the first model has taken its own."""
        self._forget(sighting.camera_id, sighting.seen_pts_s)
        track = self._tracks.get((sighting.camera_id, sighting.track_id))
        if track is None or not track.template.count:
            return
        (candidate,) = self._gallery.search(Embeddings(track.template.vector[None], self._embedder.model_id))
        threshold = self._gallery.threshold_of(sighting.camera_id)
        track.match = matching.decide(
            candidate,
            self._config,
            threshold=self._embedder.threshold if threshold is None else threshold,
            evidence=track.template.count,
            gallery_version=self._gallery.version,
            previous=track.match,
        )
        track.outcome = outcome_of(sighting.match, track.match)
        track.decided_pts_s = sighting.seen_pts_s

    def erase(self, erased: Erased) -> None:
        """Forgets what was seen of those who were erased."""
        self._gallery.reload_if_changed()
        self._gallery.hide(erased)
        theirs = [key for key, track in self._tracks.items() if track.match and track.match.identity_id in erased]
        for key in theirs:
            del self._tracks[key]

    def close(self) -> None:
        """Stops following its gallery."""
        self._gallery.close()

    def report(self) -> dict[str, Any]:
        """Ends all tracks, and closes the gallery. How often the two agreed, as JSON values: ``tracks``, one count
        for each of :data:`OUTCOMES`, ``agreement`` 0..1 (None without a track), ``model_id``, ``gallery_version``.
        """
        for camera_id in {camera_id for camera_id, _ in self._tracks}:
            self._forget(camera_id, float("inf"))
        self._gallery.close()
        tracks = self._outcomes.total()
        return {
            "model_id": self._embedder.model_id,
            "gallery_version": self._gallery.version,
            "tracks": tracks,
            **{outcome: self._outcomes[outcome] for outcome in OUTCOMES},
            "agreement": round(self._outcomes["agree"] / tracks, 4) if tracks else None,
        }

    def _forget(self, camera_id: str, pts_s: float) -> None:
        old = [
            key
            for key, track in self._tracks.items()
            if key[0] == camera_id and track.outcome and pts_s - track.decided_pts_s > FORGET_AFTER_S
        ]
        for key in old:
            outcome = self._tracks.pop(key).outcome
            self._outcomes[outcome] += 1
            self._observer.shadow_verdict(camera_id, outcome)


def outcome_of(primary: Match | None, shadow: Match) -> str:
    """One of :data:`OUTCOMES`."""
    first = primary.identity_id if primary else None
    if first is None or shadow.identity_id is None:
        if first is None and shadow.identity_id is None:
            return "agree"
        return "only_shadow" if first is None else "only_primary"
    same = first == shadow.identity_id or (primary is not None and primary.identity_name == shadow.identity_name)
    return "agree" if same else "different"
