"""Which cameras this worker reads: a thread that renews its leases, gains cameras and gives them up.

``docs/fleet.md`` explains the rules; the decisions fall in :mod:`worker.fleet.leases`.
"""

import math
import secrets
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

from worker.background import BackgroundTask, Heartbeats
from worker.config import CameraConfig, Config
from worker.errors import ConfigError
from worker.fleet.leases import Beat, Change, Claim, Lease, Leases
from worker.fleet.registry import CameraRegistry, Definition, RegistryCopy, decode_camera
from worker.logs import get_logger
from worker.observer import Observer
from worker.redis.client import REDIS_ERRORS, Client, explain


class Capacity:
    """How many cameras a worker could carry, from the load that those it reads cause.

    The estimate that is told changes only when it is clearly wrong: each change moves cameras.
    """

    TARGET_LOAD: Final = 0.8
    SMOOTHING_S: Final = 30.0
    SETTLING_S: Final = 15.0
    CLEARLY_WRONG: Final = 0.25

    def __init__(self, most: int) -> None:
        self._most = most
        self._cameras = 0
        self._settled_s = math.inf
        self._updated_s = 0.0
        self._load_per_camera: float | None = None
        self._told: int | None = None

    def update(self, load: float, cameras: int, now_s: float) -> int | None:
        """Cameras, 1 to ``most``, after ``cameras`` caused ``load`` (0..1); None while that is not known."""
        if cameras != self._cameras:
            self._cameras, self._settled_s = cameras, now_s + self.SETTLING_S
        elif cameras and now_s >= self._settled_s:
            self._learn(load / cameras, now_s)
        self._updated_s = now_s
        return self._told

    def _learn(self, load_per_camera: float, now_s: float) -> None:
        known = self._load_per_camera
        share = 1 - math.exp(-(now_s - self._updated_s) / self.SMOOTHING_S)
        self._load_per_camera = load_per_camera if known is None else known + share * (load_per_camera - known)
        could_carry = self.TARGET_LOAD / max(self._load_per_camera, self.TARGET_LOAD / self._most)
        if self._told is None or abs(could_carry - self._told) > self.CLEARLY_WRONG * self._told:
            self._told = max(1, round(could_carry))


Reason = Literal["superseded", "removed", "paused", "changed", "rebalanced"]

_BEATS_A_LEASE: Final = 3
_CLAIMS_A_BEAT: Final = 32
_FIRST_CLAIMS_A_BEAT: Final = 4
"""A worker that has just come takes cameras slowly: others may be about to come as well."""

_COPIES: Final = 16
"""About so many workers of a large fleet keep a copy of all cameras, not only of their own."""

_YIELDS_A_BEAT: Final = 2

_REFUSE_S: Final = 60.0
_STOP_S: Final = 60.0

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Held:
    lease: Lease
    document: str


class Assignment:
    """The cameras of a fleet that are this worker's.

    ``on_gained(camera, epoch)`` and ``on_lost(camera_id, reason)`` are called by its thread and must return soon. A
    camera that was lost for another reason than ``superseded`` is still held: :meth:`release` hands it back
    once no more events of it will come. ``load`` is the share of time that the pipeline is busy, 0..1. The thread is
    ``assignment`` in ``heartbeats``, and beats whether Redis answers or not.

    While Redis is away the cameras stay this worker's: no other worker can take them then. If one did, the epoch of
    each event decides.
    """

    def __init__(
        self,
        client: Client,
        config: Config,
        observer: Observer,
        load: Callable[[], float],
        on_gained: Callable[[CameraConfig, int], None],
        on_lost: Callable[[str, Reason], None],
        heartbeats: Heartbeats | None = None,
    ) -> None:
        # A process that is started again under its name must not be taken for the one before.
        worker = f"{config.worker_id}:{secrets.token_hex(4)}"
        self._config = config
        self._observer = observer
        self._load = load
        self._on_gained = on_gained
        self._on_lost = on_lost
        self._leases = Leases(client, config.fleet, worker)
        self._registry = CameraRegistry(client, config.fleet)
        self._copy = RegistryCopy(self._registry)
        self._capacity = Capacity(config.fleet.max_cameras)
        self._fingerprint = zlib.crc32(worker.encode()) / 2**32
        self._beat_s = config.fleet.lease_s / _BEATS_A_LEASE
        self._held: dict[str, _Held] = {}
        self._released: set[str] = set()
        self._refused_until_s: dict[str, float] = {}
        self._lock = threading.Lock()
        self._draining = False
        self._failures = 0
        self._error = ""
        self._begun_s = self._renewed_s = self._careful_until_s = self._yielded_s = 0.0
        self._task = BackgroundTask("assignment", self.beat, interval_s=self._beat_s, heartbeats=heartbeats)

    @property
    def owned(self) -> dict[str, int]:
        """The cameras that are held, with the epoch of each; those to be released are among them."""
        with self._lock:
            return {camera_id: held.lease.epoch for camera_id, held in self._held.items()}

    @property
    def worker(self) -> str:
        """The name of this process in the fleet."""
        return self._leases.worker

    @property
    def copied(self) -> int:
        """Of how many cameras this worker keeps the definition, so that a Redis that comes back empty gets it again."""
        return len(self._copy)

    @property
    def error(self) -> str:
        """Why Redis renews no leases at the moment, in one line; empty when all is well."""
        return self._error

    def start(self) -> None:
        self._task.start()

    def release(self, camera_id: str) -> None:
        """No more events of this camera will come: another worker may have it. Returns at once; from any thread."""
        with self._lock:
            if camera_id not in self._held:
                return
            self._released.add(camera_id)
        self._task.wake()

    def drain(self) -> None:
        """Claims no more cameras, so that those which are released go to the others."""
        self._draining = True

    def close(self) -> None:
        """Hands everything back. Where Redis does not take it, the leases run out by themselves."""
        self._draining = True
        self._task.stop(_STOP_S)
        try:
            self._leases.leave(self.owned)
        except REDIS_ERRORS as error:
            _log.warning("the cameras could not be handed back, and are taken over when their leases end",
                         reason=explain(error, self._config.redis))  # fmt: skip
        for camera_id in list(self._held):
            self._drop(camera_id)

    def beat(self) -> float:
        """One beat; the thread calls it again and again. Returns after how many seconds the next one is due."""
        try:
            self._hand_back()
            beat = self._renew()
            self._follow(beat)
            if self._fingerprint < _COPIES / max(beat.workers, 1):
                self._copy.follow(beat.incarnation, beat.change)
            else:
                self._copy.forget()
        except REDIS_ERRORS as error:
            return self._failed(explain(error, self._config.redis))
        if self._error:
            _log.info("Redis renews the leases again")
        self._error, self._failures = "", 0
        # Workers that were woken together, by the return of Redis, drift apart again.
        return self._beat_s * (0.9 + 0.1 * self._fingerprint)

    def _failed(self, problem: str) -> float:
        if not self._error:
            _log.warning("Redis does not renew the leases; the cameras are read on", reason=problem)
        self._error = problem
        self._failures += 1
        # The first tries follow each other quickly: after a short outage there is little left of the leases.
        return self._beat_s * min(1.0, 2.0 ** min(self._failures, 8) / 8) * (0.5 + 0.5 * self._fingerprint)

    def _hand_back(self) -> None:
        with self._lock:
            released = {camera_id: self._held[camera_id].lease.epoch for camera_id in self._released}
        if released:
            self._leases.release(released)
            for camera_id in released:
                self._drop(camera_id)

    def _renew(self) -> Beat:
        now_s = time.monotonic()
        fleet = self._config.fleet
        if not self._renewed_s:
            self._begun_s = self._renewed_s = now_s
        if now_s - self._renewed_s > fleet.lease_s:
            # What cut this worker off may have cut off others. They need time to say that they live.
            self._careful_until_s = now_s + fleet.lease_s
        load = self._load()
        self._observer.worker_load(load)
        kept = sum(held.lease.stage == "kept" for held in self._held.values())
        beat = self._leases.beat(
            [held.lease for held in self._held.values()],
            max_cameras=0 if self._draining else fleet.max_cameras,
            most_claims=_FIRST_CLAIMS_A_BEAT if now_s - self._begun_s < fleet.lease_s else _CLAIMS_A_BEAT,
            # A beat out of turn, after a release, must not make it a landslide.
            most_yields=_YIELDS_A_BEAT if now_s - self._yielded_s >= self._beat_s / 2 else 0,
            weight=self._capacity.update(load, kept, now_s),
            take_over=now_s >= self._careful_until_s,
            refused=[camera_id for camera_id, until_s in self._refused_until_s.items() if now_s < until_s],
        )
        self._renewed_s = time.monotonic()
        return beat

    def _follow(self, beat: Beat) -> None:
        for camera_id in beat.lost:
            self._superseded(camera_id)
        for change in beat.changed:
            self._redefined(change)
        for claim in beat.claimed:
            self._gain(claim)
        if beat.surplus:
            self._yielded_s = time.monotonic()
            kept = [camera_id for camera_id, held in self._held.items() if held.lease.stage == "kept"]
            # Each in its turn: the latest gained could be handed on and on, and be read by nobody.
            for camera_id in kept[: beat.surplus]:
                self._give_up(camera_id, "rebalanced")
        self._observer.leases_renewed(len(self._held))
        self._observer.fleet_seen(beat.workers, beat.cameras, beat.unowned)
        if unknown := [self._held[camera_id] for camera_id in beat.unknown if camera_id in self._held]:
            self._registry.seed(
                Definition(held.lease.camera_id, held.lease.revision, False, held.document)
                for held in unknown
                # A camera that is being given up may have been paused or removed.
                if held.lease.stage != "leaving"
            )

    def _gain(self, claim: Claim) -> None:
        self._refused_until_s.pop(claim.camera_id, None)
        with self._lock:
            lease = Lease(claim.camera_id, claim.epoch, claim.revision)
            self._held[claim.camera_id] = _Held(lease, claim.document)
        try:
            camera = decode_camera(claim.document, claim.camera_id)
        except ConfigError as error:
            # A worker of another version may be able to read it.
            _log.error("a camera cannot be read by this worker", camera_id=claim.camera_id, reason=str(error))
            self._observer.entry_refused("camera")
            self._refuse(claim.camera_id)
            return
        self._observer.lease_gained(claim.camera_id, claim.epoch)
        _log.info("camera gained", camera_id=claim.camera_id, epoch=claim.epoch)
        try:
            self._on_gained(camera, claim.epoch)
        except Exception:  # noqa: BLE001 - the other cameras must not suffer
            _log.exception("a camera could not be taken up", camera_id=claim.camera_id)
            self._refuse(claim.camera_id)

    def _refuse(self, camera_id: str) -> None:
        self._refused_until_s[camera_id] = time.monotonic() + _REFUSE_S
        self._mark(camera_id, "leaving")
        self.release(camera_id)

    def _redefined(self, change: Change) -> None:
        held = self._held.get(change.camera_id)
        if held is None or held.lease.stage != "kept":
            return
        if change.document is None:
            self._give_up(change.camera_id, "removed")
        elif change.paused:
            self._give_up(change.camera_id, "paused")
        elif change.document != held.document:
            self._give_up(change.camera_id, "changed")
        else:
            # Paused and resumed between two beats.
            self._replace(change.camera_id, replace(held.lease, revision=change.revision))

    def _superseded(self, camera_id: str) -> None:
        held = self._held[camera_id]
        self._drop(camera_id)
        self._observer.lease_lost("superseded")
        _log.warning("camera lost: another worker has taken it over", camera_id=camera_id, epoch=held.lease.epoch)
        if held.lease.stage == "kept":
            self._on_lost(camera_id, "superseded")

    def _give_up(self, camera_id: str, reason: Reason) -> None:
        self._mark(camera_id, "yielded" if reason == "rebalanced" else "leaving")
        self._observer.lease_lost(reason)
        _log.info("camera given up", camera_id=camera_id, reason=reason)
        self._on_lost(camera_id, reason)

    def _mark(self, camera_id: str, stage: Literal["leaving", "yielded"]) -> None:
        self._replace(camera_id, replace(self._held[camera_id].lease, stage=stage))

    def _replace(self, camera_id: str, lease: Lease) -> None:
        with self._lock:
            self._held[camera_id] = replace(self._held[camera_id], lease=lease)

    def _drop(self, camera_id: str) -> None:
        with self._lock:
            del self._held[camera_id]
            self._released.discard(camera_id)
        self._observer.lease_ended(camera_id)
