"""Recordings in the worker's own pipeline, and how its sightings agree with the ground truth.

Every frame goes through the pipeline, and nothing is sent to Redis.
"""

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from worker.boxes import iou_matrix
from worker.config import CameraConfig, Config
from worker.errors import SourceError
from worker.faces.detection import FaceDetector
from worker.faces.embedding import FaceEmbedder
from worker.gallery.gallery import Gallery
from worker.observer import Observer
from worker.recognition.pipeline import Pipeline, VerdictWatcher
from worker.redaction import first_problem
from worker.types import Event
from worker.video.addresses import parse_address
from worker.video.buffers import Batcher, FrameBuffer
from worker.video.decoder import open_video
from worker.video.reader import CameraReader

_WAIT_S: Final = 1.0
_LEAST_IOU: Final = 0.2
_TOLERANCE_S: Final = 0.3
"""A face may be found a little before or after the frames in which the ground truth says that it can be seen."""


def replay(
    config: Config,
    detector: FaceDetector,
    embedder: FaceEmbedder,
    gallery: Gallery,
    *,
    on_event: Callable[[Event], None] = lambda _event: None,
    on_verdict: VerdictWatcher | None = None,
    advance: Callable[[int], None] = lambda _frames: None,
) -> int:
    """Runs all recordings that ``config`` has as cameras to their ends; returns the number of frames.

    ``on_event`` gets each event, ``on_verdict`` each decision on a sighting. ``advance`` is told how many frames are
    done.

    Raises:
        SourceError: a source is missing, is not a video, is live, or holds no frame that can be decoded.
    """
    buffers = [FrameBuffer.for_camera(camera, config.batching) for camera in config.cameras]
    readers = [CameraReader(camera, buffer) for camera, buffer in zip(config.cameras, buffers, strict=True)]
    if any(reader.live for reader in readers):
        raise SourceError("measuring needs a recording: record the camera to a file, and give that")
    pipeline = Pipeline(config, detector, embedder, gallery, on_verdict=on_verdict)
    batcher = Batcher(buffers, config.batching)
    frames = 0
    try:
        for reader in readers:
            reader.start()
        while (batch := batcher.next_batch(_WAIT_S)) is not None:
            for event in pipeline.process(batch) if batch else ():
                on_event(event)
            frames += len(batch)
            advance(len(batch))
        for event in pipeline.close():
            on_event(event)
    finally:
        for reader in readers:
            reader.stop()
        for reader in readers:
            reader.join(2.0)
    failed = next((reader.error for reader in readers if reader.error), None)
    if failed:
        raise failed
    if not frames:
        raise SourceError(f"no frame could be read from {_names(config)}")
    return frames


def frame_count(path: Path) -> int | None:
    """About how many frames a video file has; None if the file does not say.

    Raises:
        SourceError: the file is missing or is not a video.
    """
    camera = CameraConfig.model_validate({"id": "recording", "source": str(path)})
    video = open_video(parse_address(str(path)), camera, Observer())
    try:
        return round(video.duration_s / video.frame_interval_s) if video.duration_s else None
    finally:
        video.close()


def _names(config: Config) -> str:
    return ", ".join(Path(camera.source.get_secret_value()).name for camera in config.cameras)


class Visit(BaseModel):
    """The time of one person in front of the camera, according to the ground truth.

    The times are seconds in the clip. ``boxes`` holds the face by frame number: x1, y1, x2, y2 px.
    """

    name: str
    enrolled: bool
    start_s: float = Field(ge=0)
    end_s: float = Field(ge=0)
    boxes: dict[int, tuple[float, float, float, float]]


class GroundTruth(BaseModel):
    """Who is in a clip, when, and where."""

    fps: Annotated[float, Field(gt=0)]
    visits: list[Visit] = Field(min_length=1)


@dataclass(slots=True)
class _Sighting:
    events: list[Event] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name that the sighting had in the end."""
        return self.events[-1].identity_name


def read_ground_truth(path: Path) -> GroundTruth:
    """The ground truth in a JSON file.

    Raises:
        SourceError: the file is missing or malformed; the message names the field.
    """
    try:
        return GroundTruth.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SourceError(f"ground truth {path}: {error.strerror or error}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"ground truth {path} is not JSON: {error}") from None
    except ValidationError as error:
        raise SourceError(f"ground truth {path}: {first_problem(error)}") from None


def judge(truth: GroundTruth, events: list[Event]) -> dict[str, Any]:
    """How well the ``events`` of a clip agree with its ground truth, as JSON values.

    A sighting belongs to the visit whose face the boxes of its events overlap most. Precision is the share of sightings
    with the right name among those that end with a name. Recall is the share of visits of enrolled people that have a
    sighting with the right name. The time to identify runs from the first visible frame to the first event with the
    right name.
    """
    sightings: dict[str, _Sighting] = defaultdict(_Sighting)
    for event in events:
        sightings[event.sighting_id].events.append(event)
    visit_of = {key: _visit_of(truth, sighting) for key, sighting in sightings.items()}
    named = [key for key, sighting in sightings.items() if sighting.name]
    right = [key for key in named if _is_right(truth, visit_of[key], sightings[key].name)]
    by_visit: dict[int, list[str]] = defaultdict(list)
    for key, visit in visit_of.items():
        if visit is not None:
            by_visit[visit].append(key)
    enrolled = [number for number, visit in enumerate(truth.visits) if visit.enrolled]
    found = [number for number in enrolled if any(key in right for key in by_visit.get(number, ()))]
    delays = [
        delay
        for number in found
        if (delay := _time_to_identify(truth.visits[number], [sightings[key] for key in by_visit[number]])) is not None
    ]
    return {
        "visits": len(truth.visits),
        "visits_enrolled": len(enrolled),
        "sightings": len(sightings),
        "sightings_named": len(named),
        "sightings_nowhere": sum(visit is None for visit in visit_of.values()),
        "precision": round(len(right) / len(named), 6) if named else None,
        "recall": round(len(found) / len(enrolled), 6) if enrolled else None,
        "sightings_per_visit": round(sum(map(len, by_visit.values())) / max(len(by_visit), 1), 6),
        "visits_seen": len(by_visit),
        "time_to_identify_s": {
            "median": round(float(np.median(delays)), 3),
            "p95": round(float(np.quantile(delays, 0.95)), 3),
        }
        if delays
        else None,
        "wrong": sorted(
            f"{'nobody' if visit is None else truth.visits[visit].name} called {sightings[key].name}"
            for key, visit in visit_of.items()
            if key in set(named) - set(right)
        ),
        "missed": sorted(truth.visits[number].name for number in enrolled if number not in found),
    }


def _visit_of(truth: GroundTruth, sighting: _Sighting) -> int | None:
    """The number of the visit that most boxes of a sighting overlap; None if they overlap none."""
    votes: dict[int, float] = defaultdict(float)
    for event in sighting.events:
        visible = [
            (number, box)
            for number, visit in enumerate(truth.visits)
            if (box := _box_near(visit, event.pts_s, truth.fps)) is not None
        ]
        if not visible:
            continue
        overlaps = iou_matrix(np.array([event.box]), np.array([box for _, box in visible]))[0]
        best = int(overlaps.argmax())
        if overlaps[best] >= _LEAST_IOU:
            votes[visible[best][0]] += float(overlaps[best])
    return max(votes, key=votes.__getitem__) if votes else None


def _box_near(visit: Visit, pts_s: float, fps: float) -> tuple[float, float, float, float] | None:
    """The box of the face in the nearest frame of the visit; None if that frame is too far away in time."""
    if not visit.start_s - _TOLERANCE_S <= pts_s <= visit.end_s + _TOLERANCE_S or not visit.boxes:
        return None
    nearest = min(visit.boxes, key=lambda frame: abs(frame - pts_s * fps))
    return visit.boxes[nearest] if abs(nearest - pts_s * fps) <= _TOLERANCE_S * fps else None


def _is_right(truth: GroundTruth, visit: int | None, name: str) -> bool:
    return visit is not None and truth.visits[visit].enrolled and truth.visits[visit].name == name


def _time_to_identify(visit: Visit, sightings: list[_Sighting]) -> float | None:
    times = [event.pts_s for s in sightings for event in s.events if event.identity_name == visit.name]
    return max(0.0, min(times) - visit.start_s) if times else None
