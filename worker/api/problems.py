"""Errors as RFC 9457 has them: ``application/problem+json``."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from pydantic import ValidationError
from starlette.exceptions import HTTPException

from worker.api.errors import AccountError, LoginError, NoSuchAccountError, TooManyAttemptsError
from worker.errors import (
    DatabaseUnavailableError,
    FacestreamError,
    GalleryUnavailableError,
    HistoryUnavailableError,
    SinkError,
    SourceError,
)
from worker.redaction import first_problem

MEDIA_TYPE: Final = "application/problem+json"
_AWAY: Final = (DatabaseUnavailableError, GalleryUnavailableError, HistoryUnavailableError, SinkError)


class Problem(HTTPException):
    """Ends a request; ``detail`` says what is wrong and what to do next."""

    def __init__(self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, headers)


def not_found(what: str) -> Problem:
    """There is no such thing."""
    return Problem(HTTPStatus.NOT_FOUND, what)


def unusable(error: ValidationError | FacestreamError) -> Problem:
    """What was given cannot be taken."""
    text = first_problem(error) if isinstance(error, ValidationError) else str(error)
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, text)


def problem_of(error: FacestreamError) -> Problem:
    """What an error of the functions below means for a request."""
    if isinstance(error, TooManyAttemptsError):
        return Problem(HTTPStatus.TOO_MANY_REQUESTS, str(error), {"Retry-After": str(int(error.wait_s) + 1)})
    if isinstance(error, LoginError):
        return Problem(HTTPStatus.UNAUTHORIZED, str(error))
    if isinstance(error, NoSuchAccountError):
        return not_found(str(error))
    if isinstance(error, _AWAY):
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), {"Retry-After": "5"})
    if isinstance(error, AccountError | SourceError):
        return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
    return Problem(HTTPStatus.CONFLICT, str(error))


def document_of(status: int, detail: str) -> dict[str, Any]:
    """The body of an answer."""
    return {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}


def responses(*statuses: HTTPStatus, media: str = "", meaning: str = "") -> dict[int | str, dict[str, Any]]:
    """For the description of an operation: the problems that it may end with; ``media`` and ``meaning``: the type
    of a good answer that is not JSON, and what it is."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
    told: dict[int | str, dict[str, Any]] = {
        int(status): {"description": status.phrase, "content": content} for status in statuses
    }
    if media:
        told[200] = {"description": meaning, "content": {media: {}}}
    return told
