"""Every form of Redis, with real servers: one, Sentinel, Cluster, TLS, users with few permissions; and Valkey."""

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tests.support.command_line import facestream
from tests.support.redis_answers import command
from tests.support.redis_servers import (
    Authority,
    RedisServer,
    SentinelSetup,
    Server,
    cluster,
    cluster_url,
    redis_binary,
    redis_binary_with_tls,
    running,
    sentinel_setup,
    valkey_binary,
)
from tests.support.repository import REPOSITORY
from tests.support.sample_events import make_event
from tests.support.waiting import PATIENCE_S, eventually
from worker.config import RedisConfig, load_config
from worker.errors import ConfigError, SinkError
from worker.events.codec import encode
from worker.events.consumer.blocking import AsyncConsumer, Consumer
from worker.events.consumer.group import dead_letters, put_back
from worker.events.consumer.streams import stream_lag
from worker.events.consumer.tail import read_events
from worker.events.publisher import Publisher
from worker.redis.address import RedisAddress, parse_redis_url
from worker.redis.client import connect, connect_async
from worker.types import Event

STREAM = "facestream:events"
SHARDED = "facestream:events:{camera_id}"
CAMERAS = [f"camera-{number}" for number in range(8)]


def config_for(url: str, **changes: Any) -> RedisConfig:
    return RedisConfig(url=SecretStr(url), **({"timeout_s": 2.0} | changes))


@contextmanager
def publishing(config: RedisConfig, **options: Any) -> Iterator[Publisher]:
    with connect(config) as client:
        publisher = Publisher(client, config, **options)
        try:
            yield publisher
        finally:
            publisher.close(PATIENCE_S)


def consume(config: RedisConfig, count: int, group: str = "g") -> list[Event]:
    with Consumer(config, config.stream, group=group) as consumer:
        return [delivery.event for _, delivery in zip(range(count), consumer, strict=False)]


def consume_async(config: RedisConfig, count: int, group: str = "async") -> list[Event]:
    async def run() -> list[Event]:
        events = []
        async with AsyncConsumer(config, config.stream, group=group) as consumer:
            async for delivery in consumer:
                events.append(delivery.event)
                if len(events) == count:
                    break
        return events

    return asyncio.run(run())


def by_camera(events: list[Event]) -> dict[str, list[float]]:
    """The ordinals of each camera, in the order in which they came."""
    found: dict[str, list[float]] = {}
    for event in events:
        found.setdefault(event.camera_id, []).append(event.pts_s)
    return found


# URLs


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", RedisAddress("server", False, (("localhost", 6379),))),
        ("redis://host:1/2", RedisAddress("server", False, (("host", 1),), database=2)),
        ("rediss://u:p%40@[::1]", RedisAddress("server", True, (("::1", 6379),), username="u", password="p@")),
        ("redis://:p@q@host?db=3", RedisAddress("server", False, (("host", 6379),), database=3, password="p@q")),
        ("unix:///run/a%20b.sock?db=1", RedisAddress("socket", False, path="/run/a b.sock", database=1)),
        ("unix://u:p@/r.sock", RedisAddress("socket", False, path="/r.sock", username="u", password="p")),
        (
            "redis+sentinel://:p@a,b:7/my%2Fname/4",
            RedisAddress("sentinel", False, (("a", 26379), ("b", 7)), service="my/name", database=4, password="p"),
        ),
        ("rediss+sentinel://a/s", RedisAddress("sentinel", True, (("a", 26379),), service="s")),
        ("redis+cluster://a:1,b", RedisAddress("cluster", False, (("a", 1), ("b", 6379)))),
        ("rediss+cluster://a/0", RedisAddress("cluster", True, (("a", 6379),))),
    ],
)
def test_a_url_names_its_form(url: str, expected: RedisAddress) -> None:
    assert parse_redis_url(url) == expected
    assert load_config(None, {"redis": {"url": url}}).redis.url.get_secret_value() == url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://host:port", "is not a Redis URL"),
        ("redis://:s3#cr3t@host", "is not a Redis URL"),
        ("redis://:s3?cr3t@host", "is not a Redis URL"),
        ("redis+cluster://a,[::1", "is not a Redis URL"),
        ("redis://host/first", "does not end in the number of a database"),
        ("redis+sentinel://host/", "names no service"),
        ("redis+cluster://host/1", "has only database 0"),
        ("unix://", "names no socket"),
        ("rediss://:cr3t@host?ssl_cert_reqs=none", "has the option 'ssl_cert_reqs'"),
    ],
)
def test_a_wrong_url_is_told_by_what_is_wrong_with_it(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_redis_url(url)
    assert str(caught.value).startswith("redis.url: ")
    assert "cr3t" not in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(min_size=1), st.text(min_size=1), st.sampled_from(["redis", "redis+cluster", "rediss"]))
def test_any_login_survives_its_encoding(user: str, password: str, scheme: str) -> None:
    found = parse_redis_url(f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@host")
    assert (found.username, found.password) == (user, password)
    assert password not in repr(found) or password in repr(
        RedisAddress(found.form, found.tls, found.nodes, username=user)
    )


def test_passwords_come_from_files(redis_server: RedisServer, tmp_path: Path) -> None:
    with redis.Redis.from_url(redis_server.url) as admin:
        admin.config_set("requirepass", "s3cr3t")
    secret = tmp_path / "password"
    secret.write_text("s3cr3t\n")
    with connect(config_for(redis_server.url, password_file=secret)) as client:
        assert client.ping()
    for wrong, message in (("", "is empty"), ("gu3ss", "refuses the login")):
        secret.write_text(wrong)
        with pytest.raises((ConfigError, SinkError), match=message) as caught:
            connect(config_for(redis_server.url, password_file=secret))
        assert "gu3ss" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"redis\.password_file: .* cannot be read"):
        connect(config_for(redis_server.url, password_file=tmp_path / "none"))
    with pytest.raises(ConfigError, match="give only one"):
        connect(config_for(redis_server.url.replace("//", "//:x@"), password=SecretStr("y")))


def test_a_socket_serves_as_well(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with running(Server(redis_binary(), tmp_path / "data", "--unixsocket", str(path))):
        config = config_for(f"unix://{path}")
        with publishing(config) as publisher:
            publisher.publish(make_event(1))
        assert consume(config, 1) == consume_async(config, 1) == [make_event(1)]


# Sentinel


@pytest.fixture(params=["redis", "valkey"])
def sentinels(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SentinelSetup]:
    with sentinel_setup(redis_binary() if request.param == "redis" else valkey_binary(), tmp_path) as setup:
        yield setup


@pytest.mark.slow
def test_all_events_arrive_although_the_primary_dies_in_the_middle(sentinels: SentinelSetup) -> None:
    config = config_for(sentinels.url, sentinel_password=SecretStr(sentinels.SENTINEL_PASSWORD), timeout_s=1.0)
    events = [make_event(i) for i in range(200)]
    received: list[Event] = []
    with (
        publishing(config) as publisher,
        Consumer(config, group="g", retry_first_s=0.1) as consumer,
    ):
        thread = threading.Thread(target=consumer.run, args=(lambda delivery: received.append(delivery.event),))
        thread.start()
        for event in events[:100]:
            publisher.publish(event)
        eventually(lambda: publisher.depth == 0)
        with sentinels.direct(sentinels.primary) as client:
            client.wait(1, 5000)
        for event in events[100:150]:
            publisher.publish(event)
        sentinels.primary.stop()
        for event in events[150:]:
            publisher.publish(event)
        sentinels.fail_over()
        eventually(lambda: publisher.depth == 0)
        eventually(lambda: len({event.event_id for event in received}) >= 150)
        with sentinels.direct(sentinels.replica) as client:
            stored = [fields["event_id"] for _, fields in client.xrange(STREAM)]
        eventually(lambda: {event.event_id for event in received} >= {*stored})
        consumer.stop()
        thread.join()
    # What was acknowledged and not replicated when the primary died is the only thing that may be gone.
    assert {*stored} >= {event.event_id for event in events[:100] + events[150:]}
    assert {event.event_id for event in received} >= {*stored}
    assert consume_async(config, len({*stored}))[-1] == events[-1]


def test_what_is_wrong_with_sentinels_is_told(tmp_path: Path) -> None:
    with sentinel_setup(redis_binary(), tmp_path) as setup:
        right = SecretStr(setup.SENTINEL_PASSWORD)
        for url, password, message in (
            (setup.url, None, "the Sentinels refuse the login; check redis.sentinel_username"),
            (setup.url.replace(setup.SERVICE, "nobody"), right, "know no such service, or no primary of it is up"),
            (setup.url.replace(setup.PASSWORD, "wrong"), right, "refuses the login .*; check user and password"),
            (setup.url.replace(setup.nodes, "127.0.0.1:1"), right, "no Sentinel that answers knows a primary"),
        ):
            with pytest.raises(SinkError, match=message) as caught:
                connect(config_for(url, sentinel_password=password))
            assert not re.search("pw|wrong|\n", str(caught.value))


# Cluster


@pytest.fixture(params=["redis", "valkey"])
def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Server]]:
    with cluster(redis_binary() if request.param == "redis" else valkey_binary(), tmp_path) as nodes:
        yield nodes


def test_streams_by_camera_spread_over_a_cluster_for_all_who_write_and_read(nodes: list[Server]) -> None:
    config = config_for(cluster_url(nodes[:1]), stream=SHARDED)
    events = [make_event(i, camera_id=CAMERAS[i % 8], epoch=1_750_000_000_000) for i in range(80)]
    with publishing(config) as publisher:
        for event in events:
            publisher.publish(event)
        eventually(lambda: publisher.depth == 0)
        assert publisher.error == ""
    for node in nodes:
        with redis.Redis.from_url(node.url) as client:
            assert client.execute_command("DBSIZE") > 0
    expected = by_camera(events)
    with connect(config, read_only=True) as client:
        assert by_camera([event for _, event in read_events(client, SHARDED, start="0", follow=False)]) == expected
    assert by_camera(consume(config, 80)) == expected
    assert by_camera(consume_async(config, 80)) == expected
    tail = facestream(
        "tail", "--redis", cluster_url(nodes), "--stream", SHARDED, "--group", "g", "--no-follow", "--json"
    )
    assert (tail.code, tail.stdout) == (0, "")


def test_clients_follow_a_slot_that_moves_to_another_node(nodes: list[Server]) -> None:
    config = config_for(cluster_url(nodes), stream=SHARDED)
    stream = SHARDED.replace("{camera_id}", "door")
    with (
        publishing(config) as publisher,
        Consumer(config, SHARDED, group="g", retry_first_s=0.05) as consumer,
    ):
        publisher.publish(make_event(0))
        eventually(lambda: publisher.depth == 0)
        assert [consumer_event(consumer)] == [make_event(0)]
        move_slot(nodes, stream)
        publisher.publish(make_event(1))
        eventually(lambda: publisher.depth == 0)
        assert consumer_event(consumer) == make_event(1)


def consumer_event(consumer: Consumer) -> Event:
    delivery = eventually(lambda: consumer.poll(0.2))
    consumer.done(delivery)
    event: Event = delivery.event
    return event


def move_slot(nodes: list[Server], key: str) -> None:
    """The slot of ``key``, with all that is in it, goes to the node after its own."""
    clients = [redis.Redis(port=node.port) for node in nodes]
    slot = int(command(clients[0], "CLUSTER", "KEYSLOT", key))
    ids = [command(client, "CLUSTER", "MYID").decode() for client in clients]
    source = slot * 3 // 16384
    if not command(clients[source], "CLUSTER", "COUNTKEYSINSLOT", slot):
        source -= 1
    target = (source + 1) % 3
    command(clients[target], "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
    command(clients[source], "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
    for name in command(clients[source], "CLUSTER", "GETKEYSINSLOT", slot, 100):
        command(clients[source], "MIGRATE", "127.0.0.1", nodes[target].port, name, 0, 5000)
    for client in (clients[target], clients[source]):
        command(client, "CLUSTER", "SETSLOT", slot, "NODE", ids[target])
    for client in clients:
        client.close()


def test_what_is_no_cluster_and_what_is_one_are_told_apart(redis_url: str, tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"is not a Cluster; write redis://host:port in redis\.url"):
        connect(config_for(redis_url.replace("redis://", "redis+cluster://")))
    with pytest.raises(SinkError, match="cannot be reached"):
        connect(config_for("redis+cluster://127.0.0.1:1"))
    with cluster(redis_binary(), tmp_path) as nodes:
        refused = 0
        for node in nodes:
            try:
                connect(config_for(node.url)).close()
            except SinkError as error:
                assert "is part of a Cluster; write redis+cluster://" in str(error)  # noqa: PT017 - two of three refuse
                refused += 1
        assert refused == 2


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "ours")


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = authority.issue("localhost")
    server = Server(
        redis_binary_with_tls(folder), folder / "server", "--port", "0", "--tls-cert-file", str(certificate),
        "--tls-key-file", str(key), "--tls-ca-cert-file", str(authority.ca_file), "--tls-auth-clients", "yes",
    )  # fmt: skip
    server.command += ["--tls-port", str(server.port)]
    with running(server):
        yield server


def test_tls_with_certificates_on_both_sides(tls_server: Server, authority: Authority) -> None:
    certificate, key = authority.issue("worker")
    config = config_for(
        f"rediss://localhost:{tls_server.port}", ca_file=authority.ca_file, cert_file=certificate, key_file=key
    )
    with publishing(config) as publisher:
        publisher.publish(make_event(1))
    assert consume(config, 1) == consume_async(config, 1) == [make_event(1)]


def test_what_is_wrong_with_tls_is_told(
    tls_server: Server, authority: Authority, tmp_path: Path, redis_server: RedisServer
) -> None:
    stranger = Authority(tmp_path, "stranger")
    certificate, key = authority.issue("client")
    ours = {"ca_file": authority.ca_file, "cert_file": certificate, "key_file": key}
    url = f"rediss://localhost:{tls_server.port}"
    foreign_certificate, foreign_key = stranger.issue("client")
    for where, files, message in (
        (url, ours | {"ca_file": stranger.ca_file}, r"certificate that is not trusted .*redis\.ca_file"),
        (url, {"cert_file": certificate, "key_file": key}, r"certificate that is not trusted .*redis\.ca_file"),
        (url.replace("localhost", "127.0.0.1"), ours, "shows a certificate for another host"),
        (url, {"ca_file": authority.ca_file}, r"certificate.* redis\.cert_file"),
        (
            url,
            ours | {"cert_file": foreign_certificate, "key_file": foreign_key},
            r"refuses our certificate|certificate of ours",
        ),
        (url.replace("rediss", "redis"), {}, "if that port speaks TLS, write rediss://"),
        (redis_server.url.replace("redis://", "rediss://"), ours, "does (not|it) speak TLS on that port"),
    ):
        with pytest.raises(SinkError, match=message) as caught:
            connect(config_for(where, **files))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "field", "message"),
    [
        ("redis://localhost", "ca_file", r"redis\.ca_file is given, but redis\.url does not ask for TLS"),
        ("rediss://localhost", "ca_file", r"redis\.ca_file: .*none\.pem cannot be read"),
        ("rediss://localhost", "cert_file", r"redis\.cert_file: .*none\.pem cannot be read"),
    ],
)
def test_files_for_tls_are_never_passed_over(url: str, field: str, message: str, tmp_path: Path) -> None:
    for connector in (connect, connect_async):
        with pytest.raises(ConfigError, match=message):
            connector(config_for(url, **{field: tmp_path / "none.pem"}))


# Permissions


def documented_users() -> dict[str, list[str]]:
    text = (REPOSITORY / "docs" / "redis.md").read_text()
    lines = [line.split() for line in text.splitlines() if line.startswith("ACL SETUSER ")]
    return {words[2]: words for words in lines if words[2] != "console"}  # of whom tests/api/test_permissions.py tells


def publish_as(config: RedisConfig) -> None:
    for epoch in (0, 1_750_000_000_000):
        with publishing(config) as publisher:
            publisher.publish(make_event(epoch % 7, epoch=epoch))
            assert publisher.close(1.0) == 0
    with connect(config) as client:
        assert stream_lag(client, STREAM) is not None


def tail_as(config: RedisConfig) -> None:
    with connect(config, read_only=True) as client:
        assert list(read_events(client, STREAM, start="0", follow=False))
        assert not list(read_events(client, STREAM, start="$", follow=False))


def consume_as(config: RedisConfig) -> None:
    def handler(delivery: Any) -> None:
        if delivery.deliveries == 2:
            consumer.stop()
        raise ValueError("poison")

    quick: dict[str, Any] = {"retry_first_s": 0.01, "retry_longest_s": 0.01, "max_deliveries": 2}
    with Consumer(config, group="g", take_over_after_s=0.01, **quick) as consumer:
        consumer.run(handler)
    with Consumer(config, group="h") as consumer:
        while delivery := consumer.poll(0):
            consumer.done(delivery)
        assert consumer.counts.handled == 1
    consume_async(config, 1)


def bury_as(config: RedisConfig) -> None:
    with connect(config) as client:
        letters = list(dead_letters(client, STREAM))
        assert letters
        for letter in letters:
            put_back(client, letter)


ROLES: dict[str, Callable[[RedisConfig], None]] = {
    "worker": publish_as,
    "tail": tail_as,
    "consumer": consume_as,
    "deadletters": bury_as,
}


def as_user(url: str, name: str) -> RedisConfig:
    return config_for(url.replace("//", f"//{name}:PASSWORD@"))


def play_roles(writer: Any, url: str) -> None:
    for name, role in ROLES.items():
        if name == "consumer":
            writer.xadd(STREAM, {**encode(make_event(0))})
            writer.xadd(STREAM, {"no": "event"})
        role(as_user(url, name))


def test_the_documented_permissions_are_enough_and_needed(redis_server: RedisServer) -> None:
    users = documented_users()
    assert users.keys() == ROLES.keys()
    with redis.Redis.from_url(redis_server.url) as admin:
        for words in users.values():
            admin.execute_command(*words)
        play_roles(admin, redis_server.url)
        for name, command in (("worker", "xadd"), ("tail", "xread"), ("consumer", "zscore"), ("deadletters", "xdel")):
            admin.execute_command("ACL", "SETUSER", name, f"-{command}")
        admin.xadd(f"{{{STREAM}}}:dead:g", {"hello": "world"})
        for name, role in ROLES.items():
            with pytest.raises((AssertionError, SinkError, redis.exceptions.NoPermissionError)):
                role(as_user(redis_server.url, name))


def test_the_documented_permissions_are_enough_on_a_cluster(nodes: list[Server]) -> None:
    guide = (REPOSITORY / "docs" / "redis.md").read_text()
    found = re.search(r"On a Cluster, everybody needs\s+`([^`]+)` besides", guide)
    assert found

    def permit(*more: str) -> None:
        for node in nodes:
            with redis.Redis.from_url(node.url) as admin:
                for words in documented_users().values():
                    admin.execute_command(*words, *more)

    permit()
    with pytest.raises(SinkError, match=r"does not permit this user what is needed .*docs/redis\.md"):
        connect(as_user(cluster_url(nodes), "worker"))
    permit(*found[1].split())
    with connect(config_for(cluster_url(nodes))) as writer:
        play_roles(writer, cluster_url(nodes))
