"""The gallery that a fleet shares, on a real Redis."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from prometheus_client import CollectorRegistry

from tests.support.galleries import DIGEST, DIMENSION, MODEL, probe, sample, vector
from tests.support.redis_servers import RedisServer
from tests.support.waiting import PATIENCE_S, eventually
from worker.config import load_config
from worker.errors import ConfigError, GalleryError, GalleryUnavailableError
from worker.gallery.contents import Contents, NewSample
from worker.gallery.folder import FolderGallery
from worker.gallery.opening import (
    create_gallery,
    difference,
    gallery_exists,
    open_gallery,
    previous_of,
    remove_person,
    roll_back,
    switch,
)
from worker.gallery.shared import store as shared_store
from worker.gallery.shared.gallery import SharedGallery
from worker.gallery.shared.store import parse_gallery_url
from worker.service.metrics import PrometheusObserver


@pytest.fixture
def url(redis_url: str) -> str:
    return f"{redis_url}?gallery=site"


@pytest.fixture
def opened(url: str) -> Iterator[Callable[[], SharedGallery]]:
    """Opens the gallery once more, as another process would."""
    all_opened: list[SharedGallery] = []

    def open_again() -> SharedGallery:
        all_opened.append(SharedGallery.open(url))
        return all_opened[-1]

    yield open_again
    for gallery in all_opened:
        gallery.close()


@pytest.fixture
def gallery(url: str) -> Iterator[SharedGallery]:
    created = SharedGallery.create(url, MODEL, DIGEST, DIMENSION)
    yield created
    created.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url) as connected:
        yield connected


def enrolled(gallery: Any) -> dict[str, set[str]]:
    return {person.name: {found.photo for found in person.samples} for person in gallery.people()}


def key(name: str) -> str:
    return f"{{facestream:gallery:site}}:{name}"


def everything_in(client: Any) -> bytes:
    """The content of every key, one after the other."""
    content: list[bytes] = []
    for name in client.scan_iter(count=1000):
        match client.type(name):
            case b"hash":
                content += [part for pair in client.hgetall(name).items() for part in pair]
            case b"stream":
                content += [part for _, entry in client.xrange(name) for pair in entry.items() for part in pair]
            case b"zset":
                content += client.zrange(name, 0, -1)
            case b"string":
                content.append(client.get(name))
            case other:
                raise AssertionError(other)
    return b"\n".join(content)


def flush(client: Any) -> None:
    client.flushall()


def test_what_one_process_changes_another_has(
    gallery: SharedGallery, opened: Callable[[], SharedGallery], url: str
) -> None:
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


def test_searches_answer_as_those_of_a_folder(gallery: SharedGallery, tmp_path: Path) -> None:
    folder = FolderGallery.create(tmp_path / "gallery", MODEL, DIGEST, DIMENSION)
    samples = [sample(f"person {seed % 7}", seed) for seed in range(40)]
    for each in (folder, gallery):
        for first in range(0, 40, 9):
            each.add(samples[first : first + 9])
        each.remove("person 3")
        each.remove_sample(each.person("person 4").samples[1].sample_id)
        each.rename("person 5", "somebody")
    seen = probe(*range(60))
    for shared in (gallery, SharedGallery.open(gallery.label)):
        for mine, theirs in zip(shared.search(seen), folder.search(seen), strict=True):
            assert (mine.identity_name, mine.runner_up_name) == (theirs.identity_name, theirs.runner_up_name)
            assert (mine.similarity, mine.runner_up) == (theirs.similarity, theirs.runner_up)
        assert shared.vectors()[0].tolist() == folder.vectors()[0].tolist()
        assert [found.photo for found in shared.vectors()[1]] == [found.photo for found in folder.vectors()[1]]


def test_enrolments_at_the_same_time_lose_nothing(gallery: SharedGallery, opened: Callable[[], SharedGallery]) -> None:
    def enrol(own: SharedGallery, first_seed: int) -> None:
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


def test_another_model_is_refused(gallery: SharedGallery, url: str) -> None:
    with pytest.raises(GalleryError, match=r"tiny.*other"):
        SharedGallery.open(url, model_id="other")
    with pytest.raises(GalleryError, match=r"digest-1.*digest-2"):
        open_gallery(url, model_id=MODEL, preprocessing_digest="digest-2")
    with pytest.raises(GalleryError, match=r"tiny.*other"):
        gallery.search(probe(1, model_id="other"))


def test_a_gallery_is_made_once_under_a_name(gallery: SharedGallery, redis_url: str, url: str) -> None:
    assert gallery_exists(url)
    assert not gallery_exists(redis_url)
    with pytest.raises(GalleryError, match=r"no gallery at .*facestream enroll"):
        open_gallery(redis_url)
    with pytest.raises(GalleryError, match="exists already"):
        create_gallery(url, MODEL, DIGEST, DIMENSION)
    create_gallery(redis_url, "other", DIGEST, DIMENSION).add([sample("a", 1)])
    assert enrolled(open_gallery(f"{redis_url}?gallery=default")) == {"a": {"1.jpg"}}
    assert enrolled(open_gallery(url)) == {}


@pytest.mark.parametrize("wrong", ["redis://h/0?gallery=", "redis://h/0?gallery=a{b", "redis://[/0", "http://h/g"])
def test_a_wrong_url_is_told_by_itself(wrong: str) -> None:
    with pytest.raises(ConfigError):
        open_gallery(wrong)


def test_a_password_is_never_shown(url: str, redis_url: str) -> None:
    secret = url.replace("redis://", "redis://worker:s3cret-word@")
    assert "s3cret" not in parse_gallery_url(secret).label
    for wrong in (secret, "redis://worker:s3cret-word@127.0.0.1:1/0?gallery=g", "redis://:s3cret-word@h/x?gallery=g"):
        with pytest.raises((GalleryError, ConfigError)) as caught:
            open_gallery(wrong)
        assert "s3cret" not in str(caught.value)
    with redis.Redis.from_url(redis_url) as client:
        rights = "~{facestream:gallery:site* +@read +@write +@scripting +@connection +time"  # as in docs/gallery.md
        client.execute_command("ACL", "SETUSER", "worker", "on", ">s3cret-word", *rights.split())
        try:
            made = create_gallery(secret, MODEL, DIGEST, DIMENSION)
            assert isinstance(made, SharedGallery)
            made.follow("worker")
            made.add([sample("a", 1)])
            assert [done for _, done in made.wait_for_workers(PATIENCE_S)] == [True]
            with pytest.raises(GalleryError) as caught:
                made.remove("nobody")
            made.close()
            assert "s3cret" not in f"{caught.value} {made.label}"
        finally:
            client.execute_command("ACL", "DELUSER", "worker")


def test_a_shown_configuration_hides_the_password() -> None:
    secret = "redis://:s3cret-word@h/0?gallery=g"
    config = load_config(None, {"gallery": secret, "shadow_gallery": secret})
    assert config.gallery == secret
    assert "s3cret" not in config.model_dump_json()


def test_a_change_whose_reply_was_lost_is_made_once(
    gallery: SharedGallery, opened: Callable[[], SharedGallery], monkeypatch: pytest.MonkeyPatch
) -> None:
    change = shared_store.SharedStore.change
    lost: list[bool] = []

    def cut_off(*arguments: Any) -> Any:
        made = change(*arguments)
        if not lost:
            lost.append(made is not None)
            opened().add([sample("meanwhile", 7)])
            raise GalleryUnavailableError("cut in mid-reply")
        return made

    monkeypatch.setattr(shared_store.SharedStore, "change", cut_off)
    monkeypatch.setattr("worker.gallery.shared.gallery._RETRY_S", 0.01)
    assert gallery.add([sample("a", 1)]) != [None]
    assert lost == [True]
    gallery.reload_if_changed()
    assert enrolled(gallery) == enrolled(opened()) == {"a": {"1.jpg"}, "meanwhile": {"7.jpg"}}
    assert gallery.version == 3


def test_nothing_is_left_of_whom_was_removed(
    gallery: SharedGallery, opened: Callable[[], SharedGallery], client: Any
) -> None:
    gallery.add([sample("Ann Example", 1), sample("Ann Example", 2), sample("b", 3)])
    other = opened()
    before = everything_in(client)
    assert all(vector(seed).tobytes() in before for seed in (1, 2, 3))
    gallery.remove("Ann Example")
    left = everything_in(client)
    assert vector(3).tobytes() in left
    for gone in (vector(1).tobytes(), vector(2).tobytes(), b"Ann Example", b"1.jpg", b"2.jpg"):
        assert gone not in left
    other.reload_if_changed()
    for each in (gallery, other):
        assert each.search(probe(1))[0].identity_name == "b"
        held = b"".join(block.vectors.tobytes() for block in each.contents.blocks)
        assert vector(1).tobytes() not in held
        assert len(each.contents.samples) == 1


def test_a_removed_sample_is_gone_and_the_person_with_the_last(gallery: SharedGallery, client: Any) -> None:
    gallery.add([sample("a", 1), sample("a", 2)])
    first, second = gallery.person("a").samples
    gallery.remove_sample(first.sample_id)
    assert vector(1).tobytes() not in everything_in(client)
    gallery.remove_sample(second.sample_id)
    assert len(gallery) == 0
    assert client.hlen(key("people")) == 0


def test_whoever_is_too_far_behind_reads_everything_but_known_vectors(
    gallery: SharedGallery, opened: Callable[[], SharedGallery], client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery.add([sample(f"person {seed}", seed) for seed in range(5)])
    late = opened()
    gallery.remove("person 2")
    gallery.rename("person 1", "renamed")
    gallery.add([sample("new", 9)])
    client.xtrim(key("changes"), maxlen=0)
    asked: list[str] = []
    call = shared_store.SharedStore._call

    def note(store: Any, command: str, *rest: Any, **more: Any) -> Any:
        if command == "hmget":
            asked.extend(rest[1])
        return call(store, command, *rest, **more)

    monkeypatch.setattr(shared_store.SharedStore, "_call", note)
    assert late.reload_if_changed()
    assert enrolled(late) == enrolled(gallery)
    assert asked == [gallery.person("new").samples[0].sample_id]
    assert [found.identity_name for found in late.search(probe(1, 9))] == ["renamed", "new"]


def test_a_change_of_very_many_is_read_whole(
    gallery: SharedGallery, opened: Callable[[], SharedGallery], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = opened()
    monkeypatch.setattr(shared_store, "TOUCHED_AT_MOST", 3)
    gallery.add([sample(f"person {seed}", seed) for seed in range(5)])
    assert other.reload_if_changed()
    assert enrolled(other) == enrolled(gallery)


def test_a_damaged_vector_is_left_out_and_told(
    gallery: SharedGallery, opened: Callable[[], SharedGallery], client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    gallery.add([sample("a", 1), sample("b", 2), sample("c", 3)])
    one, two = (gallery.person(name).samples[0].sample_id for name in "ab")
    client.hset(key("vectors"), one, vector(7).tobytes())
    client.hset(key("vectors"), two, b"short")
    with caplog.at_level(logging.WARNING):
        damaged = opened()
    assert enrolled(damaged) == {"c": {"3.jpg"}}
    told = [record.msg for record in caplog.records if "gallery_sample_damaged" in str(record.msg)]
    assert {entry["sample"] for entry in told if isinstance(entry, dict)} == {one, two}


def test_a_gallery_of_another_format_is_named(gallery: SharedGallery, url: str, client: Any) -> None:
    client.hset(key("meta"), "format", "facestream.shared_gallery.v9")
    with pytest.raises(GalleryError, match="v9"):
        SharedGallery.open(url)


def test_an_emptied_redis_gets_everything_back(
    gallery: SharedGallery, opened: Callable[[], SharedGallery], client: Any
) -> None:
    gallery.add([sample("a", 1), sample("b", 2)])
    gallery.remove("b")
    gallery.set_thresholds(0.4, {}, {})
    other = opened()
    before, ids = gallery.version, {person.name: person.identity_id for person in gallery.people()}
    flush(client)
    gallery.reload_if_changed()
    other.reload_if_changed()
    fresh = opened()
    for each in (gallery, other, fresh):
        assert enrolled(each) == {"a": {"1.jpg"}}
        assert {person.name: person.identity_id for person in each.people()} == ids
        assert each.threshold == 0.4
        assert each.version == before + 1
    assert vector(2).tobytes() not in everything_in(client)


def test_one_at_a_time_gives_a_gallery_back(
    gallery: SharedGallery, opened: Callable[[], SharedGallery], client: Any, url: str
) -> None:
    gallery.add([sample("a", 1)])
    other = opened()
    flush(client)
    assert other._store.claim_restoring("other")
    assert not gallery.catch_up()
    assert not SharedGallery.exists(url)
    gallery._store.end_restoring("mine")
    assert not gallery.catch_up()
    other._store.end_restoring("other")
    assert gallery.catch_up()
    assert enrolled(opened()) == {"a": {"1.jpg"}}
    assert client.keys("*restoring*") + client.keys("*staged*") == []


def test_an_older_copy_does_not_bring_back_whom_was_removed(
    gallery: SharedGallery, opened: Callable[[], SharedGallery], client: Any
) -> None:
    gallery.add([sample("removed", 1), sample("b", 2)])
    cut_off = opened()
    gallery.remove("removed")
    gallery.add([sample("c", 3)])
    flush(client)
    cut_off.reload_if_changed()  # the first to find Redis empty knows nothing of the removal
    assert "removed" in enrolled(opened())
    opened().add([sample("d", 4)])
    gallery.reload_if_changed()
    cut_off.reload_if_changed()
    for each in (gallery, cut_off, opened()):
        assert enrolled(each) == {"b": {"2.jpg"}, "c": {"3.jpg"}, "d": {"4.jpg"}}
    assert vector(1).tobytes() not in everything_in(client)


def test_removals_are_known_to_who_came_after_them(
    gallery: SharedGallery, opened: Callable[[], SharedGallery], client: Any
) -> None:
    gallery.add([sample("removed", 1), sample("b", 2)])
    cut_off = opened()
    gallery.remove("removed")
    late = opened()
    flush(client)
    cut_off.reload_if_changed()
    late.reload_if_changed()
    for each in (late, opened()):
        assert enrolled(each) == {"b": {"2.jpg"}}
    assert vector(1).tobytes() not in everything_in(client)


def test_a_photo_that_two_copies_enrolled_goes_with_its_removal(
    gallery: SharedGallery, opened: Callable[[], SharedGallery], client: Any, url: str
) -> None:
    gallery.add([sample("b", 2)])
    gallery.add([sample("twice", 1)])
    flush(client)
    hasty = SharedGallery.create(url, MODEL, DIGEST, DIMENSION)
    hasty.add([sample("twice", 1)])
    backup = {name: client.dump(name) for name in client.scan_iter()}
    gallery.reload_if_changed()
    gallery.remove("twice")
    flush(client)
    for name, content in backup.items():
        client.restore(name, 0, content)
    gallery.reload_if_changed()
    assert enrolled(opened()) == {"b": {"2.jpg"}}
    assert vector(1).tobytes() not in everything_in(client)


def test_whoever_was_cut_off_longer_than_redis_was_empty_overwrites_nothing(
    gallery: SharedGallery, opened: Callable[[], SharedGallery], client: Any
) -> None:
    gallery.add([sample("a", 1), sample("b", 2)])
    cut_off = opened()
    for seed in range(10, 15):
        gallery.add([sample("c", seed)])
    gallery.remove("a")
    flush(client)
    gallery.reload_if_changed()
    version = gallery.version
    cut_off.reload_if_changed()
    assert cut_off.version == version == opened().version
    assert set(enrolled(cut_off)) == {"b", "c"}


def test_people_enrolled_into_the_emptied_redis_join_those_before(
    gallery: SharedGallery, opened: Callable[[], SharedGallery], client: Any, url: str
) -> None:
    gallery.add([sample("a", 1), sample("b", 2)])
    ids = {person.name: person.identity_id for person in gallery.people()}
    flush(client)
    hasty = SharedGallery.create(url, MODEL, DIGEST, DIMENSION)
    for seed in range(20, 26):
        hasty.add([sample("a", seed)])
    hasty.add([sample("new", 3), sample("b", 2)])
    assert hasty.version > gallery.version
    gallery.reload_if_changed()
    hasty.reload_if_changed()
    assert enrolled(gallery) == enrolled(hasty) == enrolled(opened())
    assert set(enrolled(gallery)) == {"a", "b", "new"}
    assert enrolled(gallery)["a"] == {"1.jpg", *(f"{seed}.jpg" for seed in range(20, 26))}
    assert enrolled(gallery)["b"] == {"2.jpg"}
    assert set(ids) <= {person.name for person in hasty.people()}


@pytest.mark.parametrize("overtaken", [False, True])
def test_a_redis_restored_from_an_older_copy_is_brought_up_to_date(
    gallery: SharedGallery, opened: Callable[[], SharedGallery], client: Any, overtaken: bool
) -> None:
    gallery.add([sample("a", 1), sample("b", 2)])
    backup = {name: client.dump(name) for name in client.scan_iter()}
    gallery.remove("a")
    gallery.add([sample("c", 3)])
    flush(client)
    for name, content in backup.items():
        client.restore(name, 0, content)
    if overtaken:
        hasty = opened()
        for seed in range(30, 40):
            hasty.add([sample("d", seed)])
        assert hasty.version > gallery.version
    gallery.reload_if_changed()
    assert set(enrolled(gallery)) == ({"b", "c", "d"} if overtaken else {"b", "c"})
    assert enrolled(opened()) == enrolled(gallery)
    assert vector(1).tobytes() not in everything_in(client)


def test_a_switch_of_models_reaches_who_searches(
    gallery: SharedGallery, opened: Callable[[], SharedGallery], client: Any, url: str, tmp_path: Path
) -> None:
    gallery.add([sample("Ann", 1), sample("b", 2)])
    new = FolderGallery.create(tmp_path / "new", "second", "digest-2", 4)
    ids = {person.name: person.identity_id for person in gallery.people()}
    new.add([NewSample(name, np.eye(4, dtype=np.float32)[row], f"{row}", str(row), identity_id=ids[name])
             for row, name in enumerate(("Ann", "b"))])  # fmt: skip
    watching = opened()
    version = switch(url, str(tmp_path / "new"))
    assert version == gallery.version + 1
    with pytest.raises(GalleryError, match=r"second.*tiny"):
        watching.reload_if_changed()
    assert watching.search(probe(1))[0].identity_name == "Ann"
    with pytest.raises(GalleryError, match="second"):
        watching.add([sample("c", 3)])
    switched = opened()
    assert (switched.model_id, switched.dimension, enrolled(switched)["Ann"]) == ("second", 4, {"0"})
    assert not difference(url, previous_of(url))
    assert roll_back(url) == version + 1
    assert enrolled(opened()) == {"Ann": {"1.jpg"}, "b": {"2.jpg"}}
    remove_person(opened(), "Ann")
    left = everything_in(client)
    assert vector(1).tobytes() not in left
    assert np.eye(4, dtype=np.float32)[0].tobytes() not in left
    assert vector(2).tobytes() in left


def test_a_redis_emptied_before_a_switch_was_seen_keeps_the_new_model(
    gallery: SharedGallery, opened: Callable[[], SharedGallery], client: Any, url: str, tmp_path: Path
) -> None:
    gallery.add([sample("a", 1)])
    cut_off = opened()
    FolderGallery.create(tmp_path / "new", "second", "digest-2", 4)
    switch(url, str(tmp_path / "new"), accept=difference(url, tmp_path / "new"))
    switched = opened()
    flush(client)
    cut_off.reload_if_changed()
    assert opened().model_id == MODEL
    switched.reload_if_changed()
    assert opened().model_id == "second"
    with pytest.raises(GalleryError, match="second"):
        cut_off.reload_if_changed()


def test_who_follows_is_up_to_date_without_asking(
    gallery: SharedGallery, opened: Callable[[], SharedGallery], client: Any
) -> None:
    following = opened()
    following.follow("worker-1")
    assert not following.reload_if_changed()
    gallery.add([sample("a", 1)])
    eventually(lambda: following.search(probe(1))[0].identity_name == "a")
    assert following.reload_if_changed()
    assert not following.reload_if_changed()
    gallery.rename("a", "b")
    assert [(who.worker_id.split("/")[0], done) for who, done in gallery.wait_for_workers(PATIENCE_S)] == [
        ("worker-1", True)
    ]
    assert following.search(probe(1))[0].identity_name == "b"


def test_a_removal_waits_for_who_is_live_and_names_who_does_not_answer(
    gallery: SharedGallery, opened: Callable[[], SharedGallery], client: Any
) -> None:
    gallery.add([sample("a", 1)])
    following, leaving = opened(), opened()
    following.follow("good")
    leaving.follow("gone")
    leaving.close()
    store = gallery._store
    store.acknowledge("stuck/1", gallery.version)
    client.zadd(key("workers"), {"dead/1": 1.0})
    client.hset(key("acknowledged"), "dead/1", 1)
    gallery.remove("a")
    waited = {who.worker_id.split("/")[0]: done for who, done in gallery.wait_for_workers(1.0)}
    assert waited == {"good": True, "stuck": False}
    assert following.search(probe(1))[0].identity_id is None
    store.leave("stuck/1")
    assert all(done for _, done in gallery.wait_for_workers(1.0))


def test_two_processes_of_one_name_do_not_answer_for_each_other(
    gallery: SharedGallery, opened: Callable[[], SharedGallery]
) -> None:
    for _ in range(2):
        opened().follow("worker")
    assert len(gallery.wait_for_workers(0.0)) == 2


def test_a_redis_that_is_away_is_told_once_and_caught_up_with(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"{redis_server.url}?gallery=site"
    gallery = SharedGallery.create(url, MODEL, DIGEST, DIMENSION)
    gallery.add([sample("a", 1), sample("removed", 2)])
    gallery.remove("removed")
    registry = CollectorRegistry()
    observer = PrometheusObserver(registry)
    gallery.follow("worker", observer)

    def lag_s() -> float:
        return registry.get_sample_value("facestream_gallery_lag_seconds") or 0.0

    def told(event: str) -> int:
        return sum(event in str(record.msg) for record in caplog.records)

    with caplog.at_level(logging.INFO):
        redis_server.stop()
        eventually(lambda: lag_s() > 2.0)
        assert not gallery.reload_if_changed()
        assert gallery.search(probe(1))[0].identity_name == "a"
        redis_server.start()  # empty
        eventually(lambda: told("is back"))
        eventually(lambda: lag_s() < 1.5)
    assert told("is away") == 1
    assert enrolled(SharedGallery.open(url)) == {"a": {"1.jpg"}}
    gallery.close()
    assert SharedGallery.open(url).followers == []


def test_a_change_without_redis_is_an_error(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.gallery.shared.gallery._RETRY_S", 0.01)
    gallery = SharedGallery.create(redis_server.url, MODEL, DIGEST, DIMENSION)
    gallery.add([sample("a", 1)])
    redis_server.stop()
    with pytest.raises(GalleryUnavailableError, match="Redis"):
        gallery.add([sample("b", 2)])
    assert gallery.search(probe(1))[0].identity_name == "a"


class Fleet(RuleBasedStateMachine):
    """Three processes on one gallery, any of which may be cut off while Redis is emptied or restored.

    The model is a dictionary: a sample that was added is there until it is removed, wherever that was done.
    """

    redis_url = ""

    def __init__(self) -> None:
        super().__init__()
        self.url = f"{self.redis_url}?gallery=site"
        self.client: Any = redis.Redis.from_url(self.redis_url)
        self.client.flushall()
        first = SharedGallery.create(self.url, MODEL, DIGEST, DIMENSION)
        self.galleries = [first, SharedGallery.open(self.url), SharedGallery.open(self.url)]
        self.photos = 0
        self.model: dict[str, str] = {}
        self.lost_names = False
        self.unsettled = False
        self.backup: dict[bytes, bytes] = {}

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
        try:
            gone = self.galleries[who].remove(name)
        except GalleryError:
            assert name not in self.seen(who).values()
            return
        for found in gone.samples:
            self.model.pop(found.photo, None)

    @rule(who=who, name=name, new=name)
    def rename(self, who: int, name: str, new: str) -> None:
        gallery = self.galleries[who]
        try:
            gallery.rename(name, new)
        except GalleryError:
            assert name not in self.seen(who).values() or new in self.seen(who).values()
            return
        self.model = {photo: new if held == name else held for photo, held in self.model.items()}

    @rule(who=who)
    def catch_up(self, who: int) -> None:
        self.galleries[who].reload_if_changed()
        if not self.lost_names:
            assert self.seen(who) == self.model

    @rule()
    def empty_redis(self) -> None:
        self.settle()
        self.client.flushall()
        self.lost_names = True

    @rule()
    def trim(self) -> None:
        self.client.xtrim(key("changes"), maxlen=1)

    @rule()
    def back_up(self) -> None:
        self.backup = {found: self.client.dump(found) for found in self.client.scan_iter()}

    @precondition(lambda self: self.backup)
    @rule()
    def restore_older(self) -> None:
        self.settle()
        self.unsettled = True
        self.client.flushall()
        for found, content in self.backup.items():
            self.client.restore(found, 0, content)
        self.lost_names = True

    @rule(who=who)
    def restart(self, who: int) -> None:
        """A process ends and begins again, once Redis has all that it knew."""
        self.galleries[who].reload_if_changed()
        self.galleries[who].close()
        self.galleries[who] = SharedGallery.open(self.url)

    @invariant()
    def nobody_has_what_was_never_added(self) -> None:
        for who in range(3):
            assert len(self.seen(who)) <= self.photos

    def settle(self) -> None:
        """What is lost a second time, before all have seen the first, is beyond what a copy can tell: see the docs."""
        if self.unsettled:
            self.converge()
        self.unsettled = False

    def converge(self) -> None:
        for _ in range(4):
            for gallery in self.galleries:
                gallery.reload_if_changed()

    def teardown(self) -> None:
        try:
            self.converge()
            fresh = SharedGallery.open(self.url)
            views = [*(self.seen(who) for who in range(3))]
            assert (
                views[0]
                == views[1]
                == views[2]
                == {found.photo: fresh.contents.names[found.identity_id] for found in fresh.contents.samples}
            )
            assert views[0].keys() == self.model.keys()
            self.converge()
            assert {gallery.version for gallery in self.galleries} == {fresh.version}, "they never come to rest"
            if not self.lost_names:
                assert views[0] == self.model
            for photo, name in views[0].items():
                found = fresh.search(probe(int(Path(photo).stem)))[0]
                assert (found.identity_name, round(found.similarity, 4)) == (name, 1.0)
            held = everything_in(self.client)
            for number in range(self.photos):
                assert (vector(number).tobytes() in held) == (f"{number}.jpg" in self.model)
            fresh.close()
        finally:
            for gallery in self.galleries:
                gallery.close()
            self.client.close()


def test_copies_that_grow_apart_come_together(redis_url: str) -> None:
    machine = type("Fleet", (Fleet,), {"redis_url": redis_url})
    run_state_machine_as_test(
        machine, settings=settings(deadline=None, max_examples=40, stateful_step_count=25, print_blob=True)
    )


def test_samples_are_plain_records(gallery: SharedGallery, client: Any) -> None:
    """What docs/gallery.md promises to programs that look into Redis."""
    gallery.add([sample("a", 1)])
    ((sample_id, record),) = client.hgetall(key("samples")).items()
    fields = json.loads(record)
    assert fields["sample_id"] == sample_id.decode()
    assert client.hget(key("people"), fields["identity_id"]) == b"a"
    assert np.frombuffer(client.hget(key("vectors"), sample_id), "<f4").tolist() == vector(1).tolist()
    assert client.hget(key("meta"), "version") == b"2"
    assert [entry[b"kind"] for _, entry in client.xrange(key("changes"))] == [b"replaced", b"added"]
