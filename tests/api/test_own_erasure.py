"""A console forgets as each worker does: it says so, and one that was away does it before it serves."""

import json
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis as redis_client
import yaml

from tests.support.command_line import running
from tests.support.console import API, PASSWORD, add_accounts, console_config, fill, place_of, running_console
from tests.support.past import AXES
from tests.support.postgres import PostgresServer, with_tables
from tests.support.publishing import STREAM
from tests.support.receivers import SECRET, Receiver
from tests.support.repository import REPOSITORY
from tests.support.sample_events import make_event, stream_fields
from tests.support.waiting import eventually
from worker.alerts.book import Book
from worker.alerts.rules import Rule
from worker.api.parts import Parts
from worker.cli import run_command_line
from worker.erased import Erased, Erasure, add_erasure, digest_of, folders_of
from worker.erasure.own import erasure_folders
from worker.gallery.contents import NewSample
from worker.history.shared import SharedDatabase

ADDRESS = re.compile(r"The console is at (http://\S+)")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


class Site:
    """People, a past, a stream that names Anna, and a rule about whoever is seen."""

    def __init__(self, folder: Path, redis_url: str, receiver: Receiver, gallery: str | None = None) -> None:
        self.config: Any = console_config(folder, redis_url, gallery)
        self.gallery = self.config.gallery
        fill(self.gallery, place_of(self.config))
        add_accounts(self.config)
        self.file = folder / "console.yaml"
        self.file.write_text(
            yaml.safe_dump(
                {
                    "gallery": self.gallery, "redis": {"url": redis_url}, "recognition": {"threshold": 0.5},
                    "evidence": {"store": str(folder / "pictures")}, "console": {"port": 0},
                }
            )
        )  # fmt: skip
        shared = SharedDatabase.open(place_of(self.config))
        hook = {"webhook": receiver.url, "webhook_secret": SECRET}
        Book(shared).add(Rule.model_validate({"name": "Anna is here", **hook}))
        shared.close()
        self.redis = redis_client.Redis.from_url(redis_url)

    def happens(self, identity_id: str, name: str, number: int, **changes: Any) -> None:
        event = make_event(
            number, identity_id=identity_id, identity_name=name, sighting_id=f"door_2026-03-01T08:30:0{number}.000Z_7",
            **changes,
        )  # fmt: skip
        self.redis.xadd(STREAM, stream_fields(event))

    @contextmanager
    def console(self) -> Iterator[httpx.Client]:
        """A console as a process, and somebody who is logged in."""
        with running("console", "--config", self.file, "--stream", STREAM, XDG_STATE_HOME=str(self.state)) as process:
            address = process.until(lambda: ADDRESS.search("".join(process.stdout)), timeout_s=120)[1]
            with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
                answer = client.post(f"{API}/session", json={"name": "operator", "password": PASSWORD})
                assert answer.status_code == 200, answer.text
                yield client

    @property
    def state(self) -> Path:
        return self.file.parent / "xdg"

    def forget(self, who: str, *more: str) -> Any:
        receipt = self.file.parent / "receipt.json"
        given = ["--config", str(self.file), "--yes", "--no-events", "--wait-s", "60", "--receipt", str(receipt)]
        assert run_command_line(["forget", who, *given, *more]) == 0, receipt.exists() and receipt.read_text()
        return json.loads(receipt.read_text())


def shown(client: httpx.Client) -> str:
    """All that a console shows of people."""
    with client.stream("GET", f"{API}/events", headers={"Last-Event-ID": "0-0"}) as live:
        heard = ""
        for text in live.iter_text():
            heard += text
            if '"Bob"' in heard:
                break
    paths = ("/", "/people", "/sightings", "/unknown", f"{API}/people", f"{API}/sightings", f"{API}/rules")
    return heard + "".join(client.get(path).text for path in paths)


@pytest.mark.redis
def test_a_console_that_runs_forgets_and_says_so(tmp_path: Path, redis_url: str, receiver: Receiver) -> None:
    site = Site(tmp_path, redis_url, receiver)
    site.happens("p-anna", "Anna", 1)
    site.happens("p-bob", "Bob", 2)
    with site.console() as client:
        before = shown(client)
        assert "Anna is here" in before
        assert '"identity_name": "Anna"' in before
        (console,) = site.forget("Anna")["workers"]
        assert console["worker"].startswith("console-")
        assert console["done"], console
        after = shown(client)
    assert "Bob" in after
    assert not re.search(r"Anna|p-anna", after)


@pytest.mark.redis
def test_a_console_that_was_away_forgets_before_it_serves(tmp_path: Path, redis_url: str, receiver: Receiver) -> None:
    site = Site(tmp_path, redis_url, receiver)
    site.happens("p-anna", "Anna", 1)
    site.happens("p-bob", "Bob", 2)
    # The list alone, as after a backup of everything else.
    folders = folders_of(site.gallery)
    add_erasure(folders, Erasure("e1", "2026-01-01T00:00:00.000Z", frozenset(map(digest_of, ("p-anna", "u-1")))))
    with site.console() as client:
        told = shown(client)
    assert "Bob" in told
    assert not re.search(r"\bAnna\b(?! is here)|p-anna", told), "the list holds no names: what a rule is called stays"


@pytest.mark.slow
@pytest.mark.redis
def test_nobody_is_told_of_an_event_that_the_stream_still_has(
    tmp_path: Path, redis_url: str, receiver: Receiver
) -> None:
    site = Site(tmp_path, redis_url, receiver)
    with site.console():
        pass  # the group of the rules is made
    soon = {"type": "started", "captured_at": make_event().captured_at.replace(year=2090)}
    with site.console():
        site.happens("p-bob", "Bob", 3, **soon)
        eventually(lambda: len(receiver.got) >= 1)
    site.happens("p-anna", "Anna", 1, **soon)
    site.forget("Anna")
    with site.console():
        site.happens("p-bob", "Bob", 4, **soon)
        eventually(lambda: len(receiver.got) >= 2)
    assert {got["identity_name"] for got in receiver.got} == {"Bob"}


@pytest.mark.redis
def test_a_console_over_a_database_is_waited_for_by_name(
    tmp_path: Path, redis_url: str, receiver: Receiver, postgres_url: str, postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with_tables(postgres_url)
    postgres.execute((REPOSITORY / "deploy" / "postgres" / "roles.sql").read_text(), database="test")
    postgres.execute(
        "DROP USER IF EXISTS a_console", "CREATE USER a_console IN ROLE facestream_console", database="test"
    )
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another machine"))
    site = Site(tmp_path, redis_url, receiver, postgres_url)
    site.happens("p-anna", "Anna", 1)
    site.happens("p-bob", "Bob", 2)
    whole = site.file.read_text()
    site.file.write_text(whole.replace("postgres@", "a_console@"))
    with site.console() as client:
        assert "Anna" in shown(client)
        site.file.write_text(whole)
        (console,) = site.forget("Anna")["workers"]
        assert console["worker"].startswith("console-")
        assert console["done"]
        assert not re.search(r"Anna|p-anna", shown(client))


@pytest.mark.redis
def test_what_was_found_in_a_shared_gallery_names_nobody_who_was_erased(
    tmp_path: Path, redis_url: str, postgres_url: str
) -> None:
    with_tables(postgres_url)
    config = console_config(tmp_path, redis_url, postgres_url, state_dir=str(tmp_path / "state"))
    like_anna = (0.52 * AXES[0] + np.sqrt(1 - 0.52**2) * AXES[6]).astype(np.float32)
    with running_console(config) as console:
        console.parts.gallery().add([NewSample("Zoë", like_anna, "zoe.jpg", "a" * 64, identity_id="p-zoe")])
        viewer = console.as_role("viewer")
        eventually(lambda: "Anna" in viewer.get(f"{API}/findings").text)
        # The list alone: the database still has her, in the same version.
        erasure = Erasure("e1", "2026-01-01T00:00:00.000Z", frozenset({digest_of("p-anna")}))
        add_erasure(erasure_folders(config), erasure)
        eventually(lambda: "Anna" not in viewer.get(f"{API}/people").text)
        assert "Anna" not in viewer.get(f"{API}/findings").text
        gallery = console.parts.gallery()
    with closing(Parts(config)) as parts:
        parts.forget(Erased([erasure]))
        opened = parts.gallery_like(gallery.model_id, gallery.preprocessing_digest, gallery.dimension)
        assert [person.name for person in opened.people()] == ["Bob", "Zoë"], "opened by who enrols somebody"
