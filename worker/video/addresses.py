"""What the source of a camera names: a network stream, a device, a video file or a folder of images."""

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from worker.config import CameraConfig, expand_user
from worker.errors import ConfigError
from worker.redaction import redact_url

SourceKind = Literal["network", "device", "file", "folder"]

SCHEMES: Final = ("rtsp", "rtsps", "http", "https")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=[:,])")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Address:
    """``target`` is what FFmpeg opens, and may hold credentials; ``label`` holds none, and is what to show."""

    kind: SourceKind
    target: str
    label: str

    def __repr__(self) -> str:
        return f"Address({self.kind}, {self.label})"

    @property
    def live(self) -> bool:
        """Frames come at their own pace and the stream is expected not to end."""
        return self.kind in ("network", "device")

    @property
    def over_http(self) -> bool:
        """It is asked for by HTTP, with or without TLS: our own connection is used, not FFmpeg's."""
        return self.target[:4].lower() == "http"


def parse_address(text: str) -> Address:
    """What ``text`` names. A path need not exist yet; anything that FFmpeg would take for a protocol is refused.

    Raises:
        ConfigError: empty, control characters, a URL without host, or a scheme other than :data:`SCHEMES`.
    """
    label = redact_url(text)
    if not text.strip() or _CONTROL.search(text):
        raise ConfigError("the source of a camera is empty or holds control characters: give a URL, a path or a device")
    if text.isdecimal():
        return Address("device", f"/dev/video{int(text)}", f"device {int(text)}")
    scheme = _SCHEME.match(text)
    if scheme and scheme[0].lower() in SCHEMES and text[scheme.end() :].startswith("://"):
        if not _has_host(text):
            raise ConfigError(f"source {label}: the URL has no valid host; write {scheme[0].lower()}://HOST:PORT/PATH")
        return Address("network", text, label)
    try:
        path = expand_user(Path(text))
    except ValueError as error:
        raise ConfigError(f"source {label}: {error}") from None
    if scheme and not _exists(path):
        raise ConfigError(f"source {label}: no such file, and only {', '.join(SCHEMES)} URLs are read")
    # Absolute, so that FFmpeg cannot take the beginning of a name for a protocol.
    target = str(path.absolute())
    try:
        mode = path.stat().st_mode
    except OSError:
        return Address("file", target, label)
    if stat.S_ISCHR(mode):
        return Address("device", target, label)
    return Address("folder" if stat.S_ISDIR(mode) else "file", target, label)


def is_live(camera: CameraConfig) -> bool:
    """Whether the camera is a network stream or a device, as opposed to files.

    Raises:
        ConfigError: see :func:`parse_address`.
    """
    return parse_address(camera.source.get_secret_value()).live


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long for a name
        return False


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
