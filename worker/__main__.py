"""Entry point of the command. Each way to end has its exit code, and an error is one line."""

import io
import sys

from worker import signals


def main() -> None:
    """Runs the command line and exits: 0 done, 1 an error, 2 wrong arguments or configuration, 130 interrupted."""
    try:
        signals.catch()
        if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
            sys.stdout.reconfigure(errors="backslashreplace")  # names of files may hold what no terminal can show
        from worker.cli import run_command_line

        code = run_command_line(sys.argv[1:])
    except BaseException:
        number = signals.received()
        if number is None:
            raise
        code = signals.EXIT_CODES[number]
    signals.leave(code)


if __name__ == "__main__":
    main()
