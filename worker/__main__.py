"""Entry point of the command. Each way to end has its exit code, and an error is one line."""

import gc
import io
import os
import sys

from worker import signals
from worker.arguments import blank_secrets

_OTHERS = 0o077
"""What a command writes of people is for its user only, also what a library or another program writes for it."""


def main() -> None:
    """Runs the command line and exits: 0 done, 1 an error, 2 wrong arguments or configuration, 130 interrupted."""
    _open_closed_streams()
    try:
        signals.catch()
        if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in {"strict", "surrogateescape"}:
            # Names may hold what no terminal can show, or what the locale C has no letters for.
            sys.stdout.reconfigure(errors="backslashreplace")
        # First of all: until then every user of the machine can read the arguments.
        blank_secrets()
        if sys.argv[1:2] != ["models"]:  # weights are nobody's, and may be shared
            os.umask(os.umask(0) | _OTHERS)
        # What a start makes stays: to look for garbage in it again and again takes an eighth of its time.
        gc.disable()
        from worker.cli import run_command_line

        gc.freeze()
        gc.enable()
        code = run_command_line(sys.argv[1:])
    except BaseException:
        number = signals.received()
        if number is None:
            raise
        code = signals.EXIT_CODES[number]
    signals.leave(code)


def _open_closed_streams() -> None:
    """Gives /dev/null to each standard stream that is closed when the process starts (``2>&-``).

    Without a standard error every message is an error of its own. And the next file that is opened, such as a database,
    would get the number of the closed stream, and with it all that libraries write there.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            stream = open(number, "w" if number else "r", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


if __name__ == "__main__":
    main()
