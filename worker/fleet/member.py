"""A worker of a fleet: it reads the cameras that are assigned to it, and hands them on with all it knows of them."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Final, Protocol

from worker.background import Heartbeats
from worker.config import CameraConfig, Config
from worker.events.fencing import raise_fence
from worker.events.states import RedisStates, SightingState
from worker.fleet.assignment import Assignment, Reason
from worker.logs import get_logger
from worker.observer import Observer
from worker.redis.client import REDIS_ERRORS, Client, explain
from worker.redis.keys import event_stream
from worker.video.addresses import parse_address

_ENDS_SIGHTINGS: Final = frozenset({"removed", "paused"})
"""Reasons after which no worker reads the camera: the sightings end."""

_log = get_logger(__name__)


class CameraLoop(Protocol):
    """What reads the cameras; all methods except :meth:`order` and :meth:`load` are for its own thread."""

    def order(self, action: Callable[[], None]) -> None: ...
    def load(self) -> float: ...
    def start_camera(self, camera: CameraConfig, epoch: int = 0, resume: SightingState | None = None) -> None: ...
    def stop_camera(self, camera_id: str) -> None: ...
    def hand_over(self, camera_id: str) -> SightingState: ...


class FleetMember:
    """Ties the assignment of cameras to the loop that reads them.

    A thread of its own asks Redis, one thing after another: the beat of the leases must not wait for it, and a camera
    that is lost right after it was gained must be given up after it was begun.
    """

    def __init__(
        self,
        client: Client,
        config: Config,
        loop: CameraLoop,
        observer: Observer,
        heartbeats: Heartbeats | None = None,
    ) -> None:
        self._client = client
        self._config = config
        self._loop = loop
        self._states = RedisStates(client, config.fleet.name, config.recognition.linger_s, observer)
        self._desk = ThreadPoolExecutor(1, "fleet")
        self._epochs: dict[str, int] = {}
        self._assignment = Assignment(client, config, observer, loop.load, self._gained, self._lost, heartbeats)

    @property
    def epochs(self) -> dict[str, int]:
        """The cameras that are this worker's, each with the epoch of its lease."""
        return self._assignment.owned

    def start(self) -> None:
        self._assignment.start()

    def drain(self) -> None:
        """Claims no more cameras: this worker is about to leave."""
        self._assignment.drain()

    def leave(self, states: Mapping[str, SightingState]) -> None:
        """Hands all cameras to the others, each with the state of its sightings. Nothing is read any more."""
        for camera_id, state in states.items():
            self._ask(self._hand_on, camera_id, self._epochs.get(camera_id, 0), state)
        self._desk.shutdown()
        self._assignment.close()

    # Called by the assignment's thread.

    def _gained(self, camera: CameraConfig, epoch: int) -> None:
        parse_address(camera.source.get_secret_value())
        self._ask(self._take_over, camera, epoch)

    def _lost(self, camera_id: str, reason: Reason) -> None:
        self._ask(self._loop.order, partial(self._give_up, camera_id, reason))

    def _ask(self, task: Callable[..., None], *arguments: Any) -> None:
        """Has the thread that asks Redis do it."""
        self._desk.submit(task, *arguments).add_done_callback(_tell_failure)

    # Called by the thread that asks Redis.

    def _take_over(self, camera: CameraConfig, epoch: int) -> None:
        state: SightingState | None = None
        try:
            raise_fence(self._client, event_stream(self._config.redis.stream, camera.id), camera.id, epoch)
            state = self._states.load(camera.id)
        except REDIS_ERRORS as error:
            # The first event of the new epoch raises the fence as well.
            _log.warning("a camera is taken over without what was known of it", camera_id=camera.id,
                         reason=explain(error, self._config.redis))  # fmt: skip
        finally:
            # No other worker reads it while this one has the lease, so it begins even after an error.
            self._loop.order(partial(self._begin, camera, epoch, state))

    def _hand_on(self, camera_id: str, epoch: int, state: SightingState | None) -> None:
        try:
            self._states.keep(camera_id, epoch, state)
        except REDIS_ERRORS as error:
            _log.warning("a camera is handed on without what was known of it", camera_id=camera_id,
                         reason=explain(error, self._config.redis))  # fmt: skip
        finally:
            self._assignment.release(camera_id)

    # Called by the thread of the pipeline.

    def _begin(self, camera: CameraConfig, epoch: int, state: SightingState | None) -> None:
        if self._assignment.owned.get(camera.id) != epoch:
            return
        if camera.id in self._epochs:
            self._loop.hand_over(camera.id)
        self._epochs[camera.id] = epoch
        self._loop.start_camera(camera, epoch, state)

    def _give_up(self, camera_id: str, reason: Reason) -> None:
        epoch = self._epochs.pop(camera_id, None)
        state: SightingState | None = None
        if epoch is not None and reason in _ENDS_SIGHTINGS:
            self._loop.stop_camera(camera_id)
        elif epoch is not None:
            state = self._loop.hand_over(camera_id)
        if reason != "superseded":
            self._ask(self._hand_on, camera_id, epoch or 0, state)


def _tell_failure(done: Future[None]) -> None:
    if (error := done.exception()) is not None:
        _log.error("a camera changed hands with a fault", exc_info=error)
