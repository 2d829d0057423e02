"""Sessions: who has logged in, from where, and until when; and how many tries have failed.

Of a session, which is a long random text, the SHA-256 is stored.
"""

import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from worker.api.accounts import Account, Accounts, account_of, digest_of, require_account
from worker.api.errors import LoginError, NoSuchAccountError, TooManyAttemptsError
from worker.database import schema
from worker.history.shared import SharedDatabase
from worker.names import clean_text, person_name

_WINDOW_S: Final = 900.0
_MOST_FAILURES: Final = 5
"""Of one account from one address, within the window."""
_MOST_FAILURES_ANYWHERE: Final = 50
_LONGEST_AGENT: Final = 200
_ID: Final = 16


@dataclass(frozen=True, slots=True)
class Session:
    """A log-in that has not ended. ``agent``: what the browser calls itself. Times are Unix times."""

    session_id: str
    begun_s: float
    expires_s: float
    address: str
    agent: str


class Sessions:
    """Safe to use from any thread. All methods raise DatabaseError where the database cannot be used."""

    def __init__(self, database: SharedDatabase, accounts: Accounts) -> None:
        self._database, self._accounts = database, accounts

    def check(self, name: str, password: str, address: str) -> Account:
        """Whose name and password these are.

        Raises:
            TooManyAttemptsError: too many tries have failed; the password was not looked at.
            LoginError: no such account, or not its password, or it is disabled.
        """
        name = person_name(name)
        self._count_attempt(name, address)
        account = self._accounts.with_password(name, password)
        if account is None:
            raise LoginError("the name or the password is wrong")
        if account.disabled:
            raise LoginError(f"the account {account.name} is disabled: ask an admin")
        return account

    def begin(self, name: str, session_s: float, address: str = "", agent: str = "") -> str:
        """The secret of a new session of an account, which lasts for ``session_s``; failed log-ins from ``address`` are
        forgotten.

        Raises:
            NoSuchAccountError: there is no such account, or it is disabled.
        """
        secret, now_s = secrets.token_urlsafe(32), time.time()
        with self._database.writing() as connection:
            if require_account(connection, name).disabled:
                raise NoSuchAccountError(f"the account {name} is disabled: ask an admin")
            for table in (schema.sessions, schema.attempts):
                connection.execute(table.delete().where(table.c.expires_s <= now_s))
            failed = schema.attempts.c.subject.in_(_subjects(name, address))
            connection.execute(schema.attempts.delete().where(failed))
            row = {
                "digest": digest_of(secret), "account": name, "expires_s": now_s + session_s, "begun_s": now_s,
                "address": address, "agent": clean_text(agent)[:_LONGEST_AGENT],
            }  # fmt: skip
            connection.execute(schema.sessions.insert(), row)
        return secret

    def of(self, secret: str) -> Account | None:
        """Whose session it is; None where it has ended, or the account is disabled."""
        query = (
            sa.select(schema.accounts)
            .join(schema.sessions, schema.sessions.c.account == schema.accounts.c.account)
            .where(
                schema.sessions.c.digest == digest_of(secret),
                schema.sessions.c.expires_s > time.time(),
                schema.accounts.c.disabled == 0,
            )
        )
        with self._database.reading() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else account_of(row)

    def all(self, name: str) -> list[Session]:
        """Those of an account that go on, the newest first."""
        columns = schema.sessions.c
        query = sa.select(schema.sessions).where(columns.account == name, columns.expires_s > time.time())
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(columns.begun_s.desc(), columns.digest)).all()
        return [
            Session(row.digest[:_ID], row.begun_s, row.expires_s, row.address, row.agent) for row in rows
        ]  # fmt: skip

    def end(self, secret: str) -> None:
        """Somebody logs out."""
        with self._database.writing() as connection:
            connection.execute(schema.sessions.delete().where(schema.sessions.c.digest == digest_of(secret)))

    def end_one(self, name: str, session_id: str) -> None:
        """Ends this session of an account.

        Raises:
            NoSuchAccountError: there is none.
        """
        columns = schema.sessions.c
        chosen = (columns.account == name) & (sa.func.substr(columns.digest, 1, _ID) == session_id)
        with self._database.writing() as connection:
            if not connection.execute(schema.sessions.delete().where(chosen)).rowcount:
                raise NoSuchAccountError(f"there is no session {session_id}; it may have ended")

    def end_all(self, name: str, *, but: str = "") -> int:
        """Ends all sessions of an account, except the one with the secret ``but``; returns how many."""
        columns = schema.sessions.c
        chosen = (columns.account == name) & (columns.digest != digest_of(but))
        with self._database.writing() as connection:
            return connection.execute(schema.sessions.delete().where(chosen)).rowcount

    def _count_attempt(self, name: str, address: str) -> None:
        """Counts it as failed before it is looked at: many at once cannot slip through."""
        now_s = time.time()
        limits = zip(_subjects(name, address), (_MOST_FAILURES, _MOST_FAILURES_ANYWHERE), strict=True)
        with self._database.writing() as connection:
            connection.execute(schema.attempts.delete().where(schema.attempts.c.expires_s <= now_s))
            for subject, most in limits:
                insert = self._database.insert(schema.attempts).values(
                    subject=subject, failures=1, expires_s=now_s + _WINDOW_S
                )
                counted = insert.on_conflict_do_update(
                    index_elements=["subject"], set_={"failures": schema.attempts.c.failures + 1}
                ).returning(schema.attempts.c.failures, schema.attempts.c.expires_s)
                failures, expires_s = connection.execute(counted).one()
                if failures > most:
                    raise TooManyAttemptsError(max(expires_s - now_s, 1.0))


def session_id_of(secret: str) -> str:
    """The :attr:`Session.session_id` of the session with this secret."""
    return digest_of(secret)[:_ID]


def csrf_of(secret: str) -> str:
    """What a form of the session with this ``secret`` carries: a page of somebody else cannot know it."""
    return hashlib.sha256(f"form {secret}".encode()).hexdigest()


def _subjects(name: str, address: str) -> tuple[str, str]:
    """As digests: what was typed in the place of the name may be a password."""
    return digest_of(f"{address} {name}"), digest_of(f"* {name}")
