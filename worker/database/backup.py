"""A whole database to a file, and back.

PostgreSQL has its own tools for this, ``pg_dump`` and ``pg_restore``; a SQLite file is copied by SQLite.
"""

import os
import re
import sqlite3
import subprocess
from itertools import count
from pathlib import Path
from typing import Final

from worker.database import half_templates
from worker.database.address import DatabaseAddress
from worker.database.database import Database, open_sqlite, password_of
from worker.database.layout import layout_of, upgrade
from worker.database.schema import LAYOUT, SCHEMA, VERSION_TABLE
from worker.errors import DatabaseError, OutputError
from worker.files import draft_beside, writing
from worker.redaction import redact
from worker.sqlite import source_for

_MOST_TRIES: Final = 20
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
            _run(
                address, "pg_dump", "--format=custom", f"--schema={SCHEMA}", "--no-owner", "--no-privileges",
                f"--exclude-table={SCHEMA}.{half_templates.TABLE}", f"--file={file}",
            )  # fmt: skip
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
    rows = _run(address, "pg_restore", "--data-only", f"--table={VERSION_TABLE}", "--file=-", str(file), connects=False)
    found = re.search(rf"^COPY .*{VERSION_TABLE} .*\n(\d+)$", rows, re.MULTILINE)
    _check_layout(file, int(found[1]) if found else 0)
    half_templates.drop(database)
    for tries in count(1):
        try:
            _run(
                address, "pg_restore", "--clean", "--if-exists", "--single-transaction", "--exit-on-error",
                "--no-owner", "--no-privileges", str(file),
            )  # fmt: skip
        except DatabaseError as error:
            # A writer may hold a table and wait for one that is restored already. Then nothing was changed.
            if tries == _MOST_TRIES or "deadlock detected" not in str(error):
                raise
        else:
            return


def _check_layout(file: Path, layout: int) -> None:
    if layout == 0:
        raise DatabaseError(f"{file} is no backup of facestream: name a file that 'facestream database backup' wrote")
    if layout > LAYOUT:
        raise DatabaseError(
            f"backup {file} was written by a newer version of facestream (layout {layout}, this version reads "
            f"{LAYOUT}); upgrade facestream"
        )


def _run(address: DatabaseAddress, program: str, *arguments: str, connects: bool = True) -> str:
    """Runs a program of PostgreSQL on the database; returns what it printed. The password is not on its command line,
    which every user of the machine can read."""
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    given = conninfo_to_dict(address.conninfo.get_secret_value())
    in_address = given.pop("password", None)
    password = password_of(address) if address.password_file else in_address
    environment = dict(os.environ) | ({} if password is None else {"PGPASSWORD": str(password)})
    target = [f"--dbname={make_conninfo('', **given)}"] if connects else []
    try:
        done = subprocess.run(  # noqa: S603 - the program is one of two, the arguments are our own
            [program, *target, "--no-password", *arguments] if connects else [program, *arguments],
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise DatabaseError(f"{program} is not installed: {_TOOLS_MISSING}") from None
    if done.returncode:
        said = [line for line in redact(done.stderr).splitlines() if "error:" in line] or ["it gave no reason"]
        advice = f"; {_TOOLS_MISSING}" if "server version" in done.stderr else ""
        raise DatabaseError(f"{address.server}: {said[0].strip()}{advice}")
    return done.stdout


def open_file(folder_file: Path) -> Database:
    """The SQLite file, opened as it is.

    Raises:
        DatabaseError: it cannot be opened.
    """
    try:
        return open_sqlite(folder_file)
    except OSError as error:
        raise DatabaseError(f"{folder_file} cannot be opened: {error.strerror or error}") from None
