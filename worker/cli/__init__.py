"""The command line: arguments become a configuration, a service does the work.

Each module is one chapter of ``facestream --help``, named after what it talks to; its ``register`` lists its commands.
A command imports what it needs when it runs, so that ``facestream --help`` loads no network, no video library and no
TensorFlow. What commands share is in :mod:`worker.cli.options`, and what those that measure share in
:mod:`worker.cli.networks`.
"""

import os
import sys
import traceback

import typer
from typer.exceptions import TyperException

from worker import __version__, signals
from worker.cli import (
    audit,
    bench,
    calibrate,
    config,
    console,
    corrections,
    database,
    encryption,
    evaluate,
    events,
    fleet,
    forget,
    gallery,
    history,
    identify,
    models,
    run,
    train,
    unknown,
)
from worker.cli.help import furnish
from worker.cli.parsing import parsed_command, refuse_empty, warn_of_variables
from worker.cli.screen import complain, say
from worker.encryption import Keys, use
from worker.errors import FacestreamError
from worker.names import screen_text
from worker.redaction import redact

app = typer.Typer(
    name="facestream",
    help="Streaming face recognition: cameras in, sightings of people out through Redis Streams.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        say(__version__)
        raise typer.Exit


@app.callback()
def _root(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error (accepted after any command)."),
    version: bool = typer.Option(
        False, "--version", help="Print the version and exit.", is_eager=True, callback=_print_version
    ),
) -> None:
    pass


@app.command()
def version() -> None:
    """Print the version."""
    _print_version(True)


for chapter in (
    run,
    config,
    gallery,
    identify,
    evaluate,
    calibrate,
    events,
    models,
    train,
    bench,
    history,
    corrections,
    unknown,
    forget,
    audit,
    database,
    encryption,
    fleet,
    console,
):
    chapter.register(app)


def run_command_line(arguments: list[str]) -> int:
    """Runs one command; returns its exit code. No exception leaves this function."""
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        use(_keys_of_environment)
        warn_of_variables(arguments)
        refuse_empty(arguments)
        command = parsed_command(app)
        furnish(command)
        result = command.main(arguments, prog_name="facestream", standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except signals.Terminated:
        return 0
    except typer.Exit as error:
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the last resort: one line, and where to find more
        if debug:
            sys.stderr.write(screen_text(redact(traceback.format_exc())))
        if number := signals.received():
            return signals.EXIT_CODES[number]
        return _exit_code_of(error)
    number = signals.received()
    return signals.EXIT_CODES[number] if number and code == 0 else code


def _keys_of_environment() -> Keys:
    """For commands without a configuration file; others replace them by what stands in it."""
    from worker.config import environment_keys

    return environment_keys()


def _exit_code_of(error: Exception) -> int:
    """Tells the error in one line; returns the exit code of its kind."""
    if isinstance(error, TyperException):
        # A command group without a command has shown its help, and has no message.
        if message := error.format_message():
            complain(message + _hint(error))
        return 2
    if isinstance(error, FacestreamError):
        complain(str(error))
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        # The reader of a pipe has gone: say nothing more, not even at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    complain(f"unexpected {type(error).__name__}: {error} (run again with --debug for the traceback)")
    return 1


def _hint(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f" (see '{context.command_path} --help')" if context else ""
