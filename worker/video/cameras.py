"""The cameras that a worker reads at the moment: one decode thread and one buffer each, gathered into batches."""

import time
from functools import partial

from worker.config import CameraConfig, Config
from worker.errors import FacestreamError
from worker.logs import get_logger
from worker.observer import Observer
from worker.types import Frame
from worker.video.addresses import parse_address
from worker.video.buffers import Batcher, FrameBuffer
from worker.video.child_video import Decoders
from worker.video.connect_guard import can_guard
from worker.video.decoder import open_video
from worker.video.reader import CameraReader
from worker.video.schedule import Schedule, look_interval_s, reads_every_frame

_log = get_logger(__name__)

_JOIN_S = 2.0
_LEAVE_S = 0.8
"""So long decoders may say good-bye to their cameras before they are killed."""


def unguarded(config: Config, *, lasting: bool) -> str:
    """Where a redirect of an RTSP server is not held to ``network.allowed_hosts``: which cameras these are, why, and
    what to do; "" if each is. ``lasting``: further cameras may come."""
    if config.decoding.processes == "off":
        why, to_do = "decoding.processes is off", "set it to live"
    elif not can_guard():
        why, to_do = "this system cannot stop a connection (seccomp)", "run on Linux, where seccomp is allowed"
    else:
        return ""
    addresses = {camera.id: parse_address(camera.source.get_secret_value()) for camera in config.cameras}
    ids = [key for key, address in addresses.items() if address.kind == "network" and not address.over_http]
    if not ids and not lasting:
        return ""
    which = ", ".join(ids) or "each that comes"
    return (
        f"an RTSP server can lead the worker to any host, whatever network.allowed_hosts says: {why} "
        f"(cameras: {which}); {to_do}, or let a firewall open the way to the cameras alone"
    )


class Cameras:
    """Cameras that come and go. :meth:`start`, :meth:`stop` and :meth:`next_batch` belong to one thread.

    ``lasting``: further cameras may come, so that the end of all present ones is not the end.
    """

    def __init__(self, config: Config, observer: Observer, *, lasting: bool = False) -> None:
        self._config = config
        self._observer = observer
        self._lasting = lasting
        if problem := unguarded(config, lasting=lasting):
            _log.warning(problem)
        self._opener = partial(open_video, hosts=config.network.policy)
        self._decoders = Decoders(config.decoding, config.network.policy, queue_frames=config.batching.queue_frames)
        if (lasting and config.decoding.processes != "off") or any(map(self._is_apart, config.cameras)):
            self._decoders.start()
        self._look_interval_s = look_interval_s(config.detection)
        self.schedule = Schedule(config.detection, observer, max_frames=config.batching.max_frames)
        self._batcher = Batcher([], config.batching, observer, due=self.schedule.due, turn=self.schedule.turn)
        self._readers: dict[str, CameraReader] = {}
        self._buffers: dict[str, FrameBuffer] = {}
        self._leaving: list[CameraReader] = []

    def start(self, camera: CameraConfig) -> None:
        """Reads ``camera`` from now on.

        Raises:
            ConfigError: its source is not one that is read.
            ValueError: a camera of this id is read already.
        """
        if camera.id in self._readers:
            raise ValueError(f"camera {camera.id} is read already")
        whole = reads_every_frame(camera)
        buffer = FrameBuffer.for_camera(camera, self._config.batching, self._observer)
        reader = CameraReader(
            camera,
            buffer,
            self._observer,
            wanted=self.schedule.wanted,
            look_interval_s=0.0 if whole else self._look_interval_s,
            opener=self._decoders.open if self._is_apart(camera) else self._opener,
        )
        if whole:
            self.schedule.search_always(camera.id)
        self._batcher.add(buffer)
        self._readers[camera.id], self._buffers[camera.id] = reader, buffer
        self._observer.camera_added(camera.id)
        reader.start()

    def keep_planes(self) -> None:
        """Frames come as planes from now on where a device can convert them."""
        self._batcher.keeps_planes = True

    def stop(self, camera_id: str) -> None:
        """Reads this camera no longer; frames that nobody took are dropped as ``removed``. Returns at once."""
        reader = self._readers.pop(camera_id)
        self._buffers.pop(camera_id, None)
        reader.stop()
        self._batcher.remove(camera_id)
        self.schedule.forget(camera_id)
        self._leaving = [other for other in self._leaving if not other.join(0)] + [reader]
        self._observer.camera_removed(camera_id)

    def next_batch(self, timeout_s: float) -> list[Frame] | None:
        """At most one frame of each camera whose turn it is; empty after ``timeout_s``; None when all have ended."""
        frames = self._batcher.next_batch(timeout_s, self.schedule.most_frames)
        if frames is None and self._lasting:
            # All buffers are closed and empty, and would say so at once, again and again.
            for camera_id in self._readers:
                self._batcher.remove(camera_id)
            return []
        return frames

    def pop_ended(self) -> list[str]:
        """The ids of the cameras whose source has ended, or failed for good, and whose last frame was taken; each of
        them once."""
        ended = [camera_id for camera_id, buffer in self._buffers.items() if buffer.exhausted]
        for camera_id in ended:
            del self._buffers[camera_id]
        return ended

    def _is_apart(self, camera: CameraConfig) -> bool:
        """Whether a process of its own decodes the camera."""
        where, kind = self._config.decoding.processes, parse_address(camera.source.get_secret_value()).kind
        return where != "off" and kind in (("network", "device") if where == "live" else ("network", "device", "file"))

    def __contains__(self, camera_id: object) -> bool:
        return camera_id in self._readers

    def __len__(self) -> int:
        return len(self._readers)

    @property
    def ids(self) -> list[str]:
        return list(self._readers)

    @property
    def live(self) -> list[str]:
        """The ids of the cameras that are not recordings."""
        return [camera_id for camera_id, reader in self._readers.items() if reader.live]

    def received_monotonic_s(self, camera_id: str) -> float | None:
        """When the newest frame of a camera came, whether anybody looked at it or not; None before the first one."""
        return self._readers[camera_id].received_monotonic_s

    @property
    def waiting(self) -> int:
        """How many have a frame that nobody has taken yet."""
        return self._batcher.waiting

    def states(self) -> dict[str, tuple[str, str]]:
        """Of each camera the state of its source and, without credentials, why."""
        return {camera_id: (reader.state, reader.reason) for camera_id, reader in list(self._readers.items())}

    def why_blind(self) -> str:
        """Why no camera delivers frames; empty while at least one does, or if there are no cameras."""
        states = self.states()
        if any(state in {"streaming", "ended"} for state, _ in states.values()):
            return ""
        return "; ".join(f"{camera_id}: {state} {reason}".strip() for camera_id, (state, reason) in states.items())

    def close(self) -> list[FacestreamError]:
        """Stops all cameras; frames in the buffers are given up. Returns the errors that ended sources for good."""
        readers = [*self._readers.values(), *self._leaving]
        for reader in readers:
            reader.stop()
        gone_s = time.monotonic() + _LEAVE_S
        for reader in readers:
            reader.join(max(0.0, gone_s - time.monotonic()))
        self._decoders.close()
        for reader in readers:
            reader.join(_JOIN_S)
        self._batcher.close()
        return [reader.error for reader in self._readers.values() if reader.error]
