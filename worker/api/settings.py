"""What holds here: thresholds and how often they are wrong, how long things are kept; and the audit log."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Response

from worker.api.access import Manager, Reader, SharedParts
from worker.api.camera_documents import CameraDocument
from worker.api.cameras import known as cameras_known
from worker.api.groups import known
from worker.api.paging import IfMatch, etag_of, require_match
from worker.api.parts import Parts
from worker.api.problems import responses
from worker.api.setting_documents import (
    AuditEntry,
    AuditPage,
    AuditVerification,
    RetentionDocument,
    SettingsDocument,
    ThresholdDocument,
)
from worker.api.sight import sees
from worker.api.suggestions import risk_of, strangers_a_day
from worker.audit_log import AuditLog, note
from worker.history.retention import Retention

router = APIRouter(tags=["settings"])

_MOST: Final = 200


def settings(parts: Parts, cameras: Sequence[CameraDocument] | None = None) -> SettingsDocument:
    """``cameras``: all of them, if they are known already.

    Raises:
        GalleryError: the gallery cannot be read.
    """
    kept = retention(parts)
    config = kept.over(parts.config)
    return SettingsDocument(
        risk=risk_of(parts, parts.gallery()) if parts.has_gallery() else None,
        thresholds=thresholds(parts, cameras_known(parts) if cameras is None else cameras),
        sightings_days=config.history.keep_days, unknowns_days=config.unknowns.remember_days,
        pictures_days=None if config.evidence.store is None else config.evidence.keep_days,
        retention=RetentionDocument(**asdict(kept)), session_hours=config.console.session_hours,
    )  # fmt: skip


def retention(parts: Parts) -> Retention:
    """For how long things are kept, as far as that is set for all."""
    with parts.history() as history:
        return history.retention()


def etag(kept: Retention) -> str:
    """Another one after each change."""
    return etag_of(asdict(kept))


def keep(parts: Parts, given: RetentionDocument, if_match: str | None = None) -> Retention:
    """Sets for how long things are kept, for all who use the database. What is too old by it goes at once; pictures go
    when the workers hear of it, within seconds.

    Raises:
        Problem: somebody else was quicker.
        HistoryError: the database cannot be written.
    """
    wanted = Retention(**given.model_dump())
    with parts.history() as history:
        before = history.keep(wanted, lambda before: require_match(if_match, etag(before)))
        config = wanted.over(parts.config)
        gone = (
            history.prune(
                keep_s=timedelta(days=config.history.keep_days).total_seconds(),
                remember_s=timedelta(days=config.unknowns.remember_days).total_seconds(),
            )
            if wanted != before
            else 0
        )
    told = {name: "as configured" if days is None else f"{days:g}" for name, days in asdict(wanted).items()}
    note(parts.audit_folder, "retention changed", (), **told, rows_removed=gone)
    return wanted


def thresholds(parts: Parts, cameras: Sequence[CameraDocument]) -> list[ThresholdDocument]:
    """From which similarity somebody is named: in general, by cameras and for groups that have a threshold of their
    own; nothing where nobody is enrolled.

    Raises:
        GalleryError: the gallery cannot be read.
    """
    if not parts.has_gallery():
        return []
    gallery = parts.gallery()
    with parts.history() as history:
        strangers, seen = parts.strangers.look(history), history.seen_unknown()

    def told(of: Literal["everybody", "camera", "group"], name: str, threshold: float | None, samples: int) -> None:
        risk = risk_of(parts, gallery, threshold)
        by_samples = None if risk.false_match_rate is None else min(1.0, risk.false_match_rate * samples)
        rate = by_samples if risk.stranger_rate is None or of == "group" else risk.stranger_rate
        there = [one for one in strangers if of != "camera" or name in seen.get(one.unknown_id, {})]
        alarms = (rate or 0.0) * strangers_a_day(there)
        found.append(
            ThresholdDocument(
                **risk.model_dump() | {"stranger_rate": rate}, of=of, name=name,
                false_alarm_days=round(1 / alarms, 2) if alarms > 0 else None,
            )
        )  # fmt: skip

    found: list[ThresholdDocument] = []
    told("everybody", "", None, gallery.sample_count)
    own = {} if parts.config.recognition.threshold is not None else gallery.camera_thresholds
    own = {camera_id: threshold for camera_id, threshold in own.items() if sees(camera_id)}
    own |= {one.camera_id: one.threshold for one in cameras if one.threshold is not None}
    for camera_id, threshold in sorted(own.items()):
        told("camera", camera_id, threshold, gallery.sample_count)
    samples = Counter(name for person in parts.people() for name in person.groups for _ in person.samples)
    for name, group in known(parts).items():
        if group.threshold is not None:
            told("group", name, group.threshold, samples[name])
    return found


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
def show_settings(_caller: Reader, parts: SharedParts) -> SettingsDocument:
    """The thresholds in use and how often they are wrong, and how long things are kept."""
    return settings(parts)


@router.get("/retention", operation_id="show_retention")
def show_retention(_caller: Reader, parts: SharedParts, response: Response) -> RetentionDocument:
    """For how long things are kept, as far as that is set for all workers on this database."""
    kept = retention(parts)
    response.headers["ETag"] = etag(kept)
    return RetentionDocument(**asdict(kept))


@router.put(
    "/retention",
    operation_id="change_retention",
    responses=responses(HTTPStatus.PRECONDITION_FAILED, HTTPStatus.UNPROCESSABLE_ENTITY),
)
def change_retention(
    _caller: Manager, parts: SharedParts, given: RetentionDocument, response: Response, if_match: IfMatch = None
) -> RetentionDocument:
    """Set for how long things are kept, for all workers on this database and ``facestream database expire``. What is
    too old by it is removed; what was recorded before is not kept longer than was said then."""
    kept = keep(parts, given, if_match)
    response.headers["ETag"] = etag(kept)
    return RetentionDocument(**asdict(kept))


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
