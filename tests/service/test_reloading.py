"""A configuration file that changes while the worker runs."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.config import Config, ConfigOrigin
from worker.errors import ConfigError
from worker.observer import Observer
from worker.service.reloading import Reloader

FIRST = """
cameras: [{id: lobby, source: "rtsp://10.0.0.4/stream"}]
recognition: {threshold: 0.5}
log: {level: info}
"""


class Outcomes(Observer):
    def __init__(self) -> None:
        self.seen: list[str] = []
        self.came = threading.Condition()

    def config_reloaded(self, outcome: str) -> None:
        with self.came:
            self.seen.append(outcome)
            self.came.notify_all()

    def wait_for(self, *outcomes: str) -> None:
        with self.came:
            assert self.came.wait_for(lambda: self.seen == list(outcomes), 10), self.seen


class Rig:
    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_text(FIRST)
        origin = ConfigOrigin(path, {"threads": 1})
        self.outcomes, self.applied = Outcomes(), list[Config]()
        self.reloader = Reloader(
            origin, origin.load(), self.applied.append, self.outcomes, check=self.check, poll_s=0.05
        )

    def check(self, config: Config) -> None:
        if any("nowhere" in camera.source.get_secret_value() for camera in config.cameras):
            raise ConfigError("such a source is not read")

    def write(self, text: str) -> None:
        draft = self.path.with_suffix(".draft")
        draft.write_text(text)
        draft.replace(self.path)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "worker.yaml")
    rig.reloader.start()
    yield rig
    rig.reloader.close()


def test_a_changed_file_comes_into_force_with_what_the_command_line_said(rig: Rig) -> None:
    rig.write(FIRST.replace("0.5", "0.6").replace("info", "debug"))
    rig.outcomes.wait_for("taken")
    (config,) = rig.applied
    assert (config.recognition.threshold, config.log.level, config.threads) == (0.6, "debug", 1)


@pytest.mark.parametrize(
    "text",
    [
        "cameras: [",
        "cameras: [{id: lobby}]",
        "camera: []",
        FIRST.replace("0.5", "1.5"),
        FIRST.replace("rtsp://10.0.0.4/stream", "nowhere"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_whole_and_a_later_one_is_taken(rig: Rig, text: str) -> None:
    rig.write(text)
    rig.outcomes.wait_for("refused")
    assert rig.applied == []
    rig.write(FIRST.replace("0.5", "0.7"))
    rig.outcomes.wait_for("refused", "taken")
    assert rig.applied[0].recognition.threshold == 0.7


def test_a_file_that_is_gone_changes_nothing(rig: Rig) -> None:
    rig.path.unlink()
    rig.outcomes.wait_for("refused")
    assert rig.applied == []


def test_settings_that_need_a_restart_wait_also_when_something_else_changes_later(rig: Rig) -> None:
    rig.write(FIRST + "detection: {min_face_px: 90}\n")
    rig.outcomes.wait_for("restart_needed")
    assert rig.applied == []
    rig.write(FIRST.replace("0.5", "0.6") + "detection: {min_face_px: 90}\n")
    rig.outcomes.wait_for("restart_needed", "restart_needed")
    (config,) = rig.applied
    assert (config.recognition.threshold, config.detection.min_face_px) == (0.6, 40)


def test_a_reload_can_be_asked_for(rig: Rig) -> None:
    rig.reloader.reload()
    rig.outcomes.wait_for("taken")
    assert rig.applied == []
