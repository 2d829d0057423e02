"""HTTP for cameras. FFmpeg reads what comes, and opens no connection itself: it would follow a redirect, a playlist or
a key to any host, and keep a part of a stream in memory until it ends."""

import base64
import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urljoin, urlsplit
from urllib.request import AbstractDigestAuthHandler, parse_http_list, parse_keqv_list

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from worker.config import CameraConfig
from worker.errors import SourceError
from worker.hosts import ALLOW, MOST_REDIRECTS, HostPolicy, HostRefusedError
from worker.redaction import redact
from worker.video.picture_kinds import SUFFIXES

_PORTS: Final = {"http": 80, "https": 443}
_ENCRYPTED: Final = "crypto+"
_ADVICE: Final = "check address, credentials and network"
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_BLOCK: Final = 16
_SKIPPED: Final = 1 << 20
"""A seek forward by fewer bytes reads on; a new request takes longer."""


class SourceSilentError(SourceError):
    """The source sent nothing within its timeout."""


class Web:
    """What one camera fetches over HTTP. For one thread.

    Everything is counted from one picture to the next: :meth:`arrived` begins anew. In between, ``max_picture_bytes``
    may come, and ``read_timeout_s`` may pass (``open_timeout_s`` until the first answer, and again until the first
    picture).
    """

    def __init__(self, url: str, label: str, camera: CameraConfig, policy: HostPolicy) -> None:
        self._url = url
        self._label = label
        self._camera = camera
        self._policy = policy
        parts = urlsplit(url)
        self._own = parts.hostname or ""
        self._login = (unquote(parts.username or ""), unquote(parts.password or "")) if parts.username else None
        self._deadline_s = time.monotonic() + camera.open_timeout_s
        self._bytes = 0
        self._file: WebFile | None = None

    def open(self) -> "WebFile":
        """The source itself.

        Raises:
            SourceError: it cannot be reached, refuses, or leads to a host that is not to be reached.
        """
        self._file = WebFile(self, self._url)
        self._deadline_s = time.monotonic() + self._camera.open_timeout_s
        return self._file

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def open_further(self, url: str, _flags: int, options: dict[str, str]) -> Any:
        """A segment, a key or another playlist, as FFmpeg asks for it. One that cannot be had is empty.

        Raises:
            SourceError: its host is not to be reached.
        """
        encrypted, url = url.startswith(_ENCRYPTED), url.removeprefix(_ENCRYPTED)
        first, end = (int(options.get(name) or 0) for name in ("offset", "end_offset"))
        try:
            file = WebFile(self, url, first, end or None)
        except _RefusedError as error:
            raise SourceError(str(error)) from None
        except SourceSilentError:
            raise
        except SourceError:
            return io.BytesIO()
        return _Decrypted(file, options) if encrypted else file

    def arrived(self) -> None:
        """A picture has come."""
        self._deadline_s = time.monotonic() + self._camera.read_timeout_s
        self._bytes = 0

    def took(self, count: int) -> None:
        self._bytes += count
        if self._bytes > self._camera.max_picture_bytes:
            raise SourceError(
                f"{self._label}: more than {self._camera.max_picture_mb:g} MB came without a whole picture; if its "
                "pictures are so large, raise the camera's max_picture_mb"
            )

    def left_s(self) -> float:
        """The time that is left for the picture.

        Raises:
            SourceSilentError: none is.
        """
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise self.silent()
        return min(left_s, max(self._camera.open_timeout_s, self._camera.read_timeout_s))

    def silent(self) -> SourceSilentError:
        if self._file is None:
            return SourceSilentError(
                f"{self._label} cannot be opened: no answer within {self._camera.open_timeout_s:g} s; {_ADVICE}"
            )
        return SourceSilentError(f"{self._label}: no answer within the timeout")

    def failed(self, problem: str) -> SourceError:
        return SourceError(f"{self._label} cannot be opened: {problem}; {_ADVICE}")

    def request(self, url: str, first: int, end: int | None) -> "Answer":
        """The answer to a GET of ``url`` from byte ``first`` on, after at most ``MOST_REDIRECTS`` redirects."""
        for _ in range(MOST_REDIRECTS + 1):
            answer = self._get(url, first, end)
            if answer.response.status not in _REDIRECTS:
                return answer
            answer.close()
            before, url = urlsplit(url), urljoin(url, answer.response.getheader("Location", ""))
            if before.scheme == "https" and urlsplit(url).scheme != "https":
                raise _RefusedError(f"{self._label} leads from https to {redact(url)}, which is not followed")
        raise _RefusedError(f"{self._label} leads on and on, more than {MOST_REDIRECTS} times")

    def _get(self, url: str, first: int, end: int | None) -> "Answer":
        parts = urlsplit(url)
        path = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
        headers = {"Accept": "*/*", "User-Agent": "facestream", "Connection": "close",
                   "Range": f"bytes={first}-{'' if end is None else end - 1}"}  # fmt: skip
        answer = self._ask(parts, path, headers)
        if answer.response.status == http.HTTPStatus.UNAUTHORIZED and self._login and parts.hostname == self._own:
            challenges = answer.response.headers.get_all("WWW-Authenticate") or []
            if said := _answer_to(challenges, self._login, path):
                answer.close()
                return self._ask(parts, path, {**headers, "Authorization": said})
        return answer

    def _ask(self, parts: SplitResult, path: str, headers: dict[str, str]) -> "Answer":
        try:
            host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
        except ValueError:
            host, port = "", 0
        if parts.scheme not in _PORTS or not host:
            raise _RefusedError(f"{self._label} leads to {redact(parts.geturl())}, which is not followed")
        try:
            sock = _reach(
                host, port, self._policy, own=self._own, timeout_s=self.left_s, encrypted=parts.scheme == "https"
            )
            return _answer(sock, self.left_s, host, path, headers)
        except HostRefusedError as error:
            raise _RefusedError(f"{self._label}: {error}; {ALLOW}") from None
        except TimeoutError:
            raise self.silent() from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self.failed(problem_of(error)) from None


@dataclass(frozen=True, slots=True)
class Answer:
    """The beginning of an answer; ``sock`` is where the rest comes from."""

    sock: socket.socket
    response: http.client.HTTPResponse

    def close(self) -> None:
        self.response.close()
        self.sock.close()


class _Timed(io.RawIOBase):
    """What comes from a socket, with one clock over all of it: a head that comes byte by byte would never time out."""

    def __init__(self, sock: socket.socket, left_s: Callable[[], float]) -> None:
        self._sock, self._left_s = sock, left_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._left_s())
        return self._sock.recv_into(buffer)


def _answer(sock: socket.socket, left_s: Callable[[], float], host: str, path: str, headers: dict[str, str]) -> Answer:
    connection = http.client.HTTPConnection(host, sock.getpeername()[1])
    connection.sock = sock
    try:
        sock.settimeout(left_s())
        connection.request("GET", path, headers=headers)
        reader = SimpleNamespace(makefile=lambda _mode: io.BufferedReader(_Timed(sock, left_s)))
        response = http.client.HTTPResponse(reader, method="GET")  # type: ignore[arg-type]
        response.begin()
        return Answer(sock, response)
    except BaseException:
        sock.close()
        raise


class WebFile:
    """A file on a web server, as FFmpeg reads one: the bytes from ``first`` on, up to ``end``."""

    def __init__(self, web: Web, url: str, first: int = 0, end: int | None = None) -> None:
        self._web, self._url = web, url
        self._first, self._end = first, end
        parts = urlsplit(url)
        self.name = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        if PurePosixPath(parts.path).suffix.lower() in SUFFIXES:
            # By such a name FFmpeg would take it for the first of many numbered files.
            self.name += "?"
        self._answer = self._open(0)
        self._place = self._at = 0
        response = self._answer.response
        length = response.getheader("Content-Length", "")
        self.kind = response.getheader("Content-Type", "").partition(";")[0].strip().lower()
        self._size = int(length) if length.isdecimal() else None
        self._ranges = response.status == http.HTTPStatus.PARTIAL_CONTENT

    def seekable(self) -> bool:
        return self._ranges and self._size is not None

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size or 0}[whence]
        return self._place

    def read(self, size: int) -> bytes:
        """What has come, at most ``size`` bytes; waits for the first.

        Raises:
            SourceSilentError: nothing came in time.
            SourceError: too much came without a picture.
        """
        if self._size is not None and self._place >= self._size:
            return b""
        if not 0 <= self._place - self._at <= _SKIPPED:
            self._answer.close()
            self._answer, self._at = self._open(self._place), self._place
        while self._at < self._place:
            if not self._take(min(self._place - self._at, size)):
                return b""
        content = self._take(size)
        self._place = self._at
        return content

    def head(self) -> bytes:
        """Some bytes of what comes next; waits for the first. They come again when it is read; empty at the end.

        Raises:
            SourceSilentError: nothing came in time.
            SourceError: the connection broke.
        """
        with self._told():
            return self._answer.response.peek(1)

    def close(self) -> None:
        self._answer.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise self._web.silent() from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._web.failed(problem_of(error)) from None

    def _take(self, size: int) -> bytes:
        with self._told():
            content = self._answer.response.read1(size)
        self._web.took(len(content))
        self._at += len(content)
        return content

    def _open(self, place: int) -> Answer:
        first = self._first + place
        answer = self._web.request(self._url, first, self._end)
        status, reason = answer.response.status, answer.response.reason
        if status not in (200, 206) or (first and status != http.HTTPStatus.PARTIAL_CONTENT):
            answer.close()
            raise self._web.failed(f"the server answers {status} {redact(reason)}".strip())
        return answer


class _Decrypted:
    """A segment in AES-128-CBC, as HLS has them."""

    def __init__(self, file: WebFile, options: dict[str, str]) -> None:
        try:
            key, iv = bytes.fromhex(options["key"]), bytes.fromhex(options["iv"])
            self._decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
        except (KeyError, ValueError):
            file.close()
            raise SourceError(f"{file.name}: its key is none of AES-128") from None
        self._file = file
        self._held = b""

    def read(self, size: int) -> bytes:
        """What has come, without the padding of the last block."""
        while True:
            content = self._file.read(size)
            plain = self._decryptor.update(content)
            # The last block is held back until it is known to be the last.
            ready, self._held = (self._held, plain) if content else (self._held, b"")
            if not content:
                return ready[: -ready[-1]] if ready and 0 < ready[-1] <= _BLOCK else ready
            if ready:
                return ready

    def close(self) -> None:
        self._file.close()


class _RefusedError(SourceError):
    """It leads to where it must not be followed."""


def _reach(
    host: str, port: int, policy: HostPolicy, *, own: str, timeout_s: Callable[[], float], encrypted: bool
) -> socket.socket:
    """A connection to an address of ``host`` that ``policy`` has let pass: a name that is asked for twice may be two
    hosts. Certificates of cameras are their own, so nobody is asked for trust.

    Raises:
        HostRefusedError: no address may be reached.
        OSError: none can be reached (TimeoutError: in time).
    """
    problem: OSError | None = None
    for address in policy.addresses(host, port, own=own):
        try:
            sock = socket.create_connection((address, port), timeout_s())
        except OSError as error:
            problem = error
            continue
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return _tls().wrap_socket(sock, server_hostname=host) if encrypted else sock
        except BaseException:
            sock.close()
            raise
    raise problem or OSError(f"{host} has no address")


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


def _answer_to(challenges: list[str], login: tuple[str, str], target: str) -> str:
    """The value of ``Authorization`` for the ``WWW-Authenticate`` of a server; empty where it asks for neither Digest
    nor Basic."""
    user, password = login
    for challenge in challenges:
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() != "digest":
            continue
        handler: Any = AbstractDigestAuthHandler(
            SimpleNamespace(add_password=None, find_user_password=lambda _realm, _url: login)  # type: ignore[arg-type]
        )
        request = SimpleNamespace(get_method=lambda: "GET", selector=target, full_url=target, data=None)
        try:
            if said := handler.get_authorization(request, parse_keqv_list(list(filter(None, parse_http_list(rest))))):
                return f"Digest {said}"
        except (ValueError, KeyError, IndexError):
            continue
    if any(challenge.lower().startswith("basic") for challenge in challenges):
        return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
    return ""


def problem_of(error: Exception) -> str:
    """What went wrong, in few words."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(redact(str(text)).split()) or type(error).__name__
