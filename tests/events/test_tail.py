import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from tests.support.command_line import facestream
from tests.support.redis_servers import RedisServer
from tests.support.sample_events import make_event, stream_fields
from worker.config import RedisConfig
from worker.errors import SinkError
from worker.events.consumer.tail import read_events
from worker.redis.client import connect
from worker.types import Event

STREAM = "facestream:events"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(RedisConfig(url=SecretStr(redis_url))) as client:
        yield client


def add(client: redis.Redis, *ordinals: int) -> list[str]:
    ids: Any = [client.xadd(STREAM, stream_fields(make_event(i))) for i in ordinals]
    return [entry_id.decode() for entry_id in ids]


def seconds(events: Iterator[tuple[str, Event]], count: int | None = None) -> list[float]:
    """The ``pts_s`` (the ordinal) of the next ``count`` events, or of all."""
    if count is None:
        return [event.pts_s for _, event in events]
    return [next(events)[1].pts_s for _ in range(count)]


def test_what_is_there_is_read_in_order_with_its_ids(client: redis.Redis) -> None:
    ids = add(client, *range(1200))
    read = list(read_events(client, STREAM, start="0", follow=False))
    assert [entry_id for entry_id, _ in read] == ids
    assert [event for _, event in read] == [make_event(i) for i in range(1200)]


def test_reading_goes_on_after_a_given_entry(client: redis.Redis) -> None:
    ids = add(client, 0, 1, 2)
    assert seconds(read_events(client, STREAM, start=ids[0], follow=False)) == [1, 2]


def test_an_empty_or_missing_stream_ends_at_once_when_nobody_follows(client: redis.Redis) -> None:
    assert list(read_events(client, STREAM, start="0", follow=False)) == []
    assert list(read_events(client, STREAM, start="$", follow=False)) == []


@pytest.mark.parametrize("written_before", [0, 2])
def test_from_now_on_means_no_gap_and_nothing_old(redis_url: str, client: redis.Redis, written_before: int) -> None:
    add(client, *range(written_before))
    followed: list[float] = []
    started, enough = threading.Event(), threading.Event()
    with connect(RedisConfig(url=SecretStr(redis_url))) as reader:
        original = reader.xread

        def xread(*arguments: Any, **options: Any) -> Any:
            started.set()
            return original(*arguments, **options)

        reader.xread = xread

        def follow() -> None:
            for _, event in read_events(reader, STREAM, block_s=0.05, stop=enough):
                followed.append(event.pts_s)
                if len(followed) == 3:
                    enough.set()

        thread = threading.Thread(target=follow)
        thread.start()
        assert started.wait(20)
        add(client, 10, 11, 12)
        thread.join(20)
    assert followed == [10, 11, 12]


def test_a_stop_ends_a_reader_that_waits(client: redis.Redis) -> None:
    stop = threading.Event()
    ended = threading.Event()

    def follow() -> None:
        assert list(read_events(client, STREAM, block_s=0.05, stop=stop)) == []
        ended.set()

    threading.Thread(target=follow).start()
    stop.set()
    assert ended.wait(20)


def test_repeats_are_left_out_on_request(client: redis.Redis) -> None:
    add(client, 0, 1, 0, 2, 1)
    assert seconds(read_events(client, STREAM, start="0", follow=False)) == [0, 1, 0, 2, 1]
    assert seconds(read_events(client, STREAM, start="0", follow=False, deduplicate=True)) == [0, 1, 2]


def test_the_memory_for_repeats_is_bounded(client: redis.Redis) -> None:
    add(client, 0, 1, 2, 0, 2)
    events = read_events(client, STREAM, start="0", follow=False, deduplicate=True, remembered=2)
    assert seconds(events) == [0, 1, 2, 0]


def test_damaged_and_foreign_entries_are_told_and_skipped(client: redis.Redis) -> None:
    add(client, 0)
    foreign: Any = client.xadd(STREAM, {"hello": "world"})
    damaged: Any = client.xadd(STREAM, stream_fields(make_event(1), box=b"\xff\xfe"))
    newer: Any = client.xadd(STREAM, stream_fields(make_event(1), schema="facestream.sighting.v2"))
    add(client, 2)
    problems: list[tuple[str, str]] = []
    read = read_events(
        client, STREAM, start="0", follow=False, on_problem=lambda entry_id, text: problems.append((entry_id, text))
    )
    assert seconds(read) == [0, 2]
    assert [entry_id for entry_id, _ in problems] == [foreign.decode(), damaged.decode(), newer.decode()]
    assert "no facestream event" in problems[0][1]
    assert "field 'box'" in problems[1][1]
    assert "facestream.sighting.v2" in problems[2][1]


def test_the_wait_stays_below_the_time_after_which_silence_is_an_error(
    redis_url: str, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(RedisConfig(url=SecretStr(redis_url), timeout_s=1)) as impatient:
        waits: list[int] = []
        stop = threading.Event()
        original = impatient.xread

        def xread(*arguments: Any, **options: Any) -> Any:
            waits.append(options["block"])
            if len(waits) == 2:
                stop.set()
            return original(*arguments, **options)

        impatient.xread = xread
        assert list(read_events(impatient, STREAM, block_s=60, stop=stop)) == []
    assert max(waits) < 1000
    assert caplog.records == []


def test_a_reader_survives_the_end_and_the_return_of_redis(redis_server: RedisServer) -> None:
    with connect(RedisConfig(url=SecretStr(redis_server.url), timeout_s=1)) as client:
        add(client, 0)
        events = read_events(client, STREAM, start="0", block_s=0.1)
        assert seconds(events, 1) == [0]
        redis_server.stop()

        def restart() -> None:
            redis_server.start()
            with redis.Redis.from_url(redis_server.url) as writer:
                add(writer, 1, 2)

        restarting = threading.Timer(0.3, restart)
        restarting.start()
        assert seconds(events, 2) == [1, 2]
        restarting.join()


def test_a_reader_survives_a_redis_that_hangs(redis_server: RedisServer) -> None:
    assert redis_server.process is not None
    with connect(RedisConfig(url=SecretStr(redis_server.url), timeout_s=0.2)) as client:
        add(client, 0, 1)
        events = read_events(client, STREAM, start="0", block_s=0.1)
        assert seconds(events, 2) == [0, 1]
        redis_server.process.send_signal(signal.SIGSTOP)
        waking = threading.Timer(0.6, redis_server.process.send_signal, [signal.SIGCONT])
        waking.start()
        with redis.Redis.from_url(redis_server.url, socket_timeout=20) as writer:
            add(writer, 2)
            assert seconds(events, 1) == [2]
        waking.join()


def test_a_redis_that_is_away_ends_a_reader_that_does_not_follow(redis_server: RedisServer) -> None:
    with connect(RedisConfig(url=SecretStr(redis_server.url))) as client:
        redis_server.stop()
        with pytest.raises(SinkError, match=r"^stream 'facestream:events' cannot be read: .*refused"):
            list(read_events(client, STREAM, start="0", follow=False))


def test_the_documented_permissions_of_a_reader_are_enough(redis_server: RedisServer) -> None:
    commands = ["+ping", "+type", "+exists", "+xinfo|stream", "+xread"]
    with redis.Redis.from_url(redis_server.url) as admin:
        admin.acl_setuser("reader", enabled=True, passwords=["+pw"], keys=[STREAM], commands=commands)
        add(admin, 0)
    url = redis_server.url.replace("redis://", "redis://reader:pw@")
    with connect(RedisConfig(url=SecretStr(url)), read_only=True) as client:
        assert seconds(read_events(client, STREAM, start="0", follow=False)) == [0]
        assert seconds(read_events(client, STREAM, start="$", follow=False)) == []


@pytest.mark.parametrize(
    ("start", "key", "message"),
    [("0", "text", "WRONGTYPE"), ("$", "text", "no such key|WRONGTYPE"), ("yesterday", STREAM, "Invalid stream ID")],
)
def test_what_waiting_cannot_mend_ends_the_reader(client: redis.Redis, start: str, key: str, message: str) -> None:
    client.set("text", "x")
    with pytest.raises(SinkError, match=message):
        list(read_events(client, key, start=start))


def test_the_streams_of_all_cameras_are_followed_also_those_that_come_later(client: redis.Redis) -> None:
    def write(camera: str, *ordinals: int) -> None:
        for i in ordinals:
            client.xadd(f"events:{camera}", stream_fields(make_event(i, camera_id=camera)))

    write("a", 0)
    write("b", 1)
    client.xadd("events:", stream_fields(make_event(7)))
    assert sorted(seconds(read_events(client, "events:{camera_id}", start="0", follow=False))) == [0, 1]
    new_ones = read_events(client, "events:{camera_id}", block_s=0.05, find_every_s=0.02)
    first = threading.Timer(0.2, write, ["b", 2])
    first.start()
    assert seconds(new_ones, 1) == [2]
    write("c", 3, 4)
    assert seconds(new_ones, 2) == [3, 4]
    first.join()


def test_the_command_as_a_consumer_prints_each_event_once_for_its_group(redis_url: str, client: redis.Redis) -> None:
    add(client, 0, 1, 0, 2)
    tail = ("tail", "--redis", redis_url, "--group", "shift", "--from", "0", "--no-follow")
    two = facestream(*tail, "--json", "--count", "2")
    assert [document["pts_s"] for document in two.documents] == ["0", "1"]
    table = facestream(*tail, "--consumer", "me").stdout.splitlines()
    assert len(table) == 2
    assert "Zoë Ångström" in table[1]
    assert client.xpending(STREAM, "shift")["pending"] == 0
    assert "give --group as well" in facestream("tail", "--consumer", "me").only_error(2)
