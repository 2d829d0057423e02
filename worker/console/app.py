"""The application of ``facestream console``: the API and the pages."""

from contextlib import suppress
from http import HTTPStatus
from typing import Final

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from worker.api.access import COOKIE, session_of
from worker.api.app import PREFIX, make_app, problem_in, tell
from worker.api.parts import Parts
from worker.console import cameras, entry, faces, health, now, past, people, rules, settings, strangers
from worker.console.pages import HERE, NotLoggedInError, render, to_login
from worker.console.texts import speak, speaking
from worker.errors import FacestreamError

_KINDS: Final = (HTTPException, RequestValidationError, FacestreamError, Exception)


def make_console(parts: Parts) -> FastAPI:
    """The API and the pages over ``parts``, which are closed with it."""
    app = make_app(parts)
    for module in (entry, now, past, strangers, people, rules, cameras, health, settings, faces):
        app.include_router(module.router, dependencies=[Depends(speaking)])
    app.mount("/static", StaticFiles(directory=HERE / "static"))
    for kind in _KINDS:
        app.add_exception_handler(kind, _tell)
    app.add_exception_handler(NotLoggedInError, _ask)
    return app


async def _ask(_request: Request, error: Exception) -> Response:
    return to_login(error.path if isinstance(error, NotLoggedInError) else "/")


def _tell(request: Request, error: Exception) -> Response:
    """A page that says what went wrong; to programs, a problem document."""
    if request.url.path.startswith(f"{PREFIX}/"):
        return tell(error)
    speak(request)
    status, detail, headers = problem_in(error)
    caller = None
    with suppress(FacestreamError):  # if the database is away, the page says so without a menu
        caller = session_of(request.app.state.parts, request.cookies.get(COOKIE))
    page = render("problem", caller, HTTPStatus(status), status=HTTPStatus(status), detail=detail)
    page.headers.update(headers)
    return page
