"""PostgreSQL keeps in its logs what was deleted: what is left of a person there cannot be opened by anybody."""

import base64
import json
import os
import re
import secrets
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.past import sighting, unknown
from tests.support.postgres import PostgresServer, with_tables
from tests.support.remembered import BEN, DIMENSION, MODEL, face, sample
from tests.support.sample_events import make_event
from tests.support.stand_ins import StandInDetector, StandInEmbedder, detector_of, embedder_of
from worker.alerts.book import Book
from worker.alerts.rules import Rule
from worker.api.own_erasure import ConsoleErasure
from worker.api.parts import Parts
from worker.api.replies import Replies
from worker.cli import run_command_line
from worker.config import Config, OutboxConfig
from worker.encryption import Keys, use
from worker.erasure.own import OwnErasure, erasure_folders
from worker.events.codec import encode
from worker.events.outbox import Outbox
from worker.gallery.contents import NewSample
from worker.gallery.database.gallery import DatabaseGallery
from worker.history.records import Account
from worker.history.shared import SharedDatabase
from worker.history.store import History
from worker.people_keys import PeopleKeys
from worker.recognition.pipeline import Pipeline

WEEK_S = 7 * 86_400.0
HEAD = len("\x01own1:")


class Site:
    """A database with Anna and Ben and their past. Nobody else in the server's files bears Anna's name or vectors."""

    def __init__(self, url: str, server: PostgresServer, key_file: Path) -> None:
        self.url, self.server, self.key_file = url, server, key_file
        self.name = f"Anna Ångström {secrets.token_hex(6)}"
        seed = secrets.randbits(32)
        self.vectors = [face(seed + number) for number in range(4)]
        with_tables(url)
        gallery = DatabaseGallery.create(url, MODEL.model_id, MODEL.preprocessing_digest, DIMENSION)
        gallery.add(
            [
                NewSample(self.name, self.vectors[0], f"{self.name}.jpg", secrets.token_hex(32), "abc", 0.5),
                NewSample(self.name, self.vectors[1], f"{self.name} 2.jpg", secrets.token_hex(32), "abd", 0.5),
                sample(BEN, face(10, 1)),
            ]
        )
        gallery.replace_with(gallery.contents)  # one is put aside
        self.anna, ben = gallery.person(self.name).identity_id, gallery.person(BEN).identity_id
        named = {"identity_id": self.anna, "identity_name": self.name}
        event = encode(make_event(identity_id=self.anna, identity_name=self.name))
        told = Account(faces=5, embedded=3, nearest=BEN, similarity=0.8, runner_up=self.name, runner_up_similarity=0.4)
        past = [
            sighting(1, self.vectors[0], embedder=MODEL, event=event, **named),
            sighting(2, self.vectors[2], embedder=MODEL, unknown_id="u-1"),
            sighting(3, face(11, 1), embedder=MODEL, identity_id=ben, identity_name=BEN, account=told),
            sighting(4, face(12, 1), embedder=MODEL, event=event, **named),  # which shows Ben
            sighting(5, self.vectors[3], embedder=MODEL),
            sighting(6, face(20, 5), embedder=MODEL, unknown_id="u-1"),  # which shows somebody else
        ]
        with History.open(url) as history:
            history.write(past, [unknown("u-1", self.vectors[2], embedder=MODEL)], keep_s=WEEK_S, remember_s=WEEK_S)
            (wrong,) = history.sightings(sighting_id="door_4")
            history.deny(wrong, identity_id=ben, identity_name=BEN)
            self.other, _ = history.split_unknown("u-1", ["door_6"])
        self._tell()

    def _tell(self) -> None:
        """Rules that are about Anna, or called after her, alerts that wait, and an answer of the console."""
        shared = SharedDatabase.open(self.url)
        book, replies = Book(shared), Replies(shared)
        told = {"webhook": "https://site.example/hook", "webhook_secret": "0123456789abcdef"}
        for name, people in ((f"{self.name} is here", [self.anna]), (f"not {self.name.upper()}", []), ("all", [])):
            book.add(Rule.model_validate({"name": name, "people": people, **told}))
        for number, who in enumerate(({"identity_id": self.anna, "identity_name": self.name}, {"unknown_id": "u-1"})):
            known: dict[str, Any] = {"identity_id": "", "identity_name": ""} | who
            book.note(make_event(sighting_id=f"door_9{number}", **known), book.rules())
        replies.claim("request", "digest")
        replies.keep("request", 201, json.dumps({"identity_name": self.name}))
        shared.close()

    @property
    def needles(self) -> list[bytes]:
        return [self.name.encode(), json.dumps(self.name)[1:-1].encode(), *(one.tobytes() for one in self.vectors)]

    def files_with(self, *needles: bytes) -> list[str]:
        """Of the whole server: tables, indexes, write-ahead log."""
        self.server.execute("CHECKPOINT")
        return self.server.files_with(*needles)

    def sealed(self) -> list[Any]:
        """What the rows hold of Anna, as the server has it."""
        of_anna = f"WHERE identity_id = '{self.anna}'"
        past = "FROM facestream.sightings WHERE sighting_id IN ('door_1', 'door_2', 'door_5')"
        statements = (
            f"SELECT vector FROM facestream.samples {of_anna}", f"SELECT name FROM facestream.people {of_anna}",
            f"SELECT template {past}", f"SELECT event {past}",
            "SELECT template FROM facestream.unknowns WHERE unknown_id = 'u-1'",
            "SELECT identity_name FROM facestream.sightings WHERE sighting_id = 'door_1'",
            "SELECT event FROM facestream.console_alerts",
            "SELECT document FROM facestream.console_rules ORDER BY made_s LIMIT 2",
        )  # fmt: skip
        return [row[0] for statement in statements for row in self.server.execute(statement, database="test")]

    def one(self, statement: str) -> Any:
        """A value as the server has it."""
        ((value,),) = self.server.execute(statement, database="test")
        return value

    def forget(self, receipt: Path, who: str = "") -> int:
        given = ["--gallery", self.url, "--yes", "--no-events", "--receipt", str(receipt)]
        return run_command_line(["forget", who or self.name, *given])


@pytest.fixture
def key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "people.key"
    path.write_text(base64.b64encode(os.urandom(32)).decode())
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("FACESTREAM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("FACESTREAM_ENCRYPTION__PEOPLE_FILE", str(path))
    return path


@pytest.fixture
def site(postgres_url: str, postgres: PostgresServer, key_file: Path) -> Site:
    use(Keys(people=PeopleKeys(key_file)))
    return Site(postgres_url, postgres, key_file)


def opened(keys: PeopleKeys, sealed: list[Any]) -> list[Any]:
    return [keys.unseal(one) if isinstance(one, bytes) else keys.unseal_text(one) for one in sealed]


def test_what_the_server_still_has_of_somebody_cannot_be_opened_any_more(site: Site, tmp_path: Path) -> None:
    copy = tmp_path / "copy.key"
    copy.write_bytes(site.key_file.read_bytes())
    sealed = site.sealed()
    assert len(sealed) == 2 * 2 + 2 + 3 + 3 + 1 + 1 + 6 + 2, "the gallery, and the one that was put aside"
    assert all(opened(PeopleKeys(site.key_file), sealed))
    assert site.files_with(*site.needles) == [], "not even before"
    assert site.forget(tmp_path / "receipt.json") == 0
    assert site.files_with(*site.needles) == []
    on_disk = [one if isinstance(one, bytes) else one.encode() for one in sealed]
    assert site.files_with(*on_disk), "the log outlives what is deleted: that is why"
    assert not any(opened(PeopleKeys(site.key_file), sealed))
    assert all(opened(PeopleKeys(copy), sealed)), "which the receipt warns about"
    receipt = json.loads((tmp_path / "receipt.json").read_text())
    shared = [place for place in receipt["places"] if place["where"].startswith("postgres")]
    assert len(shared) == 3
    assert all(place["physical_at"] for place in shared)
    assert any(str(site.key_file) in one["what"] for one in receipt["remains"])


def test_no_key_that_is_left_opens_anything_about_them(site: Site, tmp_path: Path) -> None:
    """Not even what an erasure itself has written on its way."""
    found = everything_sealed(site.server)
    assert any(site.name in text for text in opened(PeopleKeys(site.key_file), found)), "the search finds what is there"
    assert site.forget(tmp_path / "receipt.json") == 0
    found = everything_sealed(site.server)
    texts = opened(PeopleKeys(site.key_file), found)
    assert any(BEN in text for text in texts)
    for needle in (site.name, site.name.upper(), json.dumps(site.name)[1:-1], site.anna):
        assert not [text for text in texts if needle in text]


def test_what_had_another_key_before_goes_with_the_person(site: Site, tmp_path: Path) -> None:
    """A rule that was changed or deleted, an entry that was merged, an unknown person who was named and has expired."""
    sealed = []
    shared = SharedDatabase.open(site.url)
    book = Book(shared)
    told = {"webhook": "https://site.example/hook", "webhook_secret": "0123456789abcdef"}
    for name in ("changed", "deleted"):
        stored = book.add(Rule.model_validate({"name": f"{name} {site.name}", "people": [site.anna], **told}))
        sealed.append(site.one(f"SELECT document FROM facestream.console_rules WHERE rule_id = '{stored.rule_id}'"))
        if name == "changed":
            book.change(stored, Rule.model_validate({"name": "the door", **told}))
        else:
            book.remove(stored)
    gallery = DatabaseGallery.open(site.url)
    other = f"{site.name} again"
    gallery.add([NewSample(other, site.vectors[2], "2.jpg", secrets.token_hex(32), "abe", 0.5)])
    of_other = f"WHERE identity_id = '{gallery.person(other).identity_id}'"
    sealed.append(site.one(f"SELECT name FROM facestream.people {of_other}"))
    sealed.append(site.one(f"SELECT vector FROM facestream.samples {of_other}"))
    gallery.merge(site.name, other)
    with History.open(site.url) as history:
        seen = sighting(7, site.vectors[2], embedder=MODEL, unknown_id="u-7")
        history.write([seen], [unknown("u-7", site.vectors[2], embedder=MODEL)], keep_s=WEEK_S, remember_s=WEEK_S)
        sealed.append(site.one("SELECT template FROM facestream.sightings WHERE sighting_id = 'door_7'"))
        history.name_unknown("u-7", ["door_7"], site.anna, site.name, ["sample"])
    site.server.execute("DELETE FROM facestream.sightings WHERE sighting_id = 'door_7'", database="test")
    assert all(opened(PeopleKeys(site.key_file), sealed))
    assert site.forget(tmp_path / "receipt.json") == 0
    on_disk = [one if isinstance(one, bytes) else one.encode() for one in sealed]
    assert all(site.files_with(one) for one in on_disk), "the log has all of it"
    assert not any(opened(PeopleKeys(site.key_file), sealed))
    receipt = json.loads((tmp_path / "receipt.json").read_text())
    assert all(place["physical_at"] for place in receipt["places"] if place["where"].startswith("postgres"))
    owners = {owner for (owner,) in site.server.execute("SELECT owner FROM facestream.spent_keys", database="test")}
    assert not owners & {"", site.anna}, "they are destroyed"
    assert {stored.rule.name for stored in book.rules()} == {"all", "not …", "… is here", "the door"}
    shared.close()


def test_what_an_erasure_has_sealed_anew_goes_with_its_person_also_after_it_has_expired(
    site: Site, tmp_path: Path
) -> None:
    assert site.forget(tmp_path / "receipt.json") == 0
    template = site.one("SELECT template FROM facestream.sightings WHERE sighting_id = 'door_4'")
    site.server.execute("DELETE FROM facestream.sightings WHERE sighting_id = 'door_4'", database="test")
    assert all(opened(PeopleKeys(site.key_file), [template]))
    assert site.forget(tmp_path / "receipt.json", BEN) == 0
    assert not any(opened(PeopleKeys(site.key_file), [template]))


def test_a_sighting_that_was_taken_for_somebody_else_costs_that_person_nothing(site: Site, tmp_path: Path) -> None:
    """One of Ben lies under the key of Anna, one of somebody unknown under that of another unknown person."""
    for who in (BEN, site.other):
        assert site.forget(tmp_path / "receipt.json", who) == 0
        receipt = json.loads((tmp_path / "receipt.json").read_text())
        shared = [place for place in receipt["places"] if place["where"].startswith("postgres")]
        assert not any(place["physical_at"] for place in shared), "what the log has can be opened by the other key"
        assert any("write-ahead log" in one["what"] for one in receipt["remains"])
    use(Keys(people=PeopleKeys(site.key_file)))
    contents = DatabaseGallery.open(site.url).contents
    assert [*contents.names.values()] == [site.name]
    assert np.array_equal(contents.vectors_of(site.anna), site.vectors[:2])
    with History.open(site.url) as history:
        named = {"identity_id": site.anna, "identity_name": site.name}
        again = [
            sighting(8, site.vectors[1], embedder=MODEL, **named),
            sighting(9, site.vectors[2], embedder=MODEL, unknown_id="u-1"),
        ]
        history.write(again, keep_s=WEEK_S, remember_s=WEEK_S)
        found = {seen.sighting_id: seen for seen in history.sightings()}
        assert all(found[key].template is not None for key in ("door_1", "door_2", "door_8", "door_9"))
        assert found["door_8"].identity_name == site.name
        assert [person.unknown_id for person in history.unknowns()[0]] == ["u-1"]


def everything_sealed(server: PostgresServer) -> list[str]:
    """All texts that are sealed in any file of the server, its log included."""
    server.execute("CHECKPOINT")
    found = set()
    for _, content in server.files():
        found |= set(re.findall(rb"\x01own1:[A-Za-z0-9+/]{16,}={0,2}", content))
    # What lies behind a text in a file may look as if it belonged to it.
    texts = [one.decode() for one in found]
    return [text[: len(text) - cut] for text in texts for cut in range(8) if (len(text) - cut - HEAD) % 4 == 0]


def test_rules_and_alerts_of_others_stay(site: Site, tmp_path: Path) -> None:
    assert site.forget(tmp_path / "receipt.json") == 0
    shared = SharedDatabase.open(site.url)
    book = Book(shared)
    rules = {stored.rule.name: stored.rule for stored in book.rules()}
    assert {name: (rule.people, rule.enabled) for name, rule in rules.items()} == {
        "all": ((), True), "not …": ((), True), "… is here": ((), False),
    }  # fmt: skip
    assert book.recent(9) == []
    shared.close()


def test_what_was_said_of_others_stays_readable(site: Site, tmp_path: Path) -> None:
    assert site.forget(tmp_path / "receipt.json") == 0
    with History.open(site.url) as history:
        left = {seen.sighting_id: seen for seen in history.sightings()}
        (other,) = (person for person in history.unknowns()[0])
    assert set(left) == {"door_3", "door_4", "door_6"}
    for number, vector in ((3, face(11, 1)), (4, face(12, 1)), (6, face(20, 5))):
        template = left[f"door_{number}"].template
        assert template is not None
        assert np.array_equal(template, vector), "though it was under a key of Anna's"
    assert (left["door_4"].identity_name, left["door_3"].account.nearest) == (BEN, BEN)
    assert left["door_3"].account.runner_up == ""
    assert (other.unknown_id, left["door_6"].unknown_id) == (site.other, site.other)
    assert [person.name for person in DatabaseGallery.open(site.url).people()] == [BEN]


def test_a_worker_on_another_machine_destroys_its_own_copy_before_it_says_that_it_is_done(
    site: Site, tmp_path: Path
) -> None:
    sealed, theirs = site.sealed(), tmp_path / "machine 2.key"
    theirs.write_bytes(site.key_file.read_bytes())
    use(Keys(people=PeopleKeys(theirs)))
    assert site.forget(tmp_path / "receipt.json") == 0
    assert all(opened(PeopleKeys(theirs), sealed)), "this worker was away"
    use(Keys(people=PeopleKeys(theirs)))
    config = Config(gallery=site.url, worker_id="w", state_dir=tmp_path / "elsewhere")
    gallery = DatabaseGallery.open(site.url)
    pipeline = Pipeline(config, detector_of(StandInDetector()), embedder_of(StandInEmbedder(MODEL.model_id)), gallery)
    outbox = Outbox(OutboxConfig(), path=tmp_path / "elsewhere" / "outbox-w.sqlite3")
    own = OwnErasure(erasure_folders(config), "w", pipeline, outbox, lambda action: action())
    try:
        own.catch_up()
    finally:
        own.close()
        gallery.close()
        outbox.close()
    assert not any(opened(PeopleKeys(theirs), sealed))


def test_a_console_on_another_machine_destroys_its_own_copy_before_it_serves(site: Site, tmp_path: Path) -> None:
    sealed, theirs = site.sealed(), tmp_path / "machine 3.key"
    theirs.write_bytes(site.key_file.read_bytes())
    assert site.forget(tmp_path / "receipt.json") == 0
    use(Keys(people=PeopleKeys(theirs)))
    parts = Parts(Config(gallery=site.url))
    erasure = ConsoleErasure(parts, lambda: None)
    try:
        erasure.catch_up()
        assert [person.name for person in parts.people()] == [BEN]
    finally:
        erasure.close()
        parts.close()
    assert not any(opened(PeopleKeys(theirs), sealed))


def test_without_the_file_nothing_is_shown_and_one_line_says_what_is_missing(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FACESTREAM_ENCRYPTION__PEOPLE_FILE")
    assert run_command_line(["gallery", "list", "--gallery", site.url]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1
    assert "people_file" in said.err


def test_the_same_search_of_the_past_finds_the_same_people(site: Site) -> None:
    with History.open(site.url) as history:
        found = history.similar(site.vectors[0], MODEL, 0.5)
    assert {seen.sighting_id for seen, _ in found} == {"door_1", "door_2", "door_5"}


def test_rows_of_before_are_sealed_by_a_command_and_opened_by_another(
    postgres_url: str, postgres: PostgresServer, key_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(postgres_url, postgres, key_file)  # without keys
    plain = site.sealed()
    assert site.name in plain
    config = tmp_path / "worker.yaml"
    config.write_text(f"gallery: {postgres_url}\nencryption: {{people_file: {key_file}}}\n")
    assert run_command_line(["encryption", "check", "--config", str(config)]) == 1
    assert "NOT all are sealed" in capsys.readouterr().out
    assert run_command_line(["encryption", "apply", "--config", str(config)]) == 0
    sealed = site.sealed()
    assert len(sealed) == len(plain)
    assert all(opened(PeopleKeys(key_file), sealed))
    assert [person.name for person in DatabaseGallery.open(postgres_url).people()] == [site.name, BEN]
    assert run_command_line(["encryption", "check", "--config", str(config)]) == 0
    assert run_command_line(["encryption", "undo", "--config", str(config)]) == 0
    assert sorted(map(repr, site.sealed())) == sorted(map(repr, plain))
