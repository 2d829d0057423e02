"""What the operations on accounts, sessions and tokens answer with, and what they are given."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, Field, StringConstraints

from worker.api.documents import Given
from worker.api.roles import LONGEST_PASSWORD, MOST_CAMERAS, SHORTEST_PASSWORD, Role, Scope
from worker.wire import rfc3339

if TYPE_CHECKING:
    from worker.api.accounts import Account
    from worker.api.sessions import Session
    from worker.api.tokens import Token

Password = Annotated[str, StringConstraints(min_length=SHORTEST_PASSWORD, max_length=LONGEST_PASSWORD)]
SomePassword = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_PASSWORD)]
AccountName = Annotated[str, StringConstraints(min_length=1, max_length=64)]
CameraId = Annotated[str, StringConstraints(min_length=1, max_length=64)]
_ALL = "ids of the cameras that may be seen; null: all. Of others nothing is shown, as if they did not exist"
CameraIds = Annotated[
    Annotated[list[CameraId], Field(min_length=1, max_length=MOST_CAMERAS)] | None, Field(description=_ALL)
]


class AccountDocument(BaseModel):
    """Somebody who may use the console."""

    name: str
    role: Role
    created_at: str
    cameras: list[str] | None = Field(description=_ALL)
    disabled: bool = Field(description="cannot log in; tokens of the account do not work")
    has_password: bool = Field(description="false: until somebody chooses one by a link, or logs in by the provider")
    provider: str = Field(description="the OpenID provider that let them in; empty for somebody with a password")

    @classmethod
    def of(cls, account: "Account") -> "AccountDocument":
        return cls(
            name=account.name, role=account.role, created_at=time_text(account.created_s),
            cameras=None if account.cameras is None else list(account.cameras), disabled=account.disabled,
            has_password=account.has_password, provider=account.provider,
        )  # fmt: skip


class MeDocument(AccountDocument):
    """Who asks, and what they may do; ``csrf`` is the value of the header X-CSRF-Token, empty for a token."""

    scopes: list[Scope]
    csrf: str


class AccountsPage(BaseModel):
    """All accounts."""

    items: list[AccountDocument]


class NewAccount(Given):
    """An account to make; without a password, a link lets somebody choose it."""

    name: AccountName
    password: Password | None = None
    role: Role
    cameras: CameraIds = None


class AccountChange(Given):
    """What is to change; what is left out stays."""

    role: Role | None = None
    password: Password | None = None
    cameras: CameraIds = None
    disabled: bool | None = None


class LinkDocument(BaseModel):
    """A link with which somebody chooses a password, once. It is shown this once."""

    account: str
    path: str = Field(description="of a page of this console, to be opened by the person")
    secret: str = Field(description="the last part of the path, for who asks the API")
    expires_at: str


class ChosenPassword(Given):
    """A password for the account whose link this is."""

    secret: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    password: Password


class PasswordChange(Given):
    """A new password of one's own."""

    old: SomePassword
    new: Password


class SessionDocument(BaseModel):
    """A log-in that has not ended."""

    session_id: str
    created_at: str
    expires_at: str
    address: str = Field(description="where it came from")
    agent: str = Field(description="what the browser calls itself")
    current: bool = Field(description="whether it is the one that asks")

    @classmethod
    def of(cls, session: "Session", current: str) -> "SessionDocument":
        return cls(
            session_id=session.session_id, created_at=time_text(session.begun_s),
            expires_at=time_text(session.expires_s), address=session.address, agent=session.agent,
            current=session.session_id == current,
        )  # fmt: skip


class SessionsPage(BaseModel):
    """The sessions of the caller, the newest first."""

    items: list[SessionDocument]


class EndedDocument(BaseModel):
    """How many sessions have been ended."""

    sessions: int


class TokenDocument(BaseModel):
    """A token, without its secret."""

    token_id: str
    name: str
    account: str
    scopes: list[Scope]
    created_at: str
    expires_at: str
    cameras: list[str] | None = Field(description="what it may see, if its account may; null: as its account")

    @classmethod
    def of(cls, token: "Token") -> "TokenDocument":
        return cls(
            token_id=token.token_id, name=token.name, account=token.account, scopes=list(token.scopes),
            created_at=time_text(token.created_s), expires_at=time_text(token.expires_s),
            cameras=None if token.cameras is None else list(token.cameras),
        )  # fmt: skip


class NewTokenDocument(TokenDocument):
    """A token that was made just now; its secret is shown this once, and null in a repeated answer."""

    token: str | None


class TokensPage(BaseModel):
    """All tokens of the caller; of everybody for who manages accounts."""

    items: list[TokenDocument]


class NewToken(Given):
    """A token to make."""

    name: AccountName
    scopes: list[Scope] = Field(min_length=1, max_length=3)
    days: float = Field(90, gt=0, le=3650, description="when it expires")
    cameras: CameraIds = None


class Credentials(Given):
    """To log in."""

    name: AccountName
    password: SomePassword


class FirstAdmin(Given):
    """To make the first admin; ``code`` stands on the console's standard output."""

    code: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    name: AccountName
    password: Password


def time_text(seconds: float) -> str:
    """A Unix time as documents have it."""
    return rfc3339(datetime.fromtimestamp(seconds, UTC))
