"""Where a shared gallery is: ``redis://[USER:PASSWORD@]HOST:PORT/DB?gallery=NAME``, or another form of Redis URL."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import SecretStr

from worker.errors import ConfigError
from worker.redaction import redact_url

DEFAULT_NAME: Final = "default"


@dataclass(frozen=True, slots=True)
class GalleryAddress:
    """Where a shared gallery is: ``redis_url`` may hold credentials; ``label`` does not."""

    redis_url: SecretStr
    name: str
    label: str


def is_shared(path: object) -> bool:
    """Whether this names a gallery in Redis rather than a folder."""
    return isinstance(path, str) and "://" in path


def parse_gallery_url(url: str) -> GalleryAddress:
    """The server and the name in ``redis://...?gallery=NAME``.

    Raises:
        ConfigError: an empty name.
    """
    label = redact_url(url)
    try:
        parts = urlsplit(url)
        options = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        raise ConfigError(f"gallery '{label}' is not a URL of Redis; write redis://host:6379/0?gallery=NAME") from None
    names = [value for key, value in options if key == "gallery"] or [DEFAULT_NAME]
    if not names[-1] or set("{}") & set(names[-1]):
        raise ConfigError(f"gallery '{label}': the name after gallery= must not be empty or hold braces")
    rest = urlencode([option for option in options if option[0] != "gallery"])
    return GalleryAddress(SecretStr(urlunsplit(parts._replace(query=rest))), names[-1], label)
