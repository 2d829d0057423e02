"""What is kept of people is unreadable without the key; a missing or wrong key changes nothing and is told as such."""

import base64
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.galleries import DIGEST, DIMENSION, MODEL, probe, sample
from tests.support.kept_people import FACE, NAME, PEOPLE, keep_everything, plain_traces
from tests.support.past import MODEL as PAST_MODEL
from tests.support.past import sighting
from tests.support.repository import REPOSITORY
from worker.config import Config, EvidenceConfig, OutboxConfig
from worker.database.backup import back_up, open_file, restore
from worker.database.database import open_sqlite
from worker.encryption import Keys, new_key, parse_keys, seal, unseal, use
from worker.errors import ConfigError, DatabaseError, EncryptionError
from worker.evaluation.face_cache import FaceCache
from worker.events.outbox import Outbox
from worker.gallery.crops import CropStore
from worker.gallery.folder import FolderGallery
from worker.history.evidence_store import open_store, stored_face
from worker.history.recorder import open_recorder
from worker.history.records import EmbedderId
from worker.history.store import FILE, History

KEY, OTHER = new_key(), new_key()


def everything_in(folder: Path) -> dict[str, Any]:
    """What the stores of :func:`keep_everything` give back."""
    gallery = FolderGallery.open(folder / "gallery")
    crops = CropStore(folder / "gallery")
    with History.open(folder / "gallery.state") as history:
        (seen,) = history.sightings()
        unknowns, _ = history.unknowns()
        denied = history.counter_examples(EmbedderId(MODEL, DIGEST))
    outbox = Outbox(OutboxConfig(), path=folder / "gallery.state" / "outbox-w.sqlite3")
    waiting = [entry.fields["identity_name"] for entry in outbox.take(10)]
    outbox.close()
    return {
        "names": sorted(person.name for person in gallery.people()),
        "found": [candidate.identity_name for candidate in gallery.search(probe(0, 3))],
        "crops": sum(crops.read(kept.sample_id) is not None for kept in gallery.contents.samples),
        "seen": seen.denials[0].identity_name,
        "templates": [np.asarray(vector).tobytes() for vector in (seen.template, unknowns[0].template)],
        "denied": [example.template.tobytes() for example in denied],
        "waiting": waiting,
    }


def contents_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_no_file_of_a_worker_holds_a_name_a_vector_or_a_picture(tmp_path: Path) -> None:
    keep_everything(tmp_path / "plain")
    assert min(plain_traces(tmp_path / "plain").values()) > 0, "the search must be able to find something"
    use(parse_keys(KEY))
    keep_everything(tmp_path / "sealed")
    assert plain_traces(tmp_path / "sealed") == {"name": 0, "vector": 0, "template": 0, "jpeg": 0}
    found = everything_in(tmp_path / "sealed")
    assert found["names"] == [NAME, *(f"{NAME} {number}" for number in range(1, PEOPLE))]
    assert found["found"] == [NAME, f"{NAME} 3"]
    assert (found["crops"], found["seen"], found["waiting"]) == (PEOPLE, NAME, [NAME])
    assert found["templates"] == [FACE.astype("<f4").tobytes()] * 2
    assert plain_traces(tmp_path / "sealed") == {"name": 0, "vector": 0, "template": 0, "jpeg": 0}


@pytest.mark.parametrize("keys", [Keys(), parse_keys(OTHER)], ids=["without a key", "with another key"])
def test_a_missing_or_wrong_key_is_told_and_changes_nothing(tmp_path: Path, keys: Keys) -> None:
    use(parse_keys(KEY))
    keep_everything(tmp_path)
    right = everything_in(tmp_path)
    before = contents_of(tmp_path)
    use(keys)
    (picture,) = (tmp_path / "evidence").rglob("*.face.jpg")
    config = EvidenceConfig(store=str(tmp_path / "evidence"))
    why = "there is no key: give it as FACESTREAM_ENCRYPTION__KEY_FILE" if not keys.reading else "with another key"
    for attempt in (
        lambda: FolderGallery.open(tmp_path / "gallery"),
        lambda: History.open(tmp_path / "gallery.state"),
        lambda: open_recorder(Config(gallery=str(tmp_path / "gallery"))),
        lambda: Outbox(OutboxConfig(), path=tmp_path / "gallery.state" / "outbox-w.sqlite3"),
        lambda: unseal(picture.read_bytes(), "", picture),
        lambda: CropStore(tmp_path / "gallery").read(_any_crop(tmp_path)),
    ):
        with pytest.raises(EncryptionError, match=why) as error:
            attempt()
        assert "\n" not in str(error.value)
    assert open_store(config).get("no/such/picture.face.jpg") is None
    assert contents_of(tmp_path) == before
    use(parse_keys(KEY))
    assert everything_in(tmp_path) == right


def _any_crop(folder: Path) -> str:
    return min(CropStore(folder / "gallery").sample_ids())


def test_a_running_worker_keeps_its_people_when_the_gallery_gets_a_key_that_it_lacks(tmp_path: Path) -> None:
    running = FolderGallery.create(tmp_path / "gallery", MODEL, DIGEST, DIMENSION)
    running.add([sample("Anna", 1)])
    use(parse_keys(KEY))
    FolderGallery.open(tmp_path / "gallery").add([sample("Berta", 2)])
    use(Keys())
    assert not running.reload_if_changed()
    assert [person.name for person in running.people()] == ["Anna"]
    use(parse_keys(KEY))
    FolderGallery.open(tmp_path / "gallery").add([sample("Clara", 3)])
    assert running.reload_if_changed()
    assert [person.name for person in running.people()] == ["Anna", "Berta", "Clara"]


def test_a_flipped_bit_of_a_sealed_version_falls_back_to_the_one_before(tmp_path: Path) -> None:
    use(parse_keys(KEY))
    gallery = FolderGallery.create(tmp_path / "gallery", MODEL, DIGEST, DIMENSION)
    gallery.add([sample("Anna", 1)])
    gallery.add([sample("Berta", 2)])
    newest = max((tmp_path / "gallery" / "snapshots").iterdir())
    for path in newest.iterdir():
        whole = path.read_bytes()
        path.write_bytes(whole[:60] + bytes([whole[60] ^ 1]) + whole[61:])
        assert [person.name for person in FolderGallery.open(tmp_path / "gallery").people()] == ["Anna"]
        path.write_bytes(whole)


def test_a_damaged_database_is_told_from_a_wrong_key(tmp_path: Path) -> None:
    use(parse_keys(KEY))
    History.open(tmp_path, create=True).close()
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[:30] + bytes([whole[30] ^ 1]) + whole[31:])
    with pytest.raises(Exception, match="is damaged"):
        History.open(tmp_path)


def test_a_damaged_outbox_is_set_aside_and_a_new_one_begun_with_the_key(tmp_path: Path) -> None:
    use(parse_keys(KEY))
    path = tmp_path / "outbox-w.sqlite3"
    path.write_bytes(os.urandom(8192))
    outbox = Outbox(OutboxConfig(), path=path)
    assert not outbox.failure
    outbox.close()
    assert path.with_suffix(".damaged.sqlite3").exists()
    assert path.read_bytes()[:4] == b"FSDB"


def test_a_picture_in_the_place_of_another_is_not_shown(tmp_path: Path) -> None:
    use(parse_keys(KEY))
    keep_everything(tmp_path)
    store = open_store(EvidenceConfig(store=str(tmp_path / "evidence")))
    seen = sighting(sighting_id="s1", embedder=PAST_MODEL)
    (face,) = (tmp_path / "evidence").rglob("*.face.jpg")
    (frame,) = (tmp_path / "evidence").rglob("*.frame.jpg")
    seen = sighting(sighting_id="s1", camera_id=face.parts[-3])
    assert stored_face(store, seen) is not None
    face.write_bytes(frame.read_bytes())
    assert stored_face(store, seen) is None


def test_faces_cached_under_another_key_are_thrown_away(tmp_path: Path) -> None:
    for keys in (Keys(), parse_keys(KEY), parse_keys(OTHER), Keys()):
        use(keys)
        cache = FaceCache.open(tmp_path, ["model"])
        key = cache.key(b"photo")
        assert cache.get(key) == (False, None)
        cache.put([(key, FACE.astype(np.float32))])
        cache.close()
        assert FaceCache.open(tmp_path, ["model"]).get(key)[0]


@pytest.mark.parametrize("sealed", [False, True], ids=["of a plain database", "of an encrypted one"])
def test_a_backup_comes_back_whether_it_is_encrypted_or_not(tmp_path: Path, sealed: bool) -> None:
    use(parse_keys(KEY) if sealed else Keys())
    with History.open(tmp_path / "a", create=True) as history:
        history.write([sighting(1, identity_name=NAME, identity_id="p")], keep_s=9e9, remember_s=9e9)
    database = open_file(tmp_path / "a" / FILE)
    back_up(database, tmp_path / "backup")
    database.close()
    assert (NAME.encode() in (tmp_path / "backup").read_bytes()) is not sealed
    use(parse_keys(f"{OTHER} {KEY}"))
    with History.open(tmp_path / "b", create=True):
        pass
    database = open_file(tmp_path / "b" / FILE)
    restore(database, tmp_path / "backup")
    database.close()
    with History.open(tmp_path / "b") as history:
        assert [seen.identity_name for seen in history.sightings()] == [NAME]
    assert plain_traces_of_name(tmp_path / "b") == 0
    use(Keys())
    if sealed:
        database = open_file_of(tmp_path / "c")
        with pytest.raises(EncryptionError, match="there is no key"):
            restore(database, tmp_path / "backup")
        database.close()


def plain_traces_of_name(folder: Path) -> int:
    return sum(NAME.encode() in path.read_bytes() for path in folder.iterdir())


def open_file_of(folder: Path) -> Any:
    History.open(folder, create=True).close()
    return open_file(folder / FILE)


def test_a_second_connection_to_an_encrypted_file_takes_no_lock_from_the_first(tmp_path: Path) -> None:
    """The log of an open database must survive what other processes do: see the same test without a key."""
    use(parse_keys(KEY))
    first = History.open(tmp_path, create=True)
    first.write([sighting(1, identity_name=NAME, identity_id="p")], keep_s=9e9, remember_s=9e9)
    History.open(tmp_path).close()
    look = (
        "import sys; from pathlib import Path\n"
        "from worker.encryption import parse_keys, use; from worker.history.store import History\n"
        "use(parse_keys(sys.argv[2])); history = History.open(Path(sys.argv[1])); history.sightings(); history.close()"
    )
    subprocess.run([sys.executable, "-c", look, str(tmp_path), KEY], check=True)
    assert first.is_in_place()
    first.write([sighting(2, identity_name=NAME, identity_id="p")], keep_s=9e9, remember_s=9e9)
    first.close()
    with History.open(tmp_path) as history:
        assert len(history.sightings()) == 2


@pytest.mark.parametrize("keys", [Keys(), parse_keys(KEY)], ids=["plain", "encrypted"])
def test_errors_of_an_encrypted_database_are_those_of_a_plain_one(tmp_path: Path, keys: Keys) -> None:
    use(keys)
    History.open(tmp_path, create=True).close()
    with (
        closing(open_sqlite(tmp_path / FILE)) as first,
        closing(open_sqlite(tmp_path / FILE, busy_timeout_s=0)) as other,
    ):
        with first.writing(), pytest.raises(DatabaseError, match="cannot be used: database is locked"), other.writing():
            pass
        with pytest.raises(DatabaseError, match="no such table"), other.reading() as connection:
            connection.exec_driver_sql("SELECT * FROM nobody")


@given(st.binary(max_size=300), st.text(max_size=20), st.data())
def test_what_is_sealed_comes_back_and_any_other_bytes_are_refused(content: bytes, about: str, data: Any) -> None:
    use(parse_keys(KEY))
    sealed = seal(content, about)
    assert content == unseal(sealed, about, "x")
    assert seal(content, about) != sealed
    place = data.draw(st.integers(16, len(sealed) - 1))
    damaged = sealed[:place] + bytes([sealed[place] ^ data.draw(st.integers(1, 255))]) + sealed[place + 1 :]
    for wrong, subject in ((damaged, about), (sealed[:-1], about), (sealed, about + "x"), (sealed[:20], about)):
        with pytest.raises(ValueError, match="damaged"):
            unseal(wrong, subject, "x")


@pytest.mark.slow
def test_a_library_that_brings_its_own_sqlite_turns_encryption_not_off(tmp_path: Path) -> None:
    """TensorFlow shows its SQLite to all that is loaded later."""
    program = (
        "import sys, tensorflow\nfrom pathlib import Path\nfrom worker.encryption import parse_keys, use\n"
        "from worker.sqlite import connect_sqlite\nuse(parse_keys(sys.argv[1]))\n"
        "connection = connect_sqlite(Path(sys.argv[2]), busy_timeout_s=0)\n"
        "connection.execute(\"CREATE TABLE people AS SELECT 'Canary' AS name\")\nconnection.close()\n"
    )
    path = tmp_path / "people.sqlite3"
    subprocess.run([sys.executable, "-c", program, KEY, path], check=True, capture_output=True, cwd=REPOSITORY)
    assert path.read_bytes()[:4] == b"FSDB"
    assert b"Canary" not in path.read_bytes()


@pytest.mark.parametrize(
    "text",
    ["", " \n", "short", "zz" * 32, base64.b64encode(b"x" * 31).decode(), KEY + " short"],
    ids=["nothing", "blank", "short", "no base64", "31 bytes", "a second one"],
)
def test_what_is_no_key_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ConfigError, match="32 bytes in base64 or hex") as error:
        parse_keys(text)
    assert "short" not in str(error.value)
    assert KEY not in str(error.value)
    assert KEY not in repr(parse_keys(KEY))
