"""The past of some cameras alone, in a SQLite file and in a database."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.past import AXES, MODEL, NOON, sighting, unknown
from tests.support.postgres import with_tables
from worker.errors import HistoryError
from worker.history.records import Tally
from worker.history.store import History

LONG_S = 3650 * 86_400.0


@pytest.fixture(params=["sqlite", "postgres"])
def past(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[History]:
    """One unknown person was seen at both cameras, another one and Anna in the yard alone."""
    is_file = request.param == "sqlite"
    place: Any = tmp_path / "state" if is_file else with_tables(request.getfixturevalue("postgres_url"))
    seen = [
        sighting(1, unknown_id="u-both"), sighting(2, unknown_id="u-both", camera_id="yard"),
        sighting(3, AXES[1], unknown_id="u-yard", camera_id="yard"),
        sighting(4, AXES[1], unknown_id="u-yard", camera_id="yard"),
        sighting(5, identity_id="p-anna", identity_name="Anna", camera_id="yard"),
    ]  # fmt: skip
    with History.open(place, create=is_file) as history:
        tallies = [Tally(camera_id, NOON, "blurred", 1, 1) for camera_id in ("door", "yard")]
        people = [unknown("u-both"), unknown("u-yard", AXES[1])]
        history.write(seen, people, tallies, keep_s=LONG_S, remember_s=LONG_S)
        yield history


def test_nothing_of_another_camera_is_there(past: History) -> None:
    door = past.of_cameras(("door", "cellar"))
    assert [one.sighting_id for one in door.sightings()] == [one.sighting_id for one in door.page(9)] == ["door_1"]
    assert door.sightings(sighting_id="door_2") == door.page(9, camera_id="yard") == []
    assert [one.sighting_id for one, _ in door.similar(AXES[0], MODEL, 0.5)] == ["door_1"]
    assert len(past.similar(AXES[0], MODEL, 0.5)) == 3
    assert [person.unknown_id for person in door.unknowns()[0]] == ["u-both"]
    assert door.seen_unknown() == {"u-both": {"door": 1}}
    assert [person.unknown_id for person in door.unknown_people(["u-both", "u-yard"])] == ["u-both"]
    assert door.unknown("u-both").last_seen == sighting(1).ended_at
    with pytest.raises(HistoryError, match="no unknown person u-yard"):
        door.unknown("u-yard")
    assert door.last_seen(["p-anna"]) == {}
    assert past.last_seen(["p-anna"])["p-anna"].camera_id == "yard"
    assert [tally.camera_id for tally in door.tallies()] == ["door"]
    nothing = past.of_cameras(())
    assert not [*nothing.sightings(), *nothing.similar(AXES[0], MODEL, 0.5), *nothing.unknowns()[0]]


def test_steps_of_another_camera_are_not_there_and_others_are_of_the_whole_person(past: History) -> None:
    door = past.of_cameras(("door",))
    _, hidden = past.split_unknown("u-yard", ["door_4"])
    for change in (
        lambda: door.undo_regrouping(hidden),
        lambda: door.split_unknown("u-both", ["door_2"]),
        lambda: door.merge_unknowns("u-both", "u-yard"),
        lambda: door.ignore_unknown("u-yard"),
    ):
        with pytest.raises(HistoryError, match=r"no step|no sighting of|no unknown person"):
            change()
    named = past.name_unknown("u-yard", ["door_3"], "p-bob", "Bob", ["sample"])
    assert door.naming(named) is None
    assert door.namings_of("p-bob") == []
    assert past.naming(named) is not None
    _, step = door.split_unknown("u-both", ["door_1"])
    assert {one.unknown_id for one in past.sightings(sighting_id="door_2")} == {"u-both"}
    assert door.undo_regrouping(step)[1] == "u-both"
    assert len(past.sightings(unknown_id="u-both")) == 2
