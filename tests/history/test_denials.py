"""What people said of past sightings is kept as long as these, followed by workers, and then really gone."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.past import AXES, MODEL, sighting, unknown
from tests.support.postgres import with_tables
from tests.support.repository import REPOSITORY
from worker.errors import HistoryError
from worker.history.records import EmbedderId, PastSighting, explain
from worker.history.store import FILE, History

WEEK_S = 7 * 86_400.0


@pytest.fixture(params=["sqlite", "postgres"])
def past(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    place: Path | str = tmp_path
    if request.param == "postgres":
        place = with_tables(request.getfixturevalue("postgres_url"))
    with History.open(place, create=True) as opened:
        yield opened


def anna(number: int = 1, template: np.ndarray | None = AXES[0], **changes: Any) -> PastSighting:
    return sighting(number, template, identity_id="p-anna", identity_name="Anna", **changes)


def write(history: History, *sightings: PastSighting, keep_s: float = WEEK_S) -> None:
    history.write(sightings, keep_s=keep_s, remember_s=WEEK_S)


def only(history: History) -> PastSighting:
    (found,) = history.sightings()
    return found


def test_the_past_shows_the_new_verdict_whom_it_named_before_and_when_that_was_said(past: History) -> None:
    write(past, anna())
    before = datetime.now(UTC)
    past.deny(only(past), unknown_id="u-1")
    corrected = only(past)
    assert (corrected.identity_id, corrected.identity_name, corrected.unknown_id) == ("", "", "u-1")
    (denial,) = corrected.denials
    assert (denial.identity_id, denial.identity_name) == ("p-anna", "Anna")
    assert before <= denial.at <= datetime.now(UTC)
    assert f"somebody said at {denial.at.astimezone().isoformat(' ', 'seconds')} that this was not Anna" in explain(
        corrected
    )
    assert "remembered as u-1" in explain(corrected)


def test_the_face_is_a_counter_example_of_whom_it_was_taken_for(past: History) -> None:
    write(past, anna(1), anna(2, None), sighting(3))
    for one in past.sightings()[:2]:
        past.deny(one, identity_id="p-ben", identity_name="Ben")
    (example,) = past.counter_examples(MODEL)
    assert example.identity_id == "p-anna"
    np.testing.assert_array_equal(example.template, AXES[0])
    assert past.counter_examples(EmbedderId("other", "digest")) == []


def test_what_is_taken_back_leaves_no_counter_example(past: History) -> None:
    write(past, anna())
    past.deny(only(past), identity_id="p-ben", identity_name="Ben")
    past.deny(only(past), unknown_id="u-1")
    assert {example.identity_id for example in past.counter_examples(MODEL)} == {"p-anna", "p-ben"}
    for name, left in (("Ben", {"p-anna"}), ("Anna", set())):
        past.take_back(only(past), name)
        assert only(past).identity_name == name
        assert {example.identity_id for example in past.counter_examples(MODEL)} == left
    assert only(past).denials == ()
    assert only(past).corrections == 4, "each verdict has an event of its own"


def test_two_people_who_correct_at_once_do_not_overwrite_each_other(past: History) -> None:
    write(past, anna())
    mine = theirs = only(past)
    past.deny(theirs, unknown_id="u-1")
    with pytest.raises(HistoryError, match="was changed meanwhile"):
        past.deny(mine, identity_id="p-ben", identity_name="Ben")
    assert only(past).unknown_id == "u-1"
    assert len(only(past).denials) == 1


def test_a_worker_that_tells_the_sighting_once_more_does_not_undo_the_correction(past: History) -> None:
    write(past, anna())
    past.deny(only(past), unknown_id="u-1")
    write(past, anna())
    assert only(past).unknown_id == "u-1"


def test_counter_examples_expire_with_their_sightings(past: History) -> None:
    write(past, anna())
    past.deny(only(past))
    past.prune(keep_s=0.0)
    assert past.counter_examples(MODEL) == []
    # A sighting of the same id is a new one: nothing was said of it.
    write(past, anna(corrections=1))
    assert only(past).denials == ()


@pytest.mark.parametrize("how", ["person removed", "unknown person forgotten"])
def test_nothing_of_a_counter_example_is_left_once_it_is_forgotten(past: History, how: str, tmp_path: Path) -> None:
    template = np.random.default_rng(3).normal(size=512).astype(np.float32)
    write(past, anna(1, template))
    past.write(unknowns=[unknown("u-1", template)], keep_s=WEEK_S, remember_s=WEEK_S)
    past.deny(only(past), unknown_id="u-1")
    revision = past.denials_revision()
    if how == "person removed":
        past.forget_denials_of("p-anna")
        (denial,) = only(past).denials
        assert (denial.identity_id, denial.identity_name) == ("", "")
        assert "this was not the person named then, who has been removed since" in explain(only(past))
    else:
        past.drop_unknown("u-1", sightings_too=True)
        on_disk = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert template.tobytes()[:64] not in on_disk
    assert past.counter_examples(MODEL) == []
    assert past.denials_revision() != revision, "workers must see it"


def test_a_history_of_an_earlier_version_is_taken_over(tmp_path: Path) -> None:
    raw = sqlite3.connect(tmp_path / FILE)
    raw.executescript((REPOSITORY / "tests" / "history" / "layouts" / "1.sql").read_text())
    raw.close()
    with History.open(tmp_path) as past:
        (named,) = past.sightings(sighting_id="door_4")
        past.deny(named, unknown_id="u-1")
        assert len(past.counter_examples(MODEL)) == 1
