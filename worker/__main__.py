"""Entry point of the command: every way to end has its exit code, and an error is one line."""

import sys


def main() -> None:
    """Runs the command line and exits: 0 done, 1 met in the world, 2 wrong arguments, 130 interrupted."""
    try:
        from worker.cli import run_command_line

        code = run_command_line(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
