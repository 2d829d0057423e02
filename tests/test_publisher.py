import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from tests.conftest import RedisServer
from tests.redis_answers import command
from tests.sample_events import make_event
from tests.support.heartbeats import HeardBeats
from worker.config import RedisConfig, load_config
from worker.errors import ConfigError, SinkError
from worker.events import publisher as publisher_module
from worker.events.codec import decode
from worker.events.publisher import Publisher
from worker.observer import Observer, Stage
from worker.redis.client import connect
from worker.types import Event

STREAM = "facestream:events"
PATIENCE_S = 20.0


class Recorder(Observer):
    def __init__(self) -> None:
        self.published: list[tuple[str, str]] = []
        self.dropped: list[str] = []
        self.latencies_s: list[float] = []
        self.depths: list[int] = []
        self.up: list[bool] = []

    def event_published(self, camera_id: str, event_type: str) -> None:
        self.published.append((camera_id, event_type))

    def event_dropped(self, camera_id: str, reason: str) -> None:
        self.dropped.append(reason)

    def event_latency(self, camera_id: str, seconds: float) -> None:
        self.latencies_s.append(seconds)

    def queue_depth(self, queue: str, depth: int) -> None:
        assert queue == "outbox"
        self.depths.append(depth)

    def sink_up(self, up: bool) -> None:
        self.up.append(up)


def config_for(url: str, **changes: Any) -> RedisConfig:
    return RedisConfig(**({"url": SecretStr(url), "timeout_s": 1.0} | changes))


def eventually(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.01)


def stored(url: str, stream: str = STREAM) -> list[Event]:
    with redis.Redis.from_url(url) as client:
        return [decode(fields) for _, fields in client.xrange(stream)]


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_module, "_REJECTED_RETRY_S", 0.05)
    monkeypatch.setattr(publisher_module, "_PROBE_EVERY_S", 0.05)
    monkeypatch.setattr(publisher_module, "_IDLE_S", 0.05)


@pytest.fixture
def outbox(redis_url: str) -> Iterator[Callable[..., Publisher]]:
    """Makes publishers that are closed, with their connections, when the test ends."""
    made: list[tuple[Publisher, redis.Redis]] = []

    def make(url: str = redis_url, observer: Observer | None = None, **options: Any) -> Publisher:
        listeners = {name: options.pop(name) for name in ("on_published", "heartbeats") if name in options}
        config = config_for(url, **options)
        client = connect(config)
        made.append((Publisher(client, config, observer, **listeners), client))
        return made[-1][0]

    yield make
    for publisher, client in made:
        publisher.close(0)
        client.close()


def test_events_arrive_once_in_order_and_are_observed(redis_url: str, outbox: Callable[..., Publisher]) -> None:
    recorder = Recorder()
    listened: list[tuple[Event, str]] = []
    publisher = outbox(observer=recorder, on_published=lambda event, entry_id: listened.append((event, entry_id)))
    events = [make_event(i) for i in range(1000)]
    accepted = [publisher.publish(event, time.monotonic() - 0.2) for event in events]
    assert all(accepted)
    assert publisher.close(PATIENCE_S) == 0
    assert stored(redis_url) == events
    assert [event for event, _ in listened] == events
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        assert [entry_id for _, entry_id in listened] == [entry_id for entry_id, _ in client.xrange(STREAM)]
    assert recorder.published == [("door", "updated")] * 1000
    assert len(recorder.latencies_s) == 1000
    assert min(recorder.latencies_s) >= 0.2
    assert recorder.depths[-1] == 0
    assert publisher.error == ""


def test_a_stream_is_trimmed_to_about_its_length(redis_url: str, outbox: Callable[..., Publisher]) -> None:
    publisher = outbox(max_events=100)
    for i in range(1000):
        publisher.publish(make_event(i))
    publisher.close(PATIENCE_S)
    kept = stored(redis_url)
    assert 100 <= len(kept) <= 300
    assert kept[-1] == make_event(999)


def test_a_stream_for_each_camera(redis_url: str, outbox: Callable[..., Publisher]) -> None:
    publisher = outbox(stream="events:{camera_id}")
    publisher.publish(make_event(1, camera_id="a"))
    publisher.publish(make_event(2, camera_id="b"))
    publisher.close(PATIENCE_S)
    assert [event.camera_id for event in stored(redis_url, "events:a")] == ["a"]
    assert [event.camera_id for event in stored(redis_url, "events:b")] == ["b"]


def test_events_wait_while_redis_is_gone_and_arrive_in_order(
    redis_server: RedisServer, outbox: Callable[..., Publisher]
) -> None:
    recorder = Recorder()
    publisher = outbox(redis_server.url, observer=recorder)
    redis_server.stop()
    events = [make_event(i) for i in range(700)]
    for event in events:
        assert publisher.publish(event)
    eventually(lambda: publisher.error)
    assert "cannot be reached" in publisher.error
    assert publisher.depth == 700
    redis_server.start()
    eventually(lambda: publisher.depth == 0)
    assert stored(redis_server.url) == events
    assert publisher.error == ""
    assert recorder.dropped == []
    assert True in recorder.up
    assert False in recorder.up


def test_events_wait_while_redis_hangs_and_none_is_lost(
    redis_server: RedisServer, outbox: Callable[..., Publisher]
) -> None:
    publisher = outbox(redis_server.url, timeout_s=0.3)
    assert redis_server.process is not None
    redis_server.process.send_signal(signal.SIGSTOP)
    events = [make_event(i) for i in range(300)]
    begun_s = time.monotonic()
    for event in events:
        publisher.publish(event)
    assert time.monotonic() - begun_s < PATIENCE_S / 2
    eventually(lambda: publisher.error)
    redis_server.process.send_signal(signal.SIGCONT)
    eventually(lambda: publisher.depth == 0)
    unique = list({event.event_id: event for event in stored(redis_server.url)}.values())
    assert unique == events


def test_broken_connections_may_repeat_an_event_but_lose_and_reorder_none(
    redis_url: str, outbox: Callable[..., Publisher]
) -> None:
    publisher = outbox()
    events = [make_event(i) for i in range(2000)]
    with redis.Redis.from_url(redis_url) as saboteur:
        for i, event in enumerate(events):
            publisher.publish(event)
            if i % 100 == 50:
                saboteur.execute_command("CLIENT", "KILL", "TYPE", "normal")
    assert publisher.close(PATIENCE_S) == 0
    assert list({event.event_id: event for event in stored(redis_url)}.values()) == events


def test_a_full_buffer_drops_events_and_counts_them(
    redis_server: RedisServer, outbox: Callable[..., Publisher], caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder()
    publisher = outbox(redis_server.url, observer=recorder, buffer_events=10)
    redis_server.stop()
    for i in range(25):
        publisher.publish(make_event(i))
    assert publisher.depth == 10
    assert recorder.dropped == ["buffer_full"] * 15
    assert sum("events dropped" in str(record.msg) for record in caplog.records) == 1
    redis_server.start()
    eventually(lambda: publisher.depth == 0)
    kept = [event.pts_s for event in stored(redis_server.url)]
    assert kept == sorted(kept)
    assert len(kept) == 10


def refuse_by_type(client: redis.Redis) -> None:
    client.set(STREAM, "something else")


def refuse_by_permission(client: redis.Redis) -> None:
    client.acl_setuser("default", enabled=True, nopass=True, commands=["-xadd"])


def refuse_by_memory(client: redis.Redis) -> None:
    client.config_set("maxmemory", "1")


def refuse_as_replica(client: redis.Redis) -> None:
    command(client, "REPLICAOF", "127.0.0.1", "1")


def accept_again(client: redis.Redis) -> None:
    client.acl_setuser("default", enabled=True, nopass=True, commands=["+@all"])
    command(client, "REPLICAOF", "NO", "ONE")
    client.config_set("maxmemory", "0")
    client.delete(STREAM)


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize(
    ("refuse", "words"),
    [
        (refuse_by_type, "holds no stream"),
        (refuse_by_permission, "does not permit"),
        (refuse_by_memory, "out of memory"),
        (refuse_as_replica, "read only replica"),
    ],
)
def test_a_refusal_is_visible_and_its_end_delivers_all_in_order(
    redis_server: RedisServer,
    outbox: Callable[..., Publisher],
    refuse: Callable[[redis.Redis], None],
    words: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publisher = outbox(redis_server.url)
    events = [make_event(i) for i in range(20)]
    with redis.Redis.from_url(redis_server.url) as client:
        refuse(client)
        for event in events:
            publisher.publish(event)
        eventually(lambda: publisher.error)
        assert words in publisher.error
        assert "redis://127.0.0.1" in publisher.error
        assert "\n" not in publisher.error
        assert publisher.depth == 20
        accept_again(client)
    eventually(lambda: publisher.depth == 0)
    eventually(lambda: publisher.error == "")
    assert stored(redis_server.url) == events
    assert events[0].identity_name not in publisher.error + caplog.text


@pytest.mark.usefixtures("quick_retries")
def test_one_camera_whose_stream_is_refused_does_not_repeat_the_others(
    redis_url: str, outbox: Callable[..., Publisher]
) -> None:
    publisher = outbox(stream="events:{camera_id}")
    with redis.Redis.from_url(redis_url) as client:
        client.set("events:a", "something else")
        for i in range(4):
            publisher.publish(make_event(i, camera_id="ab"[i % 2]))
        eventually(lambda: publisher.error)
        eventually(lambda: len(stored(redis_url, "events:b")) == 2)
        client.delete("events:a")
    eventually(lambda: publisher.depth == 0)
    assert [event.pts_s for event in stored(redis_url, "events:a")] == [0, 2]
    assert [event.pts_s for event in stored(redis_url, "events:b")] == [1, 3]


@pytest.mark.usefixtures("quick_retries")
def test_an_idle_outbox_notices_that_redis_went_and_came(
    redis_server: RedisServer, outbox: Callable[..., Publisher]
) -> None:
    beats = threading.Semaphore(0)
    publisher = outbox(redis_server.url, heartbeats=HeardBeats(beats.release))
    redis_server.stop()
    eventually(lambda: publisher.error)
    redis_server.start()
    eventually(lambda: publisher.error == "")
    for _ in range(3):
        assert beats.acquire(timeout=PATIENCE_S)


def test_the_thread_beats_while_it_waits_for_redis(
    redis_server: RedisServer, outbox: Callable[..., Publisher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "_IDLE_S", 0.02)
    monkeypatch.setattr(publisher_module, "_REJECTED_RETRY_S", 3600)
    beats = threading.Semaphore(0)
    publisher = outbox(redis_server.url, heartbeats=HeardBeats(beats.release))
    with redis.Redis.from_url(redis_server.url) as client:
        refuse_by_type(client)
    publisher.publish(make_event())
    eventually(lambda: publisher.error)
    for _ in range(50):
        assert beats.acquire(timeout=PATIENCE_S)


def test_a_stop_gives_up_in_time_and_says_how_many_were_lost(
    redis_server: RedisServer, outbox: Callable[..., Publisher]
) -> None:
    recorder = Recorder()
    publisher = outbox(redis_server.url, observer=recorder)
    redis_server.stop()
    for i in range(300):
        publisher.publish(make_event(i))
    eventually(lambda: publisher.error)
    assert publisher.close(0.5) == 300
    assert recorder.dropped == ["undelivered"] * 300
    assert not publisher.publish(make_event())
    assert recorder.dropped[-1] == "closed"


def test_a_thread_that_was_given_up_ends_quietly_when_its_connection_is_closed(
    redis_server: RedisServer, outbox: Callable[..., Publisher]
) -> None:
    died: list[threading.ExceptHookArgs] = []
    before = threading.excepthook
    threading.excepthook = died.append
    assert redis_server.process is not None
    try:
        publisher = outbox(redis_server.url, timeout_s=5)
        redis_server.process.send_signal(signal.SIGSTOP)
        publisher.publish(make_event())
        eventually(lambda: publisher.depth == 1)
        assert publisher.close(0.1) == 1
        publisher._client.close()
        redis_server.process.send_signal(signal.SIGCONT)
        publisher._thread.join(PATIENCE_S)
        assert not publisher._thread.is_alive()
    finally:
        threading.excepthook = before
    assert died == []


def test_a_stop_while_redis_is_away_still_delivers_when_it_returns(
    redis_server: RedisServer, outbox: Callable[..., Publisher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "_backoff", lambda _: 3600.0)
    publisher = outbox(redis_server.url)
    redis_server.stop()
    publisher.publish(make_event())
    eventually(lambda: publisher.error)
    lost: list[int] = []
    stopping = threading.Thread(target=lambda: lost.append(publisher.close(PATIENCE_S)))
    stopping.start()
    redis_server.start()
    stopping.join()
    assert lost == [0]
    assert stored(redis_server.url) == [make_event()]


def test_an_event_that_cannot_be_written_holds_nobody_up(redis_url: str, outbox: Callable[..., Publisher]) -> None:
    recorder = Recorder()
    publisher = outbox(observer=recorder)
    publisher.publish(make_event(0, similarity=float("nan")))
    publisher.publish(make_event(1))
    assert publisher.close(PATIENCE_S) == 0
    assert stored(redis_url) == [make_event(1)]
    assert recorder.dropped == ["invalid"]


def test_a_failing_listener_does_not_stop_the_delivery(redis_url: str, outbox: Callable[..., Publisher]) -> None:
    def listener(event: Event, entry_id: str) -> None:
        raise BrokenPipeError

    publisher = outbox(on_published=listener)
    for i in range(3):
        publisher.publish(make_event(i))
    assert publisher.close(PATIENCE_S) == 0
    assert len(stored(redis_url)) == 3


def test_the_client_does_not_retry_by_itself(redis_url: str) -> None:
    with connect(config_for(redis_url)) as client:
        assert client.get_retry() is not None
        assert client.get_retry()._retries == 0


@pytest.mark.parametrize("url", ["redis://:s3c/r3t@host:x1/0", "redis://u:s3cr3t@[::1"])
def test_what_is_no_redis_url_is_a_mistake_in_the_configuration(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^redis\.url: .* is not a Redis URL; write redis://") as caught:
        connect(config_for(url))
    assert "r3t" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unreachable_redis_is_named_without_its_password(redis_server: RedisServer) -> None:
    redis_server.stop()
    url = redis_server.url.replace("redis://", "redis://user:s3cr3t@")
    with pytest.raises(SinkError, match=r"^Redis at redis://\*\*\*@127.* cannot be reached .*; is it") as caught:
        connect(config_for(url))
    assert "s3cr3t" not in str(caught.value)


def test_a_key_of_another_type_is_told_apart(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.lpush(STREAM, "x")
    with pytest.raises(SinkError, match=r"the key 'facestream:events' holds a list, not a stream; set redis\.stream"):
        connect(config_for(redis_url))


def test_a_login_is_checked(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.config_set("requirepass", "s3cr3t")
    right = redis_server.url.replace("redis://", "redis://:s3cr3t@")
    connect(config_for(right)).close()
    for wrong in (redis_server.url, right.replace("s3cr3t", "gu3ss3d")):
        with pytest.raises(SinkError, match=r"refuses the login .*; check user and password") as caught:
            connect(config_for(wrong))
        assert "s3cr3t" not in str(caught.value)
        assert "gu3ss3d" not in str(caught.value)


def test_the_documented_permissions_are_enough_and_needed(redis_server: RedisServer) -> None:
    commands = ["+ping", "+type", "+multi", "+exec", "+xadd"]
    url = redis_server.url.replace("redis://", "redis://worker:pw@")
    config = config_for(url)
    with redis.Redis.from_url(redis_server.url) as admin:
        admin.acl_setuser("worker", enabled=True, passwords=["+pw"], keys=[STREAM], commands=commands)
        with connect(config) as client:
            publisher = Publisher(client, config)
            publisher.publish(make_event())
            assert publisher.close(PATIENCE_S) == 0
        assert stored(redis_server.url) == [make_event()]
        admin.acl_setuser("worker", enabled=True, commands=["-multi"])
        with pytest.raises(SinkError, match=re.escape("its ACL must allow +ping +type +multi +exec +xadd")):
            connect(config)


def test_publishing_is_timed_as_a_stage(redis_url: str, outbox: Callable[..., Publisher]) -> None:
    stages: list[str] = []

    class Timed(Observer):
        def stage(self, stage: Stage) -> Any:
            stages.append(stage)
            return super().stage(stage)

    publisher = outbox(observer=Timed())
    publisher.publish(make_event())
    publisher.close(PATIENCE_S)
    assert set(stages) == {"publish"}


@pytest.mark.parametrize("url", ["http://:s3cr3t@localhost:1", "localhost:6379"])
def test_another_scheme_is_refused_with_the_configuration(url: str) -> None:
    with pytest.raises(ConfigError, match=r"redis\.url: not a Redis URL; write redis://") as caught:
        load_config(None, {"redis": {"url": url}})
    assert "s3cr3t" not in str(caught.value)
