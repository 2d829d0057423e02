"""Live events: each once, in order, and none missed by who comes back."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import redis

from tests.support.console import API, Console
from tests.support.publishing import STREAM
from tests.support.sample_events import make_event, stream_fields
from tests.support.waiting import eventually


@contextmanager
def listening(client: httpx.Client, **headers: str) -> Iterator[Iterator[tuple[str, dict[str, Any]]]]:
    """The events, each with its id, as they arrive."""
    with client.stream("GET", f"{API}/events", headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert next(lines).startswith("retry:")

        def events() -> Iterator[tuple[str, dict[str, Any]]]:
            entry_id = ""
            for line in lines:
                if line.startswith("id: "):
                    entry_id = line.removeprefix("id: ")
                if line.startswith("data: "):
                    yield entry_id, json.loads(line.removeprefix("data: "))

        yield events()


def add(url: str, *ordinals: int) -> list[str]:
    with redis.Redis.from_url(url) as client:
        return [client.xadd(STREAM, stream_fields(make_event(ordinal))).decode() for ordinal in ordinals]


def test_an_event_reaches_all_who_listen_and_who_comes_back_misses_none(console: Console, redis_url: str) -> None:
    add(redis_url, 0)
    client, other = console.as_role("viewer"), console.as_role("viewer")
    with listening(client) as events, listening(other) as others:
        added = add(redis_url, 1, 2)
        got = [next(events), next(events)]
        assert [entry_id for entry_id, _ in got] == added
        assert [event["pts_s"] for _, event in got] == ["1", "2"]
        assert next(others)[0] == added[0]
    while_away = add(redis_url, 3, 4)
    with listening(client, **{"Last-Event-ID": added[1]}) as events:
        after = add(redis_url, 5)
        assert [next(events)[0] for _ in range(3)] == while_away + after


def test_a_wrong_id_is_refused(console: Console) -> None:
    client = console.as_role("viewer")
    assert client.get(f"{API}/events", headers={"Last-Event-ID": "soon"}).status_code == 400


def test_who_was_logged_out_hears_no_more(console: Console, redis_url: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("worker.api.live.HEARTBEAT_S", 0.05)
    client = console.as_role("viewer")
    with listening(client) as events:
        console.parts.sessions.end(client.cookies["facestream_session"])
        assert list(events) == [], "the stream ends"


def test_a_stop_does_not_wait_for_those_who_listen(console: Console) -> None:
    client = console.as_role("viewer")
    with listening(client) as events:
        console.app.state.live.close()
        assert eventually(lambda: list(events) == [])
