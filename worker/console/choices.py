"""What forms let people choose from, and what they choose."""

from http import HTTPStatus
from typing import get_args

from worker.api.problems import Problem
from worker.api.roles import Role
from worker.api.sight import Cameras


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
