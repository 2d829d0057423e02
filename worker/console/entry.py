"""The way in and out: the first admin, logging in, logging out, and a link for a demonstration."""

import secrets
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, FastAPI, Form, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse

from worker.api import keys
from worker.api.access import COOKIE, Caller, SharedParts, session_of
from worker.api.errors import LoginError, TooManyAttemptsError
from worker.api.problems import Problem
from worker.api.roles import SHORTEST_PASSWORD
from worker.console.choices import require_same
from worker.console.forms import Sent, come_back
from worker.console.pages import Asker, Looker, Visitor, ask_who, gone_to, inside, render
from worker.console.provider import leave_address
from worker.console.texts import text

router = APIRouter(include_in_schema=False)

Text = Annotated[str, Form(max_length=200)]
Kept = Annotated[str, Form(max_length=500_000)]


def one_time_path(app: FastAPI, name: str, to: str) -> str:
    """A path of ``app`` that makes the admin ``name`` and logs in as them, once, and then leads to the page ``to``.

    For a demonstration: nobody learns the password.
    """
    code = secrets.token_urlsafe(24)
    app.state.guests = {code: (name, to)}
    return f"/enter/{code}"


@router.get("/enter/{code}")
def enter(request: Request, parts: SharedParts, code: str) -> Response:
    """Takes the link of :func:`one_time_path`."""
    guest = getattr(request.app.state, "guests", {}).pop(code, None)
    if guest is None:
        if session_of(parts, request.cookies.get(COOKIE)) is not None:
            return gone_to("/")
        raise Problem(HTTPStatus.FORBIDDEN, "this link was used before, or is not one of this console: log in")
    name, to = guest
    response = gone_to(to)
    keys.set_up(request, response, parts, keys.first_code_of(request).code, name, secrets.token_urlsafe(24))
    return response


@router.get("/login")
def login_page(request: Request, parts: SharedParts, to: str = "/", out: bool = False) -> Response:
    """Asks for name and password; who is logged in goes on. ``out``: somebody of the provider has just logged out."""
    if session_of(parts, request.cookies.get(COOKIE)) is not None:
        return gone_to(inside(to))
    if keys.first_code_of(request).code:
        return gone_to("/setup")
    leave = leave_address(request, parts) if out else ""
    return ask_who(None, to, status=HTTPStatus.OK, provider=parts.provider, leave=leave)


@router.post("/login")
async def login(
    request: Request, parts: SharedParts, name: Text = "", password: Text = "", to: str = "/", kept: Kept = ""
) -> Response:
    """Begins a session. A form that was sent without one comes back then."""
    sent = Sent.read(kept)
    answer: Response = gone_to(inside(to))
    try:
        caller = await run_in_threadpool(keys.log_in, request, answer, parts, name, password)
    except TooManyAttemptsError as error:
        return ask_who(sent, to, name, str(error), HTTPStatus.TOO_MANY_REQUESTS, provider=parts.provider)
    except LoginError as error:
        return ask_who(sent, to, name, str(error), provider=parts.provider)
    if sent is not None:
        cookies = answer.headers.getlist("set-cookie")
        answer = await _again(request, caller, sent)
        for cookie in cookies:
            answer.headers.append("set-cookie", cookie)
    return answer


@router.get("/login/kept")
def kept_page(caller: Visitor) -> Response:
    """Where somebody arrives by the provider whose browser has kept a form on the way: it sends the form from here."""
    return render("kept", caller)


@router.post("/login/kept")
async def kept_form(request: Request, caller: Asker, kept: Kept = "") -> Response:
    """Lets a form come back that was sent without a session."""
    sent = Sent.read(kept)
    return gone_to("/") if sent is None else await _again(request, caller, sent)


async def _again(request: Request, caller: Caller, sent: Sent) -> Response:
    told = text("You are logged in again. Nothing was sent yet, and what you typed is still here.")
    page = await come_back(request, sent, HTTPStatus.OK, told, session=caller.secret)
    return HTMLResponse(page) if page else render("problem", caller, status=HTTPStatus.OK, detail=told, sent=sent)


@router.post("/logout")
def logout(caller: Looker, parts: SharedParts) -> Response:
    """Ends the session."""
    parts.sessions.end(caller.secret)
    response = gone_to("/login", **({"out": "true"} if caller.account.provider else {}))
    response.delete_cookie(COOKIE, path="/")
    return response


@router.get("/setup")
def setup_page(request: Request) -> Response:
    """Asks for the code of the first start; where there is an admin, for name and password."""
    return render("setup", None, shortest=SHORTEST_PASSWORD) if keys.first_code_of(request).code else gone_to("/login")


@router.post("/setup")
def setup(
    request: Request, parts: SharedParts, code: Text = "", name: Text = "", password: Text = "", again: Text = ""
) -> Response:
    """Makes the first admin."""
    require_same(password, again)
    response = gone_to("/")
    keys.set_up(request, response, parts, code, name, password)
    return response


@router.get("/password/{secret}")
def password_page(parts: SharedParts, secret: str) -> Response:
    """Takes the link with which somebody chooses a password."""
    account = parts.accounts.of_link(secret)
    if account is None:
        raise Problem(HTTPStatus.FORBIDDEN, "this link was used before, or has expired: ask an admin for a new one")
    return render("password", None, account=account, secret=secret, shortest=SHORTEST_PASSWORD)


@router.post("/password/{secret}")
def choose_password(
    request: Request, parts: SharedParts, secret: str, password: Text = "", again: Text = ""
) -> Response:
    """Sets the password, and begins a session."""
    require_same(password, again)
    try:
        account = keys.use_link(parts, secret, password)
    except LoginError as error:
        raise Problem(HTTPStatus.FORBIDDEN, str(error)) from None
    response = gone_to("/")
    keys.begin(request, response, parts, account.name)
    return response
