"""A form that cannot be taken comes back on its page as it was sent; one that was sent twice is done once.

Both hold for every form: what a browser has sent is read here, and put into the page that has the form.
"""

import asyncio
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final, Self
from urllib.parse import unquote, urlsplit

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from markupsafe import Markup
from pydantic import BaseModel, Field
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker.api.access import COOKIE
from worker.api.parts import Parts
from worker.api.problems import Problem
from worker.console.filling import filled
from worker.console.texts import text
from worker.redaction import redact

_OURS: Final = {"csrf", "key"}
"""What our own pages put into each form, anew each time."""
_SECRET: Final = ("password", "secret", "again")
_MOST_CHARACTERS: Final = 200_000
_ASK_AGAIN_S: Final = 0.2
_PATIENCE_S: Final = 30.0


class Sent(BaseModel):
    """A form as it was sent. ``files`` are names, each with that of its field; ``secrets`` are the fields of which
    nothing is kept, since it may be a password; ``ours`` is what the page has put into it."""

    action: str
    page: str
    fields: list[tuple[str, str]]
    files: list[tuple[str, str]] = []
    secrets: list[str] = []
    ours: dict[str, str] = Field({}, exclude=True)

    @classmethod
    async def of(cls, request: Request) -> Self | None:
        """The form of this request; None where there is none, or too much of it."""
        if request.method != "POST":
            return None
        try:
            form = await request.form()
        except (HTTPException, RuntimeError):  # it could not be read before, or was too long
            return None
        given = [(name, value) for name, value in form.multi_items() if name not in _OURS]
        ours = {name: value for name in _OURS if isinstance(value := form.get(name), str)}
        files = [(name, value.filename or "") for name, value in given if isinstance(value, UploadFile)]
        texts = [(name, value) for name, value in given if isinstance(value, str)]
        kept = [(name, value) for name, value in texts if not _is_secret(name, value)]
        if sum(len(value) for _, value in kept) > _MOST_CHARACTERS:
            return None
        secrets = sorted({name for name, value in texts if value and _is_secret(name, value)})
        return cls(
            action=request.url.path, page=_page_of(request), fields=kept, files=[each for each in files if each[1]],
            secrets=secrets, ours=ours,
        )  # fmt: skip

    @classmethod
    def read(cls, document: str) -> Self | None:
        """What :meth:`model_dump_json` has written; None if it is something else."""
        with suppress(ValueError):
            return cls.model_validate_json(document)
        return None

    @property
    def shown(self) -> list[tuple[str, str]]:
        """What a person has typed, for a page that does not have the form."""
        return [(name, value) for name, value in self.fields if value and name != "etag"]


async def come_back(
    request: Request, sent: Sent, status: HTTPStatus, detail: str, *, session: str | None = None
) -> str | None:
    """The page with this form as it was sent, and ``detail`` above it; None where no page has it any more.

    ``session`` is that of somebody who has logged in just now.
    """
    for path in _places(sent):
        page = await _page(request, path, session)
        is_late = status == HTTPStatus.PRECONDITION_FAILED
        found = page and filled(page, sent.action, sent.fields, keep=() if is_late else ("etag",))
        if found:
            told = [Markup("<bdi>{}</bdi>").format(detail)]
            if is_late:
                told = [text("Somebody else has changed this meanwhile, and nothing of yours was stored.")]
            if is_late and found.other:
                told.append(text("Now it says:") + " " + _pairs(found.other))
            if is_late:
                told.append(text("What you typed is still here; if you send it again, it takes effect."))
            if sent.files:
                told.append(text("Choose these files again: {files}", files=", ".join(name for _, name in sent.files)))
            if sent.secrets:
                names = ", ".join(found.labels.get(name, name) for name in sent.secrets)
                told.append(text("Type again what may hold a password: {fields}", fields=names))
            lines = Markup("").join(Markup("<span>{}</span> ").format(each) for each in told)
            note = Markup('<p class="wrong" role="alert" tabindex="-1" autofocus>{}</p>').format(lines)
            return found.page(note).replace("<main ", f'<main data-at="{Markup.escape(path)}" ', 1)
    return None


def _pairs(pairs: Iterable[tuple[str, str]]) -> Markup:
    return Markup(" · ").join(Markup("{}: <b><bdi>{}</bdi></b>").format(*pair) for pair in pairs)


def _is_secret(name: str, value: str) -> bool:
    return any(word in name for word in _SECRET) or redact(value) != value


def _page_of(request: Request) -> str:
    """Where the form was, as the browser says; else a part of its own address."""
    came = urlsplit(request.headers.get("referer", ""))
    if came.netloc == request.headers.get("host") and came.path:
        return came.path + (f"?{came.query}" if came.query else "")
    return request.url.path


def _places(sent: Sent) -> Iterator[str]:
    """Where the form may be: where it was, and what its address is a part of."""
    yield sent.page
    parts = sent.action.split("/")
    yield from (path for end in range(len(parts), 1, -1) if (path := "/".join(parts[:end])) != sent.page)


async def _page(request: Request, path: str, session: str | None) -> str:
    """The page at ``path`` as the browser would get it; empty if it would not."""
    where = urlsplit(path)
    headers = [(name, value) for name, value in request.scope["headers"] if not name.startswith(b"content-")]
    if session is not None:
        headers = [(name, value) for name, value in headers if name != b"cookie"]
        headers.append((b"cookie", f"{COOKIE}={session}".encode()))
    scope = dict(request.scope) | {
        "method": "GET", "path": unquote(where.path), "raw_path": where.path.encode(), "path_params": {},
        "query_string": where.query.encode(), "headers": headers, "state": {},
    }  # fmt: skip
    status, body = 0, b""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status, body
        status = message.get("status", status)
        body += message.get("body", b"")

    with suppress(HTTPException):
        await request.app.router(scope, receive, send)
    return body.decode() if status == HTTPStatus.OK else ""


class RepeatedError(Exception):
    """This form was sent before, and done; ``location`` is where that has led."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.location = location


async def require_first(request: Request, parts: Parts, account: str) -> None:
    """Does nothing the first time that a form of a page is sent as it is. Each page gives its forms keys of their own.

    Raises:
        RepeatedError: it was sent before, and done.
        Problem: it was sent before, and is still at work.
    """
    form = await request.form()
    if not form.get("key"):
        return
    given = [(name, value if isinstance(value, str) else (value.filename, value.size))
             for name, value in form.multi_items()]  # fmt: skip
    asked = repr((account, request.url.path, given)).encode("utf-8", "surrogatepass")
    name = f"form {hashlib.sha256(asked).hexdigest()}"
    for _ in range(int(_PATIENCE_S / _ASK_AGAIN_S)):
        known = await run_in_threadpool(parts.replies.claim, name, "")
        if known is None:
            request.state.once = name, _page_of(request)
            return
        if known.status:
            raise RepeatedError(known.body)
        await asyncio.sleep(_ASK_AGAIN_S)
    raise Problem(HTTPStatus.CONFLICT, "this form was sent before, and is still at work: look again in a moment")


class Once:
    """Around an application: keeps where a form has led that :func:`require_first` let pass."""

    def __init__(self, app: ASGIApp, parts: Parts) -> None:
        self._app, self._replies = app, parts.replies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state: dict[str, Any] = scope.setdefault("state", {})

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start" and "once" in state:
                name, page = state.pop("once")
                location = dict(message["headers"]).get(b"location", page.encode()).decode()
                if message["status"] < HTTPStatus.BAD_REQUEST:
                    await run_in_threadpool(self._replies.keep, name, HTTPStatus.SEE_OTHER, location)
                else:
                    await run_in_threadpool(self._replies.drop, name)
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except BaseException:
            if "once" in state:
                self._replies.drop(state.pop("once")[0])
            raise
