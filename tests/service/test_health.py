import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tests.support.waiting import eventually
from worker.background import Heartbeats
from worker.config import MetricsConfig
from worker.errors import FacestreamError
from worker.service.health import Health, HealthServer
from worker.service.metrics import PrometheusObserver


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(Heartbeats(clock))


def config(port: int = 0, host: str = "127.0.0.1") -> MetricsConfig:
    return MetricsConfig(host=host, port=port)


@pytest.fixture
def ask(health: Health) -> Iterator[Callable[..., tuple[int, Any]]]:
    """Asks a real server of ``health`` by HTTP: (status, JSON)."""
    server = HealthServer(config(), health, CollectorRegistry())

    def get(path: str, method: str = "GET") -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request(method, path)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.status, json.loads(body) if body else None

    yield get
    server.close()


def test_a_worker_without_threads_and_conditions_is_alive_and_ready(ask: Callable[..., Any]) -> None:
    assert ask("/healthz") == (200, {"alive": True, "reasons": {}})
    assert ask("/readyz") == (200, {"ready": True, "reasons": {}})


def test_a_thread_that_stops_beating_is_named(ask: Callable[..., Any], health: Health, clock: Clock) -> None:
    beat = health.heartbeats.watch("outbox", 10)
    health.heartbeats.watch("pipeline", 60)
    clock.now_s += 10
    assert ask("/healthz")[0] == 200
    clock.now_s += 2.5
    reasons = {"outbox": "no sign of life for 12.5 s (limit 10 s)"}
    assert ask("/healthz") == (503, {"alive": False, "reasons": reasons})
    assert ask("/readyz") == (503, {"ready": False, "reasons": reasons})
    beat()
    assert ask("/healthz")[0] == 200


def test_a_thread_that_ended_as_it_should_is_not_missed(health: Health, clock: Clock) -> None:
    beat = health.heartbeats.watch("camera door", 1)
    health.heartbeats.unwatch("camera door")
    beat()
    clock.now_s += 100
    assert health.failures() == {}


def test_unready_is_not_dead(ask: Callable[..., Any], health: Health) -> None:
    redis_error = "cannot be reached"
    health.condition("gallery", "not loaded yet")
    health.condition("redis", lambda: redis_error)
    assert ask("/readyz") == (
        503,
        {"ready": False, "reasons": {"gallery": "not loaded yet", "redis": "cannot be reached"}},
    )
    assert ask("/healthz")[0] == 200
    health.condition("gallery", "")
    redis_error = ""
    assert ask("/readyz") == (200, {"ready": True, "reasons": {}})


def test_a_condition_that_raises_or_holds_a_password_does_no_harm(health: Health) -> None:
    def check() -> str:
        raise OSError("redis://:s3cr3t@host is away")

    health.condition("redis", check)
    health.condition("camera", lambda: "rtsp://me:s3cr3t@cam fails")
    assert health.obstacles() == {
        "redis": "the check failed: OSError: redis://***@host is away",
        "camera": "rtsp://***@cam fails",
    }


def test_probes_may_ask_for_the_head_only_and_with_a_query(ask: Callable[..., Any]) -> None:
    assert ask("/healthz", "HEAD") == (200, None)
    assert ask("/readyz?verbose=1")[0] == 200


def test_other_paths_and_methods_are_refused(ask: Callable[..., Any]) -> None:
    assert ask("/") == (404, {"paths": ["/healthz", "/readyz", "/metrics", "/status", "/preview/CAMERA"]})
    assert ask("/../etc/passwd")[0] == 404


def test_metrics_are_served_as_prometheus_text_whatever_is_asked_for(health: Health) -> None:
    observer = PrometheusObserver()
    observer.frame_read("door")
    server = HealthServer(config(), health, observer.registry)
    for accept in ("text/plain", "application/openmetrics-text; version=1.0.0"):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("GET", "/metrics", headers={"Accept": accept})
        response = connection.getresponse()
        assert response.getheader("Content-Type", "").startswith("text/plain; version=0.0.4")
        assert b'facestream_frames_read_total{camera="door"} 1.0' in response.read()
        connection.close()
    server.close()


def test_a_port_that_is_taken_is_one_line(health: Health) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(FacestreamError, match=rf"^metrics\.port {port} on 127.* cannot be opened .*; choose"):
            HealthServer(config(port), health, CollectorRegistry())


def test_an_address_of_another_machine_is_one_line(health: Health) -> None:
    with pytest.raises(FacestreamError, match=r"on 192\.0\.2\.1 cannot be opened"):
        HealthServer(config(host="192.0.2.1"), health, CollectorRegistry())


def test_ipv6_is_served(health: Health) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = HealthServer(config(host="::1"), health, CollectorRegistry())
    connection = http.client.HTTPConnection("::1", server.port, timeout=10)
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()
    server.close()


def test_a_stop_frees_port_and_threads_even_with_an_open_connection(health: Health) -> None:
    before = set(threading.enumerate())
    server = HealthServer(config(), health, CollectorRegistry())
    with socket.create_connection(("127.0.0.1", server.port), timeout=10):
        server.close()
        again = HealthServer(config(server.port), health, CollectorRegistry())
        again.close()
    assert {thread.name for thread in set(threading.enumerate()) - before} <= {
        thread.name for thread in threading.enumerate() if thread.daemon
    }
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=10)


def test_what_people_should_know_keeps_nobody_from_being_ready(ask: Callable[..., Any], health: Health) -> None:
    slow = ["overloaded: this machine carries about 2 of these 4 cameras; door is looked at every 2.1 s"]
    health.warn("load", lambda: slow[0])
    assert ask("/readyz") == (200, {"ready": True, "reasons": {}, "warnings": {"load": slow[0]}})
    slow[0] = ""
    assert ask("/readyz") == (200, {"ready": True, "reasons": {}})


TOKEN = "0123456789abcdef0123"


def answer(server: HealthServer, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.putrequest("GET", path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, body


def test_only_this_machine_may_ask_unless_another_address_is_configured() -> None:
    assert MetricsConfig().host == "127.0.0.1"


def test_who_has_no_token_learns_whether_and_not_why(health: Health) -> None:
    health.condition("redis", "redis.example cannot be reached")
    server = HealthServer(MetricsConfig(port=0, token=TOKEN), health, CollectorRegistry())
    try:
        assert answer(server, "/readyz") == (503, '{"ready": false}\n')
        assert answer(server, "/healthz") == (200, '{"alive": true}\n')
        for path in ("/metrics", "/status", "/anything"):
            for given in ({}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": "Bearer \xe9"}):
                assert answer(server, path, **given)[0] == 401
        trusted = {"Authorization": f"Bearer {TOKEN}"}
        assert answer(server, "/metrics", **trusted)[0] == 200
        assert "redis.example" in answer(server, "/readyz", **trusted)[1]
        assert answer(server, "/status", **trusted, Host="any.name.at.all")[0] == 200
    finally:
        server.close()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9464", 200), ("[::1]:9464", 200), ("localhost", 200), ("worker-1:9464", 200),
        ("faces.example.org:9464", 200), ("FACES.example.org.", 200),
        ("evil.example.com", 421), ("evil.example.com:9464", 421), ("127.0.0.1.nip.example", 421), ("", 421),
        ("[", 421), ("user@evil.example.com", 421),
    ],
)  # fmt: skip
def test_a_page_of_another_site_cannot_ask_under_its_own_name(health: Health, host: str, status: int) -> None:
    server = HealthServer(MetricsConfig(port=0, allowed_hosts=("faces.example.org",)), health, CollectorRegistry())
    try:
        for path in ("/healthz", "/metrics", "/status"):
            assert answer(server, path, Host=host)[0] == status
    finally:
        server.close()


@pytest.mark.slow
def test_many_slow_connections_keep_no_probe_out_and_make_no_threads_without_end(health: Health) -> None:
    server = HealthServer(MetricsConfig(port=0, max_connections=8), health, CollectorRegistry())
    before = threading.active_count()
    slow = []
    try:
        for _ in range(24):
            slow.append(socket.create_connection(("127.0.0.1", server.port), 10))
            slow[-1].sendall(b"GET /metrics HTTP/1.0\r\nX: ")
        for _ in range(5):
            assert answer(server, "/healthz")[0] == 200
        eventually(lambda: threading.active_count() - before <= 9)
    finally:
        for connection in slow:
            connection.close()
        server.close()


def test_an_open_port_without_a_token_is_said_so(health: Health, caplog: pytest.LogCaptureFixture) -> None:
    for host, token, said in (("0.0.0.0", None, 1), ("0.0.0.0", TOKEN, 0), ("127.0.0.1", None, 0)):
        caplog.clear()
        HealthServer(MetricsConfig(host=host, port=0, token=token), health, CollectorRegistry()).close()
        assert len([record for record in caplog.records if record.levelname == "WARNING"]) == said
