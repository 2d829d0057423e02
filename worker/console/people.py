"""Everybody who is enrolled; one of them; and photos of somebody new."""

import json
from http import HTTPStatus
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, File, Form, Query, Response, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from pydantic import ValidationError

from worker.api import erasing, findings, groups, merging, people, sightings
from worker.api.access import Caller, SharedParts
from worker.api.parts import Parts
from worker.api.person_documents import ConsentSettings, GroupSettings, person_document
from worker.api.problems import Problem
from worker.console.choices import meant
from worker.console.pages import Sender, Visitor, gone_to, render, render_slowly
from worker.errors import GalleryError

router = APIRouter(include_in_schema=False)

_SHOWN: Final = 60
_SEEN: Final = 8
_RECEIPTS: Final = 200
_FOUND: Final = 200


@router.get("/people")
def list_page(
    caller: Visitor,
    parts: SharedParts,
    q: Annotated[str, Query(max_length=200)] = "",
    group: Annotated[str, Query(max_length=200)] = "",
    consent: people.Consents | None = None,
    cursor: str | None = None,
    said: str = "",
) -> HTMLResponse:
    """Everybody, by name; or those of one group."""
    return _list(caller, parts, q=q, group=group, consent=consent, cursor=cursor, said=said)


def _list(
    caller: Caller,
    parts: Parts,
    *,
    q: str = "",
    group: str = "",
    consent: people.Consents | None = None,
    cursor: str | None = None,
    **values: Any,
) -> HTMLResponse:
    found = people.page(parts, q, cursor, _SHOWN, group, consent=consent, seen=True)
    shown = {"said": "", "photos": None, "name": ""} | values
    return render(
        "people", caller, people=found.items, more=found.next_cursor, total=found.total, q=q, group=group,
        consent=consent, soon=found.consents_ending, over=found.consents_over,
        groups={each.group: each for each in groups.listed(parts)}, version_of=groups.etag, **shown,
    )  # fmt: skip


@router.post("/people")
def enroll(
    caller: Sender,
    parts: SharedParts,
    photos: Annotated[list[UploadFile], File()],
    identity_name: Annotated[str, Form(max_length=200)] = "",
) -> HTMLResponse:
    """Enrols photos, and says of each what became of it."""
    return _list(caller, parts, photos=people.enroll(parts, identity_name, photos), name=identity_name)


@router.get("/people/{identity_id}")
def one_page(
    caller: Visitor, parts: SharedParts, identity_id: str, said: str = "",
    steps: Annotated[str, Query(max_length=200)] = "",
) -> HTMLResponse:  # fmt: skip
    """One person: samples, and where they were seen last."""
    person = people.find(parts, identity_id)
    seen, _more = sightings.page(parts, _SEEN, identity_id=identity_id)
    with parts.history() as history:
        namings, mergers = history.namings_of(identity_id), history.mergers_of(identity_id)
    return render(
        "person", caller, person=person, consent=person_document(person).consent, etag=people.etag(person),
        seen=seen, said=said, groups=groups.listed(parts), namings=namings, audit=findings.look(parts, identity_id),
        mergers=mergers, steps=steps,
    )  # fmt: skip


@router.post("/people/{identity_id}/rename")
def rename(
    _caller: Sender,
    parts: SharedParts,
    identity_id: str,
    etag: Annotated[str, Form()],
    identity_name: Annotated[str, Form(max_length=200)] = "",
) -> RedirectResponse:
    """Another name; the id stays."""
    people.rename(parts, identity_id, identity_name, etag)
    return gone_to(f"/people/{identity_id}", said="renamed")


@router.get("/people/{identity_id}/merge")
def merge_page(
    caller: Sender, parts: SharedParts, identity_id: str, other: Annotated[str, Query(max_length=300)] = ""
) -> HTMLResponse:
    """What changes if somebody else (name or id) is the same person, and the question."""
    person = people.find(parts, identity_id)
    other_id, problem = meant(parts.people(), other) if other else (None, "")
    plan, etag = None, ""
    if other_id is not None:
        try:
            plan, etag = merging.plan(parts, identity_id, other_id)
        except Problem as error:
            problem = error.detail
        except GalleryError as error:
            problem = str(error)
    return render("merge", caller, person=person, other=other, problem=problem, plan=plan, etag=etag)


@router.post("/people/{identity_id}/merge")
def merge(
    _caller: Sender,
    parts: SharedParts,
    identity_id: str,
    other_id: Annotated[str, Form(max_length=300)],
    etag: Annotated[str, Form()],
) -> RedirectResponse:
    """Two entries are one person."""
    done = merging.merge(parts, identity_id, other_id, etag)
    return gone_to(f"/people/{identity_id}", said="merged", steps=done.step)


@router.post("/people/{identity_id}/groups")
def regroup(
    _caller: Sender,
    parts: SharedParts,
    identity_id: str,
    etag: Annotated[str, Form()],
    group: Annotated[list[str] | None, Form()] = None,
) -> RedirectResponse:
    """The groups of a person."""
    groups.regroup(parts, identity_id, group or [], etag)
    return gone_to(f"/people/{identity_id}", said="groups")


@router.post("/people/{identity_id}/consent")
def set_consent(
    _caller: Sender,
    parts: SharedParts,
    identity_id: str,
    etag: Annotated[str, Form()],
    since: Annotated[str, Form(max_length=40)] = "",
    until: Annotated[str, Form(max_length=40)] = "",
    basis: Annotated[str, Form(max_length=200)] = "",
    note: Annotated[str, Form(max_length=1000)] = "",
) -> RedirectResponse:
    """From when until when a person may be recognised; all left empty: nothing bounds that."""
    settings = None
    if since or until or basis or note:
        try:
            settings = ConsentSettings.model_validate(
                {"since": since or None, "until": until or None, "basis": basis, "note": note}
            )
        except ValidationError:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{since or until!r} is not a day") from None
    people.set_consent(parts, identity_id, settings, etag)
    return gone_to(f"/people/{identity_id}", said="consent")


@router.post("/groups")
def set_group(
    _caller: Sender,
    parts: SharedParts,
    group: Annotated[str, Form(max_length=200)],
    threshold: Annotated[str, Form(max_length=20)] = "",
    colour: Annotated[str, Form(max_length=20)] = "",
    advice: Annotated[str, Form(max_length=300)] = "",
    etag: Annotated[str, Form()] = "",
) -> RedirectResponse:
    """Makes a group; with the etag of one, sets it anew."""
    try:
        settings = GroupSettings.model_validate({"threshold": threshold or None, "colour": colour, "advice": advice})
    except ValidationError:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"{threshold!r} is not a threshold: write a number from -1 to 1, or nothing",
        ) from None
    groups.set_group(parts, group, settings, etag or None, fresh=not etag)
    return gone_to("/people", said="group")


@router.post("/groups/delete")
def delete_group(
    _caller: Sender, parts: SharedParts, group: Annotated[str, Form(max_length=200)], etag: Annotated[str, Form()]
) -> RedirectResponse:
    """Deletes a group; its people stay."""
    groups.delete(parts, group, etag)
    return gone_to("/people", said="no-group")


@router.post("/people/{identity_id}/remove")
def remove(_caller: Sender, parts: SharedParts, identity_id: str, etag: Annotated[str, Form()]) -> RedirectResponse:
    """Removes a person with all samples."""
    people.remove(parts, identity_id, etag)
    return gone_to("/people", said="removed")


@router.get("/findings")
def findings_page(caller: Visitor, parts: SharedParts) -> HTMLResponse:
    """What an audit finds in the gallery."""
    state, found = findings.look(parts)
    return render("findings", caller, state=state, found=found[:_FOUND], total=len(found))


@router.get("/people/{identity_id}/erase")
def erase_page(caller: Sender, parts: SharedParts, identity_id: str) -> HTMLResponse:
    """What there is of a person, and the question."""
    plan = erasing.plan_of(parts, identity_id=identity_id)
    back = f"/people/{quote(identity_id, safe='')}"
    return render("erase", caller, plan=plan, back=back, etag=people.etag(people.find(parts, identity_id)))


@router.post("/people/{identity_id}/erase")
def erase(caller: Sender, parts: SharedParts, identity_id: str, etag: Annotated[str, Form()]) -> StreamingResponse:
    """Erases a person, and tells each step when it is done."""
    return _erased(caller, erasing.order(parts, etag, identity_id=identity_id))


@router.get("/unknown/{unknown_id}/erase")
def erase_unknown_page(caller: Sender, parts: SharedParts, unknown_id: str) -> HTMLResponse:
    """The same of an unknown person."""
    plan = erasing.plan_of(parts, unknown_id=unknown_id)
    back = f"/unknown/{quote(unknown_id, safe='')}"
    return render("erase", caller, plan=plan, back=back, etag="*")  # seen again or not


@router.post("/unknown/{unknown_id}/erase")
def erase_unknown(
    caller: Sender, parts: SharedParts, unknown_id: str, etag: Annotated[str, Form()]
) -> StreamingResponse:
    """Erases an unknown person."""
    return _erased(caller, erasing.order(parts, etag, unknown_id=unknown_id))


def _erased(caller: Caller, work: erasing.Erasing) -> StreamingResponse:
    return render_slowly("erased", caller, lines=work.lines(), work=work)


@router.get("/erasures")
def erasures(caller: Sender, parts: SharedParts) -> HTMLResponse:
    """The receipts that are kept here."""
    return render("erasures", caller, erasures=erasing.receipts(parts)[:_RECEIPTS])


@router.get("/erasures/{erasure_id}/receipt")
def receipt(_caller: Sender, parts: SharedParts, erasure_id: str) -> Response:
    """A receipt as a file."""
    signed = json.dumps(erasing.receipt(parts, erasure_id), indent=1)
    name = f'attachment; filename="receipt-{erasure_id}.json"'
    return Response(f"{signed}\n", media_type="application/json", headers={"Content-Disposition": name})


@router.post("/people/{identity_id}/samples/{sample_id}/remove")
def remove_sample(
    _caller: Sender, parts: SharedParts, identity_id: str, sample_id: str, etag: Annotated[str | None, Form()] = None
) -> RedirectResponse:
    """Removes one face."""
    people.remove_sample(parts, identity_id, sample_id, etag)
    return gone_to(f"/people/{identity_id}", said="sample")
