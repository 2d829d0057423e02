"""What a worker tells people of itself, one JSON document, and what the workers of a fleet told last.

Of all that a worker is made of, this module loads nothing: ``facestream status`` shall answer at once.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, ValidationError
from redis.exceptions import NoPermissionError

from worker.redaction import first_problem
from worker.redis.client import Client, server_time_ms
from worker.redis.keys import fleet_key
from worker.wire import as_text, parse_rfc3339, rfc3339

SILENT_AFTER_S: Final = 6.0
"""A worker that has not reported for this long is shown as silent."""
GONE_AFTER_S: Final = 30.0
"""A worker that has not reported for this long is shown as gone: it was killed, or its machine is cut off."""

_FORGET_AFTER_S: Final = 24 * 3600.0

_Amount = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
_Whole = Annotated[int, Field(ge=0, lt=2**63)]
_Line = Annotated[str, AfterValidator(lambda text: text[:2000])]


def _time_of(text: str) -> str:
    parse_rfc3339(text)
    return text


class CameraStatus(BaseModel, frozen=True):
    """One camera of one worker. Rates are those of the last seconds; an age is None until there is something to count
    from. ``drops``: frames a second that were given up, by reason. ``refused``: faces a second that could not be used,
    by reason; many that are ``blurred`` or of poor ``exposure`` tell of focus and light."""

    camera_id: _Line
    state: _Line
    reason: _Line
    epoch: _Whole = 0
    fps: _Amount = 0.0
    dropped_per_s: _Amount = 0.0
    latency_p95_s: _Amount | None = None
    last_frame_age_s: _Amount | None = None
    last_event_age_s: _Amount | None = None
    drops: dict[_Line, _Amount] = {}
    refused: dict[_Line, _Amount] = {}


class DatabaseStatus(BaseModel, frozen=True):
    """The database that a fleet shares, as a worker sees it. ``problem``: why it cannot be used now; empty if it can.

    ``copy_age_s``: since when the worker's copy of the gallery is not known to be the newest; None where the gallery
    lies elsewhere. ``waiting_rows``: what is to be remembered and not written yet. ``layout``: the one that the worker
    uses, which the database had when it was opened.
    """

    reachable: bool
    problem: _Line = ""
    copy_age_s: _Amount | None = None
    waiting_rows: _Whole = 0
    layout: _Whole = 0


class WorkerStatus(BaseModel, frozen=True):
    """One worker, at the time ``at`` (RFC 3339 UTC). ``process`` tells workers of one name apart: host and number."""

    worker_id: _Line
    at: Annotated[str, AfterValidator(_time_of)]
    version: _Line
    uptime_s: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
    ready: bool
    reasons: dict[_Line, _Line]
    outbox_events: _Whole
    gallery_people: _Whole
    gallery_version: _Whole
    load: _Amount | None = None
    process: _Line = ""
    warnings: dict[_Line, _Line] = {}
    database: DatabaseStatus | None = None
    cameras: Annotated[list[CameraStatus], Field(max_length=10_000)] = []

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        return self.model_dump()

    @classmethod
    def parse(cls, document: Any) -> Self:
        """From :meth:`document`; fields that a later version added are ignored.

        Raises:
            ValueError: a field is missing or wrong.
        """
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise ValueError(f"not a worker's status: {first_problem(error)}") from None


def reported(
    client: Client, fleet: str, on_problem: Callable[[str], None] = lambda _problem: None
) -> Iterator[WorkerStatus]:
    """What the workers of a fleet reported last, also of those that have fallen silent within a day. Of a worker that
    was started again under its name, what it reported before is left out. A report that cannot be read is passed over,
    and ``on_problem`` is told which.

    Reports bear the time of Redis' clock; what is given here bears that of this machine.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    key = fleet_key(fleet, "status")
    entries: dict[Any, Any] = client.hgetall(key)
    found: list[WorkerStatus] = []
    ahead = datetime.now(UTC) - redis_time(client)
    for name, text in sorted(entries.items()):
        try:
            status = WorkerStatus.model_validate_json(text)
        except ValidationError as error:
            on_problem(f"the status of worker {as_text(name)} cannot be read: {first_problem(error)}")
            continue
        status = status.model_copy(update={"at": rfc3339(parse_rfc3339(status.at) + ahead)})
        if age_s(status) < _FORGET_AFTER_S:
            found.append(status)
        else:
            client.hdel(key, name)
    for status in sorted(found, key=lambda status: (status.worker_id, status.process)):
        if not any(_follows(other, status) for other in found):
            yield status


def redis_time(client: Client) -> datetime:
    """What Redis' clock says; for a user who may not ask for it, what this machine's does.

    Raises:
        redis.RedisError: Redis cannot be asked.
    """
    with suppress(NoPermissionError):
        return datetime.fromtimestamp(server_time_ms(client) / 1000, UTC)
    return datetime.now(UTC)


def condition_of(status: WorkerStatus) -> Literal["ready", "not ready", "silent", "gone"]:
    """How a worker is, as far as its last report and the time since tell."""
    silent_s = age_s(status)
    if silent_s > GONE_AFTER_S:
        return "gone"
    if silent_s > SILENT_AFTER_S:
        return "silent"
    return "ready" if status.ready else "not ready"


def _follows(status: WorkerStatus, before: WorkerStatus) -> bool:
    """Whether ``status`` is of a process that was started under the same name after ``before`` had fallen silent."""
    if status is before or status.worker_id != before.worker_id or age_s(before) <= SILENT_AFTER_S:
        return False
    return parse_rfc3339(status.at) - timedelta(seconds=status.uptime_s) > parse_rfc3339(before.at)


def age_s(status: WorkerStatus) -> float:
    """How long ago it was made, by the clock of this machine."""
    return (datetime.now(UTC) - parse_rfc3339(status.at)).total_seconds()
