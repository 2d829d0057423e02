"""Who asks, and what they may do: a session of a browser, or a token of a program."""

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Final, cast

from fastapi import Depends, Request, Response
from fastapi.security import APIKeyCookie, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from worker.api.accounts import ROLES, Account, Reply, Scope, csrf_of
from worker.api.door import SAFE
from worker.api.parts import Parts
from worker.api.problems import Problem
from worker.audit_log import acting_as

COOKIE: Final = "facestream_session"
CSRF_HEADER: Final = "X-CSRF-Token"
_LONGEST_KEY: Final = 200

_bearer = HTTPBearer(auto_error=False, description="a token that an account has made")
_cookie = APIKeyCookie(
    name=COOKIE, auto_error=False, description=f"the session of a browser; a change needs the header {CSRF_HEADER}"
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. ``secret`` is that of a session, and empty for a token."""

    account: Account
    scopes: frozenset[Scope]
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
    account = parts.accounts.of_session(secret) if secret else None
    return None if account is None else Caller(account, frozenset(ROLES[account.role]), secret or "")


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
        if (found := parts.accounts.of_token(bearer.credentials)) is None:
            raise Problem(
                HTTPStatus.UNAUTHORIZED, "this token is not known: it has expired, or was revoked",
                {"WWW-Authenticate": "Bearer"},
            )  # fmt: skip
        account, token = found
        return Caller(account, frozenset(token.scopes) & frozenset(ROLES[account.role]))
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
    """A dependency: the caller, who may do what needs ``scope``. The audit log names them from then on."""

    # Not in a thread: what it says of the caller must hold for the operation that comes after it.
    async def check(caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
        if not caller.may(scope):
            raise Problem(HTTPStatus.FORBIDDEN, f"{caller.account.name} may not do this: it needs the scope '{scope}'")
        acting_as(caller.account.name)
        return caller

    return check


Reader = Annotated[Caller, Depends(allowed("read"))]
Changer = Annotated[Caller, Depends(allowed("change"))]
Manager = Annotated[Caller, Depends(allowed("manage"))]


def address_of(request: Request) -> str:
    """Where a request comes from."""
    return request.client.host if request.client else ""


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
    digest = hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()
    if (known := parts.accounts.claim_reply(request, digest)) is not None:
        return _replayed(known, digest)
    try:
        status, body = make()
    except BaseException:
        parts.accounts.drop_reply(request)
        raise
    parts.accounts.keep_reply(request, status, body)
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
