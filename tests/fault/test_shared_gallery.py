"""Workers that share a gallery: who is enrolled is named by all, who is removed by none, and the dead are not waited for."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.command_line import RETAIL, facestream
from tests.conftest import RedisServer
from tests.fault.cameras import Cameras
from tests.fault.fleet import Fleet, Worker
from tests.rtsp import require_rtsp
from worker.shared_gallery import LIVE_S, SharedGallery
from worker.types import Event

pytestmark = [pytest.mark.data, pytest.mark.rtsp, pytest.mark.redis, pytest.mark.slow]

MATCHED_WITHIN_S = 60
"""Everybody is in view again within twenty seconds."""


@pytest.fixture
def few(tmp_path: Path, test_data: Path) -> Iterator[Cameras]:
    """Two cameras that show three people most of the time."""
    require_rtsp()
    found = Cameras(tmp_path / "cameras", test_data / "lfw_dev", 2, 600.0, people=3)
    found.start()
    yield found
    found.stop()


@pytest.mark.timeout(300)
def test_a_fleet_names_who_is_enrolled_and_forgets_who_is_removed(
    few: Cameras, redis_server: RedisServer, test_data: Path, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    url = f"{redis_server.url}?gallery=site"
    people = few.truth.enroll_folder
    first, second, late = sorted(path.name for path in people.iterdir())
    fleet = Fleet(tmp_path, redis_server.url, 2, gallery=url, models_dir=test_data / "models")
    for camera_id in few.ids:
        fleet.add_camera(camera_id, few.url(camera_id))

    def enroll(name: str) -> None:
        photos = ("--model", RETAIL, "--models-dir", test_data / "models", "--json", people / name)
        ended = facestream("enroll", "--gallery", url, *photos)
        assert ended.code == 0, ended
        assert [document["accepted"] for document in ended.documents] == [True]

    def wait_for(events: Callable[[Worker], list[Event]], timeout_s: float, what: str) -> None:
        fleet.wait_until(lambda: all(events(worker) for worker in fleet.workers if worker.alive), timeout_s, what)

    def naming(name: str, since: float = 0.0) -> Callable[[Worker], list[Event]]:
        return lambda worker: [event for event in told_by(fleet, worker) if event.identity_name == name
                               and event.type != "ended" and event.captured_at.timestamp() > since]  # fmt: skip

    for name in (first, second):
        enroll(name)
    gallery = SharedGallery.open(url)
    with fleet.running():
        fleet.wait_until(fleet.balanced, 90, "each worker has a camera")
        for name in (first, second):
            wait_for(naming(name), MATCHED_WITHIN_S, f"{name} is named on both cameras")
        assert {event.identity_name for _, event in fleet.events()} <= {first, second, ""}

        enroll(late)
        gallery.reload_if_changed()
        enrolled_s = fleet.wait_until(lambda: searched(fleet) == {gallery.version}, 10, "both search the new version")
        wait_for(naming(late), MATCHED_WITHIN_S, f"{late} is named on both cameras")
        for worker in fleet.workers:
            held = [worker.metric(f"facestream_gallery_{name}") for name in ("people", "samples", "lag_seconds")]
            assert held[:2] == [3, 3]
            assert held[2] < LIVE_S

        wait_for(naming(late, time.time()), MATCHED_WITHIN_S, f"{late} is in front of both cameras")
        seen = {event.sighting_id for _, event in fleet.events() if event.identity_name == late}
        begun_s = time.monotonic()
        removed = facestream("gallery", "remove", late, "--gallery", url)
        removed_s = time.monotonic() - begun_s
        told_at = time.time()
        assert removed.code == 0, removed
        assert [line.split("/")[0] for line in removed.stdout.splitlines()[1:]] == ["worker w0", "worker w1"]
        withdrawn = lambda worker: [  # noqa: E731
            event for event in told_by(fleet, worker)
            if event.sighting_id in seen and event.type == "updated" and event.identity_name != late
        ]  # fmt: skip
        wait_for(withdrawn, 10, f"the name of {late} is withdrawn on both cameras")
        withdrawn_s = time.time() - told_at

        dead, alive = fleet.workers[1], fleet.workers[0]
        dead.kill()
        gallery.reload_if_changed()
        gallery.remove(second)
        begun_s = time.monotonic()
        waited = {who.worker_id.split("/")[0]: done for who, done in gallery.wait_for_workers(30)}
        silent_s = time.monotonic() - begun_s
        assert waited == {"w0": True, "w1": False}
        assert silent_s < LIVE_S + 1
        again = facestream("gallery", "remove", first, "--gallery", url)
        assert again.code == 0, again
        assert [line.split("/")[0] for line in again.stdout.splitlines()[1:]] == ["worker w0"]

        dead.start()
        fleet.wait_until(fleet.balanced, 60, f"{dead.name} takes part again")
        fleet.wait_until(lambda: searched(fleet) == {gallery.version + 1}, 10, "both search the last version")
        for worker in fleet.workers:
            assert worker.stop() == 0, worker.tail()
        assert [who.worker_id.split("/")[0] for who in gallery.followers if who.silent_s < LIVE_S] == []
        entries = fleet.events()
    gallery.close()
    named_later = {event.identity_name for _, event in entries if event.captured_at.timestamp() > told_at}
    assert late not in named_later
    tell(f"both workers searched the new version {enrolled_s:.2f} s after enroll had ended; remove took {removed_s:.1f} s "
         f"with both acknowledgements; names withdrawn {withdrawn_s:.2f} s later; a killed worker was waited for "
         f"{silent_s:.1f} s")  # fmt: skip


def told_by(fleet: Fleet, worker: Worker) -> list[Event]:
    return [event for _, event in fleet.events() if event.worker_id.rpartition(":")[0] in {"", worker.name}
            and worker.name in event.worker_id]  # fmt: skip


def searched(fleet: Fleet) -> set[int]:
    """The versions that the live workers search."""
    return {int(worker.metric("facestream_gallery_version")) for worker in fleet.workers if worker.alive}
