"""Processes that share a gallery: enrolment, removal, a process that is suspended, a Redis that is restarted empty."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support.command_line import RETAIL, facestream
from tests.support.galleries import DIGEST, DIMENSION, MODEL, sample
from tests.support.redis_servers import RedisServer, cluster, cluster_url, redis_binary, sentinel_setup
from tests.support.repository import REPOSITORY
from tests.support.waiting import eventually
from worker.config import RedisConfig
from worker.errors import GalleryUnavailableError
from worker.gallery.shared.gallery import SharedGallery

FOLLOW = """
import sys, threading
from worker.gallery.shared.gallery import SharedGallery

gallery = SharedGallery.open(sys.argv[1])
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


def test_processes_share_enrolments_and_removals_and_outlive_redis(redis_server: RedisServer) -> None:
    url = f"{redis_server.url}?gallery=site"
    gallery = SharedGallery.create(url, MODEL, DIGEST, DIMENSION)
    gallery.add([sample("ann", 1), sample("bob", 2)])
    with ExitStack() as stack:
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
        refused = facestream("gallery", "remove", "eve", "--gallery", url, "--wait-s", "1")
        assert refused.code == 1, refused
        assert "worker one" in refused.stdout
        assert "worker two" in refused.stderr
        assert "NOT acknowledged" in refused.stderr
        two.send_signal(signal.SIGCONT)
        says(two, "ann")

        gallery.close()
        redis_server.stop()
        redis_server.start()
        # Whoever comes first gives the gallery back; nobody else needs to do anything.
        eventually(lambda: SharedGallery.exists(url))
        assert [person.name for person in SharedGallery.open(url).people()] == ["ann"]


@pytest.mark.parametrize("form", ["cluster", "sentinel"])
def test_every_form_of_redis_holds_a_gallery(form: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        if form == "cluster":
            nodes = stack.enter_context(cluster(redis_binary(), tmp_path))
            url, config, fail_over = cluster_url(nodes), RedisConfig(), None
        else:
            setup = stack.enter_context(sentinel_setup(redis_binary(), tmp_path))
            url, fail_over = setup.url, setup.fail_over
            config = RedisConfig(sentinel_password=SecretStr(setup.SENTINEL_PASSWORD), timeout_s=2.0)
        url = f"{url}?gallery=site"
        gallery = SharedGallery.create(url, MODEL, DIGEST, DIMENSION, redis=config)
        stack.callback(gallery.close)
        other = SharedGallery.open(url, redis=config)
        stack.callback(other.close)
        other.follow("worker")
        gallery.add([sample("a", 1), sample("removed", 2)])
        gallery.remove("removed")
        eventually(lambda: [person.name for person in other.people()] == ["a"])
        assert [done for _, done in gallery.wait_for_workers(10)] == [True]
        if fail_over is None:
            return
        fail_over()
        eventually(lambda: _tried(lambda: gallery.add([sample("after", 3)])))
        eventually(lambda: [person.name for person in other.people()] == ["a", "after"])


def _tried(change: Callable[[], object]) -> bool:
    try:
        change()
    except GalleryUnavailableError:
        return False
    return True


def test_photos_are_enrolled_and_identified(redis_url: str, test_data: Path, tmp_path: Path) -> None:
    url = f"{redis_url}?gallery=photos"
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


def test_a_redis_that_is_away_is_one_line() -> None:
    error = facestream("gallery", "list", "--gallery", "redis://:s3cret-word@127.0.0.1:1/0?gallery=g").only_error(1)
    assert "redis://***@127.0.0.1:1/0?gallery=g" in error
    assert "s3cret" not in error
