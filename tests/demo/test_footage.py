"""The demo's footage: the same on every run, and with a person in it when it says so."""

import hashlib
import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.ground_truth import FPS as TRUTH_FPS
from tests.support.ground_truth import SIZE as TRUTH_SIZE
from tests.support.ground_truth import GroundTruth, make_ground_truth_clip
from worker.demo import footage
from worker.video.clips import open_clip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> footage.DemoFootage:
    return footage.make_demo_clip(tmp_path_factory.mktemp("demo"))


def test_the_clip_has_its_size_rate_and_length(made: footage.DemoFootage) -> None:
    with open_clip(made.clip) as clip:
        assert (clip.size, clip.fps) == (footage.SIZE, Fraction(footage.FPS))
        assert sum(1 for _ in clip) == round(footage.DURATION_S * footage.FPS)


def test_the_person_is_in_the_picture_during_her_visits_only(made: footage.DemoFootage) -> None:
    with open_clip(made.clip) as clip:
        orange = [_orange_share(picture) for picture in clip]
    for number, share in enumerate(orange):
        t = number / footage.FPS
        if any(start <= t <= end for start, end in footage.VISITS_S):
            continue
        assert share < 0.005, f"somebody at {t} s"
    for start, end in footage.VISITS_S:
        middle = orange[round((start + 0.3 * (end - start)) * footage.FPS)]
        assert middle > 0.03


def test_the_photo_is_named_after_the_person_and_is_no_frame_of_the_clip(made: footage.DemoFootage) -> None:
    photos = list(made.photo_folder.iterdir())
    assert [photo.stem for photo in photos] == ["Eileen Collins"]
    with Image.open(photos[0]) as photo:
        assert photo.size != footage.SIZE
        assert _orange_share(np.asarray(photo)) > 0.1


def test_two_runs_give_the_same_pixels_and_the_same_photo(
    made: footage.DemoFootage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footage, "DURATION_S", 1.0)
    first, second = (footage.make_demo_clip(tmp_path / name) for name in ("first", "second"))
    assert _pixels(first.clip) == _pixels(second.clip)
    assert _only_photo(first).read_bytes() == _only_photo(made).read_bytes()


@pytest.fixture(scope="module")
def truth(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> GroundTruth:
    folder = tmp_path_factory.mktemp("truth")
    return make_ground_truth_clip(test_data / "lfw_dev", folder, enrolled=2, strangers=2, seed=1, visit_s=(1.0, 1.4))


@pytest.mark.data
def test_known_footage_enrols_other_photos_of_the_people_it_shows(truth: GroundTruth) -> None:
    enrolled = {visit.name for visit in truth.visits if visit.enrolled}
    strangers = {visit.name for visit in truth.visits if not visit.enrolled}
    assert (len(enrolled), len(strangers), enrolled & strangers) == (2, 2, set())
    assert {person.name: len(list(person.iterdir())) for person in truth.enroll_folder.iterdir()} == dict.fromkeys(
        enrolled, 1
    )


@pytest.mark.data
def test_known_footage_keeps_boxes_apart_in_the_picture_and_in_time(truth: GroundTruth) -> None:
    with open_clip(truth.clip) as clip:
        assert sum(1 for _ in clip) == truth.frames
    for visit in truth.visits:
        assert min(visit.boxes) / TRUTH_FPS == visit.start_s
        assert (max(visit.boxes) + 1) / TRUTH_FPS == visit.end_s
        for x1, y1, x2, y2 in visit.boxes.values():
            assert 0 <= x1 < x2 <= TRUTH_SIZE[0]
            assert 0 <= y1 < y2 <= TRUTH_SIZE[1]
            assert 59 <= x2 - x1 <= 161
    for frame in range(truth.frames):
        here = sorted(visit.boxes[frame] for visit in truth.visits if frame in visit.boxes)
        assert all(left[2] < right[0] for left, right in itertools.pairwise(here))


@pytest.mark.data
def test_known_footage_shows_people_whole_from_the_first_frame_of_their_visit(truth: GroundTruth) -> None:
    with open_clip(truth.clip) as clip:
        frames = [picture.astype(int) for picture in clip]
    for visit in truth.visits:
        first, last = min(visit.boxes), max(visit.boxes)
        x1, y1, x2, y2 = (round(value) for value in visit.boxes[first])
        before, at_once, soon = (frames[number][y1:y2, x1:x2] for number in (first - 1, first, first + 1))
        assert np.abs(at_once - before).mean() > 2 * np.abs(soon - at_once).mean()
        x1, y1, x2, y2 = (round(value) for value in visit.boxes[last])
        late, end, after = (frames[number][y1:y2, x1:x2] for number in (last - 1, last, last + 1))
        assert np.abs(after - end).mean() > 2 * np.abs(end - late).mean()


def _orange_share(picture: np.ndarray) -> float:
    red, green, blue = (picture[::4, ::4, channel].astype(int) for channel in range(3))
    return float(((red - green > 60) & (red - blue > 90)).mean())


def _pixels(clip_path: Path) -> list[str]:
    with open_clip(clip_path) as clip:
        return [hashlib.sha256(picture.tobytes()).hexdigest() for picture in clip]


def _only_photo(made: footage.DemoFootage) -> Path:
    (photo,) = made.photo_folder.iterdir()
    return photo
