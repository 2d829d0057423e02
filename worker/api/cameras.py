"""The cameras of the fleet: how each is, and what it is to be: added after a live test, changed, paused, removed."""

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from pydantic import ValidationError

from worker.api.access import IdempotencyKey, Manager, Reader, SharedParts, once
from worker.api.camera_documents import (
    CameraChange,
    CameraDocument,
    CamerasPage,
    CheckDocument,
    NewCamera,
    camera_document,
)
from worker.api.paging import MOST, IfMatch, cursor_of, etag_of, place_of, require_match
from worker.api.parts import Parts
from worker.api.pictures import jpeg_of
from worker.api.problems import Problem, not_found, responses, unusable
from worker.audit_log import note
from worker.config import CameraConfig
from worker.errors import FacestreamError, SinkError
from worker.fleet.registry import CameraRegistry, Registered, StaleDefinitionError, decode_camera, require_network
from worker.redaction import redact_url
from worker.redis.errors import told_redis_errors
from worker.service.status import age_s, condition_of
from worker.types import Image
from worker.video.trial import look_through

router = APIRouter(tags=["cameras"])

_PICTURE_PX: Final = 960
_CHANGES: Final = responses(
    HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED, HTTPStatus.UNPROCESSABLE_ENTITY
)


def everything(parts: Parts, only: str | None = None) -> list[CameraDocument]:
    """All cameras by id: those that the fleet defines, and those that only a worker's own configuration names; or the
    one called ``only``.

    Raises:
        SinkError: Redis cannot be asked.
    """
    with _registry(parts) as registry:
        defined = {row.definition.camera_id: row for row in parts.registered(registry)}
        reports = _reports(parts)
    known = defined.keys() | reports.keys()
    return [
        camera_document(camera_id, defined.get(camera_id), reports.get(camera_id))
        for camera_id in sorted(known if only is None else known & {only})
    ]


def known(parts: Parts) -> list[CameraDocument]:
    """The same; none where Redis cannot be asked, of which Health tells."""
    with suppress(SinkError):
        return everything(parts)
    return []


def _reports(parts: Parts) -> dict[str, dict[str, Any]]:
    """What was told last of each camera; the word of a worker that has fallen silent counts least."""
    told: dict[str, dict[str, Any]] = {}
    for worker in sorted(parts.workers(), key=age_s, reverse=True):
        who = {"worker_id": worker.worker_id, "condition": condition_of(worker)}
        told |= {camera.camera_id: camera.model_dump() | who for camera in worker.cameras}
    return told


def page(
    parts: Parts, words: str, cursor: str | None, limit: int, *, wrong_only: bool = False
) -> tuple[CamerasPage, list[CameraDocument]]:
    """Some of the cameras whose id holds ``words``, and all of them."""
    everybody = everything(parts)
    found = [one for one in everybody if words.casefold() in one.camera_id.casefold()]
    if wrong_only:
        found = [one for one in found if not one.is_well]
    total = len(found)
    if cursor is not None:
        (after,) = place_of(cursor, str)
        found = [one for one in found if one.camera_id > after]
    more = cursor_of(found[limit - 1].camera_id) if len(found) > limit else None
    return CamerasPage(items=found[:limit], next_cursor=more, total=total), everybody


def find(parts: Parts, camera_id: str) -> CameraDocument:
    """
    Raises:
        Problem: there is no such camera.
        SinkError: Redis cannot be asked.
    """
    for one in everything(parts, camera_id):
        return one
    raise not_found(f"there is no camera {camera_id}; it may have been removed")


def etag(camera: CameraDocument) -> str:
    """Another one after each change."""
    return etag_of(camera.camera_id, camera.revision)


def add(parts: Parts, given: NewCamera) -> CameraDocument:
    """Defines a camera that the fleet has not.

    Raises:
        Problem: a field is wrong, or no worker of a fleet could read the source.
        FleetError: there is such a camera already.
    """
    camera = camera_of(given.fields())
    with _registry(parts) as registry:
        registry.add(camera, fresh=True)
    note(parts.audit_folder, "camera added", [camera.id])
    return find(parts, camera.id)


def change(parts: Parts, camera_id: str, given: CameraChange, if_match: str | None = None) -> CameraDocument:
    """Changes what is given; the rest stays, also the source and its password.

    Raises:
        Problem: there is no such camera, a field is wrong, or it was changed meanwhile.
    """
    row = _defined(parts, camera_id, if_match)
    settings = given.model_dump(exclude_unset=True, exclude={"paused"})
    if settings.get("source") is None:
        settings.pop("source", None)
    # What is not given stays as it was read here: also without an ETag, nobody else's change may be lost.
    expected = row.definition.revision if if_match or settings else None
    with _registry(parts) as registry:
        if settings:
            old = decode_camera(row.definition.document or "", camera_id)
            fields = old.model_dump(exclude_defaults=True) | {"source": old.source.get_secret_value()} | settings
            fields = {name: value for name, value in fields.items() if value is not None}
            registry.add(camera_of(fields), expected=expected)
            expected = None
        if given.paused is not None:
            (registry.pause if given.paused else registry.resume)(camera_id, expected=expected)
    what = "paused" if given.paused else "resumed" if given.paused is not None and not settings else "changed"
    note(parts.audit_folder, f"camera {what}", [camera_id])
    return find(parts, camera_id)


def remove(parts: Parts, camera_id: str, if_match: str | None = None) -> None:
    """No worker reads it any more; past sightings stay.

    Raises:
        Problem: there is no such camera, or it was changed meanwhile.
    """
    row = _defined(parts, camera_id, if_match)
    with _registry(parts) as registry:
        registry.remove(camera_id, expected=row.definition.revision if if_match else None)
    note(parts.audit_folder, "camera removed", [camera_id])


def check(parts: Parts, given: NewCamera) -> Image:
    """One picture through a camera that is not there yet.

    Raises:
        Problem: a field is wrong.
        SourceError: there is no picture; the text says why.
    """
    return _picture(parts, camera_of(given.fields()))


def look(parts: Parts, camera_id: str) -> Image:
    """One picture through a camera of the fleet, as it is now.

    Raises:
        Problem: there is no such camera.
        SourceError: there is no picture; the text says why.
    """
    row = _defined(parts, camera_id)
    note(parts.audit_folder, "camera looked through", [camera_id])
    return _picture(parts, decode_camera(row.definition.document or "", camera_id))


def camera_of(fields: dict[str, Any]) -> CameraConfig:
    """
    Raises:
        Problem: a field is wrong, or no worker of a fleet could read the source.
    """
    try:
        camera = CameraConfig(**fields)
        require_network(camera)
    except (ValidationError, FacestreamError) as error:
        raise unusable(error) from None
    return camera


def _picture(parts: Parts, camera: CameraConfig) -> Image:
    if not parts.trials.acquire(blocking=False):
        raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "several cameras are tested now: try again in a moment")
    try:
        return look_through(camera, parts.opener())
    finally:
        parts.trials.release()


def _defined(parts: Parts, camera_id: str, if_match: str | None = None) -> Registered:
    with _registry(parts) as registry:
        rows = [row for row in parts.registered(registry) if row.definition.camera_id == camera_id]
    if not rows:
        if everything(parts, camera_id):
            raise Problem(
                HTTPStatus.CONFLICT, f"camera {camera_id} is in the configuration of its worker: change it there"
            )
        raise not_found(f"there is no camera {camera_id}; it may have been removed")
    require_match(if_match, etag_of(camera_id, rows[0].definition.revision))
    return rows[0]


@contextmanager
def _registry(parts: Parts) -> Iterator[CameraRegistry]:
    try:
        with told_redis_errors(parts.config.redis):
            yield CameraRegistry(parts.redis(), parts.config.fleet)
    except StaleDefinitionError as error:
        raise Problem(HTTPStatus.PRECONDITION_FAILED, str(error)) from None


@router.get("/cameras", operation_id="list_cameras")
def list_cameras(
    _caller: Reader,
    parts: SharedParts,
    q: Annotated[str, Query(max_length=64, description="a part of the id")] = "",
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 50,
) -> CamerasPage:
    """The cameras, by id: state, owner, frames a second, delay, drops and why, faces that could not be used and why."""
    return page(parts, q, cursor, limit)[0]


@router.post(
    "/cameras",
    operation_id="add_camera",
    response_model=CameraDocument,
    status_code=HTTPStatus.CREATED,
    responses=responses(HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY),
)
def add_camera(
    caller: Manager, parts: SharedParts, given: NewCamera, idempotency_key: IdempotencyKey = None
) -> Response:
    """Have one worker of the fleet read a network camera, as ``facestream camera add``; ``/cameras/check`` tests it."""

    # What is kept to tell requests apart must not help to guess a password.
    asked = given.fields() | {"source": redact_url(given.source)}

    def make() -> tuple[HTTPStatus, str]:
        return HTTPStatus.CREATED, add(parts, given).model_dump_json()

    return once(parts, caller, idempotency_key, f"camera {asked}", make)


@router.post(
    "/cameras/check",
    operation_id="check_camera",
    responses=responses(HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.TOO_MANY_REQUESTS),
)
def check_camera(_caller: Manager, parts: SharedParts, given: NewCamera) -> CheckDocument:
    """Look through a camera once, without adding it: a picture, or the reason why there is none."""
    return checked(lambda: check(parts, given))


def checked(look: Callable[[], Image]) -> CheckDocument:
    """What became of a ``look``."""
    try:
        image = look()
    except FacestreamError as error:
        return CheckDocument(works=False, reason=str(error))
    picture = base64.b64encode(jpeg_of(image, _PICTURE_PX)).decode()
    return CheckDocument(works=True, width=image.shape[1], height=image.shape[0], picture=picture)


@router.get("/cameras/{camera_id}", operation_id="show_camera", responses=responses(HTTPStatus.NOT_FOUND))
def show_camera(_caller: Reader, parts: SharedParts, camera_id: str, response: Response) -> CameraDocument:
    """One camera. Its password is never shown."""
    found = find(parts, camera_id)
    response.headers["ETag"] = etag(found)
    return found


@router.get(
    "/cameras/{camera_id}/picture",
    operation_id="look_through_camera",
    response_class=Response,
    responses=responses(
        HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.UNPROCESSABLE_ENTITY,
        media="image/jpeg", meaning="the picture",
    ),
)  # fmt: skip
def look_through_camera(_caller: Manager, parts: SharedParts, camera_id: str) -> Response:
    """One picture through a camera of the fleet, as it is now."""
    return Response(jpeg_of(look(parts, camera_id), _PICTURE_PX), media_type="image/jpeg")


@router.patch("/cameras/{camera_id}", operation_id="change_camera", responses=_CHANGES)
def change_camera(
    _caller: Manager,
    parts: SharedParts,
    camera_id: str,
    given: CameraChange,
    response: Response,
    if_match: IfMatch = None,
) -> CameraDocument:
    """Change what is given; what is left out stays, also the password. ``paused`` pauses and resumes."""
    changed = change(parts, camera_id, given, if_match)
    response.headers["ETag"] = etag(changed)
    return changed


@router.delete(
    "/cameras/{camera_id}", operation_id="remove_camera", status_code=HTTPStatus.NO_CONTENT, responses=_CHANGES
)
def remove_camera(_caller: Manager, parts: SharedParts, camera_id: str, if_match: IfMatch = None) -> None:
    """Stop reading a camera, and forget its definition; past sightings stay."""
    remove(parts, camera_id, if_match)
