"""The console with users that may do no more than it needs: a role of PostgreSQL, and a user of Redis."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from tests.support.console import API, Console, add_account, console_config, fill, serving
from tests.support.postgres import PostgresServer
from tests.support.publishing import STREAM
from tests.support.redis_servers import RedisServer
from tests.support.repository import REPOSITORY
from tests.support.sample_events import make_event, stream_fields
from worker.api.parts import Parts
from worker.api.roles import ROLES
from worker.console.app import make_console
from worker.database.address import parse_database_url
from worker.database.database import open_postgres
from worker.database.layout import upgrade

ROLES_SQL = (REPOSITORY / "deploy" / "postgres" / "roles.sql").read_text()


def documented_user() -> list[str]:
    text = (REPOSITORY / "docs" / "redis.md").read_text()
    (line,) = re.findall(r"^ACL SETUSER console .*$", text, re.MULTILINE)
    return list(line.split())


@contextmanager
def console_with_few_rights(
    folder: Path, redis_url: str, owners_url: str, postgres: PostgresServer
) -> Iterator[Console]:
    database = open_postgres(parse_database_url(owners_url))
    upgrade(database)
    postgres.execute(ROLES_SQL, database="test")
    postgres.execute(
        "DROP USER IF EXISTS a_console", "CREATE USER a_console IN ROLE facestream_console", database="test"
    )
    fill(owners_url, owners_url)
    for role in ROLES:
        add_account(database, role, role)
    database.close()
    url = owners_url.replace("postgres@", "a_console@")
    config = console_config(folder, redis_url, url, state_dir=str(folder / "state"))
    parts = Parts(config)
    app = make_console(parts)
    with serving(app) as address:
        console = Console(app, address, parts)
        yield console
        console.close()


def use(console: Console) -> None:
    """All that people and programs do there."""
    operator, admin = console.as_role("operator"), console.as_role("admin")
    for path in ("/", "/sightings", "/unknown", "/people", "/people/p-anna", "/find", "/health"):
        assert operator.get(path).status_code == 200, path

    assert "Zoë" in operator.get("/").text

    def done(answer: httpx.Response) -> Any:
        assert answer.is_success, (answer.request.url.path, answer.text)
        return answer.json() if answer.content else None

    assert done(operator.get(f"{API}/status"))["problems"] == [
        "no worker has reported: is one running with this Redis and fleet.name?"
    ]
    step = done(operator.post(f"{API}/unknowns/u-1/merge", json={"other": "u-2"}))["step"]
    done(operator.post(f"{API}/steps/{step}/undo"))
    named = done(
        operator.post(f"{API}/unknowns/u-1/name", json={"identity_name": "Carla"}, headers={"Idempotency-Key": "k"})
    )
    assert named["corrected"] == 2
    done(operator.delete(f"{API}/unknowns/u-2"))
    step = done(operator.post(f"{API}/people/{named['identity_id']}/merge", json={"other": "p-bob"}))["step"]
    done(operator.post(f"{API}/steps/{step}/undo"))
    done(operator.post(f"{API}/sightings/door_1/correction", json={}))
    done(operator.delete(f"{API}/sightings/door_1/correction"))
    done(operator.patch(f"{API}/people/p-bob", json={"identity_name": "Bobby"}))
    done(operator.delete(f"{API}/people/p-bob"))
    erased = done(operator.post(f"{API}/people/p-anna/erasure"))
    assert erased["whole"], erased
    made = done(admin.post(f"{API}/accounts", json={"name": "x", "password": "long enough 1", "role": "viewer"}))
    done(admin.post(f"{API}/tokens", json={"name": "t", "scopes": ["read"], "days": 1}))
    done(admin.delete(f"{API}/accounts/{made['name']}"))
    camera = {"camera_id": "door", "source": "rtsp://127.0.0.1:9/1"}
    for _ in range(2):  # the second time under the name of one that was removed
        done(admin.post(f"{API}/cameras", json=camera))
        done(admin.patch(f"{API}/cameras/door", json={"paused": True}))
        done(admin.get(f"{API}/cameras"))
        done(admin.delete(f"{API}/cameras/door"))
    with operator.stream("GET", f"{API}/events", headers={"Last-Event-ID": "0-0"}) as answer:
        lines = answer.iter_lines()
        assert any(line.startswith("data: ") for line in lines)


@pytest.fixture
def limited(
    redis_server: RedisServer, postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> Iterator[Console]:
    with redis.Redis.from_url(redis_server.url) as admin:
        admin.execute_command(*documented_user())
        admin.xadd(STREAM, stream_fields(make_event(1)))
    url = redis_server.url.replace("//", "//console:PASSWORD@")
    with console_with_few_rights(tmp_path, url, postgres_url, postgres) as console:
        yield console


def test_the_documented_permissions_are_enough_for_all_that_the_console_does(limited: Console) -> None:
    use(limited)


def test_they_let_it_do_nothing_else(limited: Console, redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url.replace("//", "//console:PASSWORD@")) as console:
        for command in (
            ["FLUSHALL"],
            ["CONFIG", "GET", "*"],
            ["DEL", STREAM],
            ["XTRIM", STREAM, "MAXLEN", 0],
            ["GET", "a"],
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                console.execute_command(*command)
        with pytest.raises(redis.exceptions.NoPermissionError):
            console.xadd("another", {"a": "b"})
    database = open_postgres(parse_database_url(limited.parts.gallery_path))
    for statement in ("DROP TABLE facestream.samples", "UPDATE facestream.facestream_layout SET version_num = '0'",
                      "DELETE FROM facestream.batches", "CREATE TABLE facestream.mine (a int)"):  # fmt: skip
        with pytest.raises(Exception, match=r"permission denied|must be owner"), database.writing() as connection:
            connection.exec_driver_sql(statement)
    database.close()


@pytest.mark.parametrize("command", ["xadd", "xread", "xrevrange", "hgetall"])
def test_each_is_needed(limited: Console, redis_server: RedisServer, command: str) -> None:
    with redis.Redis.from_url(redis_server.url) as admin:
        admin.execute_command("ACL", "SETUSER", "console", f"-{command}")
    with pytest.raises((AssertionError, httpx.HTTPError)):
        use(limited)
