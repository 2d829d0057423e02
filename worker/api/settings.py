"""What holds here: thresholds and how often they are wrong, how long things are kept; and the audit log."""

from collections import deque
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from worker.api.access import Manager, SharedParts
from worker.api.documents import Risk
from worker.api.parts import Parts
from worker.api.problems import responses
from worker.api.suggestions import risk_of
from worker.audit_log import AuditLog

router = APIRouter(tags=["settings"])

_MOST: Final = 200


class AuditEntry(BaseModel):
    """One line of the audit log. It names nobody: ``subjects`` are digests of ids."""

    number: int
    at: str
    by: str
    action: str
    subjects: list[str]
    details: dict[str, Any]


class AuditPage(BaseModel):
    """Some lines of the audit log, newest first."""

    items: list[AuditEntry]
    next_before: int | None = Field(description="give it back as 'before' for earlier lines; null on the last page")


class AuditVerification(BaseModel):
    """Whether the log is whole."""

    lines: int
    problems: list[str] = Field(description="what was changed, taken out or cut off; empty if all is well")


class SettingsDocument(BaseModel):
    """What holds here. Days of keeping are those of the console's configuration; workers go by their own."""

    risk: Risk | None = Field(description="null where nobody is enrolled yet")
    sightings_days: float
    unknowns_days: float
    session_hours: float


def settings(parts: Parts) -> SettingsDocument:
    """
    Raises:
        GalleryError: the gallery cannot be read.
    """
    config = parts.config
    return SettingsDocument(
        risk=risk_of(parts, parts.gallery()) if parts.has_gallery() else None,
        sightings_days=config.history.keep_days, unknowns_days=config.unknowns.remember_days,
        session_hours=config.console.session_hours,
    )  # fmt: skip


def audit(
    parts: Parts, *, about: str = "", action: str = "", by: str = "", before: int | None = None, limit: int = _MOST
) -> AuditPage:
    """The newest lines of which these hold; ``about`` is an id.

    Raises:
        AuditError: the log cannot be read.
    """
    log = AuditLog(parts.audit_folder)
    if not log.exists:
        return AuditPage(items=[], next_before=None)
    subject = log.subject_of(about) if about else ""
    newest: deque[AuditEntry] = deque(maxlen=limit + 1)
    for entry in log.entries():
        if entry.get("damaged"):
            continue
        told = AuditEntry.model_validate(entry)
        if before is not None and told.number >= before:
            break
        if (
            (not subject or subject in told.subjects)
            and action.casefold() in told.action.casefold()
            and by.casefold() in told.by.casefold()
        ):
            newest.append(told)
    more = newest[1].number if len(newest) > limit else None
    return AuditPage(items=list(reversed(newest))[:limit], next_before=more)


def verify(parts: Parts) -> AuditVerification:
    """
    Raises:
        AuditError: the log, its head or its key cannot be read.
    """
    log = AuditLog(parts.audit_folder)
    if not log.exists:
        return AuditVerification(lines=0, problems=[])
    head, problems = log.verify()
    return AuditVerification(lines=head.number, problems=problems)


@router.get("/settings", operation_id="show_settings")
def show_settings(_caller: Manager, parts: SharedParts) -> SettingsDocument:
    """The threshold in use and how often it is wrong, and how long things are kept."""
    return settings(parts)


@router.get("/audit", operation_id="list_audit", responses=responses(HTTPStatus.CONFLICT))
def list_audit(
    _caller: Manager,
    parts: SharedParts,
    about: Annotated[str, Query(max_length=300, description="an id")] = "",
    action: Annotated[str, Query(max_length=100, description="a part of the action")] = "",
    by: Annotated[str, Query(max_length=100, description="a part of who did it")] = "",
    before: Annotated[int | None, Query(ge=1, le=2**53)] = None,
    limit: Annotated[int, Query(ge=1, le=_MOST)] = 50,
) -> AuditPage:
    """The audit log, newest first, as ``facestream audit list``."""
    return audit(parts, about=about, action=action, by=by, before=before, limit=limit)


@router.get("/audit/verification", operation_id="verify_audit", responses=responses(HTTPStatus.CONFLICT))
def verify_audit(_caller: Manager, parts: SharedParts) -> AuditVerification:
    """Whether the audit log is whole, as ``facestream audit verify``."""
    return verify(parts)
