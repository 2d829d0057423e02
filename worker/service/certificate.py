"""The certificate of the metrics port: read when the worker starts, and again when its files change."""

import ssl
import threading
from pathlib import Path

from worker.errors import ConfigError
from worker.logs import get_logger

_log = get_logger(__name__)


class Certificate:
    """What the port shows. Certificates are short-lived: a new one in the same files is shown to the next client.

    Raises:
        ConfigError: the files cannot be read, or do not belong together.
    """

    def __init__(self, cert_file: Path, key_file: Path) -> None:
        self._files = cert_file, key_file
        self._lock = threading.Lock()
        self._seen = self._stamp()
        try:
            self._context = self._read()
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"metrics.cert_file {cert_file} and metrics.key_file {key_file} cannot be used: {_reason(error)}"
            ) from None

    def context(self) -> ssl.SSLContext:
        """For the next connection. If a new certificate cannot be used, the one before stays, and the log says so."""
        with self._lock:
            if (now := self._stamp()) != self._seen:
                self._seen = now
                try:
                    self._context = self._read()
                except (OSError, ValueError) as error:
                    _log.error("the new certificate of the metrics port cannot be used: the old one stays",
                               cert_file=str(self._files[0]), reason=_reason(error))  # fmt: skip
                else:
                    _log.info("the metrics port shows a new certificate", cert_file=str(self._files[0]))
            return self._context

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Without a password of its own: OpenSSL would ask for it on the terminal.
        context.load_cert_chain(*self._files, password=lambda: "")
        return context

    def _stamp(self) -> tuple[object, ...]:
        try:
            return tuple((found.st_mtime_ns, found.st_ino, found.st_size) for found in map(Path.stat, self._files))
        except OSError:
            return ()


def _reason(error: OSError | ValueError) -> str:
    # An error of OpenSSL is an OSError, whose text ends with a line of its source.
    if isinstance(error, ssl.SSLError):
        return (error.reason or "it is no certificate with its key").replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error)
