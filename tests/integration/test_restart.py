"""A worker that is killed while somebody stands before its camera, and started again: one visit stays one sighting."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.support.command_line import RETAIL, Running, facestream, running, worker_arguments
from tests.support.ground_truth import GroundTruth, make_ground_truth_clip
from tests.support.rtsp import RtspServer, require_rtsp
from worker.events.codec import decode
from worker.types import Event


@pytest.fixture
def clip(test_data: Path, tmp_path: Path) -> GroundTruth:
    return make_ground_truth_clip(
        test_data / "lfw_dev", tmp_path, enrolled=1, strangers=0, seed=2, face_px=(110.0, 130.0), visit_s=(8.0, 8.0)
    )


@pytest.fixture
def camera(clip: GroundTruth) -> Iterator[str]:
    require_rtsp()
    server = RtspServer({"/door": clip.clip})
    server.start()
    yield server.url("/door")
    server.stop()


def events(redis_url: str) -> list[Event]:
    with redis.Redis.from_url(redis_url) as client:
        return [decode(fields) for _, fields in client.xrange("facestream:events")]


def test_a_killed_worker_goes_on_with_the_sighting(
    redis_url: str, clip: GroundTruth, camera: str, test_data: Path, tmp_path: Path
) -> None:
    models, gallery = test_data / "models", tmp_path / "people"
    enrolled = facestream("enroll", "--gallery", gallery, "--model", RETAIL, "--models-dir", models, clip.enroll_folder)
    assert enrolled.code == 0, enrolled
    arguments = worker_arguments(camera, redis_url, test_data, "--camera-id", "door", "--gallery", gallery)
    patient = {"FACESTREAM_RECOGNITION__LINGER_S": "120", "FACESTREAM_WORKER_ID": "w"}

    def frames_read(worker: Running) -> float:
        return worker.metric('facestream_frames_read_total{camera="door"}')

    with running(*arguments, **patient) as worker:
        worker.until(lambda: events(redis_url))
        worker.process.send_signal(signal.SIGKILL)
    (started,) = events(redis_url)
    assert started.type == "started"
    with running(*arguments, **patient) as worker:
        worker.until(lambda: frames_read(worker) > 100)
        stopped = worker.end(signal.SIGTERM)
    assert stopped.code == 0, stopped
    told = events(redis_url)
    assert [event.type for event in told] == ["started", "ended"]
    assert told[1].sighting_id == started.sighting_id
    assert told[1].identity_name == started.identity_name == clip.visits[0].name
    assert told[1].ended_at is not None
    assert told[1].ended_at > started.captured_at

    # The end was told: there is nothing left to go on with.
    with running(*arguments, **patient) as worker:
        worker.until(lambda: len(events(redis_url)) == 3)
        assert events(redis_url)[-1].sighting_id != started.sighting_id
