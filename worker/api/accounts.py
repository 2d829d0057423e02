"""Accounts of the console, in the database of the history: their roles, cameras and passwords.

Passwords are stored as argon2 hashes; of one-time links, which are long random texts, the SHA-256 is stored.
"""

import hashlib
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import sqlalchemy as sa

from worker.api.errors import AccountError, LoginError, NoSuchAccountError
from worker.api.passwords import Passwords
from worker.api.roles import MOST_CAMERAS, Role
from worker.api.sight import Cameras, in_order, read_cameras, write_cameras
from worker.database import schema
from worker.history.shared import SharedDatabase
from worker.names import person_name

LINK_S: Final = 2 * 86_400.0
"""How long a one-time link may be used."""
_LONGEST_NAME: Final = 64
_CAMERA: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_accounts, _links = schema.accounts, schema.links


@dataclass(frozen=True, slots=True)
class Account:
    """``created_s`` is a Unix time. ``provider`` and ``subject``: who it is at the OpenID provider that let them in;
    empty for somebody with a password."""

    name: str
    role: Role
    created_s: float
    cameras: Cameras = None
    disabled: bool = False
    has_password: bool = True
    provider: str = ""
    subject: str = ""


class Accounts:
    """Safe to use from any thread. All methods raise DatabaseError where the database cannot be used."""

    def __init__(self, database: SharedDatabase) -> None:
        self._database = database
        self._passwords = Passwords()

    def has_admin(self) -> bool:
        """Whether somebody can manage accounts."""
        with self._database.writing() as connection:
            return _admins(connection) > 0

    def accounts(self) -> list[Account]:
        """Everybody, by name."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(_accounts).order_by(_accounts.c.account)).mappings().all()
        return [account_of(row) for row in rows]

    def create(
        self, name: str, password: str | None, role: Role, *, cameras: Cameras = None, first: bool = False
    ) -> Account:
        """A new account; without a password, :meth:`link` lets somebody choose one. ``first``: only if there is no
        admin yet.

        Raises:
            AccountError: the name is taken or no name, the password is too short, or an admin is to see few cameras.
        """
        made = Account(checked_name(name), role, time.time(), _cameras_for(role, cameras), has_password=bool(password))
        hashed = "" if password is None else self._passwords.hash(password)
        with self._database.writing() as connection:
            if first and _admins(connection):
                raise AccountError("there is an admin already: ask them for an account")
            self._add(connection, made, hashed)
        return made

    def _add(self, connection: sa.Connection, made: Account, password_hash: str) -> None:
        row = {
            "account": made.name, "role": made.role, "password_hash": password_hash, "created_s": made.created_s,
            "cameras": write_cameras(made.cameras), "provider": made.provider, "subject": made.subject,
        }  # fmt: skip
        added = self._database.insert(_accounts).values(row).on_conflict_do_nothing()
        if connection.execute(added.returning(_accounts.c.account)).first() is None:
            raise AccountError(f"there is an account {made.name} already: choose another name")

    def change(
        self,
        name: str,
        *,
        role: Role | None = None,
        password: str | None = None,
        cameras: Cameras | Literal["same"] = "same",
        disabled: bool | None = None,
        keep: str = "",
    ) -> Account:
        """Another role, other cameras, or another password; what is not given stays. A new password ends all sessions
        and links of the account, except the session with the secret ``keep``; so it is if the account is ``disabled``,
        and then its tokens stop, too.

        Raises:
            NoSuchAccountError: there is no such account.
            AccountError: nobody could manage accounts any more, the password is too short, an admin is to see few
                cameras, or the OpenID provider decides this.
        """
        hashed = None if password is None else self._passwords.hash(password)
        with self._database.writing() as connection:
            before = require_account(connection, name, locked=True)
            if before.provider and (role or password or cameras != "same"):
                raise AccountError(f"role, cameras and password of {name} are those of the OpenID provider")
            wanted = before.cameras if cameras == "same" else cameras
            values: dict[str, Any] = {
                "role": role or before.role,
                "cameras": write_cameras(_cameras_for(role or before.role, wanted)),
                "disabled": int(before.disabled if disabled is None else disabled),
            }
            if hashed is not None:
                values["password_hash"] = hashed
            connection.execute(_accounts.update().where(_accounts.c.account == name).values(values))
            _require_admin(connection)
            if hashed is not None or disabled:
                _end(connection, name, keep)
            return require_account(connection, name)

    def remove(self, name: str) -> None:
        """Removes an account with its sessions and tokens.

        Raises:
            NoSuchAccountError: there is no such account.
            AccountError: nobody could manage accounts any more.
        """
        with self._database.writing() as connection:
            require_account(connection, name)
            _end(connection, name)
            for table in (schema.tokens, _accounts):
                connection.execute(table.delete().where(table.c.account == name))
            _require_admin(connection)

    def of_provider(self, provider: str, subject: str, name: str, role: Role, cameras: Cameras) -> Account:
        """The account of somebody whom an OpenID provider has let in, with the role and cameras of today; made at the
        first time, under ``name`` or, if that is taken, a name like it.

        Raises:
            AccountError: the account is disabled, or something cannot be the id of a camera.
        """
        cameras = _cameras_for(role, cameras)
        theirs = (_accounts.c.provider == provider) & (_accounts.c.subject == subject)
        with self._database.writing() as connection:
            row = connection.execute(sa.select(_accounts).where(theirs)).mappings().one_or_none()
            if row is not None:
                if row["disabled"]:
                    raise AccountError(f"the account {row['account']} is disabled: ask an admin")
                values = {"role": role, "cameras": write_cameras(cameras)}
                connection.execute(_accounts.update().where(theirs).values(values))
                return require_account(connection, row["account"])
            if connection.execute(sa.select(_accounts).where(_accounts.c.account == name)).first() is not None:
                name = f"{name[:40]} {digest_of(f'{provider} {subject}')[:8]}"
            made = Account(checked_name(name[:64]), role, time.time(), cameras, False, False, provider, subject)
            self._add(connection, made, "")
            return made

    def link(self, name: str, lives_s: float = LINK_S) -> tuple[str, float]:
        """The secret of a link with which somebody chooses the password of an account, once; and when it expires (Unix
        time). The one before holds no more.

        Raises:
            NoSuchAccountError: there is no such account.
            AccountError: it is disabled, or its password is that of the OpenID provider.
        """
        secret, expires_s = secrets.token_urlsafe(32), time.time() + lives_s
        with self._database.writing() as connection:
            account = require_account(connection, name)
            if account.provider:
                raise AccountError(f"the password of {name} is that of the OpenID provider")
            if account.disabled:
                raise AccountError(f"the account {name} is disabled: enable it first")
            connection.execute(_links.delete().where((_links.c.account == name) | (_links.c.expires_s <= time.time())))
            row = {"digest": digest_of(secret), "account": name, "expires_s": expires_s}
            connection.execute(_links.insert(), row)
        return secret, expires_s

    def of_link(self, secret: str) -> Account | None:
        """Whose password the link sets; None where it was used, has expired, or is none."""
        with self._database.reading() as connection:
            return _of_link(connection, secret)

    def use_link(self, secret: str, password: str) -> Account:
        """Sets the password, and ends all sessions of the account.

        Raises:
            LoginError: the link was used, has expired, or is none.
            AccountError: the password is too short; the link holds.
        """
        hashed = self._passwords.hash(password)
        with self._database.writing() as connection:
            used = _links.delete().where(_links.c.digest == digest_of(secret))
            account = _of_link(connection, secret)
            if account is None or not connection.execute(used).rowcount:
                raise LoginError("this link was used before, or has expired: ask an admin for a new one")
            theirs = _accounts.c.account == account.name
            connection.execute(_accounts.update().where(theirs).values(password_hash=hashed))
            _end(connection, account.name)
            return require_account(connection, account.name)

    def with_password(self, name: str, password: str) -> Account | None:
        """The account with this name and password."""
        with self._database.reading() as connection:
            row = connection.execute(sa.select(_accounts).where(_accounts.c.account == name)).mappings().one_or_none()
        fits = self._passwords.match("" if row is None else row["password_hash"], password)
        return account_of(row) if row is not None and fits else None


def digest_of(secret: str) -> str:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def checked_name(name: str) -> str:
    """
    Raises:
        AccountError: it is no name.
    """
    name = person_name(name)
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
        raise AccountError(f"a name has 1 to {_LONGEST_NAME} characters")
    return name


def checked_cameras(cameras: Iterable[str] | None) -> Cameras:
    """In order, each once.

    Raises:
        AccountError: one cannot be the id of a camera, or there are too many.
    """
    found = in_order(cameras)
    for camera_id in found or ():
        if not _CAMERA.fullmatch(camera_id):
            raise AccountError(f"{camera_id[:80]!r} cannot be a camera: an id has letters, digits, '.', '_' and '-'")
    if found and len(found) > MOST_CAMERAS:
        raise AccountError(f"name {MOST_CAMERAS} cameras at most, or none for all")
    return found


def account_of(row: Mapping[Any, Any]) -> Account:
    """Of a row of the table."""
    return Account(
        row["account"], row["role"], row["created_s"], read_cameras(row["cameras"]), bool(row["disabled"]),
        bool(row["password_hash"]), row["provider"], row["subject"],
    )  # fmt: skip


def require_account(connection: sa.Connection, name: str, *, locked: bool = False) -> Account:
    """The account; ``locked``: nobody else changes it until the end of the transaction.

    Raises:
        NoSuchAccountError: there is no such account.
    """
    query = sa.select(_accounts).where(_accounts.c.account == name)
    row = connection.execute(query.with_for_update() if locked else query).mappings().one_or_none()
    if row is None:
        raise NoSuchAccountError(f"there is no account {name}")
    return account_of(row)


def _cameras_for(role: Role, cameras: Cameras) -> Cameras:
    cameras = checked_cameras(cameras)
    if cameras is not None and role == "admin":
        raise AccountError("an admin sees all cameras: choose another role, or name no cameras")
    return cameras


def _of_link(connection: sa.Connection, secret: str) -> Account | None:
    query = (
        sa.select(_accounts)
        .join(_links, _links.c.account == _accounts.c.account)
        .where(_links.c.digest == digest_of(secret), _links.c.expires_s > time.time(), _accounts.c.disabled == 0)
    )
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else account_of(row)


def _end(connection: sa.Connection, name: str, keep: str = "") -> None:
    """All sessions and links of an account."""
    for table in (schema.sessions, _links):
        theirs = (table.c.account == name) & (table.c.digest != digest_of(keep))
        connection.execute(table.delete().where(theirs))


def _admins(connection: sa.Connection) -> int:
    """How many can log in and manage accounts."""
    # Locked: two admins who remove each other at the same time must not both succeed.
    enters = (_accounts.c.password_hash != "") | (_accounts.c.provider != "")
    query = sa.select(_accounts.c.account).where(_accounts.c.role == "admin", _accounts.c.disabled == 0, enters)
    return len(connection.execute(query.with_for_update()).all())


def _require_admin(connection: sa.Connection) -> None:
    if not _admins(connection):
        raise AccountError("this is the last admin: make another one first")
