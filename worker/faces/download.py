"""Download a file of known digest, with retries, from where an earlier try broke off."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import filelock
import httpx
import tenacity

from worker.errors import ModelError
from worker.redaction import redact

Progress = Callable[[str, int, int | None], None]
"""Called with the file's name, the bytes that are here, and the bytes expected (None: unknown)."""

_TRIES: Final = 5
_TIMEOUT_S: Final = 30.0
_WORTH_RETRYING: Final = {408, 425, 429, 500, 502, 503, 504}


class _TryAgainError(Exception):
    """The server or the way to it failed for the moment."""


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
            if target.is_file() and sha256 in (None, _sha256(target)):
                return
            retrying(_fetch, url, part, size, progress)
            found = _sha256(part)
            if sha256 not in (None, found):
                part.unlink()
                raise ModelError(
                    f"{redact(url)} does not hold the expected file: its sha256 is {found}, expected {sha256}; "
                    "it was deleted"
                )
            part.replace(target)
    except _TryAgainError as error:
        raise ModelError(f"cannot download {redact(url)}: {error}; run the command again to go on from there") from None
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
    try:
        with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=_TIMEOUT_S) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink()
                raise _TryAgainError("the server has no more bytes than an earlier, unfinished download")
            if response.status_code in _WORTH_RETRYING:
                raise _TryAgainError(f"the server answers {response.status_code}")
            if response.status_code not in {httpx.codes.OK, httpx.codes.PARTIAL_CONTENT}:
                raise ModelError(f"cannot download {redact(url)}: the server answers {response.status_code}")
            if response.status_code == httpx.codes.OK:
                have = 0
            _append(response, part, have, size, progress)
    except httpx.InvalidURL as error:
        raise ModelError(f"cannot download {redact(url)}: {redact(str(error))}") from None
    except httpx.HTTPError as error:
        raise _TryAgainError(redact(str(error)) or type(error).__name__) from None


def _append(response: httpx.Response, part: Path, have: int, size: int | None, progress: Progress) -> None:
    length = response.headers.get("Content-Length", "")
    total = have + int(length) if length.isdigit() else size
    name = part.name.removesuffix(".part")
    with part.open("ab" if have else "wb") as file:
        for chunk in response.iter_bytes():
            file.write(chunk)
            have += len(chunk)
            if size is not None and have > size:
                break
            progress(name, have, total)
    if size is not None and have != size:
        problem = (
            f"{redact(str(response.url))} holds {'more' if have > size else 'fewer'} than the expected {size} bytes"
        )
        if have > size:
            part.unlink()
            raise ModelError(f"{problem}; it was deleted")
        raise _TryAgainError(problem)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
