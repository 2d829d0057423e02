"""What the demo draws: a box on every frame in which a face was followed, and the best face of each sighting."""

from datetime import UTC, datetime

import numpy as np

from worker.demo.footage import Album
from worker.types import Detections, Frame, Tracks

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def watch(album: Album, sequence: int, x: float, track_id: int = 1, label: str = "Ann") -> None:
    found = Detections(
        np.array([[x, 10, x + 40, 60]], np.float32), np.ones(1, np.float32), np.full((1, 5, 2), 30, np.float32)
    )
    tracks = Tracks(found, np.array([track_id]), np.zeros(1, np.float32), np.empty(0, np.int64))
    frame = Frame("a", sequence, sequence / 25, NOW, 0.0, np.full((120, 320, 3), 128, np.uint8))
    album.watch(frame, tracks, [label])


def test_boxes_move_evenly_over_frames_that_were_not_searched() -> None:
    album = Album()
    watch(album, 0, 10)
    watch(album, 4, 50)
    drawn = album.annotations()
    assert sorted(drawn) == [0, 1, 2, 3, 4]
    assert [drawn[number][0].box[0] for number in range(5)] == [10, 20, 30, 40, 50]
    assert drawn[2][0].label == "Ann"


def test_nothing_is_drawn_while_a_face_is_away() -> None:
    album = Album()
    watch(album, 0, 10)
    watch(album, 50, 10)
    assert sorted(album.annotations()) == [0, 50]


def test_tracks_are_drawn_beside_each_other() -> None:
    album = Album()
    watch(album, 0, 10, track_id=1)
    watch(album, 0, 200, track_id=2, label="unknown")
    assert [annotation.label for annotation in album.annotations()[0]] == ["Ann", "unknown"]
