"""What a run has seen, kept for pictures: where every face was in every frame, and the best face of every track."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.faces.quality import assess
from worker.types import Event, Frame, Image, Tracks
from worker.video.drawing import Annotation, Tile

_BRIDGED_FRAMES: Final = 12
"""Frames between two sightings of a face over which its box is drawn all the same."""


@dataclass(slots=True)
class Album:
    """Hand :meth:`watch` to the pipeline; afterwards :meth:`annotations` and :meth:`tiles` are what to draw."""

    _boxes: dict[int, list[tuple[int, NDArray[np.float32], str]]] = field(default_factory=lambda: defaultdict(list))
    _faces: dict[int, tuple[float, Image]] = field(default_factory=dict)

    def watch(self, frame: Frame, tracks: Tracks, labels: list[str]) -> None:
        """Remembers the tracks of a frame and what is written beside each."""
        quality = assess(frame.image, tracks.detections)
        rows = zip(tracks.track_ids.tolist(), tracks.detections.boxes, labels, quality.scores.tolist(), strict=True)
        for track_id, box, label, score in rows:
            self._boxes[track_id].append((frame.sequence, box, label))
            worth = score * float(box[2] - box[0])
            if worth > self._faces.get(track_id, (0.0, None))[0]:
                self._faces[track_id] = (worth, _crop(frame.image, box))

    def annotations(self) -> dict[int, list[Annotation]]:
        """What to draw in which frame; boxes move evenly between the frames that were searched."""
        drawn: dict[int, list[Annotation]] = defaultdict(list)
        for seen in self._boxes.values():
            for (first, box, label), (later, next_box, _) in zip(seen, [*seen[1:], (-1, None, "")], strict=True):
                last = later if next_box is not None and later - first <= _BRIDGED_FRAMES else first + 1
                for number in range(first, last):
                    share = (number - first) / max(1, last - first) if next_box is not None else 0.0
                    at = box if next_box is None else box + share * (next_box - box)
                    drawn[number].append(Annotation(box=tuple(at.tolist()), label=label))
        return drawn

    def tiles(self, events: Sequence[Event]) -> list[Tile]:
        """A tile for each sighting that has ended: the best face of its track, who it was, when it was last seen."""
        tiles = []
        for event in events:
            if event.type == "ended" and event.track_id in self._faces:
                cosine = "" if event.similarity is None else f", cosine {event.similarity:.2f}"
                caption = f"{event.identity_name or 'unknown'}{cosine}, until {event.pts_s:.1f} s"
                tiles.append(Tile(self._faces[event.track_id][1], caption))
        return tiles


def _crop(image: Image, box: NDArray[np.float32]) -> Image:
    x1, y1, x2, y2 = box.round().astype(int).tolist()
    margin = (y2 - y1) // 4
    height, width = image.shape[:2]
    return image[max(0, y1 - margin) : min(height, y2 + margin), max(0, x1 - margin) : min(width, x2 + margin)].copy()
