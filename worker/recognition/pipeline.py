"""The straight line: frames in, events out.

    frames -> detection -> tracking -> quality -> alignment -> embedding -> gallery -> matching -> events

Frames of all cameras go through together, so that each network runs once a batch.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.boxes import area
from worker.config import CameraConfig, Config, RecognitionConfig
from worker.faces.detection import FaceDetector
from worker.faces.embedding import FaceEmbedder
from worker.faces.quality import assess
from worker.history.evidence import Evidence
from worker.history.recorder import Recorder
from worker.observer import Observer
from worker.recognition import matching
from worker.recognition.camera import PipelineCamera
from worker.recognition.matching import People
from worker.recognition.sighting import Sighting
from worker.recognition.sightings import CameraSightings
from worker.recognition.tracking import Tracker
from worker.recognition.unknowns import Unknowns
from worker.types import JITTER_S, Attention, Chips, Detections, Embeddings, Event, Frame, Tracks

FrameWatcher = Callable[[Frame, Tracks, list[str]], None]
"""Is shown each frame with its tracks and what is written beside each: for pictures and previews."""
VerdictWatcher = Callable[[Sighting], None]
"""Is shown each sighting when a verdict on it was taken: for calibration."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A face that is worth embedding."""

    frame: Frame
    face: Detections
    track_id: int
    quality: float


ProbeWatcher = Callable[[Sequence[Probe]], None]
"""Is shown the faces of all cameras that were embedded together: for a second model."""


class Pipeline:
    """Turns frames into events. Owned by one thread.

    Knows ``config.cameras`` from the start; others come and go by :meth:`add` and :meth:`remove`. Every frame is
    searched for faces, but for the cameras ``followed``: theirs only every ``detection.search_interval_s``, and in
    between the faces are looked for where they are expected.
    """

    def __init__(
        self,
        config: Config,
        detector: FaceDetector,
        embedder: FaceEmbedder,
        gallery: People,
        *,
        observer: Observer | None = None,
        watcher: FrameWatcher | None = None,
        on_verdict: VerdictWatcher | None = None,
        on_probes: ProbeWatcher | None = None,
        unknowns: Unknowns | None = None,
        recorder: Recorder | None = None,
        evidence: Evidence | None = None,
        followed: Collection[str] = (),
    ) -> None:
        self._config = config
        self._detector = detector
        self._embedder = embedder
        self._gallery = gallery
        self._observer = observer or Observer()
        self._watcher = watcher
        self._on_verdict = on_verdict
        self._on_probes = on_probes
        self._unknowns = unknowns
        self._recorder = recorder or Recorder()
        self._evidence = evidence or Evidence()
        self._gallery_version = gallery.version
        self._cameras: dict[str, PipelineCamera] = {}
        for camera in config.cameras:
            self.add(camera, followed=camera.id in followed)

    def add(
        self,
        camera: CameraConfig,
        *,
        epoch: int = 0,
        followed: bool = False,
        resume: Mapping[str, Any] | None = None,
    ) -> None:
        """Takes frames of ``camera`` from now on; its events carry ``epoch``.

        ``resume`` is the :meth:`state` in which the camera was left, by another worker or an earlier run.

        Raises:
            ValueError: a camera of this id is there already.
        """
        if camera.id in self._cameras:
            raise ValueError(f"camera {camera.id} is in the pipeline already")
        self._cameras[camera.id] = self._make_camera(camera, epoch, followed, resume)

    def remove(self, camera_id: str, *, end: bool = True) -> list[Event]:
        """Forgets the camera, and ends its sightings; returns the events of that. Without ``end`` there are none:
        whoever has the :meth:`state` goes on with them."""
        camera = self._cameras.pop(camera_id)
        return camera.end() if end else []

    def state(self, camera_id: str) -> Mapping[str, Any]:
        """The camera's sightings as JSON values, for :meth:`add`."""
        return self._cameras[camera_id].state()

    def adjust(self, recognition: RecognitionConfig, cameras: Collection[CameraConfig] = ()) -> None:
        """Goes by other rules and thresholds from now on; verdicts on whoever is there are taken anew.

        ``cameras``: of those that are here, the settings that hold now.
        """
        self._config = self._config.model_copy(update={"recognition": recognition})
        settings = {camera.id: camera for camera in cameras}
        for camera_id, camera in self._cameras.items():
            camera.config = settings.get(camera_id, camera.config)
            camera.sightings.adjust(recognition, self._threshold_of(camera.config))

    def process(self, frames: Sequence[Frame], patience: float = 1.0) -> list[Event]:
        """The events that ``frames`` cause, in order; frames of one camera must come oldest first.

        Under load, ``patience`` above 1 lets searches of the whole picture wait so many times as long.
        """
        probes: list[Probe] = []
        for frame, found in zip(frames, self._look(frames, patience), strict=True):
            self._observer.faces_detected(frame.camera_id, len(found))
            probes += self._follow(frame, found)
        self._learn(_best_of_each_track(probes))
        self._decide()
        last = {frame.camera_id: frame for frame in frames}
        return [event for frame in last.values() for event in self._transitions(frame)]

    def idle(self, camera_id: str, pts_s: float) -> list[Event]:
        """The events that fall due by time alone on a camera whose clock stands at ``pts_s``, without frames."""
        camera = self._cameras[camera_id]
        if camera.last_frame is None:
            return self._give_up_waiting(camera)
        tracks = camera.tracker.update(Detections.empty(), pts_s)
        camera.sightings.see(camera.last_frame, tracks)
        self._decide()
        return camera.sightings.transitions(pts_s)

    def attention(self, camera_id: str) -> Attention:
        """What a further look at the camera is worth."""
        return self._cameras[camera_id].sightings.attention()

    @property
    def gallery(self) -> People:
        """The one that is searched."""
        return self._gallery

    @property
    def preprocessing_digest(self) -> str:
        """That of the model in use."""
        return self._embedder.preprocessing_digest

    def adopt(self, embedder: FaceEmbedder, gallery: People, unknowns: Unknowns | None = None) -> list[Event]:
        """Goes on with another model. Vectors of two models do not compare, so every sighting ends; whoever is still
        there is sighted anew. Returns the events of that."""
        events = self.close()
        self._gallery.close()
        self._embedder, self._gallery, self._gallery_version = embedder, gallery, gallery.version
        self._unknowns = unknowns
        for camera_id, camera in self._cameras.items():
            self._cameras[camera_id] = self._make_camera(camera.config, camera.epoch, camera.followed)
        return events

    def close(self) -> list[Event]:
        """Ends every sighting."""
        return [event for camera in self._cameras.values() for event in camera.end()]

    def _give_up_waiting(self, camera: PipelineCamera) -> list[Event]:
        """A camera without a first frame: nobody has come back for as long as a sighting lingers."""
        if camera.waited_s() < self._config.recognition.linger_s:
            return []
        return camera.end()

    def _make_camera(
        self, camera: CameraConfig, epoch: int, followed: bool, resume: Mapping[str, Any] | None = None
    ) -> PipelineCamera:
        config = self._config
        sightings = CameraSightings(
            camera.id,
            config.recognition,
            model_id=self._embedder.model_id,
            dimension=self._embedder.dimension,
            threshold=self._threshold_of(camera),
            min_detections=config.tracking.min_hits,
            worker_id=config.worker_id,
            epoch=epoch,
            observer=self._observer,
            preprocessing_digest=self._embedder.preprocessing_digest,
            unknowns=self._unknowns,
            recorder=self._recorder,
            evidence=self._evidence,
        )
        tracker = Tracker(config.tracking, start_score=config.detection.score_threshold)
        return PipelineCamera(camera, epoch, followed, tracker, sightings, resume)

    def _threshold_of(self, camera: CameraConfig) -> float:
        """The nearest setting that there is: the camera's, the configuration's, the gallery's, the model's."""
        settings = (camera.threshold, self._config.recognition.threshold, self._gallery.threshold_of(camera.id))
        return next((threshold for threshold in settings if threshold is not None), self._embedder.threshold)

    def _look(self, frames: Sequence[Frame], patience: float) -> list[Detections]:
        """The faces of each frame: where they are expected, or anywhere, if a search is due or one is not there."""
        expected = [self._expected(frame, patience) for frame in frames]
        looks = self._detector.follow([frame.image for frame in frames], expected)
        lost = [
            index
            for index, (boxes, found) in enumerate(zip(expected, looks, strict=True))
            if not len(boxes) or len(found) < len(boxes)
        ]
        for index, found in zip(lost, self._detector.detect([frames[index].image for index in lost]), strict=True):
            looks[index] = found
            self._cameras[frames[index].camera_id].searched_pts_s = frames[index].pts_s
        return looks

    def _expected(self, frame: Frame, patience: float) -> NDArray[np.float32]:
        """Where the camera's faces should be in ``frame``; nowhere, if the whole picture is to be searched."""
        camera = self._cameras[frame.camera_id]
        since_s = frame.pts_s - camera.searched_pts_s + JITTER_S
        rested = not 0 <= since_s < self._config.detection.search_interval_s * patience
        if rested or not camera.followed:
            return Detections.empty().boxes
        return camera.tracker.predict(frame.pts_s).detections.boxes

    def _follow(self, frame: Frame, found: Detections) -> list[Probe]:
        """Joins the faces of a frame to their tracks; returns those worth embedding and good enough for it."""
        camera = self._cameras[frame.camera_id]
        camera.last_frame = frame
        camera.resume(frame.captured_at, frame.pts_s)
        with self._observer.stage("track"):
            tracks = camera.tracker.update(found, frame.pts_s)
            wanted = camera.sightings.see(frame, tracks)
        if untracked := len(found) - len(tracks):
            self._observer.face_rejected(frame.camera_id, "low_start_score", untracked)
            self._recorder.rejected(frame.camera_id, frame.captured_at, "low_start_score", faces=untracked)
        faces = tracks.detections.take(np.array(wanted, np.int64))
        quality = assess(frame.image, faces, self._config.recognition.min_quality)
        probes = []
        for index, track_id in enumerate(tracks.track_ids[wanted].tolist()):
            score, reason = float(quality.scores[index]), quality.reasons[index]
            self._observer.face_quality(frame.camera_id, score)
            if reason:
                camera.sightings.reject(track_id, reason)
                self._observer.face_rejected(frame.camera_id, reason)
            else:
                probes.append(Probe(frame, faces.take(np.array([index])), track_id, score))
        if self._watcher:
            self._watcher(frame, tracks, [camera.sightings.label(i) for i in tracks.track_ids.tolist()])
        return probes

    def _learn(self, probes: Sequence[Probe]) -> None:
        """Embeds the probes of all cameras together and adds them to their tracks."""
        size = self._config.recognition.batch_size
        for first in range(0, len(probes), size):
            batch = probes[first : first + size]
            chips = [self._embedder.align(probe.frame.image, probe.face) for probe in batch]
            embeddings = self._embedder.embed(Chips.joined(chips))
            for probe, vector in zip(batch, embeddings.vectors, strict=True):
                sightings = self._cameras[probe.frame.camera_id].sightings
                sightings.learn(
                    probe.track_id, vector, probe.quality, probe.frame.pts_s, float(area(probe.face.boxes)[0])
                )
                if sighting_id := sightings.sighting_id_of(probe.track_id):
                    self._evidence.face(sighting_id, probe.frame.image, probe.face.boxes[0], probe.quality)
            if self._on_probes:
                self._on_probes(batch)

    def _decide(self) -> None:
        """Takes the verdict on every track that has learnt something, with one search of the gallery."""
        self._gallery.reload_if_changed()
        changed, self._gallery_version = self._gallery.version != self._gallery_version, self._gallery.version
        undecided = [
            (camera.sightings.threshold, sighting)
            for camera in self._cameras.values()
            for sighting in camera.sightings.to_match(changed)
        ]
        if changed:
            self._observer.gallery_size(len(self._gallery), self._gallery.sample_count, self._gallery_version)
        if not undecided:
            return
        with self._observer.stage("search"):
            vectors = np.stack([sighting.template.vector for _, sighting in undecided])
            candidates = self._gallery.search(Embeddings(vectors, self._embedder.model_id))
        with self._observer.stage("decide"):
            for (threshold, sighting), candidate in zip(undecided, candidates, strict=True):
                sighting.candidate = candidate
                sighting.match = matching.decide(
                    candidate,
                    self._config.recognition,
                    threshold=threshold,
                    evidence=sighting.template.count,
                    gallery_version=self._gallery_version,
                    previous=sighting.match,
                )
                sighting.template_changed = False
                if self._on_verdict:
                    self._on_verdict(sighting)

    def _transitions(self, frame: Frame) -> list[Event]:
        return self._cameras[frame.camera_id].sightings.transitions(frame.pts_s)


def _best_of_each_track(probes: Sequence[Probe]) -> list[Probe]:
    """At most two faces a track and batch, the best ones: neighbouring frames tell the same."""
    kept: dict[tuple[str, int], list[Probe]] = {}
    for probe in probes:
        kept.setdefault((probe.frame.camera_id, probe.track_id), []).append(probe)
    return [
        probe for group in kept.values() for probe in sorted(group, key=lambda probe: probe.quality, reverse=True)[:2]
    ]
