"""Forward events to a webhook: signed, in order, tried again while the receiver is away."""

import hashlib
import hmac
import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
import tenacity

from worker.asking import Asker
from worker.errors import ConfigError
from worker.events.codec import encode
from worker.events.consumer.blocking import Consumer
from worker.events.consumer.group import reason_of
from worker.logs import get_logger
from worker.types import Event

TIMESTAMP_HEADER: Final = "Facestream-Timestamp"
SIGNATURE_HEADER: Final = "Facestream-Signature"
EVENT_ID_HEADER: Final = "Facestream-Event-Id"
TOLERANCE_S: Final = 300.0
UNTRUSTED_PAUSE_S: Final = 30.0

_VERSION: Final = "v1"
_SHORTEST_SECRET: Final = 16
_PASSING_STATUS: Final = frozenset({408, 425, 429})
_UNTRUSTED_STATUS: Final = frozenset({401, 403, 407})
"""It is not the event that is refused, but who sends it: the secret is wrong, most of the time."""

_log = get_logger(__name__)


class RejectedError(Exception):
    """The receiver will not take this event, however often it is sent."""


class UntrustedError(Exception):
    """The receiver does not trust this sender: every event would be refused until somebody puts that right."""


class AwayError(Exception):
    """The receiver cannot take events now; ``pause_s`` is what it asked for, 0 if nothing."""

    def __init__(self, message: str, pause_s: float = 0.0) -> None:
        super().__init__(message)
        self.pause_s = pause_s


def sign(secret: bytes, timestamp: int, body: bytes) -> str:
    """The value of the signature's header: HMAC-SHA256 over ``TIMESTAMP.BODY``, as ``v1=`` and hex digits."""
    digest = hmac.new(secret, b"%d." % timestamp + body, hashlib.sha256).hexdigest()
    return f"{_VERSION}={digest}"


def verify(
    secret: bytes,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now_s: float | None = None,
    tolerance_s: float = TOLERANCE_S,
) -> None:
    """For receivers: checks that a request with these headers and this body is recent, and was signed with ``secret``.

    Raises:
        ValueError: a header is missing, the signature is wrong, or the request is older (or newer) than
            ``tolerance_s``: somebody may be repeating it.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    try:
        timestamp = int(lower[TIMESTAMP_HEADER.lower()])
        signature = lower[SIGNATURE_HEADER.lower()]
    except (KeyError, ValueError):
        raise ValueError(f"the request lacks {TIMESTAMP_HEADER} or {SIGNATURE_HEADER}") from None
    if not hmac.compare_digest(sign(secret, timestamp, body).encode(), signature.encode()):
        raise ValueError("the signature does not belong to this body and secret")
    if abs((time.time() if now_s is None else now_s) - timestamp) > tolerance_s:
        raise ValueError("the request is too old: somebody may be repeating it, or a clock is wrong")


def read_secret(path: Path) -> bytes:
    """The secret in the file ``path``, without the line break at its end.

    Raises:
        ConfigError: it cannot be read, or is shorter than 16 bytes.
    """
    try:
        secret = path.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise ConfigError(f"secret file {path} cannot be read: {error.strerror or error}") from None
    if len(secret) < _SHORTEST_SECRET:
        raise ConfigError(
            f"secret file {path} holds fewer than {_SHORTEST_SECRET} bytes: write a longer secret into it"
        )
    return secret


class Webhook:
    """Posts events to ``url`` as JSON, signed with ``secret``. Redirects are not followed; of an answer only the head
    counts, and little more is read.

    One call tries for up to ``patience_s``, with pauses that grow from ``first_pause_s`` to ``longest_pause_s``, or
    those that the receiver asks for; a request may take ``timeout_s`` from its first byte to its last. ``stop`` ends a
    pause.

    Raises:
        ConfigError: ``url`` is not a web address, or it goes to another machine by http without ``allow_http``.
    """

    def __init__(
        self,
        url: str,
        secret: bytes,
        *,
        timeout_s: float = 10.0,
        patience_s: float = 30.0,
        ca_file: Path | None = None,
        allow_http: bool = False,
        stop: threading.Event | None = None,
        first_pause_s: float = 0.5,
        longest_pause_s: float = 10.0,
    ) -> None:
        check_address(url, allow_http=allow_http, advice=", or add --allow-http")
        self._url = url
        self._secret = secret
        self._is_away = False
        stop = stop or threading.Event()
        self._server = Asker(timeout_s, verify=_trust(ca_file))
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(AwayError),
            wait=_wait_at_least_as_asked(tenacity.wait_random_exponential(first_pause_s, longest_pause_s)),
            stop=tenacity.stop_any(tenacity.stop_before_delay(patience_s), tenacity.stop_when_event_set(stop)),
            sleep=tenacity.sleep_using_event(stop),
            reraise=True,
        )

    @property
    def receiver(self) -> str:
        """Where events go, to be shown: without the path, which is often a secret."""
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    def send(self, event: Event, more: Mapping[str, str] | None = None, *, name: str = "") -> None:
        """Returns when the receiver has taken the event (any status 2xx), with the fields ``more``. ``name`` takes the
        place of the event's id in the header by which receivers know a repeat.

        Raises:
            AwayError: it cannot be reached, or is too busy (5xx, 429, 408, 425), for now.
            UntrustedError: it refuses the sender (401, 403, 407).
            RejectedError: it refuses the event (any other status); redirects are refused as well.
        """
        body = json.dumps({**encode(event), **(more or {})}, ensure_ascii=False).encode()
        self._retrying(self._try, body, name or event.event_id)

    def close(self) -> None:
        """Give up the connections."""
        self._server.close()

    def _try(self, body: bytes, event_id: str) -> None:
        try:
            self._post(body, event_id)
        except AwayError as error:
            if not self._is_away:
                _log.warning("the receiver is away: events wait", receiver=self.receiver, reason=str(error))
            self._is_away = True
            raise
        if self._is_away:
            _log.info("the receiver takes events again", receiver=self.receiver)
        self._is_away = False

    def _post(self, body: bytes, event_id: str) -> None:
        # A new time for each try: the receiver refuses what is old.
        timestamp = int(time.time())
        headers = {
            "Content-Type": "application/json",
            EVENT_ID_HEADER: event_id,
            TIMESTAMP_HEADER: str(timestamp),
            SIGNATURE_HEADER: sign(self._secret, timestamp, body),
        }
        try:
            answer = self._server.ask("POST", self._url, content=body, headers=headers)
        except httpx.TransportError as error:
            raise AwayError(f"the receiver cannot be reached ({reason_of(error)})") from None
        status = answer.status
        if httpx.codes.is_success(status):
            return
        if status >= httpx.codes.INTERNAL_SERVER_ERROR or status in _PASSING_STATUS:
            raise AwayError(f"the receiver answers with status {status}", _asked_pause_s(answer.headers))
        if status in _UNTRUSTED_STATUS:
            raise UntrustedError(f"the receiver refuses the signature (status {status}); is the secret the right one?")
        what = "redirects, which is not followed" if httpx.codes.is_redirect(status) else "refuses the event"
        raise RejectedError(f"the receiver {what} (status {status})")


def forward(
    consumer: Consumer, webhook: Webhook, stop: threading.Event, *, untrusted_pause_s: float = UNTRUSTED_PAUSE_S
) -> None:
    """Sends each event of ``consumer`` to ``webhook`` until ``stop`` is set.

    An event that the receiver rejects is buried; while the receiver is away, events come again. A receiver that does
    not trust the sender is tried again with the same event every ``untrusted_pause_s``: no event is lost meanwhile. The
    log says when the receiver goes away, refuses the sender, and takes events again.

    Raises:
        SinkError: Redis refuses this consumer.
    """
    while not stop.is_set():
        delivery = consumer.poll()
        if delivery is None:
            continue
        try:
            _send_when_trusted(webhook, delivery.event, stop, untrusted_pause_s)
        except RejectedError as error:
            _log.warning("event refused: it is a dead letter", reason=str(error), event_id=delivery.event.event_id)
            consumer.bury(delivery, str(error))
        except AwayError as error:
            if not stop.is_set():
                consumer.failed(delivery, error)
        except UntrustedError:
            continue
        else:
            consumer.done(delivery)


def _send_when_trusted(webhook: Webhook, event: Event, stop: threading.Event, pause_s: float) -> None:
    """As :meth:`Webhook.send`; while the receiver refuses the sender, it waits and tries again.

    Raises:
        UntrustedError: ``stop`` was set meanwhile.
    """
    refused = False
    while True:
        try:
            webhook.send(event)
        except UntrustedError as error:
            if not refused:
                _log.error("forwarding pauses: no event is given up", reason=str(error), next_try_s=pause_s)
            refused = True
            if stop.wait(pause_s):
                raise
        else:
            if refused:
                _log.info("the receiver trusts the signature now")
            return


def check_address(url: str, *, name: str = "--url", allow_http: bool = False, advice: str = "") -> None:
    """Does nothing if events may be posted to ``url``, which messages call ``name``.

    Raises:
        ConfigError: it is not a web address, or goes to another machine by http without ``allow_http``. The path, which
            is often a secret, is not shown.
    """
    try:
        parts = urlsplit(url)
        host = httpx.URL(url).host
    except (ValueError, httpx.InvalidURL):
        raise ConfigError(f"{name} is not a URL: write https://host/path") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"{name} is not a web address: write https://host/path")
    if parts.scheme == "http" and not allow_http and not _is_loopback(host):
        raise ConfigError(
            f"{name}: http://{host} would show who was seen to everybody on the way: write https://{advice}"
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _trust(ca_file: Path | None) -> ssl.SSLContext | bool:
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"--ca-file {ca_file} cannot be read as certificates: {error}") from None


def _asked_pause_s(headers: httpx.Headers) -> float:
    asked = headers.get("Retry-After", "").strip()
    if asked.isascii() and asked.isdecimal():
        return float(asked)
    try:
        return max(0.0, (parsedate_to_datetime(asked) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _wait_at_least_as_asked(backoff: tenacity.wait_random_exponential) -> Callable[[tenacity.RetryCallState], float]:
    def pause_s(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked_s = error.pause_s if isinstance(error, AwayError) else 0.0
        return max(asked_s, backoff(state))

    return pause_s
