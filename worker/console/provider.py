"""The way in by the OpenID provider of an organisation."""

from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from worker.api import keys
from worker.api.access import SharedParts
from worker.api.errors import AccountError, LoginError
from worker.api.oidc import Begun, Provider, ProviderAwayError
from worker.api.paging import cursor_of, place_of
from worker.api.parts import Parts
from worker.api.problems import Problem, not_found
from worker.console.pages import ask_who, inside, render

router = APIRouter(include_in_schema=False)

_COOKIE: Final = "facestream_provider"
_PATH: Final = "/login/provider"
_BACK: Final = f"{_PATH}/back"
_PATIENCE_S: Final = 600


@router.get(_PATH)
def leave_for_provider(request: Request, parts: SharedParts, to: str = "/") -> Response:
    """Sends the browser to the provider, with what only this browser knows in a cookie."""
    try:
        url, begun = _provider(parts).begin(_address(request))
    except LoginError as error:
        return _refused(parts, error, to)
    response = RedirectResponse(url, HTTPStatus.SEE_OTHER)
    # The browser comes back from another site, to which a strict cookie would not be sent.
    response.set_cookie(
        _COOKIE, cursor_of(begun.state, begun.nonce, begun.verifier, inside(to)), max_age=_PATIENCE_S, httponly=True,
        samesite="lax", secure=request.url.scheme == "https", path=_PATH,
    )  # fmt: skip
    return response


@router.get(_BACK)
def back_from_provider(request: Request, parts: SharedParts) -> Response:
    """Begins a session of whom the provider has let in."""
    to = "/"
    try:
        begun, to = _begun(request)
        person = _provider(parts).finish(begun, dict(request.query_params), _address(request))
        account = keys.known_by_provider(parts, person)
    except (LoginError, AccountError) as error:
        parts.metrics.login("wrong")
        answer = _refused(parts, error, to)
    else:
        parts.metrics.login("ok")
        # By a redirect, the cookie of the session would not be sent: it is for pages of this site alone.
        answer = render("arrived", None, to=to)
        answer.headers["Refresh"] = f"0; url={quote(to, safe='/?&=%+:,;@~')}"
        keys.begin(request, answer, parts, account.name)
    answer.delete_cookie(_COOKIE, path=_PATH)
    return answer


def leave_address(request: Request, parts: Parts) -> str:
    """Where somebody logs out of the provider, who has logged out here; empty where there is no such page."""
    if parts.provider is None:
        return ""
    return parts.provider.leave_url(str(request.url_for("login_page")))


def _provider(parts: Parts) -> Provider:
    if parts.provider is None:
        raise not_found("this console has no OpenID provider: log in with name and password")
    return parts.provider


def _begun(request: Request) -> tuple[Begun, str]:
    try:
        state, nonce, verifier, to = place_of(request.cookies.get(_COOKIE, ""), str, str, str, str)
    except Problem:
        raise LoginError(
            "this log-in took too long, or was begun in another browser, or under another address: begin again"
        ) from None
    return Begun(state, nonce, verifier), inside(to)


def _address(request: Request) -> str:
    """Where the provider sends people back to; it has to know this address."""
    return f"{str(request.base_url).rstrip('/')}{_BACK}"


def _refused(parts: Parts, error: LoginError | AccountError, to: str) -> Response:
    status = HTTPStatus.SERVICE_UNAVAILABLE if isinstance(error, ProviderAwayError) else HTTPStatus.UNAUTHORIZED
    return ask_who(None, to, problem=str(error), status=status, provider=parts.provider)
