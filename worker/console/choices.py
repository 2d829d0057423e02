"""What forms let people choose from, and what they choose."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, get_args

from worker.api import people
from worker.api.parts import Parts
from worker.api.problems import Problem
from worker.api.roles import Role
from worker.api.sight import Cameras
from worker.gallery.contents import Person

_NAMES: Final = 500


def some_names(parts: Parts) -> list[str]:
    """Of people who are enrolled: what is suggested before somebody types, and without JavaScript."""
    return [person.name for person in parts.people()[:_NAMES]]


def meant(known: Sequence[Person], words: str) -> tuple[str | None, str]:
    """The id of the one person of these who is meant by a name, a part of it, or an id; or what is wrong."""
    found = [person for person in known if words in {person.name, person.identity_id}]
    found = found or people.matching(known, words)
    if len(found) == 1:
        return found[0].identity_id, ""
    return None, "several people are called so: write more of the name" if found else "nobody enrolled is called so"


def chosen(ticked: list[str] | None) -> Cameras:
    """The cameras that a form says; none: all."""
    return tuple(ticked) if ticked else None


def role_of(text: str) -> Role:
    """
    Raises:
        Problem: there is no such role.
    """
    for role in get_args(Role):
        if text == role:
            return role  # type: ignore[no-any-return] # get_args tells no types
    raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"a role is one of these: {', '.join(get_args(Role))}")


def require_same(password: str, again: str) -> None:
    """Does nothing if a new password was typed twice.

    Raises:
        Problem: the two are not the same.
    """
    if password != again:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "the two passwords are not the same")
