"""What was answered to requests with an idempotency key, for a day."""

import time
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from worker.database import schema
from worker.database.owned import REPLIES
from worker.history.shared import SharedDatabase
from worker.people_keys import Owned

_KEPT_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What was answered to a request; a status of 0 means that it is still at work."""

    digest: str
    status: int
    body: str


class Replies:
    """Safe to use from any thread. All methods raise DatabaseError where the database cannot be used."""

    def __init__(self, database: SharedDatabase) -> None:
        self._database = database

    def claim(self, request: str, digest: str) -> Reply | None:
        """Notes that a request is at work, if it was not heard before: None. Otherwise what is known of it."""
        row = {"request": request, "digest": digest, "status": 0, "body": "", "expires_s": time.time() + _KEPT_S}
        with self._database.writing() as connection:
            connection.execute(schema.replies.delete().where(schema.replies.c.expires_s <= time.time()))
            added = self._database.insert(schema.replies).values(row).on_conflict_do_nothing()
            if connection.execute(added.returning(schema.replies.c.request)).first() is not None:
                return None
            known = connection.execute(sa.select(schema.replies).where(schema.replies.c.request == request)).one()
        return Reply(known.digest, known.status, known.body)

    def keep(self, request: str, status: int, body: str) -> None:
        """What was answered."""
        with self._database.writing() as connection:
            of_it = schema.replies.c.request == request
            kept = Owned(REPLIES, body, again=True)
            connection.execute(schema.replies.update().where(of_it).values(status=status, body=kept))

    def drop(self, request: str) -> None:
        """The request failed, and may be made again."""
        with self._database.writing() as connection:
            connection.execute(schema.replies.delete().where(schema.replies.c.request == request))
