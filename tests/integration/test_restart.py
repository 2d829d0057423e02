"""A worker that is killed while somebody stands before its camera, and started again: one visit stays one sighting."""

import signal
from pathlib import Path

import pytest

from tests.support.command_line import RETAIL, Running, facestream, running, worker_arguments
from tests.support.ground_truth import GroundTruth
from tests.support.redis_answers import events


@pytest.mark.slow
def test_a_killed_worker_goes_on_with_the_sighting(
    redis_url: str, one_visit: GroundTruth, visited_camera: str, test_data: Path, tmp_path: Path
) -> None:
    models, gallery = test_data / "models", tmp_path / "people"
    enrolled = facestream(
        "enroll", "--gallery", gallery, "--model", RETAIL, "--models-dir", models, one_visit.enroll_folder
    )
    assert enrolled.code == 0, enrolled
    arguments = worker_arguments(visited_camera, redis_url, test_data, "--camera-id", "door", "--gallery", gallery)
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
    assert told[1].identity_name == started.identity_name == one_visit.visits[0].name
    assert told[1].ended_at is not None
    assert told[1].ended_at > started.captured_at

    # The end was told: there is nothing left to go on with.
    with running(*arguments, **patient) as worker:
        worker.until(lambda: len(events(redis_url)) == 3)
        assert events(redis_url)[-1].sighting_id != started.sighting_id
