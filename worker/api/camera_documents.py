"""What the operations on cameras answer with, and what they are given."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, StringConstraints

from worker.api.documents import Given
from worker.config import CameraConfig, Outline, ZoneName
from worker.errors import ConfigError
from worker.redaction import redact_url

if TYPE_CHECKING:
    from worker.fleet.registry import Registered

_WELL: Final = {"streaming", "ended", "paused"}
Masks = Annotated[list[Outline], Field(max_length=32)]
Zones = Annotated[dict[ZoneName, Outline], Field(max_length=32)]
Source = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
Rotation = Literal[0, 90, 180, 270]


class CameraDocument(BaseModel):
    """One camera: what it is to be, and how it is. Rates are those of the last seconds."""

    camera_id: str
    source: str = Field(description="without user and password; empty where only a worker's own configuration has it")
    defined: bool = Field(description="whether the fleet defines it, so that it can be changed here")
    revision: int
    paused: bool
    state: str = Field(description="'streaming', or what keeps it from that")
    reason: str
    owner: str = Field(description="the worker that reads it; empty: none")
    epoch: int
    fps: float | None = Field(description="frames a second")
    latency_p95_s: float | None = Field(description="from a frame to its event in Redis, for 95 of 100 events")
    last_frame_age_s: float | None
    drops: dict[str, float] = Field(description="frames a second that were given up, by reason")
    refused: dict[str, float] = Field(
        description="faces a second that could not be used, by reason; 'blurred' tells of focus, 'exposure' of light"
    )
    transport: Literal["tcp", "udp"]
    rotate: Rotation
    flip: Literal["none", "horizontal", "vertical"]
    threshold: float | None
    masks: Masks
    zones: Zones

    @property
    def is_well(self) -> bool:
        return self.state in _WELL


class CamerasPage(BaseModel):
    """Some of the cameras, by id."""

    items: list[CameraDocument]
    next_cursor: str | None = Field(description="leads to the next page; null on the last one")
    total: int = Field(description="how many there are on all pages")


class CameraChange(Given):
    """What is to change; what is left out stays. Null is the default of a field; the source has none, and stays."""

    source: Source | None = Field(
        None, description="rtsp(s):// or http(s):// URL, with user and password if it has them"
    )
    paused: bool | None = Field(None, description="whether no worker is to read it for now")
    transport: Literal["tcp", "udp"] | None = None
    rotate: Rotation | None = None
    flip: Literal["none", "horizontal", "vertical"] | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    masks: Masks | None = Field(None, description="areas in which no face counts: corners from 0 to 1")
    zones: Zones | None = Field(None, description="areas that events name")


class NewCamera(Given):
    """A camera to add or to test."""

    camera_id: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    source: Source = Field(description="rtsp(s):// or http(s):// URL, with user and password if it has them")
    transport: Literal["tcp", "udp"] = "tcp"
    rotate: Rotation = 0
    flip: Literal["none", "horizontal", "vertical"] = "none"
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None

    def fields(self) -> dict[str, Any]:
        """As the configuration has them."""
        fields = self.model_dump(exclude_none=True)
        return {"id": fields.pop("camera_id"), **fields}


class CheckDocument(BaseModel):
    """What a look through a camera has shown."""

    works: bool
    reason: str = Field("", description="why there is no picture")
    width: int | None = None
    height: int | None = None
    picture: str | None = Field(None, description="a JPEG in base64")


class HourDocument(BaseModel):
    """The faces before a camera within an hour."""

    hour: str = Field(description="when it began")
    faces: int = Field(description="whose quality was looked at")
    blurred: int = Field(description="out of focus, or moved too fast")
    exposure: int = Field(description="too dark or too bright")


class HoursPage(BaseModel):
    """The hours in which there were faces, oldest first."""

    items: list[HourDocument]


def camera_document(camera_id: str, row: "Registered | None", report: Mapping[str, Any] | None) -> CameraDocument:
    """Of a camera that the fleet defines in ``row``, or of which a worker has sent ``report``, or both.

    ``report``: the fields of :class:`worker.service.status.CameraStatus`, the worker and its condition.
    """
    # Programs that use the documents alone need no Redis.
    from worker.fleet.registry import decode_camera, why_unowned

    camera, refusal = CameraConfig(id="none", source="rtsp://none/"), ""
    if row is not None:
        try:
            camera = decode_camera(row.definition.document or "", camera_id)
        except ConfigError as error:
            refusal = str(error)
    told = report or {}
    owner = (row.worker_id if row is not None else "") or told.get("worker_id", "")
    state, reason = told.get("state", "connecting"), told.get("reason", "")
    if row is not None and (not row.owner or refusal):
        told, owner, state, reason = {}, "", why_unowned(row), refusal
    elif told.get("condition") in {"silent", "gone"}:
        state, reason, told = f"worker {told['condition']}", "the worker has not reported for a while", {}
    return CameraDocument(
        camera_id=camera_id, source="" if row is None or refusal else redact_url(camera.source.get_secret_value()),
        defined=row is not None, revision=row.definition.revision if row else 0,
        paused=row is not None and row.definition.paused, state=state, reason=reason, owner=owner,
        epoch=row.epoch if row else 0, fps=told.get("fps"), latency_p95_s=told.get("latency_p95_s"),
        last_frame_age_s=told.get("last_frame_age_s"), drops=told.get("drops", {}), refused=told.get("refused", {}),
        transport=camera.transport, rotate=camera.rotate, flip=camera.flip, threshold=camera.threshold,
        masks=list(camera.masks), zones=camera.zones,
    )  # fmt: skip
