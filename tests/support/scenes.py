"""People before one camera, and the sightings that become of them."""

from datetime import datetime, timedelta

import numpy as np

from tests.support.past import NOON
from worker.config import RecognitionConfig
from worker.history.recorder import Recorder
from worker.observer import Observer
from worker.recognition.sighting import RecognitionContext
from worker.recognition.sightings import CameraSightings
from worker.recognition.unknowns import Unknowns
from worker.types import Detections, Event, Frame, Match, Tracks

ALICE = np.eye(8, dtype=np.float32)[0]
BOB = np.eye(8, dtype=np.float32)[1]
STRANGER = np.eye(8, dtype=np.float32)[2]
PEOPLE = {"alice": ALICE, "bob": BOB}
THRESHOLD = 0.5


class Outcomes(Observer):
    def __init__(self) -> None:
        self.outcomes: list[str] = []
        self.refused: list[str] = []

    def entry_refused(self, kind: str) -> None:
        self.refused.append(kind)

    def track_ended(self, camera_id: str, outcome: str) -> None:
        self.outcomes.append(outcome)


class Scene:
    """Drives the sightings of one camera, one frame every 0.1 s, with a gallery of Alice and Bob."""

    def __init__(self, recorder: Recorder | None = None, unknowns: Unknowns | None = None, **config: float) -> None:
        self.observer = Outcomes()
        self.config = RecognitionConfig(**({"verdict_timeout_s": 1.0, "linger_s": 5.0} | config))
        context = RecognitionContext(
            self.config, "m", "", 8, min_detections=2, worker_id="w", observer=self.observer, recorder=recorder,
            unknowns=unknowns,
        )  # fmt: skip
        self.sightings = CameraSightings("door", context, threshold=THRESHOLD)
        self.pts_s = 0.0
        self.began = NOON
        self.left_px = 0
        self.embedded = 0

    @property
    def now(self) -> datetime:
        return self.began + timedelta(seconds=self.pts_s)

    def frame(
        self, faces: dict[int, np.ndarray], ended: tuple[int, ...] = (), embed: bool = True, seconds: float = 0.1
    ) -> list[Event]:
        self.pts_s = round(self.pts_s + seconds, 3)
        n = len(faces)
        boxes = np.array([[10 * i, 0, 10 * i + 60, 60] for i in range(n)], np.float32).reshape(n, 4)
        boxes[:, ::2] += self.left_px
        found = Detections(boxes, np.ones(n, np.float32), np.zeros((n, 5, 2), np.float32))
        tracks = Tracks(found, np.array(list(faces), np.int64), np.zeros(n, np.float32), np.array(ended, np.int64))
        frame = Frame("door", 0, self.pts_s, self.now, 0.0, np.zeros((90, 160, 3), np.uint8))
        for index in self.sightings.see(frame, tracks):
            track_id = int(tracks.track_ids[index])
            if embed:
                self.embedded += 1
                self.sightings.learn(track_id, faces[track_id], 0.8, self.pts_s, 3600.0)
        for sighting in self.sightings.to_match(gallery_changed=False):
            sighting.match = self.match(sighting.template.vector, sighting.template.count)
            sighting.template_changed = False
        return self.sightings.transitions(self.pts_s)

    def match(self, vector: np.ndarray, evidence: int) -> Match:
        name = max(PEOPLE, key=lambda who: float(PEOPLE[who] @ vector))
        similarity = float(PEOPLE[name] @ vector)
        named = similarity >= THRESHOLD and evidence >= self.config.min_embeddings
        return Match(
            name if named else None, name.title() if named else "", similarity, 0.0, THRESHOLD, 3,
            "matched" if named else "below_threshold",
        )  # fmt: skip

    def frames(self, count: int, faces: dict[int, np.ndarray]) -> list[Event]:
        return [event for _ in range(count) for event in self.frame(faces)]

    def absent(self, seconds: float) -> list[Event]:
        return [event for _ in range(round(seconds / 0.1)) for event in self.frame({})]


def kinds(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.type, event.identity_name) for event in events]
