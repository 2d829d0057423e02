"""What stands before every request: whose host it names, how much it sends, and what browsers are told."""

import json
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker.api.problems import MEDIA_TYPE, Problem, document_of
from worker.hosts import host_name, is_address

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}
SAFE: Final = {"GET", "HEAD", "OPTIONS"}
MOST_BYTES: Final = 1_000_000
"""Of a request that brings no photos."""
MOST_PHOTO_BYTES: Final = 100_000_000
"""Of a request that brings photos."""


class Door:
    """Around an application. ``hosts``: the names under which it may be asked, beside localhost and addresses.

    A page of another site can give its own name the address of this machine, and its script may then ask here.
    """

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...]) -> None:
        self._app = app
        self._hosts = {"localhost", *(host.lower() for host in hosts)}
        # Anything may be served at another port of this machine.
        self._names = {host for host in self._hosts - {"localhost"} if not is_address(host)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if not self._knows(headers):
            text = b"this name is not one of the console: add it to console.allowed_hosts\n"
            await _refuse(send, HTTPStatus.MISDIRECTED_REQUEST, text)
            return
        if scope["method"] not in SAFE and not self._is_ours(headers):
            told = document_of(HTTPStatus.FORBIDDEN, "a page of another site has asked for this: nothing was done")
            await _refuse(send, HTTPStatus.FORBIDDEN, json.dumps(told).encode(), MEDIA_TYPE)
            return
        has_photos = headers.get("content-type", "").startswith("multipart/form-data")
        most, received = MOST_PHOTO_BYTES if has_photos else MOST_BYTES, 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise Problem(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request may have {most // 1_000_000} MB: send less"
                )
            return message

        async def furnished(message: Message) -> None:
            if message["type"] == "http.response.start":
                told = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    told[name] = value
                told.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, counted, furnished)

    def _knows(self, headers: Headers) -> bool:
        hosts = headers.getlist("host")
        if len(hosts) != 1:
            return False
        name = host_name(hosts[0])
        return name in self._hosts or is_address(name)

    def _is_ours(self, headers: Headers) -> bool:
        """Whether a page of the console asks, or a program. A browser says from which page it asks; a proxy may have
        told the console another name than the browser knows it by, which is then among the allowed ones."""
        origin = headers.get("origin")
        if origin is None:
            return True
        place = origin.partition("://")[2]
        return place == headers["host"] or host_name(place) in self._names


async def _refuse(send: Send, status: HTTPStatus, text: bytes, media: str = "text/plain") -> None:
    headers = [(b"content-type", media.encode()), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
