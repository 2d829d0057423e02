"""Whether the worker, which leaves work out, finds everybody whom the frame-by-frame chain finds.

The reference searches every frame (camera policy ``every``). The fast chain is the worker as it ships. Tracks are
matched one to one by how much of their time they share with overlapping boxes. Identities are matched by name and
time.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from worker.boxes import iou_matrix
from worker.config import Config
from worker.service.service import Service, Summary
from worker.types import Event, Frame, Tracks

MIN_DETECTIONS: Final = 5
"""Tracks of the reference with fewer frames need not be found: nobody can use a flicker of a fifth of a second."""
MIN_IOU: Final = 0.4
"""Boxes of one face in two runs overlap at least this much. Those of the fast run are interpolated between searches."""
MIN_SHARED: Final = 0.5
"""A track is found if at least this share of its frames lies within the time and the boxes of its counterpart."""
REACH_S: Final = 0.2
"""A track also counts this long before its first and after its last detection, where no search was due."""


@dataclass(frozen=True, slots=True)
class Track:
    """One face that was followed.

    ``times_s`` float64 (k,) are seconds in the source, ascending. ``boxes`` float32 (k, 4) px holds a box for each.
    ``identity`` is the name in the end, empty for an unknown person.
    """

    times_s: NDArray[np.float64]
    boxes: NDArray[np.float32]
    identity: str = ""


@dataclass(frozen=True, slots=True)
class NamedSighting:
    """A sighting that ended with a name, and its time in seconds in the source."""

    identity: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class ChainOutput:
    """What a chain found in a recording."""

    tracks: tuple[Track, ...]
    sightings: tuple[NamedSighting, ...]
    summary: Summary = field(default_factory=Summary)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a fast run compares with the reference.

    ``shared`` holds a share (0..1) for each track that was found: that of its frames in which its counterpart is at
    the same place.
    """

    tracks: int
    missed_tracks: tuple[Track, ...]
    added_tracks: tuple[Track, ...]
    identities: int
    missed_identities: tuple[NamedSighting, ...]
    added_identities: tuple[NamedSighting, ...]
    renamed: tuple[tuple[str, str], ...]
    shared: tuple[float, ...]

    @property
    def complete(self) -> bool:
        """Whether all tracks and identities of the reference are found with the same names, and no others are named."""
        return not (self.missed_tracks or self.missed_identities or self.added_identities or self.renamed)

    def __str__(self) -> str:
        return (
            f"{self.tracks - len(self.missed_tracks)} of {self.tracks} tracks, "
            f"{self.identities - len(self.missed_identities)} of {self.identities} identities; "
            f"added {len(self.added_tracks)} tracks, {len(self.added_identities)} identities; "
            f"renamed {len(self.renamed)}"
        )


class ChainObserver:
    """Collects what a :class:`worker.service.service.Service` finds.

    Give it :meth:`watch` and :meth:`note`; :meth:`output` returns what they were told.
    """

    def __init__(self) -> None:
        self._times: dict[tuple[str, int], list[float]] = defaultdict(list)
        self._boxes: dict[tuple[str, int], list[NDArray[np.float32]]] = defaultdict(list)
        self._names: dict[tuple[str, int], str] = {}
        self._events: dict[str, list[Event]] = defaultdict(list)

    def watch(self, frame: Frame, tracks: Tracks, labels: list[str]) -> None:
        """Keeps where the tracks of a frame are, and the names of those that have one."""
        for track_id, box, label in zip(tracks.track_ids.tolist(), tracks.detections.boxes, labels, strict=True):
            key = frame.camera_id, track_id
            self._times[key].append(frame.pts_s)
            self._boxes[key].append(box)
            if label != "...":
                self._names[key] = "" if label == "unknown" else label

    def note(self, event: Event) -> None:
        """Keeps an event."""
        self._events[event.sighting_id].append(event)
        self._names[event.camera_id, event.track_id] = event.identity_name

    def output(self, summary: Summary | None = None) -> ChainOutput:
        """What was found so far."""
        tracks = [
            Track(np.array(times), np.stack(self._boxes[key]), self._names.get(key, ""))
            for key, times in self._times.items()
        ]
        sightings = [
            NamedSighting(
                events[-1].identity_name,
                (events[0].started_at - events[0].captured_at).total_seconds() + events[0].pts_s,
                events[-1].pts_s,
            )
            for events in self._events.values()
            if events[-1].identity_name
        ]
        return ChainOutput(tuple(tracks), tuple(sightings), summary or Summary())


def run_chain(config: Config) -> ChainOutput:
    """Runs the worker on the recordings of ``config`` to their ends.

    Raises:
        FacestreamError: the worker cannot start.
    """
    observer = ChainObserver()
    stopped = Service(config, on_event=observer.note, watcher=observer.watch).run()
    if stopped.errors:
        raise stopped.errors[0]
    return observer.output(stopped.summary)


def compare_outputs(reference: ChainOutput, fast: ChainOutput, *, min_detections: int = MIN_DETECTIONS) -> Agreement:
    """Which tracks (of at least ``min_detections`` frames) and identities of ``reference`` are in ``fast``.

    A track of ``fast`` counts as added if no track of the reference, however short, is its counterpart.
    """
    shares = np.array([[_shared(wanted, found) for found in fast.tracks] for wanted in reference.tracks])
    shares = shares.reshape(len(reference.tracks), len(fast.tracks))
    rows, columns = linear_sum_assignment(shares, maximize=True)
    pairs = {
        int(row): int(column) for row, column in zip(rows, columns, strict=True) if shares[row, column] >= MIN_SHARED
    }
    asked = [row for row, track in enumerate(reference.tracks) if len(track.times_s) >= min_detections]
    counterparts = set(pairs.values()) | set(np.flatnonzero((shares > 0).any(axis=0)).tolist())
    return Agreement(
        tracks=len(asked),
        missed_tracks=tuple(reference.tracks[row] for row in asked if row not in pairs),
        added_tracks=tuple(track for column, track in enumerate(fast.tracks) if column not in counterparts),
        identities=len(reference.sightings),
        missed_identities=_unmatched(reference.sightings, fast.sightings),
        added_identities=_unmatched(fast.sightings, reference.sightings),
        renamed=tuple(
            (reference.tracks[row].identity, fast.tracks[pairs[row]].identity)
            for row in asked
            if row in pairs and reference.tracks[row].identity != fast.tracks[pairs[row]].identity
        ),
        shared=tuple(float(shares[row, pairs[row]]) for row in asked if row in pairs),
    )


def _shared(wanted: Track, found: Track) -> float:
    """The share of the frames of ``wanted`` in which ``found``, interpolated, is at the same place."""
    inside = (wanted.times_s >= found.times_s[0] - REACH_S) & (wanted.times_s <= found.times_s[-1] + REACH_S)
    if not inside.any():
        return 0.0
    times_s = wanted.times_s[inside]
    boxes = np.stack([np.interp(times_s, found.times_s, side) for side in found.boxes.T], axis=1).astype(np.float32)
    overlap = np.diagonal(iou_matrix(wanted.boxes[inside], boxes))
    return float((overlap >= MIN_IOU).sum() / len(wanted.times_s))


def _unmatched(wanted: Sequence[NamedSighting], found: Sequence[NamedSighting]) -> tuple[NamedSighting, ...]:
    """The sightings of ``wanted`` for which ``found`` has none with the same name at an overlapping time."""
    return tuple(
        sighting
        for sighting in wanted
        if not any(
            other.identity == sighting.identity
            and other.start_s <= sighting.end_s + REACH_S
            and sighting.start_s <= other.end_s + REACH_S
            for other in found
        )
    )
