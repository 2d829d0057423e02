"""Tokens: the keys of programs. Of each, which is a long random text, the SHA-256 is stored."""

import secrets
import time
from dataclasses import dataclass, replace
from typing import Any, Final, get_args

import sqlalchemy as sa

from worker.api.accounts import (
    Account,
    account_of,
    checked_cameras,
    checked_name,
    digest_of,
    require_account,
)
from worker.api.errors import AccountError, NoSuchAccountError
from worker.api.roles import ROLES, Scope
from worker.api.sight import Cameras, both, read_cameras, write_cameras
from worker.database import schema
from worker.history.shared import SharedDatabase

_PREFIX: Final = "fst_"


@dataclass(frozen=True, slots=True)
class Token:
    """A program's key, without its secret. Times are Unix times; ``cameras``: None for all that its account sees."""

    token_id: str
    name: str
    account: str
    scopes: tuple[Scope, ...]
    created_s: float
    expires_s: float
    cameras: Cameras = None


class Tokens:
    """Safe to use from any thread. All methods raise DatabaseError where the database cannot be used."""

    def __init__(self, database: SharedDatabase) -> None:
        self._database = database

    def create(
        self, account: Account, name: str, scopes: tuple[Scope, ...], lives_s: float, cameras: Cameras = None
    ) -> tuple[Token, str]:
        """A token of ``account``, and its secret, which is not kept and cannot be shown again.

        Raises:
            AccountError: it may do nothing, or more than its account, or has no name.
        """
        name, cameras = checked_name(name), checked_cameras(cameras)
        if not scopes or not set(scopes) <= set(ROLES[account.role]):
            raise AccountError(f"a token of {account.name} may have these scopes: {', '.join(ROLES[account.role])}")
        if cameras is not None and "manage" in scopes:
            raise AccountError("a token that may manage sees all cameras: leave 'manage' out, or the cameras")
        if cameras is not None and account.cameras is not None and not set(cameras) <= set(account.cameras):
            raise AccountError(f"a token of {account.name} may see these cameras: {', '.join(account.cameras)}")
        secret, now_s = _PREFIX + secrets.token_urlsafe(32), time.time()
        ordered = tuple(scope for scope in get_args(Scope) if scope in scopes)
        token = Token(secrets.token_hex(6), name, account.name, ordered, now_s, now_s + lives_s, cameras)
        row = {
            "token_id": token.token_id, "digest": digest_of(secret), "name": name, "account": account.name,
            "scopes": " ".join(ordered), "created_s": now_s, "expires_s": token.expires_s,
            "cameras": write_cameras(cameras),
        }  # fmt: skip
        with self._database.writing() as connection:
            require_account(connection, account.name)
            connection.execute(schema.tokens.delete().where(schema.tokens.c.expires_s <= now_s))
            connection.execute(schema.tokens.insert(), row)
        return token, secret

    def of(self, secret: str) -> tuple[Account, Token] | None:
        """Whose token it is; None where there is none, it has expired, or the account is disabled. It sees no camera
        that its account does not see."""
        tokens, accounts = schema.tokens.c, schema.accounts.c
        theirs = [accounts[column.name].label(f"of_{column.name}") for column in accounts]
        query = (
            sa.select(schema.tokens, *theirs)
            .join(schema.accounts, accounts.account == tokens.account)
            .where(tokens.digest == digest_of(secret), tokens.expires_s > time.time(), accounts.disabled == 0)
        )
        with self._database.reading() as connection:
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            return None
        account = account_of({column.name: row[f"of_{column.name}"] for column in accounts})
        token = _token(row)
        return account, replace(token, cameras=both(account.cameras, token.cameras))

    def all(self, account: str | None = None) -> list[Token]:
        """The tokens that have not expired, the newest first; those of one account, or all."""
        query = sa.select(schema.tokens).where(schema.tokens.c.expires_s > time.time())
        if account is not None:
            query = query.where(schema.tokens.c.account == account)
        query = query.order_by(schema.tokens.c.created_s.desc())
        with self._database.reading() as connection:
            return [_token(row) for row in connection.execute(query).mappings()]

    def revoke(self, token_id: str, account: str | None = None) -> None:
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


def _token(row: Any) -> Token:
    return Token(
        row["token_id"], row["name"], row["account"], tuple(row["scopes"].split()), row["created_s"],
        row["expires_s"], read_cameras(row["cameras"]),
    )  # fmt: skip
