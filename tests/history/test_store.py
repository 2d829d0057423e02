"""What is remembered of the past: found again, kept as long as promised, and then really gone."""

import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.past import AXES, MODEL, NOON, sighting, unknown
from tests.support.postgres import with_tables
from tests.support.sample_events import make_event
from worker.config import Config, history_folder
from worker.errors import HistoryError, SinkError
from worker.events.codec import encode
from worker.history.erasing import Wanted
from worker.history.records import EmbedderId, PastSighting, Tally
from worker.history.store import FILE, History

WEEK_S = 7 * 86_400.0


def write(history: History, *args: Any, keep_s: float = WEEK_S, remember_s: float = WEEK_S, **kwargs: Any) -> None:
    history.write(*args, **kwargs, keep_s=keep_s, remember_s=remember_s)


def traces(template: np.ndarray, folder: Path) -> int:
    """How many pieces of a template are in the files; a database spreads a long value over its pages."""
    on_disk = b"".join(path.read_bytes() for path in folder.iterdir())
    raw = template.tobytes()
    return sum(raw[start : start + 16] in on_disk for start in range(0, len(raw), 16))


@pytest.fixture(params=["sqlite", "postgres"])
def past(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    place: Path | str = tmp_path / "state"
    if request.param == "postgres":
        place = with_tables(request.getfixturevalue("postgres_url"))
    with History.open(place, create=True) as opened:
        yield opened


def test_a_sighting_comes_back_as_it_was(past: History) -> None:
    write(past, [sighting(1), sighting(2, None, quality=None)])
    first, second = past.sightings()
    assert first.template is not None
    np.testing.assert_array_equal(first.template, AXES[0])
    assert (first.started_at, first.ended_at) == (sighting(1).started_at, sighting(1).ended_at)
    assert (first.account, dict(first.event), first.embedder) == (sighting(1).account, sighting(1).event, MODEL)
    assert (second.template, second.quality) == (None, None)


def test_the_same_sighting_is_stored_once(past: History) -> None:
    write(past, [sighting(1)])
    write(past, [sighting(1, quality=0.9)])
    assert [found.quality for found in past.sightings()] == [0.9]


def test_sightings_are_found_by_time_camera_and_person(past: History) -> None:
    write(past, [sighting(0), sighting(5, camera_id="yard"), sighting(10, unknown_id="u-1")])

    def found(**by: Any) -> list[str]:
        return [one.sighting_id for one in past.sightings(**by)]

    assert found(since=NOON + timedelta(seconds=5), until=NOON + timedelta(minutes=5)) == ["door_0", "door_5"]
    assert found(since=NOON + timedelta(seconds=11)) == ["door_5", "door_10"]
    assert found(camera_id="yard") == ["door_5"]
    assert found(unknown_id="u-1") == ["door_10"]
    assert found(sighting_id="door_0") == ["door_0"]


@pytest.mark.parametrize("chunk_rows", [1, 2, 100])
def test_similar_sightings_come_first_and_others_not(past: History, chunk_rows: int) -> None:
    near = (0.8 * AXES[0] + 0.6 * AXES[1]).astype(np.float32)
    write(
        past,
        [sighting(0, near), sighting(1), sighting(2, AXES[2]), sighting(3, None),
         sighting(4, embedder=EmbedderId("other", "digest")), sighting(5, embedder=EmbedderId("m", "changed"))],
    )  # fmt: skip
    found = past.similar(AXES[0], MODEL, 0.5, chunk_rows=chunk_rows)
    assert [(one.sighting_id, round(similarity, 3)) for one, similarity in found] == [("door_1", 1.0), ("door_0", 0.8)]
    assert len(past.similar(AXES[0], MODEL, 0.5, limit=1)) == 1
    assert past.similar(AXES[0], MODEL, 0.5, since=NOON + timedelta(hours=1)) == []


def test_what_cannot_be_compared_is_passed_over(past: History) -> None:
    other = EmbedderId("other", "digest")
    nowhere = np.full(16, np.nan, np.float32)
    templates = [AXES[0], nowhere, AXES[0][:8], np.concatenate([AXES[0], AXES[0]]), None]
    rows = [sighting(number, template) for number, template in enumerate(templates)]
    write(past, [*rows, sighting(9, AXES[0], embedder=other), sighting(10, (AXES[0] + AXES[1]) / np.sqrt(2))])
    for chunk_rows in (1, 2, 100):
        found = past.similar(AXES[0], MODEL, 0.5, chunk_rows=chunk_rows)
        assert [row.sighting_id for row, _ in found] == ["door_0", "door_10"]
        assert [similarity for _, similarity in found] == pytest.approx([1.0, 0.5**0.5], abs=1e-7)


def test_what_has_expired_is_gone_from_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = np.random.default_rng(1).normal(size=512).astype(np.float32)
    kept = template[::-1].copy()
    clock = [1_000_000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    with History.open(tmp_path, create=True) as past:
        write(past, [sighting(1, template)], [unknown("u-1", template)], keep_s=100, remember_s=50)
        write(past, [sighting(2, kept)], keep_s=1000)
        assert traces(template, tmp_path) > 100
        clock[0] += 60
        assert past.unknowns()[0] == past.unknown_people(["u-1"]) == []
        assert len(past.sightings()) == 2
        clock[0] += 60
        assert len(past.sightings()) == 1
        past.prune()
        assert traces(template, tmp_path) == 0
        assert traces(kept, tmp_path) > 100
    clock[0] += 1000
    with History.open(tmp_path) as past:
        assert past.sightings() == []
        assert traces(kept, tmp_path) == 0


def test_a_shorter_retention_holds_for_what_was_recorded_before(past: History, monkeypatch: pytest.MonkeyPatch) -> None:
    write(past, [sighting(1)], [unknown()])
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + 3600)
    assert past.prune(keep_s=7200, remember_s=7200) == 0
    assert past.prune(keep_s=1800, remember_s=7200) == 1
    assert past.sightings() == []
    assert len(past.unknowns()[0]) == 1


def test_a_forgotten_person_leaves_no_template_and_every_reader_learns_of_it(tmp_path: Path) -> None:
    template = np.random.default_rng(2).normal(size=512).astype(np.float32)
    with History.open(tmp_path, create=True) as past, History.open(tmp_path) as reader:
        write(past, [sighting(1, unknown_id="u-1")], [unknown("u-1", template), unknown("u-2")])
        people, revision = reader.unknowns()
        assert {person.unknown_id for person in people} == {"u-1", "u-2"}
        assert reader.unknowns(revision) == ([], revision)
        assert traces(template, tmp_path) > 100
        past.drop_unknown("u-1")
        assert traces(template, tmp_path) == 0
        (gone,), newer = reader.unknowns(revision)
        assert (gone.unknown_id, gone.template) == ("u-1", None)
        assert newer > revision
        write(past, [], [unknown("u-1", template)])  # a worker that has not heard of it yet
        assert [person.unknown_id for person in reader.unknowns()[0]] == ["u-2"]
        assert past.sightings()[0].unknown_id == ""
        with pytest.raises(HistoryError, match="no unknown person u-1"):
            past.unknown("u-1")
    assert traces(template, tmp_path) == 0


def test_what_is_forgotten_of_a_person_includes_their_sightings(past: History, tmp_path: Path) -> None:
    template = np.random.default_rng(3).normal(size=512).astype(np.float32)
    write(past, [sighting(1, template, unknown_id="u-1"), sighting(2, unknown_id="u-2")], [unknown("u-1", template)])
    past.drop_unknown("u-1", sightings_too=True)
    first, second = past.sightings()
    assert (first.template, first.unknown_id) == (None, "")
    assert second.template is not None
    if (tmp_path / "state").exists():
        assert traces(template, tmp_path / "state") == 0


def test_naming_says_who_it_was_and_counts(past: History) -> None:
    write(past, [sighting(1, unknown_id="u-1"), sighting(2, unknown_id="u-1")])
    past.give_name(past.sightings(sighting_id="door_1")[0], "p-1", "Anna")
    first, second = past.sightings()
    assert (first.identity_id, first.identity_name, first.unknown_id, first.corrections) == ("p-1", "Anna", "", 1)
    assert (second.identity_id, second.unknown_id, second.corrections) == ("", "u-1", 0)


def test_tallies_add_up_by_camera_hour_and_reason(past: History) -> None:
    for _ in range(3):
        write(past, tallies=[Tally("door", NOON, "too_short", 1, 2), Tally("yard", NOON, "too_short", 1, 1)])
    write(past, tallies=[Tally("door", NOON + timedelta(hours=1), "too_short", 1, 1)])
    assert past.tallies(camera_id="door") == [
        Tally("door", NOON, "too_short", 3, 6), Tally("door", NOON + timedelta(hours=1), "too_short", 1, 1)
    ]  # fmt: skip
    assert [tally.camera_id for tally in past.tallies(until=NOON + timedelta(minutes=5))] == ["door", "yard"]


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with History.open(folder, create=True) as past:
        write(past, [sighting(1)])
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert set(modes.values()) == {0o600}
    assert len(modes) > 1
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_write_that_fails_leaves_nothing_behind(past: History) -> None:
    with pytest.raises(HistoryError, match="history"):
        write(past, [sighting(1), sighting(2, quality=object())])
    assert past.sightings() == []
    write(past, [sighting(3)])
    assert len(past.sightings()) == 1


def test_what_cannot_be_used_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="no history in"):
        History.open(tmp_path / "nothing")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / FILE).write_bytes(b"this is no database, and long enough to be looked at" * 100)
    with pytest.raises(HistoryError, match="is damaged"):
        History.open(damaged)
    History.open(tmp_path / "newer", create=True).close()
    with sqlite3.connect(tmp_path / "newer" / FILE) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(HistoryError, match="newer version"):
        History.open(tmp_path / "newer")
    (tmp_path / "file").touch()
    with pytest.raises(HistoryError, match="cannot be opened"):
        History.open(tmp_path / "file", create=True)


def test_the_history_lies_beside_the_gallery_unless_told_otherwise(tmp_path: Path) -> None:
    assert history_folder(Config(gallery=str(tmp_path / "people") + "/")) == tmp_path / "people.state"
    assert history_folder(Config(gallery="people", state_dir=tmp_path)) == tmp_path
    assert history_folder(Config(gallery="postgresql://host/db")) is None
    assert history_folder(Config()) is None


def test_a_command_that_looks_takes_nothing_from_a_worker_with_the_file_open_twice(tmp_path: Path) -> None:
    """The command's exit must not delete the log: it has to see that others have the file open."""
    look = (
        "from pathlib import Path; from worker.history.store import History; import sys\n"
        "with History.open(Path(sys.argv[1])) as past: print(len(past.sightings()))"
    )

    def count_elsewhere() -> int:
        done = subprocess.run([sys.executable, "-c", look, str(tmp_path)], capture_output=True, text=True, check=True)
        return int(done.stdout)

    with History.open(tmp_path, create=True) as writer, History.open(tmp_path, create=True) as reader:
        write(writer, [sighting(1)])
        assert count_elsewhere() == 1
        write(writer, [sighting(2)])
        assert count_elsewhere() == 2
        assert len(reader.sightings()) == 2
        assert writer.is_in_place()
    with History.open(tmp_path) as past:
        assert len(past.sightings()) == 2


def test_a_file_that_was_removed_is_noticed(tmp_path: Path) -> None:
    with History.open(tmp_path, create=True) as history:
        assert history.is_in_place()
        (tmp_path / FILE).unlink()
        assert not history.is_in_place()
        with History.open(tmp_path, create=True):
            assert not history.is_in_place()


def ids_of(past: History, person: str) -> list[str]:
    return [found.sighting_id for found in past.sightings(unknown_id=person)]


def known(past: History) -> dict[str, list[float]]:
    return {one.unknown_id: one.template.round(3).tolist() for one in past.unknowns()[0] if one.template is not None}


def two_people(past: History) -> None:
    write(
        past,
        [sighting(1, unknown_id="u-1"), sighting(2, AXES[1], unknown_id="u-2"), sighting(3, AXES[1], unknown_id="u-2")],
        [unknown("u-1"), unknown("u-2", AXES[1])],
    )


def test_two_ids_become_one_person_and_two_again(past: History) -> None:
    two_people(past)
    before, revision = past.unknowns()
    step = past.merge_unknowns("u-1", "u-2")
    assert ids_of(past, "u-1") == ["door_1", "door_2", "door_3"]
    assert known(past)["u-1"][:2] == pytest.approx([0.447, 0.894], abs=1e-3)
    # Every worker learns that one of them is gone.
    assert {one.unknown_id: one.template is None for one in past.unknowns(revision)[0]} == {"u-1": False, "u-2": True}
    # A sighting that went on meanwhile ends under the old id.
    write(past, [sighting(4, AXES[1], unknown_id="u-2")])
    assert ids_of(past, "u-1") == ["door_1", "door_2", "door_3", "door_4"]
    assert past.undo_regrouping(step) == ("u-1", "u-2")
    assert (ids_of(past, "u-1"), ids_of(past, "u-2")) == (["door_1"], ["door_2", "door_3", "door_4"])
    assert {one.unknown_id for one in past.unknowns()[0]} == {one.unknown_id for one in before}
    assert known(past)["u-2"][:2] == [0.0, 1.0]
    with pytest.raises(HistoryError, match="was undone before"):
        past.undo_regrouping(step)


def test_what_was_seen_after_a_merge_goes_at_its_undoing_to_whom_it_shows(past: History) -> None:
    two_people(past)
    write(past, [sighting(9, AXES[1], identity_id="p-1", identity_name="Ann")])
    step = past.merge_unknowns("u-1", "u-2")
    of_other = encode(make_event(unknown_id="u-2"))
    turned = 0.8 * AXES[0] + 0.6 * AXES[1]
    write(
        past,
        [sighting(4, turned, unknown_id="u-1"), sighting(5, turned[[1, 0, *range(2, 16)]], unknown_id="u-1"),
         sighting(6, None, unknown_id="u-2", event=of_other), sighting(7, None, unknown_id="u-1"),
         sighting(8, AXES[3], unknown_id="u-2", event=of_other)],
    )  # fmt: skip
    past.deny(past.sightings(sighting_id="door_9")[0], unknown_id="u-1")
    told: dict[str, str] = {}

    def tell(sightings: Sequence[PastSighting], unknown_id: str) -> None:
        told.update((one.sighting_id, unknown_id) for one in sightings)

    past.undo_regrouping(step, tell)
    assert ids_of(past, "u-2") == [f"door_{number}" for number in (2, 3, 5, 6, 8, 9)]
    assert ids_of(past, "u-1") == [f"door_{number}" for number in (1, 4, 7)]
    assert told == dict.fromkeys(ids_of(past, "u-2"), "u-2")
    assert past.unknown("u-2").last_seen == sighting(9).ended_at


def test_who_was_seen_again_while_they_were_one_with_another_is_remembered_as_long(
    past: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun_s = time.time()
    write(past, [sighting(2, AXES[1], unknown_id="u-2")], [unknown("u-2", AXES[1])], keep_s=1000, remember_s=100)
    monkeypatch.setattr(time, "time", lambda: begun_s + 60)
    write(past, [sighting(1, unknown_id="u-1")], [unknown("u-1")], keep_s=1000, remember_s=100)
    step = past.merge_unknowns("u-1", "u-2")
    monkeypatch.setattr(time, "time", lambda: begun_s + 120)
    write(past, [sighting(4, AXES[1], unknown_id="u-1")], [unknown("u-1")], keep_s=1000, remember_s=100)
    past.prune()
    past.undo_regrouping(step)
    monkeypatch.setattr(time, "time", lambda: begun_s + 200)
    past.prune()
    assert set(known(past)) == {"u-1", "u-2"}
    assert ids_of(past, "u-2") == ["door_2", "door_4"]


def test_a_merge_is_one_also_where_something_of_the_other_has_expired(
    past: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(past, [sighting(5, AXES[1], unknown_id="u-2")], keep_s=10)
    two_people(past)
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + 20)
    past.merge_unknowns("u-1", "u-2")
    write(past, [sighting(6, AXES[1], unknown_id="u-2")])
    assert ids_of(past, "u-1") == ["door_1", "door_2", "door_3", "door_6"]


def test_a_sighting_that_goes_on_while_its_person_is_parted_is_of_the_one_whom_it_shows(past: History) -> None:
    two_people(past)
    write(past, [sighting(5, AXES[2], unknown_id="u-2")])
    moved: dict[str, str] = {}

    def end(*sightings: PastSighting) -> None:
        write(past, sightings, tell=lambda told: moved.update((one.sighting_id, now) for one, now in told))

    new_id, split = past.split_unknown("u-2", ["door_5"])
    end(sighting(6, AXES[2], unknown_id="u-2"), sighting(7, AXES[1], unknown_id="u-2"))
    assert moved == {"door_6": new_id}
    # What was there when the two were parted is whose people said, also if it is written once more.
    write(past, [sighting(3, AXES[2], unknown_id="u-2")])
    # One that begins later was compared with both.
    begins = datetime.now(UTC) + timedelta(minutes=1)
    write(past, [sighting(8, AXES[2], unknown_id="u-2", started_at=begins, ended_at=begins)])
    assert (ids_of(past, "u-2"), ids_of(past, new_id)) == (
        ["door_2", "door_3", "door_7", "door_8"], ["door_5", "door_6"]
    )  # fmt: skip
    # With the split undone, nobody of the new id is left, and nobody comes to be.
    past.undo_regrouping(split)
    end(sighting(9, AXES[2], unknown_id=new_id))
    assert moved == {"door_6": new_id, "door_9": "u-2"}
    assert ids_of(past, new_id) == []
    assert new_id not in known(past)
    # A merge that is undone parts two as well.
    merge = past.merge_unknowns("u-1", "u-2")
    past.undo_regrouping(merge)
    end(sighting(10, AXES[1], unknown_id="u-1"), sighting(11, AXES[0], unknown_id="u-1"))
    assert moved == {"door_6": new_id, "door_9": "u-2", "door_10": "u-2"}


def test_a_step_that_could_not_be_told_is_not_made(past: History) -> None:
    two_people(past)

    def refuse(sightings: Sequence[PastSighting], unknown_id: str) -> None:
        raise SinkError(f"{len(sightings)} for {unknown_id}")

    step = past.merge_unknowns("u-1", "u-2")
    before = repr((past.unknowns(), past.sightings()))
    with pytest.raises(SinkError, match="2 for u-2"):
        past.undo_regrouping(step, refuse)
    with pytest.raises(SinkError, match="1 for u-"):
        past.split_unknown("u-1", ["door_1"], refuse)
    assert repr((past.unknowns(), past.sightings())) == before


def test_some_sightings_become_another_person_and_come_back(past: History) -> None:
    two_people(past)
    write(past, [sighting(5, AXES[2], unknown_id="u-2")])
    new_id, step = past.split_unknown("u-2", ["door_5"])
    assert (ids_of(past, "u-2"), ids_of(past, new_id)) == (["door_2", "door_3"], ["door_5"])
    assert known(past) == {"u-1": AXES[0].tolist(), "u-2": AXES[1].tolist(), new_id: AXES[2].tolist()}
    merged = past.merge_unknowns("u-1", new_id)
    with pytest.raises(HistoryError, match=rf"step {merged} came after"):
        past.undo_regrouping(step)
    past.undo_regrouping(merged)
    past.undo_regrouping(step)
    assert ids_of(past, "u-2") == ["door_2", "door_3", "door_5"]
    assert new_id not in known(past)


def test_what_cannot_be_regrouped_is_one_line(past: History) -> None:
    two_people(past)
    write(past, [sighting(6, None, unknown_id="u-1")], [unknown("u-3", embedder=EmbedderId("other", "digest"))])
    for wrong, message in (
        (lambda: past.merge_unknowns("u-1", "u-1"), "one person already"),
        (lambda: past.merge_unknowns("u-1", "u-9"), "no unknown person u-9"),
        (lambda: past.merge_unknowns("u-1", "u-3"), "different models"),
        (lambda: past.split_unknown("u-1", ["door_2"]), "no sighting of u-1"),
        (lambda: past.split_unknown("u-2", ["door_2", "door_3"]), "nobody would be left"),
        (lambda: past.split_unknown("u-1", ["door_6"]), "told apart"),
        (lambda: past.undo_regrouping("none"), "no step none"),
    ):
        with pytest.raises(HistoryError, match=message):
            wrong()
    assert set(known(past)) == {"u-1", "u-2", "u-3"}
    step = past.merge_unknowns("u-1", "u-2")
    past.drop_unknown("u-1", sightings_too=True)
    with pytest.raises(HistoryError, match="no step"):
        past.undo_regrouping(step)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("template", b"abc"), ("template", np.full(16, np.nan, "<f4").tobytes()), ("template", "text"),
        ("template", b""), ("account", "{"), ("account", "[]"), ("account", "[" * 100_000), ("event", "{"),
        ("started_s", 1e300), ("ended_s", float("inf")),
    ],
)  # fmt: skip
def test_a_damaged_row_is_named_and_hides_no_other(
    tmp_path: Path, column: str, value: object, caplog: pytest.LogCaptureFixture
) -> None:
    with History.open(tmp_path, create=True) as past:
        _damaged_row(past, tmp_path / FILE, column, value, caplog)


def _damaged_row(past: History, path: Path, column: str, value: object, caplog: pytest.LogCaptureFixture) -> None:
    write(past, [sighting(1), sighting(2)], [unknown("u-1"), unknown("u-2")])
    with sqlite3.connect(path) as other:
        other.execute(f"UPDATE sightings SET {column} = ? WHERE sighting_id = 'door_1'", (value,))
        if column == "template":
            other.execute("UPDATE unknowns SET template = ? WHERE unknown_id = 'u-1'", (value,))
    other.close()
    assert [row.sighting_id for row in past.sightings()] == ["door_2"]
    assert any("door_1" in str(record.msg) for record in caplog.records)
    assert [row.sighting_id for row, _ in past.similar(AXES[0], MODEL, 0.5)] == ["door_2"]
    if column == "template":
        assert [person.unknown_id for person in past.unknowns()[0]] == ["u-2"]
        with pytest.raises(HistoryError, match="is damaged"):
            past.unknown("u-1")


def test_who_is_forgotten_had_other_ids_before_they_were_merged(past: History) -> None:
    write(past, [sighting(1, unknown_id="u-1"), sighting(2, unknown_id="u-2")],
          [unknown(name) for name in ("u-1", "u-2", "u-3", "u-4")])  # fmt: skip
    past.merge_unknowns("u-2", "u-3")
    past.merge_unknowns("u-1", "u-2")
    traces, ids, _names = past.traces(Wanted(frozenset(), frozenset({"u-1"})))
    assert {trace.sighting_id for trace in traces} == {"door_1", "door_2"}
    assert ids == {"u-1", "u-2", "u-3"}
