"""Entry point of the command. Each way to end has its exit code, and an error is one line."""

import sys

from worker import signals


def main() -> None:
    """Runs the command line and exits: 0 done, 1 an error, 2 wrong arguments or configuration, 130 interrupted."""
    try:
        signals.catch()
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
