"""What the errors of PostgreSQL, SQLite and their drivers mean: one line each, with what to do next."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from worker.errors import DatabaseError, DatabaseFullError, DatabaseUnavailableError, DatabaseValueError
from worker.redaction import redact

_FULL_CODES: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_SQLITE_VALUE_ERRORS: Final = (sqlite3.ProgrammingError, sqlite3.InterfaceError)
_PLAIN_VALUE_ERRORS: Final = (ValueError, TypeError, OverflowError, AttributeError)

_GRANT: Final = (
    "grant this user the role facestream_worker, facestream_operator, facestream_console or facestream_reader"
)
_INCOMPLETE: Final = "'facestream database check' says what is missing"
_CONTRADICTORY: Final = "it has tables of another layout than it says, and stays as it is: restore it from a backup"
# By the kind of SQLSTATE (PostgreSQL's appendix "Error Codes"), the longest first.
_ADVICE: Final[tuple[tuple[str, type[DatabaseError], str], ...]] = (
    ("28P01", DatabaseError, "correct the password in ~/.pgpass, PGPASSFILE, PGPASSWORD or the URL"),
    ("28000", DatabaseError, "correct the user in the URL, or let pg_hba.conf of the server admit it from here"),
    ("3D000", DatabaseError, "correct the name in the URL, or create the database"),
    ("42501", DatabaseError, _GRANT),
    ("42P01", DatabaseError, _INCOMPLETE),
    ("42703", DatabaseError, _INCOMPLETE),
    ("42P07", DatabaseError, _CONTRADICTORY),
    ("42701", DatabaseError, _CONTRADICTORY),
    ("3F000", DatabaseError, _INCOMPLETE),
    ("25006", DatabaseUnavailableError, "it is a standby, or read-only: name the primary in the URL"),
    ("53100", DatabaseFullError, "make room on the disk of the server"),
    ("53300", DatabaseUnavailableError, "raise max_connections of the server, or put a pooler before it"),
    ("53", DatabaseUnavailableError, "give the server more memory or disk"),
    ("55P03", DatabaseUnavailableError, "others hold it for too long; try again"),
    ("40", DatabaseUnavailableError, "others changed the same; try again"),
    ("57P03", DatabaseUnavailableError, "the server is starting or stopping; try again"),
    ("57", DatabaseUnavailableError, "the server ended the connection; try again"),
    ("58", DatabaseFullError, "look into the server's log: its disk fails"),
    ("22", DatabaseValueError, ""),
    ("23", DatabaseValueError, ""),
)
# Before a connection stands, libpq gives no code, only a text.
_CONNECTING: Final[tuple[tuple[str, str], ...]] = (
    (r"password authentication failed|no password supplied", "28P01"),
    (r"no pg_hba\.conf entry|authentication failed|peer authentication", "28000"),
    (r"database .* does not exist", "3D000"),
    (r"role .* does not exist", "28000"),
    (r"too many connections|too many clients|remaining connection slots", "53300"),
    (r"is starting up|is shutting down|in recovery mode|not yet accepting", "57P03"),
)
_TEXTS: Final[tuple[tuple[str, str], ...]] = (
    (r"certificate|SSL (error|was)|sslmode|root\.crt", "correct sslmode, sslrootcert in the URL, or the certificate"),
    (r"could not translate host|Name or service not known|resolve host", "correct the name of the host in the URL"),
    (r"service .* not found|service file", "write the service into ~/.pg_service.conf, or PGSERVICEFILE"),
    (r"read-only|hot standby", "it is a standby, or read-only: name the primary in the URL"),
)  # fmt: skip


@contextmanager
def translated(label: str) -> Iterator[None]:
    """Turns each error of a database in the block into one line about the database called ``label``.

    Raises:
        DatabaseError: or one of its kinds.
    """
    try:
        yield
    except (StatementError, PoolTimeout) as error:
        raise _meaning(label, error) from None
    except Exception as error:
        if not _is_psycopg(error):
            raise
        raise _of_postgres(label, error) from None


def _meaning(label: str, error: SQLAlchemyError) -> DatabaseError:
    original = getattr(error, "orig", None)
    if isinstance(error, StatementError) and not isinstance(error, DBAPIError):
        return DatabaseValueError(f"{label} cannot store a value: {_line(original or error)}")
    if isinstance(original, sqlite3.Error):
        return _of_sqlite(label, original)
    if original is not None and _is_psycopg(original):
        return _of_postgres(label, original)
    return DatabaseUnavailableError(f"{label} cannot be used: {_line(error)}")


def _of_sqlite(label: str, error: sqlite3.Error) -> DatabaseError:
    if isinstance(error, _SQLITE_VALUE_ERRORS) or isinstance(error.__context__, _PLAIN_VALUE_ERRORS):
        return DatabaseValueError(f"{label} cannot store a value: {_line(error)}")
    if isinstance(error, sqlite3.OperationalError):
        # The low byte is the kind of error, the others its details (SQLite's "Result and Error Codes").
        full = getattr(error, "sqlite_errorcode", 0) & 0xFF in _FULL_CODES
        kind = DatabaseFullError if full else DatabaseError
        return kind(f"{label} cannot be used: {_line(error)}")
    return DatabaseError(f"{label} is damaged ({_line(error)}); move it away, and a new one is begun")


def _of_postgres(label: str, error: Any) -> DatabaseError:
    text = _line(error)
    code = getattr(error, "sqlstate", None) or _code_of(str(error))
    for prefix, kind, advice in _ADVICE:
        if code.startswith(prefix):
            if advice == _GRANT and re.search(r"permission denied for database|must be owner", text):
                advice = "take a user that may create tables there, such as the owner of the database"
            if kind is DatabaseValueError:
                return kind(f"{label} cannot store a value: {text}")
            return kind(f"{label}: {text}; {advice}")
    if code and not code.startswith("08"):
        return DatabaseError(f"{label}: {text} (SQLSTATE {code})")
    if not code and type(error).__name__ in {"DataError", "ProgrammingError"}:
        return DatabaseValueError(f"{label} cannot store a value: {text}")
    advice = next(
        (advice for found, advice in _TEXTS if re.search(found, str(error))), "check the server and the network"
    )
    return DatabaseUnavailableError(f"{label} cannot be reached: {text}; {advice}")


def _code_of(text: str) -> str:
    return next((code for found, code in _CONNECTING if re.search(found, text)), "")


def _is_psycopg(error: BaseException) -> bool:
    return any(kind.__module__.startswith("psycopg") for kind in type(error).__mro__)


def _line(error: BaseException) -> str:
    """The last line that says something: before it come hints, and the attempts at other hosts."""
    # libpq's own name for a step of the log-in looks like one for a password.
    lines = [line.strip() for line in redact(str(error).replace("fe_sendauth: ", "")).splitlines()]
    said = [line for line in lines if line and not line.startswith(("LINE ", "^", "HINT", "DETAIL", "CONTEXT", "- "))]
    text = said[0] if said else type(error).__name__
    # Of several hosts, libpq tells each with the same beginning.
    return re.sub(r"^connection (failed|is bad): ", "", text)
