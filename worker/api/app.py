"""The application: the operations of ``/api/v1``, their errors and their description."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.types import Lifespan

from worker.alerts.watch import Watch
from worker.api import (
    administration,
    camera_hours,
    cameras,
    erasing,
    findings,
    fleet,
    groups,
    keys,
    live,
    merging,
    people,
    pictures,
    rules,
    search,
    settings,
    sightings,
    suggestions,
    token_operations,
    unknowns,
)
from worker.api.documents import ProblemDocument
from worker.api.door import Door
from worker.api.keys import FirstCode
from worker.api.live import Live
from worker.api.metrics import Counted
from worker.api.own_erasure import ConsoleErasure
from worker.api.parts import Parts
from worker.api.problems import MEDIA_TYPE, document_of, problem_of, responses
from worker.erasure.own import remove_abandoned
from worker.errors import FacestreamError
from worker.logs import get_logger
from worker.redaction import redact

PREFIX: Final = "/api/v1"
_VERSION: Final = "1"
_PICTURE_PX: Final = 480
_ANYWHERE: Final = (
    HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.SERVICE_UNAVAILABLE,
)  # fmt: skip
"""What each operation may answer beside its own."""

_log = get_logger(__name__)


def make_app(parts: Parts) -> FastAPI:
    """The API over ``parts``, which are closed with it. What was erased while no console ran is erased before.

    Raises:
        FacestreamError: it cannot be erased now.
    """
    remove_abandoned(parts.config, pictures=False)
    live = Live(parts)
    erasure = ConsoleErasure(parts, live.forget)
    erasure.catch_up()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.live = live
        app.state.watch = _watch(parts)
        app.state.watch.start()
        erasure.start()
        beating = asyncio.create_task(parts.metrics.beat())
        yield
        beating.cancel()
        app.state.live.close()
        app.state.watch.close()
        erasure.close()
        parts.close()

    app = _with_operations(lifespan)
    app.state.parts = parts
    app.state.first_code = FirstCode(parts.accounts)
    app.add_exception_handler(HTTPException, _tell)
    app.add_exception_handler(RequestValidationError, _tell)
    app.add_exception_handler(FacestreamError, _tell)
    app.add_exception_handler(Exception, _tell)
    app.add_middleware(Counted, metrics=parts.metrics)
    app.add_middleware(Door, hosts=(parts.config.console.host, *parts.config.console.allowed_hosts))
    return app


def _watch(parts: Parts) -> Watch:
    def advice(names: Sequence[str]) -> str:
        found = groups.known(parts) if names else {}
        return "; ".join(found[name].advice for name in names if name in found and found[name].advice)

    return Watch(
        parts.book,
        parts.config.redis,
        parts.config.network.policy,
        audit_folder=parts.audit_folder,
        is_erased=parts.is_erased,
        picture=lambda event: pictures.face_jpeg(parts, event, _PICTURE_PX),
        advice=advice,
        observer=parts.metrics,
    )


def described() -> dict[str, Any]:
    """The description of the operations (OpenAPI 3.1)."""
    return _with_operations().openapi()


def _with_operations(lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    app = FastAPI(
        title="facestream console",
        version=_VERSION,
        description="People, sightings and unknown people of facestream.",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    for module in (
        people,
        groups,
        sightings,
        search,
        pictures,
        unknowns,
        erasing,
        findings,
        rules,
        suggestions,
        merging,
        live,
        cameras,
        camera_hours,
        fleet,
        settings,
        keys,
        token_operations,
        administration,
    ):
        app.include_router(module.router, prefix=PREFIX, responses=responses(*_ANYWHERE))
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign] # FastAPI's own way to furnish the description
    return app


def problem_in(error: Exception) -> tuple[int, str, dict[str, str]]:
    """Status, detail and headers of what went wrong in a request."""
    if isinstance(error, FacestreamError):
        error = problem_of(error)
    if isinstance(error, HTTPException):
        return error.status_code, redact(str(error.detail)), dict(error.headers or {})
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return HTTPStatus.UNPROCESSABLE_ENTITY, f"{where}: {first['msg'].lower()}", {}
    _log.error("a request failed", error=type(error).__name__, reason=redact(str(error)))
    return HTTPStatus.INTERNAL_SERVER_ERROR, "this should not have happened: the log of the console says more", {}


def tell(error: Exception) -> Response:
    """The answer of an operation that went wrong."""
    status, detail, headers = problem_in(error)
    return Response(json.dumps(document_of(status, detail)), status, headers, MEDIA_TYPE)


async def _tell(_request: Request, error: Exception) -> Response:
    return tell(error)


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )  # fmt: skip
        schemas = made["components"]["schemas"]
        schemas["ProblemDocument"] = ProblemDocument.model_json_schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        for operations in made["paths"].values():
            for operation in operations.values():
                if str(int(HTTPStatus.UNPROCESSABLE_ENTITY)) in operation["responses"]:
                    operation["responses"] |= {
                        str(status): told
                        for status, told in responses(HTTPStatus.UNPROCESSABLE_ENTITY).items()
                    }  # fmt: skip
        app.openapi_schema = made
    return app.openapi_schema
