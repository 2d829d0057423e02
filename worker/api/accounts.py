"""Accounts, sessions and tokens of the console, in the database of the history.

Passwords are stored as argon2 hashes; of sessions and tokens, which are long random texts, the SHA-256 is stored.
"""

import hashlib
import secrets
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

import argon2
import sqlalchemy as sa

from worker.database import schema
from worker.database.owned import REPLIES
from worker.errors import FacestreamError
from worker.history.shared import SharedDatabase
from worker.names import person_name
from worker.people_keys import Owned

Role = Literal["viewer", "operator", "admin"]
Scope = Literal["read", "change", "manage"]

ROLES: Final[dict[Role, tuple[Scope, ...]]] = {
    "viewer": ("read",),
    "operator": ("read", "change"),
    "admin": ("read", "change", "manage"),
}
"""``read``: see everything but accounts; ``change``: people, sightings and unknown people; ``manage``: accounts and
cameras."""

SHORTEST_PASSWORD: Final = 10
LONGEST_PASSWORD: Final = 200
_LONGEST_NAME: Final = 64
_TOKEN_PREFIX: Final = "fst_"  # noqa: S105 - how a token begins
_WINDOW_S: Final = 900.0
_MOST_FAILURES: Final = 5
"""Of one account from one address, within the window."""
_MOST_FAILURES_ANYWHERE: Final = 50
_REPLY_S: Final = 86_400.0


class LoginError(FacestreamError):
    """The name or the password is wrong. It does not say which."""


class TooManyAttemptsError(LoginError):
    """Too many log-ins have failed; the next one may come after ``wait_s``."""

    def __init__(self, wait_s: float) -> None:
        minutes = int(wait_s // 60) + 1
        super().__init__(f"too many failed log-ins: try again in {minutes} minute{'' if minutes == 1 else 's'}")
        self.wait_s = wait_s


class AccountError(FacestreamError):
    """An account or a token cannot be made or changed so."""


class NoSuchAccountError(AccountError):
    """There is no such account or token."""


@dataclass(frozen=True, slots=True)
class Account:
    """``created_s`` is a Unix time."""

    name: str
    role: Role
    created_s: float


@dataclass(frozen=True, slots=True)
class Token:
    """A program's key, without its secret. Times are Unix times."""

    token_id: str
    name: str
    account: str
    scopes: tuple[Scope, ...]
    created_s: float
    expires_s: float


@dataclass(frozen=True, slots=True)
class Reply:
    """What was answered to a request; a status of 0 means that it is still at work."""

    digest: str
    status: int
    body: str


class Accounts:
    """Safe to use from any thread. All methods raise DatabaseError where the database cannot be used."""

    def __init__(self, database: SharedDatabase) -> None:
        self._database = database
        self._hasher = argon2.PasswordHasher()
        # Each hash takes 64 MiB for a moment.
        self._hashing = threading.BoundedSemaphore(2)
        self._nobody = ""

    @classmethod
    def open(cls, place: Path | str) -> Self:
        """As :meth:`SharedDatabase.open`."""
        return cls(SharedDatabase.open(place))

    def close(self) -> None:
        self._database.close()

    def has_admin(self) -> bool:
        """Whether somebody can manage accounts."""
        with self._database.writing() as connection:
            return _admins(connection) > 0

    def accounts(self) -> list[Account]:
        """Everybody, by name."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(schema.accounts).order_by(schema.accounts.c.account)).all()
        return [_account(row) for row in rows]

    def create(self, name: str, password: str, role: Role, *, first: bool = False) -> Account:
        """A new account. ``first``: only if there is no admin yet.

        Raises:
            AccountError: the name is taken or no name, or the password is too short.
        """
        name = _checked_name(name)
        now_s = time.time()
        row = {"account": name, "role": role, "password_hash": self._hash(password), "created_s": now_s}
        with self._database.writing() as connection:
            if first and _admins(connection):
                raise AccountError("there is an admin already: ask them for an account")
            added = self._database.insert(schema.accounts).values(row).on_conflict_do_nothing()
            if connection.execute(added.returning(schema.accounts.c.account)).first() is None:
                raise AccountError(f"there is an account {name} already: choose another name")
        return Account(name, role, now_s)

    def change(self, name: str, *, role: Role | None = None, password: str | None = None) -> Account:
        """Another role, or another password, which ends all sessions of the account.

        Raises:
            NoSuchAccountError: there is no such account.
            AccountError: nobody could manage accounts any more, or the password is too short.
        """
        values: dict[str, Any] = {} if role is None else {"role": role}
        if password is not None:
            values["password_hash"] = self._hash(password)
        with self._database.writing() as connection:
            _find(connection, name)
            if values:
                connection.execute(schema.accounts.update().where(schema.accounts.c.account == name).values(values))
            _require_admin(connection)
            if password is not None:
                connection.execute(schema.sessions.delete().where(schema.sessions.c.account == name))
            return _find(connection, name)

    def remove(self, name: str) -> None:
        """Removes an account with its sessions and tokens.

        Raises:
            NoSuchAccountError: there is no such account.
            AccountError: nobody could manage accounts any more.
        """
        with self._database.writing() as connection:
            _find(connection, name)
            for table in (schema.sessions, schema.tokens, schema.accounts):
                connection.execute(table.delete().where(table.c.account == name))
            _require_admin(connection)

    def log_in(self, name: str, password: str, address: str, session_s: float) -> tuple[Account, str]:
        """The account, and the secret of a new session, which lasts for ``session_s``.

        Raises:
            TooManyAttemptsError: too many tries have failed; the password was not looked at.
            LoginError: no such account, or not its password.
        """
        name = person_name(name)
        self._count_attempt(name, address)
        with self._database.reading() as connection:
            row = connection.execute(sa.select(schema.accounts).where(schema.accounts.c.account == name)).one_or_none()
        # Somebody who is not there takes as long as somebody who is.
        if not self._matches(self._hash_of_nobody() if row is None else row.password_hash, password) or row is None:
            raise LoginError("the name or the password is wrong")
        return _account(row), self.begin_session(name, session_s, address)

    def begin_session(self, name: str, session_s: float, address: str = "") -> str:
        """The secret of a new session of an account; failed log-ins from ``address`` are forgotten.

        Raises:
            NoSuchAccountError: there is no such account.
        """
        secret, now_s = secrets.token_urlsafe(32), time.time()
        with self._database.writing() as connection:
            _find(connection, name)
            for table in (schema.sessions, schema.attempts, schema.replies, schema.tokens):
                connection.execute(table.delete().where(table.c.expires_s <= now_s))
            failed = schema.attempts.c.subject.in_(_subjects(name, address))
            connection.execute(schema.attempts.delete().where(failed))
            session = {"digest": _digest(secret), "account": name, "expires_s": now_s + session_s}
            connection.execute(schema.sessions.insert(), session)
        return secret

    def of_session(self, secret: str) -> Account | None:
        """Whose session it is; None where it has ended."""
        query = (
            sa.select(schema.accounts)
            .join(schema.sessions, schema.sessions.c.account == schema.accounts.c.account)
            .where(schema.sessions.c.digest == _digest(secret), schema.sessions.c.expires_s > time.time())
        )
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _account(row)

    def end_session(self, secret: str) -> None:
        """Somebody logs out."""
        with self._database.writing() as connection:
            connection.execute(schema.sessions.delete().where(schema.sessions.c.digest == _digest(secret)))

    def create_token(self, account: Account, name: str, scopes: tuple[Scope, ...], lives_s: float) -> tuple[Token, str]:
        """A token of ``account``, and its secret, which is not kept and cannot be shown again.

        Raises:
            AccountError: it may do nothing, or more than its account, or has no name.
        """
        name = _checked_name(name)
        if not scopes or not set(scopes) <= set(ROLES[account.role]):
            raise AccountError(f"a token of {account.name} may have these scopes: {', '.join(ROLES[account.role])}")
        secret, now_s = _TOKEN_PREFIX + secrets.token_urlsafe(32), time.time()
        ordered = tuple(scope for scope in get_args(Scope) if scope in scopes)
        token = Token(secrets.token_hex(6), name, account.name, ordered, now_s, now_s + lives_s)
        row = {
            "token_id": token.token_id, "digest": _digest(secret), "name": name, "account": account.name,
            "scopes": " ".join(ordered), "created_s": now_s, "expires_s": token.expires_s,
        }  # fmt: skip
        with self._database.writing() as connection:
            _find(connection, account.name)
            connection.execute(schema.tokens.insert(), row)
        return token, secret

    def of_token(self, secret: str) -> tuple[Account, Token] | None:
        """Whose token it is; None where there is none, or it has expired."""
        query = (
            sa.select(schema.tokens, schema.accounts.c.role, schema.accounts.c.created_s.label("account_created_s"))
            .join(schema.accounts, schema.accounts.c.account == schema.tokens.c.account)
            .where(schema.tokens.c.digest == _digest(secret), schema.tokens.c.expires_s > time.time())
        )
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        return Account(row.account, row.role, row.account_created_s), _token(row)

    def tokens(self, account: str | None = None) -> list[Token]:
        """The tokens that have not expired, the newest first; those of one account, or all."""
        query = sa.select(schema.tokens).where(schema.tokens.c.expires_s > time.time())
        if account is not None:
            query = query.where(schema.tokens.c.account == account)
        with self._database.reading() as connection:
            return [_token(row) for row in connection.execute(query.order_by(schema.tokens.c.created_s.desc()))]

    def revoke_token(self, token_id: str, account: str | None = None) -> None:
        """Ends a token; of ``account``, or anybody's.

        Raises:
            NoSuchAccountError: there is no such token.
        """
        chosen = schema.tokens.c.token_id == token_id
        if account is not None:
            chosen &= schema.tokens.c.account == account
        with self._database.writing() as connection:
            if not connection.execute(schema.tokens.delete().where(chosen)).rowcount:
                raise NoSuchAccountError(f"there is no token {token_id}; it may have been revoked")

    def claim_reply(self, request: str, digest: str) -> Reply | None:
        """Notes that a request is at work, if it was not heard before: None. Otherwise what is known of it."""
        row = {"request": request, "digest": digest, "status": 0, "body": "", "expires_s": time.time() + _REPLY_S}
        with self._database.writing() as connection:
            connection.execute(schema.replies.delete().where(schema.replies.c.expires_s <= time.time()))
            added = self._database.insert(schema.replies).values(row).on_conflict_do_nothing()
            if connection.execute(added.returning(schema.replies.c.request)).first() is not None:
                return None
            known = connection.execute(sa.select(schema.replies).where(schema.replies.c.request == request)).one()
        return Reply(known.digest, known.status, known.body)

    def keep_reply(self, request: str, status: int, body: str) -> None:
        """What was answered."""
        with self._database.writing() as connection:
            of_it = schema.replies.c.request == request
            kept = Owned(REPLIES, body, again=True)
            connection.execute(schema.replies.update().where(of_it).values(status=status, body=kept))

    def drop_reply(self, request: str) -> None:
        """The request failed, and may be made again."""
        with self._database.writing() as connection:
            connection.execute(schema.replies.delete().where(schema.replies.c.request == request))

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

    def _hash(self, password: str) -> str:
        if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
            raise AccountError(f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters")
        with self._hashing:
            return self._hasher.hash(password)

    def _hash_of_nobody(self) -> str:
        if not self._nobody:
            self._nobody = self._hash(secrets.token_hex(16))
        return self._nobody

    def _matches(self, password_hash: str, password: str) -> bool:
        with self._hashing:
            try:
                return self._hasher.verify(password_hash, password[: LONGEST_PASSWORD + 1])
            except argon2.exceptions.VerificationError:
                return False


def csrf_of(secret: str) -> str:
    """What a form of the session with this ``secret`` carries: a page of somebody else cannot know it."""
    return hashlib.sha256(f"form {secret}".encode()).hexdigest()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _subjects(name: str, address: str) -> tuple[str, str]:
    """As digests: what was typed in the place of the name may be a password."""
    return _digest(f"{address} {name}"), _digest(f"* {name}")


def _checked_name(name: str) -> str:
    name = person_name(name)
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
        raise AccountError(f"a name has 1 to {_LONGEST_NAME} characters")
    return name


def _find(connection: sa.Connection, name: str) -> Account:
    row = connection.execute(sa.select(schema.accounts).where(schema.accounts.c.account == name)).one_or_none()
    if row is None:
        raise NoSuchAccountError(f"there is no account {name}")
    return _account(row)


def _admins(connection: sa.Connection) -> int:
    # Locked: two admins who remove each other at the same time must not both succeed.
    query = sa.select(schema.accounts.c.account).where(schema.accounts.c.role == "admin").with_for_update()
    return len(connection.execute(query).all())


def _require_admin(connection: sa.Connection) -> None:
    if not _admins(connection):
        raise AccountError("this is the last admin: make another one first")


def _account(row: Any) -> Account:
    return Account(row.account, row.role, row.created_s)


def _token(row: Any) -> Token:
    return Token(
        row.token_id, row.name, row.account, tuple(row.scopes.split()), row.created_s, row.expires_s
    )  # fmt: skip
