"""What all pages share: who looks, how a page is made, and how a form comes back."""

import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode

from fastapi import Depends, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from worker import __version__
from worker.api.access import COOKIE, Caller, SharedParts, admit, has_csrf, session_of
from worker.api.oidc import Provider
from worker.api.problems import Problem
from worker.api.roles import Scope
from worker.console.forms import Sent, require_first
from worker.console.texts import counted, grouped, language, text, told
from worker.history.records import PastSighting

HERE: Final = Path(__file__).parent
_LOGIN: Final = "/login"
_SURE: Final = ((0.3, "clearly"), (0.1, "likely"), (0.0, "just"))
"""From which share of the way from the threshold to 1 on: models differ in how far apart people are."""
_HARDLY: Final = "hardly"
_UNKNOWN: Final = "unknown"
_NOT_RECOGNISED: Final = "not recognised"
_LONG_DAYS: Final = 3650


class NotLoggedInError(Exception):
    """A page was asked for by nobody who is known; ``path`` is where they wanted to go."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


def visitor(request: Request, parts: SharedParts) -> Caller:
    """Who looks at a page.

    Raises:
        NotLoggedInError: nobody who is known.
    """
    caller = session_of(parts, request.cookies.get(COOKIE))
    if caller is None:
        asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        raise NotLoggedInError(asked if request.method == "GET" else "/")
    return caller


async def looking(caller: Annotated[Caller, Depends(visitor)]) -> Caller:
    """Who looks, and is admitted."""
    admit(caller)
    return caller


def sender(scope: Scope, *, once: bool = True) -> Callable[..., Awaitable[Caller]]:
    """A dependency: who has sent a form of ours, or looks at the page of one, and may do what needs ``scope``.

    ``once``: what was sent before is not done again.
    """

    async def check(
        request: Request, caller: Annotated[Caller, Depends(looking)], parts: SharedParts,
        csrf: Annotated[str, Form()] = "",
    ) -> Caller:  # fmt: skip
        if request.method == "POST" and not has_csrf(caller, csrf):
            raise Problem(HTTPStatus.FORBIDDEN, "this form was of another session: open the page again")
        if not caller.may(scope):
            raise Problem(HTTPStatus.FORBIDDEN, f"{caller.account.name} may look, but not do this")
        if once and request.method == "POST":
            await require_first(request, parts, caller.account.name)
        return caller

    return check


Visitor = Annotated[Caller, Depends(looking)]
Sender = Annotated[Caller, Depends(sender("change"))]
Manager = Annotated[Caller, Depends(sender("manage"))]
Looker = Annotated[Caller, Depends(sender("read"))]
"""Who has sent a form that changes nothing of others."""
Asker = Annotated[Caller, Depends(sender("read", once=False))]
"""Who has sent a form that changes nothing."""


def render(name: str, caller: Caller | None, status: HTTPStatus = HTTPStatus.OK, /, **values: Any) -> HTMLResponse:
    """The page made of the template ``name``."""
    page = _TEMPLATES.get_template(f"{name}.html")
    return HTMLResponse(page.render(me=caller, page=name, version=__version__, **values), status)


def render_slowly(name: str, caller: Caller, /, **values: Any) -> StreamingResponse:
    """The same, sent piece by piece as its values come; what they are must not raise."""
    page = _TEMPLATES.get_template(f"{name}.html")
    pieces = page.generate(me=caller, page=name, version=__version__, **values)
    # A piece of a proxy's buffer is not waited for.
    return StreamingResponse(pieces, media_type="text/html; charset=utf-8", headers={"X-Accel-Buffering": "no"})


def gone_to(path: str, **query: str) -> RedirectResponse:
    """After a form: the browser gets this page, and a reload sends nothing again."""
    return RedirectResponse(f"{path}?{urlencode(query)}" if query else path, HTTPStatus.SEE_OTHER)


def to_login(path: str) -> RedirectResponse:
    """To the log-in, and then to ``path``."""
    return gone_to(_LOGIN, **({} if path == "/" else {"to": path}))


def ask_who(
    sent: Sent | None, to: str = "/", name: str = "", problem: str = "", status: HTTPStatus = HTTPStatus.UNAUTHORIZED,
    *, provider: Provider | None = None, leave: str = "",
) -> HTMLResponse:  # fmt: skip
    """The log-in, which leads to where ``sent`` comes back, or to ``to``; also by ``provider``. ``leave``: where
    somebody who has logged out here logs out there."""
    kept = "" if sent is None else sent.model_dump_json()
    return render(
        "login", None, status, to=inside(to), name=name, problem=problem, kept=kept, leave=leave,
        provider=None if provider is None else provider.label,
    )  # fmt: skip


def inside(path: str) -> str:
    """``path`` if it is one of this console, else the first page."""
    is_ours = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if is_ours else "/"


def sureness(similarity: float | None, threshold: float | None) -> str:
    """How sure a name is, in a word."""
    if similarity is None or threshold is None:
        return ""
    above = (similarity - threshold) / max(1 - threshold, 1e-6)
    return text(next((word for least, word in _SURE if above >= least), _HARDLY))


def who(sighting: PastSighting) -> str:
    """The person of a past sighting."""
    return sighting.identity_name or text(_UNKNOWN if sighting.unknown_id else _NOT_RECOGNISED)


def one_in(rate: float) -> str:
    """A rate as people would say it."""
    if rate >= 0.5:
        return text("most")
    return text("1 in {number}", number=grouped(1 / rate)) if rate > 1e-9 else text("1 in a billion")


def days(between: float) -> str:
    """How often something happens that comes after so many days again."""
    if between > _LONG_DAYS:
        return text("less than once in ten years")
    if between < 1:
        return text("about {number} times a day", number=grouped(1 / between))
    return counted(round(between), "about once a day", "about once in {count} days")


def _moment(value: datetime) -> str:
    return value.astimezone(UTC).isoformat("T", "milliseconds").replace("+00:00", "Z")


def _readable(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def segment(text: str) -> str:
    """A text as one part of a path."""
    return quote(text, safe="")


def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {"moment": _moment, "readable": _readable, "segment": segment, "told": told, "who": who}
    made.globals |= {
        "sureness": sureness, "_": text, "n_": counted, "language": language, "one_in": one_in, "days": days,
        "fresh_key": lambda: secrets.token_urlsafe(9),
    }  # fmt: skip
    return made


_TEMPLATES: Final = _templates()
