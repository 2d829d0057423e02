"""What people read on a screen: local times, and lines that break between words."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.support.sample_events import make_event
from worker.cli.events import table_header, table_row
from worker.cli.options import fit, time_text, wrapped
from worker.history.records import Account
from worker.types import Candidate, Match


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(("month", "shown"), [(1, "2026-01-01 09:30:00+01:00"), (7, "2026-07-01 10:30:00+02:00")])
def test_times_are_local_and_say_by_how_much(month: int, shown: str) -> None:
    assert time_text(datetime(2026, month, 1, 8, 30, tzinfo=UTC)) == shown


@pytest.mark.parametrize("width", ["60", "80", "200"])
def test_an_event_fits_the_screen_and_is_not_cut(width: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", width)
    event = make_event(0)
    row = table_row(event)
    assert max(map(len, (row + "\n" + table_header()).splitlines())) <= int(width)
    assert event.sighting_id in row.split()
    assert event.camera_id in row.split()


def test_in_a_pipe_an_event_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert "\n" not in table_row(make_event(0))


def test_lines_break_between_words_only() -> None:
    assert fit(["one  ", "two", "a-long-one"], 12) == "one  two\n    a-long-one"
    assert fit(["  one", "two", "a-long-one"], 12) == "  one  two\n      a-long-one"
    assert wrapped("nearest was Anna at 0.41", 20).splitlines() == ["    nearest was Anna", "    at 0.41"]


def test_a_verdict_is_noted_with_the_threshold_that_it_was_made_with() -> None:
    account = Account()
    candidate = Candidate(identity_id="i", identity_name="Anna", similarity=0.88, runner_up=-1.0)
    match = Match(None, "", 0.88, -1.0, 0.9, 1, "below_threshold")
    account.conclude(candidate, match, threshold=0.5, reason="below_threshold")
    assert (account.similarity, account.threshold) == (0.88, 0.9)
