"""What a server answers is limited in size and time, whatever it does."""

import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing

import httpx
import pytest

from tests.support.hostile_servers import bomb, dripping, endless_body, serving
from worker.asking import Asker

OK = b"HTTP/1.1 200 OK"
MEGABYTE = 2**20


@pytest.fixture
def peak_bytes() -> Iterator[Callable[[], int]]:
    """How much memory Python has taken at most since the test began."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


def test_a_body_that_fits_is_the_answer_and_the_connection_stays() -> None:
    def twice(connection: socket.socket, _over: threading.Event) -> None:
        for _ in range(2):
            connection.sendall(OK + b"\r\nContent-Length: 5\r\n\r\nhello")
            connection.recv(65_536)

    with serving(twice) as server, closing(Asker(5.0)) as asker:
        assert [asker.ask("GET", server.url).body for _ in range(2)] == [b"hello", b"hello"]
        assert len(server.requests) == 1


def test_a_body_without_end_is_not_read(peak_bytes: Callable[[], int]) -> None:
    with serving(endless_body(OK)) as server, closing(Asker(20.0)) as asker:
        answer = asker.ask("GET", server.url, most_bytes=MEGABYTE)
    assert (answer.status, answer.body) == (200, None)
    assert peak_bytes() < 8 * MEGABYTE


@pytest.mark.parametrize("encodings", [1, 3])
def test_nothing_is_unpacked(peak_bytes: Callable[[], int], encodings: int) -> None:
    with serving(bomb(OK, encodings)) as server, closing(Asker(20.0)) as asker:
        answer = asker.ask("GET", server.url, most_bytes=2 * MEGABYTE)
        assert b"Accept-Encoding: identity" in server.requests[0]
    assert answer.body is not None
    assert peak_bytes() < 100 * MEGABYTE, "most of it is the server's own"


def test_a_body_that_drips_ends_in_time_and_its_status_is_known() -> None:
    with serving(dripping(OK + b"\r\n\r\n", b"x")) as server, closing(Asker(0.5)) as asker:
        answer = asker.ask("GET", server.url)
    assert (answer.status, answer.body) == (200, None)


@pytest.mark.parametrize(
    ("begin", "drop"),
    [(OK + b"\r\n", b"X-More: x\r\n"), (b"", b"H"), (OK + b"\r\nX: ", b"x")],
    ids=["many", "slow", "long"],
)
def test_a_head_without_end_is_an_error_in_time(begin: bytes, drop: bytes) -> None:
    with (
        serving(dripping(begin, drop, 0.01)) as server,
        closing(Asker(0.5)) as asker,
        pytest.raises(httpx.TransportError),
    ):
        asker.ask("GET", server.url)


def test_what_takes_the_body_gets_more_time_only_for_what_comes() -> None:
    taken: list[bytes] = []
    with (
        serving(dripping(OK + b"\r\n\r\n", b"x")) as server,
        closing(Asker(3.0, least_bytes_per_s=1000.0)) as asker,
        pytest.raises(httpx.ReadTimeout),
    ):
        asker.ask("GET", server.url, take=lambda _head, chunk: taken.append(chunk))
    assert taken


def test_redirects_are_followed_as_far_as_allowed_and_their_bodies_are_not_read(peak_bytes: Callable[[], int]) -> None:
    with serving(endless_body(b"HTTP/1.1 302 Found\r\nLocation: /again")) as server:
        with closing(Asker(10.0, most_redirects=3)) as asker:
            assert asker.ask("GET", server.url).status == 302
        assert len(server.requests) == 4
        with closing(Asker(10.0)) as asker:
            assert asker.ask("GET", server.url).status == 302
        assert len(server.requests) == 5
    assert peak_bytes() < 8 * MEGABYTE
