"""What an audit finds in the gallery: look-alikes, samples of somebody else, too little known of somebody."""

import threading
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query

from worker.api.access import Reader, SharedParts
from worker.api.paging import MOST, cursor_of, place_of
from worker.api.parts import Parts
from worker.api.people import origin
from worker.api.person_documents import FindingDocument, FindingsPage
from worker.evaluation.audit import Finding, audit
from worker.gallery.gallery import Gallery

router = APIRouter(tags=["people"])

State = Literal["ready", "working", "too_large"]
MOST_SAMPLES: Final = 20_000
"""Everybody is compared with everybody: of a larger gallery, 'facestream gallery audit' does it, once."""
_PATIENCE_S: Final = 0.3
_working = threading.Lock()


def look(parts: Parts, identity_id: str = "") -> tuple[State, list[Finding]]:
    """What was found, of one person if ``identity_id`` names one, as it is in the version of the gallery now. It is
    worked out once for a version, in the background."""
    if not parts.has_gallery():
        return "ready", []
    # In this order: what is erased from now on makes it another one.
    erased, gallery = parts.erased.ids, parts.gallery()
    if gallery.sample_count > MOST_SAMPLES:
        return "too_large", []
    threshold = parts.threshold(gallery)
    wanted = gallery.version, erased, threshold
    if parts.findings[0] != wanted and not _working.locked():
        work = threading.Thread(target=_work, args=(parts, gallery, wanted), name="audit", daemon=True)
        work.start()
        work.join(_PATIENCE_S)
    done, found = parts.findings
    if done != wanted:
        return "working", []
    return "ready", [each for each in found if not identity_id or identity_id in each.identity_ids]


def _work(parts: Parts, gallery: Gallery, wanted: tuple[int, frozenset[str], float]) -> None:
    version, _erased, threshold = wanted
    with _working:
        found = audit(gallery, threshold=threshold, margin=parts.config.recognition.margin)
        if gallery.version == version:
            parts.findings = wanted, found


@router.get("/findings", operation_id="list_findings")
def list_findings(
    _caller: Reader,
    parts: SharedParts,
    identity_id: Annotated[str, Query(max_length=200, description="about this person alone")] = "",
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 50,
) -> FindingsPage:
    """What is worth a look in the gallery, as ``facestream gallery audit`` finds it: the gravest first."""
    state, found = look(parts, identity_id)
    begun = 0 if cursor is None else max(int(place_of(cursor, int)[0]), 0)
    items = found[begun : begun + limit]
    more = cursor_of(begun + limit) if len(found) > begun + limit else None
    return FindingsPage(state=state, items=[_document(parts, each) for each in items], next_cursor=more)


def _document(parts: Parts, finding: Finding) -> FindingDocument:
    photos, detail = [origin(parts, photo) for photo in finding.photos], finding.detail
    for photo, shown in zip(finding.photos, photos, strict=True):
        detail = detail.replace(photo, shown)
    return FindingDocument(
        kind=finding.kind, people=list(finding.people), identity_ids=list(finding.identity_ids),
        sample_ids=list(finding.sample_ids), photos=photos, similarity=finding.similarity,
        detail=detail, advice=finding.advice,
    )  # fmt: skip
