"""Unknown people: who they may be, and what it risks to say so."""

from typing import Annotated, Final

from fastapi import APIRouter, Form, Query
from fastapi.responses import HTMLResponse, RedirectResponse

from worker.api import unknowns
from worker.api.access import SharedParts
from worker.console.pages import Sender, Visitor, gone_to, render

router = APIRouter(include_in_schema=False)

_SHOWN: Final = 12
_FACES: Final = 4
_NAMES: Final = 500


@router.get("/unknown")
def list_page(
    caller: Visitor,
    parts: SharedParts,
    start: Annotated[int, Query(ge=0)] = 0,
    named: str = "",
    merged: str = "",
    said: str = "",
) -> HTMLResponse:
    """Unknown people with their best faces, those first who were seen most often."""
    everybody = unknowns.everybody(parts)
    shown = everybody[start : start + _SHOWN]
    faces = unknowns.faces_of(parts, [person.unknown_id for person in shown], _FACES)
    cards = [(unknowns.detail(parts, person.unknown_id), faces[person.unknown_id]) for person in shown]
    people = parts.people()
    return render(
        "unknown", caller, cards=cards, total=len(everybody), start=start, step=_SHOWN,
        names=[person.name for person in people[:_NAMES]], others=[person.unknown_id for person in everybody[:_NAMES]],
        named=next((person for person in people if person.identity_id == named), None), merged=merged, said=said,
    )  # fmt: skip


@router.post("/unknown/{unknown_id}/name")
def name(
    _caller: Sender, parts: SharedParts, unknown_id: str, identity_name: Annotated[str, Form(max_length=200)]
) -> RedirectResponse:
    """Gives the person a name."""
    return gone_to("/unknown", named=unknowns.name(parts, unknown_id, identity_name).identity_id)


@router.post("/unknown/{unknown_id}/merge")
def merge(
    _caller: Sender, parts: SharedParts, unknown_id: str, other: Annotated[str, Form(max_length=200)]
) -> RedirectResponse:
    """Two ids are one person."""
    return gone_to("/unknown", merged=unknowns.merge(parts, unknown_id, other.strip()))


@router.post("/unknown/undo")
def undo(_caller: Sender, parts: SharedParts, step: Annotated[str, Form(max_length=200)]) -> RedirectResponse:
    """Takes a merge back."""
    unknowns.undo(parts, step)
    return gone_to("/unknown", said="undone")


@router.post("/unknown/{unknown_id}/forget")
def forget(_caller: Sender, parts: SharedParts, unknown_id: str) -> RedirectResponse:
    """Deletes what the person is recognised by."""
    unknowns.forget(parts, unknown_id)
    return gone_to("/unknown", said="forgotten")
