"""Ctrl-C and SIGTERM, from the first moment of a command to its last.

Both raise an exception. If it is raised inside an import or a compiled library, it may be swallowed or turned into
another error. So the signal is remembered as well.
"""

import contextlib
import os
import signal
import sys
from types import FrameType
from typing import Final, NoReturn

EXIT_CODES: Final = {signal.SIGINT: 130, signal.SIGTERM: 0}

_received: signal.Signals | None = None


class Terminated(BaseException):
    """SIGTERM arrived while a command ran that need not finish anything first."""


def catch() -> None:
    """From now on SIGINT raises KeyboardInterrupt and SIGTERM :class:`Terminated`, and both are remembered."""
    for number in EXIT_CODES:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)
    sys.unraisablehook = _on_unraisable


def leave(code: int) -> NoReturn:
    """Ends the process with ``code``; further signals are ignored."""
    for number in EXIT_CODES:
        signal.signal(number, signal.SIG_IGN)
    if _received is not None:
        # At its end CPython kills itself with SIGINT if an import in a compiled module was interrupted.
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def received() -> signal.Signals | None:
    """The last signal that was caught; None before the first."""
    return _received


def _on_signal(number: int, _frame: FrameType | None) -> None:
    global _received
    _received = signal.Signals(number)
    if _received == signal.SIGINT:
        raise KeyboardInterrupt
    raise Terminated


def _on_unraisable(swallowed: "sys.UnraisableHookArgs") -> None:
    if not isinstance(swallowed.exc_value, KeyboardInterrupt | Terminated):
        sys.__unraisablehook__(swallowed)
