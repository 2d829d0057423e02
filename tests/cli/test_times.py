"""What people read on a screen: local times, and lines that break between words."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from tests.support.sample_events import make_event
from worker.cli import run_command_line
from worker.cli.events import table_header, table_row
from worker.cli.screen import columns_of, fit, padded, say, time_text, wrapped
from worker.gallery.contents import NewSample
from worker.gallery.folder import FolderGallery
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
    assert fit(["one  ", "two", "a-long-one"], 12) == "one    two\n    a-long-one"
    assert fit(["  one", "two", "a-long-one"], 12) == "  one  two\n      a-long-one"
    assert wrapped("nearest was Anna at 0.41", 20).splitlines() == ["    nearest was Anna", "    at 0.41"]


def test_a_verdict_is_noted_with_the_threshold_that_it_was_made_with() -> None:
    account = Account()
    candidate = Candidate(identity_id="i", identity_name="Anna", similarity=0.88, runner_up=-1.0)
    match = Match(None, "", 0.88, -1.0, 0.9, 1, "below_threshold")
    account.conclude(candidate, match, threshold=0.5, reason="below_threshold")
    assert (account.similarity, account.threshold) == (0.88, 0.9)


def test_a_wide_script_takes_two_columns_for_each_character() -> None:
    assert fit(["山田太郎", "two", "three"], 12) == "山田太郎\n    two\n    three"
    assert wrapped("山田 太郎 山田 太郎 東京", 20, "") == "山田 太郎 山田 太郎\n東京"
    assert padded("山田", 6) + "|" == "山田  |"


@pytest.mark.parametrize("err", [False, True])
def test_a_sentence_is_broken_between_words(
    err: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = "photos/山田 太郎/0001.jpg: not taken: no face found"
    say(sentence, err=err)
    monkeypatch.setenv("COLUMNS", "24")
    say(sentence, err=err)
    whole, *lines = "".join(capsys.readouterr()).splitlines()
    assert whole == sentence
    assert lines == ["photos/山田", "    太郎/0001.jpg: not", "    taken: no face found"]


@pytest.mark.parametrize("name", ["Anna", "山田太郎" * 8])
def test_people_of_any_script_fit_the_screen(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery = FolderGallery.create(tmp_path / "people", "m", "digest", 8)
    gallery.add([NewSample(name, np.eye(8, dtype=np.float32)[0], "photo", "sha")])
    monkeypatch.setenv("COLUMNS", "80")
    assert run_command_line(["gallery", "list", "--gallery", str(tmp_path / "people")]) == 0
    shown = capsys.readouterr().out
    assert max(map(columns_of, shown.splitlines())) <= 80
    assert name in shown
    assert gallery.people()[0].identity_id in shown
