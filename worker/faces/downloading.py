"""Weight files are fetched from servers that are not trusted: an endless, broken or wrong transfer does no harm."""

import os
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from io import BufferedWriter
from pathlib import Path
from typing import Final

import filelock
import httpx
import tenacity

from worker import files
from worker.asking import Asker
from worker.errors import ModelError
from worker.hosts import MOST_REDIRECTS, HostPolicy, HostRefusedError
from worker.redaction import redact

Progress = Callable[[str, int, int | None], None]
"""Called with the file's name, the bytes that are here, and the bytes expected (None: unknown)."""

_TRIES: Final = 5
_TIMEOUT_S: Final = 30.0
_LEAST_BYTES_PER_S: Final = 10_000.0
"""A server that sends more slowly than this is given up, and tried again."""
_MOST_BYTES: Final = 4 * 2**30
"""Of a file whose size the manifest does not state."""
_DIGITS: Final = 16
_WITH_THE_FILE: Final = frozenset({httpx.codes.OK, httpx.codes.PARTIAL_CONTENT})
_PUBLIC: Final = HostPolicy(refused=("loopback", "private", "link-local"))
_WORTH_RETRYING: Final = {408, 425, 429, 500, 502, 503, 504}


class _TryAgainError(Exception):
    """The server, or the connection to it, failed for the moment."""


def ignore_progress(name: str, done_bytes: int, total_bytes: int | None) -> None:
    """Tells nobody."""


def download(
    url: str,
    target: Path,
    *,
    sha256: str | None,
    size: int | None = None,
    progress: Progress = ignore_progress,
    retry_wait_s: float = 1.0,
) -> None:
    """Fetch ``url`` to ``target``, which appears only when it is complete and has the digest ``sha256`` (None: any).

    A broken transfer goes on from the byte it reached, within this call and in a later one. Pauses between
    tries double from ``retry_wait_s``. Two processes that want the same file wait for each other.

    Raises:
        ModelError: the server refuses, cannot be reached, sends something else, or the disk does not take it.
    """
    part = target.with_name(target.name + ".part")
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(_TRIES),
        wait=tenacity.wait_exponential(multiplier=retry_wait_s, max=30),
        retry=tenacity.retry_if_exception_type(_TryAgainError),
        reraise=True,
    )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(part.with_suffix(".lock")):
            if target.is_file() and sha256 in (None, files.sha256_of(target)):
                return
            retrying(_fetch, url, part, size, progress)
            found = files.sha256_of(part)
            if sha256 not in (None, found):
                part.unlink()
                raise ModelError(
                    f"{redact(url)} does not hold the expected file: its sha256 is {found}, expected {sha256}; "
                    "it was deleted"
                )
            part.replace(target)
    except _TryAgainError as error:
        raise ModelError(
            f"cannot download {redact(url)}: {error}; run the command again to go on from there, or place the file in "
            "a folder and name that with --models-dir, or take a model that needs no download (dlib-resnet)"
        ) from None
    except OSError as error:
        raise ModelError(f"cannot write {target}: {error.strerror or error}") from None


def _fetch(url: str, part: Path, size: int | None, progress: Progress) -> None:
    """Brings ``part`` to its full length, or raises."""
    have = part.stat().st_size if part.exists() else 0
    if size is not None and have > size:
        part.unlink()
        have = 0
    if size is not None and have == size:
        return
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    most = (size or _MOST_BYTES) + 1
    writing = _Writing(part, have, size, progress)
    with closing(Asker(_TIMEOUT_S, most_redirects=MOST_REDIRECTS, least_bytes_per_s=_LEAST_BYTES_PER_S)) as server:
        try:
            answer = server.ask(
                "GET",
                url,
                headers=headers,
                most_bytes=most,
                take=writing.take,
                detour=partial(_refuse_detour, httpx.URL(url)),
            )
        except httpx.InvalidURL as error:
            raise ModelError(f"cannot download {redact(url)}: {redact(str(error))}") from None
        except httpx.HTTPError as error:
            raise _TryAgainError(redact(str(error)) or type(error).__name__) from None
        finally:
            writing.close()
    if answer.status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
        part.unlink()
        raise _TryAgainError("the server has no more bytes than an earlier, unfinished download")
    if answer.status in _WORTH_RETRYING:
        raise _TryAgainError(f"the server answers {answer.status}")
    if answer.status not in _WITH_THE_FILE:
        on = f"it leads on and on, more than {MOST_REDIRECTS} times"
        problem = on if httpx.codes.is_redirect(answer.status) else f"the server answers {answer.status}"
        raise ModelError(f"cannot download {redact(url)}: {problem}")
    if answer.body is None or (size is not None and writing.have > size):
        part.unlink()
        raise ModelError(f"{redact(url)} holds more than the expected {size or _MOST_BYTES} bytes; it was deleted")
    if size is not None and writing.have < size:
        raise _TryAgainError(f"{redact(url)} holds fewer than the expected {size} bytes")
    writing.finish()


class _Writing:
    """Writes what comes of a file to ``part``, of which ``have`` bytes are here."""

    def __init__(self, part: Path, have: int, size: int | None, progress: Progress) -> None:
        self.have = have
        self._part, self._size, self._progress = part, size, progress
        self._file: BufferedWriter | None = None
        self._total: int | None = size

    def take(self, head: httpx.Response, chunk: bytes) -> None:
        if head.status_code not in _WITH_THE_FILE:
            return
        if self._file is None:
            self.have = self.have if head.status_code == httpx.codes.PARTIAL_CONTENT else 0
            length = head.headers.get("Content-Length", "")
            self._total = self.have + int(length) if length.isdecimal() and len(length) < _DIGITS else self._size
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_APPEND if self.have else os.O_TRUNC)
            self._file = os.fdopen(os.open(self._part, flags, 0o666), "ab" if self.have else "wb")
        self._file.write(chunk)
        self.have += len(chunk)
        self._progress(self._part.name.removesuffix(".part"), self.have, self._total)

    def finish(self) -> None:
        """The file is complete, also if there was nothing in it."""
        self._part.touch()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _refuse_detour(begin: httpx.URL, there: httpx.URL) -> None:
    """A server of weights may lead to another one, but not into networks that only this machine reaches."""
    problem = ""
    if there.host == begin.host and there.scheme in (begin.scheme, "https"):
        return
    if begin.scheme == "https" != there.scheme:
        problem = f"{there.scheme}://{there.host}, from https"
    with suppress(OSError):  # behind a proxy no name need be known here
        try:
            _PUBLIC.addresses(there.host, there.port or 443, own=there.host)
        except HostRefusedError as error:
            problem = str(error)
    if problem:
        raise ModelError(f"cannot download {redact(str(begin))}: it leads to {problem}")
