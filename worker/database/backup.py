"""A whole database to a file, and back.

PostgreSQL has its own tools for this, ``pg_dump``, ``pg_restore`` and ``psql``; a SQLite file is copied by SQLite.
"""

import os
import re
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from tempfile import TemporaryFile
from typing import IO, Any, Final

from worker.database import half_templates
from worker.database.address import DatabaseAddress
from worker.database.database import Database, open_sqlite, password_of
from worker.database.errors import translated
from worker.database.layout import layout_of, upgrade
from worker.database.schema import LAYOUT, SCHEMA, VERSION_TABLE
from worker.errors import DatabaseError, OutputError
from worker.files import draft_beside, writing
from worker.redaction import redact
from worker.sqlite import source_for

_MOST_TRIES: Final = 20
_DEADLOCK: Final = "40P01"
_TOOLS_MISSING: Final = "install PostgreSQL's client programs (Debian: postgresql-client), not older than the server"


def back_up(database: Database, file: Path, address: DatabaseAddress | None = None) -> None:
    """Writes the content of ``database`` to a new file that only its owner may read. ``address``: of a PostgreSQL one.

    Raises:
        OutputError: the file exists already, or cannot be written.
        DatabaseError: the database cannot be read.
    """
    layout_of(database)
    with writing(file):
        try:
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            raise OutputError(f"{file} exists already: name another file, or remove it") from None
    try:
        if address is None:
            with database.outside() as connection:
                connection.execute("VACUUM INTO ?", (str(file),))
        else:
            options = "--format=custom", f"--schema={SCHEMA}", "--no-owner", "--no-privileges"
            without = f"--exclude-table={SCHEMA}.{half_templates.TABLE}"
            _run(address, *_connecting(address, "pg_dump", *options, without, f"--file={file}"))
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def restore(database: Database, file: Path, address: DatabaseAddress | None = None) -> None:
    """Replaces the content of ``database`` by what :func:`back_up` wrote, and brings it to the newest layout.

    It happens in one transaction: others see the content before, or the content after. Rights that were granted on
    PostgreSQL's tables are to be granted again.

    Raises:
        DatabaseError: the file is no such backup, is damaged or newer, or the database cannot be written.
    """
    if not file.is_file():
        raise DatabaseError(f"no backup at {file}: name a file that 'facestream database backup' wrote")
    if address is None:
        _restore_sqlite(database, file)
    else:
        _restore_postgres(database, address, file)
    upgrade(database)


def is_empty(database: Database) -> bool:
    """Whether there are no tables of facestream yet.

    Raises:
        DatabaseError: it cannot be read, or is another program's.
    """
    return layout_of(database) == 0


def _restore_sqlite(database: Database, file: Path) -> None:
    with database.outside() as target:
        try:
            with source_for(target, file, draft_beside(Path(database.label))) as source:
                (sound,) = source.execute("PRAGMA integrity_check").fetchone()
                (layout,) = source.execute("PRAGMA user_version").fetchone()
                if sound != "ok":
                    raise DatabaseError(f"backup {file} is damaged ({sound}): take an older one")
                _check_layout(file, layout)
                source.backup(target)
        except sqlite3.DatabaseError as error:
            raise DatabaseError(f"{file} is no backup of a SQLite history: {error}") from None


def _restore_postgres(database: Database, address: DatabaseAddress, file: Path) -> None:
    rows = _run(address, "pg_restore", "--data-only", f"--table={VERSION_TABLE}", "--file=-", str(file))
    found = re.search(rf"^COPY .*{VERSION_TABLE} .*\n(\d+)$", rows, re.MULTILINE)
    _check_layout(file, int(found[1]) if found else 0)
    half_templates.drop(database)
    for tries in count(1):
        problem = _replay(address, file)
        if problem is None:
            return
        # A writer may hold a table and wait for one that is restored already. Then nothing was changed.
        if tries == _MOST_TRIES or problem.sqlstate != _DEADLOCK:
            with translated(address.server):
                raise problem


def _replay(address: DatabaseAddress, file: Path) -> Any:
    """Restores ``file`` in one transaction: psql carries out what pg_restore writes. Returns the error of the server,
    one of psycopg's, if there is one: psql tells its code, and pg_restore its text alone, in the server's language."""
    import psycopg

    writes = ["pg_restore", "--clean", "--if-exists", "--no-owner", "--no-privileges", "--file=-", str(file)]
    options = "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--set=VERBOSITY=verbose", "--file=-"
    with TemporaryFile() as said, TemporaryFile() as said_of_file:
        with (
            _begun(_connecting(address, "psql", *options), address, said, stdin=PIPE) as target,
            _begun(writes, address, said_of_file, stdout=PIPE) as source,
        ):
            with suppress(BrokenPipeError):  # psql has ended, and says why
                target.stdin.write(b"BEGIN;\n")
                shutil.copyfileobj(source.stdout, target.stdin)
                if source.wait() == 0:
                    target.stdin.write(b"COMMIT;\n")
            with suppress(BrokenPipeError):
                target.stdin.close()
        if target.returncode == 0:
            if source.returncode:
                raise _problem(address, _read(said_of_file))
            return None
        told = _read(said)
    errors = re.findall(r"^psql:<stdin>:\d+: [^:]+: +([0-9A-Z]{5}): (.*)$", told, re.MULTILINE)
    if not errors:
        raise _problem(address, told)
    code, text = errors[-1]
    return psycopg.errors.lookup(code)(text)


def _check_layout(file: Path, layout: int) -> None:
    if layout == 0:
        raise DatabaseError(f"{file} is no backup of facestream: name a file that 'facestream database backup' wrote")
    if layout > LAYOUT:
        raise DatabaseError(
            f"backup {file} was written by a newer version of facestream (layout {layout}, this version reads "
            f"{LAYOUT}); upgrade facestream"
        )


def _run(address: DatabaseAddress, *command: str) -> str:
    """Runs a program of PostgreSQL; returns what it printed."""
    with TemporaryFile() as said, _begun(command, address, said, stdout=PIPE) as program:
        printed, _ = program.communicate()
        if program.returncode:
            raise _problem(address, _read(said))
    return str(printed, "utf-8", "replace")


def _connecting(address: DatabaseAddress, program: str, *arguments: str) -> list[str]:
    """The command that lets ``program`` connect to the database. The password is not in it: every user of the machine
    can read it."""
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    given = conninfo_to_dict(address.conninfo.get_secret_value())
    given.pop("password", None)
    return [program, f"--dbname={make_conninfo('', **given)}", "--no-password", *arguments]


def _begun(
    command: Sequence[str], address: DatabaseAddress, said: IO[bytes], *, stdin: int = DEVNULL, stdout: int = DEVNULL
) -> Any:
    """``command``, which writes its errors to ``said``; English ones, as far as they are not the server's."""
    from psycopg.conninfo import conninfo_to_dict

    in_address = conninfo_to_dict(address.conninfo.get_secret_value()).get("password")
    password = password_of(address) if address.password_file else in_address
    environment = dict(os.environ) | {"LC_ALL": "C"} | ({} if password is None else {"PGPASSWORD": str(password)})
    try:
        return Popen(  # noqa: S603 - the program is one of three, the arguments are our own
            command, env=environment, stdin=stdin, stdout=stdout, stderr=said
        )  # fmt: skip
    except FileNotFoundError:
        raise DatabaseError(f"{command[0]} is not installed: {_TOOLS_MISSING}") from None


def _read(said: IO[bytes]) -> str:
    said.seek(0)
    return str(said.read(), "utf-8", "replace")


def _problem(address: DatabaseAddress, told: str) -> DatabaseError:
    """What a program told on its standard error, as one line."""
    lines = [line.strip() for line in redact(told).splitlines() if line.strip()]
    said = [line for line in lines if "error:" in line] or lines[-1:] or ["it gave no reason"]
    advice = f"; {_TOOLS_MISSING}" if "server version" in told else ""
    return DatabaseError(f"{address.server}: {said[0]}{advice}")


def open_file(folder_file: Path) -> Database:
    """The SQLite file, opened as it is.

    Raises:
        DatabaseError: it cannot be opened.
    """
    try:
        return open_sqlite(folder_file)
    except OSError as error:
        raise DatabaseError(f"{folder_file} cannot be opened: {error.strerror or error}") from None
