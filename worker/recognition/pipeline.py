"""The straight line: frames in, events out.

    frames -> detection -> tracking -> quality -> alignment -> embedding -> gallery -> matching -> events

Frames of all cameras go through together, so that each network runs once a batch. Which frames come here, and which
of their faces are embedded, is told in :mod:`worker.recognition.attention`. On a device the detection of the next batch
may be begun (:meth:`Pipeline.begin`) before a batch is processed.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from worker.boxes import area
from worker.config import CameraConfig, Config, RecognitionConfig
from worker.erased import Erased
from worker.faces.detection import FaceDetector, on_device
from worker.faces.embedding import FaceEmbedder
from worker.faces.quality import assess_each
from worker.history.evidence import Evidence
from worker.history.recorder import Recorder
from worker.observer import Observer
from worker.recognition import matching
from worker.recognition.attention import FEWEST_FACES, TrackedFace, best_of_each_track, has_lost_a_face, worth_of
from worker.recognition.camera import PipelineCamera
from worker.recognition.counter_examples import CounterExamples
from worker.recognition.matching import People
from worker.recognition.sighting import RecognitionContext, Sighting
from worker.recognition.tracking import update
from worker.recognition.unknowns import Unknowns
from worker.types import Attention, Detections, Embeddings, Event, Frame, Tracks

if TYPE_CHECKING:
    from worker.faces.device.detector import Ticket

FrameWatcher = Callable[[Frame, Tracks, list[str]], None]
"""Is shown each frame with its tracks and what is written beside each: for pictures and previews."""
VerdictWatcher = Callable[[Sighting], None]
"""Is shown each sighting when a verdict on it was taken: for calibration."""
FaceWatcher = Callable[[Sequence[TrackedFace]], None]
"""Is shown the faces of all cameras that were embedded together: for a second model."""


class Pipeline:
    """Turns frames into events. Owned by one thread.

    Knows ``config.cameras`` from the start; others come and go by :meth:`add` and :meth:`remove`. Each frame is
    searched for faces as a whole, except those of the cameras ``followed``. ``recorder``, ``evidence``,
    ``unknowns`` and ``counter_examples`` are None where they are not configured.
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
        on_faces: FaceWatcher | None = None,
        unknowns: Unknowns | None = None,
        recorder: Recorder | None = None,
        evidence: Evidence | None = None,
        counter_examples: CounterExamples | None = None,
        followed: Collection[str] = (),
    ) -> None:
        self._config = config
        self._detector = detector
        self._device = on_device(detector)
        self._embedder = embedder
        self._gallery = gallery
        self._observer = observer or Observer()
        self._watcher = watcher
        self._on_verdict = on_verdict
        self._on_faces = on_faces
        self._context = RecognitionContext(
            config.recognition,
            embedder.model_id,
            embedder.preprocessing_digest,
            embedder.dimension,
            config.tracking.min_hits,
            config.worker_id,
            self._observer,
            recorder,
            evidence,
            unknowns,
        )
        self._gallery_version = gallery.version
        self._lapsed: frozenset[str] = frozenset()
        self._counter_examples = counter_examples
        self._embed_s = 0.0
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
        """Forgets the camera, and ends its sightings; returns the events of that. Without ``end`` there are none: a
        worker that has the :meth:`state` goes on with them."""
        events = self._end([self._cameras[camera_id]]) if end else []
        del self._cameras[camera_id]
        return events

    def end(self, camera_id: str) -> list[Event]:
        """Ends the camera's sightings, whose source has ended; returns the events of that."""
        return self._end([self._cameras[camera_id]])

    def state(self, camera_id: str) -> Mapping[str, Any]:
        """The camera's sightings as JSON values, for :meth:`add`."""
        return self._cameras[camera_id].state()

    def erase(self, erased: Erased) -> None:
        """Forgets what was seen of those who were erased, with the pictures of it. Those of them who are in front of a
        camera are strangers from now on, told by new faces."""
        self._gallery.reload_if_changed()
        if self._context.unknowns is not None:
            self._context.unknowns.erase(erased)
        self._context = replace(self._context, erased=erased)
        for camera in self._cameras.values():
            theirs = camera.erase(self._context)
            if self._context.evidence is not None:
                self._context.evidence.erase(theirs)

    def adjust(self, recognition: RecognitionConfig, cameras: Collection[CameraConfig] = ()) -> None:
        """Goes by other rules and thresholds from now on; the verdicts on all who are there are taken anew.

        ``cameras``: the settings that hold now, of cameras that are here.
        """
        self._config = self._config.model_copy(update={"recognition": recognition})
        self._context = replace(self._context, config=recognition)
        changed = {camera.id: camera for camera in cameras}
        for camera_id, camera in self._cameras.items():
            settings = changed.get(camera_id, camera.settings)
            camera.adjust(settings, self._context, self._threshold_of(settings))

    def begin(self, frames: Sequence[Frame]) -> "Ticket | None":
        """Has a device look for the faces of ``frames``, which :meth:`process` takes later, and returns at once; None
        where the processor looks for faces."""
        return self._device.submit([frame.picture for frame in frames]) if self._device is not None else None

    def process(
        self,
        frames: Sequence[Frame],
        patience: float = 1.0,
        *,
        budget_s: float | None = None,
        begun: "Ticket | None" = None,
    ) -> list[Event]:
        """The events that ``frames`` cause, in order; frames of one camera must come oldest first. ``begun`` is what
        :meth:`begin` gave for them.

        Under load, ``patience`` above 1 lets searches of the whole picture wait that many times as long. With
        ``budget_s``, no more faces are embedded than that time allows, by what earlier ones took: those that are worth
        most.
        """
        found = self._look(frames, patience, begun)
        worth: list[TrackedFace] = []
        for places in _in_turn(frames):
            worth += self._follow([frames[place] for place in places], [found[place] for place in places])
        self._learn(self._affordable(best_of_each_track(worth), budget_s))
        self._decide()
        last = {frame.camera_id: frame for frame in frames}
        return [event for frame in last.values() for event in self._transitions(frame)]

    def idle(self, camera_id: str, pts_s: float) -> list[Event]:
        """The events that fall due by time alone on a camera whose clock stands at ``pts_s``, without frames."""
        camera = self._cameras[camera_id]
        if camera.last_frame is None:
            return self._give_up_waiting(camera)
        camera.see_nobody(pts_s)
        self._decide()
        return camera.sightings.transitions(pts_s)

    def attention(self, camera_id: str) -> Attention:
        """What a further look at the camera is worth."""
        return self._cameras[camera_id].sightings.attention()

    @property
    def gallery(self) -> People:
        """The gallery that is searched."""
        return self._gallery

    @property
    def preprocessing_digest(self) -> str:
        """The digest of the model in use."""
        return self._context.preprocessing_digest

    def adopt(
        self,
        embedder: FaceEmbedder,
        gallery: People,
        unknowns: Unknowns | None = None,
        counter_examples: CounterExamples | None = None,
    ) -> list[Event]:
        """Goes on with another model. Vectors of two models do not compare, so every sighting ends; a person who is
        still there is sighted anew. Returns the events of that."""
        events = self.close()
        self._gallery.close()
        self._embedder, self._gallery, self._gallery_version = embedder, gallery, gallery.version
        self._counter_examples = counter_examples
        self._context = replace(
            self._context,
            model_id=embedder.model_id,
            preprocessing_digest=embedder.preprocessing_digest,
            dimension=embedder.dimension,
            unknowns=unknowns,
        )
        for camera_id, camera in self._cameras.items():
            self._cameras[camera_id] = self._make_camera(camera.settings, camera.epoch, camera.followed)
        return events

    def close(self) -> list[Event]:
        """Ends every sighting."""
        return self._end(list(self._cameras.values()))

    def _end(self, cameras: Sequence[PipelineCamera]) -> list[Event]:
        """Whoever was in the picture has left: the verdicts that waited for more faces are taken without them."""
        for camera in cameras:
            camera.leave()
        self._take_verdicts()
        return [event for camera in cameras for event in camera.sightings.close()]

    def _give_up_waiting(self, camera: PipelineCamera) -> list[Event]:
        """A camera without a first frame: nobody has come back for as long as a sighting lingers."""
        if camera.waited_s() < self._config.recognition.linger_s:
            return []
        return self._end([camera])

    def _make_camera(
        self, settings: CameraConfig, epoch: int, followed: bool, resume: Mapping[str, Any] | None = None
    ) -> PipelineCamera:
        return PipelineCamera(
            settings,
            self._config,
            self._context,
            threshold=self._threshold_of(settings),
            epoch=epoch,
            followed=followed,
            resume=resume,
        )

    def _threshold_of(self, camera: CameraConfig) -> float:
        """The nearest setting that there is: the camera's, the configuration's, the gallery's, the model's."""
        settings = (camera.threshold, self._config.recognition.threshold, self._gallery.threshold_of(camera.id))
        return next((threshold for threshold in settings if threshold is not None), self._embedder.threshold)

    def _look(self, frames: Sequence[Frame], patience: float, begun: "Ticket | None") -> list[Detections]:
        """The faces of each frame: those where faces are expected, or all, if a search is due or an expected face is
        not there. A device always looks for all: it needs not know what the frames before have shown."""
        if self._device is not None:
            return self._device.collect(begun or self._device.submit([frame.picture for frame in frames]))
        expected = [self._cameras[frame.camera_id].expected(frame, patience) for frame in frames]
        looks = self._detector.follow([frame.image for frame in frames], expected)
        lost = [
            index
            for index, (boxes, found) in enumerate(zip(expected, looks, strict=True))
            if has_lost_a_face(len(boxes), len(found))
        ]
        for index, found in zip(lost, self._detector.detect([frames[index].image for index in lost]), strict=True):
            looks[index] = found
            self._cameras[frames[index].camera_id].searched(frames[index])
        return looks

    def _follow(self, frames: Sequence[Frame], found: Sequence[Detections]) -> list[TrackedFace]:
        """Joins the faces of one frame each of many cameras to their tracks; returns those worth embedding and good
        enough for it."""
        cameras = [self._cameras[frame.camera_id] for frame in frames]
        for frame, faces in zip(frames, found, strict=True):
            self._observer.faces_detected(frame.camera_id, len(faces))
        with self._observer.stage("track"):
            looks = [camera.look(frame, faces) for camera, frame, faces in zip(cameras, frames, found, strict=True)]
            seen = list(zip(cameras, frames, update(looks), strict=True))
            wanted = [(camera, frame, tracks, camera.see(frame, tracks)) for camera, frame, tracks in seen]
        for (camera, frame, tracks), look in zip(seen, looks, strict=True):
            if untracked := len(look.detections) - len(tracks):
                camera.leave_out(frame, untracked)
            if self._watcher:
                self._watcher(frame, tracks, [camera.sightings.label(i) for i in tracks.track_ids.tolist()])
        return self._good_enough(wanted)

    def _good_enough(self, seen: Sequence[tuple[PipelineCamera, Frame, Tracks, list[int]]]) -> list[TrackedFace]:
        """Of the faces that are wanted of each frame, by their indices, those that are good enough to be embedded."""
        faces = [
            (camera, frame, tracks.detections.take(np.array([index])), int(tracks.track_ids[index]))
            for camera, frame, tracks, wanted in seen
            for index in wanted
        ]
        if not faces:
            return []
        pictures = [frame.picture for _, frame, _, _ in faces]
        together = Detections.joined([face for _, _, face, _ in faces])
        quality = assess_each(pictures, together, self._config.recognition.min_quality)
        return [
            TrackedFace(frame, face, track_id, score)
            for (camera, frame, face, track_id), score, reason in zip(
                faces, quality.scores.tolist(), quality.reasons, strict=True
            )
            if camera.judge(track_id, score, reason)
        ]

    def _affordable(self, faces: list[TrackedFace], budget_s: float | None) -> list[TrackedFace]:
        """As many of ``faces`` as ``budget_s`` allows, and at least :data:`FEWEST_FACES`: those worth most."""
        if budget_s is None or not self._embed_s:
            return faces
        most = max(FEWEST_FACES, int(budget_s / self._embed_s))
        if len(faces) <= most:
            return faces
        return sorted(faces, key=self._worth, reverse=True)[:most]

    def _worth(self, face: TrackedFace) -> tuple[bool, float]:
        return self._cameras[face.frame.camera_id].sightings.is_new(face.track_id), worth_of(face)

    def _learn(self, faces: Sequence[TrackedFace]) -> None:
        """Embeds the faces of all cameras together and adds them to their tracks."""
        # A device takes all at once, and what it waits for is not the price of a face.
        size = self._config.recognition.batch_size if self._device is None else max(len(faces), 1)
        for first in range(0, len(faces), size):
            batch = faces[first : first + size]
            begun_s = time.perf_counter()
            embeddings = self._embedder.embed_found([(face.frame.picture, face.detection) for face in batch])
            if self._device is None:
                self._note_cost((time.perf_counter() - begun_s) / len(batch))
            for face, vector in zip(batch, embeddings.vectors, strict=True):
                sightings = self._cameras[face.frame.camera_id].sightings
                box = face.detection.boxes
                sightings.learn(face.track_id, vector, face.quality, face.frame.pts_s, float(area(box)[0]))
                evidence = self._context.evidence
                if evidence and (shown := sightings.of_track(face.track_id)):
                    doubtful = shown.doubtful.count > 0
                    evidence.face(shown.sighting_id, face.frame.picture, box[0], face.quality, doubtful=doubtful)
            if self._on_faces:
                self._on_faces(batch)

    def _note_cost(self, embed_s: float) -> None:
        self._embed_s += (0.2 if self._embed_s else 1.0) * (embed_s - self._embed_s)

    def _decide(self) -> None:
        """Takes the verdict on every track that has learnt something, by the gallery as it is now."""
        self._gallery.reload_if_changed()
        changed, self._gallery_version = self._gallery.version != self._gallery_version, self._gallery.version
        if changed:
            self._observer.gallery_size(len(self._gallery), self._gallery.sample_count, self._gallery_version)
        lapsed = self._gallery.lapsed()
        changed, self._lapsed = changed or lapsed != self._lapsed, lapsed
        if self._counter_examples is not None:
            changed |= self._counter_examples.refresh(self._gallery)
        self._take_verdicts(changed)

    def _take_verdicts(self, changed: bool = False) -> None:
        """One search of the gallery for all tracks whose verdict is due; for everybody's if the gallery has
        ``changed``."""
        undecided = [
            (camera.sightings.threshold, sighting)
            for camera in self._cameras.values()
            for sighting in camera.sightings.to_match(changed)
        ]
        if not undecided:
            return
        with self._observer.stage("search"):
            vectors = np.stack([sighting.template.vector for _, sighting in undecided])
            embeddings = Embeddings(vectors, self._embedder.model_id)
            if self._counter_examples is None:
                candidates = self._gallery.search(embeddings)
            else:
                candidates = self._counter_examples.search(embeddings, self._gallery)
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
                    no_more_faces=sighting.no_more_faces,
                )
                sighting.template_changed = False
                if self._on_verdict:
                    self._on_verdict(sighting)

    def _transitions(self, frame: Frame) -> list[Event]:
        return self._cameras[frame.camera_id].sightings.transitions(frame.pts_s)


def _in_turn(frames: Sequence[Frame]) -> list[list[int]]:
    """The places of ``frames`` in rounds: the first frame of each camera, then the second of each that has one."""
    rounds: list[list[int]] = []
    earlier: Counter[str] = Counter()
    for place, frame in enumerate(frames):
        number = earlier[frame.camera_id]
        earlier[frame.camera_id] += 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(place)
    return rounds
