"""One alert to one receiver: a signed webhook, or a service that Apprise knows.

Apprise runs in a process of its own, which is ended after a time: it may be answered without end, it writes addresses
into its log, and it connects to wherever an address leads.
"""

import base64
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from worker.errors import ConfigError
from worker.events.consumer.webhook import AwayError, RejectedError, UntrustedError, Webhook, check_address
from worker.hosts import HostPolicy, HostRefusedError
from worker.types import Event

WEBHOOK_S: Final = 10.0
APPRISE_S: Final = 20.0
TAKEN, NOT_TAKEN, REFUSED, NO_ADDRESS, MISSING = 0, 1, 3, 4, 5
"""How the process of Apprise ends."""
_SECRETS: Final = "FACESTREAM_"

__all__ = ["Alert", "AwayError", "RejectedError", "deliver", "require_receiver", "shown"]


@dataclass(frozen=True, slots=True)
class Alert:
    """``alert_id`` is the same however often it is sent; ``picture`` is a JPEG, empty for none. If it ``is_test``,
    nothing has happened."""

    alert_id: str
    rule: str
    title: str
    text: str
    event: Event
    picture: bytes = b""
    is_test: bool = False


def deliver(alert: Alert, address: str, secret: str, policy: HostPolicy) -> None:
    """Returns when the receiver has taken the alert. ``secret`` signs it; empty: ``address`` is one of Apprise.

    Raises:
        AwayError: not now; it may be tried again.
        RejectedError: never, however often it is sent.
    """
    if secret:
        _to_webhook(alert, address, secret, policy)
    else:
        _to_apprise(alert, address, policy)


def require_receiver(address: str, *, is_webhook: bool) -> None:
    """Does nothing if alerts can be sent to ``address``.

    Raises:
        ConfigError: they cannot; the message does not repeat the address, which may hold a password.
    """
    if is_webhook:
        check_address(address, name="webhook")
        return
    code = _apprise({"address": address, "check": True})
    if code == MISSING:
        raise ConfigError("Apprise is not installed: pip install 'facestream[console]'")
    if code != TAKEN:
        raise ConfigError(
            f"apprise: {shown(address)} is not an address of Apprise that reaches another machine; its documentation "
            "lists them, such as mailtos:// or ntfys://"
        )


def shown(address: str) -> str:
    """``address`` as people may see it: its kind, and nothing of what may be a password."""
    scheme, mark, _ = address.partition("://")
    return f"{scheme}://***" if mark and scheme.isalnum() and len(scheme) <= _LONGEST_SCHEME else "***"


_LONGEST_SCHEME: Final = 20


def _to_webhook(alert: Alert, address: str, secret: str, policy: HostPolicy) -> None:
    parts = urlsplit(address)
    host = parts.hostname or ""
    try:
        policy.addresses(host, parts.port or (443 if parts.scheme == "https" else 80), own=host)
    except HostRefusedError as error:
        raise RejectedError(str(error)) from None
    except OSError:
        raise AwayError("the name of the receiver cannot be resolved") from None
    webhook = Webhook(address, secret.encode(), timeout_s=WEBHOOK_S, patience_s=0.0)
    more = {"alert_id": alert.alert_id, "rule": alert.rule, "text": alert.text}
    if alert.is_test:
        more["test"] = "true"
    if alert.picture:
        more["picture"] = base64.b64encode(alert.picture).decode()
    try:
        webhook.send(alert.event, more, name=alert.alert_id)
    except UntrustedError as error:
        raise AwayError(str(error)) from None
    finally:
        webhook.close()


def _to_apprise(alert: Alert, address: str, policy: HostPolicy) -> None:
    code = _apprise(
        {
            "address": address,
            "title": alert.title,
            "text": alert.text,
            "picture": base64.b64encode(alert.picture).decode(),
            "allowed": list(policy.allowed),
            "refused": list(policy.refused),
        }
    )
    if code == REFUSED:
        raise RejectedError("its host lies in a range of addresses that is refused")
    if code in {NO_ADDRESS, MISSING}:
        raise RejectedError("Apprise does not know such an address any more, or is not installed")
    if code != TAKEN:
        raise AwayError("the service did not take it")


def _apprise(job: dict[str, object]) -> int:
    """How the process ends that does this; passwords go by its standard input, where nobody else can see them."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_SECRETS)}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "worker.alerts.apprise_child"],
            input=json.dumps(job).encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=APPRISE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return NOT_TAKEN
    return done.returncode
