"""Accounts where they are stored: the same in a SQLite file and on a server, for many consoles at once."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.console import PASSWORD, add_account
from tests.support.postgres import PostgresServer, with_tables
from tests.support.repository import REPOSITORY
from worker.api.accounts import Account, Accounts
from worker.api.errors import AccountError, LoginError, TooManyAttemptsError
from worker.api.replies import Replies
from worker.api.sessions import Sessions
from worker.api.tokens import Tokens
from worker.database.database import open_sqlite
from worker.errors import DatabaseError
from worker.history.shared import SharedDatabase
from worker.history.store import FILE


class Keys:
    """Accounts and what belongs to them, as one console has them."""

    def __init__(self, place: Path | str) -> None:
        self._database = SharedDatabase.open(place)
        self.accounts = Accounts(self._database)
        self.sessions = Sessions(self._database, self.accounts)
        self.tokens = Tokens(self._database)
        self.replies = Replies(self._database)

    def log_in(self, name: str, password: str, address: str, session_s: float) -> tuple[Account, str]:
        account = self.sessions.check(name, password, address)
        return account, self.sessions.begin(account.name, session_s, address)

    def close(self) -> None:
        self._database.close()


@pytest.fixture(params=["sqlite", "postgres"])
def two(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Keys, Keys]]:
    """Accounts as two consoles see them."""
    is_file = request.param == "sqlite"
    place: Any = tmp_path / "state" if is_file else with_tables(request.getfixturevalue("postgres_url"))
    opened = Keys(place), Keys(place)
    yield opened
    for each in opened:
        each.close()


def test_what_one_console_stores_another_one_knows(two: tuple[Keys, Keys]) -> None:
    one, other = two
    assert not one.accounts.has_admin()
    account = one.accounts.create("Zoë", PASSWORD, "admin", first=True)
    assert other.accounts.has_admin()
    with pytest.raises(AccountError, match="admin already"):
        other.accounts.create("second", PASSWORD, "admin", first=True)
    with pytest.raises(AccountError, match="choose another name"):
        other.accounts.create("Zoe\u0308", PASSWORD, "viewer")
    _account, secret = other.log_in("Zoë", PASSWORD, "10.0.0.1", 60.0)
    assert one.sessions.of(secret) == account
    assert one.sessions.of("guess") is None
    token, key = one.tokens.create(account, "script", ("change", "read"), 60.0)
    assert token.scopes == ("read", "change")
    assert other.tokens.of(key) == (account, token)
    one.accounts.create("second", PASSWORD, "admin")
    other.accounts.remove("Zoë")
    assert one.sessions.of(secret) is None
    assert one.tokens.of(key) is None
    assert one.tokens.all() == []


def test_a_session_ends_by_itself(two: tuple[Keys, Keys]) -> None:
    keys, _ = two
    keys.accounts.create("a", PASSWORD, "viewer")
    _account, secret = keys.log_in("a", PASSWORD, "10.0.0.1", -1.0)
    assert keys.sessions.of(secret) is None


def test_failures_count_over_all_consoles_and_for_each_address(two: tuple[Keys, Keys]) -> None:
    keys = two
    keys[0].accounts.create("a", PASSWORD, "viewer")
    for number in range(5):
        with pytest.raises(LoginError, match="name or the password"):
            keys[number % 2].log_in("a", "wrong password", "10.0.0.1", 60.0)
    with pytest.raises(TooManyAttemptsError, match="15 minutes"):
        keys[0].log_in("a", PASSWORD, "10.0.0.1", 60.0)
    assert keys[1].log_in("a", PASSWORD, "10.0.0.2", 60.0)[0].name == "a"


def test_who_guesses_from_many_addresses_is_stopped_too(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    keys = Keys(tmp_path)
    request.addfinalizer(keys.close)
    database = open_sqlite(tmp_path / FILE)
    add_account(database, "a", "viewer")
    database.close()
    for number in range(50):
        with pytest.raises(LoginError, match="name or the password"):
            keys.log_in("a", "w", f"10.0.1.{number}", 60.0)
    with pytest.raises(TooManyAttemptsError):
        keys.log_in("a", PASSWORD, "10.0.2.1", 60.0)


def test_a_request_is_claimed_by_one_of_many(two: tuple[Keys, Keys]) -> None:
    claimed: list[object] = []
    threads = [
        threading.Thread(target=lambda each=each: claimed.append(each.replies.claim("r", "d"))) for each in two * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert claimed.count(None) == 1
    two[0].replies.keep("r", 200, "{}")
    reply = two[1].replies.claim("r", "d")
    assert reply is not None
    assert (reply.status, reply.body) == (200, "{}")


def test_accounts_are_nobodys_business_but_the_consoles(postgres: PostgresServer, postgres_url: str) -> None:
    owner = Keys(with_tables(postgres_url))
    owner.accounts.create("a", PASSWORD, "admin")
    owner.close()
    postgres.execute((REPOSITORY / "deploy" / "postgres" / "roles.sql").read_text(), database="test")
    for role in ("reader", "worker", "operator", "console"):
        postgres.execute(
            f"DROP USER IF EXISTS a_{role}", f"CREATE USER a_{role} IN ROLE facestream_{role}", database="test"
        )
        keys = Keys(postgres_url.replace("postgres@", f"a_{role}@"))
        if role == "console":
            assert keys.log_in("a", PASSWORD, "", 60.0)[0].role == "admin"
        else:
            with pytest.raises(DatabaseError, match="permission denied"):
                keys.accounts.accounts()
        keys.close()
