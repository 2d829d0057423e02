"""Somebody who stands before a camera is forgotten by the worker that reads it."""

import json
import signal
from pathlib import Path

import pytest

from tests.support.command_line import RETAIL, facestream, running, worker_arguments
from tests.support.ground_truth import GroundTruth
from tests.support.redis_answers import events

pytestmark = [pytest.mark.data, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(180)]


def test_a_running_worker_forgets_and_says_so(
    redis_url: str, one_visit: GroundTruth, visited_camera: str, test_data: Path, tmp_path: Path
) -> None:
    models, gallery = test_data / "models", tmp_path / "people"
    enrolled = facestream(
        "enroll", "--gallery", gallery, "--model", RETAIL, "--models-dir", models, one_visit.enroll_folder
    )
    assert enrolled.code == 0, enrolled
    arguments = worker_arguments(visited_camera, redis_url, test_data, "--camera-id", "door", "--gallery", gallery)
    with running(*arguments, FACESTREAM_RECOGNITION__LINGER_S="120", FACESTREAM_WORKER_ID="w") as worker:
        worker.until(lambda: events(redis_url))
        (started,) = events(redis_url)[:1]
        assert started.identity_name
        told = facestream(
            "forget", started.identity_name, "--gallery", gallery, "--redis", redis_url, "--yes", "--json"
        )
        assert told.code == 0, told
        (receipt,) = told.documents
        assert [(one["worker"].split("-")[0], one["done"]) for one in receipt["workers"]] == [("w", True)]
        worker.until(lambda: any(event.type == "updated" and not event.identity_id for event in events(redis_url)))
        assert worker.end(signal.SIGTERM).code == 0
    erased = [event for event in events(redis_url) if event.type == "erased"]
    assert {event.identity_id for event in erased} == {started.identity_id}
    after = events(redis_url)[events(redis_url).index(erased[-1]) :]
    assert not any(event.identity_name for event in after)
    left = [path for path in tmp_path.rglob("*") if path.is_file() and "people" in str(path.relative_to(tmp_path))]
    name = started.identity_name.encode()
    assert [str(path) for path in left if name in path.read_bytes()] == []
    assert json.dumps(receipt).find(started.identity_name) < 0
