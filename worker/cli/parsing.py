"""What holds for the arguments of every command, so that no command can forget it."""

import os
import sys
from pathlib import Path
from typing import Any, Final

from typer.main import get_command

from worker.cli.screen import say
from worker.errors import ConfigError

_PATH_NAMES: Final = frozenset(
    [
        "PATH",
        "DIR",
        "FILE",
        "FILE.png",
        "ID_OR_MANIFEST",
        "URL_OR_FILE",
        "PHOTO",
        "NEW",
        "PAIRS",
        "VIDEO_OR_FOLDER",
        "FROM",
        "TO",
    ]
)
"""How help calls the value of an option whose value is a path, or may be one."""
_NO_COMMAND: Final = frozenset({"-h", "--help", "--version", "version"})


def parsed_command(app: Any) -> Any:
    """The command of ``app``, in which every option that takes a path expands ``~`` at its beginning.

    A shell leaves ``--gallery=~/people`` as it is, and so do the files of systemd and compose.
    """
    command = get_command(app)
    _prepare(command)
    return command


def refuse_empty(arguments: list[str]) -> None:
    """Complains of an argument without a letter: a variable of a script that was not set, most of the time.

    Raises:
        ConfigError: there is one; the message names the option.
    """
    before = ""
    for argument in arguments:
        name, mark, value = argument.partition("=")
        if mark and name.startswith("--") and not value.strip():
            raise ConfigError(f"{name} is empty; give a value, or leave it out")
        if not argument.strip():
            place = f"{before} is empty" if before.startswith("-") else "an argument is empty"
            raise ConfigError(f"{place}; give a value, or leave it out")
        before = argument


def warn_of_variables(arguments: list[str]) -> None:
    """Names the variables of the environment that look like settings and are not."""
    if _NO_COMMAND.intersection(arguments) or not any(name.upper().startswith("FACESTREAM_") for name in os.environ):
        return
    from worker.config import unknown_variables

    for name, meant in unknown_variables().items():
        hint = f"; did you mean {meant}?" if meant else ""
        say(f"facestream: warning: {name} is not a setting, and is ignored{hint}", err=True)


def _prepare(command: Any) -> None:
    for parameter in command.params:
        kind = parameter.type_descriptor.annotation
        if Path in (kind, *getattr(kind, "__args__", ())) or parameter.metavar in _PATH_NAMES:
            parameter.callback = _at_home
    for inner in getattr(command, "commands", {}).values():
        _prepare(inner)


def _at_home(_context: Any, parameter: Any, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_at_home(None, parameter, each) for each in value)
    if not isinstance(value, str | Path) or not str(value).startswith("~"):
        return value
    from worker.config import expand_user

    try:
        expanded = expand_user(Path(value))
    except ValueError as error:
        raise ConfigError(f"{parameter.opts[0]}: {error}") from None
    return expanded if isinstance(value, Path) else str(expanded)


def read_source(text: str | None, file: Path | None) -> str | None:
    """The source of a camera, which may hold a password: ``text`` itself, a line of standard input where it is ``-``,
    or what ``file`` holds.

    Raises:
        ConfigError: both are given, the file cannot be read, or nothing stands there.
    """
    if file is None:
        source = sys.stdin.readline().strip() if text == "-" else text
        place = "standard input"
    elif text is not None:
        raise ConfigError("--source and --source-file name the same thing: give one of them")
    else:
        place = str(file)
        try:
            source = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise ConfigError(f"--source-file {file} cannot be read as text") from None
    if source == "":
        raise ConfigError(f"{place} holds no source: write rtsp://USER:PASSWORD@HOST/PATH into it")
    return source
