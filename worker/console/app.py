"""The application of ``facestream console``: the API and the pages."""

from contextlib import suppress
from http import HTTPStatus
from typing import Final

from fastapi import Depends, FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from worker.api.access import COOKIE, session_of
from worker.api.app import PREFIX, make_app, problem_in, tell
from worker.api.parts import Parts
from worker.console import (
    accounts,
    cameras,
    entry,
    faces,
    health,
    now,
    past,
    people,
    provider,
    rules,
    settings,
    strangers,
)
from worker.console.forms import Once, RepeatedError, Sent, come_back
from worker.console.pages import HERE, NotLoggedInError, ask_who, gone_to, render, to_login
from worker.console.texts import speak, speaking, told
from worker.errors import FacestreamError

_AGAIN_S: Final = 5
_KINDS: Final = (HTTPException, RequestValidationError, FacestreamError, Exception)


def make_console(parts: Parts) -> FastAPI:
    """The API and the pages over ``parts``, which are closed with it."""
    app = make_app(parts)
    for module in (entry, provider, now, past, strangers, people, rules, cameras, health, settings, accounts, faces):
        app.include_router(module.router, dependencies=[Depends(speaking)])
    app.mount("/static", StaticFiles(directory=HERE / "static"))
    for kind in _KINDS:
        app.add_exception_handler(kind, _tell)
    app.add_exception_handler(NotLoggedInError, _ask)
    app.add_exception_handler(RepeatedError, _done)
    app.add_middleware(Once, parts=parts)
    return app


async def _ask(request: Request, error: Exception) -> Response:
    """Asks who it is, and keeps what was typed until then."""
    speak(request)
    sent = await Sent.of(request)
    if sent is None:
        return to_login(error.path if isinstance(error, NotLoggedInError) else "/")
    return ask_who(sent, provider=request.app.state.parts.provider)


async def _done(_request: Request, error: Exception) -> Response:
    return gone_to(error.location if isinstance(error, RepeatedError) else "/")


async def _tell(request: Request, error: Exception) -> Response:
    """The form that was sent, on its page, or a page that says what went wrong; to programs, a problem document."""
    if request.url.path.startswith(f"{PREFIX}/"):
        return tell(error)
    speak(request)
    code, detail, headers = problem_in(error)
    status = HTTPStatus(code)
    sent = await Sent.of(request)
    page = None
    caller = None
    with suppress(FacestreamError):  # if the database is away, the page says so without a menu
        caller = await run_in_threadpool(session_of, request.app.state.parts, request.cookies.get(COOKIE))
        if sent is not None:
            page = await come_back(request, sent, status, told(detail))
    if page is not None:
        return HTMLResponse(page, status, headers)
    answer = render("problem", caller, status, status=status, detail=detail, sent=sent)
    answer.headers.update(headers)
    if status == HTTPStatus.SERVICE_UNAVAILABLE and request.method == "GET":
        answer.headers["Refresh"] = str(_AGAIN_S)
    return answer
