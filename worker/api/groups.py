"""Groups of people, such as staff or banned: what is set for them, and who is in them."""

from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from fastapi import APIRouter, Response

from worker.api import people
from worker.api.access import Changer, Reader, SharedParts
from worker.api.paging import IfMatch, etag_of, require_match
from worker.api.parts import Parts
from worker.api.person_documents import (
    GroupDocument,
    Groups,
    GroupSettings,
    Memberships,
    PersonDocument,
    person_document,
)
from worker.api.problems import Problem, not_found, responses, unusable
from worker.errors import ConfigError
from worker.gallery.contents import Contents, Person
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


def etag(group: GroupDocument) -> str:
    """Another one after each change of its settings."""
    return etag_of(group.model_dump(exclude={"people"}))


def find(parts: Parts, name: str) -> GroupDocument:
    """
    Raises:
        Problem: there is none of this name.
    """
    for group in listed(parts):
        if group.group == name:
            return group
    raise _no_group(name)


def set_group(
    parts: Parts, name: str, settings: GroupSettings, if_match: str | None = None, *, fresh: bool = False
) -> GroupDocument:
    """Makes a group, or gives it these settings; ``fresh``: only if there is none of this name.

    Raises:
        Problem: the name cannot be one or is taken, there is no gallery yet, there are too many groups, or the group
            was changed meanwhile.
        GalleryError: the gallery cannot be written.
    """
    if not parts.has_gallery():
        raise Problem(HTTPStatus.CONFLICT, "nobody is enrolled yet: add somebody before you make groups")
    try:
        name = group_name(name)
    except ConfigError as error:
        raise unusable(error) from None

    def require(contents: Contents) -> None:
        groups = contents.groups
        if name in groups and fresh:
            raise Problem(HTTPStatus.CONFLICT, f"there is a group {name!r} already: change it, or choose another name")
        if if_match is not None:
            require_match(if_match, _etag_in(contents, name))
        if name not in groups and len(groups) >= _MOST:
            raise Problem(HTTPStatus.CONFLICT, f"there are {_MOST} groups already: delete one first")

    group = Group(settings.threshold, settings.colour, settings.advice)
    parts.gallery().set_group(name, group, require=require)
    return _document(name, group, sum(name in person.groups for person in parts.people()))


def delete(parts: Parts, name: str, if_match: str | None = None) -> None:
    """Deletes a group; its people stay.

    Raises:
        Problem: there is none of this name, or it was changed meanwhile.
        GalleryError: the gallery cannot be written.
    """
    _require(parts, [name])

    def require(contents: Contents) -> None:
        require_match(if_match, _etag_in(contents, name))

    parts.gallery().remove_group(name, require=require)


def regroup(parts: Parts, identity_id: str, names: Sequence[str], if_match: str | None = None) -> Person:
    """Puts a person into these groups, and takes them out of all others.

    Raises:
        Problem: nobody has the id, they were changed meanwhile, or there is no such group.
        GalleryError: the gallery cannot be written.
    """
    people.find(parts, identity_id)
    _require(parts, names)
    parts.gallery().regroup(
        [identity_id], join=names, only=True, require=people.unchanged(identity_id, if_match)
    )  # fmt: skip
    return people.find(parts, identity_id)


def _etag_in(contents: Contents, name: str) -> str:
    if name not in contents.groups:
        raise _no_group(name)
    return etag(_document(name, contents.groups[name], 0))


def _no_group(name: str) -> Problem:
    return not_found(f"there is no group {name!r}; it may have been deleted")


def _require(parts: Parts, names: Sequence[str]) -> None:
    groups = known(parts)
    for name in names:
        if name not in groups:
            raise _no_group(name)


def _document(name: str, group: Group, people: int) -> GroupDocument:
    return GroupDocument(group=name, people=people, **group.document())


@router.get("/groups", operation_id="list_groups")
def list_groups(_caller: Reader, parts: SharedParts) -> Groups:
    """The groups of people."""
    return Groups(items=listed(parts))


@router.get("/groups/{group}", operation_id="show_group", responses=responses(HTTPStatus.NOT_FOUND))
def show_group(_caller: Reader, parts: SharedParts, group: str, response: Response) -> GroupDocument:
    """One group of people."""
    found = find(parts, group)
    response.headers["ETag"] = etag(found)
    return found


@router.put(
    "/groups/{group}",
    operation_id="set_group",
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED),
)
def put_group(
    _caller: Changer,
    parts: SharedParts,
    group: str,
    settings: GroupSettings,
    response: Response,
    if_match: IfMatch = None,
) -> GroupDocument:
    """Make a group or set it anew, as ``facestream gallery group set`` does."""
    made = set_group(parts, group, settings, if_match)
    response.headers["ETag"] = etag(made)
    return made


@router.delete(
    "/groups/{group}",
    operation_id="delete_group",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.PRECONDITION_FAILED),
)
def delete_group(_caller: Changer, parts: SharedParts, group: str, if_match: IfMatch = None) -> None:
    """Delete a group; its people stay."""
    delete(parts, group, if_match)


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
    response.headers["ETag"] = people.etag(person)
    return person_document(person)
