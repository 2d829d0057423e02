"""A process that sends one message by Apprise, or checks one address; its exit code says what became of it.

It connects to no address that the policy of hosts refuses, follows no redirect, and has a bound on its memory.
"""

import base64
import ctypes
import json
import logging
import resource
import signal
import socket
import sys
from typing import Any, Final

from worker.alerts.delivery import MISSING, NO_ADDRESS, NOT_TAKEN, REFUSED, TAKEN
from worker.hosts import HostPolicy, HostRefusedError

_MOST_BYTES: Final = 2**30
_PR_SET_PDEATHSIG: Final = 1
_LOCAL: Final = frozenset(
    {"dbus", "kde", "qt", "glib", "gnome", "macosx", "windows", "syslog", "rsyslog", "file", "gntp"}
)
"""Kinds that would write to this machine, or send in clear to a log."""


def main() -> int:
    """Reads the job from standard input."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    job = json.loads(sys.stdin.buffer.read())
    logging.disable(logging.CRITICAL)
    try:
        import apprise
        from apprise.attachment.memory import AttachMemory
    except ImportError:
        return MISSING
    asset = apprise.AppriseAsset(http_redirects=False, secure_logging=True)
    receiver = apprise.Apprise.instantiate(job["address"], asset=asset, suppress_exceptions=True)
    scheme = job["address"].partition("://")[0].lower()
    if receiver is None or scheme in _LOCAL:
        return NO_ADDRESS
    if job.get("check"):
        return TAKEN
    refused = _guard(HostPolicy(tuple(job["allowed"]), tuple(job["refused"])))
    picture = base64.b64decode(job["picture"])
    attached = AttachMemory(content=picture, name="face.jpg", mimetype="image/jpeg") if picture else None
    sender = apprise.Apprise(asset=asset)
    sender.add(receiver)
    taken = sender.notify(title=job["title"], body=job["text"], body_format=apprise.NotifyFormat.TEXT, attach=attached)
    if taken:
        return TAKEN
    return REFUSED if refused else NOT_TAKEN


def _guard(policy: HostPolicy) -> list[str]:
    """From now on no name leads to an address that is refused; the hosts for which that happened are noted."""
    resolve: Any = socket.getaddrinfo
    refused: list[str] = []
    asking = False

    def guarded(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal asking
        if asking or host is None:
            return resolve(host, port, *arguments, **options)
        name = host.decode() if isinstance(host, bytes) else str(host)
        asking = True
        try:
            allowed = set(policy.addresses(name, port, own=name))
        except HostRefusedError:
            refused.append(name)
            raise socket.gaierror(socket.EAI_FAIL, "refused") from None
        finally:
            asking = False
        return [entry for entry in resolve(host, port, *arguments, **options) if str(entry[4][0]) in allowed]

    socket.getaddrinfo = guarded
    return refused


if __name__ == "__main__":
    sys.exit(main())
