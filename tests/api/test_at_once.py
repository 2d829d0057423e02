"""Two who change one thing at the same moment: one of them is told that somebody was quicker, and nothing is lost."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.support.console import API, Console, console_config, place_of, running_console
from tests.support.past import AXES
from tests.support.postgres import PostgresServer, with_tables
from tests.support.waiting import eventually
from worker.alerts.rules import Rule
from worker.errors import HistoryError
from worker.gallery.contents import NewSample
from worker.gallery.groups import Group
from worker.gallery.opening import open_gallery
from worker.history.retention import Retention
from worker.history.store import History

WAIT_S = 120.0
RECEIVER = {"webhook": "https://site.example/hook", "webhook_secret": "0123456789abcdef"}


@pytest.fixture(params=["folder", "postgres"])
def both(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> Iterator[Console]:
    if request.param == "folder":
        config = console_config(tmp_path, redis_url)
    else:
        url = with_tables(request.getfixturevalue("postgres_url"))
        config = console_config(tmp_path, redis_url, url, state_dir=str(tmp_path / "state"))
    with running_console(config) as console:
        yield console


@contextmanager
def gallery_held(console: Console) -> Iterator[None]:
    """Nobody else can change the gallery within the block."""
    gallery, held, done = open_gallery(console.parts.gallery_path), threading.Event(), threading.Event()

    def hold(_contents: object) -> None:
        held.set()
        assert done.wait(WAIT_S)

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(gallery.set_group, "held", Group(), require=hold)
        assert held.wait(WAIT_S)
        try:
            yield
        finally:
            done.set()
        holding.result(WAIT_S)
    gallery.close()


def at_once(console: Console, asked: list[Callable[[httpx.Client], httpx.Response]]) -> list[httpx.Response]:
    """The answers to requests that all were sent while nobody could change the gallery."""
    clients = [console.as_role("operator") for _ in asked]
    beside = console.as_role("viewer")
    with ThreadPoolExecutor(len(asked)) as pool:
        with gallery_held(console):
            sent: list[Future[httpx.Response]] = [
                pool.submit(ask, client) for ask, client in zip(asked, clients, strict=True)
            ]
            for _ in range(20):  # meanwhile they come to where the gallery is changed
                assert beside.get(f"{API}/me").status_code == 200
        return [each.result(WAIT_S) for each in sent]


@pytest.mark.parametrize(
    ("method", "path", "bodies"),
    [
        ("PATCH", "/people/p-anna", ({"identity_name": "A"}, {"identity_name": "B"})),
        ("PUT", "/people/p-anna/consent", ({"basis": "A"}, {"basis": "B"})),
        ("PUT", "/people/p-anna/groups", ({"groups": ["staff"]}, {"groups": ["visitors"]})),
        ("PUT", "/groups/staff", ({"advice": "A"}, {"advice": "B"})),
        ("POST", "/people/p-anna/merge?other=p-bob", ({"other": "p-bob"}, {"other": "p-bob"})),
        ("DELETE", "/people/p-anna", (None, None)),
        ("DELETE", "/groups/staff", (None, None)),
    ],
)  # fmt: skip
def test_of_two_who_have_seen_the_same_one_wins(
    both: Console, method: str, path: str, bodies: tuple[dict[str, Any] | None, ...]
) -> None:
    operator = both.as_role("operator")
    for group in ("staff", "visitors"):
        operator.put(f"{API}/groups/{group}", json={})
    seen = path.removesuffix("/consent") if "?" in path or "groups/" in path else "/people/p-anna"
    etag = operator.get(f"{API}{seen}").headers["ETag"]

    def ask(body: dict[str, Any] | None) -> Callable[[httpx.Client], httpx.Response]:
        where = f"{API}{path.partition('?')[0]}"
        return lambda client: client.request(method, where, headers={"If-Match": etag}, json=body)

    answers = at_once(both, [ask(body) for body in bodies])
    won, lost = sorted(answers, key=lambda answer: answer.status_code)
    assert won.is_success, won.text
    assert lost.status_code in {404, 412}, lost.text


def test_the_last_two_samples_cannot_both_go(both: Console) -> None:
    gallery = open_gallery(both.parts.gallery_path)
    gallery.add([NewSample("Anna", AXES[5], "anna2.jpg", "d" * 64)])
    first, second = gallery.person("p-anna").samples

    def remove(sample_id: str) -> Callable[[httpx.Client], httpx.Response]:
        return lambda client: client.delete(f"{API}/people/p-anna/samples/{sample_id}")

    answers = at_once(both, [remove(first.sample_id), remove(second.sample_id)])
    assert sorted(answer.status_code for answer in answers) == [204, 409]
    assert len(both.as_role("viewer").get(f"{API}/people/p-anna/samples").json()["items"]) == 1


def test_a_rule_that_was_changed_meanwhile_is_not_written_over(both: Console) -> None:
    book = both.parts.book
    stored = book.add(Rule.model_validate({"name": "first", **RECEIVER}))
    assert book.change(stored, Rule.model_validate({"name": "second", **RECEIVER}))
    assert not book.change(stored, Rule.model_validate({"name": "third", **RECEIVER}))
    assert not book.remove(stored)
    assert [each.rule.name for each in book.rules()] == ["second"]
    admin = both.as_role("admin")
    seen = admin.get(f"{API}/rules/{stored.rule_id}")
    for status in (200, 412):
        given = {"name": f"by the API {status}"}
        changed = admin.put(f"{API}/rules/{stored.rule_id}", json=given, headers={"If-Match": seen.headers["ETag"]})
        assert changed.status_code == status
    assert [each.rule.webhook for each in book.rules()] == [RECEIVER["webhook"]], "its address stays"
    assert admin.delete(f"{API}/rules/{stored.rule_id}", headers={"If-Match": '"old"'}).status_code == 412
    assert admin.delete(f"{API}/rules/{stored.rule_id}").status_code == 204


def test_who_sets_how_long_things_are_kept_waits_for_who_is_doing_it(both: Console) -> None:
    place = place_of(both.parts.config)
    looking, told = threading.Event(), threading.Event()
    found: list[Retention] = []

    def slow(before: Retention) -> None:
        found.append(before)
        looking.set()
        assert told.wait(WAIT_S)

    def keep(days: float, require: Callable[[Retention], None]) -> None:
        with History.open(place) as history:
            history.keep(Retention(sightings_days=days), require)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(keep, 5, slow)
        assert looking.wait(WAIT_S)
        second = pool.submit(keep, 7, found.append)
        told.set()
        first.result(WAIT_S)
        second.result(WAIT_S)
    assert found == [Retention(), Retention(sightings_days=5)]

    def refuse(_before: Retention) -> None:
        raise HistoryError("somebody was quicker")

    with pytest.raises(HistoryError, match="quicker"):
        keep(9, refuse)
    with History.open(place) as history:
        assert history.retention() == Retention(sightings_days=7)


def test_an_unknown_person_who_was_seen_again_is_not_forgotten(both: Console) -> None:
    with History.open(place_of(both.parts.config)) as history:

        def refuse(_person: object) -> None:
            raise HistoryError("seen again")

        with pytest.raises(HistoryError, match="seen again"):
            history.drop_unknown("u-1", sightings_too=True, require=refuse)
        assert history.unknown("u-1").template is not None
    assert both.as_role("operator").delete(f"{API}/unknowns/u-1").status_code == 204


def test_of_two_who_name_one_sighting_one_is_told_that_it_was_changed(both: Console) -> None:
    with History.open(place_of(both.parts.config)) as history:
        (as_read,) = history.sightings(sighting_id="door_5")
        history.give_name(as_read, "p-anna", "Anna")
        with pytest.raises(HistoryError, match="changed meanwhile"):
            history.give_name(as_read, "p-bob", "Bob")
        assert history.sightings(sighting_id="door_5")[0].identity_name == "Anna"


def test_two_changes_of_one_account_both_hold(
    tmp_path: Path, redis_url: str, postgres: PostgresServer, postgres_url: str
) -> None:
    config = console_config(tmp_path, redis_url, with_tables(postgres_url), state_dir=str(tmp_path / "state"))
    with running_console(config) as console, ThreadPoolExecutor(2) as pool:
        admins = [console.as_role("admin") for _ in range(2)]
        with psycopg.connect(postgres.url("test")) as holder:
            holder.execute("SELECT 1 FROM facestream.console_accounts WHERE account = 'viewer' FOR UPDATE")
            changes: list[dict[str, Any]] = [{"cameras": ["door"]}, {"role": "operator"}]
            asked = [
                pool.submit(client.patch, f"{API}/accounts/viewer", json=change)
                for client, change in zip(admins, changes, strict=True)
            ]
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'test' AND wait_event_type = 'Lock'"
            eventually(lambda: postgres.execute(waiting) == [(2,)])
            holder.rollback()
        assert [each.result(WAIT_S).status_code for each in asked] == [200, 200]
        (told,) = [each for each in admins[0].get(f"{API}/accounts").json()["items"] if each["name"] == "viewer"]
        assert (told["role"], told["cameras"]) == ("operator", ["door"])
