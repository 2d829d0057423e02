"""A worker that lost a camera cannot speak for it; what it had seen before is not lost."""

from collections.abc import Iterator

import pytest
import redis

from tests.support.redis_answers import entries_of
from worker.events.fencing import Fenced, append_fenced, raise_fence
from worker.redis.keys import beside

STREAM = "facestream:events"
FENCE = beside(STREAM, "fence")


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as opened:
        yield opened


def redis_time_ms(client: redis.Redis) -> int:
    seconds, microseconds = client.time()
    return seconds * 1000 + microseconds // 1000


def event(epoch: int, name: str = "x", *, camera: str = "door", age_s: float = 0.0) -> Fenced:
    return Fenced(camera, epoch, age_s, {"event_id": name, "epoch": str(epoch)})


def append(client: redis.Redis, *events: Fenced) -> list[bool]:
    return [entry_id is not None for entry_id in append_fenced(client, STREAM, events, max_events=1000)]


def names(client: redis.Redis) -> list[str]:
    return [fields["event_id"] for _, fields in entries_of(client, STREAM)]


def test_events_of_the_highest_epoch_are_appended_in_order(client: redis.Redis) -> None:
    now_ms = redis_time_ms(client)
    ids = append_fenced(client, STREAM, [event(now_ms, str(i)) for i in range(300)], max_events=1000)
    assert ids == [entry_id for entry_id, _ in entries_of(client, STREAM)]
    assert names(client) == [str(i) for i in range(300)]
    assert client.hget(FENCE, "door") == str(now_ms)


def test_what_an_older_epoch_caused_is_taken_until_the_newer_one_began(client: redis.Redis) -> None:
    began_ms = redis_time_ms(client) - 10_000
    raise_fence(client, STREAM, "door", began_ms)
    answers = append(
        client,
        event(began_ms - 60_000, "before", age_s=11),
        event(began_ms - 60_000, "after", age_s=9),
        event(began_ms, "new owner"),
        event(began_ms - 60_000, "late again", age_s=0),
        event(began_ms - 60_000, "other camera", camera="gate"),
        event(0, "a correction, of no epoch"),
    )
    assert answers == [True, False, True, False, True, True]
    assert names(client) == ["before", "new owner", "other camera", "a correction, of no epoch"]


def test_the_fence_rises_from_events_alone_where_redis_was_emptied(client: redis.Redis) -> None:
    now_ms = redis_time_ms(client)
    raise_fence(client, STREAM, "door", now_ms)
    client.flushall()
    client.script_flush()
    assert append(client, event(now_ms - 5000, "nobody knows better"), event(now_ms), event(now_ms - 5000)) == [
        True,
        True,
        False,
    ]


def test_a_fence_is_never_lowered(client: redis.Redis) -> None:
    for epoch in (5, 9, 7):
        raise_fence(client, STREAM, "door", epoch)
    raise_fence(client, STREAM, "gate", 6)
    assert client.hmget(FENCE, "door", "gate") == ["9", "6"]


def test_the_stream_is_trimmed(client: redis.Redis) -> None:
    now_ms = redis_time_ms(client)
    append_fenced(client, STREAM, [event(now_ms, str(i)) for i in range(1000)], max_events=100)
    assert 100 <= client.xlen(STREAM) <= 300
    assert names(client)[-1] == "999"


def test_a_refusal_is_raised_and_nothing_is_appended(client: redis.Redis) -> None:
    client.set(STREAM, "something else")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        append(client, event(1))
    client.delete(STREAM)
    assert append(client, event(1)) == [True]


def test_a_clock_that_was_set_back_opens_no_way_round_the_fence(client: redis.Redis) -> None:
    """An epoch that lies an hour ahead of Redis' clock began when the fence was raised, not in an hour."""
    ahead_ms = redis_time_ms(client) + 3_600_000
    raise_fence(client, STREAM, "door", ahead_ms)
    assert append(client, event(ahead_ms - 1), event(ahead_ms - 1, age_s=60.0)) == [False, True]
