"""What goes wrong with a database is one line, which says what to do and holds no password."""

import os
import signal
import ssl
from pathlib import Path

import pytest

from tests.support.postgres import PostgresServer, running_postgres
from tests.support.redis_servers import free_port
from worker.database.address import parse_database_url
from worker.database.database import Database, open_postgres
from worker.database.layout import require_newest, upgrade
from worker.errors import ConfigError, DatabaseError, DatabaseUnavailableError, DatabaseValueError

SECRET = "s3cret-word"


def opened(url: str) -> Database:
    return open_postgres(parse_database_url(url))


def complaint(url: str) -> str:
    """The one line that comes of a first look at the database."""
    database = opened(url)
    with pytest.raises(DatabaseError) as caught:
        require_newest(database)
    database.close()
    text = str(caught.value)
    assert SECRET not in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("url", "gallery", "label"),
    [
        ("postgresql://u@h/db?gallery=site", "site", "postgresql://u@h/db?gallery=site"),
        (f"postgresql+psycopg://u:{SECRET}@h:5/db", "default", "postgresql://u@h:5/db?gallery=default"),
        (f"postgres://u:{SECRET}%40@a:1,b:2/db?sslmode=require&gallery=a.b", "a.b",
         "postgresql://u@a:1,b:2/db?sslmode=require&gallery=a.b"),
        (f"postgresql:///?service=site&password={SECRET}", "default", "postgresql:///?service=site&gallery=default"),
    ],
)  # fmt: skip
def test_an_address_names_a_gallery_and_shows_no_password(url: str, gallery: str, label: str) -> None:
    address = parse_database_url(url)
    assert (address.gallery, address.label) == (gallery, label)
    assert "gallery" not in address.conninfo.get_secret_value()
    assert SECRET not in f"{address!r}"


@pytest.mark.parametrize(
    "wrong",
    [f"redis://u:{SECRET}@h/0?gallery=a", f"http://u:{SECRET}@h/db", f"postgresql://u:{SECRET}@h/db?gallery=",
     f"postgresql://u:{SECRET}@h/db?gallery=a/b",
     f"postgresql://u:{SECRET}@h/db?no_such_option=1", f"postgresql://u:{SECRET}@[h/db"],
)  # fmt: skip
def test_a_wrong_address_is_a_fault_of_the_arguments(wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        opened(wrong)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_who_keeps_galleries_in_redis_is_told_where_they_go() -> None:
    with pytest.raises(ConfigError, match=r"Redis keeps no galleries any more; use a folder, or postgresql://"):
        parse_database_url("rediss://h/0?gallery=site")


def test_a_server_that_is_not_there_is_named(postgres_url: str) -> None:
    assert "Connection refused" in complaint(f"postgresql://u:{SECRET}@127.0.0.1:{free_port()}/db")
    assert "correct the name of the host" in complaint(f"postgresql://u:{SECRET}@no-such-host.invalid/db")
    assert "create the database" in complaint(postgres_url.replace("/test", "/nothing"))
    assert "port" in complaint(f"postgresql://u:{SECRET}@h:port/db")
    assert "pg_service.conf" in complaint(f"postgresql:///?service=no-such-service&password={SECRET}")


def test_a_wrong_password_or_user_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_postgres() as server:
        server.execute(f"CREATE USER worker PASSWORD '{SECRET}'", "CREATE DATABASE site OWNER worker")
        (server.data / "pg_hba.conf").write_text(
            "host all worker 127.0.0.1/32 scram-sha-256\nhost all postgres 127.0.0.1/32 trust\n"
        )
        server.execute("SELECT pg_reload_conf()")
        url = server.url("site", "worker")
        assert "correct the password" in complaint(url.replace("worker@", f"worker:no-{SECRET}@"))
        assert "no password supplied; correct the password in ~/.pgpass" in complaint(url)
        assert "correct the user in the URL" in complaint(url.replace("worker@", "somebody@"))
        with_password = url.replace("worker@", f"worker:{SECRET}@")
        assert "facestream database upgrade" in complaint(with_password)
        (tmp_path / "password").write_text(f"{SECRET}\n")
        assert "facestream database upgrade" in complaint(f"{url}?password_file={tmp_path / 'password'}")
        assert "No such file" in complaint(f"{url}?password_file={tmp_path / 'nothing'}")
        # libpq's own ways.
        (tmp_path / "pgpass").write_text(f"127.0.0.1:*:site:worker:{SECRET}\n")
        (tmp_path / "pgpass").chmod(0o600)
        (tmp_path / "services").write_text(f"[fleet]\nhost=127.0.0.1\nport={server.port}\ndbname=site\nuser=worker\n")
        monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
        monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
        for known in (url, "postgresql:///?service=fleet"):
            upgraded = opened(known)
            upgrade(upgraded)
            upgraded.close()


def test_a_wrong_certificate_is_named(tmp_path: Path, postgres_url: str) -> None:
    assert "correct sslmode" in complaint(f"{postgres_url}?sslmode=require&password={SECRET}")
    (tmp_path / "root.pem").write_text(ssl.DER_cert_to_PEM_cert(b"not a certificate"))
    assert "correct sslmode" in complaint(f"{postgres_url}?sslmode=verify-full&sslrootcert={tmp_path / 'root.pem'}")


def test_too_many_connections_and_a_stopped_server_pass_by() -> None:
    with running_postgres("max_connections=4", "superuser_reserved_connections=1") as server:
        server.execute("CREATE USER worker", "CREATE DATABASE site OWNER worker")
        url = server.url("site", "worker")
        held = [opened(url) for _ in range(3)]
        waiting = [database.engine.connect() for database in held]
        late = opened(url)
        with pytest.raises(DatabaseUnavailableError, match="raise max_connections"):
            require_newest(late)
        for connection in waiting:
            connection.close()
        upgrade(held[0])
        server.stop()
        with pytest.raises(DatabaseUnavailableError, match="cannot be reached"):
            require_newest(held[0])
        server.start()
        require_newest(held[0])
        for database in [*held, late]:
            database.close()


def test_a_server_that_hangs_is_given_up() -> None:
    with running_postgres() as server:
        database = open_postgres(parse_database_url(server.new_database("site")), connections=1, patience_s=1.0)
        upgrade(database)
        (pid,) = server.pids("site")

        def ask_while_it_hangs() -> None:
            with database.reading() as connection:
                os.kill(pid, signal.SIGSTOP)
                connection.exec_driver_sql("SELECT 1")

        try:
            with pytest.raises(DatabaseUnavailableError, match="no answer within 1 s"):
                ask_while_it_hangs()
            # The next connection has a process of its own at the server.
            require_newest(database)
        finally:
            os.kill(pid, signal.SIGCONT)
            database.close()


def test_a_user_without_rights_and_a_read_only_server_are_named(postgres: PostgresServer, postgres_url: str) -> None:
    postgres.execute("DROP USER IF EXISTS nobody_much", "CREATE USER nobody_much", database="test")
    owner = opened(postgres_url)
    upgrade(owner)
    nobody_much = postgres_url.replace("postgres@", "nobody_much@")
    assert "grant this user the role" in complaint(nobody_much)
    empty = postgres.new_database("empty").replace("postgres@", "nobody_much@")
    with pytest.raises(DatabaseError, match="take a user that may create tables there"):
        upgrade(opened(empty))
    owner.engine.dispose()
    half = opened(postgres_url)
    with half.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE facestream.sightings RENAME TO gone")
    with pytest.raises(DatabaseError, match="'facestream database check' says what is missing"), half.reading() as read:
        read.exec_driver_sql("SELECT * FROM facestream.sightings")
    with half.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE facestream.gone RENAME TO sightings")
    half.close()
    read_only = opened(f"{postgres_url}?options=-c%20default_transaction_read_only%3Don")
    with pytest.raises(DatabaseUnavailableError, match="name the primary"), read_only.writing() as connection:
        connection.exec_driver_sql("DELETE FROM facestream.sightings")
    with pytest.raises(DatabaseValueError, match="cannot store a value"), owner.writing() as connection:
        connection.exec_driver_sql("INSERT INTO facestream.newest VALUES (NULL)")
    for database in (owner, read_only):
        database.close()
