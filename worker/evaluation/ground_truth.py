"""How the worker's sightings of a clip agree with who is known to be in it."""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from worker.boxes import iou_matrix
from worker.errors import SourceError
from worker.types import Event

_LEAST_IOU = 0.2
_TOLERANCE_S = 0.3
"""A face may be found a little before or after the frames in which the ground truth says that it can be seen."""


class Visit(BaseModel):
    """One person's time in front of the camera: seconds, and the face's x1, y1, x2, y2 px by frame number."""

    name: str
    enrolled: bool
    start_s: float = Field(ge=0)
    end_s: float = Field(ge=0)
    boxes: dict[int, tuple[float, float, float, float]]


class Truth(BaseModel):
    """Who is in a clip, and when, and where."""

    fps: Annotated[float, Field(gt=0)]
    visits: list[Visit] = Field(min_length=1)


@dataclass(slots=True)
class _Sighting:
    events: list[Event] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What it was called in the end."""
        return self.events[-1].identity_name


def read_truth(path: Path) -> Truth:
    """The ground truth in a JSON file.

    Raises:
        SourceError: missing or malformed file, with the name of the field.
    """
    try:
        return Truth.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SourceError(f"ground truth {path}: {error.strerror or error}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"ground truth {path} is not JSON: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise SourceError(f"ground truth {path}: {where}: {first['msg']}") from None


def judge(truth: Truth, events: list[Event]) -> dict[str, Any]:
    """What the ``events`` of the clip are worth, as JSON values.

    A sighting belongs to the visit whose face it overlaps most, by the boxes of its events. Precision: the share of
    sightings with a name in the end that bear the right one. Recall: the share of visits of enrolled people with a
    sighting that bears it. Time to identify: from the first visible frame to the first event with the right name.
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


def _visit_of(truth: Truth, sighting: _Sighting) -> int | None:
    """The number of the visit that most of a sighting's boxes overlap, None if none does."""
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
    """Where the face is, or is nearest in time, None if that is too long ago or ahead."""
    if not visit.start_s - _TOLERANCE_S <= pts_s <= visit.end_s + _TOLERANCE_S or not visit.boxes:
        return None
    nearest = min(visit.boxes, key=lambda frame: abs(frame - pts_s * fps))
    return visit.boxes[nearest] if abs(nearest - pts_s * fps) <= _TOLERANCE_S * fps else None


def _is_right(truth: Truth, visit: int | None, name: str) -> bool:
    return visit is not None and truth.visits[visit].enrolled and truth.visits[visit].name == name


def _time_to_identify(visit: Visit, sightings: list[_Sighting]) -> float | None:
    times = [event.pts_s for s in sightings for event in s.events if event.identity_name == visit.name]
    return max(0.0, min(times) - visit.start_s) if times else None
