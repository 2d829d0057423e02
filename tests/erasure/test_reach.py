"""An erasure reaches every table: a column that is new must be named here, and be searched."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.past import sighting, unknown
from tests.support.postgres import with_tables
from tests.support.remembered import ANNA, ANNAS, BEN, DIMENSION, MODEL, face, sample
from tests.support.sample_events import make_event
from worker.alerts.book import Book
from worker.alerts.rules import Rule
from worker.api.replies import Replies
from worker.cli import run_command_line
from worker.database import schema
from worker.database.address import parse_database_url
from worker.database.database import open_postgres
from worker.database.owned import OwnAccount, OwnBytes, OwnText
from worker.events.codec import encode
from worker.gallery.consents import Consent
from worker.gallery.contents import NewSample
from worker.gallery.database.gallery import DatabaseGallery
from worker.gallery.groups import Group
from worker.history.records import Account
from worker.history.sealing import spend
from worker.history.shared import SharedDatabase
from worker.history.store import History

WEEK_S = 7 * 86_400.0
NOTE = "Anna's drawer"
HASH = "fedcba9876543210"
THEIRS = {
    "sightings": "sighting_id identity_id identity_name unknown_id template event account",
    "unknowns": "template",
    "denials": "identity_id identity_name given_id unknown_id",
    "regroupings": "from_id to_id sighting_ids samples undo",
    "console_replies": "body",
    "spent_keys": "owner",
    "console_rules": "document",
    "console_alerts": "sighting_id event",
    "people": "identity_id name consent groups",
    "samples": "sample_id identity_id photo photo_sha256 photo_hash vector digest",
}
"""Columns that hold somebody: a name, a vector, a photo's name or digest, or an id by which they are found."""
NOBODYS = {
    "sightings": "camera_id started_s ended_s model_id preprocessing evidence quality corrections recorded_s expires_s",
    # A mark without a template stays until it expires, so that each worker learns of it: a random id.
    "unknowns": "unknown_id model_id preprocessing evidence first_seen_s last_seen_s revision recorded_s expires_s "
    "ignored",
    "newest": "revision denials",
    "denials": "sighting_id ordinal denied_s",
    "tallies": "camera_id hour reason tracks faces expires_s",
    "batches": "batch_id expires_s",
    "retention": "kind days",
    "regroupings": "step number whole undone expires_s changed_s",
    "erasures": "erasure_id made_at digests",
    "spent_keys": "tag",
    # Those who use the console.
    "console_accounts": "account role password_hash created_s cameras disabled provider subject",
    "console_links": "digest account expires_s",
    "console_sessions": "digest account expires_s begun_s address agent",
    "console_tokens": "token_id digest name account scopes created_s expires_s cameras",
    "console_attempts": "subject failures expires_s",
    "console_replies": "request digest status expires_s",
    "console_rules": "rule_id made_s",
    "console_alerts": "rule_id receiver state problem tries made_s due_s",
    "galleries": "gallery version change_id model_id preprocessing dimension threshold camera_thresholds calibration "
    "created_at groups",
    "people": "gallery changed",
    "samples": "gallery number quality added_at changed",
    # Random ids of samples that are gone.
    "removed": "gallery sample_id changed",
    "changes": "gallery version change_id made_s",
    "followers": "gallery worker_id version seen_at erased",
}
METADATA = (schema.past, schema.known)


def columns(told: dict[str, str]) -> set[str]:
    return {f"{table}.{column}" for table, names in told.items() for column in names.split()}


def test_each_column_is_known_to_the_test_of_erasures() -> None:
    found = {f"{table.name}.{column.name}" for each in METADATA for table in each.sorted_tables for column in table.c}
    assert columns(THEIRS) | columns(NOBODYS) == found, (
        "a column is new or gone: if it can hold anything of a person, let worker/history/erasing.py or the gallery "
        "reach it, name it among THEIRS, and have the site below fill it; otherwise name it among NOBODYS"
    )
    assert not columns(THEIRS) & columns(NOBODYS)
    sealed = {
        f"{table.name}.{column.name}"
        for each in METADATA for table in each.sorted_tables for column in table.c
        if isinstance(column.type, OwnAccount | OwnBytes | OwnText)
    }  # fmt: skip
    assert sealed <= columns(THEIRS)


def make_past(url: str) -> list[str]:
    """Fills every column that can hold Anna; returns what she is found by."""
    with_tables(url)
    gallery = DatabaseGallery.create(url, MODEL.model_id, MODEL.preprocessing_digest, DIMENSION)
    photo = hashlib.sha256(b"photo").hexdigest()
    (stored, *_) = gallery.add([NewSample(ANNA, ANNAS[0], f"{ANNA}.jpg", photo, HASH, 0.5), sample(BEN, face(10, 1))])
    assert stored is not None
    gallery.set_consent(ANNA, Consent(until="2099-01-01T00:00:00.000Z", note=NOTE))
    gallery.set_group("staff", Group())
    gallery.regroup([ANNA], join=["staff"])
    anna, ben = gallery.person(ANNA).identity_id, gallery.person(BEN).identity_id
    gallery.replace_with(gallery.contents)
    named = {"identity_id": anna, "identity_name": ANNA, "event": encode(make_event(identity_id=anna))}
    told = Account(faces=5, embedded=3, nearest=BEN, similarity=0.8, runner_up=ANNA, runner_up_similarity=0.4)
    past = [
        sighting(1, ANNAS[0], embedder=MODEL, **named),
        sighting(2, ANNAS[1], embedder=MODEL, unknown_id="u-anna"),
        sighting(3, face(11, 1), embedder=MODEL, identity_id=ben, identity_name=BEN, account=told),
        sighting(4, face(12, 1), embedder=MODEL, **named),  # which shows Ben
        sighting(5, ANNAS[2], embedder=MODEL, unknown_id="u-again"),
        sighting(6, ANNAS[2], embedder=MODEL, unknown_id="u-named"),
        sighting(7, face(14, 1), embedder=MODEL, identity_id=ben, identity_name=BEN),  # which shows Anna
        sighting(8, face(15, 1), embedder=MODEL, identity_id=ben, identity_name=BEN),  # which shows her as well
    ]
    people = [unknown(key, ANNAS[2], embedder=MODEL) for key in ("u-anna", "u-again", "u-named", "u-alone")]
    with History.open(url) as history:
        history.write(past, people, keep_s=WEEK_S, remember_s=WEEK_S)
        by_id = {one.sighting_id: one for one in history.sightings()}
        history.deny(by_id["door_4"], identity_id=ben, identity_name=BEN)
        history.deny(by_id["door_7"], identity_id=anna, identity_name=ANNA)
        history.deny(by_id["door_8"], unknown_id="u-anna")
        history.merge_unknowns("u-anna", "u-again")
        history.name_unknown("u-named", ["door_6"], anna, ANNA, [stored.sample_id])
        gallery.add([sample("Another entry", face(16, 0))])
        merger = gallery.merge(ANNA, "Another entry")
        history.merge_people(merger.document(), ANNA, [], lambda: None, remember_s=WEEK_S)
    shared = SharedDatabase.open(url)
    book, replies = Book(shared), Replies(shared)
    hook = {"webhook": "https://site.example/hook", "webhook_secret": "0123456789abcdef"}
    book.add(Rule.model_validate({"name": f"{ANNA} is here", "people": [anna], **hook}))
    book.note(make_event(sighting_id="door_1", identity_id=anna, identity_name=ANNA), book.rules())
    replies.claim("request", "digest")
    replies.keep("request", 201, json.dumps({"identity_name": ANNA}))
    with shared.writing() as connection:
        spend(connection, ["0123456789ab"], anna)
    shared.close()
    vectors = [vector.tobytes() for vector in ANNAS]
    digests = [photo, HASH, hashlib.sha256(vectors[0]).hexdigest()]
    ids = [anna, stored.sample_id, "u-anna", "u-again", "u-named", "door_1", "door_5", "door_6"]
    return [ANNA, json.dumps(ANNA)[1:-1], NOTE, '["staff"]', *map(repr, vectors), *digests, *ids]


def tables(url: str) -> set[str]:
    """Those that the database has, also such as no metadata know."""
    database = open_postgres(parse_database_url(url))
    query = "SELECT tablename FROM pg_tables WHERE schemaname = 'facestream'"
    with database.reading() as connection:
        found = set(connection.execute(sa.text(query)).scalars())
    database.close()
    return found


def holding(url: str, needles: list[str]) -> set[str]:
    """The columns that hold one of the needles, whatever table they are in."""
    database = open_postgres(parse_database_url(url))
    found: set[str] = set()
    with database.reading() as connection:
        for table in (table for each in METADATA for table in each.sorted_tables):
            rows: Any = connection.execute(sa.text(f"SELECT * FROM facestream.{table.name}")).mappings().all()
            for column in table.c:
                texts = [repr(row[column.name]) if isinstance(row[column.name], bytes) else str(row[column.name])
                         for row in rows]  # fmt: skip
                if any(needle in text for needle in needles for text in texts):
                    found.add(f"{table.name}.{column.name}")
    database.close()
    return found


def test_no_column_of_any_table_has_them_afterwards(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("FACESTREAM_CACHE_DIR", str(tmp_path / "cache"))
    needles = make_past(postgres_url)
    known = {table for each in METADATA for table in each.tables}
    # Templates in 16 bits go with their sightings: the server sees to it.
    assert tables(postgres_url) - known <= {"facestream_layout", "half_templates"}
    before = holding(postgres_url, needles)
    assert columns(THEIRS) - before == set(), "what the site does not fill is not tested"
    code = run_command_line(["forget", ANNA, "--gallery", postgres_url, "--yes", "--no-events"])
    assert code == 0
    assert holding(postgres_url, needles) & columns(THEIRS) == set()
    assert BEN in str(DatabaseGallery.open(postgres_url).people())
