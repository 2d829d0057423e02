"""A configuration file in YAML, with the line on which each field stands."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

from worker.errors import ConfigError
from worker.redaction import redact

FieldPath: TypeAlias = tuple[str | int, ...]
"""Where a value lies in nested mappings and lists: ``("cameras", 0, "source")``."""


@dataclass(frozen=True, slots=True)
class Document:
    """What a file holds: nested values, and the line of each key and list item, counted from 1."""

    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[FieldPath, int] = field(default_factory=dict)


_MOST_VALUES: Final = 1_000_000
_QUOTED: Final = re.compile(r"'[^']{2,}'")


def read_document(path: Path) -> Document:
    """The document in the file ``path``.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or has the same key twice.
    """
    try:
        text = _text_of(path)
        root, values = parse_yaml(text)
    except OSError as error:
        raise ConfigError(f"configuration {path}: {error.strerror or error}") from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"configuration {path} is not valid YAML: {_told(error)}") from None
    # The parser of YAML raises ValueError for a date that does not exist, and RecursionError for too many brackets.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = " ".join(redact(str(error)).split())
        raise ConfigError(f"configuration {path} is not valid YAML: {problem}") from None
    lines: dict[FieldPath, int] = {}
    repeated = [] if root is None else list(_walk(root, (), lines, set()))
    if repeated:
        raise ConfigError(f"configuration {path}: {'; '.join(repeated)}")
    if values is None:
        return Document()
    if not isinstance(values, dict):
        raise ConfigError(
            f"configuration {path}: the top level must be a mapping of fields, not {type(values).__name__}"
        )
    return Document({str(key).lower(): value for key, value in values.items()}, lines)


def parse_yaml(text: str) -> tuple[yaml.Node | None, Any]:
    """The tree of a document, and its values.

    Raises:
        yaml.YAMLError, ValueError, RecursionError: it is no YAML, or its aliases unfold to too much.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is not None and _unfolded(root, {}) > _MOST_VALUES:
        raise yaml.YAMLError(f"its aliases unfold to more than {_MOST_VALUES} values")
    # Values are made from a tree of their own: that puts what anchors stand for into its mappings.
    return root, yaml.safe_load(text)


def _unfolded(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values whoever follows each alias meets; one that leads back to itself counts once."""
    if id(node) not in known:
        known[id(node)] = 1
        parts: Any = node.value if isinstance(node, yaml.CollectionNode) else ()
        inside = (each for part in parts for each in (part if isinstance(part, tuple) else (part,)))
        known[id(node)] += sum(_unfolded(each, known) for each in inside)
    return known[id(node)]


def _text_of(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"configuration {path}, line {line}: this is not UTF-8: save the file as UTF-8") from None


def _told(error: yaml.MarkedYAMLError) -> str:
    """What is wrong and where, without the piece of the file that the error quotes: it may be the end of a password."""
    problem = _QUOTED.sub("'...'", " ".join(f"{error.context or ''} {error.problem or ''}".split()))
    mark = error.problem_mark or error.context_mark
    if mark and error.problem and "'\\t'" in error.problem:
        problem = "a tab stands where YAML takes only blanks: indent with blanks"
    return f"{problem}, line {mark.line + 1}, column {mark.column + 1}" if mark else problem


def value_at(values: Any, path: FieldPath, default: Any = None) -> Any:
    """What lies at ``path`` in nested mappings and lists; ``default`` where nothing does."""
    for part in path:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return default
    return values


def _walk(node: yaml.Node, path: FieldPath, lines: dict[FieldPath, int], seen: set[int]) -> Iterator[str]:
    """Fills ``lines``; yields a complaint for each key that stands twice in one mapping."""
    # An alias leads to a node that was visited under its anchor, and may lead back to itself.
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[*path, index] = item.start_mark.line + 1
            yield from _walk(item, (*path, index), lines, seen)
    elif isinstance(node, yaml.MappingNode):
        first_lines: dict[str, int] = {}
        for key, value in node.value:
            # In the first level, settings are read without regard to capitals.
            name, line = str(key.value) if path else str(key.value).lower(), key.start_mark.line + 1
            if name in first_lines:
                yield (
                    f"'{'.'.join(map(str, (*path, name)))}' is written twice, on line {first_lines[name]} and on line "
                    f"{line}; one of the two would be lost: put them together"
                )
            first_lines.setdefault(name, line)
            lines[*path, name] = line
            yield from _walk(value, (*path, name), lines, seen)
