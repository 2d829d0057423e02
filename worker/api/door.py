"""What stands before every request: whose host it names, how much it sends, and what browsers are told."""

from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker.api.problems import Problem
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
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if not self._knows(headers):
            await _refuse(send)
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


async def _refuse(send: Send) -> None:
    text = b"this name is not one of the console: add it to console.allowed_hosts\n"
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": HTTPStatus.MISDIRECTED_REQUEST, "headers": headers})
    await send({"type": "http.response.body", "body": text})
