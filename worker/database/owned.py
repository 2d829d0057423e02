"""Columns with what a database keeps of people: each value is sealed by the key of its person, if there are such keys.

What is written comes as :class:`Owned`, which says whose it is. What is read opens by itself, since each value says by
which key it is sealed. SQLite overwrites what is deleted, and needs none of this.
"""

import json
import secrets
from collections.abc import Callable
from typing import Any, Final, TypeVar

from sqlalchemy import LargeBinary, Text, TypeDecorator

from worker import encryption
from worker.errors import EncryptionError
from worker.people_keys import Owned, PeopleKeys, head_of, is_sealed, named

_Value = TypeVar("_Value", str, bytes)

REPLIES: Final = "answers of the console"
"""To whom the console's answers belong, which may name anybody. An erasure deletes all of them, and their key."""


class OwnBytes(LargeBinary):
    """Bytes as the database gives them: what a damaged SQLite file has in their place is for the reader to judge. Those
    that are :class:`Owned` are sealed in PostgreSQL, if there are keys of people; SQLite overwrites what is deleted."""

    cache_ok = True

    def bind_processor(self, dialect: Any) -> Callable[[Any], Any]:
        prepare = super().bind_processor(dialect) or _unchanged  # type: ignore[no-untyped-call]

        def process(value: Any) -> Any:
            if isinstance(value, Owned):
                keys = _keys(dialect)
                value = value.value if keys is None else keys.seal(value)
            return prepare(value)

        return process

    def result_processor(self, dialect: Any, *_: Any) -> Callable[[Any], Any] | None:
        return None if dialect.name == "sqlite" else opened


class OwnText(TypeDecorator[str]):
    """A text that is sealed in the same way."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        if not isinstance(value, Owned):
            return value
        keys = _keys(dialect)
        return value.value if keys is None else keys.seal_text(value)

    def process_result_value(self, value: Any, _dialect: Any) -> Any:
        return _known_keys().unseal_text(value) if isinstance(value, str) and is_sealed(value) else value


class OwnAccount(TypeDecorator[str]):
    """JSON of what was told of a sighting. It names others, each sealed by the key of that name."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        keys = _keys(dialect)
        if keys is None or not isinstance(value, str):
            return value
        return _renamed(value, lambda name: keys.seal_text(named(name)))

    def process_result_value(self, value: Any, _dialect: Any) -> Any:
        # The first character of what is sealed, as JSON has it.
        if not isinstance(value, str) or "\\u0001" not in value:
            return value
        return _renamed(value, lambda name: _known_keys().unseal_text(name) if is_sealed(name) else name)


def apart(an_id: str, value: _Value) -> Owned[_Value]:
    """``value`` under a key that seals nothing else: it can be destroyed alone."""
    return Owned(f"{an_id} {secrets.token_hex(8)}", value)


def tag_for(owner: str, dialect: Any) -> str:
    """By which key a database seals what is about ``owner``; "" if it seals nothing."""
    keys = _keys(dialect)
    return "" if keys is None else keys.tag_of(owner)


def opened(value: Any) -> Any:
    """The bytes of a person as they were before they were sealed; b"" if the key is destroyed.

    Raises:
        EncryptionError: they are sealed, and there are no keys of people.
    """
    return _known_keys().unseal(value) if isinstance(value, bytes) and is_sealed(value) else value


def seals(dialect: Any) -> bool:
    """Whether what is written to this database now is sealed."""
    return _keys(dialect) is not None


def names_in_account(name: str, dialect: Any) -> list[str]:
    """What the JSON of an account holds if it names somebody called so."""
    keys = _keys(dialect)
    heads = [] if keys is None else [head_of(keys.living_tag_of(named(name).owner))]
    return [json.dumps(name), *(json.dumps(head)[1:-1] for head in heads)]


def _renamed(account: str, change: Callable[[str], str]) -> str:
    try:
        told = json.loads(account)
    except ValueError:  # a damaged row is for its reader to judge
        return account
    for field in ("nearest", "runner_up"):
        if isinstance(told, dict) and isinstance(told.get(field), str):
            told[field] = change(told[field])
    return json.dumps(told)


def _keys(dialect: Any) -> PeopleKeys | None:
    """Those with which this database seals now."""
    keys = None if dialect.name == "sqlite" else encryption.keys().people
    return keys if keys is not None and keys.writing else None


def _known_keys() -> PeopleKeys:
    keys = encryption.keys().people
    if keys is None:
        raise EncryptionError(
            "the database keeps people under keys of their own: name their file with "
            "FACESTREAM_ENCRYPTION__PEOPLE_FILE, or 'encryption: {people_file: FILE}' in the configuration"
        )
    return keys


def _unchanged(value: Any) -> Any:
    return value
