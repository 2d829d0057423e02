"""``facestream unknown merge``, ``split`` and ``undo``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.past import AXES, sighting, unknown
from tests.support.publishing import stored
from tests.support.sample_events import make_event
from worker.cli import run_command_line
from worker.events.codec import encode
from worker.history.records import PastSighting
from worker.history.store import History

DAY_S = 86_400.0


def seen(number: int, unknown_id: str, **more: Any) -> PastSighting:
    event = make_event(
        type="ended", sighting_id=f"door_{number}", unknown_id=unknown_id, identity_id="", identity_name=""
    )
    return sighting(number, unknown_id=unknown_id, event=encode(event), **more)


@pytest.fixture
def say(tmp_path: Path, capsys: pytest.CaptureFixture[str], redis_url: str) -> Callable[..., list[dict[str, object]]]:
    """Runs ``facestream unknown ...`` on a history of two people, with --json; an error is its line."""
    with History.open(tmp_path, create=True) as past:
        past.write(
            [seen(1, "u-1"), seen(2, "u-1"), seen(3, "u-2", template=AXES[1])],
            [unknown("u-1"), unknown("u-2", AXES[1])],
            keep_s=DAY_S,
            remember_s=DAY_S,
        )

    def run(*words: str, redis: str = redis_url, code: int = 0) -> list[dict[str, object]]:
        to = [] if words[0] in {"list", "ignore"} else ["--redis", redis]
        assert run_command_line(["unknown", *words, "--state-dir", str(tmp_path), "--json", *to]) == code
        said = capsys.readouterr()
        return [json.loads(line) for line in said.out.splitlines()] if code == 0 else [{"error": said.err}]

    return run


def test_merge_split_and_undo(say: Callable[..., list[dict[str, object]]]) -> None:
    def sightings() -> dict[object, object]:
        return {person["unknown_id"]: person["sightings"] for person in say("list")}

    (merged,) = say("merge", "u-1", "u-2")
    assert (merged["unknown_id"], merged["merged"]) == ("u-1", "u-2")
    assert sightings() == {"u-1": 3}
    assert say("undo", str(merged["step"])) == [{"step": merged["step"], "from": "u-1", "to": "u-2"}]
    assert sightings() == {"u-1": 2, "u-2": 1}
    (split,) = say("split", "u-1", "door_2")
    assert sightings() == {"u-1": 1, "u-2": 1, split["new_unknown_id"]: 1}
    say("undo", str(split["step"]))
    assert sightings() == {"u-1": 2, "u-2": 1}


def test_each_step_is_published_as_corrections_of_past_sightings(
    say: Callable[..., list[dict[str, object]]], redis_url: str
) -> None:
    (merged,) = say("merge", "u-2", "u-1")
    say("undo", str(merged["step"]))
    (again,) = say("merge", "u-2", "u-1")
    events = stored(redis_url)
    assert [(event.type, event.sighting_id, event.unknown_id) for event in events] == [
        ("corrected", f"door_{number}", whose) for whose in ("u-2", "u-1", "u-2") for number in (1, 2)
    ]
    assert {(event.identity_id, event.identity_name, event.epoch) for event in events} == {("", "", 0)}
    # A consumer passes over ids that it has seen: what was done a second time must not look like that.
    assert len({event.event_id for event in events}) == len(events)
    say("undo", str(again["step"]))
    (split,) = say("split", "u-1", "door_2")
    assert [(event.sighting_id, event.unknown_id) for event in stored(redis_url)[-1:]] == [
        ("door_2", split["new_unknown_id"])
    ]


def test_without_redis_nothing_is_changed(say: Callable[..., list[dict[str, object]]]) -> None:
    before = say("list")
    (refused,) = say("merge", "u-1", "u-2", redis="redis://127.0.0.1:1/0", code=1)
    assert str(refused["error"]).count("\n") == 1
    assert say("list") == before


def test_somebody_is_ignored_until_that_is_taken_back(say: Callable[..., list[dict[str, object]]]) -> None:
    def ignored() -> list[object]:
        return [person["unknown_id"] for person in say("list") if person["ignored"]]

    assert ignored() == []
    say("ignore", "u-2")
    assert ignored() == ["u-2"]
    say("ignore", "u-2", "--undo")
    assert ignored() == []
