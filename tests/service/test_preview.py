"""A look through a camera: who may have one, and what they see."""

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import cv2
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from worker.config import MetricsConfig, PreviewConfig
from worker.errors import ConfigError
from worker.service.health import Health, HealthServer
from worker.service.preview import MAX_VIEWERS, Preview, open_preview
from worker.types import Detections, Frame, Tracks

TOKEN = "0123456789abcdef-token"


def frame(level: int, width: int = 1920) -> Frame:
    image = np.full((width * 9 // 16, width, 3), level, np.uint8)
    return Frame("lobby", 0, 0.0, datetime.now(UTC), 0.0, image)


def tracks(*boxes: tuple[float, float, float, float]) -> Tracks:
    count = len(boxes)
    found = Detections(
        np.array(boxes, np.float32).reshape(count, 4), np.ones(count, np.float32), np.zeros((count, 5, 2), np.float32)
    )
    return Tracks(found, np.arange(count), np.ones(count, np.int64), np.empty(0, np.int64))


class Rig:
    def __init__(self) -> None:
        preview = open_preview(PreviewConfig.model_validate({"token": TOKEN, "max_fps": 25, "max_width_px": 640}))
        assert preview is not None
        self.preview = preview
        self.cameras = ["lobby"]
        health = Health()
        health.describe(lambda: {"cameras": [{"camera_id": camera_id} for camera_id in self.cameras]})
        self.server = HealthServer(MetricsConfig(host="127.0.0.1", port=0), health, CollectorRegistry(), preview)
        self._stop = threading.Event()
        self.level = 100
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self._thread.start()

    def _feed(self) -> None:
        while not self._stop.wait(0.02):
            self.preview.watch(frame(self.level), tracks((600, 300, 900, 700)), ["Ada"])

    def ask(self, path: str, **headers: str) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.server.port}{path}", headers=headers)
        return urllib.request.urlopen(request, timeout=10)

    def close(self) -> None:
        self.cameras.clear()
        self._stop.set()
        self._thread.join()
        self.server.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    with closing(Rig()) as rig:
        yield rig


def next_picture(answer: Any) -> Any:
    length = 0
    while line := answer.readline().strip():
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    read = cv2.imdecode(np.frombuffer(answer.read(length), np.uint8), cv2.IMREAD_COLOR)
    assert read is not None
    answer.readline()
    return read


@pytest.mark.parametrize("way", ["header", "query"])
def test_who_has_the_token_sees_the_camera_as_the_worker_does(rig: Rig, way: str) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"} if way == "header" else {}
    path = "/preview/lobby" if way == "header" else f"/preview/lobby?token={TOKEN}"
    with rig.ask(path, **headers) as answer:
        assert answer.headers["Content-Type"].startswith("multipart/x-mixed-replace")
        picture = next_picture(answer)
        assert picture.shape == (360, 640, 3)
        assert abs(int(picture[20, 20, 0]) - 100) < 4
        # The box of a known person, drawn where the face is in the smaller picture.
        assert np.ptp(picture[100:240, 195:205]) > 60
        rig.level = 200
        while abs(int(next_picture(answer)[20, 20, 0]) - 200) > 4:
            pass


@pytest.mark.parametrize(
    ("path", "headers", "code"),
    [
        ("/preview/lobby", {}, 401),
        ("/preview/lobby?token=wrong", {}, 401),
        ("/preview/lobby", {"Authorization": "Bearer wrong"}, 401),
        (f"/preview/attic?token={TOKEN}", {}, 404),
        ("/preview/attic", {}, 401),
    ],
)
def test_nobody_else_sees_anything(rig: Rig, path: str, headers: dict[str, str], code: int) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        rig.ask(path, **headers)
    assert refused.value.code == code
    refused.value.close()


def test_without_a_token_there_is_no_preview() -> None:
    assert open_preview(PreviewConfig()) is None
    server = HealthServer(MetricsConfig(host="127.0.0.1", port=0), Health(), CollectorRegistry())
    with closing(server), pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{server.port}/preview/lobby?token=", timeout=10)
    assert refused.value.code == 404
    refused.value.close()


def test_a_camera_that_is_given_up_ends_its_preview(rig: Rig) -> None:
    with rig.ask(f"/preview/lobby?token={TOKEN}") as answer:
        next_picture(answer)
        rig.cameras.clear()
        while answer.readline():
            pass


def test_only_so_many_look_at_once(rig: Rig) -> None:
    answers = [rig.ask(f"/preview/lobby?token={TOKEN}") for _ in range(MAX_VIEWERS)]
    for answer in answers:
        next_picture(answer)
    with pytest.raises(urllib.error.HTTPError) as refused:
        rig.ask(f"/preview/lobby?token={TOKEN}")
    assert refused.value.code == 503
    refused.value.close()
    for answer in answers:
        answer.close()


def test_nothing_is_held_while_nobody_looks() -> None:
    preview = Preview(PreviewConfig(), TOKEN)
    preview.watch(frame(1), tracks(), [])
    pictures = preview.pictures("lobby", lambda: True)
    threading.Timer(0.1, preview.watch, (frame(90), tracks(), [])).start()
    first = cv2.imdecode(np.frombuffer(next(pictures), np.uint8), cv2.IMREAD_COLOR)
    assert first is not None
    assert round(float(first.mean())) == 90
    pictures.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("fields", [{"token": "short"}, {"token_file": "/nowhere/token"}])
def test_a_token_that_keeps_nobody_out_is_a_mistake(fields: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="preview"):
        open_preview(PreviewConfig.model_validate(fields))
