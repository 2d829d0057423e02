"""A Redis that answers, and cannot serve for now: what is said of it, and that a worker waits for it."""

import re
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis
from pydantic import SecretStr

from tests.support.command_line import facestream
from tests.support.redis_servers import RedisServer
from worker.config import RedisConfig
from worker.errors import SinkBusyError, SinkError
from worker.redis.client import connect, connect_when_ready

LOADING = "LOADING Redis is loading the dataset in memory"
BUSY = [
    LOADING,
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "CLUSTERDOWN The cluster is down",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "ERR max number of clients reached",
]


class Answers:
    """What a server says to every command; None: it is an empty Redis."""

    def __init__(self, reply: str) -> None:
        self.reply: str | None = reply


@contextmanager
def server(answers: Answers) -> Iterator[RedisConfig]:
    """A server that speaks as much of the protocol as :func:`connect` needs."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while line := self.rfile.readline():
                words = []
                for _ in range(int(line[1:])):
                    size = int(self.rfile.readline()[1:])
                    words.append(self.rfile.read(size + 2)[:-2].decode().upper())
                known = {"PING": "+PONG", "MULTI": "+OK", "EXEC": "*1\r\n+PONG", "TYPE": "+none"}
                said = f"-{answers.reply}" if answers.reply else known.get(words[0], "+OK")
                self.wfile.write(f"{said}\r\n".encode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True).start()
        yield RedisConfig(url=SecretStr(f"redis://127.0.0.1:{listener.server_address[1]}/0"))
        listener.shutdown()


@pytest.mark.parametrize("reply", BUSY)
def test_one_that_is_busy_is_waited_for_until_it_can_serve(reply: str) -> None:
    answers, told, waits = Answers(reply), list[str](), list[float]()

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            answers.reply = None

    with server(answers) as config, connect_when_ready(config, told.append, wait) as client:
        assert client.ping()
    assert len(waits) == 3
    assert all(0 <= seconds <= 5 for seconds in waits)
    assert len(told) == 2, "the reason is told once, and its end"
    assert told[1] == ""


def test_another_reason_is_told_as_well() -> None:
    answers, told = Answers(BUSY[0]), list[str]()

    def wait(_seconds: float) -> None:
        answers.reply = BUSY[-1] if len(told) == 1 else None

    with server(answers) as config:
        connect_when_ready(config, told.append, wait).close()
    assert "is loading its data" in told[0]
    assert "is at its limit of clients" in told[1]
    assert told[2:] == [""]


@pytest.mark.parametrize(
    "reply", ["WRONGPASS invalid username-password pair", "NOAUTH Authentication required.", "ERR unknown command"]
)
def test_one_that_refuses_is_not_waited_for(reply: str) -> None:
    with server(Answers(reply)) as config, pytest.raises(SinkError) as refused:
        connect_when_ready(config, lambda _reason: None, lambda _seconds: pytest.fail("it waits"))
    assert not isinstance(refused.value, SinkBusyError)


@pytest.mark.redis
def test_a_real_one_at_its_limit_of_clients_is_told_and_waited_for(redis_server: RedisServer) -> None:
    config = RedisConfig(url=SecretStr(redis_server.url))
    with redis.Redis.from_url(redis_server.url) as other:
        other.config_set("maxclients", 1)
        with pytest.raises(SinkBusyError, match=r"limit of clients .*raise its maxclients"):
            connect(config)
        connect_when_ready(config, lambda _: None, lambda _: other.config_set("maxclients", 100)).close()


def test_a_command_that_does_not_wait_says_what_it_is() -> None:
    with server(Answers(LOADING)) as config:
        told = facestream("tail", "--redis", config.url.get_secret_value(), "--no-follow").only_error(1)
    assert re.search(r"is loading its data from disk .*; try again", told)
