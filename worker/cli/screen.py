"""How commands write: for people, in the columns of their terminal, and for programs.

A line for people that is too long for the terminal is broken between words, and a word that is too long for any line
after a sign in it; widths are columns, so that all scripts stand in line. Into a pipe or a file each line goes whole.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import typer

from worker.names import screen_cell, screen_json, screen_text
from worker.redaction import redact

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

Document: TypeAlias = dict[str, Any]
"""A JSON object, as ``--json`` prints it."""

_USUAL_WIDTH: Final = 80
_NARROWEST: Final = 20
_WIDEST: Final = 32
"""Columns for a column of a table; a longer value moves its own row only."""
_SIGNS: Final = "/\\-_.,:;&?=)]"
"""After these a word that is too long may be broken, such as the path of a file."""


def json_line(document: Document) -> str:
    """``document`` as JSON on one line, with the line's end.

    A text that is no proper Unicode, such as the name of a file whose bytes are no UTF-8, or that standard output has
    no letters for, is escaped: the line is valid JSON, and Python reads the name back as it was.
    """
    line = json.dumps(document, ensure_ascii=False)
    try:
        line.encode()
        line.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        line = json.dumps(document)
    return screen_json(line) + "\n"


def print_json(document: Document) -> None:
    """Writes one JSON document on one line of standard output, and flushes it."""
    sys.stdout.write(json_line(document))
    sys.stdout.flush()


def say(text: object, *, err: bool = False) -> None:
    """Writes one line to standard output, or to standard error; a terminal that is too narrow gets it in several.

    This and :func:`say_lines` are the only ways in which commands print for people. Names, reasons and paths come from
    outside: what a terminal would obey is taken out, and a line break in a name does not make a line.
    """
    typer.echo(wrapped(str(text), screen_width(err=err), "", below="    "), err=err)


def say_lines(text: str) -> None:
    """Writes lines that were made by :func:`fit`, :func:`wrapped` or another that keeps a value to its line."""
    typer.echo(screen_text(text))


def complain(message: str) -> None:
    """Writes an error to standard error: one line, without credentials."""
    say(f"facestream: error: {' '.join(redact(message).split())}", err=True)


def count_of(number: int, noun: str, plural: str = "") -> str:
    """``1 face``, ``2 faces``; ``plural`` where it is not made with an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def people_of(number: int) -> str:
    """``1 person``, ``2 people``."""
    return count_of(number, "person", "people")


def time_text(value: datetime, timespec: Literal["seconds", "milliseconds"] = "seconds") -> str:
    """A time for people to read, that of this machine with its offset: ``2026-03-01 09:30:00+01:00``."""
    return value.astimezone().isoformat(" ", timespec)


def screen_width(*, err: bool = False) -> int | None:
    """How many columns standard output (or error) has; None where lines may be of any length, as in a pipe."""
    if (columns := os.environ.get("COLUMNS", "")).isdecimal() and int(columns):
        return int(columns)
    stream = sys.stderr if err else sys.stdout
    if stream is None or not stream.isatty():
        return None
    with suppress(OSError, ValueError):  # as where a test stands in for the terminal
        return os.get_terminal_size(stream.fileno()).columns or _USUAL_WIDTH
    return _USUAL_WIDTH


def columns_of(text: str) -> int:
    """How many columns a terminal needs for ``text``: two for each character of a wide script."""
    from rich.cells import cell_len

    return cell_len(text)


def padded(text: str, width: int) -> str:
    """``text`` with blanks after it up to ``width`` columns of a terminal."""
    return text + " " * (width - columns_of(text))


def fit(parts: Sequence[str], width: int | None) -> str:
    """The columns of a row on one line, or, if that is too long, as many on each line as fit; none is cut."""
    # A line break in a name must not look like another row.
    parts = [screen_cell(part) for part in parts]
    line = "  ".join(parts).rstrip()
    if width is None or columns_of(line) <= width:
        return line
    count = max(len(parts) - 1, 1)
    while count > 1 and columns_of("  ".join(parts[:count]).rstrip()) > width:
        count -= 1
    indent = " " * (len(line) - len(line.lstrip()))
    below = f"{indent}    "
    first = wrapped("  ".join(parts[:count]).strip(), width, indent, below=below)
    lines: list[str] = []
    for part in filter(None, (part.strip() for part in parts[count:])):
        if lines and columns_of(f"{lines[-1]}  {part}") <= width:
            lines[-1] += f"  {part}"
        else:
            lines += wrapped(part, width, below).split("\n")
    return "\n".join([first, *lines])


def table(rows: Sequence[Sequence[str]], width: int | None) -> str:
    """``rows``, of which the first are the heads, in columns as wide as what mostly stands there; see :func:`fit`."""
    shown = [[screen_cell(cell) for cell in row] for row in rows]
    widths = [min(_WIDEST, max(map(columns_of, column))) for column in zip(*shown, strict=True)]
    return "\n".join(fit([padded(*cell) for cell in zip(row, widths, strict=True)], width) for row in shown)


def wrapped(text: str, width: int | None, indent: str = "    ", *, below: str | None = None) -> str:
    """``text`` with its lines broken between words, each after ``indent``; those after the first after ``below``."""
    words = screen_cell(text).split(" ")
    if width is None:
        return f"{indent}{' '.join(words)}".rstrip()
    width, below = max(width, _NARROWEST), indent if below is None else below
    room = width - max(columns_of(indent), columns_of(below))
    lines: list[str] = []
    for word in words:
        if lines and columns_of(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        elif columns_of(begin := (below if lines else indent) + word) <= width:
            lines += [begin] if word or not lines else []
        else:
            for piece in _pieces(word, room):
                lines.append((below if lines else indent) + piece)
    return "\n".join(line.rstrip() for line in lines)


def _pieces(word: str, room: int) -> Iterator[str]:
    """``word`` in pieces of at most ``room`` columns, broken after a sign where one stands in their second half."""
    while columns_of(word) > room:
        end = 1
        while columns_of(word[: end + 1]) <= room:
            end += 1  # a mark that stands on a letter takes no column, and stays with it
        sign = max(word.rfind(sign, 0, end) for sign in _SIGNS) + 1
        end = sign if sign > end // 2 else end
        yield word[:end]
        word = word[end:]
    yield word


@contextmanager
def progress_bar(description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Shows ``description`` and a bar on standard error until the block ends, if that is a terminal.

    Yields a function that is told how many more are done.
    """
    from rich.progress import TimeRemainingColumn

    with terminal_progress(TimeRemainingColumn()) as progress:
        task = progress.add_task(description, total=total)
        yield lambda count: progress.advance(task, count)


def terminal_progress(clock: "ProgressColumn") -> "Progress":
    """Bars on standard error with counts and ``clock``. They vanish at the end, and show on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    # What is shown there may be the name of a file, and brackets in it are no markup.
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), clock)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
