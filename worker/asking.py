"""One request to a server that is not trusted: its answer is limited in size and in time.

A server can answer without end, byte by byte, or with a kilobyte that unpacks to a gigabyte. So nothing is unpacked,
what is longer than expected is not read, and one clock runs over the whole request, from the name of the host to the
last byte.
"""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import httpx

Taker = Callable[[httpx.Response, bytes], None]
"""Is given the head of the answer and the next bytes of its body, as they were sent."""

_MOST_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """``body`` is None where it was longer than allowed, or did not come in time."""

    status: int
    headers: httpx.Headers
    body: bytes | None


class Asker:
    """Sends requests, one at a time, and keeps its connections. Not for several threads.

    A request takes ``timeout_s`` at most. With ``least_bytes_per_s``, each byte of the body that comes gives as much
    time as it would take at that speed. At most ``most_redirects`` redirects are followed.
    """

    def __init__(
        self,
        timeout_s: float,
        *,
        verify: ssl.SSLContext | bool = True,
        most_redirects: int = 0,
        least_bytes_per_s: float | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._least_bytes_per_s = least_bytes_per_s
        self._most_redirects = most_redirects
        self._runner = asyncio.Runner()
        # The library would read the whole body of a redirect, so they are followed here.
        self._client = httpx.AsyncClient(timeout=timeout_s, verify=verify, follow_redirects=False)

    def ask(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        most_bytes: int = _MOST_BYTES,
        take: Taker | None = None,
        detour: Callable[[httpx.URL], None] = lambda _url: None,
    ) -> Answer:
        """The answer to one request. ``take`` is given the body as it comes; without it, ``Answer.body`` is the body.

        ``detour`` is told of each redirect before it is followed, and may raise to refuse it.

        Raises:
            httpx.HTTPError: there was no answer, or the connection broke.
            httpx.InvalidURL: ``url`` is not a URL.
            httpx.ReadTimeout: the head of the answer did not come in time; or ``take`` did not get all of the body.
            OSError: ``take`` raised it.
        """
        return self._runner.run(self._ask(method, url, content, headers, most_bytes, take, detour))

    def close(self) -> None:
        """Gives up the connections."""
        with suppress(RuntimeError, OSError):
            self._runner.run(self._client.aclose())
        self._runner.close()

    async def _ask(
        self,
        method: str,
        url: str,
        content: bytes | None,
        headers: Mapping[str, str] | None,
        most_bytes: int,
        take: Taker | None,
        detour: Callable[[httpx.URL], None],
    ) -> Answer:
        request = self._client.build_request(
            method, url, content=content, headers={"Accept-Encoding": "identity", **(headers or {})}
        )
        head: httpx.Response | None = None
        try:
            async with asyncio.timeout(self._timeout_s) as clock:
                for _ in range(self._most_redirects):
                    head = await self._client.send(request, stream=True)
                    if head.next_request is None:
                        break
                    request = head.next_request
                    await head.aclose()
                    head = None
                    detour(request.url)
                else:
                    head = await self._client.send(request, stream=True)
                try:
                    return Answer(head.status_code, head.headers, await self._body(head, clock, most_bytes, take))
                finally:
                    await head.aclose()
        except TimeoutError:
            if head is not None and take is None:
                return Answer(head.status_code, head.headers, None)
            raise httpx.ReadTimeout(f"no whole answer within {self._timeout_s:g} s") from None

    async def _body(
        self, head: httpx.Response, clock: asyncio.Timeout, most_bytes: int, take: Taker | None
    ) -> bytes | None:
        body = bytearray()
        read = 0
        async for chunk in head.aiter_raw():
            read += len(chunk)
            if read > most_bytes:
                return None
            if take is not None:
                take(head, chunk)
            else:
                body += chunk
            if self._least_bytes_per_s and (due := clock.when()) is not None:
                clock.reschedule(due + len(chunk) / self._least_bytes_per_s)
        return bytes(body)
