"""Rules carried out: each visit is told once, whoever of several processes does it, and nothing is lost."""

import base64
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client
import sqlalchemy as sa

from tests.support.postgres import with_tables
from tests.support.publishing import STREAM
from tests.support.receivers import SECRET, Receiver, mail_server
from tests.support.sample_events import make_event, stream_fields
from tests.support.waiting import eventually
from worker.alerts.book import Book, RuleError, StoredRule
from worker.alerts.rules import Rule
from worker.alerts.watch import Watch
from worker.config import RedisConfig
from worker.database import schema
from worker.erased import Erased, Erasure, digest_of
from worker.history.shared import SharedDatabase
from worker.history.store import History
from worker.hosts import HostPolicy
from worker.observer import Observer
from worker.types import Event

JPEG = b"\xff\xd8 a face \xff\xd9"


class World:
    """One database, one Redis, one receiver; as many watches as a test starts."""

    def __init__(self, place: Path | str, redis_url: str, receiver: Receiver) -> None:
        self.place = place
        self.receiver = receiver
        self.redis = RedisConfig.model_validate({"url": redis_url, "stream": STREAM})
        self.client = redis_client.Redis.from_url(redis_url)
        self.database = SharedDatabase.open(place)
        self.book = Book(self.database)
        self.pictures: list[bytes | None] = []
        self.gone: set[str] = set()

    @contextmanager
    def watching(
        self, policy: HostPolicy | None = None, observer: Observer | None = None, book: type[Book] = Book
    ) -> Iterator[Watch]:
        database = SharedDatabase.open(self.place)
        watch = Watch(
            book(database),
            self.redis,
            policy or HostPolicy(),
            audit_folder=None,
            is_erased=lambda event: event.identity_id in self.gone,
            picture=lambda _event: self.pictures.pop(0) if self.pictures else JPEG,
            advice=lambda groups: "call the guard" if "banned" in groups else "",
            observer=observer,
        )
        watch.start()
        try:
            yield watch
        finally:
            watch.close()
            database.close()

    def rule(self, **values: Any) -> StoredRule:
        told = {"name": "back door", "webhook": self.receiver.url, "webhook_secret": SECRET}
        return self.book.add(Rule.model_validate(told | values))

    def happens(self, number: int = 0, **changes: Any) -> Event:
        now = datetime.now(UTC) + timedelta(seconds=1)
        sighting = changes.pop("sighting_id", f"door_2026-03-01T08:30:00.123Z_{number}")
        event = make_event(
            number, **{"type": "started", "sighting_id": sighting, "captured_at": now, "groups": "banned"} | changes
        )
        self.client.xadd(STREAM, stream_fields(event))
        return event

    def states(self) -> list[str]:
        return sorted(alert.state for alert in self.book.recent(100))


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    if request.param == "sqlite":
        return tmp_path / "people.state"
    url: str = request.getfixturevalue("postgres_url")
    with_tables(url)
    return url


@pytest.fixture
def world(place: Path | str, redis_url: str) -> Iterator[World]:
    receiver = Receiver()
    made = World(place, redis_url, receiver)
    yield made
    receiver.close()
    made.client.close()
    made.database.close()


def test_a_visit_is_told_once_by_however_many_consoles_and_events(world: World) -> None:
    stored = world.rule(groups=["banned"])
    world.rule(name="nobody", who="unknown")
    with ExitStack() as several:
        for _ in range(2):
            several.enter_context(world.watching())
        for number in range(4):
            world.happens(number)
            world.happens(number, type="updated", event_id=f"{number:032x}")
            world.happens(number, type="ended", event_id=f"{number + 100:032x}")
        eventually(lambda: len(world.receiver.got) >= 4)
        eventually(lambda: world.states() == ["sent"] * 4)
        # Whatever else was read has been finished by then.
        eventually(lambda: world.client.xpending(STREAM, "facestream-rules")["pending"] == 0)
        eventually(lambda: world.client.xinfo_groups(STREAM)[0]["lag"] == 0)
    assert len(world.receiver.got) == 4
    assert len({got["alert_id"] for got in world.receiver.got}) == 4
    first = world.receiver.got[0]
    assert first["delivery"] == first["alert_id"]
    assert (first["rule"], first["identity_name"], first["schema"]) == (
        "back door", "Zoë Ångström", "facestream.sighting.v1",
    )  # fmt: skip
    assert first["text"].startswith("Zoë Ångström (banned) at door, ")
    assert first["text"].endswith("\ncall the guard")
    assert {alert.rule_id for alert in world.book.recent(9)} == {stored.rule_id}


def test_a_rule_is_about_what_comes_after_it_and_not_about_what_the_stream_still_holds(world: World) -> None:
    world.happens(1, captured_at=datetime.now(UTC) - timedelta(minutes=5))
    with world.watching():
        world.rule()
        world.happens(2)
        eventually(lambda: world.receiver.got)
        eventually(lambda: world.client.xinfo_groups(STREAM)[0]["lag"] == 0)
    assert [got["sighting_id"][-1] for got in world.receiver.got] == ["2"]


def test_what_comes_while_nobody_looks_is_told_afterwards(world: World) -> None:
    world.rule()
    world.happens(1)
    with world.watching():
        eventually(lambda: world.receiver.got)
    world.happens(2)
    with world.watching():
        eventually(lambda: len(world.receiver.got) == 2)


@pytest.mark.slow
def test_a_receiver_that_is_away_gets_it_later_and_one_that_refuses_is_asked_once(world: World) -> None:
    world.receiver.status = 503
    world.rule()
    with world.watching():
        world.happens(1)
        eventually(
            lambda: [alert.problem for alert in world.book.recent(1)] == ["the receiver answers with status 503"]
        )
        assert world.states() == ["due"]
        world.receiver.status = 200
        eventually(lambda: world.states() == ["sent"])
        assert len(world.receiver.got) == 1
        world.receiver.status = 400
        world.happens(2)
        eventually(lambda: world.states() == ["failed", "sent"])


class Counts(Observer):
    def __init__(self) -> None:
        self.asked = self.raised = 0
        self.ended: list[str] = []
        self.waiting: list[tuple[int, bool]] = []

    def rules_asked(self, alerts: int) -> None:
        self.asked += 1
        self.raised += alerts

    def alert_ended(self, outcome: str, seconds: float) -> None:
        assert seconds >= 0
        self.ended.append(outcome)

    def alerts_waiting(self, count: int, oldest_s: float) -> None:
        self.waiting.append((count, oldest_s > 0))


@pytest.mark.slow
def test_what_becomes_of_alerts_is_counted(world: World) -> None:
    counts = Counts()
    world.receiver.status = 503
    world.rule(groups=["banned"])
    with world.watching(observer=counts):
        eventually(lambda: counts.waiting)
        world.happens(1)
        world.happens(2, groups="staff")
        eventually(lambda: "postponed" in counts.ended)
        eventually(lambda: (1, True) in counts.waiting)
        world.receiver.status = 200
        eventually(lambda: "delivered" in counts.ended)
        world.receiver.status = 400
        world.happens(3)
        eventually(lambda: counts.ended[-1] == "given_up")
        eventually(lambda: counts.waiting[-1] == (0, False))
    assert (counts.waiting[0], counts.asked, counts.raised) == ((0, False), 3, 2)


def test_a_host_in_a_range_that_is_refused_is_not_asked(world: World) -> None:
    with mail_server() as mail:
        world.rule(apprise=[mail.address])
        with world.watching(HostPolicy(refused=("loopback",))):
            world.happens(1)
            eventually(lambda: world.states() == ["failed", "failed"])
        assert mail.messages == []
    assert (world.receiver.begun, world.receiver.got) == (0, [])
    assert all("refused" in alert.problem for alert in world.book.recent(2))


def test_a_mail_comes_by_apprise_with_the_picture_if_the_rule_allows_it(world: World) -> None:
    with mail_server() as mail:
        world.rule(webhook="", webhook_secret="", apprise=[mail.address], picture=True)
        world.pictures = [None]
        with world.watching():
            world.happens(1)
            eventually(lambda: world.states() == ["sent"])
        (message,) = mail.messages
    parts = {part.get_content_type(): part for part in message.walk()}
    assert parts["image/jpeg"].get_payload(decode=True) == JPEG
    assert "back door" in str(message["Subject"])
    assert "call the guard" in str(message)


def test_a_picture_goes_to_no_receiver_whose_rule_does_not_say_so(world: World) -> None:
    world.rule(name="with", picture=True)
    world.rule(name="without")
    with world.watching():
        world.happens(1)
        eventually(lambda: len(world.receiver.got) == 2)
    pictures = {got["rule"]: got.get("picture") for got in world.receiver.got}
    assert pictures == {"with": base64.b64encode(JPEG).decode(), "without": None}


def test_an_alert_that_a_dead_process_took_is_delivered_by_another_one(world: World) -> None:
    stored = world.rule()
    world.book.note(world.happens(1), [stored])
    taken = world.book.take()
    assert taken is not None
    assert world.book.take() is None, "it belongs to the process that took it"
    with world.database.writing() as connection:  # as if that time had passed
        connection.execute(schema.alerts.update().values(due_s=0.0))
    again = world.book.take()
    assert again is not None
    assert (again.alert_id, again.tries) == (taken.alert_id, 2)


def test_to_deliver_an_alert_its_rule_alone_is_read(world: World) -> None:
    class Strict(Book):
        def rules(self) -> list[StoredRule]:
            """They are read as often as they may have changed, by the one who looks at events."""
            assert threading.current_thread().name == "rules"
            return super().rules()

    stored = world.rule(groups=["banned"])
    with world.watching(book=Strict):
        world.happens()
        eventually(lambda: world.states() == ["sent"])
    assert world.book.rule(stored.rule_id) == stored
    assert world.book.remove(stored)
    assert world.book.rule(stored.rule_id) is None


def test_a_rule_that_is_deleted_tells_nobody(world: World) -> None:
    stored = world.rule()
    event = world.happens(1)
    world.book.note(event, [stored])
    assert world.book.remove(stored)
    assert world.book.take() is None
    assert world.book.note(event, [stored]) == 0
    assert world.book.recent(9) == []


def test_who_is_erased_is_told_of_to_nobody_and_in_no_rule(world: World) -> None:
    of_one, of_all = world.rule(people=["p-1"]), world.rule(name="all")
    world.book.note(world.happens(1), [of_one, of_all])
    other = world.happens(2, identity_id="p-2", sighting_id="door_2026-03-01T08:31:00.000Z_9")
    world.book.note(other, [of_all])
    with History.open(world.place) as history:
        history.erase(Erased([Erasure("e", "2026-03-01T08:30:00.000Z", frozenset([digest_of("p-1")]))]))
    assert [alert.sighting_id for alert in world.book.recent(9)] == [other.sighting_id]
    rules = {each.rule.name: each.rule for each in world.book.rules()}
    assert (rules["back door"].people, rules["back door"].enabled) == ((), False)
    assert rules["all"].enabled
    with world.database.reading() as connection:
        stored = connection.execute(sa.select(schema.rules.c.document)).scalars().all()
    assert not any("p-1" in document for document in stored)


def test_there_is_an_end_to_rules(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.alerts.book.MOST_RULES", 1)
    world.rule()
    with pytest.raises(RuleError, match="delete one first"):
        world.rule()
