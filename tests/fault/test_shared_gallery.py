"""Workers that share a gallery: all name who is enrolled, none who is removed, and nobody waits long for the dead."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fault.cameras import Cameras
from tests.fault.fleet import Fleet
from tests.support.command_line import RETAIL, facestream
from tests.support.redis_servers import RedisServer
from tests.support.rtsp import require_rtsp
from worker.gallery.database.gallery import LIVE_S, DatabaseGallery
from worker.types import Event

pytestmark = [pytest.mark.data, pytest.mark.rtsp, pytest.mark.redis, pytest.mark.slow]

MATCHED_WITHIN_S = 60
"""Everybody is in view again within twenty seconds."""


@pytest.fixture
def few(tmp_path: Path, test_data: Path) -> Iterator[Cameras]:
    """Two cameras that show three people most of the time."""
    require_rtsp()
    found = Cameras(tmp_path / "cameras", test_data / "lfw_dev", 2, people=3)
    found.start()
    yield found
    found.stop()


@pytest.mark.timeout(300)
def test_a_fleet_names_who_is_enrolled_and_forgets_who_is_removed(
    few: Cameras,
    redis_server: RedisServer,
    postgres_url: str,
    test_data: Path,
    tmp_path: Path,
    tell: Callable[[str], None],
) -> None:
    url = f"{postgres_url}?gallery=site"
    assert facestream("database", "upgrade", "--gallery", url).code == 0
    people = few.truth.enroll_folder
    first, second, late = sorted(path.name for path in people.iterdir())
    fleet = Fleet(tmp_path, redis_server.url, 2, gallery=url, models_dir=test_data / "models")
    for camera_id in few.ids:
        fleet.add_camera(camera_id, few.url(camera_id))

    def enroll(*names: str) -> None:
        photos = tmp_path / "-".join(names)
        for name in names:
            shutil.copytree(people / name, photos / name)
        ended = facestream("enroll", "--gallery", url, "--model", RETAIL, "--models-dir", test_data / "models",
                           "--json", photos)  # fmt: skip
        assert ended.code == 0, ended
        assert [document["accepted"] for document in ended.documents] == [True] * len(names)

    def wait_for(told: Callable[[Event], bool], timeout_s: float, what: str) -> float:
        def on_both() -> bool:
            return {event.camera_id for _, event in fleet.events() if told(event)} == set(few.ids)

        return fleet.wait_until(on_both, timeout_s, f"{what} on both cameras")

    enroll(first, second)
    gallery = DatabaseGallery.open(url)
    with fleet.running():
        fleet.wait_until(fleet.balanced, 90, "each worker has a camera")
        for name in (first, second):
            wait_for(lambda event: event.identity_name == name, MATCHED_WITHIN_S, f"{name} is named")  # noqa: B023
        assert {event.identity_name for _, event in fleet.events()} <= {first, second, ""}

        enroll(late)
        gallery.reload_if_changed()
        enrolled_s = fleet.wait_until(lambda: searched(fleet) == {gallery.version}, 60, "both search the new version")
        named_s = wait_for(lambda event: event.identity_name == late, MATCHED_WITHIN_S, f"{late} is named")
        for worker in fleet.workers:
            held = [worker.metric(f"facestream_gallery_{name}") for name in ("people", "samples", "lag_seconds")]
            assert held[:2] == [3, 3]
            assert held[2] < LIVE_S

        seen = {event.sighting_id for _, event in fleet.events() if event.identity_name == late}
        begun_s = time.monotonic()
        removed = facestream("gallery", "remove", late, "--gallery", url)
        removed_s = time.monotonic() - begun_s
        told_at = time.time()
        assert removed.code == 0, removed
        assert [line.split("/")[0] for line in removed.stdout.splitlines()[1:]] == ["worker w0", "worker w1"]
        withdrawn_s = wait_for(
            lambda event: event.sighting_id in seen and event.type == "updated" and event.identity_name != late,
            MATCHED_WITHIN_S, f"the name of {late} is withdrawn",
        )  # fmt: skip

        alive, dead = fleet.workers
        dead.kill()
        removed_at, begun_s = time.time(), time.monotonic()
        gallery.remove(second)
        waited = {who.worker_id.split("/")[0]: done for who, done in gallery.wait_for_workers(30)}
        silent_s = time.monotonic() - begun_s
        assert waited == {alive.name: True, dead.name: False}
        assert silent_s < 30, "a worker that is gone is not waited for to the end"
        vanished_ms = min(int(entry_id.split("-")[0]) for entry_id, event in fleet.events()
                          if event.gallery_version == gallery.version) - 1000 * removed_at  # fmt: skip
        again = facestream("gallery", "remove", first, "--gallery", url)
        assert again.code == 0, again
        assert [line.split("/")[0] for line in again.stdout.splitlines()[1:]] == ["worker w0"]

        dead.start()
        fleet.wait_until(fleet.balanced, 60, f"{dead.name} takes part again")
        fleet.wait_until(lambda: searched(fleet) == {gallery.version + 1}, 60, "both search the last version")
        for worker in fleet.workers:
            assert worker.stop() == 0, worker.tail()
        assert [who.worker_id.split("/")[0] for who in gallery.followers if who.silent_s < LIVE_S] == []
        entries = fleet.events()
    gallery.close()
    named_later = {event.identity_name for _, event in entries if event.captured_at.timestamp() > told_at}
    assert late not in named_later
    tell(f"enroll: both workers searched the new version {enrolled_s:.2f} s after the command had ended, and named its "
         f"person within {named_s:.2f} s more; remove: {removed_s:.1f} s with both acknowledgements, both names "
         f"withdrawn {withdrawn_s:.2f} s later; beside a killed worker: the name withdrawn after {vanished_ms:.0f} ms, "
         f"the dead waited for {silent_s:.1f} s")  # fmt: skip


def searched(fleet: Fleet) -> set[int]:
    """The versions that the live workers search."""
    return {int(worker.metric("facestream_gallery_version")) for worker in fleet.workers if worker.alive}
