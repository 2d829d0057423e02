"""Cameras of a machine that is too slow for them, in virtual time: what a look costs is given, and nobody has to wait.

The scheduling, the pipeline and the tracker are the real ones; the networks are stand-ins, and each visit is known.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np

from tests.support.stand_ins import NOON, camera, detector_of, embedder_of
from worker.config import Config, DetectionConfig, RecognitionConfig
from worker.gallery.contents import NewSample
from worker.gallery.folder import FolderGallery
from worker.recognition.pipeline import Pipeline
from worker.types import Chips, Detections, Embeddings, Event, Frame, Image, Picture, image_of
from worker.video.buffers import Batcher, FrameBuffer
from worker.video.schedule import Schedule

FPS = 25
DIMENSION = 256
LIKENESS = 0.8
WIDTH_PX, HEIGHT_PX, FACE_PX = 1280, 720, 90.0
_FIVE_POINTS = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32)
_PICTURE = np.random.default_rng(0).integers(0, 255, (HEIGHT_PX, WIDTH_PX, 3), np.uint8)


@dataclass(frozen=True, slots=True)
class Visit:
    """A person walks past a camera at 70 px a second; ``person`` is the axis of their vectors."""

    camera_id: str
    person: int
    start_s: float
    end_s: float
    lane_px: float

    def box(self, at_s: float) -> tuple[float, float, float, float]:
        left = 100.0 + 70.0 * (at_s - self.start_s)
        return left, self.lane_px, left + FACE_PX, self.lane_px + FACE_PX


@dataclass(slots=True)
class Costs:
    """Seconds of the pipeline's thread: to search a whole picture, to look where faces are expected, to embed one."""

    search_s: float
    follow_s: float
    embed_s: float


@dataclass(slots=True)
class Outcome:
    """What was told of the visits. ``delays_s``: from the start of a named visit to its name."""

    named: int = 0
    known: int = 0
    wrong: int = 0
    strangers: int = 0
    strangers_named: int = 0
    delays_s: list[float] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Of the visits of known people, those that got their name."""
        return self.named / max(self.known, 1)


class _World:
    """Which faces each camera shows, and the networks that see them; counts what its looks have cost."""

    dimension, threshold, model_id, preprocessing_digest = DIMENSION, 0.5, "model", "digest"

    def __init__(self, visits: Iterable[Visit], costs: Costs) -> None:
        self.by_camera: dict[str, list[Visit]] = {}
        for visit in visits:
            self.by_camera.setdefault(visit.camera_id, []).append(visit)
        self.costs = costs
        self.spent_s = 0.0
        self._frames: list[tuple[str, float]] = []
        self._noise = np.random.default_rng(1)
        self._people: dict[tuple[int, int], int] = {}

    def begin(self, frames: list[Frame]) -> None:
        self._frames = [(frame.camera_id, frame.pts_s) for frame in frames]
        self._looked = dict(zip(map(id, (frame.image for frame in frames)), self._frames, strict=True))
        self.spent_s = 0.0

    def detect(self, images: list[Image]) -> list[Detections]:
        self.spent_s += self.costs.search_s * len(images)
        return [self._faces(*self._looked[id(image)]) for image in images]

    def follow(self, images: list[Image], expected: list[np.ndarray]) -> list[Detections]:
        found = []
        for image, boxes in zip(images, expected, strict=True):
            self.spent_s += self.costs.follow_s * bool(len(boxes))
            faces = self._faces(*self._looked[id(image)])
            centres = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
            near = [
                bool(len(boxes) and (np.abs((boxes[:, :2] + boxes[:, 2:]) / 2 - centre).max(axis=1) < FACE_PX).any())
                for centre in centres
            ]
            found.append(faces.take(np.flatnonzero(near)))
        return found

    def align(self, image: Image, detections: Detections) -> Chips:
        camera_id, at_s = self._looked[id(image)]
        chips = np.zeros((len(detections), 2, 2, 3), np.uint8)
        for row, box in enumerate(detections.boxes):
            chips[row, 0, 0, 0] = next(
                visit.person
                for visit in self.by_camera.get(camera_id, [])
                if visit.start_s <= at_s <= visit.end_s and abs(visit.box(at_s)[1] - box[1]) < 1
            )
        return Chips(chips)

    def embed(self, chips: Chips) -> Embeddings:
        self.spent_s += self.costs.embed_s * len(chips)
        vectors = 0.35 * self._noise.normal(size=(len(chips), DIMENSION)) / np.sqrt(DIMENSION)
        vectors[np.arange(len(chips)), chips.images[:, 0, 0, 0]] += 1.0
        return Embeddings((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), "model")

    def embed_found(self, faces: Sequence[tuple[Picture, Detections]]) -> Embeddings:
        return self.embed(Chips.joined([self.align(image_of(picture), face) for picture, face in faces]))

    def _faces(self, camera_id: str, at_s: float) -> Detections:
        here = [v.box(at_s) for v in self.by_camera.get(camera_id, []) if v.start_s <= at_s <= v.end_s]
        boxes = np.array(here, np.float32).reshape(-1, 4)
        landmarks = boxes[:, None, :2] + FACE_PX * _FIVE_POINTS
        return Detections(boxes, np.full(len(boxes), 0.99, np.float32), landmarks.astype(np.float32))


def visits_at(cameras: int, seconds: float, *, people: int, seed: int = 0, length_s: float = 6.0) -> list[Visit]:
    """At each camera one visit after another, with pauses of one to four seconds; half of them of known people."""
    chance = np.random.default_rng(seed)
    visits = []
    for number in range(cameras):
        at_s = float(chance.uniform(0.5, 4.0))
        while at_s + length_s < seconds - 1.0:
            lane = float(chance.choice([60.0, 260.0, 460.0]))
            visits.append(Visit(f"c{number}", int(chance.integers(people)), at_s, at_s + length_s, lane))
            at_s += length_s + float(chance.uniform(1.0, 4.0))
    return visits


def run(cameras: int, costs: Costs, *, seconds: float = 60.0, people: int = 40, seed: int = 0) -> Outcome:
    """Lets a pipeline look at ``cameras`` for ``seconds`` of virtual time; people with even numbers are enrolled."""
    visits = visits_at(cameras, seconds, people=people, seed=seed)
    world = _World(visits, costs)
    gallery = FolderGallery.in_memory("model", "digest", DIMENSION)
    axes = np.eye(DIMENSION, dtype=np.float32)
    apart = np.sqrt(1 - LIKENESS**2) * axes[-1]
    gallery.add(
        [
            NewSample(str(person), (LIKENESS * axes[person] + apart).astype(np.float32), str(person), str(person))
            for person in range(0, people, 2)
        ]
    )
    ids = [f"c{number}" for number in range(cameras)]
    config = Config(
        worker_id="w",
        cameras=tuple(camera(one) for one in ids),
        detection=DetectionConfig(motion_gate=False),
        recognition=RecognitionConfig(linger_s=1.5),
    )
    pipeline = Pipeline(config, detector_of(world), embedder_of(world), gallery, followed=ids)  # type: ignore[arg-type]
    events = _play(pipeline, world, config, ids, seconds)
    return _judged(events, visits)


def _play(
    pipeline: Pipeline, world: _World, config: Config, ids: list[str], seconds: float
) -> list[tuple[float, Event]]:
    now_s = 0.0
    schedule = Schedule(config.detection, max_frames=config.batching.max_frames, clock=lambda: now_s)
    buffers = {one: FrameBuffer(one, "newest") for one in ids}
    batcher = Batcher(buffers.values(), config.batching, due=schedule.due, turn=schedule.turn, clock=lambda: now_s)
    sent = dict.fromkeys(ids, -1)
    events: list[tuple[float, Event]] = []
    while now_s < seconds:
        for one, buffer in buffers.items():
            newest = int(now_s * FPS)
            if newest > sent[one]:
                sent[one] = newest
                pts_s = newest / FPS
                buffer.put(Frame(one, newest, pts_s, NOON + timedelta(seconds=pts_s), pts_s, _PICTURE.view()))
        frames = batcher.next_batch(0.0, schedule.most_frames)
        if not frames:
            now_s += 1 / FPS
            continue
        world.begin(frames)
        made = pipeline.process(frames, schedule.patience, budget_s=schedule.budget_s)
        now_s += world.spent_s + 0.002 * len(frames)
        events += [(now_s, event) for event in made]
        for frame in frames:
            schedule.attend(frame.camera_id, pipeline.attention(frame.camera_id))
        schedule.lagged(max(now_s - frame.received_monotonic_s for frame in frames), batcher.waiting / len(frames))
    return events


def _judged(events: list[tuple[float, Event]], visits: list[Visit]) -> Outcome:
    outcome = Outcome()
    for visit in visits:
        told = [
            (at_s, event)
            for at_s, event in events
            if event.camera_id == visit.camera_id
            and visit.start_s <= event.pts_s <= visit.end_s + 0.5
            and event.identity_name
        ]
        names = {event.identity_name for _, event in told}
        if visit.person % 2:
            outcome.strangers += 1
            outcome.strangers_named += bool(names)
            continue
        outcome.known += 1
        outcome.wrong += bool(names - {str(visit.person)})
        if str(visit.person) in names:
            outcome.named += 1
            outcome.delays_s.append(min(at_s for at_s, event in told) - visit.start_s)
    return outcome
