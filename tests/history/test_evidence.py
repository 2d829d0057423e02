"""Pictures of sightings: which are kept, where, and for how long."""

import http.server
import os
import stat
import threading
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.support.hostile_servers import Behaviour, bomb, endless_body, serving
from tests.support.s3_server import S3, s3_server
from tests.support.sample_events import make_event
from worker.config import EvidenceConfig
from worker.errors import ConfigError, SinkError
from worker.files import DRAFT
from worker.history.evidence import Evidence
from worker.history.evidence_store import FolderStore, open_store, stored_face
from worker.observer import Observer
from worker.types import LazyImage, Planes
from worker.video.photos import read_photo

BOX = np.array([100, 60, 140, 110], np.float32)


def picture(level: int) -> Any:
    return np.full((240, 320, 3), level, np.uint8)


class Dropped(Observer):
    def __init__(self) -> None:
        self.reasons: list[str] = []

    def evidence_dropped(self, reason: str) -> None:
        self.reasons.append(reason)


class Written(Observer):
    def __init__(self) -> None:
        self.times = threading.Semaphore(0)

    def evidence_written(self) -> None:
        self.times.release()


def keeper(folder: Path, observer: Observer | None = None, **settings: Any) -> Evidence:
    config = EvidenceConfig(store=str(folder), **settings)
    return Evidence(config, open_store(config), observer)


def levels(folder: Path) -> dict[str, int]:
    """The brightness of each picture in the folder, by the end of its name."""
    found = {}
    for path in folder.rglob("*.jpg"):
        read = cv2.imread(str(path))
        assert read is not None
        found[".".join(path.name.split(".")[-2:])] = round(float(read.mean()))
    return found


def test_the_best_look_is_kept_under_the_sighting_s_name(tmp_path: Path) -> None:
    evidence = keeper(tmp_path)
    started, ended = make_event(type="started", sighting_id="s1"), make_event(type="ended", sighting_id="s1")
    evidence.face("s1", picture(50), BOX, 0.5)
    evidence.told(started)
    evidence.face("s1", picture(200), BOX, 0.9)
    evidence.face("s1", picture(100), BOX, 0.7)
    evidence.told(ended)
    evidence.close()
    assert levels(tmp_path) == {"face.jpg": 200, "frame.jpg": 200}
    (face,) = tmp_path.rglob("*.face.jpg")
    assert face.relative_to(tmp_path).parts == (
        started.camera_id, f"{started.started_at:%Y-%m-%d}", "s1.face.jpg",
    )  # fmt: skip
    cut = cv2.imread(str(face))
    assert cut is not None
    assert cut.shape[0] == cut.shape[1] == 90


def test_somebody_who_is_there_can_be_seen_before_they_leave(tmp_path: Path) -> None:
    evidence = keeper(tmp_path)
    evidence.face("s1", picture(50), BOX, 0.5)
    evidence.told(make_event(type="started", sighting_id="s1"))
    evidence.close()
    assert levels(tmp_path) == {"face.jpg": 50, "frame.jpg": 50}


def test_a_better_face_takes_the_place_of_the_first_one_while_the_visit_lasts(tmp_path: Path) -> None:
    written = Written()
    evidence = keeper(tmp_path, written)
    evidence.face("s1", picture(50), BOX, 0.5)
    evidence.told(make_event(type="started", sighting_id="s1"))
    assert written.times.acquire(timeout=60)
    assert levels(tmp_path) == {"face.jpg": 50, "frame.jpg": 50}
    evidence.face("s1", picture(200), BOX, 0.9)
    assert written.times.acquire(timeout=60)
    assert levels(tmp_path) == {"face.jpg": 200, "frame.jpg": 200}
    evidence.close()
    assert len(list(tmp_path.rglob("*.jpg"))) == 2


def test_of_two_faces_that_are_as_good_for_networks_people_get_the_larger_one(tmp_path: Path) -> None:
    evidence = keeper(tmp_path)
    for level, side_px in ((50, 80), (200, 160), (100, 90)):
        evidence.face("s1", picture(level), np.array([20, 20, 20 + side_px, 20 + side_px], np.float32), 1.0)
    evidence.told(make_event(type="ended", sighting_id="s1"))
    evidence.close()
    assert levels(tmp_path) == {"face.jpg": 200, "frame.jpg": 200}


@pytest.mark.parametrize(("of", "before", "after"), [("unknown", "", "p-1"), ("known", "p-1", "")])
def test_pictures_go_if_the_verdict_becomes_one_whose_pictures_nobody_wants(
    tmp_path: Path, of: str, before: str, after: str
) -> None:
    written = Written()
    evidence = keeper(tmp_path, written, of=of)
    evidence.face("s1", picture(50), BOX, 0.5)
    evidence.told(make_event(type="started", sighting_id="s1", identity_id=before))
    assert written.times.acquire(timeout=60)
    evidence.told(make_event(type="updated", sighting_id="s1", identity_id=after))
    evidence.face("s1", picture(200), BOX, 0.9)
    evidence.close()
    assert levels(tmp_path) == {}


@pytest.mark.parametrize(("quality", "kept"), [(0.4, 50), (0.9, 200)])
def test_a_worker_that_goes_on_with_a_sighting_keeps_the_better_picture_of_both(
    tmp_path: Path, quality: float, kept: int
) -> None:
    first, second = keeper(tmp_path), keeper(tmp_path)
    first.face("s1", picture(50), BOX, 0.6)
    first.told(make_event(type="started", sighting_id="s1"))
    first.close()
    second.face("s1", picture(200), BOX, quality)
    second.told(make_event(type="ended", sighting_id="s1"))
    second.close()
    assert levels(tmp_path) == {"face.jpg": kept, "frame.jpg": kept}


def test_where_no_frame_is_kept_no_more_than_the_face_is_made_of_a_picture(tmp_path: Path) -> None:
    sizes = []

    def convert(planes: Planes) -> Any:
        sizes.append((planes.height, planes.width))
        return np.full((planes.height, planes.width, 3), 50, np.uint8)

    grey = tuple(np.zeros(size, np.uint8) for size in ((240, 320), (120, 160), (120, 160)))
    lazy = LazyImage(Planes("yuv420p", 320, 240, grey), convert)
    evidence = keeper(tmp_path, frames=False)
    evidence.face("s1", lazy, BOX, 0.5)
    evidence.face("s1", lazy, BOX, 0.4)
    evidence.told(make_event(type="ended", sighting_id="s1"))
    evidence.close()
    assert levels(tmp_path) == {"face.jpg": 50}
    assert sizes == [(90, 92)], "the cut, up to the next pixel of colour"


class Nothing:
    """What the store holds in which nothing was kept yet."""

    def get(self, path: str) -> bytes | None:
        return None

    def remove(self, paths: Sequence[str]) -> int:
        return 0

    def prune(self, before: float) -> int:
        return 0


class Slow(Nothing):
    """A store that writes when it may."""

    def __init__(self) -> None:
        self.busy, self.go = threading.Event(), threading.Event()
        self.written: list[bytes] = []

    def put(self, path: str, content: bytes) -> None:
        self.busy.set()
        assert self.go.wait(60)
        self.written.append(content)


def test_for_a_slow_store_the_best_picture_waits_and_no_other() -> None:
    store = Slow()
    evidence = Evidence(EvidenceConfig(store="anywhere", frames=False), store)
    evidence.face("s1", picture(50), BOX, 0.3)
    evidence.told(make_event(type="started", sighting_id="s1"))
    assert store.busy.wait(60)
    for step in range(1, 6):
        evidence.face("s1", picture(50 + 20 * step), BOX, 0.3 + step / 10)
    store.go.set()
    evidence.close()
    found = [cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE) for content in store.written]
    assert [round(float(each.mean())) for each in found if each is not None] == [50, 150]


def test_sightings_that_turn_out_to_be_one_have_the_better_picture_of_both(tmp_path: Path) -> None:
    evidence = keeper(tmp_path)
    evidence.face("s1", picture(50), BOX, 0.5)
    evidence.face("s2", picture(200), BOX, 0.8)
    evidence.joined("s1", "s2")
    evidence.told(make_event(type="ended", sighting_id="s1"))
    evidence.told(make_event(type="ended", sighting_id="s2"))
    evidence.close()
    assert levels(tmp_path) == {"face.jpg": 200, "frame.jpg": 200}
    assert [path.name for path in tmp_path.rglob("s2*")] == []


@pytest.mark.parametrize(("of", "kept"), [("all", 2), ("known", 1), ("unknown", 1)])
def test_only_those_who_are_asked_for_are_kept(tmp_path: Path, of: str, kept: int) -> None:
    evidence = keeper(tmp_path, of=of, frames=False)
    for sighting_id, identity_id in (("s1", "somebody"), ("s2", "")):
        evidence.face(sighting_id, picture(50), BOX, 0.5)
        evidence.told(make_event(type="ended", sighting_id=sighting_id, identity_id=identity_id))
    evidence.close()
    assert len(list(tmp_path.rglob("*.jpg"))) == kept


def test_nobody_else_may_read_the_pictures(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "evidence")
    store.put("lobby/2026-01-01/s1.face.jpg", b"x")
    for path in [tmp_path / "evidence", *(tmp_path / "evidence").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_expired_pictures_go_and_nothing_else(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for name in ("old.face.jpg", "old.frame.jpg", "new.face.jpg", "old.notes.txt"):
        store.put(f"lobby/2026-01-01/{name}", b"x")
    store.put("door/2026-01-01/old.face.jpg", b"x")
    for path in tmp_path.rglob("old*"):
        os.utime(path, (1000.0, 1000.0))
    assert store.prune(time.time() - 60) == 3
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["new.face.jpg", "old.notes.txt"]
    assert not (tmp_path / "door").exists()


def test_a_worker_removes_what_has_expired_and_what_was_left_half_written_when_it_starts(tmp_path: Path) -> None:
    for name in ("old.face.jpg", f"{DRAFT}0123456789abcdef"):
        FolderStore(tmp_path).put(f"lobby/2026-01-01/{name}", b"x")
        os.utime(tmp_path / "lobby" / "2026-01-01" / name, (1000.0, 1000.0))
    keeper(tmp_path).close()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


class Full(Nothing):
    def put(self, path: str, content: bytes) -> None:
        raise SinkError("no space left")


def test_what_cannot_be_written_is_counted_and_stops_nothing() -> None:
    dropped = Dropped()
    evidence = Evidence(EvidenceConfig(store="x"), Full(), dropped)
    for number in range(3):
        evidence.face(f"s{number}", picture(50), BOX, 0.5)
        evidence.told(make_event(type="ended", sighting_id=f"s{number}"))
    evidence.close()
    assert dropped.reasons == ["unwritten"] * 3


def test_a_folder_that_cannot_be_made_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match=r"evidence\.store .*file/below cannot be written"):
        open_store(EvidenceConfig(store=str(tmp_path / "file" / "below")))


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    with s3_server(tmp_path, monkeypatch) as server:
        yield server


def test_pictures_go_to_a_bucket_and_expire_there(s3: S3) -> None:
    config = EvidenceConfig(store="s3://faces/site-a", s3_endpoint=s3.endpoint)
    written = Written()
    evidence = Evidence(config, open_store(config), written)
    evidence.face("s1", picture(200), BOX, 0.3)
    evidence.told(make_event(type="started", sighting_id="s1"))
    assert written.times.acquire(timeout=60)
    evidence.face("s1", picture(50), BOX, 0.5)
    event = make_event(type="ended", sighting_id="s1")
    evidence.told(event)
    evidence.close()
    assert levels(s3.folder) == {"face.jpg": 50, "frame.jpg": 50}
    later = Evidence(config, open_store(config))
    later.face("s1", picture(200), BOX, 0.3)
    later.told(event)
    later.close()
    assert levels(s3.folder) == {"face.jpg": 50, "frame.jpg": 50}
    (face,) = s3.folder.rglob("*.face.jpg")
    assert str(face.relative_to(s3.folder)) == (f"site-a/{event.camera_id}/{event.started_at:%Y-%m-%d}/s1.face.jpg")
    (s3.folder / "site-a" / "notes.txt").write_text("x")
    store = open_store(config)
    stored = stored_face(store, event)
    assert stored is not None
    assert round(float(stored.mean())) == 50
    assert stored_face(store, make_event(sighting_id="s2")) is None
    assert store.prune(time.time() - 3600) == 0
    assert store.prune(time.time() + 3600) == 2
    assert [path.name for path in s3.folder.rglob("*.*")] == ["notes.txt"]


@pytest.mark.parametrize("size", [b"\xea\x60\xea\x60", b"\x27\x10\x27\x10", b"\0\0\0\0"])
def test_a_stored_picture_that_declares_a_senseless_size_is_none(tmp_path: Path, size: bytes) -> None:
    store, event = FolderStore(tmp_path), make_event(sighting_id="s1")
    ok, encoded = cv2.imencode(".jpg", np.zeros((32, 32, 3), np.uint8))
    assert ok
    content = encoded.tobytes()
    declared = content.index(b"\xff\xc0") + 5  # height and width follow the marker, its length and the depth
    path = f"{event.camera_id}/{event.started_at:%Y-%m-%d}/s1.face.jpg"
    store.put(path, content)
    assert stored_face(store, event) is not None
    store.put(path, content[:declared] + size + content[declared + 4 :])
    assert stored_face(store, event) is None


def test_a_bucket_that_is_not_there_is_told_without_secrets(s3: S3) -> None:
    with pytest.raises(SinkError, match="s3://elsewhere cannot be used") as told:
        open_store(EvidenceConfig(store="s3://elsewhere", s3_endpoint=s3.endpoint))
    assert "hunter22" not in str(told.value)


def test_a_store_that_leads_elsewhere_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("minio")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter22")
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            asked.append(self.rfile.readline().decode())
            self.close_connection = True
            self.wfile.write(f"HTTP/1.1 307 Elsewhere\r\nLocation: {elsewhere}\r\nContent-Length: 0\r\n\r\n".encode())

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        elsewhere = f"http://localhost:{server.server_port}/elsewhere"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        with pytest.raises(SinkError, match="s3://faces cannot be used"):
            open_store(EvidenceConfig(store="s3://faces", s3_endpoint=f"http://127.0.0.1:{server.server_port}"))
        server.shutdown()
    assert asked
    assert not any("/elsewhere" in line for line in asked)


def test_a_server_that_is_away_is_told(s3: S3) -> None:
    with pytest.raises(SinkError, match="s3://faces cannot be used"):
        open_store(EvidenceConfig(store="s3://faces", s3_endpoint="http://127.0.0.1:9"))


@pytest.mark.parametrize(
    ("store", "endpoint", "told"),
    [("s3://", None, "write s3://BUCKET"), ("s3://faces", "faces.example", "write https://HOST")],
)
def test_an_address_that_is_none_is_a_mistake(store: str, endpoint: str | None, told: str) -> None:
    pytest.importorskip("minio")
    with pytest.raises(ConfigError, match=told):
        open_store(EvidenceConfig(store=store, s3_endpoint=endpoint))


@pytest.mark.parametrize("sighting_id", ["../../planted", "/tmp/planted", "a/../../../planted", "..", "x\0y"])
def test_the_id_of_a_sighting_names_no_place_outside_the_store(tmp_path: Path, sighting_id: str) -> None:
    store = tmp_path / "deep" / "store"
    evidence = keeper(store, frames=False)
    evidence.face(sighting_id, picture(50), BOX, 0.5)
    event = make_event(type="ended", sighting_id=sighting_id)
    evidence.told(event)
    evidence.close()
    (written,) = tmp_path.rglob("*.jpg")
    assert written.parent == store / event.camera_id / f"{event.started_at:%Y-%m-%d}"


@pytest.mark.parametrize("path", ["../../x.face.jpg", "lobby/../../x.jpg", "/etc/x.jpg", "x.jpg", "a/b/c/x.jpg"])
def test_a_store_writes_pictures_of_a_camera_and_day_and_nothing_else(tmp_path: Path, path: str) -> None:
    store = FolderStore(tmp_path / "a" / "store")
    with pytest.raises(SinkError, match="is not the name of a picture"):
        store.put(path, b"x")
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == []


def test_a_picture_of_a_doubtful_face_waits_until_it_is_known_whose_it_is(tmp_path: Path) -> None:
    evidence = keeper(tmp_path, frames=False)
    evidence.face("s1", picture(50), BOX, 0.5)
    evidence.face("s1", picture(200), BOX, 0.9, doubtful=True)
    evidence.told(make_event(type="started", sighting_id="s1"))
    evidence.parted("s1", "s2")
    for sighting_id in ("s1", "s2"):
        evidence.told(make_event(type="ended", sighting_id=sighting_id))
    evidence.close()
    found = {path.name: round(float(read_photo(path).mean())) for path in tmp_path.rglob("*.jpg")}
    assert found == {"s1.face.jpg": 50, "s2.face.jpg": 200}


@pytest.mark.parametrize(
    "behaviour",
    [endless_body(b"HTTP/1.1 200 OK"), endless_body(b"HTTP/1.1 403 No"), bomb(b"HTTP/1.1 500 No")],
    ids=["endless", "endless error", "bomb"],
)
def test_a_store_that_answers_without_end_is_told_and_its_answer_is_not_read(
    behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("minio")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter22")
    tracemalloc.start()
    try:
        with serving(behaviour) as server, pytest.raises(SinkError, match="s3://faces cannot be used"):
            open_store(EvidenceConfig(store="s3://faces", s3_endpoint=server.url))
        assert tracemalloc.get_traced_memory()[1] < 150 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("field", ["store", "s3_endpoint"])
def test_credentials_do_not_stand_in_the_address_of_a_store(field: str) -> None:
    pytest.importorskip("minio")
    settings = {"store": "s3://faces", "s3_endpoint": "http://127.0.0.1:9"}
    settings[field] = settings[field].replace("://", "://me:hunter22@")
    with pytest.raises(ConfigError, match="without credentials") as told:
        open_store(EvidenceConfig(**settings))
    assert "hunter22" not in str(told.value)
