"""What the console tells Prometheus and probes."""

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from tests.support.console import API, Console, console_config, running_console
from tests.support.publishing import STREAM
from tests.support.redis_servers import RedisServer
from tests.support.repository import REPOSITORY
from tests.support.sample_events import make_event, stream_fields
from tests.support.waiting import eventually
from worker.api.metrics import probes
from worker.errors import FacestreamError
from worker.history.store import FILE


@pytest.fixture
def console(tmp_path: Path, redis_server: RedisServer) -> Iterator[Console]:
    config = console_config(tmp_path, redis_server.url)
    settings = config.console.model_copy(update={"metrics_port": 0})
    with running_console(config.model_copy(update={"console": settings})) as running:
        yield running


@pytest.fixture
def ask(console: Console) -> Iterator[httpx.Client]:
    parts = console.parts
    with (
        probes(parts.config, parts.metrics, parts.database_trouble, parts.redis_trouble) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        yield client


def value(ask: httpx.Client, sample: str) -> float:
    found = re.search(rf"^facestream_console_{re.escape(sample)} (\S+)$", ask.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_requests_and_log_ins_are_counted_by_kind_and_nobody_is_named(console: Console, ask: httpx.Client) -> None:
    viewer = console.as_role("viewer")
    viewer.get("/people")
    viewer.get("/people/nobody-of-that-id")
    viewer.get("/static/console.css")
    viewer.get("/faces/door_1")
    anybody = console.anybody()
    for _ in range(7):
        anybody.post("/login", data={"name": "Zelda", "password": "wrong password"})
    assert value(ask, 'requests_total{kind="page",status="2xx"}') == 1
    assert value(ask, 'requests_total{kind="page",status="4xx"}') == 8
    assert value(ask, 'requests_total{kind="static",status="2xx"}') == 1
    assert value(ask, 'requests_total{kind="picture",status="2xx"}') == 1
    assert value(ask, 'request_seconds_count{kind="api"}') == 1
    assert [value(ask, f'logins_total{{outcome="{each}"}}') for each in ("ok", "wrong", "limited")] == [1, 5, 2]
    told = ask.get("/metrics").text
    assert "Zelda" not in told
    assert "nobody-of-that-id" not in told


def test_a_request_that_fails_by_surprise_is_counted(
    console: Console, ask: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = console.as_role("viewer")

    def broken(*_: Any) -> None:
        raise RuntimeError("surprise")

    monkeypatch.setattr(console.parts, "people", broken)
    assert viewer.get("/people").status_code == 500
    assert value(ask, 'requests_total{kind="page",status="5xx"}') == 1


def test_followers_and_the_delay_of_events_are_told(
    console: Console, ask: httpx.Client, redis_server: RedisServer
) -> None:
    viewer = console.as_role("viewer")
    with viewer.stream("GET", f"{API}/events") as answer:
        assert answer.status_code == 200
        assert value(ask, "listeners") == 1
        with redis.Redis.from_url(redis_server.url) as client:
            client.xadd(STREAM, stream_fields(make_event(1)))
        eventually(lambda: value(ask, "event_delay_seconds_count") == 1)
    eventually(lambda: value(ask, "listeners") == 0)


def test_without_redis_the_console_is_ready_and_without_the_database_it_is_not(
    console: Console, ask: httpx.Client, redis_server: RedisServer
) -> None:
    assert ask.get("/healthz").status_code == 200
    assert ask.get("/readyz").json() == {"ready": True, "reasons": {}}
    redis_server.stop()
    answer = ask.get("/readyz")
    assert answer.status_code == 200
    assert "cannot be reached" in answer.json()["warnings"]["redis"]
    with sqlite3.connect(console.parts.audit_folder / FILE) as other:
        other.execute("ALTER TABLE console_accounts RENAME TO elsewhere")
    other.close()
    answer = ask.get("/readyz")
    assert answer.status_code == 503
    assert "console_accounts" in answer.json()["reasons"]["database"]
    assert ask.get("/healthz").status_code == 200, "a restart would not bring it back"


def test_the_document_lists_every_metric_of_the_console_with_type_and_labels(
    console: Console, ask: httpx.Client
) -> None:
    console.as_role("viewer").get("/people")
    document = (REPOSITORY / "docs" / "metrics.md").read_text()
    real: dict[str, tuple[str, set[str]]] = {}
    for family in console.parts.metrics.registry.collect():
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        real[family.name + ("_total" if family.type == "counter" else "")] = (family.type, labels)
    rows = re.findall(r"^\| `(facestream_console_\w+)` \| (\w+) \| ([^|]*)\|", document, re.MULTILINE)
    assert {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows} == real
    asked = set(re.findall(r"facestream_console_\w+", document.partition("## Questions")[2]))
    assert asked <= set(re.findall(r"^(facestream_console_\w+)", ask.get("/metrics").text, re.MULTILINE))


def test_a_port_that_is_taken_is_told_by_its_setting(console: Console, ask: httpx.Client) -> None:
    config = console.parts.config
    taken = config.console.model_copy(update={"metrics_port": ask.base_url.port})
    with (
        pytest.raises(FacestreamError, match=r"choose another console\.metrics_port"),
        probes(config.model_copy(update={"console": taken}), console.parts.metrics, str, str),
    ):
        pass
