"""Where an RTSP server sends its clients: FFmpeg follows any redirect, as often as it comes, and has no option against
it. So the server is asked once before, and a redirect is followed here."""

import socket
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote, urlsplit

from worker.config import CameraConfig
from worker.errors import SourceError
from worker.hosts import ALLOW, MOST_REDIRECTS, HostPolicy, HostRefusedError
from worker.redaction import redact
from worker.video.web import SourceSilentError, answer_to, reach

_PORTS: Final = {"rtsp": 554, "rtsps": 322}
_MOST_BYTES: Final = 64_000


def final_url(url: str, label: str, camera: CameraConfig, policy: HostPolicy) -> str:
    """The address behind all redirects of ``url``; ``url`` itself if there are none, or if the server cannot be asked.

    Raises:
        SourceError: a redirect leads to a host that is not to be reached, to another protocol, or on and on.
        SourceSilentError: no answer within ``open_timeout_s``.
    """
    parts = urlsplit(url)
    own = parts.hostname or ""
    login = (unquote(parts.username or ""), unquote(parts.password or "")) if parts.username else None
    deadline_s = time.monotonic() + camera.open_timeout_s
    for _ in range(MOST_REDIRECTS + 1):
        try:
            location = _redirect(url, login if (urlsplit(url).hostname or "") == own else None, own, policy, deadline_s)
        except HostRefusedError as error:
            raise SourceError(f"{label}: {error}; {ALLOW}") from None
        except TimeoutError:
            raise SourceSilentError(
                f"{label} cannot be opened: no answer within {camera.open_timeout_s:g} s; check address, credentials "
                "and network"
            ) from None
        except (OSError, ValueError):
            return url  # FFmpeg finds the same, and says it better
        if not location:
            return url
        there = urlsplit(location)
        if there.scheme.lower() not in _PORTS or not there.hostname or parts.scheme == "rtsps" != there.scheme:
            raise SourceError(f"{label} leads to {redact(location)}, which is not followed")
        if there.hostname.lower() == own.lower() and not there.username and parts.username:
            location = there._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@{there.netloc}").geturl()
        url = location
    raise SourceError(f"{label} leads on and on, more than {MOST_REDIRECTS} times")


def _redirect(url: str, login: tuple[str, str] | None, own: str, policy: HostPolicy, deadline_s: float) -> str:
    """Where the server at ``url`` leads to; empty if it serves the stream itself, or refuses."""
    parts = urlsplit(url)
    asked = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    def left_s() -> float:
        return max(0.001, deadline_s - time.monotonic())

    with reach(parts.hostname or "", parts.port or _PORTS[parts.scheme.lower()], policy, own=own, timeout_s=left_s,
               encrypted=parts.scheme.lower() == "rtsps") as sock:  # fmt: skip
        status, headers = _describe(sock, asked, 1, "", left_s)
        if status == 401 and login:
            said = answer_to([value for name, value in headers if name == "www-authenticate"], login, "DESCRIBE", asked)
            if said:
                status, headers = _describe(sock, asked, 2, f"Authorization: {said}\r\n", left_s)
    if not 300 <= status < 400:
        return ""
    return next((value for name, value in headers if name == "location"), "")


def _describe(
    sock: socket.socket, url: str, number: int, more: str, left_s: Callable[[], float]
) -> tuple[int, list[tuple[str, str]]]:
    sock.settimeout(left_s())
    request = f"DESCRIBE {url} RTSP/1.0\r\nCSeq: {number}\r\nAccept: application/sdp\r\n{more}\r\n"
    sock.sendall(request.encode("utf-8"))
    answer = b""
    while b"\r\n\r\n" not in answer:
        sock.settimeout(left_s())
        received = sock.recv(4096)
        if not received or len(answer) > _MOST_BYTES:
            raise OSError("no answer of RTSP")
        answer += received
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    version, _, rest = first.partition(" ")
    if not version.startswith("RTSP/"):
        raise OSError("no answer of RTSP")
    # What belongs to the answer must not be taken for the beginning of the next one.
    length = next((int(value) for name, value in pairs if name == "content-length" and value.isdecimal()), 0)
    while len(body) < length <= _MOST_BYTES:
        sock.settimeout(left_s())
        if not (received := sock.recv(4096)):
            break
        body += received
    return int(rest.partition(" ")[0]), pairs
