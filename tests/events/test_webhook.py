import json
import signal
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tests.support.command_line import running
from tests.support.hostile_servers import Behaviour, bomb, dripping, endless_body, serving
from tests.support.redis_servers import Authority
from tests.support.sample_events import make_event
from tests.support.waiting import eventually
from worker.config import RedisConfig
from worker.errors import ConfigError
from worker.events.codec import encode
from worker.events.consumer.blocking import Consumer
from worker.events.consumer.group import dead_letters
from worker.events.consumer.webhook import AwayError, Webhook, forward, read_secret, sign, verify
from worker.redis.client import connect
from worker.types import Event

STREAM = "facestream:events"
SECRET = b"0123456789abcdef0123"
Answer = tuple[int, dict[str, str]]
TAKEN: Answer = (204, {})


class Receiver:
    """A real HTTP server that verifies each request, answers ``answers`` in turn and then always 204."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.taken: list[dict[str, str]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = dict(self.headers.items())
                verify(SECRET, headers, body)
                receiver.requests.append((self.path, headers, body))
                status, more = receiver.answers.pop(0) if receiver.answers else TAKEN
                if status == 0:
                    self.close_connection = True
                    return
                if status < 300:
                    receiver.taken.append(json.loads(body))
                self.send_response(status)
                for name, value in {"Content-Length": "0", **more}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/hooks/t0k3n"


@contextmanager
def receiving(*answers: Answer) -> Iterator[Receiver]:
    receiver = Receiver(*answers)
    thread = threading.Thread(target=receiver.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()
        thread.join()


@contextmanager
def hook(url: str, **options: Any) -> Iterator[Webhook]:
    webhook = Webhook(url, SECRET, **({"first_pause_s": 0.01, "longest_pause_s": 0.01} | options))
    try:
        yield webhook
    finally:
        webhook.close()


def add(url: str, *events: Event) -> None:
    with redis.Redis.from_url(url) as client:
        for event in events:
            client.xadd(STREAM, {**encode(event)})


def test_each_event_arrives_once_signed_although_the_receiver_fails_at_first(redis_url: str) -> None:
    events = [make_event(i) for i in range(4)]
    add(redis_url, *events, events[1])
    away = [(500, {}), (0, {}), (429, {"Retry-After": "0"}), TAKEN, (503, {})]
    stop = threading.Event()
    with receiving(*away) as receiver, hook(receiver.url) as webhook, Consumer(redis_url, group="g") as consumer:
        thread = threading.Thread(target=forward, args=(consumer, webhook, stop))
        thread.start()
        eventually(lambda: len(receiver.taken) == 4)
        eventually(lambda: (consumer.counts.handled, consumer.counts.repeated) == (4, 1))
        stop.set()
        thread.join()
    assert receiver.taken == [encode(event) for event in events]
    assert len(receiver.requests) == 4 + 4
    _path, headers, body = receiver.requests[-1]
    assert headers["Content-Type"] == "application/json"
    assert headers["Facestream-Event-Id"] == json.loads(body)["event_id"]
    with redis.Redis.from_url(redis_url) as client:
        assert client.xpending(STREAM, "g")["pending"] == 0


def test_a_rejected_event_is_buried_and_the_next_ones_go_on(redis_url: str) -> None:
    add(redis_url, *[make_event(i) for i in range(3)])
    stop = threading.Event()
    refusals = [(400, {}), (301, {"Location": "http://127.0.0.1:1/elsewhere"})]
    with receiving(*refusals) as receiver, hook(receiver.url) as webhook, Consumer(redis_url, group="g") as consumer:
        thread = threading.Thread(target=forward, args=(consumer, webhook, stop))
        thread.start()
        eventually(lambda: consumer.counts.handled == 1)
        stop.set()
        thread.join()
        with connect(RedisConfig(url=SecretStr(redis_url))) as client:
            refused, redirected = dead_letters(client, STREAM, "g")
    assert [event["pts_s"] for event in receiver.taken] == ["2"]
    assert len(receiver.requests) == 3
    assert refused.reason == "the receiver refuses the event (status 400)"
    assert redirected.reason == "the receiver redirects, which is not followed (status 301)"


@pytest.mark.parametrize("status", [401, 403, 407])
def test_a_receiver_that_does_not_trust_the_sender_costs_no_event(
    status: int, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "worker")
    events = [make_event(i) for i in range(3)]
    add(redis_url, *events)
    stop = threading.Event()
    with (
        receiving(*[(status, {})] * 3) as receiver,
        hook(receiver.url) as webhook,
        Consumer(redis_url, group="g", max_deliveries=1) as consumer,
    ):
        thread = threading.Thread(target=forward, args=(consumer, webhook, stop), kwargs={"untrusted_pause_s": 0.01})
        thread.start()
        eventually(lambda: consumer.counts.handled == 3)
        stop.set()
        thread.join()
        assert (consumer.counts.failed, consumer.counts.dead) == (0, 0)
    assert receiver.taken == [encode(event) for event in events]
    told = [record.getMessage() for record in caplog.records]
    assert sum("forwarding pauses" in line and f"status {status}" in line for line in told) == 1
    assert sum("trusts the signature now" in line for line in told) == 1


def test_a_stop_ends_the_pause_of_a_sender_that_is_not_trusted(redis_url: str) -> None:
    add(redis_url, make_event(0))
    stop = threading.Event()
    with (
        receiving(*[(401, {})] * 99) as receiver,
        hook(receiver.url) as webhook,
        Consumer(redis_url, group="g") as consumer,
    ):
        thread = threading.Thread(target=forward, args=(consumer, webhook, stop))
        thread.start()
        eventually(lambda: receiver.requests)
        stop.set()
        thread.join(5)
        assert not thread.is_alive()
        assert consumer.counts.dead == 0


def test_an_event_comes_again_while_the_receiver_is_away(redis_url: str) -> None:
    add(redis_url, make_event(0))
    stop = threading.Event()
    quick: dict[str, Any] = {"retry_first_s": 0.02, "retry_longest_s": 0.02, "max_deliveries": 9}
    with (
        receiving(*[(503, {})] * 3) as receiver,
        hook(receiver.url, patience_s=0.0) as webhook,
        Consumer(redis_url, group="g", **quick) as consumer,
    ):
        thread = threading.Thread(target=forward, args=(consumer, webhook, stop))
        thread.start()
        eventually(lambda: consumer.counts.handled == 1)
        stop.set()
        thread.join()
        assert (consumer.counts.failed, consumer.counts.dead) == (3, 0)


def test_a_pause_that_the_receiver_asks_for_is_kept() -> None:
    asked = [("7", 7.0), (format_datetime(datetime.now(UTC) + timedelta(seconds=9)), 9.0), ("soon", 0.0), ("", 0.0)]
    for header, pause_s in asked:
        with receiving((429, {"Retry-After": header})) as receiver, hook(receiver.url, patience_s=5.0) as webhook:
            if pause_s:
                # Longer than the patience: no second try is made in vain.
                with pytest.raises(AwayError) as caught:
                    webhook.send(make_event())
                assert pause_s - 2 <= caught.value.pause_s <= pause_s
                assert len(receiver.requests) == 1
            else:
                webhook.send(make_event())
                assert len(receiver.requests) == 2


def test_a_stop_ends_a_pause() -> None:
    stop = threading.Event()
    with (
        receiving(*[(503, {"Retry-After": "3000"})] * 2) as receiver,
        hook(receiver.url, stop=stop, patience_s=100_000) as webhook,
    ):

        def stop_when_asked() -> None:
            eventually(lambda: receiver.requests)
            stop.set()

        eventual = threading.Thread(target=stop_when_asked)
        eventual.start()
        with pytest.raises(AwayError):
            webhook.send(make_event())
        eventual.join()


def test_nobody_at_the_address_is_away_and_no_part_of_a_path_is_told() -> None:
    with receiving() as receiver:
        url = receiver.url
    with hook(url, patience_s=0.0) as webhook, pytest.raises(AwayError, match="cannot be reached") as caught:
        webhook.send(make_event())
    assert "t0k3n" not in str(caught.value)


def test_a_receiver_is_trusted_by_its_certificate_alone(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours")
    certificate, key = authority.issue("localhost", "127.0.0.1")
    with receiving() as receiver:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        receiver.server.socket = context.wrap_socket(receiver.server.socket, server_side=True)
        url = receiver.url.replace("http://", "https://")
        with hook(url, patience_s=0.0) as webhook, pytest.raises(AwayError, match="CERTIFICATE_VERIFY_FAILED"):
            webhook.send(make_event())
        with hook(url, ca_file=authority.ca_file) as webhook:
            webhook.send(make_event())
        assert len(receiver.taken) == 1


@given(st.binary(max_size=100), st.binary(max_size=100), st.integers(0, 10**10), st.integers(-1000, 1000))
def test_a_signature_holds_for_its_body_time_and_secret_alone(
    body: bytes, other: bytes, timestamp: int, age_s: int
) -> None:
    headers = {"facestream-timestamp": str(timestamp), "FACESTREAM-SIGNATURE": sign(SECRET, timestamp, body)}
    if abs(age_s) <= 300:
        verify(SECRET, headers, body, now_s=timestamp + age_s)
    else:
        with pytest.raises(ValueError, match="too old"):
            verify(SECRET, headers, body, now_s=timestamp + age_s)
    shifted = headers | {"facestream-timestamp": str(timestamp + 1)}
    for wrong in ((SECRET + b"x", headers, body), (SECRET, shifted, body), (SECRET, headers, body + b"." + other)):
        with pytest.raises(ValueError, match="signature"):
            verify(*wrong, now_s=timestamp)


@pytest.mark.parametrize("headers", [{}, {"Facestream-Timestamp": "noon", "Facestream-Signature": "v1="}])
def test_a_request_without_a_signature_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="lacks"):
        verify(SECRET, headers, b"")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/t0k3n", "not a web address"),
        ("https:///t0k3n", "not a web address"),
        ("https://[::1/t0k3n", "is not a URL"),
        ("http://example.com/t0k3n", "add --allow-http"),
    ],
)
def test_an_address_that_cannot_be_used_is_told_without_its_path(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Webhook(url, SECRET)
    assert "t0k3n" not in str(caught.value)


def test_http_to_others_needs_leave() -> None:
    Webhook("http://example.com/", SECRET, allow_http=True).close()
    Webhook("http://localhost/", SECRET).close()


def test_a_secret_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_secret(path)
    path.write_bytes(b"short\n")
    with pytest.raises(ConfigError, match="fewer than 16 bytes") as caught:
        read_secret(path)
    assert "short" not in str(caught.value).replace("shorter", "")
    path.write_bytes(SECRET + b"\r\n")
    assert read_secret(path) == SECRET


def test_the_command_forwards_until_it_is_told_to_stop(redis_url: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    add(redis_url, make_event(0), make_event(1))
    with receiving((500, {})) as receiver:
        arguments = ("forward", "--redis", redis_url, "--group", "hook", "--from", "0", "--url", receiver.url)
        with running(*arguments, "--secret-file", secret) as command:
            command.said(r"forwarding the events of facestream:events to http://127\.0\.0\.1:\d+ as group hook")
            command.said(r"the receiver is away: events wait .*status 500")
            eventually(lambda: len(receiver.taken) == 2)
            command.said("the receiver takes events again")
            ended = command.end(signal.SIGTERM)
    assert (ended.code, ended.stdout) == (0, "")
    assert "stopped: 2 events forwarded" in ended.stderr
    assert [word for word in (SECRET.decode(), "t0k3n") if word in ended.stderr] == []
    with redis.Redis.from_url(redis_url) as client:
        assert client.xpending(STREAM, "hook")["pending"] == 0


@pytest.mark.parametrize(
    "behaviour",
    [
        endless_body(b"HTTP/1.1 200 OK"),
        dripping(b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        bomb(b"HTTP/1.1 204 No Content"),
        bomb(b"HTTP/1.1 200 OK", 3),
    ],
    ids=["endless", "dripping", "bomb", "bomb of bombs"],
)
def test_what_a_receiver_says_beside_its_status_does_not_matter(behaviour: Behaviour) -> None:
    with serving(behaviour) as server, hook(server.url, timeout_s=1.0) as webhook:
        webhook.send(make_event())
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "behaviour",
    [endless_body(b"HTTP/1.1 500 Error"), dripping(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 0.01), dripping(b"", b"H")],
    ids=["error without end", "head without end", "byte by byte"],
)
def test_a_receiver_without_an_end_keeps_no_forwarder_from_stopping(redis_url: str, behaviour: Behaviour) -> None:
    add(redis_url, make_event())
    stop = threading.Event()
    with (
        serving(behaviour) as server,
        hook(server.url, timeout_s=1.0, stop=stop) as webhook,
        Consumer(redis_url, group="g") as consumer,
    ):
        thread = threading.Thread(target=forward, args=(consumer, webhook, stop))
        thread.start()
        eventually(lambda: server.requests)
        stop.set()
        thread.join(10.0)
        assert not thread.is_alive()
        assert consumer.counts.handled == 0


def test_sigterm_ends_a_forwarder_whose_receiver_answers_without_end(redis_url: str, tmp_path: Path) -> None:
    add(redis_url, make_event())
    (tmp_path / "secret").write_bytes(SECRET)
    with serving(dripping(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 0.01)) as server:
        arguments = ("forward", "--group", "g", "--url", server.url, "--secret-file", tmp_path / "secret")
        with running(*arguments, "--redis", redis_url, "--from", "0", "--timeout-s", "2") as command:
            eventually(lambda: server.requests)
            command.process.send_signal(signal.SIGTERM)
            assert command.process.wait(15.0) == 0
