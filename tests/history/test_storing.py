"""Several who change the past at once, in a real PostgreSQL: none waits for one who waits for them."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.support.past import AXES, sighting, unknown
from tests.support.postgres import PostgresServer, with_tables
from tests.support.waiting import eventually
from worker.config import Config
from worker.erased import Erased, Erasure, digest_of
from worker.errors import HistoryError, HistoryUnavailableError
from worker.history.recorder import Recorder
from worker.history.records import Account
from worker.history.store import History

WEEK_S = 7 * 86_400.0
Change = Callable[[History], object]


@pytest.fixture
def url(postgres_url: str) -> str:
    return with_tables(postgres_url)


@pytest.fixture
def holder(url: str) -> Iterator[Any]:
    """One more connection, which holds what others wait for."""
    import psycopg

    with psycopg.connect(url) as connection:
        yield connection


def changes(past: History, mine: str) -> dict[str, Change]:
    """What may be done with the same two people, whose ids begin with ``mine``, at once. No order in which their
    sightings are named here is that of their ids."""
    one, other, stranger = f"{mine}-1", f"{mine}-2", f"{mine}-3"

    def seen(letter: str, person: int, **more: Any) -> Any:
        account = Account(threshold=0.5)
        own = {"sighting_id": f"{mine}{letter}", "unknown_id": f"{mine}-{person}", "account": account} | more
        return sighting(0, AXES[person], **own)

    def write(place: History, *rows: Any, people: tuple[Any, ...] = ()) -> None:
        place.write(rows, people, keep_s=WEEK_S, remember_s=WEEK_S, tell=lambda _: None, threshold=0.5)

    rows = [seen("d", 2), seen("b", 2), seen("c", 1), seen("a", 1)]
    named = seen("e", 1, identity_id=f"{mine}-p", identity_name="Ann", unknown_id="")
    people = unknown(one, AXES[1]), unknown(other, AXES[2])
    write(past, *rows, named, seen("f", 4), seen("g", 5), seen("h", 5), people=people)
    step = past.merge_unknowns(one, f"{mine}-4")
    erased = Erased([Erasure(mine, "2026-01-01T00:00:00.000Z", frozenset({digest_of(one)}))])
    (to_deny,) = past.sightings(sighting_id=named.sighting_id)
    return {
        "write": lambda place: write(place, *rows, people=people[::-1]),
        # After an outage: somebody new, who turns out to be one who is there.
        "write of a stranger": lambda place: write(
            place, *[replace(row, unknown_id=stranger) for row in (seen("z", 2), seen("0", 2))], *rows
        ),
        "merge": lambda place: place.merge_unknowns(other, one),
        "name": lambda place: place.name_unknown(other, [f"{mine}d", f"{mine}b", f"{mine}a"], "p", "Ann", []),
        "erase": lambda place: place.erase(erased, ["Ann"]),
        "split": lambda place: place.split_unknown(other, [f"{mine}d"]),
        "undo": lambda place: place.undo_regrouping(step),
        "deny": lambda place: place.deny(to_deny, unknown_id=other),
        "forget": lambda place: place.drop_unknown(one, sightings_too=True),
    }


@pytest.mark.parametrize(
    ("gate", "kinds"),
    [
        ("newest", 5),
        pytest.param("newest", 9, marks=pytest.mark.slow),
        pytest.param("sightings WHERE sighting_id = '{}b'", 9, marks=pytest.mark.slow),
    ],
)
def test_who_change_the_same_at_once_do_not_wait_for_each_other(
    url: str, postgres: PostgresServer, holder: Any, gate: str, kinds: int
) -> None:
    problems: list[str] = []

    def make(change: Change, place: History, name: str) -> None:
        try:
            change(place)
        except HistoryUnavailableError as error:
            problems.append(f"{name}: {error}")
        except HistoryError:
            pass  # the other one was quicker, and there is nothing left to be done

    with History.open(url) as past, History.open(url) as one, History.open(url) as other:
        names = list(changes(past, "n"))[:kinds]
        for number, (first, second) in enumerate((a, b) for a in names for b in names if a != b):
            todo = changes(past, str(number))
            threads: list[threading.Thread] = []
            holder.execute(f"SELECT 1 FROM facestream.{gate.format(number)} FOR UPDATE")
            for place, name in ((one, first), (other, second)):
                before = postgres.waiting()
                thread = threading.Thread(target=make, args=(todo[name], place, f"{first} and {second}"))
                threads.append(thread)
                thread.start()
                eventually(lambda: not thread.is_alive() or postgres.waiting() > before)  # noqa: B023
            holder.rollback()
            for thread in threads:
                thread.join(60)
                assert not thread.is_alive()
    assert problems == []


@pytest.mark.parametrize("how", ["merge", "undo of a split"])
def test_a_sighting_that_is_stored_in_the_moment_of_a_merge_is_of_the_one_who_is_left(
    url: str, postgres: PostgresServer, how: str
) -> None:
    moved: dict[str, str] = {}
    threads: list[threading.Thread] = []

    def end(unknown_id: str) -> None:
        with History.open(url) as worker:
            worker.write(
                [sighting(3, AXES[2], unknown_id=unknown_id)], keep_s=WEEK_S, remember_s=WEEK_S,
                tell=lambda told: moved.update((one.sighting_id, now) for one, now in told),
            )  # fmt: skip

    with History.open(url) as past:
        rows = [sighting(number, AXES[number], unknown_id=f"u-{number}") for number in (1, 2)]
        past.write(rows, [unknown("u-1", AXES[1]), unknown("u-2", AXES[2])], keep_s=WEEK_S, remember_s=WEEK_S)
        goes, step = "u-2", ""
        if how == "undo of a split":
            past.merge_unknowns("u-1", "u-2")
            goes, step = past.split_unknown("u-1", ["door_2"])

        def tell(_told: Any, _now: str) -> None:
            threads.append(threading.Thread(target=end, args=(goes,)))
            threads[0].start()
            eventually(lambda: not threads[0].is_alive() or postgres.waiting() == 1)

        if step:
            past.undo_regrouping(step, tell)
        else:
            past.merge_unknowns("u-1", goes, tell)
        threads[0].join(60)
        assert {one.sighting_id for one in past.sightings(unknown_id="u-1")} == {"door_1", "door_2", "door_3"}
        assert moved == {"door_3": "u-1"}


def test_a_worker_that_others_kept_from_writing_writes_it_again(
    url: str, postgres: PostgresServer, holder: Any
) -> None:
    import psycopg

    # Once more, as after a reply that was lost.
    rows = [sighting(number, AXES[0], camera_id="yard") for number in (1, 2, 3)]
    with History.open(url) as past:
        past.write([sighting(number) for number in (1, 2, 3)], keep_s=WEEK_S, remember_s=WEEK_S)
    recorder = Recorder(url, Config(), gather_s=0.01, retry_s=0.1)
    of_sighting = "SELECT 1 FROM facestream.sightings WHERE sighting_id = %s FOR UPDATE"
    with psycopg.connect(url) as other:
        # The worker is the one who finds that both wait for each other.
        other.execute("SET deadlock_timeout = '300s'")
        other.execute(of_sighting, ["door_3"])
        holder.execute(of_sighting, ["door_2"])
        for row in rows[::-1]:
            recorder.sighting(row)
        eventually(lambda: postgres.waiting() == 1)
        taking = threading.Thread(target=other.execute, args=(of_sighting, ["door_1"]))
        taking.start()
        eventually(lambda: postgres.waiting() == 2)
        holder.rollback()
        taking.join(60)
        assert not taking.is_alive()
        other.rollback()
    with History.open(url) as past:
        eventually(lambda: [one.camera_id for one in past.sightings()] == ["yard"] * 3)
    recorder.close()
    # It was not for nothing.
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = 'test'"
    eventually(lambda: postgres.execute(deadlocks) == [(1,)])
