"""The database of the history for other things that a console keeps beside it, from any thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import sqlalchemy as sa

from worker.database.address import parse_database_url
from worker.database.database import Database, open_postgres, open_sqlite
from worker.database.layout import require_newest, upgrade
from worker.errors import DatabaseError
from worker.files import is_of_state, private_folder
from worker.history.store import FILE

_CONNECTIONS: Final = 4


class SharedDatabase:
    """All methods raise DatabaseError where the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # A SQLite file has one connection, for one thread at a time.
        self._one_at_a_time = threading.Lock()

    @classmethod
    def open(cls, place: Path | str) -> Self:
        """Beside the history at ``place``, a folder or the URL of a database.

        Raises:
            DatabaseError: it cannot be opened, or has another layout.
        """
        if isinstance(place, str):
            database = open_postgres(parse_database_url(place), connections=_CONNECTIONS)
            require_newest(database)
            return cls(database)
        try:
            private_folder(place, is_of_state)
            database = open_sqlite(place / FILE)
        except OSError as error:
            raise DatabaseError(f"{place / FILE} cannot be opened: {error.strerror or error}") from None
        upgrade(database)
        return cls(database)

    def close(self) -> None:
        self._database.close()

    def insert(self, table: sa.Table) -> Any:
        """As :meth:`worker.database.database.Database.insert`."""
        return self._database.insert(table)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """As :meth:`worker.database.database.Database.reading`."""
        with self._turn(), self._database.reading() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """As :meth:`worker.database.database.Database.writing`."""
        with self._turn(), self._database.writing() as connection:
            yield connection

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._database.is_sqlite:
            yield
            return
        with self._one_at_a_time:
            yield
