"""Processes that share a gallery: enrolment, removal, a process that is suspended, a database that is restarted."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.command_line import RETAIL, facestream
from tests.support.galleries import DIGEST, DIMENSION, MODEL, sample
from tests.support.postgres import running_postgres
from tests.support.repository import REPOSITORY
from worker.cli import run_command_line
from worker.gallery.database.gallery import DatabaseGallery

FOLLOW = """
import sys, threading
from worker.gallery.database.gallery import DatabaseGallery

gallery = DatabaseGallery.open(sys.argv[1])
gallery.follow(sys.argv[2])
threading.Thread(target=lambda: (sys.stdin.read(), stopping.set()), daemon=True).start()
stopping, told = threading.Event(), None
while not stopping.is_set():
    known = ",".join(sorted(person.name for person in gallery.people()))
    if known != told:
        told = known
        print(told, flush=True)
    stopping.wait(0.005)
gallery.close()
"""


@contextmanager
def following(url: str, worker_id: str) -> Iterator[subprocess.Popen[str]]:
    """A process that follows the gallery and says who is in it, each time that this changes."""
    with subprocess.Popen(
        [sys.executable, "-c", FOLLOW, url, worker_id],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            assert process.stdin is not None
            process.stdin.close()
            process.wait(timeout=20)


def says(process: subprocess.Popen[str], expected: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == expected:
            return
    raise AssertionError(f"it ended and never said {expected!r}")


@pytest.mark.slow
def test_processes_share_enrolments_and_removals_and_outlive_the_server(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with running_postgres() as server, ExitStack() as stack:
        url = f"{server.new_database('site')}?gallery=site"
        assert facestream("database", "upgrade", "--gallery", url).code == 0
        gallery = DatabaseGallery.create(url, MODEL, DIGEST, DIMENSION)
        gallery.add([sample("ann", 1), sample("bob", 2)])
        one, two = (stack.enter_context(following(url, name)) for name in ("one", "two"))
        for process in (one, two):
            says(process, "ann,bob")
        gallery.add([sample("eve", 3)])
        for process in (one, two):
            says(process, "ann,bob,eve")

        removed = facestream("gallery", "remove", "bob", "--gallery", url)
        assert removed.code == 0, removed
        assert {line.split("/")[0] for line in removed.stdout.splitlines()[1:]} == {"worker one", "worker two"}
        for process in (one, two):
            says(process, "ann,eve")

        two.send_signal(signal.SIGSTOP)
        # In this process: a command of its own starts so late, on a busy machine, that the silent one counts as dead.
        assert run_command_line(["gallery", "remove", "eve", "--gallery", url, "--wait-s", "1"]) == 1
        refused = capsys.readouterr()
        assert "worker one" in refused.out
        assert "worker two" in refused.err
        assert "NOT acknowledged" in refused.err
        two.send_signal(signal.SIGCONT)
        says(two, "ann")

        server.stop(signal.SIGQUIT)
        server.start()
        gallery.add([sample("zoe", 4)])
        for process in (one, two):
            says(process, "ann,zoe")


@pytest.mark.slow
@pytest.mark.data
def test_photos_are_enrolled_and_identified(postgres_url: str, test_data: Path, tmp_path: Path) -> None:
    url = f"{postgres_url}?gallery=photos"
    assert facestream("database", "upgrade", "--gallery", url).code == 0
    people = tmp_path / "people"
    people.mkdir()
    for name in ("obama", "biden"):
        (people / f"{name}.jpg").symlink_to(test_data / "photos" / "train" / name / f"{name}.jpg")
    options = ("--models-dir", test_data / "models", "--json")
    enrolled = facestream("enroll", "--gallery", url, "--model", RETAIL, *options, people)
    assert enrolled.code == 0, enrolled
    assert [document["accepted"] for document in enrolled.documents] == [True, True]
    photo = test_data / "photos" / "test" / "obama_and_biden.jpg"
    found = facestream("identify", "--gallery", url, *options, photo)
    assert {face["identity_name"] for face in found.documents} >= {"obama", "biden"}
    refused = facestream("enroll", "--gallery", url, "--keep-crops", people).only_error(2)
    assert "--keep-crops" in refused
    other = facestream("identify", "--gallery", url, "--model", "dlib-resnet", *options[:2], photo)
    assert RETAIL in other.only_error(1)


def test_a_database_that_is_away_is_one_line() -> None:
    url = "postgresql://u:s3cret-word@127.0.0.1:1/db?gallery=g"
    error = facestream("gallery", "list", "--gallery", url).only_error(1)
    assert "postgresql://***@127.0.0.1:1/db?gallery=g" in error
    assert "s3cret" not in error
    assert "Redis keeps no galleries" in facestream("gallery", "list", "--gallery", "redis://h/0").only_error(2)
