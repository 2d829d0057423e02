"""Accounts where they are stored: the same in a SQLite file and on a server, for many consoles at once."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.console import PASSWORD, add_account
from tests.support.postgres import PostgresServer, with_tables
from tests.support.repository import REPOSITORY
from worker.api.accounts import AccountError, Accounts, LoginError, TooManyAttemptsError
from worker.database.database import open_sqlite
from worker.errors import DatabaseError
from worker.history.store import FILE


@pytest.fixture(params=["sqlite", "postgres"])
def two(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Accounts, Accounts]]:
    """Accounts as two consoles see them."""
    is_file = request.param == "sqlite"
    place: Any = tmp_path / "state" if is_file else with_tables(request.getfixturevalue("postgres_url"))
    opened = Accounts.open(place), Accounts.open(place)
    yield opened
    for each in opened:
        each.close()


def test_what_one_console_stores_another_one_knows(two: tuple[Accounts, Accounts]) -> None:
    one, other = two
    assert not one.has_admin()
    account = one.create("Zoë", PASSWORD, "admin", first=True)
    assert other.has_admin()
    with pytest.raises(AccountError, match="admin already"):
        other.create("second", PASSWORD, "admin", first=True)
    with pytest.raises(AccountError, match="choose another name"):
        other.create("Zoe\u0308", PASSWORD, "viewer")
    _account, secret = other.log_in("Zoë", PASSWORD, "10.0.0.1", 60.0)
    assert one.of_session(secret) == account
    assert one.of_session("guess") is None
    token, key = one.create_token(account, "script", ("change", "read"), 60.0)
    assert token.scopes == ("read", "change")
    assert other.of_token(key) == (account, token)
    one.create("second", PASSWORD, "admin")
    other.remove("Zoë")
    assert one.of_session(secret) is None
    assert one.of_token(key) is None
    assert one.tokens() == []


def test_a_session_ends_by_itself(two: tuple[Accounts, Accounts]) -> None:
    accounts, _ = two
    accounts.create("a", PASSWORD, "viewer")
    _account, secret = accounts.log_in("a", PASSWORD, "10.0.0.1", -1.0)
    assert accounts.of_session(secret) is None


def test_failures_count_over_all_consoles_and_for_each_address(two: tuple[Accounts, Accounts]) -> None:
    accounts = two
    accounts[0].create("a", PASSWORD, "viewer")
    for number in range(5):
        with pytest.raises(LoginError, match="name or the password"):
            accounts[number % 2].log_in("a", "wrong password", "10.0.0.1", 60.0)
    with pytest.raises(TooManyAttemptsError, match="15 minutes"):
        accounts[0].log_in("a", PASSWORD, "10.0.0.1", 60.0)
    assert accounts[1].log_in("a", PASSWORD, "10.0.0.2", 60.0)[0].name == "a"


def test_who_guesses_from_many_addresses_is_stopped_too(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    accounts = Accounts.open(tmp_path)
    request.addfinalizer(accounts.close)
    database = open_sqlite(tmp_path / FILE)
    add_account(database, "a", "viewer")
    database.close()
    for number in range(50):
        with pytest.raises(LoginError, match="name or the password"):
            accounts.log_in("a", "w", f"10.0.1.{number}", 60.0)
    with pytest.raises(TooManyAttemptsError):
        accounts.log_in("a", PASSWORD, "10.0.2.1", 60.0)


def test_a_request_is_claimed_by_one_of_many(two: tuple[Accounts, Accounts]) -> None:
    claimed: list[object] = []
    threads = [
        threading.Thread(target=lambda each=each: claimed.append(each.claim_reply("r", "d"))) for each in two * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert claimed.count(None) == 1
    two[0].keep_reply("r", 200, "{}")
    reply = two[1].claim_reply("r", "d")
    assert reply is not None
    assert (reply.status, reply.body) == (200, "{}")


def test_accounts_are_nobodys_business_but_the_consoles(postgres: PostgresServer, postgres_url: str) -> None:
    owner = Accounts.open(with_tables(postgres_url))
    owner.create("a", PASSWORD, "admin")
    owner.close()
    postgres.execute((REPOSITORY / "deploy" / "postgres" / "roles.sql").read_text(), database="test")
    for role in ("reader", "worker", "operator", "console"):
        postgres.execute(
            f"DROP USER IF EXISTS a_{role}", f"CREATE USER a_{role} IN ROLE facestream_{role}", database="test"
        )
        accounts = Accounts.open(postgres_url.replace("postgres@", f"a_{role}@"))
        if role == "console":
            assert accounts.log_in("a", PASSWORD, "", 60.0)[0].role == "admin"
        else:
            with pytest.raises(DatabaseError, match="permission denied"):
                accounts.accounts()
        accounts.close()
