"""Settings from the environment: ``FACESTREAM_`` and the name of a field, with ``__`` between levels."""

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from worker.config.document import FieldPath

PREFIX: Final = "FACESTREAM_"
_BETWEEN: Final = "__"
PHOTO_PREFIX: Final = "FACESTREAM_PHOTO_"
_OTHERS: Final = frozenset({
    "FACESTREAM_CACHE_DIR", "FACESTREAM_SOURCE", "FACESTREAM_TEST_DATA", "FACESTREAM_VERSION",
    f"{PHOTO_PREFIX}MAX_MEGAPIXELS", f"{PHOTO_PREFIX}MAX_MB",
})  # fmt: skip
"""Names that other parts of this project read."""

# Kubernetes and Docker name the address of a service called "facestream..." in variables of this form.
_SERVICE_LINK: Final = re.compile(r"_SERVICE_(HOST|PORT)(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?$|_ENV_\w+$")
_SERVICE_ADDRESS: Final = re.compile(r"^(tcp|udp|sctp)://")
_LEAST_LIKENESS: Final = 0.6


def read_environment(model: type[BaseModel]) -> tuple[dict[str, Any], dict[FieldPath, str], dict[str, str]]:
    """Three things: the nested values that variables set, the variable of each value, and what is wrong with a
    variable itself, by its name."""
    values: dict[str, Any] = {}
    names: dict[FieldPath, str] = {}
    wrong: dict[str, str] = {}
    # The shorter name first: FACESTREAM_REDIS holds a whole section, of which FACESTREAM_REDIS__URL replaces a field.
    for name in sorted(_ours(os.environ), key=lambda name: (len(name), name)):
        path = tuple(name.upper().removeprefix(PREFIX).lower().split(_BETWEEN))
        if path[0] not in model.model_fields:
            continue
        field, depth = _field(model, path)
        value: Any = os.environ[name]
        if field is not None and depth < len(path):
            whole, how = f"{PREFIX}{_BETWEEN.join(path[:depth]).upper()}", " as JSON" if _holds_json(field) else ""
            wrong[name] = (
                f"'{'.'.join(path[:depth])}' has no parts in the environment; write all of it{how} into {whole}"
            )
        elif field is not None and _holds_json(field) and value.strip():
            try:
                value = json.loads(value)
            except ValueError:
                wrong[name] = f"the value of '{'.'.join(path)}' must be JSON, and this is not valid JSON"
        if name not in wrong:
            _set(values, path, value)
            names[path] = name
    return values, names, wrong


def unknown_variables(model: type[BaseModel], environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The ``FACESTREAM_`` variables that nothing reads, each with the nearest name of a setting, or ''."""
    known = sorted({*_names(model), *_OTHERS})
    unknown: dict[str, str] = {}
    for name in _ours(environment):
        upper = name.upper()
        field = upper.removeprefix(PREFIX).lower().split(_BETWEEN)[0]
        if upper in _OTHERS or field in model.model_fields:
            continue
        if _SERVICE_LINK.search(upper) or _SERVICE_ADDRESS.match(environment[name]):
            continue
        # One underscore for two, or one too many, is nearer than any other letter.
        by_letters = {_letters(candidate): candidate for candidate in reversed(known)}
        near = difflib.get_close_matches(_letters(upper), by_letters, 1, _LEAST_LIKENESS)
        unknown[name] = by_letters[near[0]] if near else ""
    return unknown


def _letters(name: str) -> str:
    return name.removeprefix(PREFIX).replace("_", "")


def _ours(environment: Mapping[str, str]) -> list[str]:
    return sorted(name for name in environment if name.upper().startswith(PREFIX))


def _names(model: type[BaseModel], before: str = PREFIX) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{before}{name.upper()}"
        if (section := _section(field)) is not None:
            yield from _names(section, f"{before}{name.upper()}{_BETWEEN}")


def _field(model: type[BaseModel], path: tuple[str, ...]) -> tuple[FieldInfo | None, int]:
    """The field that ``path`` leads to, as far as there are fields, and how many parts of ``path`` were needed; None
    where a section has no such field."""
    field = model.model_fields[path[0]]
    for depth, part in enumerate(path[1:], 1):
        section = _section(field)
        if section is None:
            return field, depth
        if part not in section.model_fields:
            return None, depth
        field = section.model_fields[part]
    return field, len(path)


def _section(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that is a section."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _holds_json(field: FieldInfo) -> bool:
    return _section(field) is not None or get_origin(field.annotation) in (tuple, list, dict)


def _set(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for part in path[:-1]:
        inner = values.get(part)
        if not isinstance(inner, dict):
            inner = values[part] = {}
        values = inner
    values[path[-1]] = value
