"""What the URL of a PostgreSQL database says: how to connect, and which gallery is meant.

All of the URL except ``gallery=NAME`` and ``password_file=PATH`` is for libpq: hosts, services, its own password files
and TLS work as with ``psql``.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from worker.errors import ConfigError
from worker.redaction import redact_url

DEFAULT_GALLERY: Final = "default"
EXAMPLE: Final = "postgresql://user@host/database?gallery=NAME"
_SCHEMES: Final = frozenset({"postgresql", "postgres", "postgresql+psycopg"})
_OURS: Final = frozenset({"gallery", "password_file"})
_SECRETS: Final = frozenset({"password", "sslpassword"})
_NAME: Final = re.compile(r"[\w.-]{1,100}")


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """``conninfo`` is libpq's own and may hold a password; ``label`` is the URL without one, ``server`` the same
    without the name of the gallery. ``password_file`` holds nothing but the password."""

    conninfo: SecretStr
    gallery: str
    server: str
    password_file: Path | None = None

    @property
    def label(self) -> str:
        return f"{self.server}{'&' if '?' in self.server else '?'}gallery={self.gallery}"


def parse_database_url(url: str) -> DatabaseAddress:
    """What ``url`` says.

    Raises:
        ConfigError: it is not the URL of a PostgreSQL database, or names no proper gallery.
    """
    shown = redact_url(url)
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigError(f"'{shown}' is not the URL of a database; write {EXAMPLE}") from None
    if parts.scheme.startswith(("redis", "rediss")):
        raise ConfigError(f"gallery {shown}: Redis keeps no galleries any more; use a folder, or {EXAMPLE}")
    if parts.scheme not in _SCHEMES:
        raise ConfigError(f"'{shown}' is neither a folder nor the URL of a database; write {EXAMPLE}")
    # Pieces of the query stay as they are: libpq reads a plus sign as itself.
    pieces = [piece for piece in parts.query.split("&") if piece]
    ours = {key: unquote(value) for key, _, value in (piece.partition("=") for piece in pieces) if key in _OURS}
    name = ours.get("gallery", DEFAULT_GALLERY)
    if not _NAME.fullmatch(name):
        raise ConfigError(f"'{shown}': the name after gallery= must have letters, digits, '.', '_' and '-' alone")
    rest = [piece for piece in pieces if piece.partition("=")[0] not in _OURS]
    open_rest = [piece for piece in rest if piece.partition("=")[0] not in _SECRETS]
    user, at, hosts = parts.netloc.rpartition("@")
    known = f"{user.partition(':')[0]}{at}{hosts}"
    end = f"#{parts.fragment}" if parts.fragment else ""
    return DatabaseAddress(
        SecretStr(_joined(parts.netloc, parts.path, rest) + end),
        name,
        _joined(known, parts.path, open_rest),
        Path(ours["password_file"]) if ours.get("password_file") else None,
    )


def _joined(netloc: str, path: str, options: list[str]) -> str:
    return f"postgresql://{netloc}{path}{'?' if options else ''}{'&'.join(options)}"
