"""Sightings judged against who was there."""

import json
from pathlib import Path

import pytest

from tests.support.sample_events import make_event
from worker.errors import SourceError
from worker.evaluation.recordings import GroundTruth, Visit, judge, read_ground_truth
from worker.types import Event

LEFT, RIGHT = (10.0, 10.0, 50.0, 60.0), (200.0, 10.0, 240.0, 60.0)


def visit(name: str, enrolled: bool, start: int, box: tuple[float, float, float, float]) -> Visit:
    return Visit(
        name=name,
        enrolled=enrolled,
        start_s=start,
        end_s=start + 2,
        boxes=dict.fromkeys(range(start * 25, start * 25 + 50), box),
    )


TRUTH = GroundTruth(
    fps=25, visits=[visit("ann", True, 0, LEFT), visit("cy", False, 0, RIGHT), visit("bo", True, 4, LEFT)]
)


def event(sighting: str, pts_s: float, name: str, box: tuple[float, float, float, float]) -> Event:
    return make_event(sighting_id=sighting, pts_s=pts_s, identity_name=name, box=box)


def test_a_clip_without_mistakes() -> None:
    events = [
        event("s1", 0.4, "ann", LEFT), event("s2", 0.5, "", RIGHT), event("s1", 1.9, "ann", LEFT),
        event("s2", 1.9, "", RIGHT), event("s3", 4.2, "", LEFT), event("s3", 5.0, "bo", LEFT),
    ]  # fmt: skip
    result = judge(TRUTH, events)
    assert (result["precision"], result["recall"], result["sightings_per_visit"]) == (1.0, 1.0, 1.0)
    assert result["time_to_identify_s"] == {"median": 0.7, "p95": pytest.approx(0.97)}
    assert (result["wrong"], result["missed"]) == ([], [])


def test_mistakes_are_counted_and_named() -> None:
    events = [
        event("s1", 0.4, "bo", LEFT),  # somebody else's name
        event("s2", 0.5, "ann", RIGHT),  # a stranger with a name, who is where ann is not
        event("s3", 4.2, "bo", LEFT),
        event("s4", 5.2, "bo", LEFT),  # the same visit again
        event("s5", 5.5, "", (600.0, 10.0, 640.0, 60.0)),  # nobody is there
    ]
    result = judge(TRUTH, events)
    assert result["precision"] == 0.5
    assert result["recall"] == 0.5
    assert result["sightings_per_visit"] == pytest.approx(4 / 3)
    assert result["sightings_nowhere"] == 1
    assert result["wrong"] == ["ann called bo", "cy called ann"]
    assert result["missed"] == ["ann"]


def test_a_face_may_be_found_just_before_and_lost_just_after_its_visit() -> None:
    result = judge(TRUTH, [event("s3", 3.9, "bo", LEFT), event("s3", 6.1, "bo", LEFT)])
    assert (result["precision"], result["sightings_nowhere"]) == (1.0, 0)
    assert result["time_to_identify_s"]["median"] == 0.0
    assert judge(TRUTH, [event("s3", 3.0, "bo", LEFT)])["sightings_nowhere"] == 1


def test_a_visit_without_a_sighting_is_missed_and_makes_the_others_no_fewer() -> None:
    result = judge(TRUTH, [event("s1", 0.4, "ann", LEFT)])
    assert (result["visits_seen"], result["sightings_per_visit"]) == (1, 1.0)
    assert result["missed"] == ["bo"]


def test_a_name_that_is_withdrawn_does_not_count() -> None:
    result = judge(TRUTH, [event("s2", 0.5, "ann", RIGHT), event("s2", 1.5, "", RIGHT)])
    assert result["precision"] is None
    assert result["recall"] == 0.0
    assert result["time_to_identify_s"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ('{"fps": 25, "visits": []}', "visits: "),
        (json.dumps({"fps": 25, "visits": [{"name": "x"}]}), r"visits\.0\.enrolled: "),
    ],
)
def test_a_malformed_ground_truth_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "truth.json").write_text(text)
    with pytest.raises(SourceError, match=message):
        read_ground_truth(tmp_path / "truth.json")
