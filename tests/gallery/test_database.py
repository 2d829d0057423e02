"""The gallery that a fleet shares, on a real PostgreSQL."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from prometheus_client import CollectorRegistry

from tests.support.galleries import DIGEST, DIMENSION, MODEL, probe, sample, vector
from tests.support.postgres import PostgresServer, locked_table, running_postgres, with_tables
from tests.support.waiting import PATIENCE_S, eventually
from worker.background import Heartbeats
from worker.config import load_config
from worker.database.address import parse_database_url
from worker.erased import Erased, Erasure, digest_of
from worker.errors import ConfigError, GalleryError, GalleryUnavailableError
from worker.gallery.consents import Consent
from worker.gallery.contents import Contents, NewSample
from worker.gallery.database.gallery import DatabaseGallery
from worker.gallery.database.store import GalleryStore
from worker.gallery.folder import FolderGallery
from worker.gallery.opening import (
    copy_gallery,
    create_gallery,
    difference,
    gallery_exists,
    open_gallery,
    previous_of,
    remove_person,
    roll_back,
    switch,
)
from worker.service.metrics import PrometheusObserver

Opener = Callable[[], DatabaseGallery]


@pytest.fixture
def url(postgres_url: str) -> str:
    return f"{with_tables(postgres_url)}?gallery=site"


@pytest.fixture
def opened(url: str) -> Iterator[Opener]:
    """Opens the gallery once more, as another process would."""
    all_opened: list[DatabaseGallery] = []

    def open_again() -> DatabaseGallery:
        all_opened.append(DatabaseGallery.open(url))
        return all_opened[-1]

    yield open_again
    for gallery in all_opened:
        gallery.close()


@pytest.fixture
def gallery(url: str) -> Iterator[DatabaseGallery]:
    created = DatabaseGallery.create(url, MODEL, DIGEST, DIMENSION)
    yield created
    created.close()


@pytest.fixture
def sql(postgres: PostgresServer) -> Callable[..., list[tuple[Any, ...]]]:
    def execute(*statements: str) -> list[tuple[Any, ...]]:
        return postgres.execute("SET search_path TO facestream", *statements, database="test")

    return execute


def enrolled(gallery: Any) -> dict[str, set[str]]:
    return {person.name: {found.photo for found in person.samples} for person in gallery.people()}


def everything_in(sql: Callable[..., list[tuple[Any, ...]]]) -> str:
    """All rows of all tables of galleries, as text."""
    tables = ("galleries", "people", "samples", "removed", "changes", "followers")
    return "\n".join(str(row) for table in tables for row in sql(f"SELECT t::text FROM {table} t"))


def test_what_one_process_changes_another_has(gallery: DatabaseGallery, opened: Opener) -> None:
    gallery.add([sample("Zoë van Dijk", 1), sample("Zoë van Dijk", 2), sample("李 雷", 3)])
    other = opened()
    zoe, li = other.search(probe(2, 3))
    assert (zoe.identity_name, li.identity_name) == ("Zoë van Dijk", "李 雷")
    assert zoe.similarity == pytest.approx(1.0, abs=1e-5)
    other.add([sample("c", 4)])
    other.rename("李 雷", "Li Lei")
    other.remove("Zoë van Dijk")
    other.set_thresholds(0.4, {"door": 0.5}, {"far": 1e-4})
    assert gallery.reload_if_changed()
    assert enrolled(gallery) == enrolled(other) == {"Li Lei": {"3.jpg"}, "c": {"4.jpg"}}
    assert (gallery.threshold, gallery.threshold_of("door"), gallery.calibration) == (0.4, 0.5, {"far": 1e-4})
    assert gallery.version == other.version == opened().version == 6
    assert not gallery.reload_if_changed()
    with pytest.raises(GalleryError, match="nobody called 'Zoë van Dijk'"):
        gallery.remove("Zoë van Dijk")
    assert gallery.version == 6


def test_searches_answer_as_those_of_a_folder(gallery: DatabaseGallery, opened: Opener, tmp_path: Path) -> None:
    folder = FolderGallery.create(tmp_path / "gallery", MODEL, DIGEST, DIMENSION)
    samples = [sample(f"person {seed % 7}", seed) for seed in range(40)]
    for each in (folder, gallery):
        for first in range(0, 40, 9):
            each.add(samples[first : first + 9])
        each.remove("person 3")
        each.remove_sample(each.person("person 4").samples[1].sample_id)
        each.rename("person 5", "somebody")
        each.merge("person 1", "person 2")
    seen = probe(*range(60))
    for shared in (gallery, opened()):
        for mine, theirs in zip(shared.search(seen), folder.search(seen), strict=True):
            assert (mine.identity_name, mine.runner_up_name) == (theirs.identity_name, theirs.runner_up_name)
            assert (mine.similarity, mine.runner_up) == (theirs.similarity, theirs.runner_up)
        assert shared.vectors()[0].tolist() == folder.vectors()[0].tolist()
        assert [found.photo for found in shared.vectors()[1]] == [found.photo for found in folder.vectors()[1]]


def test_enrolments_at_the_same_time_lose_nothing(gallery: DatabaseGallery, opened: Opener) -> None:
    def enrol(own: DatabaseGallery, first_seed: int) -> None:
        for seed in range(first_seed, first_seed + 8):
            own.add([sample(f"person {seed % 4}", seed)])

    threads = [threading.Thread(target=enrol, args=(opened(), first)) for first in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gallery.reload_if_changed()
    assert enrolled(gallery) == enrolled(opened())
    photos = {f"{first + seed}.jpg" for first in (0, 100, 200) for seed in range(8)}
    assert set.union(*enrolled(gallery).values()) == photos
    assert len(gallery) == 4
    assert gallery.version == 25


def test_another_model_is_refused(gallery: DatabaseGallery, url: str) -> None:
    with pytest.raises(GalleryError, match=r"tiny.*other"):
        DatabaseGallery.open(url, model_id="other")
    with pytest.raises(GalleryError, match=r"digest-1.*digest-2"):
        open_gallery(url, model_id=MODEL, preprocessing_digest="digest-2")
    with pytest.raises(GalleryError, match=r"tiny.*other"):
        gallery.search(probe(1, model_id="other"))
    for wrong in (np.full(4, 0.5, np.float32), np.full(DIMENSION, np.nan, np.float32)):
        with pytest.raises(ValueError, match="vector"):
            gallery.add([NewSample("b", wrong, "b.jpg", "b")])
    assert gallery.version == 1


def test_a_gallery_is_made_once_under_a_name(gallery: DatabaseGallery, postgres_url: str, url: str) -> None:
    assert gallery_exists(url)
    assert not gallery_exists(postgres_url)
    with pytest.raises(GalleryError, match=r"no gallery at .*facestream enroll"):
        open_gallery(postgres_url)
    with pytest.raises(GalleryError, match="exists already"):
        create_gallery(url, MODEL, DIGEST, DIMENSION)
    create_gallery(postgres_url, "other", DIGEST, DIMENSION).add([sample("a", 1)])
    assert enrolled(open_gallery(f"{postgres_url}?gallery=default")) == {"a": {"1.jpg"}}
    assert enrolled(open_gallery(url)) == {}


def test_a_database_without_tables_is_named(postgres_url: str) -> None:
    with pytest.raises(GalleryError, match="facestream database upgrade"):
        open_gallery(postgres_url)


def test_who_keeps_a_gallery_in_redis_is_told_where_it_goes() -> None:
    for use in (open_gallery, gallery_exists):
        with pytest.raises(ConfigError, match="Redis keeps no galleries any more"):
            use("redis://:s3cret-word@h/0?gallery=g")


def test_a_shown_configuration_hides_the_password() -> None:
    secret = "postgresql://u:s3cret-word@h/0?gallery=g&password=s3cret-word"
    config = load_config(None, {"gallery": secret, "shadow_gallery": secret})
    assert config.gallery == secret
    assert "s3cret" not in config.model_dump_json()


def test_nothing_is_left_of_whom_was_removed(
    gallery: DatabaseGallery, opened: Opener, sql: Callable[..., list[tuple[Any, ...]]]
) -> None:
    gallery.add([sample("Ann Example", 1), sample("Ann Example", 2), sample("b", 3)])
    gallery.set_consent("Ann Example", Consent(note="by letter"))
    other = opened()
    before = everything_in(sql)
    assert all(vector(seed).tobytes().hex() in before for seed in (1, 2, 3))
    gallery.remove("Ann Example")
    left = everything_in(sql)
    assert vector(3).tobytes().hex() in left
    for gone in (vector(1).tobytes().hex(), vector(2).tobytes().hex(), "Ann Example", "1.jpg", "2.jpg"):
        assert gone not in left
    other.reload_if_changed()
    for each in (gallery, other):
        assert each.search(probe(1))[0].identity_name == "b"
        held = b"".join(block.vectors.tobytes() for block in each.contents.blocks)
        assert vector(1).tobytes() not in held
        assert len(each.contents.samples) == 1
        assert each.contents.consents == {}
    (last,) = gallery.person("b").samples
    gallery.remove_sample(last.sample_id)
    assert len(gallery) == 0
    assert sql("SELECT count(*) FROM people") == [(0,)]


def test_who_was_erased_is_in_no_later_version_either(gallery: DatabaseGallery, opened: Opener) -> None:
    _, of_ben, of_cleo = gallery.add([sample("Ann", 1), sample("Ben", 2), sample("Cleo", 3)])
    assert of_ben is not None
    assert of_cleo is not None
    gallery.add([sample("Cleo", 4)])
    other = opened()
    gone = frozenset({digest_of(of_ben.identity_id), digest_of(of_cleo.sample_id)})
    other.hide(Erased([Erasure("e", "2026-01-01T00:00:00.000Z", gone)]))
    left = {"Ann": {"1.jpg"}, "Cleo": {"4.jpg"}}
    assert enrolled(other) == left
    gallery.add([sample("Ben", 5), sample("Dora", 6)])
    assert other.reload_if_changed()
    assert enrolled(other) == left | {"Dora": {"6.jpg"}}
    gallery.remove("Ann")
    assert other.reload_if_changed()
    assert enrolled(other) == {"Cleo": {"4.jpg"}, "Dora": {"6.jpg"}}
    assert other.search(probe(2))[0].identity_name != "Ben"


def test_two_entries_become_one_person(gallery: DatabaseGallery, opened: Opener) -> None:
    gallery.add([sample("Anna", 1), sample("Anna", 2), sample("A. Berg", 3), sample("c", 4)])
    other, anna = opened(), gallery.person("Anna")
    merger = gallery.merge("Anna", "A. Berg")
    assert (merger.identity_id, merger.other_name) == (anna.identity_id, "A. Berg")
    other.reload_if_changed()
    for each in (gallery, other, opened()):
        assert enrolled(each) == {"Anna": {"1.jpg", "2.jpg", "3.jpg"}, "c": {"4.jpg"}}
        assert each.search(probe(3))[0].identity_id == anna.identity_id
    for wrong in ("A. Berg", "Anna"):
        with pytest.raises(GalleryError, match=r"nobody called|one person already"):
            gallery.merge("Anna", wrong)
    gallery.part(merger)
    other.reload_if_changed()
    for each in (gallery, other, opened()):
        assert enrolled(each) == {"Anna": {"1.jpg", "2.jpg"}, "A. Berg": {"3.jpg"}, "c": {"4.jpg"}}
        assert each.search(probe(3))[0].identity_id == merger.other_id


def test_who_is_behind_keeps_a_person_all_of_whose_samples_were_replaced(
    gallery: DatabaseGallery, opened: Opener
) -> None:
    (first, _) = gallery.add([sample("Anna", 1), sample("c", 4)])
    other = opened()
    gallery.add([sample("Anna", 2)])
    assert first is not None
    gallery.remove_sample(first.sample_id)
    gallery.remove("c")
    assert other.reload_if_changed()
    for each in (other, opened()):
        assert enrolled(each) == {"Anna": {"2.jpg"}}
        assert each.person("Anna").identity_id == first.identity_id
        assert other.search(probe(2))[0].identity_name == "Anna"


def test_a_change_whose_reply_was_lost_is_made_once(
    gallery: DatabaseGallery, opened: Opener, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker.gallery.database import store

    change = store.GalleryStore.change
    lost: list[bool] = []

    def cut_off(*arguments: Any) -> Any:
        made = change(*arguments)
        if not lost:
            lost.append(True)
            opened().add([sample("meanwhile", 7)])
            raise GalleryUnavailableError("cut in mid-reply")
        return made

    monkeypatch.setattr(store.GalleryStore, "change", cut_off)
    assert gallery.add([sample("a", 1)]) != [None]
    assert lost == [True]
    gallery.reload_if_changed()
    assert enrolled(gallery) == enrolled(opened()) == {"a": {"1.jpg"}, "meanwhile": {"7.jpg"}}
    assert gallery.version == 3


def test_a_reader_reads_what_changed_and_nothing_else(
    gallery: DatabaseGallery, opened: Opener, sql: Callable[..., list[tuple[Any, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery.add([sample(f"person {seed}", seed) for seed in range(5)])
    late, lost = opened(), opened()
    gallery.remove("person 2")
    gallery.rename("person 1", "renamed")
    gallery.add([sample("new", 9)])
    # Of a row that did not change, nobody looks at the vector again.
    old = gallery.person("person 0").samples[0].sample_id
    sql(f"UPDATE samples SET vector = 'damaged' WHERE sample_id = '{old}'")
    assert late.reload_if_changed()
    assert enrolled(late) == enrolled(gallery)
    sql("DELETE FROM changes")
    assert lost.reload_if_changed()
    assert enrolled(lost) == enrolled(gallery)
    for reader in (late, lost):
        assert [found.identity_name for found in reader.search(probe(0, 1, 9))] == ["person 0", "renamed", "new"]


def test_a_change_in_the_middle_of_reading_over_a_kept_connection_is_read_whole(
    gallery: DatabaseGallery, opened: Opener, url: str
) -> None:
    gallery.add([sample("a", 1), sample("b", 2)])
    store = GalleryStore.connect(parse_database_url(url), connections=2)
    known = store.fetch()
    gallery.add([sample("c", 3)])
    changes = [lambda: gallery.remove("c"), lambda: gallery.rename("a", "d")]
    listening = store.listen()

    @sa.event.listens_for(listening, "before_cursor_execute")
    def change(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "FROM facestream.people" in statement:
            while changes:
                changes.pop(0)()

    try:
        newest = store.fetch(known, listening)
        assert newest is not None
        assert not changes
        assert (newest.contents.version, newest.contents.names) == (gallery.version, opened().contents.names)
        assert {one.photo for one in newest.contents.samples} == {"1.jpg", "2.jpg"}
        assert store.fetch(newest, listening) is newest
    finally:
        listening.close()
        store.close()


def test_a_damaged_row_is_named_and_all_others_are_used(
    gallery: DatabaseGallery,
    opened: Opener,
    sql: Callable[..., list[tuple[Any, ...]]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    gallery.add([sample(name, seed) for seed, name in enumerate("abcde", 1)])
    ids = {name: gallery.person(name).samples[0].sample_id for name in "abcd"}
    not_finite = np.full(DIMENSION, np.nan, "<f4").tobytes()
    for name, raw in (("a", vector(7).tobytes()), ("b", b"short"), ("c", not_finite)):
        sql(f"UPDATE samples SET vector = '\\x{raw.hex()}' WHERE sample_id = '{ids[name]}'")
    sql(f"UPDATE samples SET digest = encode(sha256(vector), 'hex') WHERE sample_id = '{ids['c']}'")
    with caplog.at_level(logging.WARNING):
        damaged = opened()
    held = {"a": set(), "b": set(), "c": set(), "d": {"4.jpg"}, "e": {"5.jpg"}}
    assert enrolled(damaged) == held
    told = [record.msg for record in caplog.records if "gallery_sample_damaged" in str(record.msg)]
    assert {(entry["sample"], entry["person"]) for entry in told if isinstance(entry, dict)} == {
        (ids[name], name) for name in "abc"
    }
    # A change of somebody else leaves the row where it is; the same photo takes its place, its person takes it along.
    damaged.remove("d")
    assert sql("SELECT count(*) FROM samples") == [(4,)]
    damaged.add([sample("a", 1)])
    damaged.remove("b")
    assert enrolled(opened()) == {"a": {"1.jpg"}, "c": set(), "e": {"5.jpg"}}
    assert sql("SELECT count(*) FROM samples") == [(3,)]


def test_a_gallery_whose_rows_are_all_damaged_can_be_opened_and_mended(
    gallery: DatabaseGallery, opened: Opener, sql: Callable[..., list[tuple[Any, ...]]]
) -> None:
    gallery.add([sample("a", 1), sample("b", 2)])
    sql("UPDATE samples SET vector = 'short'")
    damaged = opened()
    assert enrolled(damaged) == {"a": set(), "b": set()}
    damaged.add([sample("a", 1)])
    assert enrolled(opened()) == {"a": {"1.jpg"}, "b": set()}


def test_who_has_a_damaged_consent_is_found_by_nobody_and_all_others_are(
    gallery: DatabaseGallery,
    opened: Opener,
    sql: Callable[..., list[tuple[Any, ...]]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    gallery.add([sample(name, seed) for seed, name in enumerate("abc", 1)])
    ids = {name: gallery.person(name).identity_id for name in "ab"}
    for name, wrong in (("a", "{"), ("b", '{"until": "no time"}')):
        sql(f"UPDATE people SET consent = '{wrong}', groups = '[' WHERE identity_id = '{ids[name]}'")
    with caplog.at_level(logging.WARNING):
        found = [match.identity_name for match in opened().search(probe(1, 2, 3))]
    assert found[2] == "c"
    assert {"a", "b"}.isdisjoint(found)
    told = [record.msg for record in caplog.records if "gallery_person_damaged" in str(record.msg)]
    assert {entry["person"] for entry in told if isinstance(entry, dict)} == set(ids.values())


@pytest.mark.parametrize("wrong", ["calibration = '{'", "camera_thresholds = '[1'", "dimension = -3", "groups = '[1]'"])
def test_a_damaged_row_of_the_gallery_itself_is_one_line(
    gallery: DatabaseGallery, opened: Opener, sql: Callable[..., list[tuple[Any, ...]]], wrong: str
) -> None:
    gallery.add([sample("a", 1)])
    sql(f"UPDATE galleries SET {wrong}")
    with pytest.raises(GalleryError, match="its row in the table galleries is damaged; restore it from a backup"):
        opened()


def test_a_database_that_went_back_is_read_whole_and_told(
    gallery: DatabaseGallery,
    opened: Opener,
    sql: Callable[..., list[tuple[Any, ...]]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    tables = ("galleries", "people", "samples", "removed", "changes")
    gallery.add([sample("a", 1), sample("b", 2)])
    sql(*(f"CREATE TABLE kept_{table} AS TABLE {table}" for table in tables))
    gallery.add([sample("lost", 3)])
    gallery.add([sample("lost too", 4)])
    behind = opened()
    sql(
        "DELETE FROM galleries",
        *(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE kept_{table}" for table in tables),
    )
    with caplog.at_level(logging.WARNING):
        assert gallery.reload_if_changed()
    assert enrolled(gallery) == {"a": {"1.jpg"}, "b": {"2.jpg"}}
    assert "went back" in caplog.text
    # As many versions later, the number alone would not tell.
    gallery.add([sample("c", 5)])
    gallery.remove("b")
    assert behind.version == gallery.version
    assert behind.reload_if_changed()
    assert enrolled(behind) == enrolled(gallery) == {"a": {"1.jpg"}, "c": {"5.jpg"}}


def test_another_model_takes_its_place_and_goes_again(
    gallery: DatabaseGallery, opened: Opener, url: str, tmp_path: Path
) -> None:
    gallery.add([sample("a", 1), sample("b", 2)])
    follower = opened()
    ids = {person.name: person.identity_id for person in gallery.people()}
    new = FolderGallery.create(tmp_path / "new", "other", "digest-2", DIMENSION)
    new.add([NewSample("a", vector(11), "11.jpg", "11", identity_id=ids["a"])])
    with pytest.raises(GalleryError, match="do not hold the same people"):
        switch(url, tmp_path / "new")
    switch(url, tmp_path / "new", accept=difference(url, tmp_path / "new"))
    with pytest.raises(GalleryError, match=r"was replaced: it is now made with model other"):
        follower.reload_if_changed()
    with pytest.raises(GalleryError, match="was replaced"):
        follower.add([sample("c", 3)])
    switched = opened()
    assert (switched.model_id, enrolled(switched)) == ("other", {"a": {"11.jpg"}})
    assert enrolled(previous_of(url)) == {"a": {"1.jpg"}, "b": {"2.jpg"}}
    remove_person(switched, "a")
    assert enrolled(previous_of(url)) == {"b": {"2.jpg"}}
    roll_back(url, accept=difference(url, previous_of(url)))
    assert (opened().model_id, enrolled(opened())) == (MODEL, {"b": {"2.jpg"}})


def test_a_gallery_moves_between_folder_and_database(url: str, tmp_path: Path, gallery: DatabaseGallery) -> None:
    gallery.add([sample(f"person {seed % 5}", seed) for seed in range(20)])
    gallery.set_thresholds(0.4, {"door": 0.5}, {"far": 1e-4})
    away = f"{url.partition('?')[0]}?gallery=elsewhere"
    copy_gallery(url, tmp_path / "folder").close()
    copy_gallery(tmp_path / "folder", tmp_path / "again").close()
    back = copy_gallery(tmp_path / "again", away)
    assert back.people() == gallery.people()
    assert back.vectors()[0].tobytes() == gallery.vectors()[0].tobytes()
    assert (back.threshold, back.camera_thresholds, back.calibration) == (0.4, {"door": 0.5}, {"far": 1e-4})
    for taken in (away, tmp_path / "folder"):
        with pytest.raises(GalleryError, match="exists already"):
            copy_gallery(url, taken)
    back.close()


def test_a_start_without_the_database_uses_the_last_copy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running_postgres() as server:
        url = f"{with_tables(server.new_database('site'))}?gallery=site"
        writer = DatabaseGallery.create(url, MODEL, DIGEST, DIMENSION)
        writer.add([sample("a", 1), sample("removed", 2)])
        first = DatabaseGallery.open(url, copies=tmp_path / "copy")
        first.follow("worker")
        eventually(lambda: (tmp_path / "copy" / "CURRENT").exists())
        writer.remove("removed")
        # Whoever was removed goes from the copy too, at once.
        removed = vector(2).tobytes()
        eventually(
            lambda: not any(removed in path.read_bytes() for path in (tmp_path / "copy").rglob("*") if path.is_file())
        )
        writer.add([sample("b", 3)])
        eventually(first.reload_if_changed)
        eventually(lambda: len(first) == 2)
        first.close()
        server.stop()
        with caplog.at_level(logging.WARNING):
            alone = DatabaseGallery.open(url, copies=tmp_path / "copy")
        assert enrolled(alone) == {"a": {"1.jpg"}, "b": {"3.jpg"}}
        assert "cannot be reached" in alone.away
        assert "starting with the last copy" in caplog.text
        with pytest.raises(GalleryUnavailableError, match="cannot be reached"):
            DatabaseGallery.open(url)
        alone.follow("worker")
        assert alone.search(probe(3))[0].identity_name == "b"
        server.start()
        writer.add([sample("c", 4)])
        eventually(lambda: len(alone) == 3)
        eventually(lambda: not alone.away)
        alone.close()
        # A copy that was tampered with is not used.
        for path in (tmp_path / "copy").rglob("embeddings.npy"):
            path.write_bytes(path.read_bytes()[:-1] + b"\x00")
        server.stop()
        with pytest.raises(GalleryUnavailableError, match="cannot be reached"):
            DatabaseGallery.open(url, copies=tmp_path / "copy")
        writer.close()


def test_a_database_that_is_away_is_told_once_and_caught_up_with(caplog: pytest.LogCaptureFixture) -> None:
    with running_postgres() as server:
        url = with_tables(server.new_database("site"))
        gallery = DatabaseGallery.create(url, MODEL, DIGEST, DIMENSION)
        gallery.add([sample("a", 1)])
        registry = CollectorRegistry()
        gallery.follow("worker", PrometheusObserver(registry))

        def lag_s() -> float:
            return registry.get_sample_value("facestream_gallery_lag_seconds") or 0.0

        def told(event: str) -> int:
            return sum(event in str(record.msg) for record in caplog.records)

        with caplog.at_level(logging.INFO):
            server.stop()
            eventually(lambda: lag_s() > 2.0)
            assert not gallery.reload_if_changed()
            assert gallery.search(probe(1))[0].identity_name == "a"
            server.start()
            other = DatabaseGallery.open(url)
            other.add([sample("b", 2)])
            eventually(lambda: told("is back"))
            eventually(lambda: len(gallery) == 2)
        assert told("is away") == 1
        assert [done for _, done in other.wait_for_workers(PATIENCE_S)] == [True]
        gallery.close()
        assert other.followers == []
        server.stop()
        hasty = other
        with pytest.raises(GalleryUnavailableError, match="cannot be reached"):
            hasty.add([sample("c", 3)])
        assert hasty.search(probe(1))[0].identity_name == "a"
        other.close()


def test_a_follower_that_hangs_is_noticed(gallery: DatabaseGallery, url: str, postgres: PostgresServer) -> None:
    now_s = [0.0]
    heartbeats = Heartbeats(lambda: now_s[0])
    follower = DatabaseGallery.open(url)
    follower.follow("worker", heartbeats=heartbeats)
    try:
        with locked_table(postgres, "test", "galleries"):
            now_s[0] += 1000.0
            (name,) = heartbeats.failures()
            assert name.startswith("gallery")
        eventually(lambda: not heartbeats.failures())
    finally:
        follower.close()
    now_s[0] += 1000.0
    assert not heartbeats.failures()


def test_a_version_is_noticed_without_an_announcement(
    gallery: DatabaseGallery, opened: Opener, sql: Callable[..., list[tuple[Any, ...]]]
) -> None:
    follower = opened()
    follower.follow("worker")
    gallery.add([sample("a", 1)])
    eventually(lambda: len(follower) == 1)
    # A pooler may swallow announcements: here nobody is told.
    changed = json.dumps({"far": 1})
    sql(
        f"UPDATE galleries SET version = version + 1, change_id = 'x', calibration = '{changed}'",
        "INSERT INTO changes SELECT gallery, version, change_id, 0 FROM galleries",
    )
    eventually(lambda: follower.calibration == {"far": 1})


class Fleet(RuleBasedStateMachine):
    """Three processes on one gallery. The model is a dictionary: what was added is there until it is removed."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        first = DatabaseGallery.open(self.url)
        for person in first.people():
            first.remove(person.identity_id)
        self.galleries = [first, DatabaseGallery.open(self.url), DatabaseGallery.open(self.url)]
        self.photos = 0
        self.model: dict[str, str] = {}

    who = st.integers(0, 2)
    name = st.sampled_from(["a", "b", "c", "d"])

    def seen(self, who: int) -> dict[str, str]:
        contents: Contents = self.galleries[who].contents
        return {found.photo: contents.names[found.identity_id] for found in contents.samples}

    @rule(who=who, name=name, count=st.integers(1, 3))
    def add(self, who: int, name: str, count: int) -> None:
        added = [sample(name, self.photos + row) for row in range(count)]
        self.photos += count
        assert None not in self.galleries[who].add(added)
        self.model |= {new.photo: name for new in added}

    @rule(who=who, name=name)
    def remove(self, who: int, name: str) -> None:
        if name not in self.model.values():
            with pytest.raises(GalleryError):
                self.galleries[who].remove(name)
            return
        self.galleries[who].remove(name)
        self.model = {photo: held for photo, held in self.model.items() if held != name}

    @rule(who=who, name=name, new=name)
    def merge_or_rename(self, who: int, name: str, new: str) -> None:
        if name == new or name not in self.model.values():
            return
        if new in self.model.values():
            self.galleries[who].merge(new, name)
        else:
            self.galleries[who].rename(name, new)
        self.model = {photo: new if held == name else held for photo, held in self.model.items()}

    @rule(who=who)
    def catch_up(self, who: int) -> None:
        self.galleries[who].reload_if_changed()
        assert self.seen(who) == self.model

    @rule(who=who)
    def restart(self, who: int) -> None:
        self.galleries[who].close()
        self.galleries[who] = DatabaseGallery.open(self.url)

    def teardown(self) -> None:
        try:
            for who, gallery in enumerate(self.galleries):
                gallery.reload_if_changed()
                assert self.seen(who) == self.model
            fresh = DatabaseGallery.open(self.url)
            assert {gallery.version for gallery in self.galleries} == {fresh.version}
            for photo, name in self.model.items():
                found = fresh.search(probe(int(Path(photo).stem)))[0]
                assert (found.identity_name, round(found.similarity, 4)) == (name, 1.0)
            fresh.close()
        finally:
            for gallery in self.galleries:
                gallery.close()


def test_all_processes_see_what_was_added_and_not_removed(url: str, gallery: DatabaseGallery) -> None:
    machine = type("Fleet", (Fleet,), {"url": url})
    run_state_machine_as_test(
        machine, settings=settings(deadline=None, max_examples=8, stateful_step_count=12, print_blob=True)
    )
