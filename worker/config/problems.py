"""What is wrong with a configuration: every mistake, by its field, with where it stands and what was meant."""

import copy
import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from worker.config.document import FieldPath, value_at
from worker.redaction import redact

_T = TypeVar("_T")

MAY_BE_EMPTY: Final = frozenset({"password", "sentinel_password", "sentinel_username"})
"""Fields in which nothing means none, as they often come out of a variable that is not set."""

STAND_IN: Final = "stand-in-"
"""How the id and the source of a camera begin that were put in the place of wrong ones."""

_ROUNDS: Final = 5
_DEEPEST: Final = 8
"""No field lies deeper; an anchor of YAML may lead back to itself without an end."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: the field (empty where it is of the environment as a whole), and where that stands."""

    path: FieldPath
    message: str
    where: str = ""

    def __str__(self) -> str:
        field = f"{'.'.join(str(part) for part in self.path)}: " if self.path else ""
        if redact(f"{field}x") != f"{field}x":
            # After the name of a secret and a colon, the first word would be taken for the secret.
            field = field.replace(": ", " ")
        return redact(f"{self.where}: {field}{self.message}" if self.where else f"{field}{self.message}")


def find_problems(
    model: type[BaseModel],
    values: dict[str, Any],
    where: Callable[[FieldPath], str],
    make: Callable[[dict[str, Any]], _T],
    ease: Callable[[dict[str, Any]], None],
) -> tuple[list[Problem], _T | None]:
    """Every mistake in the nested ``values``, and what ``make`` builds of the rest, None if that cannot be built;
    ``where`` says where a mistake stands.

    What concerns several fields (a camera's id that is used twice) is looked at only if each field is right. So the
    wrong ones are replaced, and the rest is looked at once more. ``ease`` takes such contradictions out.
    """
    values, found = copy.deepcopy(values), {}
    for path in list(find_empty(values)):
        found[path, ""] = Problem(path, "is empty; give a value, or leave it out", where(path))
        _mend(values, path)
    for _ in range(_ROUNDS):
        try:
            return list(found.values()), make(values)
        except ValidationError as error:
            details = error.errors(include_input=False, include_url=False)
        for each in details:
            path, message = each["loc"], _message(model, each, values)
            name, mark, rest = message.partition(": ")
            if not path and mark and name in model.model_fields:
                path, message = (name,), rest
            found.setdefault((path, message), Problem(path, message, where(path)))
            _mend(values, each["loc"])
        if not all(each["loc"] for each in details):
            ease(values)
    return list(found.values()), None


def nearest(name: str, known: Iterable[str]) -> str:
    """The one of ``known`` that was probably meant by ``name``; '' if none is near."""
    near = difflib.get_close_matches(name.lower(), list(known), 1, 0.6)
    return near[0] if near else ""


def find_empty(value: Any, path: FieldPath = ()) -> Iterator[FieldPath]:
    """Where a text is empty or blank, although nothing there would mean something else than no value."""
    if len(path) > _DEEPEST:
        return
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from find_empty(inner, (*path, name))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from find_empty(inner, (*path, index))
    elif isinstance(value, str) and not value.strip() and path[-1] not in MAY_BE_EMPTY:
        yield path


def _message(model: type[BaseModel], error: Mapping[str, Any], values: Any) -> str:
    kind, path = error["type"], error["loc"]
    if kind == "extra_forbidden":
        meant = _meant(model, path)
        return "no such field" + (f"; did you mean '{meant}'?" if meant else "")
    if kind == "missing":
        return "is missing"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return (
            "holds nothing; give its fields, or leave it out" if value_at(values, path) is None else "must hold fields"
        )
    if kind in ("tuple_type", "list_type"):
        return "must be a list: one item after each '- '"
    message = str(error["msg"]).removeprefix("Value error, ")
    value = value_at(values, path)
    if kind == "string_type" and isinstance(value, bool | int | float | date):
        what = "true or false" if isinstance(value, bool) else "a date" if isinstance(value, date) else "a number"
        return f"must be text, and YAML reads {what} here: put it in quotes"
    if kind == "literal_error" and isinstance(value, str):
        expected = re.findall(r"'([^']+)'", message)
        if meant := nearest(value, expected):
            message += f"; did you mean '{meant}'?"
    return message


def _meant(model: type[BaseModel], path: FieldPath) -> str:
    """The field that was probably meant: the nearest one beside it, or one of the same name in another section."""
    section = _model_at(model, path[:-1])
    name = str(path[-1])
    if section is not None and (beside := nearest(name, section.model_fields)):
        return beside
    elsewhere = {
        inner: f"{outer}.{inner}"
        for outer, field in model.model_fields.items()
        for inner in getattr(_model_of(field.annotation), "model_fields", {})
        if outer != "cameras"
    }
    at_the_top = {outer: outer for outer in model.model_fields} if len(path) > 1 else {}
    meant = nearest(name, known := at_the_top | elsewhere)
    return known[meant] if meant else ""


def _model_at(model: type[BaseModel] | None, path: FieldPath) -> type[BaseModel] | None:
    for part in path:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part) if model is not None else None
        model = _model_of(field.annotation) if field is not None else None
    return model


def _model_of(kind: Any) -> type[BaseModel] | None:
    for each in (kind, *get_args(kind)):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return None


def _mend(values: Any, path: FieldPath) -> None:
    """Takes out what is wrong, or puts something right in its place where a value is needed."""
    if not path:
        return
    holder, last = value_at(values, path[:-1]), path[-1]
    in_cameras = path[0] == "cameras" and len(path) in (2, 3) and isinstance(path[1], int)
    if isinstance(holder, dict):
        if in_cameras and last in ("id", "source"):
            holder[last] = f"{STAND_IN}{path[1]}"
        else:
            holder.pop(last, None)
    elif isinstance(holder, list) and isinstance(last, int) and last < len(holder):
        # The items after it keep their numbers, by which they are told.
        stand_in = {"id": f"{STAND_IN}{last}", "source": f"{STAND_IN}{last}"}
        holder[last : last + 1] = [stand_in] if in_cameras else []
    else:
        # What is wrong lies in a value that should have been a mapping or a list.
        _mend(values, path[:-1])
