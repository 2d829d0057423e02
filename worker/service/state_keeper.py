"""When the state of the cameras' sightings is kept: so often that whoever goes on with them notices no gap."""

import time
from dataclasses import dataclass
from typing import Final

from worker.events.publisher import Publisher
from worker.recognition.pipeline import Pipeline

_INTERVAL_S: Final = 1.0


@dataclass(slots=True)
class _Kept:
    epoch: int
    at_s: float = float("-inf")
    empty: bool = False
    changed: bool = False


class StateKeeper:
    """Of the live cameras; a recording is read anew from its start. For the pipeline's thread."""

    def __init__(self, pipeline: Pipeline, publisher: Publisher) -> None:
        self._pipeline = pipeline
        self._publisher = publisher
        self._cameras: dict[str, _Kept] = {}

    def begin(self, camera_id: str, epoch: int) -> None:
        """Keeps the state of this camera from now on."""
        self._cameras[camera_id] = _Kept(epoch)

    def changed(self, camera_id: str) -> None:
        """There was an event: the state is to be kept at once."""
        if camera_id in self._cameras:
            self._cameras[camera_id].changed = True

    def keep(self) -> None:
        """Keeps those that are due; not again and again that nobody is there."""
        now_s = time.monotonic()
        for camera_id, kept in self._cameras.items():
            if not kept.changed and now_s - kept.at_s < _INTERVAL_S:
                continue
            state = self._pipeline.state(camera_id)
            empty = not state.get("sightings")
            if not (empty and kept.empty):
                self._publisher.keep_state(camera_id, kept.epoch, None if empty else state)
            kept.at_s, kept.empty, kept.changed = now_s, empty, False

    def end(self, camera_id: str) -> None:
        """The camera's sightings have ended: there is nothing to go on with."""
        if kept := self._cameras.pop(camera_id, None):
            self._publisher.keep_state(camera_id, kept.epoch, None)

    def hand_over(self, camera_id: str) -> None:
        """Somebody else keeps the state of this camera from now on."""
        if self._cameras.pop(camera_id, None):
            self._publisher.discard_state(camera_id)
