"""Files are their owner's alone, and a database keeps its locks whatever else the process opens."""

import errno
import os
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.galleries import DIGEST, DIMENSION, MODEL, sample
from worker.errors import GalleryError
from worker.events.spool import Spool, StateTable, lock_spool
from worker.files import remove_drafts, remove_scratch, replace_file, scratch_folder, write_durably
from worker.gallery.crops import CropStore, cut_crop
from worker.gallery.folder import FolderGallery
from worker.history.evidence_store import FolderStore
from worker.history.store import History
from worker.sqlite import connect_sqlite
from worker.types import Detections

ONE_LOOK = (
    "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1])\n"
    "connection.execute('SELECT count(*) FROM sqlite_master').fetchall(); connection.close()"
)
"""What another process does: opens, reads, closes; the last one to close deletes the log."""


def look(path: Path) -> None:
    subprocess.run([sys.executable, "-c", ONE_LOOK, str(path)], check=True)


def test_a_second_connection_takes_no_lock_from_the_first(tmp_path: Path) -> None:
    path = tmp_path / "some.sqlite3"
    with closing(connect_sqlite(path, busy_timeout_s=5)) as first:
        first.execute("PRAGMA journal_mode = WAL")
        first.execute("CREATE TABLE rows (value INTEGER)")
        with closing(connect_sqlite(path, busy_timeout_s=5)):
            look(path)
            first.execute("INSERT INTO rows VALUES (1)")
            assert Path(f"{path}-wal").exists()
    with closing(sqlite3.connect(path)) as past:
        assert past.execute("SELECT value FROM rows").fetchall() == [(1,)]


def test_the_outbox_that_is_opened_twice_keeps_its_log(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite3"
    with closing(Spool.open(path)) as spool, closing(Spool.open(path)) as other:
        look(path)
        StateTable(spool).save("door", 1, "{}")
        assert StateTable(other).load("door") == "{}"
        assert Path(f"{path}-wal").exists()


def test_the_file_and_those_beside_it_are_the_owners(tmp_path: Path) -> None:
    path = tmp_path / "some.sqlite3"
    with closing(connect_sqlite(path, busy_timeout_s=5)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE rows (value INTEGER)")
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("some.sqlite3", "some.sqlite3-wal", "some.sqlite3-shm"), 0o600)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOLCK, "No locks available"), "file system gives no locks (No locks available)"),
        (OSError(errno.EOPNOTSUPP, "Operation not supported"), "file system gives no locks"),
        (NotImplementedError("no flock"), "file system gives no locks (no flock)"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; make room"),
        (OSError(errno.EROFS, "Read-only file system"), "mount it for writing"),
    ],
)
def test_a_gallery_that_is_not_writable_is_told_by_its_reason(
    error: Exception, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise error

    gallery = FolderGallery.create(tmp_path / "g", MODEL, DIGEST, DIMENSION)
    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(GalleryError, match=re.escape(says)) as told:
        gallery.add([sample("anna", 1)])
    assert "permissions" not in str(told.value)


@pytest.mark.parametrize("closed", ["2>&-", "<&- 2>&-", ">&- 2>&-", ">&-"])
def test_a_stream_that_is_closed_ends_no_command(closed: str, tmp_path: Path) -> None:
    FolderGallery.create(tmp_path / "g", MODEL, DIGEST, DIMENSION).add([sample("anna", 1)])
    command = f"{sys.executable} -m worker gallery list --gallery {tmp_path / 'g'} --json {closed}"
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert bool(ended.stdout) == (">&-" not in closed.replace("2>&-", ""))


def test_what_is_opened_later_does_not_take_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    """Else a library that writes to standard error would write into a database."""
    program = "from worker.__main__ import main; import os, sys; sys.argv = ['facestream', 'version']\n"
    program += "try: main()\nexcept SystemExit: pass\n"
    program += f"number = os.open({str(tmp_path / 'file')!r}, os.O_CREAT); print(number)"
    command = f'{sys.executable} -c "$PROGRAM" 2>&-'
    environment = os.environ | {"PROGRAM": program}
    ended = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    assert int(ended.stdout.split()[-1]) > 2


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def modes(folder: Path) -> set[tuple[str, str]]:
    """What kinds of modes there are in ``folder`` and below."""
    return {("folder" if path.is_dir() else "file", oct(stat.S_IMODE(path.stat().st_mode)))
            for path in (folder, *folder.rglob("*"))}  # fmt: skip


OWNERS_ONLY = {("folder", "0o700"), ("file", "0o600")}


def keep_everything(folder: Path) -> None:
    """What a worker and an enrolment keep of people."""
    gallery = FolderGallery.create(folder / "gallery", MODEL, DIGEST, DIMENSION)
    gallery.add([sample("Anna", number) for number in range(3)])
    crops = CropStore(folder / "gallery")
    crops.open_for_writing()
    face = Detections(np.array([[4, 4, 20, 20]], np.float32), np.ones(1, np.float32), np.ones((1, 5, 2), np.float32))
    crops.add("0" * 32, cut_crop(np.zeros((40, 40, 3), np.uint8), face))
    FolderStore(folder / "evidence").put("door/2026-01-31/some.face.jpg", b"picture")
    History.open(folder / "state", create=True).close()
    Spool.open(folder / "state" / "outbox-a.sqlite3").close()
    lock_spool(folder / "state" / "outbox-a.sqlite3").release()
    gallery.export_npz(folder / "gallery" / "export.npz")


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o277])
def test_what_is_kept_of_people_is_their_keepers_only(tmp_path: Path, mask: int) -> None:
    with umask(mask):
        keep_everything(tmp_path)
    for name in ("gallery", "evidence", "state"):
        assert modes(tmp_path / name) == OWNERS_ONLY, name


def test_what_was_open_is_closed_when_it_is_opened_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep_everything(tmp_path)
    for path in tmp_path.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for _ in range(2):
        FolderGallery.open(tmp_path / "gallery")
        FolderStore(tmp_path / "evidence")
        History.open(tmp_path / "state").close()
        Spool.open(tmp_path / "state" / "outbox-a.sqlite3").close()
    for name in ("gallery", "evidence", "state"):
        assert modes(tmp_path / name) == OWNERS_ONLY, name
    told = [record.getMessage() for record in caplog.records if "open to other users" in record.getMessage()]
    assert sorted(Path(text.split()[0]).name for text in told) == ["evidence", "gallery", "state"]


def test_a_folder_with_other_things_stays_open_and_ours_in_it_is_closed(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    keep_everything(shared)
    (shared / "state" / "notes.txt").write_text("of somebody else")
    (shared / "outside").mkdir()
    (shared / "state" / "link").symlink_to(shared / "outside")
    for path in shared.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    History.open(shared / "state").close()
    found = {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in (shared / "state").iterdir()}
    assert (found["history.sqlite3"], found["notes.txt"], found["link"]) == ("0o600", "0o644", "0o755")
    assert stat.S_IMODE((shared / "state").stat().st_mode) == 0o755


def test_a_link_that_was_planted_is_replaced_and_its_target_left(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    gallery = FolderGallery.create(tmp_path / "gallery", MODEL, DIGEST, DIMENSION)
    planted = ("CURRENT.draft", "CURRENT", "CURRENT.tmp", ".draft-0", "snapshots/.draft-0", "lock")
    for name in planted:
        link = tmp_path / "gallery" / name
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    with suppress(GalleryError):
        gallery.add([sample("Anna", 1)])
    (tmp_path / "gallery" / "lock").unlink(missing_ok=True)
    gallery.add([sample("Berta", 2)])
    assert target.read_text() == "precious"
    replace_file(tmp_path / "gallery" / "CURRENT.tmp", b"new")
    assert target.read_text() == "precious"
    with pytest.raises(OSError, match="exists"):
        write_durably(tmp_path / "gallery" / "CURRENT.draft", b"new")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_gallery_of_another_user_is_an_error_of_one_line(tmp_path: Path) -> None:
    FolderGallery.create(tmp_path / "gallery", MODEL, DIGEST, DIMENSION)
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o711)
    code = (
        "import os, sys; from worker.gallery.folder import FolderGallery; from worker.errors import GalleryError\n"
        "os.setuid(65534)\ntry: FolderGallery.open(sys.argv[1])\nexcept GalleryError as error: print(error)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "gallery")], check=True, capture_output=True, text=True
    )
    assert "Permission denied; it is for the user who made it" in ended.stdout


KILLED = """
import pathlib, sys, time
from worker.files import scratch_folder
with scratch_folder() as folder:
    (folder / "face.jpg").write_bytes(b"a face")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_what_a_process_that_was_killed_has_left_goes_and_that_of_others_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    processes = [subprocess.Popen([sys.executable, "-c", KILLED], **pipes) for _ in range(2)]
    _, alive = (Path((process.stdout or sys.stdin).readline().strip()) for process in processes)
    processes[0].kill()
    processes[0].communicate()
    old, new = tmp_path / "facestream-photos-old", tmp_path / "facestream-photos-new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "face.jpg").write_bytes(b"a face")
    os.utime(old, (0, 0))
    with scratch_folder() as mine:
        assert {*tmp_path.iterdir()} == {alive, new, mine}
        assert stat.S_IMODE(mine.stat().st_mode) == 0o700
    assert (alive / "face.jpg").exists()
    processes[1].communicate("")
    assert {*tmp_path.iterdir()} == {new}
    remove_scratch()
    assert {*tmp_path.iterdir()} == {new}


def test_what_was_left_half_written_is_removed_once_nobody_writes_it(tmp_path: Path) -> None:
    deep = tmp_path / "door" / "2026-01-01"
    deep.mkdir(parents=True)
    left, at_work, picture = deep / ".draft-1", deep / ".draft-2", deep / "seen.face.jpg"
    for path in (left, at_work, picture):
        path.write_bytes(b"a face")
    for path in (left, picture):
        os.utime(path, (0, 0))
    assert remove_drafts(tmp_path) == 1
    assert {*deep.iterdir()} == {at_work, picture}
