"""From a durable outbox to Redis: through kills and restarts on both sides, fenced, in order for each camera."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.publishing import STREAM, Recorder, config_for, stored
from tests.support.redis_servers import RedisServer
from tests.support.sample_events import make_event
from tests.support.waiting import PATIENCE_S, eventually
from worker.config import OutboxConfig
from worker.events.fencing import raise_fence
from worker.events.outbox import Outbox
from worker.events.publisher import Pauses, Publisher
from worker.events.states import LocalStates, QueuedStates, RedisStates
from worker.redis.client import connect
from worker.redis.keys import beside, fleet_key

Make = Callable[..., Publisher]


QUICK = Pauses(refused_s=0.05, retry=lambda _failures: 0.05)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox-a.sqlite3"


@pytest.fixture
def start(redis_url: str, path: Path) -> Iterator[Make]:
    """Starts publishers on the same outbox file; those that were not closed are, when the test ends."""
    made: list[tuple[Publisher, redis.Redis]] = []

    def make(url: str = redis_url, observer: Recorder | None = None, **options: Any) -> Publisher:
        config = config_for(url, **options)
        # A publisher must start while Redis is away: the check of ``connect`` is not what is tested.
        client = redis.Redis.from_url(url, socket_timeout=1.0, socket_connect_timeout=1.0)
        outbox = Outbox(OutboxConfig(), observer, path=path)
        made.append((Publisher(client, config, observer, outbox=outbox, pauses=QUICK), client))
        return made[-1][0]

    yield make
    for publisher, client in made:
        publisher.close(0)
        client.close()


_PUBLISH_AND_HANG = """
import sys, time
from pathlib import Path
import redis
from pydantic import SecretStr
from tests.support.sample_events import make_event
from worker.config import OutboxConfig, RedisConfig
from worker.events.outbox import Outbox
from worker.events.publisher import Publisher
url, path = sys.argv[1], Path(sys.argv[2])
config = RedisConfig(url=SecretStr(url), timeout_s=1)
publisher = Publisher(redis.Redis.from_url(url), config, outbox=Outbox(OutboxConfig(), path=path))
for number in range(600):
    publisher.publish(make_event(number, camera_id="ab"[number % 2]), time.monotonic())
print("published", flush=True)
time.sleep(3600)
"""


def kill_one_that_published(url: str, path: Path) -> None:
    command = [sys.executable, "-c", _PUBLISH_AND_HANG, url, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "published\n"
        process.send_signal(signal.SIGKILL)


def test_what_a_killed_worker_had_accepted_is_delivered_when_it_starts_again(
    redis_server: RedisServer, start: Make, path: Path
) -> None:
    redis_server.stop()
    kill_one_that_published(redis_server.url, path)
    redis_server.start()
    assert stored(redis_server.url) == []
    publisher = start(redis_server.url)
    eventually(lambda: publisher.depth == 0)
    assert [event.pts_s for event in stored(redis_server.url)] == list(range(600))


def test_a_worker_killed_while_it_delivers_loses_nothing_and_repeats_only_whole_events(
    redis_url: str, start: Make, path: Path
) -> None:
    kill_one_that_published(redis_url, path)
    publisher = start()
    eventually(lambda: publisher.depth == 0)
    events = stored(redis_url)
    for camera in "ab":
        numbers = [int(event.pts_s) for event in events if event.camera_id == camera]
        first_seen = list(dict.fromkeys(numbers))
        assert first_seen == list(range("ab".index(camera), 600, 2))
    by_id = {event.event_id: event for event in events}
    assert len(by_id) == 600
    assert all(by_id[event.event_id] == event for event in events)


def test_a_stop_while_redis_is_away_leaves_the_events_for_the_next_start(
    redis_server: RedisServer, start: Make
) -> None:
    redis_server.stop()
    recorder = Recorder()
    publisher = start(redis_server.url, recorder)
    events = [make_event(number) for number in range(300)]
    for event in events:
        assert publisher.publish(event)
    eventually(lambda: publisher.error)
    assert publisher.close(0.2) == 0
    assert publisher.kept == 300
    assert recorder.dropped == []
    redis_server.start()
    again = start(redis_server.url)
    again.publish(make_event(300))
    assert again.close(PATIENCE_S) == 0
    assert again.kept == 0
    assert stored(redis_server.url) == [*events, make_event(300)]


def test_order_is_kept_for_each_camera_through_outages(redis_server: RedisServer, start: Make) -> None:
    publisher = start(redis_server.url, stream="events:{camera_id}")
    done = threading.Event()

    def publish() -> None:
        for number in range(900):
            publisher.publish(make_event(number, camera_id="abc"[number % 3]), time.monotonic())
            time.sleep(0.001)
        done.set()

    redis_server.stop()
    redis_server.command += ["--appendonly", "yes", "--appendfsync", "always"]
    redis_server.start()
    thread = threading.Thread(target=publish)
    thread.start()
    while not done.is_set():
        redis_server.stop()
        redis_server.start()
    thread.join()
    eventually(lambda: publisher.depth == 0)
    for place, camera in enumerate("abc"):
        numbers = [int(event.pts_s) for event in stored(redis_server.url, f"events:{camera}")]
        assert list(dict.fromkeys(numbers)) == list(range(place, 900, 3))


def now_ms(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        seconds, microseconds = client.time()
    return int(seconds * 1000 + microseconds // 1000)


def test_a_superseded_worker_delivers_what_it_saw_before_and_nothing_else(redis_url: str, start: Make) -> None:
    recorder = Recorder()
    publisher = start(observer=recorder)
    epoch = now_ms(redis_url) - 60_000
    with redis.Redis.from_url(redis_url) as client:
        raise_fence(client, STREAM, "door", now_ms(redis_url) - 5_000)
    publisher.publish(make_event(1, epoch=epoch), time.monotonic() - 6)
    publisher.publish(make_event(2, epoch=epoch), time.monotonic() - 4)
    publisher.publish(make_event(3, epoch=epoch))
    publisher.publish(make_event(4, epoch=epoch, camera_id="gate"))
    eventually(lambda: publisher.depth == 0)
    assert [event.pts_s for event in stored(redis_url)] == [1, 4]
    assert recorder.dropped == ["stale_epoch", "stale_epoch"]
    assert len(recorder.published) == 2


def test_the_age_of_what_waited_through_a_restart_counts(redis_url: str, start: Make) -> None:
    epoch = now_ms(redis_url) - 60_000
    with redis.Redis.from_url(redis_url) as client:
        client.set(STREAM, "in the way")
        first = start()
        first.publish(make_event(1, epoch=epoch), time.monotonic() - 10)
        first.publish(make_event(2, epoch=epoch), time.monotonic())
        assert first.close(0.1) == 0
        client.delete(STREAM)
        raise_fence(client, STREAM, "door", now_ms(redis_url) - 5_000)
    recorder = Recorder()
    second = start(observer=recorder)
    eventually(lambda: second.depth == 0)
    assert [event.pts_s for event in stored(redis_url)] == [1]
    assert recorder.dropped == ["stale_epoch"]


def test_without_a_fleet_nothing_is_fenced(redis_url: str, start: Make) -> None:
    publisher = start()
    publisher.publish(make_event(1))
    eventually(lambda: publisher.depth == 0)
    with redis.Redis.from_url(redis_url) as client:
        assert not client.exists(beside(STREAM, "fence"))


@contextmanager
def queued(publisher: Publisher, url: str) -> Iterator[QueuedStates]:
    """The states of the fleet ``shop``, written behind the events of ``publisher``."""
    with redis.Redis.from_url(url, socket_timeout=1.0, socket_connect_timeout=1.0) as client:
        yield QueuedStates(RedisStates(client, "shop", 10.0), publisher, config_for(url))


def done_by(publisher: Publisher) -> threading.Event:
    """Set once the publisher has done what it was given before."""
    done = threading.Event()
    publisher.afterwards("test", done.set)
    return done


def test_states_reach_redis_newest_first_and_only_from_the_owner(redis_server: RedisServer, start: Make) -> None:
    publisher = start(redis_server.url)
    with queued(publisher, redis_server.url) as states:
        redis_server.stop()
        for number in range(50):
            states.keep("door", 7, {"number": number})
        states.keep("gate", 7, {"number": 1})
        states.keep("gate", 7, None)
        kept = done_by(publisher)
        assert not kept.is_set()
        redis_server.start()
        assert kept.wait(PATIENCE_S)
        assert states.load("door") == {"number": 49}
        states.keep("door", 9, {"number": "of the next owner"})
        eventually(lambda: states.load("door") == {"number": "of the next owner"})
        states.keep("door", 8, {"number": "too late"})
        assert done_by(publisher).wait(PATIENCE_S)
        assert states.load("door") == {"number": "of the next owner"}
        assert states.load("gate") is None
    with redis.Redis.from_url(redis_server.url) as client:
        assert 0 < client.ttl(fleet_key("shop", "sightings:door")) <= 310


def test_a_state_is_written_behind_all_events_that_were_queued_before(redis_server: RedisServer, start: Make) -> None:
    publisher = start(redis_server.url)
    told: list[int] = []
    redis_server.stop()
    for number in range(600):
        publisher.publish(make_event(number))
    publisher.afterwards("door", lambda: told.append(len(stored(redis_server.url))))
    redis_server.start()
    eventually(lambda: told)
    assert told == [600]


def test_a_state_that_redis_refuses_does_not_hold_up_the_events(redis_url: str, start: Make) -> None:
    publisher = start()
    with redis.Redis.from_url(redis_url) as client, queued(publisher, redis_url) as states:
        client.set(fleet_key("shop", "sightings:door"), "in the way")
        states.keep("door", 7, {"number": 1})
        assert done_by(publisher).wait(PATIENCE_S)
        publisher.publish(make_event(1))
        eventually(lambda: publisher.depth == 0)
        assert states.load("door") is None


def test_events_that_redis_refuses_for_good_do_not_hold_up_the_states(redis_url: str, start: Make) -> None:
    publisher = start()
    with redis.Redis.from_url(redis_url) as client, queued(publisher, redis_url) as states:
        client.set(STREAM, "in the way")
        publisher.publish(make_event(1))
        states.keep("door", 7, {"number": 1})
        assert done_by(publisher).wait(PATIENCE_S)
        assert states.load("door") == {"number": 1}
        assert publisher.depth == 1


def test_a_state_is_discarded_where_somebody_else_keeps_it(redis_server: RedisServer, start: Make) -> None:
    publisher = start(redis_server.url)
    with queued(publisher, redis_server.url) as states:
        redis_server.stop()
        states.keep("door", 7, {"number": 1})
        states.discard("door")
        states.keep("gate", 7, {"number": 2})
        redis_server.start()
        eventually(lambda: states.load("gate") == {"number": 2})
        assert states.load("door") is None


def test_a_state_without_a_fleet_lies_beside_the_events(path: Path) -> None:
    for number in range(2):
        with closing(Outbox(OutboxConfig(), path=path)) as outbox:
            states = LocalStates(outbox)
            assert states.load("door") == ({"number": 0} if number else None)
            states.keep("door", 0, {"number": number})


def test_what_is_no_state_is_passed_over(redis_url: str) -> None:
    with connect(config_for(redis_url)) as client:
        states = RedisStates(client, "shop", 10.0)
        for text in ("{", json.dumps([1]), ""):
            client.hset(fleet_key("shop", "sightings:door"), "state", text)
            assert states.load("door") is None
