"""Unknown people: who they may be, and what it risks to say so."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Form, Query
from fastapi.responses import HTMLResponse, RedirectResponse

from worker.api import suggestions, unknowns
from worker.api.access import SharedParts
from worker.api.parts import Parts
from worker.api.problems import Problem
from worker.api.strangers import AT_ONCE
from worker.console.choices import some_names
from worker.console.pages import Sender, Visitor, gone_to, inside, render
from worker.gallery.contents import Person

router = APIRouter(include_in_schema=False)

_SHOWN: Final = 12
_FACES: Final = 4
_SIGHTINGS: Final = 120
_GROUPS: Final = 6
_GROUP: Final = 24
"""The most similar faces of a suggestion are shown; further ones get the name as well."""

Text = Annotated[str, Form(max_length=200)]
Ids = Annotated[list[str], Form(max_length=1000)]
Steps = Annotated[str, Query(max_length=20_000)]


@router.get("/unknown")
def list_page(
    caller: Visitor,
    parts: SharedParts,
    cursor: str | None = None,
    ignored: bool = False,
    named: str = "",
    steps: Steps = "",
    said: str = "",
    count: int = 0,
) -> HTMLResponse:
    """Unknown people with their best faces, those first who were seen most often."""
    with parts.history() as history:
        often = history.seen_unknown()
    shown = unknowns.page(parts, cursor, _SHOWN, ignored=ignored, seen=often)
    groups, is_all = ([], True) if ignored or cursor else suggestions.alike(parts, often, AT_ONCE)
    groups = [each for each in groups if len(each.unknown_ids) > 1]
    groups = groups[:_GROUPS]
    grouped = [unknown_id for each in groups for unknown_id in each.unknown_ids[:_GROUP]]
    faces = unknowns.faces_of(parts, [*(person.unknown_id for person in shown.items), *grouped], _FACES)
    cards = [(person, faces[person.unknown_id]) for person in unknowns.details(parts, shown.items)]
    alike = [
        (each, [(unknown_id, faces[unknown_id][:1]) for unknown_id in each.unknown_ids[:_GROUP]]) for each in groups
    ]
    return render(
        "unknown", caller, cards=cards, alike=alike, is_all=is_all, total=shown.total, cursor=cursor,
        more=shown.next_cursor, ignored=ignored, names=some_names(parts),
        others=[person.unknown_id for person in shown.items], named=_called(parts.people(), named), steps=steps,
        said=said, count=count,
    )  # fmt: skip


@router.get("/unknown/{unknown_id}")
def one_page(caller: Visitor, parts: SharedParts, unknown_id: str) -> HTMLResponse:
    """One unknown person: every face, to choose those that show somebody else."""
    person = unknowns.detail(parts, unknown_id)
    seen = unknowns.faces_of(parts, [unknown_id], _SIGHTINGS)[unknown_id]
    return render("stranger", caller, person=person, seen=seen, names=some_names(parts))


@router.post("/unknown/some")
def some(
    _caller: Sender,
    parts: SharedParts,
    do: Text,
    ids: Ids = [],  # noqa: B006
    identity_name: Text = "",
) -> RedirectResponse:
    """The same for several at once: named as one person, ignored, asked about again, or forgotten."""
    if not ids:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "nobody is chosen: tick the faces that you mean")
    if do == "name":
        return _name(parts, ids, identity_name)
    for unknown_id in ids:
        if do == "forget":
            unknowns.forget(parts, unknown_id)
        elif do in {"ignore", "heed"}:
            unknowns.ignore(parts, unknown_id, ignored=do == "ignore")
    said = {"forget": "forgotten", "ignore": "ignored", "heed": "heeded"}.get(do, "")
    return gone_to("/unknown", said=said, count=str(len(ids)), **({"ignored": "true"} if do == "heed" else {}))


@router.post("/unknown/undo")
def undo(
    _caller: Sender, parts: SharedParts, steps: Annotated[str, Form(max_length=20_000)], to: Text = "/unknown"
) -> RedirectResponse:
    """Takes names, merges or splits back, the last one first."""
    for step in reversed(steps.split(",")):
        unknowns.undo(parts, step)
    return gone_to(inside(to), said="undone")


@router.post("/unknown/{unknown_id}/name")
def name(_caller: Sender, parts: SharedParts, unknown_id: str, identity_name: Text) -> RedirectResponse:
    """Gives the person a name."""
    return _name(parts, [unknown_id], identity_name)


@router.post("/unknown/{unknown_id}/merge")
def merge(_caller: Sender, parts: SharedParts, unknown_id: str, other: Text) -> RedirectResponse:
    """Two ids are one person."""
    return gone_to("/unknown", steps=unknowns.merge(parts, unknown_id, other.strip()), said="merged")


@router.post("/unknown/{unknown_id}/forget")
def forget(_caller: Sender, parts: SharedParts, unknown_id: str) -> RedirectResponse:
    """Deletes what the person is recognised by."""
    unknowns.forget(parts, unknown_id)
    return gone_to("/unknown", said="forgotten", count="1")


@router.post("/unknown/{unknown_id}/split")
def split(_caller: Sender, parts: SharedParts, unknown_id: str, ids: Ids = []) -> RedirectResponse:  # noqa: B006
    """The chosen sightings show somebody else."""
    if not ids:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "no face is chosen: tick those that show somebody else")
    _new_id, step = unknowns.split(parts, unknown_id, ids)
    return gone_to("/unknown", steps=step, said="split")


def _name(parts: Parts, ids: Sequence[str], given: str) -> RedirectResponse:
    """Whoever is named first makes the person known; the others become the same person."""
    steps = []
    identity_id = ""
    for unknown_id in dict.fromkeys(ids):
        named, step = unknowns.name(parts, unknown_id, given)
        identity_id = named.identity_id
        steps.append(step)
    return gone_to("/unknown", named=identity_id, steps=",".join(steps))


def _called(people: Sequence[Person], identity_id: str) -> Person | None:
    return next((person for person in people if person.identity_id == identity_id), None)
