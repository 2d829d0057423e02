import asyncio
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tests.support.command_line import facestream
from tests.support.redis_answers import entries_of
from tests.support.redis_servers import RedisServer, Server, running, valkey_binary
from tests.support.repository import REPOSITORY
from tests.support.sample_events import make_event, stream_fields
from tests.support.waiting import eventually
from worker.config import RedisConfig
from worker.errors import ConfigError, SinkError
from worker.events.consumer.blocking import AsyncConsumer, Consumer, Delivery
from worker.events.consumer.group import Known, backoff_ms, dead_letters, decide, is_stale, put_back, reason_of
from worker.events.consumer.streams import stream_lag
from worker.redis.client import connect
from worker.redis.keys import event_stream
from worker.service.metrics import PrometheusObserver
from worker.service.reporting import LagReporter
from worker.types import Event

STREAM = "facestream:events"
BEGAN_MS = 1_750_000_000_000
QUICK: dict[str, Any] = {"retry_first_s": 0.05, "retry_longest_s": 0.1, "take_over_after_s": 0.5}


@pytest.fixture
def admin(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def config_for(url: str) -> RedisConfig:
    return RedisConfig(url=SecretStr(url))


def add(client: redis.Redis, *events: Event, stream: str = STREAM) -> list[str]:
    return [str(client.xadd(stream, stream_fields(event))) for event in events]


def ordinal(delivery: Delivery) -> int:
    return int(delivery.event.pts_s)


def take(consumer: Consumer, count: int) -> list[int]:
    """The ordinals of the next ``count`` events, each acknowledged."""
    taken: list[int] = []
    while len(taken) < count:
        if delivery := consumer.poll(0.1):
            taken.append(ordinal(delivery))
            consumer.done(delivery)
    return taken


def rest(consumer: Consumer) -> list[int]:
    """The ordinals of all that is there now, each acknowledged."""
    taken = []
    while delivery := consumer.poll(0):
        taken.append(ordinal(delivery))
        consumer.done(delivery)
    return taken


def pending(client: redis.Redis, group: str = "g", stream: str = STREAM) -> int:
    return int(client.xpending(stream, group)["pending"])


def at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


# What is read


def test_a_new_group_begins_where_it_is_told(redis_url: str, admin: redis.Redis) -> None:
    add(admin, make_event(0), make_event(1))
    with Consumer(redis_url, group="all") as all_of_it, Consumer(redis_url, group="new", start="$") as new_ones:
        assert rest(all_of_it) == [0, 1]
        assert rest(new_ones) == []
        add(admin, make_event(2))
        assert take(new_ones, 1) == [2]
        assert take(all_of_it, 1) == [2]


def test_the_consumers_of_a_group_share_the_events_and_another_group_has_them_all(
    redis_url: str, admin: redis.Redis
) -> None:
    add(admin, *[make_event(i) for i in range(40)])
    with (
        Consumer(redis_url, group="g", batch=5) as one,
        Consumer(redis_url, group="g", batch=5) as two,
        Consumer(redis_url, group="other") as other,
    ):
        first, second = take(one, 5), take(two, 5)
        assert not {*first} & {*second}
        assert {*first, *second, *rest(one), *rest(two)} == {*range(40)}
        assert rest(other) == [*range(40)]


def test_an_event_is_typed_and_says_where_it_stands(redis_url: str, admin: redis.Redis) -> None:
    event = make_event(3, camera_id="hall")
    ids = add(admin, event)
    with Consumer(redis_url, group="g") as consumer:
        delivery = consumer.poll()
        assert delivery is not None
        assert (delivery.event, delivery.stream, delivery.entry_id, delivery.deliveries) == (event, STREAM, ids[0], 1)


def test_iteration_acknowledges_what_was_left_behind_and_what_a_with_statement_ends(
    redis_url: str, admin: redis.Redis
) -> None:
    add(admin, *[make_event(i) for i in range(4)])
    with Consumer(redis_url, group="g", consumer="me", batch=1) as consumer:
        for delivery in consumer:
            assert pending(admin) == 1
            if ordinal(delivery) == 2:
                break
    assert pending(admin) == 0
    with pytest.raises(RuntimeError, match="broken"):
        consume_and_break(Consumer(redis_url, group="g", consumer="me"))
    assert pending(admin) == 1
    with Consumer(redis_url, group="g", consumer="me", **QUICK) as consumer:
        assert take(consumer, 1) == [3]


def consume_and_break(consumer: Consumer) -> None:
    with consumer:
        for _delivery in consumer:
            raise RuntimeError("broken")


def test_a_stop_ends_a_run_that_waits(redis_url: str) -> None:
    stop, ended = threading.Event(), threading.Event()

    def consume() -> None:
        with Consumer(redis_url, group="g") as consumer:
            consumer.run(lambda delivery: None, stop)
        ended.set()

    threading.Thread(target=consume).start()
    stop.set()
    assert ended.wait(20)


def test_streams_of_cameras_are_found_also_those_that_come_later(redis_url: str, admin: redis.Redis) -> None:
    sharded = "events[x]:{camera_id}"
    for i, camera in enumerate(("a", "b")):
        add(admin, make_event(i, camera_id=camera), stream=event_stream(sharded, camera))
    add(admin, make_event(9), stream="eventsx:c")
    admin.set("events[x]:text", "no stream")
    with Consumer(redis_url, sharded, group="g", start="$", find_every_s=0.05) as consumer:
        assert rest(consumer) == []
        add(admin, make_event(2, camera_id="a"), stream="events[x]:a")
        add(admin, make_event(3, camera_id="c"), stream="events[x]:c")
        assert sorted(take(consumer, 2)) == [2, 3]
        assert rest(consumer) == []
    with Consumer(redis_url, ["events[x]:a", "eventsx:c"], group="h") as consumer:
        assert sorted(rest(consumer)) == [0, 2, 9]


@pytest.mark.parametrize("name", [None, "me"])
def test_what_was_fetched_and_not_begun_is_there_for_others_at_once_and_counts_as_no_delivery(
    redis_url: str, admin: redis.Redis, name: str | None
) -> None:
    add(admin, *[make_event(i) for i in range(4)])
    with Consumer(redis_url, group="g", consumer=name, take_over_after_s=60) as consumer:
        assert take(consumer, 1) == [0]
    with Consumer(redis_url, group="g", take_over_after_s=60) as other:
        deliveries = [delivery for delivery in (other.poll(0) for _ in range(3)) if delivery]
        assert [(ordinal(delivery), delivery.deliveries) for delivery in deliveries] == [(1, 1), (2, 1), (3, 1)]


def test_what_an_anonymous_consumer_could_not_finish_is_there_for_others_at_once(
    redis_url: str, admin: redis.Redis
) -> None:
    add(admin, make_event(0))
    with pytest.raises(RuntimeError, match="broken"):
        consume_and_break(Consumer(redis_url, group="g", take_over_after_s=60))
    with Consumer(redis_url, group="g", take_over_after_s=60) as other:
        delivery = other.poll(0)
        assert delivery is not None
        assert delivery.deliveries == 2


def test_an_anonymous_consumer_leaves_nothing_behind(redis_url: str, admin: redis.Redis) -> None:
    add(admin, make_event(0), make_event(1))
    with Consumer(redis_url, group="g") as consumer:
        rest(consumer)
        assert [each["name"] for each in admin.xinfo_consumers(STREAM, "g")] == [consumer.name]
    assert admin.xinfo_consumers(STREAM, "g") == []


# What is dropped


def test_a_repeat_is_known_across_consumers_and_restarts(redis_url: str, admin: redis.Redis) -> None:
    add(admin, make_event(0), make_event(1), make_event(0))
    with Consumer(redis_url, group="g") as consumer:
        assert rest(consumer) == [0, 1]
    add(admin, make_event(1), make_event(2), make_event(1))
    with Consumer(redis_url, group="g") as consumer:
        assert rest(consumer) == [2]
        assert consumer.counts.repeated == 2
    assert pending(admin) == 0


def test_a_repeat_in_the_hands_of_another_consumer_is_dropped_while_the_first_is_being_handled(
    redis_url: str, admin: redis.Redis
) -> None:
    add(admin, make_event(0), make_event(0))
    with Consumer(redis_url, group="g", batch=1) as one, Consumer(redis_url, group="g", batch=1) as two:
        first = one.poll()
        assert first is not None
        assert two.poll(0) is None
        assert two.counts.repeated == 1
        one.done(first)
    assert pending(admin) == 0


def test_a_repeat_is_handled_where_the_copy_that_claims_it_has_vanished(redis_url: str, admin: redis.Redis) -> None:
    ids = add(admin, make_event(0), make_event(0))
    with Consumer(redis_url, group="g", batch=1) as one, Consumer(redis_url, group="g", batch=1) as two:
        assert one.poll() is not None
        admin.xack(STREAM, "g", ids[0])
        assert rest(two) == [0]
    assert admin.hgetall(f"{{{STREAM}}}:claims:g") == {}


def test_what_a_group_remembers_is_forgotten_in_time(redis_url: str, admin: redis.Redis) -> None:
    old, later = "1000-0", "200000-0"
    for entry_id, event in ((old, make_event(0)), (later, make_event(1)), ("200001-0", make_event(0))):
        admin.xadd(STREAM, stream_fields(event), id=entry_id)
    with Consumer(redis_url, group="g", remember_s=100) as consumer:
        assert rest(consumer) == [0, 1, 0]
    assert 0 < admin.ttl(f"{{{STREAM}}}:handled:g") <= 100


def test_an_event_of_an_epoch_that_is_over_is_refused_and_counted(redis_url: str, admin: redis.Redis) -> None:
    def event(number: int, epoch_ms: int, captured_ms: int, camera: str = "door") -> Event:
        return make_event(number, epoch=BEGAN_MS + epoch_ms, captured_at=at(BEGAN_MS + captured_ms), camera_id=camera)

    add(admin, event(0, 0, 500), event(1, 1000, 1500))
    with Consumer(redis_url, group="g") as consumer:
        assert rest(consumer) == [0, 1]
    with Consumer(redis_url, group="g") as consumer:
        add(admin, event(2, 0, 999), event(3, 0, 1000), event(4, 0, 1600, camera="hall"), event(5, 1000, 1600))
        assert rest(consumer) == [2, 4, 5]
        assert consumer.counts.stale == 1
    assert pending(admin) == 0


def test_the_fence_that_a_new_owner_raised_is_heeded_before_its_first_event(redis_url: str, admin: redis.Redis) -> None:
    admin.hset(f"{{{STREAM}}}:fence", "door", str(BEGAN_MS))
    late = make_event(0, epoch=BEGAN_MS - 1, captured_at=at(BEGAN_MS))
    add(admin, late, make_event(1, epoch=BEGAN_MS - 1, captured_at=at(BEGAN_MS - 1)))
    with Consumer(redis_url, group="g") as consumer:
        assert rest(consumer) == [1]


def test_only_the_latest_epochs_are_kept(redis_url: str, admin: redis.Redis) -> None:
    add(admin, *[make_event(i, epoch=BEGAN_MS + i, captured_at=at(BEGAN_MS + i)) for i in range(40)])
    with Consumer(redis_url, group="g") as consumer:
        rest(consumer)
    assert admin.zcard(f"{{{STREAM}}}:epochs:g") <= 17


# What fails


def test_a_failing_handler_gets_the_event_again_later_and_others_meanwhile(redis_url: str, admin: redis.Redis) -> None:
    add(admin, *[make_event(i) for i in range(3)])
    seen: list[tuple[int, int]] = []
    with Consumer(redis_url, group="g", **QUICK) as consumer:

        def handler(delivery: Delivery) -> None:
            seen.append((ordinal(delivery), delivery.deliveries))
            if len(seen) == 5:
                consumer.stop()
            if ordinal(delivery) == 0 and delivery.deliveries < 3:
                raise ValueError("not yet")

        consumer.run(handler)
        assert seen == [(0, 1), (1, 1), (2, 1), (0, 2), (0, 3)]
        assert (consumer.counts.handled, consumer.counts.failed) == (3, 2)
    assert pending(admin) == 0
    assert admin.exists(f"{{{STREAM}}}:dead:g") == 0


def test_a_poisonous_event_ends_among_the_dead_letters_with_its_reason_and_can_be_put_back(
    redis_url: str, admin: redis.Redis
) -> None:
    poison = make_event(7)
    ids = add(admin, poison)
    with Consumer(redis_url, group="g", max_deliveries=2, **QUICK) as consumer:

        def handler(delivery: Delivery) -> None:
            if delivery.deliveries == 2:
                consumer.stop()
            raise ConnectionError("no way to http://user:s3cr3t@host\nsecond line")

        consumer.run(handler)
        assert consumer.counts.dead == 1
        add(admin, poison)
        assert rest(consumer) == []
        with connect(config_for(redis_url)) as client:
            (letter,) = dead_letters(client, STREAM)
            assert (letter.event_id, letter.entry_id, letter.deliveries) == (poison.event_id, ids[0], 2)
            assert letter.reason == "ConnectionError: no way to http://***@host second line"
            put_back(client, letter)
            assert list(dead_letters(client, STREAM, "g")) == []
        assert rest(consumer) == [7]


def test_what_is_no_event_is_buried_at_once(redis_url: str, admin: redis.Redis) -> None:
    admin.xadd(STREAM, {"hello": "world"})
    damaged = admin.xadd(STREAM, stream_fields(make_event(1), box=b"\xff\xfe"))
    add(admin, make_event(2))
    with Consumer(redis_url, group="g") as consumer:
        assert rest(consumer) == [2]
        with connect(config_for(redis_url)) as client:
            foreign, broken = dead_letters(client, STREAM, "g")
    assert "no facestream event" in foreign.reason
    assert foreign.fields == {"hello": "world"}
    assert (broken.entry_id, "field 'box'" in broken.reason) == (damaged, True)
    assert pending(admin) == 0


def test_the_entries_of_a_dead_consumer_are_taken_over_and_an_event_that_kills_is_buried_alone(
    redis_url: str, admin: redis.Redis
) -> None:
    add(admin, *[make_event(i) for i in range(3)])
    admin.xgroup_create(STREAM, "g", "0")
    admin.xreadgroup("g", "dead", {STREAM: ">"}, count=3)
    admin.xclaim(STREAM, "g", "dead", 0, [entries_of(admin, STREAM)[0][0]], retrycount=5)
    with Consumer(redis_url, group="g", **QUICK) as consumer:
        assert take(consumer, 2) == [1, 2]
        assert (consumer.counts.taken_over, consumer.counts.dead) == (3, 1)
        with connect(config_for(redis_url)) as client:
            (letter,) = dead_letters(client, STREAM, "g")
    assert letter.reason.startswith("handed out 5 times and never finished")


def test_a_delivery_that_was_dropped_comes_again_to_the_same_consumer(redis_url: str, admin: redis.Redis) -> None:
    add(admin, make_event(0), make_event(1))
    with Consumer(redis_url, group="g", retry_first_s=0.05, take_over_after_s=0.2) as consumer:
        assert consumer.poll() is not None
        assert take(consumer, 2) == [1, 0]


def test_leaving_while_redis_is_away_does_not_wait_for_it(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as writer:
        add(writer, make_event(0))
    with Consumer(redis_server.url, group="g") as consumer:
        for _delivery in consumer:
            redis_server.stop()
            break


def test_what_a_live_consumer_holds_is_left_to_it(redis_url: str, admin: redis.Redis) -> None:
    add(admin, make_event(0))
    with (
        Consumer(redis_url, group="g", take_over_after_s=60) as holder,
        Consumer(redis_url, group="g", take_over_after_s=60) as other,
    ):
        held = holder.poll()
        assert held is not None
        assert rest(other) == []
        holder.done(held)


def test_an_event_that_was_trimmed_away_before_it_was_handled_is_told(
    redis_url: str, admin: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    add(admin, make_event(0))
    admin.xgroup_create(STREAM, "g", "0")
    admin.xreadgroup("g", "dead", {STREAM: ">"})
    admin.xtrim(STREAM, maxlen=0)
    with Consumer(redis_url, group="g", **QUICK) as consumer:
        eventually(lambda: consumer.poll(0.05) or consumer.counts.trimmed)
    assert pending(admin) == 0
    assert "event lost" in caplog.text


PROGRAM = """
import os, sys, time
from worker.events.consumer.blocking import Consumer

out = open(sys.argv[3], "a", buffering=1)
with Consumer(sys.argv[1], group="g", consumer=sys.argv[2], take_over_after_s=0.5, retry_first_s=0.1) as consumer:
    for delivery in consumer:
        print("begin", delivery.event.event_id, file=out)
        if sys.argv[2] == "victim" and delivery.event.pts_s >= 5:
            time.sleep(60)
        print("end", delivery.event.event_id, file=out)
"""


def test_a_consumer_killed_in_the_middle_of_an_event_loses_none(
    redis_url: str, admin: redis.Redis, tmp_path: Path
) -> None:
    events = [make_event(i) for i in range(60)]
    add(admin, *events[:6])

    def start(name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", PROGRAM, redis_url, name, str(tmp_path / name)], cwd=REPOSITORY)

    def lines(name: str, word: str) -> list[str]:
        path = tmp_path / name
        return re.findall(rf"{word} (\w+)", path.read_text()) if path.exists() else []

    victim = start("victim")
    successor = None
    try:
        eventually(lambda: events[5].event_id in lines("victim", "begin"))
        add(admin, *events[6:])
        successor = start("successor")
        eventually(lambda: lines("successor", "end"))
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        eventually(lambda: len({*lines("victim", "end"), *lines("successor", "end")}) == 60)
        eventually(lambda: pending(admin) == 0)
    finally:
        for process in (victim, successor):
            if process is not None:
                process.kill()
                process.wait()
    ended = lines("victim", "end") + lines("successor", "end")
    assert sorted(ended) == sorted(event.event_id for event in events)
    assert admin.zcard(f"{{{STREAM}}}:handled:g") == 60


# Redis that goes and comes


def test_a_consumer_survives_a_redis_that_comes_back_empty(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as writer:
        add(writer, make_event(0))
    with Consumer(redis_server.url, group="g", start="$") as consumer:
        assert rest(consumer) == []
        redis_server.stop()
        assert consumer.poll(0) is None
        redis_server.start()
        with redis.Redis.from_url(redis_server.url) as writer:
            add(writer, make_event(1), make_event(2))
            assert take(consumer, 2) == [1, 2]
            assert pending(writer) == 0


def test_an_event_is_acknowledged_when_redis_is_back_or_comes_again(redis_server: RedisServer) -> None:
    redis_server.command += ["--appendonly", "yes", "--appendfsync", "always"]
    redis_server.stop()
    redis_server.start()
    with redis.Redis.from_url(redis_server.url, decode_responses=True) as writer:
        add(writer, make_event(0), make_event(1))
    with Consumer(redis_server.url, group="g", consumer="me") as consumer:
        delivery = consumer.poll()
        assert delivery is not None
        redis_server.stop()
        returning = threading.Timer(0.3, redis_server.start)
        returning.start()
        consumer.done(delivery)
        returning.join()
        with redis.Redis.from_url(redis_server.url, decode_responses=True) as writer:
            assert writer.zrange(f"{{{STREAM}}}:handled:g", 0, -1) == [make_event(0).event_id]
        assert take(consumer, 1) == [1]
        redis_server.stop()
        consumer.stop()
        consumer.done(delivery)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda client: client.set(STREAM, "x"), "holds a string, not a stream"),
        (lambda client: client.config_set("requirepass", "pw"), "refuses the login"),
        (lambda client: client.acl_setuser("default", enabled=True, commands=["-xreadgroup"]), "does not permit"),
    ],
)
def test_what_waiting_cannot_mend_ends_a_consumer(
    redis_server: RedisServer, prepare: Callable[[Any], Any], message: str
) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        prepare(client)
        with pytest.raises(SinkError, match=message), Consumer(redis_server.url, group="g") as consumer:
            consumer.poll()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": ""}, "needs the name of its group"),
        ({"group": "g", "start": "12-0"}, "start must be '0'"),
        ({"group": "g", "batch": 0}, "must be above 0"),
        ({"group": "g", "redis_url": "http://:s3cr3t@host"}, r"^redis\.url: not a Redis URL"),
    ],
)
def test_wrong_arguments_are_told_without_secrets(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Consumer(**({"redis_url": "redis://localhost"} | options))
    assert "s3cr3t" not in str(caught.value)


# asyncio


def outcome_of(url: str, group: str, run: Callable[[str, str, Callable[[Any, Delivery], None]], Any]) -> Any:
    """What a consumer made of the same stream: the calls of its handler, and its counts."""
    seen: list[tuple[int, int]] = []

    def handle(consumer: Any, delivery: Delivery) -> None:
        seen.append((ordinal(delivery), delivery.deliveries))
        if seen.count((3, 2)):
            consumer.stop()
        if ordinal(delivery) == 3:
            raise ValueError("poison")

    counts = run(url, group, handle)
    return sorted(seen), counts


def run_blocking(url: str, group: str, handle: Callable[[Any, Delivery], None]) -> Any:
    with Consumer(url, group=group, max_deliveries=2, **QUICK) as consumer:
        consumer.run(lambda delivery: handle(consumer, delivery))
        return consumer.counts


def run_asyncio(url: str, group: str, handle: Callable[[Any, Delivery], None]) -> Any:
    async def run() -> Any:
        async with AsyncConsumer(url, group=group, max_deliveries=2, **QUICK) as consumer:

            async def handler(delivery: Delivery) -> None:
                await asyncio.sleep(0)
                handle(consumer, delivery)

            await consumer.run(handler)
            return consumer.counts

    return asyncio.run(run())


def test_asyncio_and_blocking_code_come_to_the_same_outcome(redis_url: str, admin: redis.Redis) -> None:
    old = make_event(5, epoch=BEGAN_MS, captured_at=at(BEGAN_MS + 10), camera_id="hall")
    new = make_event(6, epoch=BEGAN_MS + 10, captured_at=at(BEGAN_MS + 20), camera_id="hall")
    add(admin, make_event(1), make_event(2), make_event(1), make_event(3), new, old)
    admin.xadd(STREAM, {"no": "event"})
    blocking = outcome_of(redis_url, "blocking", run_blocking)
    assert blocking == outcome_of(redis_url, "asyncio", run_asyncio)
    assert blocking[0] == [(1, 1), (2, 1), (3, 1), (3, 2), (6, 1)]
    assert (blocking[1].stale, blocking[1].repeated, blocking[1].dead) == (1, 1, 2)
    letters = [
        [fields for _, fields in entries_of(admin, f"{{{STREAM}}}:dead:{group}")] for group in ("blocking", "asyncio")
    ]
    assert letters[0] == letters[1]
    assert admin.xinfo_consumers(STREAM, "asyncio") == []


def test_async_iteration_acknowledges_like_the_other_and_a_stop_ends_it(redis_url: str, admin: redis.Redis) -> None:
    add(admin, *[make_event(i) for i in range(3)])

    async def run() -> list[int]:
        seen = []
        async with AsyncConsumer(redis_url, group="g") as consumer:
            async for delivery in consumer:
                seen.append(ordinal(delivery))
                if len(seen) == 3:
                    consumer.stop()
        return seen

    assert asyncio.run(run()) == [0, 1, 2]
    assert pending(admin) == 0


# Servers that are not Redis 7


def test_valkey_serves_consumers_as_well(tmp_path: Path) -> None:
    server = Server(valkey_binary(), tmp_path)
    with running(server), redis.Redis.from_url(server.url, decode_responses=True) as client:
        add(client, make_event(0), make_event(1), make_event(0), make_event(3))
        assert outcome_of(server.url, "g", run_blocking)[0] == [(0, 1), (1, 1), (3, 1), (3, 2)]
        assert outcome_of(server.url, "h", run_asyncio)[0] == [(0, 1), (1, 1), (3, 1), (3, 2)]
        assert stream_lag(connect(config_for(server.url)), STREAM) == {"g": 0, "h": 0}


# Lag


def test_the_lag_of_a_group_counts_what_is_unread_and_what_is_in_hand(redis_url: str, admin: redis.Redis) -> None:
    with Consumer(redis_url, group="g", batch=2) as consumer, connect(config_for(redis_url)) as client:
        assert stream_lag(client, STREAM) == {}
        add(admin, *[make_event(i) for i in range(5)])
        delivery = consumer.poll()
        assert delivery is not None
        assert stream_lag(client, STREAM) == {"g": 5}
        consumer.done(delivery)
        assert stream_lag(client, STREAM) == {"g": 4}
        rest(consumer)
        assert stream_lag(client, STREAM) == {"g": 0}
    for camera in ("a", "b"):
        add(admin, make_event(0), make_event(1), stream=f"events:{camera}")
    sharded = "events:{camera_id}"
    with Consumer(redis_url, sharded, group="h", batch=1) as consumer, connect(config_for(redis_url)) as client:
        consumer.poll()
        assert stream_lag(client, sharded) == {"h": 4}


def test_the_lag_of_each_group_is_a_metric_while_redis_answers(redis_server: RedisServer) -> None:
    observer = PrometheusObserver()

    def lag() -> float | None:
        return observer.registry.get_sample_value("facestream_stream_lag_entries", {"group": "g"})

    with redis.Redis.from_url(redis_server.url) as writer:
        writer.xgroup_create(STREAM, "g", mkstream=True)
        with connect(RedisConfig(url=SecretStr(redis_server.url))) as client:
            reporter = LagReporter(client, STREAM, observer, interval_s=0.05)
            reporter.start()
            eventually(lambda: lag() == 0)
            add(writer, make_event(0), make_event(1))
            eventually(lambda: lag() == 2)
            redis_server.stop()
            eventually(lambda: lag() is None)
            reporter.close()


# The decision


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[int], list[tuple[int, int]]]:
    """Epochs of one camera, and deliveries of events as (epoch, captured), in any order and number."""
    epochs = sorted(draw(st.sets(st.integers(1, 50), min_size=1, max_size=5)))
    event = st.tuples(st.sampled_from([0, *epochs]), st.integers(0, 60))
    return epochs, draw(st.lists(event, max_size=30))


@given(histories())
def test_an_event_is_accepted_exactly_if_no_known_epoch_had_replaced_its_own_when_it_was_captured(
    history: tuple[list[int], list[tuple[int, int]]],
) -> None:
    _epochs, deliveries = history
    known: set[int] = set()
    accepted: list[tuple[int, int]] = []
    for epoch, captured in deliveries:
        known |= {epoch} - {0}
        event = make_event(epoch=BEGAN_MS + epoch if epoch else 0, captured_at=at(BEGAN_MS + captured))
        stale = is_stale(event, f"{BEGAN_MS * 2}-0", frozenset(BEGAN_MS + each for each in known))
        owner_then = max((each for each in known if each <= captured), default=0)
        assert stale == (0 < epoch < owner_then)
        if not stale and epoch:
            accepted.append((epoch, captured))
    # Judged by all that is known in the end, an owner's own events are never refused.
    for epoch, captured in deliveries:
        if epoch and not any(epoch < each <= captured for each in known):
            assert (epoch, captured) in accepted


@given(st.integers(0, 5000), st.integers(-4000, 4000))
def test_a_wrong_clock_refuses_nothing_that_was_in_the_stream_before_the_next_epoch(
    appended_ms: int, clock_error_ms: int
) -> None:
    next_epoch = BEGAN_MS + 2500
    event = make_event(epoch=BEGAN_MS, captured_at=at(BEGAN_MS + appended_ms + clock_error_ms))
    if is_stale(event, f"{BEGAN_MS + appended_ms}-0", frozenset({BEGAN_MS, next_epoch})):
        assert BEGAN_MS + appended_ms >= next_epoch


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["ok", "fail", "die"])), max_size=40), st.integers(1, 4))
def test_each_event_is_finished_once_whatever_the_interleaving(tries: list[tuple[int, str]], most: int) -> None:
    """Four entries hold two events, each twice; consumers take entries in any order, and end as they like."""
    entries = ["1-0", "2-0", "3-0", "4-0"]
    events = [make_event(0), make_event(1), make_event(0), make_event(1)]
    deliveries = dict.fromkeys(entries, 0)
    open_entries = set(entries)
    claims: dict[str, str] = {}
    finished: list[str] = []
    for number, how in [*tries, *[(number, "ok") for number in range(4)] * (most + 2)]:
        entry_id, event = entries[number], events[number]
        if entry_id not in open_entries:
            continue
        deliveries[entry_id] += 1
        claim = claims.setdefault(event.event_id, entry_id)
        known = Known("me", deliveries[entry_id], frozenset(), event.event_id in finished, claim, claim in open_entries)
        verdict = decide(event, entry_id, "me", known, most)
        if verdict == "handle" and how != "ok" and (how == "die" or deliveries[entry_id] < most):
            continue
        if verdict in ("handle", "exhausted"):
            finished.append(event.event_id)
            claims.pop(event.event_id)
        open_entries.remove(entry_id)
    assert sorted(finished) == sorted({event.event_id for event in events})
    assert not open_entries


@given(st.integers(1, 10_000), st.floats(0.001, 10), st.floats(0.001, 1000))
def test_pauses_grow_up_to_the_longest(deliveries: int, first_s: float, longest_s: float) -> None:
    pause, following = (backoff_ms(number, first_s, longest_s) for number in (deliveries, deliveries + 1))
    assert pause <= following <= 1000 * longest_s


def test_a_reason_holds_no_secret_no_line_break_and_no_end() -> None:
    assert reason_of(KeyError()) == "KeyError"
    text = reason_of(ValueError("password=hunter2\n" + "x" * 1000))
    assert "hunter2" not in text
    assert "\n" not in text
    assert len(text) < 400


# The commands


def test_dead_letters_are_listed_and_put_back(redis_url: str, admin: redis.Redis) -> None:
    admin.xadd(STREAM, {"hello": "world"})
    with Consumer(redis_url, group="g") as consumer:
        rest(consumer)
    listed = facestream("events", "dead", "--redis", redis_url)
    assert "no facestream event" in listed.stdout
    assert listed.stdout.endswith("1 dead letter\n")
    (letter,) = facestream("events", "dead", "--redis", redis_url, "--group", "g", "--retry", "--json").documents
    assert letter["fields"] == {"hello": "world"}
    assert facestream("events", "dead", "--redis", redis_url, "--json").stdout == ""
    assert admin.xlen(STREAM) == 2


# The module


def test_the_client_is_imported_without_networks_and_video() -> None:
    code = "import sys, worker.client; print(' '.join(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    modules = {name.partition(".")[0] for name in printed.stdout.split()}
    heavy = {"tensorflow", "keras", "cv2", "av", "faiss", "openvino", "scipy", "sklearn", "prometheus_client", "httpx"}
    assert not modules & heavy
    assert "redis" in modules


# The guide


def test_the_program_of_the_guide_runs(redis_url: str, admin: redis.Redis) -> None:
    guide = (REPOSITORY / "docs" / "consuming.md").read_text()
    program = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)[0]
    assert len(program.strip().splitlines()) <= 10
    add(
        admin,
        make_event(0, type="started", identity_name="Eileen Collins"),
        make_event(1, type="updated", identity_name="Eileen Collins"),
        make_event(2, type="ended", identity_name=""),
    )
    program = program.replace("redis://localhost:6379/0", redis_url)
    with subprocess.Popen(
        [sys.executable, "-u", "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(2)]
        eventually(lambda: pending(admin, "greeter") == 0)
        process.kill()
    assert said == ["door: good morning, Eileen Collins\n", "door: somebody has left\n"]
