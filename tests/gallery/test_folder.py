import hashlib
import json
import logging
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.galleries import DIGEST, DIMENSION, MODEL, probe, sample, vector
from tests.support.repository import REPOSITORY
from worker.errors import GalleryError, OutputError
from worker.gallery.contents import BLOCK_SAMPLES, NewSample
from worker.gallery.folder import FolderGallery
from worker.gallery.snapshots import SnapshotStore


@pytest.fixture
def gallery(tmp_path: Path) -> FolderGallery:
    return FolderGallery.create(tmp_path / "gallery", MODEL, DIGEST, DIMENSION)


@contextmanager
def capture_logs() -> Iterator[list[dict[str, Any]]]:
    """What the gallery's modules log meanwhile, as dictionaries."""
    logs: list[dict[str, Any]] = []
    handler = logging.Handler()
    handler.emit = lambda record: logs.append(record.msg)  # type: ignore[method-assign,arg-type]
    loggers = [logging.getLogger(name) for name in ("worker.gallery.folder", "worker.gallery.snapshots")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield logs
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


def of_small_blocks(folder: Path) -> FolderGallery:
    """Blocks of three samples, searched by codes: the parts of a large gallery, in a small one."""
    return FolderGallery(SnapshotStore(folder), block_samples=3, representation="codes")


@pytest.fixture
def in_blocks(gallery: FolderGallery) -> FolderGallery:
    return of_small_blocks(gallery.path)


def snapshots(gallery: FolderGallery) -> list[Path]:
    return sorted(path for path in (gallery.path / "snapshots").iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize(
    "name",
    ["lost+found/", ".DS_Store", "Thumbs.db", "desktop.ini", ".Trash-1000/", "System Volume Information/", "@eaDir/",
     "$RECYCLE.BIN/", "._x", "#recycle/", ".directory", ".nfs00000001", ".snapshot/"],
)  # fmt: skip
def test_what_systems_put_into_a_fresh_folder_is_no_content(tmp_path: Path, name: str) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / name).mkdir() if name.endswith("/") else (tmp_path / "new" / name).touch()
    FolderGallery.create(tmp_path / "new", MODEL, DIGEST, DIMENSION).add([sample("Ann", 1)])
    assert len(FolderGallery.open(tmp_path / "new")) == 1
    assert (tmp_path / "new" / name).exists()


@pytest.mark.parametrize("name", ["notes.txt", ".git", "photos"])
def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(GalleryError, match="not empty and not a gallery"):
        FolderGallery.create(tmp_path, MODEL, DIGEST, DIMENSION)


def test_one_new_gallery_is_made_by_many_at_once(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from tests.support.galleries import DIGEST, DIMENSION, MODEL, sample\n"
        "from worker.gallery.opening import open_or_create_gallery\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "opened = open_or_create_gallery(Path(sys.argv[1]), MODEL, DIGEST, DIMENSION)\n"
        "opened.add([sample('p' + sys.argv[2], int(sys.argv[2]))])\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "new")]
    started = [
        subprocess.Popen([*command, str(number)], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for number in range(6)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    for process in started:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert [person.name for person in FolderGallery.open(tmp_path / "new").people()] == [f"p{n}" for n in range(6)]


def rewritten(gallery: FolderGallery, names: dict[str, str]) -> FolderGallery:
    """The gallery with ``names`` in the place of its own, as an earlier version would have stored them."""
    store = SnapshotStore(gallery.path)
    with store.locked():
        snapshot = store.read()
        people = json.loads(bytes(snapshot.files["people.json"]))
        people["names"] = {key: names[name] for key, name in people["names"].items()}
        for one in people["samples"]:
            one["photo"] = "ph\udce9.jpg"
        fields = {key: snapshot.manifest[key] for key in snapshot.manifest.keys() - {"version", "files", "mapped"}}
        store.write({**snapshot.files, "people.json": json.dumps(people).encode()}, fields)
    return FolderGallery.open(gallery.path)


def test_gallery_with_a_name_that_is_no_unicode_still_opens(gallery: FolderGallery) -> None:
    gallery.add([sample("a", 1), sample("b", 2), sample("c", 3), sample("d", 4)])
    names = {"a": "Kat\udce9", "b": "Kat\u00e9", "c": "Kate\u0301", "d": "  Dora"}
    old = rewritten(gallery, names)
    assert sorted(person.name for person in old.people()) == sorted(["Katé", "Katé", "Kate\u0301", "  Dora"])
    assert {one.photo for person in old.people() for one in person.samples} == {"phé.jpg"}
    with pytest.raises(GalleryError, match="2 people called 'Katé'"):
        old.person("Kat\u00e9")
    assert old.person("Dora").name == "  Dora"
    old.add([sample("Dora", 5), sample("Kat\u00e9", 6)])
    again = FolderGallery.open(gallery.path)
    assert len(again) == 4
    assert len(again.person("Dora").samples) == 2
    assert again.sample_count == 6
    for person in again.people():
        again.remove(person.identity_id)
    assert len(again) == 0


def test_names_are_put_into_one_form(gallery: FolderGallery) -> None:
    gallery.add([sample("Zoe\u0308 ", 1), sample("Zo\u00eb", 2), sample("Kat\udce9", 3)])
    assert [(person.name, len(person.samples)) for person in gallery.people()] == [("Katé", 1), ("Zoë", 2)]
    assert gallery.rename("Zoe\u0308", " Zo\udce9  \n").name == "Zoé"
    with pytest.raises(GalleryError, match="called 'Katé' already"):
        gallery.rename("Zoé", "Kate\u0301")
    with pytest.raises(GalleryError, match="must not be empty"):
        gallery.rename("Zoé", " \u200b")


def test_what_is_enrolled_is_found_again_after_reopening(gallery: FolderGallery) -> None:
    gallery.add([sample("Zoë van Dijk", 1), sample("Zoë van Dijk", 2), sample("李 雷", 3)])
    reopened = FolderGallery.open(gallery.path)
    assert [(person.name, len(person.samples)) for person in reopened.people()] == [("Zoë van Dijk", 2), ("李 雷", 1)]
    zoe, li = reopened.search(probe(2, 3))
    assert zoe.identity_name == "Zoë van Dijk"
    assert zoe.similarity == pytest.approx(1.0, abs=1e-5)
    assert zoe.runner_up == pytest.approx(float(vector(2) @ vector(3)), abs=1e-5)
    assert zoe.runner_up_name == "李 雷"
    assert li.identity_id == reopened.person("李 雷").identity_id
    stored = reopened.person("李 雷").samples[0]
    assert (stored.photo, stored.quality) == ("3.jpg", 0.5)
    assert stored.added_at.endswith("Z")


def test_a_gallery_of_one_person_has_no_runner_up(gallery: FolderGallery) -> None:
    gallery.add([sample("a", 1), sample("a", 2)])
    (found,) = gallery.search(probe(1))
    assert (found.runner_up, found.runner_up_id, found.runner_up_name) == (-1.0, "", "")


def test_an_empty_gallery_gives_nobody(gallery: FolderGallery) -> None:
    (found,) = gallery.search(probe(1))
    assert (found.identity_id, found.identity_name, found.similarity, found.runner_up) == (None, "", -1.0, -1.0)


def test_the_same_photo_is_not_taken_twice(gallery: FolderGallery) -> None:
    first, again = gallery.add([sample("a", 1), sample("b", 1)])
    assert first is not None
    assert again is None
    version = gallery.version
    assert gallery.add([sample("a", 1)]) == [None]
    assert gallery.version == version
    assert gallery.sample_count == 1


@pytest.mark.parametrize("bad", [np.zeros(DIMENSION), np.full(DIMENSION, np.nan), np.ones(DIMENSION)])
def test_no_vector_that_is_not_of_unit_length_gets_in(gallery: FolderGallery, bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="unit length"):
        gallery.add([sample("a", 1), NewSample("b", bad.astype(np.float32), "x.jpg", "0")])
    assert len(gallery) == 0


def test_the_id_survives_a_new_name(gallery: FolderGallery) -> None:
    gallery.add([sample("a", 1), sample("b", 2)])
    before = gallery.person("a").identity_id
    assert gallery.rename("a", "A. Smith").identity_id == before
    (found,) = FolderGallery.open(gallery.path).search(probe(1))
    assert (found.identity_id, found.identity_name) == (before, "A. Smith")
    with pytest.raises(GalleryError, match="already"):
        gallery.rename(before, "b")
    with pytest.raises(GalleryError, match="nobody called 'a'"):
        gallery.person("a")


def test_a_person_goes_with_the_last_sample(gallery: FolderGallery) -> None:
    gallery.add([sample("a", 1), sample("a", 2), sample("b", 3)])
    first, second = gallery.person("a").samples
    gallery.remove_sample(first.sample_id)
    assert len(gallery.person("a").samples) == 1
    gallery.remove_sample(second.sample_id)
    assert [person.name for person in gallery.people()] == ["b"]
    with pytest.raises(GalleryError, match="no sample"):
        gallery.remove_sample(second.sample_id)


def test_another_model_is_refused_by_both_names(gallery: FolderGallery) -> None:
    with pytest.raises(GalleryError, match=r"tiny.*other"):
        FolderGallery.open(gallery.path, model_id="other")
    with pytest.raises(GalleryError, match=r"digest-1.*digest-2"):
        FolderGallery.open(gallery.path, model_id=MODEL, preprocessing_digest="digest-2")
    with pytest.raises(GalleryError, match=r"tiny.*other"):
        gallery.search(probe(1, model_id="other"))


def test_missing_and_foreign_folders(tmp_path: Path, gallery: FolderGallery) -> None:
    assert not FolderGallery.exists(tmp_path / "none")
    with pytest.raises(GalleryError, match=r"no gallery at .*enroll"):
        FolderGallery.open(tmp_path / "none")
    with pytest.raises(GalleryError, match="exists already"):
        FolderGallery.create(gallery.path, MODEL, DIGEST, DIMENSION)
    foreign = tmp_path / "holiday"
    foreign.mkdir()
    (foreign / "beach.jpg").touch()
    with pytest.raises(GalleryError, match="not empty and not a gallery"):
        FolderGallery.create(foreign, MODEL, DIGEST, DIMENSION)
    with pytest.raises(GalleryError, match="is a file"):
        FolderGallery.create(foreign / "beach.jpg", MODEL, DIGEST, DIMENSION)


def test_crops_and_what_a_switch_put_aside_are_no_foreign_files(tmp_path: Path, gallery: FolderGallery) -> None:
    for kept in ("crops", "previous"):
        (tmp_path / "left" / kept).mkdir(parents=True)
    assert FolderGallery.create(tmp_path / "left", MODEL, DIGEST, DIMENSION).version == 1
    (tmp_path / "left" / "beach.jpg").touch()
    with pytest.raises(GalleryError, match=r"exists already|not empty"):
        FolderGallery.create(tmp_path / "left", MODEL, DIGEST, DIMENSION)


def test_thresholds_are_kept_for_each_camera(gallery: FolderGallery) -> None:
    assert gallery.threshold_of("door") is None
    gallery.set_thresholds(0.4, {"door": 0.5}, {"far": 1e-4})
    reopened = FolderGallery.open(gallery.path)
    assert (reopened.threshold, reopened.threshold_of("door"), reopened.threshold_of("yard")) == (0.4, 0.5, 0.4)
    assert reopened.calibration == {"far": 1e-4}
    with pytest.raises(ValueError, match="cosine"):
        gallery.set_thresholds(40.0, {}, {})


def test_export_needs_no_pickle(gallery: FolderGallery, tmp_path: Path) -> None:
    gallery.add([sample("Zoë", 1), sample("b", 2)])
    assert gallery.export_npz(tmp_path / "out.npz") == 2
    with np.load(tmp_path / "out.npz", allow_pickle=False) as exported:
        assert exported["names"].tolist() == ["Zoë", "b"]
        assert exported["identity_ids"][0] == gallery.person("Zoë").identity_id
        assert exported["embeddings"] == pytest.approx(np.stack([vector(1), vector(2)]))
        assert len(exported["faces"]) == 0
    with pytest.raises(OutputError, match="cannot write"):
        gallery.export_npz(tmp_path / "missing" / "out.npz")


def test_a_gallery_in_memory_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    gallery = FolderGallery.in_memory(MODEL, DIGEST, DIMENSION)
    gallery.add([sample("a", 1)])
    assert gallery.search(probe(1))[0].identity_name == "a"
    assert not gallery.reload_if_changed()
    assert list(tmp_path.iterdir()) == []


def test_an_open_gallery_takes_up_the_changes_of_others(gallery: FolderGallery) -> None:
    watching = FolderGallery.open(gallery.path)
    assert not watching.reload_if_changed()
    gallery.add([sample("a", 1)])
    assert watching.search(probe(1))[0].identity_id is None
    assert watching.reload_if_changed()
    assert watching.search(probe(1))[0].identity_name == "a"
    assert watching.version == gallery.version
    assert not watching.reload_if_changed()


def test_two_writers_lose_nothing(gallery: FolderGallery) -> None:
    def enrol(first_seed: int) -> None:
        own = FolderGallery.open(gallery.path)
        for seed in range(first_seed, first_seed + 10):
            own.add([sample(f"person {seed}", seed)])

    threads = [threading.Thread(target=enrol, args=(first,)) for first in (0, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {f"person {seed}" for seed in (*range(10), *range(100, 110))}
    assert {person.name for person in FolderGallery.open(gallery.path).people()} == expected


def test_a_gallery_replaced_by_another_model_stops_the_worker(gallery: FolderGallery, tmp_path: Path) -> None:
    watching = FolderGallery.open(gallery.path)
    shutil.rmtree(gallery.path)
    FolderGallery.create(gallery.path, "other", DIGEST, DIMENSION)
    with pytest.raises(GalleryError, match=r"other.*tiny"):
        watching.reload_if_changed()


def test_a_gallery_replaced_by_one_of_the_same_version_is_seen(gallery: FolderGallery) -> None:
    gallery.add([sample("a", 1)])
    watching = FolderGallery.open(gallery.path)
    shutil.rmtree(gallery.path)
    FolderGallery.create(gallery.path, MODEL, DIGEST, DIMENSION).add([sample("b", 1)])
    assert watching.reload_if_changed()
    assert watching.search(probe(1))[0].identity_name == "b"


def test_search_is_whole_while_the_gallery_changes(gallery: FolderGallery) -> None:
    """Two people swap names for ever; each answer must be of one version, never half of two."""
    gallery.add([sample("a", 1), sample("b", 2)])
    first, second = gallery.person("a").identity_id, gallery.person("b").identity_id
    stop = threading.Event()
    wrong: list[object] = []

    def search() -> None:
        while not stop.is_set():
            found, other = gallery.search(probe(1, 2))
            if (found.identity_id, other.identity_id) != (first, second):
                wrong.append((found, other))
            if len({found.identity_name, other.identity_name}) != 2:
                wrong.append((found, other))

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for seed in range(10, 25):
        gallery.add([sample("c", seed)])
        gallery.remove("c")
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_only_the_last_snapshots_are_kept(gallery: FolderGallery) -> None:
    for seed in range(6):
        gallery.add([sample("a", seed)])
    assert [int(path.name.split("-")[0]) for path in snapshots(gallery)] == [5, 6, 7]


@pytest.mark.parametrize("name", ["people.json", "embeddings.npy", "manifest.json"])
def test_any_flipped_bit_sends_the_gallery_back_to_the_version_before(gallery: FolderGallery, name: str) -> None:
    gallery.add([sample("a", 1)])
    gallery.add([sample("b", 2)])
    file = snapshots(gallery)[-1] / name
    intact = file.read_bytes()
    rng = random.Random(0)
    bits = range(len(intact) * 8) if len(intact) < 50 else rng.sample(range(len(intact) * 8), 60)
    for bit in bits:
        damaged = bytearray(intact)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        with capture_logs() as logs:
            people = FolderGallery.open(gallery.path).people()
        assert [person.name for person in people] == ["a"]
        assert [entry["event"] for entry in logs] == ["gallery_snapshot_damaged"]
        assert logs[0]["instead"] == "version 2 is used instead"
        assert name in logs[0]["problem"] or name == "manifest.json"
    file.write_bytes(intact)
    assert len(FolderGallery.open(gallery.path)) == 2


def test_a_damaged_pointer_leads_to_the_newest_snapshot(gallery: FolderGallery) -> None:
    gallery.add([sample("a", 1)])
    pointer = gallery.path / "CURRENT"
    damaged = bytearray(pointer.read_bytes())
    damaged[3] ^= 1
    for content in (bytes(damaged), b"", b"\xff\xfe"):
        pointer.write_bytes(content)
        with capture_logs() as logs:
            assert len(FolderGallery.open(gallery.path)) == 1
        assert [entry["event"] for entry in logs] == ["gallery_pointer_damaged"]


def test_numbers_of_damaged_versions_are_not_used_again(gallery: FolderGallery) -> None:
    gallery.add([sample("a", 1)])
    (snapshots(gallery)[-1] / "people.json").write_bytes(b"{}")
    with capture_logs():
        reopened = FolderGallery.open(gallery.path)
        assert reopened.version == 1
        reopened.add([sample("b", 2)])
    assert reopened.version == 3
    assert [person.name for person in FolderGallery.open(gallery.path).people()] == ["b"]


def test_nothing_intact_says_what_to_do(gallery: FolderGallery) -> None:
    for snapshot in snapshots(gallery):
        (snapshot / "embeddings.npy").unlink()
    with capture_logs(), pytest.raises(GalleryError, match=r"no intact snapshot: restore.*enroll"):
        FolderGallery.open(gallery.path)


def test_a_worker_keeps_its_version_when_the_folder_is_damaged(gallery: FolderGallery) -> None:
    gallery.add([sample("a", 1)])
    watching = FolderGallery.open(gallery.path)
    gallery.add([sample("b", 2)])
    for snapshot in snapshots(gallery):
        (snapshot / "people.json").write_bytes(b"")
    with capture_logs() as logs:
        assert not watching.reload_if_changed()
        assert not watching.reload_if_changed()
    assert [entry["event"] for entry in logs].count("gallery_not_reloaded") == 1
    assert watching.search(probe(1))[0].identity_name == "a"


def test_a_format_of_the_future_is_named(gallery: FolderGallery) -> None:
    snapshot = snapshots(gallery)[-1]
    manifest = json.loads((snapshot / "manifest.json").read_bytes())
    raw = json.dumps({**manifest, "format": "facestream.gallery.v9"}).encode()
    (snapshot / "manifest.json").write_bytes(raw)
    renamed = snapshot.rename(snapshot.with_name(f"00000001-{hashlib.sha256(raw).hexdigest()}"))
    (gallery.path / "CURRENT").write_text(renamed.name)
    with pytest.raises(GalleryError, match="v9"):
        FolderGallery.open(gallery.path)


def test_a_full_disk_leaves_the_gallery_as_it_was(gallery: FolderGallery, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery.add([sample("a", 1)])

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("worker.gallery.snapshots.os.fsync", no_space)
    with pytest.raises(GalleryError, match="No space left"):
        gallery.add([sample("b", 2)])
    monkeypatch.undo()
    assert [person.name for person in gallery.people()] == ["a"]
    assert [person.name for person in FolderGallery.open(gallery.path).people()] == ["a"]
    assert not list((gallery.path / "snapshots").glob(".draft-*"))


def inodes(snapshot: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in snapshot.iterdir()}


def test_a_version_shares_the_full_blocks_of_the_version_before(in_blocks: FolderGallery) -> None:
    in_blocks.add([sample(f"person {seed}", seed) for seed in range(7)])
    in_blocks.add([sample("one more", 7)])
    before, after = (inodes(path) for path in snapshots(in_blocks)[-2:])
    blocks = set(before) - {"manifest.json", "people.json", "embeddings.npy"}
    assert len(blocks) == 2 * 2  # samples and vectors of two blocks; the seventh sample is in the open one
    assert {name: before[name] for name in blocks} == {name: after[name] for name in blocks}
    assert before["embeddings.npy"] != after["embeddings.npy"]
    in_blocks.remove("person 1")
    removed = inodes(snapshots(in_blocks)[-1])
    assert len(blocks & set(removed)) == 2
    for view in (in_blocks, of_small_blocks(in_blocks.path)):
        assert [sample.photo for sample in view.vectors()[1]] == [f"{seed}.jpg" for seed in (0, 2, 3, 4, 5, 6, 7)]
        assert view.vectors()[0] == pytest.approx(np.stack([vector(seed) for seed in (0, 2, 3, 4, 5, 6, 7)]))


def test_nothing_is_left_of_a_removed_vector_once_the_old_versions_are_gone(in_blocks: FolderGallery) -> None:
    in_blocks.add([sample(f"person {seed}", seed) for seed in range(7)])
    in_blocks.remove("person 1")
    for _ in range(2):
        in_blocks.set_thresholds(0.5, {}, {})
    files = [path.read_bytes() for path in in_blocks.path.rglob("*") if path.is_file()]
    assert any(vector(2).tobytes() in content for content in files)
    assert not any(vector(1).tobytes() in content or b'"1.jpg"' in content for content in files)


def test_blocks_are_copied_where_there_are_no_hard_links(
    in_blocks: FolderGallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(path: Path, target: Path) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    in_blocks.add([sample(f"person {seed}", seed) for seed in range(7)])
    in_blocks.rename("person 1", "another name")
    assert of_small_blocks(in_blocks.path).search(probe(1))[0].identity_name == "another name"


def test_a_flipped_bit_in_a_shared_block_is_seen(in_blocks: FolderGallery) -> None:
    in_blocks.add([sample("a", 1)])
    in_blocks.add([sample(f"person {seed}", seed) for seed in range(2, 8)])
    for block in snapshots(in_blocks)[-1].glob("????????????????*.*"):
        intact = block.read_bytes()
        for at in (0, len(intact) // 2, len(intact) - 1):
            block.write_bytes(intact[:at] + bytes([intact[at] ^ 1]) + intact[at + 1 :])
            with capture_logs() as logs:
                assert [person.name for person in of_small_blocks(in_blocks.path).people()] == ["a"]
            assert [entry["event"] for entry in logs] == ["gallery_snapshot_damaged"]
        block.write_bytes(intact)
    assert len(of_small_blocks(in_blocks.path)) == 7


def test_a_watching_gallery_keeps_the_blocks_that_stay(in_blocks: FolderGallery) -> None:
    in_blocks.add([sample(f"person {seed}", seed) for seed in range(7)])
    watching = of_small_blocks(in_blocks.path)
    in_blocks.remove("person 4")
    in_blocks.add([sample("new", 9)])
    first = watching.contents.blocks[0]
    assert watching.reload_if_changed()
    assert watching.contents.blocks[0] is first
    assert [found.identity_name for found in watching.search(probe(0, 9))] == ["person 0", "new"]
    assert watching.search(probe(4))[0].identity_name != "person 4"


@pytest.mark.parametrize("codes", [False, True])
def test_a_search_finds_who_is_in_and_nobody_who_is_out(codes: bool) -> None:
    """A person enrolled before a search began and not removed until it ended is found, and the other way round."""
    gallery = FolderGallery.in_memory(
        MODEL,
        DIGEST,
        DIMENSION,
        block_samples=3 if codes else BLOCK_SAMPLES,
        representation="codes" if codes else "auto",
    )
    people = range(12)
    inside: dict[int, bool | None] = dict.fromkeys(people, False)
    stop = threading.Event()
    wrong: list[object] = []
    checked = {True: 0, False: 0}

    def search_on(seed: int) -> None:
        choose = random.Random(seed)
        while not stop.is_set():
            who = choose.choice(people)
            before, changes = inside[who], counts[who]
            (found,) = gallery.search(probe(who))
            if before is None or counts[who] != changes:
                continue
            checked[before] += 1
            if (found.identity_name == f"person {who}") != before or (before and found.similarity < 0.9999):
                wrong.append((who, before, found))

    counts = dict.fromkeys(people, 0)
    threads = [threading.Thread(target=search_on, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    choose = random.Random(9)
    for number in range(150):
        who = choose.choice(people)
        was, inside[who] = inside[who], None
        counts[who] += 1
        if was:
            gallery.remove(f"person {who}")
        else:
            gallery.add([sample(f"person {who}", seed) for seed in (who, 1000 + 50 * number)])
        inside[who] = not was
        stop.wait(0.001)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert min(checked.values()) > 20


Operation = st.tuples(
    st.sampled_from(["add", "remove", "rename"]), st.integers(0, 4), st.integers(0, 4), st.integers(0, 30)
)


@pytest.mark.parametrize("codes", [False, True])
@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(operations=st.lists(Operation, max_size=15))
def test_any_sequence_of_changes_is_that_of_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, codes: bool, operations: list[tuple[str, int, int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("gallery") / "g"
    FolderGallery.create(folder, MODEL, DIGEST, DIMENSION)
    change_like_a_dictionary(folder, of_small_blocks if codes else FolderGallery.open, operations)


def change_like_a_dictionary(
    folder: Path, opened: Callable[[Path], FolderGallery], operations: list[tuple[str, int, int, int]]
) -> None:
    gallery = opened(folder)
    model: dict[str, set[int]] = {}
    for kind, who, other, seed in operations:
        name, new_name = f"person {who}", f"person {other}"
        if kind == "add":
            if not any(seed in seeds for seeds in model.values()):
                model.setdefault(name, set()).add(seed)
            gallery.add([sample(name, seed)])
        elif name not in model:
            with pytest.raises(GalleryError):
                gallery.remove(name) if kind == "remove" else gallery.rename(name, new_name)
        elif kind == "remove":
            del model[name]
            gallery.remove(name)
        elif new_name in model and new_name != name:
            with pytest.raises(GalleryError):
                gallery.rename(name, new_name)
        else:
            model[new_name] = model.pop(name)
            gallery.rename(name, new_name)
    for view in (gallery, opened(folder)):
        assert {p.name: {int(Path(s.photo).stem) for s in p.samples} for p in view.people()} == model
        for name, seeds in model.items():
            for found in view.search(probe(*sorted(seeds))):
                assert found.identity_name == name
                assert found.similarity == pytest.approx(1.0, abs=1e-5)
    shutil.rmtree(folder)


CHURN = """
import sys
from pathlib import Path
import numpy as np
from worker.gallery.contents import NewSample
from worker.gallery.folder import FolderGallery
from worker.gallery.snapshots import SnapshotStore
gallery = FolderGallery(SnapshotStore(Path(sys.argv[1])), block_samples=int(sys.argv[3]))
vectors = np.eye(gallery.dimension, dtype=np.float32)
number = 0
print("ready", flush=True)
while True:
    number += 2
    photos = [f"{sys.argv[2]} {number + which}" for which in (0, 1)]
    gallery.add([NewSample("new", vectors[0], photo, photo) for photo in photos])
    gallery.rename("new", "old")
    gallery.remove("old")
"""


def test_a_process_killed_at_any_moment_leaves_an_openable_gallery(gallery: FolderGallery) -> None:
    gallery.add([sample("constant", 7)])
    rng = random.Random(1)
    for round_number in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", CHURN, str(gallery.path), str(round_number), str([8192, 1][round_number % 2])],
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0.01, 0.12))  # the moment of the kill: random on purpose
            process.send_signal(signal.SIGKILL)
        with capture_logs() as logs:
            survivor = FolderGallery.open(gallery.path)
        assert logs == []
        people = {person.name: len(person.samples) for person in survivor.people()}
        assert people in ({"constant": 1}, {"constant": 1, "new": 2}, {"constant": 1, "old": 2})
        for name in set(people) - {"constant"}:
            survivor.remove(name)
    assert FolderGallery.open(gallery.path).search(probe(7))[0].identity_name == "constant"
    survivor.add([sample("last", 8)])
    assert not list((gallery.path / "snapshots").glob(".draft-*"))
