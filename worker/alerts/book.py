"""Rules and alerts in the database: what keeps an alert from being lost, and from being sent twice.

An event is finished only once the alerts that it raises are noted. A process takes an alert for a time; if that passes,
because the process is gone, another one takes it. Why so: docs/decisions/alerts.md.
"""

import hashlib
import json
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from worker.alerts.rules import Rule
from worker.database import schema
from worker.database.owned import apart
from worker.errors import FacestreamError, SinkError
from worker.events.codec import decode, encode
from worker.history.sealing import owner_of_event, spend_rule
from worker.history.shared import SharedDatabase
from worker.logs import get_logger
from worker.people_keys import Owned
from worker.types import Event

TAKEN_S: Final = 30.0
"""For so long an alert belongs to the process that took it: longer than a delivery may last."""
KEPT_S: Final = 7 * 86_400.0
"""For so long it is known which visits were told."""
_FIRST_PAUSE_S: Final = 5.0
_LONGEST_PAUSE_S: Final = 900.0
GIVEN_UP_S: Final = 86_400.0
MOST_RULES: Final = 200
_DOUBLINGS: Final = 12

_rules, _alerts = schema.rules, schema.alerts

_log = get_logger(__name__)


class RuleError(FacestreamError):
    """A rule cannot be made or changed so."""


@dataclass(frozen=True, slots=True)
class StoredRule:
    """``made_s``: it is about what is captured after this Unix time."""

    rule_id: str
    rule: Rule
    made_s: float


@dataclass(frozen=True, slots=True)
class DueAlert:
    """Somebody is to be told ``event``; ``tries`` counts this one."""

    rule_id: str
    sighting_id: str
    receiver: str
    event: Event
    tries: int
    made_s: float

    @property
    def alert_id(self) -> str:
        """The same however often it is sent."""
        return hashlib.sha256(f"{self.rule_id} {self.sighting_id} {self.receiver}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many alerts are still to be delivered, and for how many seconds the oldest of them has been."""

    count: int
    oldest_s: float


@dataclass(frozen=True, slots=True)
class PastAlert:
    """What became of an alert; Unix times."""

    rule_id: str
    sighting_id: str
    receiver: str
    state: str
    problem: str
    tries: int
    made_s: float


class Book:
    """Safe to use from any thread. All methods raise DatabaseError where the database cannot be used."""

    def __init__(self, database: SharedDatabase) -> None:
        self._database = database
        self._damaged: set[str] = set()

    def rules(self) -> list[StoredRule]:
        """All rules, by name. One that cannot be read is left out, and the log names it once."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(_rules)).all()
        found = [stored for row in rows if (stored := self._stored(row)) is not None]
        return sorted(found, key=lambda stored: (stored.rule.name.casefold(), stored.rule_id))

    def rule(self, rule_id: str) -> StoredRule | None:
        """What this rule says now; None if it is gone, or cannot be read."""
        with self._database.reading() as connection:
            row = connection.execute(sa.select(_rules).where(_rules.c.rule_id == rule_id)).one_or_none()
        return None if row is None else self._stored(row)

    def _stored(self, row: Any) -> StoredRule | None:
        try:
            return StoredRule(row.rule_id, Rule.model_validate_json(row.document), float(row.made_s))
        except (ValueError, TypeError):
            if row.rule_id not in self._damaged:
                self._damaged.add(row.rule_id)
                _log.error("a rule is damaged and tells nobody: make it anew, and remove its row", rule=row.rule_id)
        return None

    def add(self, rule: Rule) -> StoredRule:
        """
        Raises:
            RuleError: there are too many.
        """
        stored = StoredRule(secrets.token_hex(6), rule, time.time())
        document = apart(stored.rule_id, rule.model_dump_json())
        row = {"rule_id": stored.rule_id, "document": document, "made_s": stored.made_s}
        with self._database.writing() as connection:
            if connection.execute(sa.select(sa.func.count()).select_from(_rules)).scalar_one() >= MOST_RULES:
                raise RuleError(f"there are {MOST_RULES} rules already: delete one first")
            connection.execute(_rules.insert(), row)
        return stored

    def change(self, before: StoredRule, rule: Rule) -> bool:
        """The rule says something else from now on; what was told stays told. Returns whether it was still as it was
        ``before``: otherwise it stays as it is."""
        with self._database.writing() as connection:
            if not self._is_still(connection, before):
                return False
            spend_rule(connection, before.rule_id)
            document = apart(before.rule_id, rule.model_dump_json())
            connection.execute(_rules.update().where(_rules.c.rule_id == before.rule_id).values(document=document))
        return True

    def remove(self, before: StoredRule) -> bool:
        """What it would still have told is not told. Returns whether it was still as it was ``before``."""
        with self._database.writing() as connection:
            if not self._is_still(connection, before):
                return False
            spend_rule(connection, before.rule_id)
            connection.execute(_alerts.delete().where(_alerts.c.rule_id == before.rule_id))
            connection.execute(_rules.delete().where(_rules.c.rule_id == before.rule_id))
        return True

    def _is_still(self, connection: sa.Connection, before: StoredRule) -> bool:
        """Nobody else can change it until the end of the transaction."""
        query = sa.select(_rules).where(_rules.c.rule_id == before.rule_id).with_for_update()
        row = connection.execute(query).one_or_none()
        return row is not None and self._stored(row) == before

    def note(self, event: Event, wanted: Iterable[StoredRule]) -> int:
        """Notes that ``event`` is to be told to the receivers of these rules, unless they were told of this visit or
        are to be; returns how many alerts are new."""
        now_s = time.time()
        fields = encode(event)
        told = Owned(owner_of_event(fields, event.sighting_id), json.dumps(fields))
        rows = [
            {
                "rule_id": stored.rule_id, "sighting_id": event.sighting_id, "receiver": receiver, "state": "due",
                "event": told, "problem": "", "tries": 0, "made_s": now_s,
                "due_s": now_s,
            }
            for stored in wanted
            for receiver in stored.rule.receivers
        ]  # fmt: skip
        new = 0
        with self._database.writing() as connection:
            # A rule that was removed meanwhile tells nobody.
            there = set(connection.execute(sa.select(_rules.c.rule_id)).scalars())
            for row in rows:
                if row["rule_id"] in there:
                    added = self._database.insert(_alerts).values(row).on_conflict_do_nothing()
                    new += connection.execute(added.returning(_alerts.c.receiver)).first() is not None
        return new

    def take(self) -> DueAlert | None:
        """The alert that has been due for longest, for this process to deliver; None if none is."""
        now_s = time.time()
        with self._database.reading() as connection:
            query = sa.select(_alerts).where(_alerts.c.state == "due", _alerts.c.due_s <= now_s)
            row = connection.execute(query.order_by(_alerts.c.due_s).limit(1)).first()
        if row is None:
            return None
        mine = _key(row) & (_alerts.c.state == "due") & (_alerts.c.due_s == row.due_s)
        values = {"due_s": now_s + TAKEN_S, "tries": row.tries + 1}
        with self._database.writing() as connection:
            if not connection.execute(_alerts.update().where(mine).values(values)).rowcount:
                return None  # another process was quicker
        try:
            event = decode(json.loads(row.event))
        except (ValueError, SinkError):  # the person was erased with their key, or the row is damaged
            self.drop(row)
            return None
        return DueAlert(row.rule_id, row.sighting_id, row.receiver, event, row.tries + 1, row.made_s)

    def drop(self, alert: Any) -> None:
        """It is told to nobody, and nothing is left of it."""
        with self._database.writing() as connection:
            connection.execute(_alerts.delete().where(_key(alert)))

    def sent(self, alert: DueAlert) -> None:
        """The receiver has it."""
        self._settle(alert, {"state": "sent", "event": "", "problem": ""})

    def refused(self, alert: DueAlert, problem: str) -> None:
        """It will never be taken."""
        self._settle(alert, {"state": "failed", "event": "", "problem": problem})

    def away(self, alert: DueAlert, problem: str) -> bool:
        """It is tried again, with pauses that grow; after a day it is given up. Returns whether it is tried again."""
        now_s = time.time()
        if now_s - alert.made_s > GIVEN_UP_S:
            self.refused(alert, problem)
            return False
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(alert.tries - 1, _DOUBLINGS))
        self._settle(alert, {"problem": problem, "due_s": now_s + pause_s})
        return True

    def wait(self, alert: DueAlert, pause_s: float) -> None:
        """It is taken again after ``pause_s``, and this was no try."""
        self._settle(alert, {"tries": alert.tries - 1, "due_s": time.time() + pause_s})

    def waiting(self) -> Waiting:
        """What is still to be delivered, by whichever process."""
        query = sa.select(sa.func.count(), sa.func.min(_alerts.c.made_s)).where(_alerts.c.state == "due")
        with self._database.reading() as connection:
            count, first_s = connection.execute(query).one()
        return Waiting(count, max(0.0, time.time() - first_s) if count else 0.0)

    def recent(self, most: int, cameras: Sequence[str] | None = None) -> list[PastAlert]:
        """The newest alerts, newest first; or those about past sightings of these ``cameras``."""
        query = sa.select(_alerts).order_by(_alerts.c.made_s.desc()).limit(most)
        if cameras is not None:
            past = schema.sightings.c
            theirs = sa.select(past.sighting_id).where(past.camera_id.in_(cameras))
            query = query.where(_alerts.c.sighting_id.in_(theirs))
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [
            PastAlert(row.rule_id, row.sighting_id, row.receiver, row.state, row.problem, row.tries, row.made_s)
            for row in rows
        ]

    def forget_old(self) -> None:
        """Removes what was told long ago."""
        old = (_alerts.c.state != "due") & (_alerts.c.made_s < time.time() - KEPT_S)
        with self._database.writing() as connection:
            connection.execute(_alerts.delete().where(old))

    def _settle(self, alert: DueAlert, values: dict[str, Any]) -> None:
        with self._database.writing() as connection:
            connection.execute(_alerts.update().where(_key(alert), _alerts.c.state == "due").values(values))


def _key(alert: Any) -> sa.ColumnElement[bool]:
    return sa.and_(
        _alerts.c.rule_id == alert.rule_id,
        _alerts.c.sighting_id == alert.sighting_id,
        _alerts.c.receiver == alert.receiver,
    )
