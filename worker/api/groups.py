"""Groups of people, such as staff or banned: what is set for them, and who is in them."""

from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from fastapi import APIRouter, Response

from worker.api import documents
from worker.api.access import Changer, Reader, SharedParts
from worker.api.documents import GroupDocument, Groups, GroupSettings, Memberships, PersonDocument
from worker.api.paging import require_match
from worker.api.parts import Parts
from worker.api.people import IfMatch, etag, find
from worker.api.problems import Problem, not_found, responses
from worker.errors import ConfigError
from worker.gallery.contents import Person
from worker.gallery.groups import Group, group_name

router = APIRouter(tags=["groups"])

_MOST: Final = 200
"""Of groups: a page shows all of them."""


def known(parts: Parts) -> dict[str, Group]:
    """The groups by name, in the order of the alphabet; none where there is no gallery yet.

    Raises:
        GalleryError: it cannot be read.
    """
    return dict(sorted(parts.gallery().groups.items())) if parts.has_gallery() else {}


def listed(parts: Parts) -> list[GroupDocument]:
    """The groups, and how many people are in each.

    Raises:
        GalleryError: the gallery cannot be read.
    """
    count = Counter(name for person in parts.people() for name in person.groups)
    return [_document(name, group, count[name]) for name, group in known(parts).items()]


def set_group(parts: Parts, name: str, settings: GroupSettings) -> GroupDocument:
    """Makes a group, or gives it these settings.

    Raises:
        Problem: the name cannot be one, there is no gallery yet, or there are too many groups.
        GalleryError: the gallery cannot be written.
    """
    if not parts.has_gallery():
        raise Problem(HTTPStatus.CONFLICT, "nobody is enrolled yet: add somebody before you make groups")
    try:
        name = group_name(name)
    except ConfigError as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
    groups = known(parts)
    if name not in groups and len(groups) >= _MOST:
        raise Problem(HTTPStatus.CONFLICT, f"there are {_MOST} groups already: delete one first")
    group = Group(settings.threshold, settings.colour, settings.advice)
    parts.gallery().set_group(name, group)
    return _document(name, group, sum(name in person.groups for person in parts.people()))


def delete(parts: Parts, name: str) -> None:
    """Deletes a group; its people stay.

    Raises:
        Problem: there is none of this name.
        GalleryError: the gallery cannot be written.
    """
    _require(parts, [name])
    parts.gallery().remove_group(name)


def regroup(parts: Parts, identity_id: str, names: Sequence[str], if_match: str | None = None) -> Person:
    """Puts a person into these groups, and takes them out of all others.

    Raises:
        Problem: nobody has the id, they were changed meanwhile, or there is no such group.
        GalleryError: the gallery cannot be written.
    """
    person = find(parts, identity_id)
    require_match(if_match, etag(person))
    _require(parts, names)
    parts.gallery().regroup([identity_id], join=names, leave=set(person.groups) - set(names))
    return find(parts, identity_id)


def _require(parts: Parts, names: Sequence[str]) -> None:
    groups = known(parts)
    for name in names:
        if name not in groups:
            raise not_found(f"there is no group {name!r}; it may have been deleted")


def _document(name: str, group: Group, people: int) -> GroupDocument:
    return GroupDocument(group=name, people=people, **group.document())


@router.get("/groups", operation_id="list_groups")
def list_groups(_caller: Reader, parts: SharedParts) -> Groups:
    """The groups of people."""
    return Groups(items=listed(parts))


@router.put("/groups/{group}", operation_id="set_group", responses=responses(HTTPStatus.CONFLICT))
def put_group(_caller: Changer, parts: SharedParts, group: str, settings: GroupSettings) -> GroupDocument:
    """Make a group or set it anew, as ``facestream gallery group set`` does."""
    return set_group(parts, group, settings)


@router.delete(
    "/groups/{group}",
    operation_id="delete_group",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND),
)
def delete_group(_caller: Changer, parts: SharedParts, group: str) -> None:
    """Delete a group; its people stay."""
    delete(parts, group)


@router.put(
    "/people/{identity_id}/groups",
    operation_id="regroup_person",
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.PRECONDITION_FAILED),
)
def regroup_person(
    _caller: Changer,
    parts: SharedParts,
    identity_id: str,
    memberships: Memberships,
    response: Response,
    if_match: IfMatch = None,
) -> PersonDocument:
    """Put a person into these groups, and take them out of all others."""
    person = regroup(parts, identity_id, memberships.groups, if_match)
    response.headers["ETag"] = etag(person)
    return documents.person_document(person)
