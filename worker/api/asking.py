"""What the client of the API does below its methods: requests, pages, live events, and what goes wrong."""

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from worker.api.documents import ProblemDocument
from worker.errors import FacestreamError

PREFIX: Final = "/api/v1"
_TRIES: Final = 5
_LONGEST_WAIT_S: Final = 30.0
_PAUSE_S: Final = 0.5
_BUSY: Final = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
_SILENT_S: Final = 35.0
"""The console says something at least every 10 seconds."""

Model = TypeVar("Model", bound=BaseModel)
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Value = str | int | float | bool | None
Photo = Path | tuple[str, bytes]
"""A file, or a name and what it holds."""


class ApiError(FacestreamError):
    """The console refuses, or cannot do it now; ``problem`` is what it has answered."""

    def __init__(self, problem: ProblemDocument) -> None:
        super().__init__(f"{problem.title}: {problem.detail}")
        self.problem = problem


class ConsoleUnreachableError(FacestreamError):
    """No answer came from the console, or none of its own."""


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """An event; ``fields`` are those of ``facestream tail --json``. ``event_id`` is where to go on after a break."""

    event_id: str
    fields: Mapping[str, str]


class Asking:
    """One console at ``address``. ``token`` is one that an account has made there.

    A request is sent again, up to four times, if the console is away or busy, and if doing it twice is the same as
    doing it once: it reads, replaces, or has a key. Safe to use from any thread, but for ``etag``.
    """

    def __init__(self, address: str, token: str, *, timeout_s: float = 30.0, verify: bool | str = True) -> None:
        self._client = httpx.Client(
            base_url=address, timeout=timeout_s, verify=verify,
            headers={"Authorization": f"Bearer {token}"} if token else {},
        )  # fmt: skip
        self.etag: str | None = None

    def close(self) -> None:
        self._client.close()

    def one(
        self, model: type[Model], method: Method, path: str, *parts: str, query: Mapping[str, Value] | None = None,
        body: BaseModel | None = None, if_match: str | None = None, key: str | None = None, keyed: bool = False,
        fields: Mapping[str, str] | None = None, files: Mapping[str, Photo | Sequence[Photo]] | None = None,
    ) -> Model:  # fmt: skip
        """The document that the operation answers with."""
        answer = self._ask(method, path, parts, query, body, if_match, key, keyed=keyed, fields=fields, files=files)
        try:
            made = model.model_validate_json(answer.content)
        except ValidationError:
            raise ConsoleUnreachableError(
                f"{self._client.base_url} has answered what is no {model.__name__}: is it a facestream console of this "
                "version?"
            ) from None
        if csrf := getattr(made, "csrf", ""):  # a session, for which a cookie was set
            self._client.headers["X-CSRF-Token"] = csrf
        return made

    def none(
        self, method: Method, path: str, *parts: str, query: Mapping[str, Value] | None = None,
        body: BaseModel | None = None, if_match: str | None = None, key: str | None = None, keyed: bool = False,
    ) -> None:  # fmt: skip
        """An operation that answers with nothing."""
        self._ask(method, path, parts, query, body, if_match, key, keyed=keyed)

    def content(self, method: Method, path: str, *parts: str, query: Mapping[str, Value] | None = None) -> bytes:
        """What the operation answers with, such as a picture."""
        return self._ask(method, path, parts, query, None, None, None).content

    def each(self, model: type[Model], place: str, path: str, *parts: str, query: Mapping[str, Value]) -> Iterator[Any]:
        """The items of all pages; ``place`` is the parameter that says where a page begins."""
        asked = dict(query)
        while True:
            page: Any = self.one(model, "GET", path, *parts, query=asked)
            yield from page.items
            asked[place] = getattr(page, f"next_{place}")
            if asked[place] is None:
                return

    def follow(self, path: str, after: str | None) -> Iterator[LiveEvent]:
        """Events for ever, each once; after a break it goes on where it was."""
        failed = 0
        while True:
            headers = {"Accept": "text/event-stream"} | ({} if after is None else {"Last-Event-ID": after})
            try:
                with self._client.stream("GET", PREFIX + path, headers=headers, timeout=_SILENT_S) as answer:
                    if answer.status_code not in _BUSY:
                        _require(answer)
                        for event in _events(answer.iter_lines()):
                            after, failed = event.event_id, 0
                            yield event
            except httpx.TransportError:
                pass
            failed += 1
            time.sleep(min(_PAUSE_S * 2 ** min(failed, 10), _LONGEST_WAIT_S))

    def _ask(
        self, method: Method, path: str, parts: Sequence[str], query: Mapping[str, Value] | None,
        body: BaseModel | None, if_match: str | None, key: str | None, *, keyed: bool = False,
        fields: Mapping[str, str] | None = None, files: Mapping[str, Photo | Sequence[Photo]] | None = None,
    ) -> httpx.Response:  # fmt: skip
        headers = {} if if_match is None else {"If-Match": if_match}
        if keyed:
            headers["Idempotency-Key"] = key or str(uuid.uuid4())
        request = self._client.build_request(
            method, PREFIX + path.format(*(quote(part, safe="") for part in parts)), headers=headers, data=fields,
            params={name: value for name, value in (query or {}).items() if value is not None},
            json=None if body is None else body.model_dump(mode="json", exclude_unset=True),
            files=[(name, _file(photo)) for name, given in (files or {}).items() for photo in _several(given)] or None,
        )  # fmt: skip
        answer = self._send(request, may_repeat=method in {"GET", "PUT"} or keyed)
        _require(answer)
        self.etag = answer.headers.get("ETag", self.etag)
        return answer

    def _send(self, request: httpx.Request, *, may_repeat: bool) -> httpx.Response:
        if request.headers.get("content-type", "").startswith("multipart/"):
            request.read()  # a stream could be sent once only
        for number in range(_TRIES):
            is_last = number == _TRIES - 1
            wait_s = _PAUSE_S * 2**number
            try:
                answer = self._client.send(request)
            except httpx.ConnectError as error:  # nothing was sent
                if is_last:
                    raise ConsoleUnreachableError(f"{self._client.base_url} cannot be reached: {error}") from None
            except httpx.TransportError as error:
                if is_last or not may_repeat:
                    raise ConsoleUnreachableError(f"{self._client.base_url} has not answered: {error}") from None
            else:
                asked = answer.headers.get("Retry-After", "")
                wait_s = max(wait_s, float(asked) if asked.isdecimal() else 0.0)
                if answer.status_code not in _BUSY or is_last or not may_repeat or wait_s > _LONGEST_WAIT_S:
                    return answer
            time.sleep(wait_s)
        raise AssertionError  # the last try has returned or raised


def _require(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    answer.read()
    try:
        problem = ProblemDocument.model_validate_json(answer.content)
    except ValidationError:
        raise ConsoleUnreachableError(
            f"{answer.url.copy_with(query=None)} has answered {answer.status_code} and no reason: is it a facestream "
            "console?"
        ) from None
    raise ApiError(problem)


def _several(given: Photo | Sequence[Photo]) -> Sequence[Photo]:
    is_one = isinstance(given, Path) or (len(given) == 2 and isinstance(given[0], str))
    return [given] if is_one else given  # type: ignore[list-item,return-value] # a pair of a name and bytes is one


def _file(photo: Photo) -> tuple[str, bytes]:
    return (photo.name, photo.read_bytes()) if isinstance(photo, Path) else photo


def _events(lines: Iterator[str]) -> Iterator[LiveEvent]:
    event_id = ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "id":
            event_id = value
        elif name == "data":
            yield LiveEvent(event_id, json.loads(value))
