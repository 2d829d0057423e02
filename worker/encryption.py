"""Encryption at rest: the keys of this process, and what is sealed with them. Without keys, nothing is encrypted.

What is sealed says so in its first bytes, and by which key. So what was written before the keys came can still be read,
and so can what an older key has sealed. A sealed file holds::

    marker (8) | id of the key (8) | salt (16) | nonce (12) | AES-256-GCM of the content, with its tag

Each file has a key of its own, derived (HKDF-SHA256) from the key and the salt. The tag covers what the file is about,
so a file that takes the place of another one is seen. SQLite files are the matter of :mod:`worker.sqlite`.
Why so: docs/decisions/encryption.md.
"""

import base64
import binascii
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from mmap import mmap
from typing import Final, Literal, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from worker.errors import ConfigError, EncryptionError
from worker.people_keys import PeopleKeys

KEY_BYTES: Final = 32
ID_BYTES: Final = 8
_MARKER: Final = b"FSSEAL1\0"
_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_HEAD_BYTES: Final = len(_MARKER) + ID_BYTES + _SALT_BYTES + _NONCE_BYTES
_URL_SAFE: Final = str.maketrans("-_", "+/")
_ADVICE: Final = "FACESTREAM_ENCRYPTION__KEY_FILE, or 'encryption: {key_file: FILE}' in the configuration"

Buffer = bytes | memoryview | mmap
Content = TypeVar("Content", bound=Buffer)
Sealing = Literal["plain", "current", "older", "unknown"]
"""By which of the keys something is sealed."""


@dataclass(frozen=True, slots=True)
class Key:
    """``secret`` (32 bytes) never leaves the process; ``id`` (8 bytes) tells keys apart and may be known."""

    secret: bytes = field(repr=False)
    id: bytes

    def derived(self, purpose: bytes, salt: bytes = b"") -> bytes:
        """Another key of 32 bytes."""
        return _derived(self.secret, purpose, salt)


@dataclass(frozen=True, slots=True)
class Keys:
    """``writing``: what is written from now on is sealed with it; None: it is not sealed. ``reading``: all keys.
    ``people``: the keys of single people, for what a database keeps of them."""

    writing: Key | None = None
    reading: tuple[Key, ...] = ()
    people: PeopleKeys | None = None

    def find(self, key_id: bytes, what: object) -> Key:
        """The key with which ``what`` is sealed.

        Raises:
            EncryptionError: it is not among the keys.
        """
        for key in self.reading:
            if key.id == key_id:
                return key
        if not self.reading:
            raise EncryptionError(f"{what} is encrypted, and there is no key: give it as {_ADVICE}")
        raise EncryptionError(
            f"{what} is encrypted with another key ({key_id.hex()}): give that key as {_ADVICE}; "
            "several keys may stand there, the one to write with first"
        )

    def kind_of(self, key_id: bytes) -> Sealing:
        """Which of the keys bears this id."""
        if self.writing is not None and key_id == self.writing.id:
            return "current"
        return "older" if any(key.id == key_id for key in self.reading) else "unknown"


_keys: Keys | Callable[[], Keys] = Keys()


def use(keys: Keys | Callable[[], Keys]) -> None:
    """Makes ``keys`` those of this process; a function is asked when a key is needed for the first time."""
    global _keys
    _keys = keys


def keys() -> Keys:
    """The keys of this process.

    Raises:
        ConfigError: what is given as a key is not one.
    """
    if not isinstance(_keys, Keys):
        use(_keys())
    assert isinstance(_keys, Keys)  # noqa: S101 - for the type checker
    return _keys


def parse_key(text: str, name: str = "the encryption key") -> bytes:
    """The 32 bytes that ``text`` holds in base64 (44 characters) or hex (64 characters).

    Raises:
        ConfigError: it is not such a key. The message does not repeat the text.
    """
    text = text.strip()
    for read in (bytes.fromhex, lambda value: base64.b64decode(value.translate(_URL_SAFE), validate=True)):
        try:
            key = read(text)
        except (ValueError, binascii.Error):
            continue
        if len(key) == KEY_BYTES:
            return key
    raise ConfigError(f"{name} must be 32 bytes in base64 or hex; make one with: openssl rand -base64 32")


def parse_keys(text: str) -> Keys:
    """The keys in ``text``, parted by blanks or line breaks: the one to write with, and after it older ones.

    Raises:
        ConfigError: one of them is not a key, or there is none. The message does not repeat the text.
    """
    found = tuple(made_key(parse_key(part)) for part in text.split() or [""])
    return Keys(found[0], found)


def made_key(secret: bytes) -> Key:
    """The key of these 32 bytes."""
    return Key(secret, _derived(secret, b"facestream key id", b"")[:ID_BYTES])


def new_key() -> str:
    """A new random key, in base64."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode()


def seal(content: Content, about: str) -> Content | bytes:
    """``content`` as it is to be written: sealed if this process has a key to write with. ``about`` says what it is,
    such as the name of its file; :func:`unseal` must be told the same."""
    key = keys().writing
    if key is None:
        return content
    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
    sealed = AESGCM(_of_file(key, salt)).encrypt(nonce, memoryview(content), about.encode())
    return b"".join((_MARKER, key.id, salt, nonce, sealed))


def unseal(content: Buffer, about: str, where: object) -> Buffer:
    """What was given to :func:`seal`; ``content`` itself if it is not sealed. Messages call it ``where``.

    Raises:
        EncryptionError: the key is not among those of this process.
        ValueError: it is damaged, or is not ``about`` this.
    """
    if not is_sealed(content):
        return content
    view = memoryview(content)
    key_id, salt, nonce = (bytes(view[start:end]) for start, end in ((8, 16), (16, 32), (32, _HEAD_BYTES)))
    key = keys().find(key_id, where)
    try:
        return AESGCM(_of_file(key, salt)).decrypt(nonce, view[_HEAD_BYTES:], about.encode())
    except (InvalidTag, ValueError):
        raise ValueError("it is damaged, or was put in the place of another file") from None


def is_sealed(content: Buffer) -> bool:
    """Whether ``content``, or its first bytes, come from :func:`seal`."""
    return bytes(content[: len(_MARKER)]) == _MARKER


def sealing_of(content: Buffer) -> Sealing:
    """By which of the keys ``content``, of which 16 bytes are enough, is sealed."""
    return keys().kind_of(bytes(content[8:16])) if is_sealed(content) else "plain"


def is_as_wanted(content: Buffer) -> bool:
    """Whether :func:`seal` would seal it with the same key, or not at all."""
    return sealing_of(content) == ("plain" if keys().writing is None else "current")


def _of_file(key: Key, salt: bytes) -> bytes:
    return key.derived(b"facestream file", salt)


def _derived(secret: bytes, purpose: bytes, salt: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt or None, purpose).derive(secret)
