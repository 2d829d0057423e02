"""A key for each person, all of one file; a key that is destroyed cannot be made again from what is left of the file.

What a database keeps of a person is sealed by theirs: rows, logs and backups outlive what is deleted, so the key goes.
The file holds the root of a tree. Each step down (SHA-256 of a node and a digit) makes a node, and the key of a person
is the leaf to which the digits of their tag lead. To destroy a leaf, the nodes above it are replaced by those beside
the way, of which every other leaf can still be made. So no key is ever handed round: each machine has the file, and
each takes the same leaves out of it. Why so: docs/decisions/people-keys.md.
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from worker.errors import ConfigError, EncryptionError
from worker.files import file_stamp, replace_file, why_unwritable

FORMAT: Final = "facestream.people-keys.v1"
TAG_DIGITS: Final = 12
_TAG_BYTES: Final = TAG_DIGITS // 2
_MARKER: Final = b"FSOWN1\0\0"
_TEXT_MARKER: Final = "\x01own1:"
"""No text from outside begins so: control characters are taken out of all of them."""
_DAMAGED: Final = "\ufffd"
_NODE_BYTES: Final = 32
_NONCE_BYTES: Final = 12
SEALED_BYTES: Final = len(_MARKER) + _TAG_BYTES + _NONCE_BYTES + 16
"""By how much sealed bytes are longer."""
BYTES_HEAD: Final = len(_MARKER) + _TAG_BYTES
TEXT_HEAD: Final = len(_TEXT_MARKER) + _TAG_BYTES * 4 // 3
"""So many bytes or characters of what is sealed say by which key."""
_DIGITS: Final = {f"{digit:x}": bytes([digit]) for digit in range(16)}
_LOOK_S: Final = 0.25
_LOCK_S: Final = 30.0
_MOST_CIPHERS: Final = 65_536
_MOST_BYTES: Final = 2**30

_Value = TypeVar("_Value", str, bytes)


@dataclass(frozen=True, slots=True)
class Owned(Generic[_Value]):
    """A value that is about one person: ``owner`` is an id of theirs. A database that has keys for people seals it.

    ``again``: after the owner's key was destroyed, there is another one: somebody else may bear the same name.
    """

    owner: str
    value: _Value
    again: bool = False


@dataclass(frozen=True, slots=True)
class _State:
    """``nodes``: of which all keys are made that are not destroyed, by the digits that lead to them. ``secret``: tags
    depend on it."""

    nodes: Mapping[str, bytes] = field(repr=False)
    secret: bytes = field(repr=False)


class PeopleKeys:
    """The keys of the file ``path``. Threads may share it. What another process takes out of the file is taken up.

    ``writing``: whether what is written from now on is sealed.

    Raises:
        ConfigError: the file cannot be read, or holds no such keys.
    """

    def __init__(self, path: Path, *, writing: bool = True) -> None:
        self.path = path
        self.writing = writing
        self._stamp: tuple[int, int, int] | None = None
        self._looked_s = float("-inf")
        self._state = _State({}, b"")
        self._ciphers: dict[str, AESGCM] = {}
        self._look()

    def tag_of(self, owner: str) -> str:
        """By which key what is about ``owner`` is sealed: 12 digits, of which the owner cannot be found without the
        file."""
        return hmac.new(self._state.secret, owner.encode(), hashlib.sha256).hexdigest()[:TAG_DIGITS]

    def living_tag_of(self, owner: str) -> str:
        """The same for what has ``again`` a key after one was destroyed."""
        return next(tag for number in count() if self.has(tag := self.tag_of(f"{number} {owner}")))

    def has(self, tag: str) -> bool:
        """Whether the key is not destroyed."""
        return self._cipher(tag) is not None

    def seal(self, owned: Owned[bytes]) -> bytes:
        """Nothing if the owner's key is destroyed: they were forgotten."""
        tag = self.tag_of(owned.owner)
        return self._sealed(tag, owned.value, _MARKER + bytes.fromhex(tag))

    def seal_text(self, owned: Owned[str]) -> str:
        """As :meth:`seal`; an empty text stays one."""
        tag = self.living_tag_of(owned.owner) if owned.again else self.tag_of(owned.owner)
        raw = self._sealed(tag, owned.value.encode(), bytes.fromhex(tag)) if owned.value else b""
        return _TEXT_MARKER + base64.b64encode(raw).decode() if raw else ""

    def mark(self, owner: str, value: str) -> str:
        """Another text for each other ``value``; without the owner's key nobody can tell which. "" if it is gone."""
        key = self._key(self.tag_of(owner))
        return "" if key is None else hmac.new(key, value.encode(), hashlib.sha256).hexdigest()[:32]

    def unseal(self, sealed: bytes) -> bytes:
        """What was given to :meth:`seal`; nothing if the key is destroyed, or if it is damaged."""
        tag = sealed[len(_MARKER) : BYTES_HEAD].hex()
        return self._opened(tag, sealed[BYTES_HEAD : BYTES_HEAD + _NONCE_BYTES], sealed[BYTES_HEAD + _NONCE_BYTES :])

    def unseal_text(self, sealed: str) -> str:
        """As :meth:`unseal`; a text that is damaged becomes one that nobody can take for what it was."""
        try:
            raw = base64.b64decode(sealed[len(_TEXT_MARKER) :], validate=True)
        except (ValueError, binascii.Error):
            return _DAMAGED
        start = _TAG_BYTES + _NONCE_BYTES
        tag = raw[:_TAG_BYTES].hex()
        opened = self._opened(tag, raw[_TAG_BYTES:start], raw[start:])
        if not opened and (len(raw) < start or self.has(tag)):
            return _DAMAGED
        return opened.decode("utf-8", errors="replace")

    def destroy(self, tags: Iterable[str]) -> None:
        """From now on these keys can be made neither here nor from the file.

        Raises:
            EncryptionError: the file cannot be written.
        """
        from filelock import FileLock, Timeout

        wanted = {tag for tag in tags if _is_tag(tag)}
        try:
            self._look(at_once=True)
            if not any(map(self.has, wanted)):
                return
            with FileLock(self.path.with_name(f"{self.path.name}.lock"), timeout=_LOCK_S, mode=0o600):
                state = _without(_read(self.path), wanted)
                replace_file(self.path, _written(state))
                self._take(state)
        except (OSError, Timeout, NotImplementedError, ConfigError) as error:
            why = why_unwritable(error) if isinstance(error, OSError) else str(error)
            raise EncryptionError(f"keys of people who are to be forgotten stay in {self.path}: {why}") from None

    def _sealed(self, tag: str, value: bytes, head: bytes) -> bytes:
        cipher = self._cipher(tag)
        if cipher is None:
            return b""
        nonce = os.urandom(_NONCE_BYTES)
        return head + nonce + cipher.encrypt(nonce, value, None)

    def _opened(self, tag: str, nonce: bytes, sealed: bytes) -> bytes:
        cipher = self._cipher(tag) if len(tag) == TAG_DIGITS else None
        if cipher is None:
            return b""
        try:
            return cipher.decrypt(nonce, sealed, None)
        except (InvalidTag, ValueError):
            return b""

    def _cipher(self, tag: str) -> AESGCM | None:
        self._look()
        found = self._ciphers.get(tag)
        if found is None and (key := self._key(tag)) is not None:
            if len(self._ciphers) >= _MOST_CIPHERS:
                self._ciphers = {}
            found = self._ciphers[tag] = AESGCM(key)
        return found

    def _key(self, tag: str) -> bytes | None:
        nodes = self._state.nodes
        start = _start(nodes, tag)
        if start is None:
            return None
        node = nodes[tag[:start]]
        for digit in tag[start:]:
            node = _child(node, digit)
        return node

    def _look(self, *, at_once: bool = False) -> None:
        """Takes up the file if another process has written it."""
        now_s = time.monotonic()
        if not at_once and now_s - self._looked_s < _LOOK_S:
            return
        self._looked_s = now_s
        stamp = file_stamp(self.path)
        # A file that has gone meanwhile, such as that of a credential, is no reason to stop.
        if self._stamp is None:
            self._take(_read(self.path))
        elif stamp is not None and stamp != self._stamp:
            with suppress(ConfigError):
                self._take(_read(self.path))

    def _take(self, state: _State) -> None:
        self._state, self._ciphers, self._stamp = state, {}, file_stamp(self.path)


def named(name: str) -> Owned[str]:
    """A name that stands in what is told of somebody else."""
    return Owned(f"name {name}", name, again=True)


def is_sealed(value: object) -> bool:
    """Whether a value, or its first bytes or characters, was sealed by keys of people."""
    if isinstance(value, bytes):
        return value.startswith(_MARKER)
    return isinstance(value, str) and value.startswith(_TEXT_MARKER)


def tag_in(value: object) -> str:
    """By which key a value is sealed; its head is enough. "" if it is not."""
    if not is_sealed(value):
        return ""
    if isinstance(value, bytes):
        return value[len(_MARKER) : BYTES_HEAD].hex()
    return base64.b64decode(str(value)[len(_TEXT_MARKER) : TEXT_HEAD]).hex()


def head_of(tag: str) -> str:
    """With what a text begins that is sealed by this key."""
    return _TEXT_MARKER + base64.b64encode(bytes.fromhex(tag)).decode()


def _read(path: Path) -> _State:
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(f"encryption.people_file {path} cannot be read: {reason}") from None
    try:
        return _parsed(text)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ConfigError(
            f"encryption.people_file {path} holds no keys of people; make it with: openssl rand -base64 32"
        ) from None


def _parsed(text: str) -> _State:
    if not text.startswith("{"):
        root = base64.b64decode(text, validate=True)
        if len(root) != _NODE_BYTES:
            raise ValueError("a root has 32 bytes")
        return _State({"": root}, hashlib.sha256(b"facestream people tags" + root).digest())
    found = json.loads(text)
    if found["format"] != FORMAT:
        raise ValueError("another format")
    nodes = {str(digits): base64.b64decode(node) for digits, node in found["nodes"].items()}
    if any(len(node) != _NODE_BYTES for node in nodes.values()):
        raise ValueError("a node has 32 bytes")
    return _State(nodes, base64.b64decode(found["secret"]))


def _written(state: _State) -> bytes:
    nodes = {digits: base64.b64encode(node).decode() for digits, node in state.nodes.items()}
    document: dict[str, Any] = {"format": FORMAT, "secret": base64.b64encode(state.secret).decode(), "nodes": nodes}
    return f"{json.dumps(document)}\n".encode()


def _without(state: _State, tags: Iterable[str]) -> _State:
    nodes = dict(state.nodes)
    for tag in tags:
        start = _start(nodes, tag)
        if start is None:
            continue
        beside = dict(_beside(nodes[tag[:start]], tag, start))
        # A file that was tampered with may have several.
        nodes = {digits: node for digits, node in nodes.items() if not tag.startswith(digits)} | beside
    return _State(nodes, state.secret)


def _start(nodes: Mapping[str, bytes], tag: str) -> int | None:
    """How deep the node lies of which this key is made; None if the key is destroyed."""
    return next((length for length in range(TAG_DIGITS + 1) if tag[:length] in nodes), None)


def _beside(node: bytes, tag: str, start: int) -> Iterator[tuple[str, bytes]]:
    """The nodes beside the way from ``node``, which is ``start`` digits deep, to a leaf."""
    for depth in range(start, TAG_DIGITS):
        for digit in _DIGITS:
            if digit != tag[depth]:
                yield tag[:depth] + digit, _child(node, digit)
        node = _child(node, tag[depth])


def _child(node: bytes, digit: str) -> bytes:
    return hashlib.sha256(node + _DIGITS[digit]).digest()


def _is_tag(text: str) -> bool:
    return len(text) == TAG_DIGITS and all(letter in "0123456789abcdef" for letter in text)
