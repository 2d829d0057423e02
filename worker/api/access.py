"""Who asks, and what they may do: a session of a browser, or a token of a program."""

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Final, cast

from fastapi import Depends, Header, Request, Response
from fastapi.security import APIKeyCookie, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from worker.api.accounts import Account
from worker.api.door import SAFE
from worker.api.parts import Parts
from worker.api.problems import Problem
from worker.api.replies import Reply
from worker.api.roles import ROLES, Scope
from worker.api.sessions import csrf_of
from worker.api.sight import Cameras, in_sight, look_through
from worker.audit_log import acting_as

IdempotencyKey = Annotated[
    str | None, Header(description="a text of your own: the same request with it is done once within a day")
]
"""For :func:`once`."""
COOKIE: Final = "facestream_session"
CSRF_HEADER: Final = "X-CSRF-Token"
_LONGEST_KEY: Final = 200

_bearer = HTTPBearer(auto_error=False, description="a token that an account has made")
_cookie = APIKeyCookie(
    name=COOKIE, auto_error=False, description=f"the session of a browser; a change needs the header {CSRF_HEADER}"
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and which cameras they see. ``secret`` is that of a session, and empty for a token."""

    account: Account
    scopes: frozenset[Scope]
    cameras: Cameras
    secret: str = ""

    @property
    def csrf(self) -> str:
        """What forms of this session carry."""
        return csrf_of(self.secret) if self.secret else ""

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes


def parts_of(request: Request) -> Parts:
    """What requests share."""
    return cast(Parts, request.app.state.parts)


SharedParts = Annotated[Parts, Depends(parts_of)]


def session_of(parts: Parts, secret: str | None) -> Caller | None:
    """Whose session has this ``secret``; None where it has ended."""
    account = parts.sessions.of(secret) if secret else None
    return None if account is None else Caller(account, frozenset(ROLES[account.role]), account.cameras, secret or "")


def token_of(parts: Parts, secret: str) -> Caller | None:
    """Whose token has this ``secret``; None where it has ended."""
    if (found := parts.tokens.of(secret)) is None:
        return None
    account, token = found
    return Caller(account, frozenset(token.scopes) & frozenset(ROLES[account.role]), token.cameras)


def admit(caller: Caller) -> None:
    """What this task does from now on is done for ``caller``: the audit log names them, and they see no more than
    their cameras."""
    acting_as(caller.account.name)
    look_through(caller.cameras)


def caller_of(
    request: Request,
    parts: SharedParts,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    cookie: Annotated[str | None, Depends(_cookie)],
) -> Caller:
    """Who asks.

    Raises:
        Problem: nobody who is known; or a change for which the browser has not shown that one of our pages asks.
    """
    if bearer is not None:
        if (caller := token_of(parts, bearer.credentials)) is None:
            raise Problem(
                HTTPStatus.UNAUTHORIZED, "this token is not known: it has expired, or was revoked",
                {"WWW-Authenticate": "Bearer"},
            )  # fmt: skip
        return caller
    caller = session_of(parts, cookie)
    if caller is None:
        raise Problem(HTTPStatus.UNAUTHORIZED, "log in, or send a token", {"WWW-Authenticate": "Bearer"})
    if request.method not in SAFE and not has_csrf(caller, request.headers.get(CSRF_HEADER)):
        raise Problem(HTTPStatus.FORBIDDEN, f"a change by a session needs the header {CSRF_HEADER}")
    return caller


def has_csrf(caller: Caller, given: str | None) -> bool:
    """Whether a page of ours has asked."""
    return given is not None and hmac.compare_digest(caller.csrf.encode(), given.encode("utf-8", "replace"))


def allowed(scope: Scope) -> Callable[[Caller], Awaitable[Caller]]:
    """A dependency: the caller, who may do what needs ``scope``, and is admitted."""

    # Not in a thread: what it says of the caller must hold for the operation that comes after it.
    async def check(caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
        if not caller.may(scope):
            raise Problem(HTTPStatus.FORBIDDEN, f"{caller.account.name} may not do this: it needs the scope '{scope}'")
        admit(caller)
        return caller

    return check


Reader = Annotated[Caller, Depends(allowed("read"))]
Changer = Annotated[Caller, Depends(allowed("change"))]
Manager = Annotated[Caller, Depends(allowed("manage"))]


def require_all_cameras() -> None:
    """Does nothing for somebody who sees all cameras.

    Raises:
        Problem: what they ask for tells of all cameras, or reaches what all have seen.
    """
    if in_sight() is not None:
        raise Problem(
            HTTPStatus.FORBIDDEN, "this reaches what all cameras have seen: ask somebody who sees all of them"
        )


def address_of(request: Request) -> str:
    """Where a request comes from."""
    return request.client.host if request.client else ""


def agent_of(request: Request) -> str:
    """What a browser calls itself."""
    return request.headers.get("user-agent", "")


def once(
    parts: Parts, caller: Caller, key: str | None, asked: str, make: Callable[[], tuple[HTTPStatus, str]]
) -> Response:
    """What ``make`` answers, status and JSON; with an idempotency ``key``, what it answered the first time.

    ``asked`` tells requests apart: a key stands for one request.

    Raises:
        Problem: the key was used for another request, or the first one is still at work.
    """
    if key is None:
        return _json(*make())
    if not 0 < len(key) <= _LONGEST_KEY:
        raise Problem(HTTPStatus.BAD_REQUEST, f"Idempotency-Key has 1 to {_LONGEST_KEY} characters")
    request = f"{caller.account.name} {key}"
    # A token may see less than the session that asked before.
    digest = hashlib.sha256(f"{asked} {in_sight()}".encode("utf-8", "surrogatepass")).hexdigest()
    if (known := parts.replies.claim(request, digest)) is not None:
        return _replayed(known, digest)
    try:
        status, body = make()
    except BaseException:
        parts.replies.drop(request)
        raise
    parts.replies.keep(request, status, body)
    return _json(status, body)


def _replayed(known: Reply, digest: str) -> Response:
    if known.digest != digest:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, "this Idempotency-Key was used for another request: take a new one"
        )
    if not known.status:
        raise Problem(
            HTTPStatus.CONFLICT, "the first request with this Idempotency-Key is still at work: ask again later"
        )
    return _json(HTTPStatus(known.status), known.body, {"Idempotent-Replay": "true"})


def _json(status: HTTPStatus, body: str, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, headers, "application/json")
