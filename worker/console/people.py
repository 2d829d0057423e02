"""Everybody who is enrolled; one of them; and photos of somebody new."""

from typing import Annotated, Final

from fastapi import APIRouter, File, Form, Query, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse

from worker.api import people, sightings
from worker.api.access import SharedParts
from worker.console.pages import Sender, Visitor, gone_to, render

router = APIRouter(include_in_schema=False)

_SHOWN: Final = 60
_SEEN: Final = 8


@router.get("/people")
def list_page(
    caller: Visitor,
    parts: SharedParts,
    q: Annotated[str, Query(max_length=200)] = "",
    cursor: str | None = None,
    said: str = "",
) -> HTMLResponse:
    """Everybody, by name."""
    found = people.page(parts, q, cursor, _SHOWN)
    return render(
        "people", caller, people=found.items, more=found.next_cursor, total=found.total, q=q, said=said, photos=None,
        name="",
    )  # fmt: skip


@router.post("/people")
def enroll(
    caller: Sender,
    parts: SharedParts,
    photos: Annotated[list[UploadFile], File()],
    identity_name: Annotated[str, Form(max_length=200)] = "",
) -> HTMLResponse:
    """Enrols photos, and says of each what became of it."""
    results = people.enroll(parts, identity_name, photos)
    found = people.page(parts, "", None, _SHOWN)
    return render(
        "people", caller, people=found.items, more=found.next_cursor, total=found.total, q="", said="", photos=results,
        name=identity_name,
    )  # fmt: skip


@router.get("/people/{identity_id}")
def one_page(caller: Visitor, parts: SharedParts, identity_id: str, said: str = "") -> HTMLResponse:
    """One person: samples, and where they were seen last."""
    person = people.find(parts, identity_id)
    seen, _more = sightings.page(parts, _SEEN, identity_id=identity_id)
    return render("person", caller, person=person, etag=people.etag(person), seen=seen, said=said)


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


@router.post("/people/{identity_id}/remove")
def remove(_caller: Sender, parts: SharedParts, identity_id: str, etag: Annotated[str, Form()]) -> RedirectResponse:
    """Removes a person with all samples."""
    people.remove(parts, identity_id, etag)
    return gone_to("/people", said="removed")


@router.post("/people/{identity_id}/samples/{sample_id}/remove")
def remove_sample(
    _caller: Sender, parts: SharedParts, identity_id: str, sample_id: str, etag: Annotated[str, Form()]
) -> RedirectResponse:
    """Removes one face."""
    people.remove_sample(parts, identity_id, sample_id, etag)
    return gone_to(f"/people/{identity_id}", said="sample")
