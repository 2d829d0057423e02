"""Who is in front of one camera: tracks become sightings, sightings become events.

A sighting is one visit of one person. It outlives its track: a person who is lost and comes back within
``linger_s`` continues the same sighting, so that one visit raises one alert.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.boxes import area
from worker.events.codec import sighting_id
from worker.logs import get_logger
from worker.recognition.announcement import Announcer
from worker.recognition.attention import attention, has_leapt, wants_face
from worker.recognition.matching import TrackTemplate
from worker.recognition.saved import from_state, to_state
from worker.recognition.sighting import (
    RecognitionContext,
    Sighting,
    note_together,
    one_face_per_person,
    reconsider_withdrawn,
    same_visit_threshold,
)
from worker.types import Attention, Event, Frame, Tracks

_log = get_logger(__name__)

VERDICT_LOOKS = 4
"""A person is called unknown after ``verdict_timeout_s``, but not before so many looks, or as many embedded faces as a
verdict needs: where looks are rare, time alone says little."""
GAP_S = 0.5
"""A face that comes back to its track after this long may be that of another person, who stepped into the place."""


class CameraSightings:
    """The sightings of one camera, present and lately gone.

    ``threshold`` is the cosine from which a person is named here; events carry ``epoch``.
    """

    def __init__(self, camera_id: str, context: RecognitionContext, *, threshold: float, epoch: int = 0) -> None:
        self.camera_id = camera_id
        self.threshold = threshold
        self._context = context
        self._announcer = Announcer(camera_id, context, threshold=threshold, epoch=epoch)
        self._by_track: dict[int, Sighting] = {}
        self._lingering: list[Sighting] = []
        self._looked_pts_s = float("-inf")

    def see(self, frame: Frame, tracks: Tracks) -> list[int]:
        """Notes where everybody is; returns the indices of the faces that are worth embedding."""
        wanted = []
        seen = []
        areas = area(tracks.detections.boxes)
        for index, track_id in enumerate(tracks.track_ids.tolist()):
            sighting = self._of_track(track_id, frame)
            sighting.detections += 1
            x1, y1, x2, y2 = box = tracks.detections.boxes[index].tolist()
            sighting.leapt |= sighting.detections > 1 and (
                frame.pts_s - sighting.seen_pts_s > GAP_S or has_leapt(sighting, box, frame.pts_s, self._looked_pts_s)
            )
            sighting.box = (x1, y1, x2, y2)
            sighting.account.faces += 1
            sighting.account.largest_px = max(sighting.account.largest_px, min(x2 - x1, y2 - y1))
            sighting.frame_size = frame.size
            sighting.seen_at = frame.captured_at
            sighting.seen_pts_s = frame.pts_s
            seen.append(sighting)
            if wants_face(sighting, self._context.config, frame.pts_s, float(areas[index])):
                wanted.append(index)
        note_together(seen)
        self._looked_pts_s = frame.pts_s
        self.end_tracks(tracks.ended_ids)
        return wanted

    def end_tracks(self, track_ids: NDArray[np.int64]) -> None:
        """The faces of these tracks are gone."""
        for track_id in track_ids.tolist():
            if lost := self._by_track.pop(track_id, None):
                self._lose(lost)

    def adjust(self, context: RecognitionContext, threshold: float) -> None:
        """Goes by other rules from now on; every verdict is due again."""
        self._context, self.threshold = context, threshold
        self._announcer.adjust(context, threshold)
        for sighting in (*self._by_track.values(), *self._lingering):
            sighting.template_changed = True

    def erase(self, context: RecognitionContext) -> list[Sighting]:
        """Forgets what was seen of those who were erased; returns their sightings, which go on with new faces."""
        self.adjust(context, self.threshold)
        everybody = [*self._by_track.values(), *self._lingering]
        theirs = [sighting for sighting in everybody if sighting.bears(context.erased)]
        for sighting in theirs:
            sighting.start_over()
        for sighting in everybody:
            if sighting.mentions(context.erased):
                sighting.candidate = None
        return theirs

    def learn(self, track_id: int, vector: NDArray[np.float32], quality: float, pts_s: float, area_px: float) -> None:
        """Adds the embedding of a face to what is known of its track.

        If as many faces as a verdict needs do not resemble the person whom the track has shown so far, they begin a
        sighting of their own: trackers do swap people.
        """
        sighting = self._by_track.get(track_id)
        if sighting is None:
            return
        sighting.learn(vector, quality, self.threshold)
        if sighting.doubtful.count >= self._context.config.min_embeddings:
            sighting = self._part(sighting)
        sighting.leapt = False
        sighting.account.embedded += 1
        sighting.embedded_pts_s = pts_s
        sighting.embedded_area_px = max(sighting.embedded_area_px, area_px)

    def is_new(self, track_id: int) -> bool:
        """Whether the verdict on a track still waits for faces."""
        sighting = self._by_track.get(track_id)
        return sighting is not None and sighting.template.count < self._context.config.min_embeddings

    def of_track(self, track_id: int) -> Sighting | None:
        """The sighting that a track belongs to now; None for a track that is gone."""
        return self._by_track.get(track_id)

    def reject(self, track_id: int, reason: str) -> None:
        """Notes why a face was not embedded."""
        if sighting := self._by_track.get(track_id):
            sighting.rejection = reason
            sighting.account.rejected[reason] += 1

    def to_match(self, gallery_changed: bool) -> list[Sighting]:
        """The sightings on which a verdict must be taken, or taken again."""
        for sighting in self._by_track.values():
            if not sighting.announced and self._is_out_of_time(sighting, self._looked_pts_s):
                sighting.expect_no_more()
        just_lost = [gone for gone in self._lingering if gallery_changed or not gone.announced]
        present = [*self._by_track.values(), *just_lost]
        return [s for s in present if s.template.count and (s.template_changed or gallery_changed)]

    def label(self, track_id: int) -> str:
        """What to write beside the face of a track."""
        sighting = self._by_track.get(track_id)
        return sighting.label if sighting else ""

    def transitions(self, pts_s: float) -> list[Event]:
        """The events that are due at ``pts_s`` of this camera, in order."""
        everybody = [*self._by_track.values(), *self._lingering]
        one_face_per_person(everybody)
        reconsider_withdrawn(everybody)
        events: list[Event] = []
        for track_id, sighting in list(self._by_track.items()):
            if self._by_track.get(track_id) is not sighting:
                continue  # It goes on with the track of another one by now.
            if not sighting.announced and not self._is_due(sighting, pts_s):
                continue
            if not sighting.announced and (gone := self._same_person_gone(sighting)):
                self._continue(gone, sighting, track_id)
                sighting = gone
            events += self._announce(sighting)
        still_lingering = []
        for sighting in self._lingering:
            if self._is_over(sighting, pts_s):
                events += [] if sighting.announced else self._announce(sighting)
                events += self._announcer.end(sighting)
            else:
                if sighting.resumed_until_pts_s is None or self._is_due(sighting, pts_s):
                    events += self._announce(sighting)
                still_lingering.append(sighting)
        if len(still_lingering) < len(self._lingering):
            going_on = {sighting.sighting_id for sighting in (*self._by_track.values(), *still_lingering)}
            for sighting in (*self._by_track.values(), *still_lingering):
                sighting.together &= going_on
        self._lingering = still_lingering
        return events

    def attention(self) -> Attention:
        """What a further look at this camera is worth."""
        return attention(list(self._by_track.values()), self._context.config, self._context.min_detections)

    def leave(self) -> None:
        """Everybody is gone: the source has ended or the worker stops."""
        for sighting in self._by_track.values():
            self._lose(sighting)
        self._by_track.clear()

    def close(self) -> list[Event]:
        """Ends every sighting."""
        self.leave()
        one_face_per_person(self._lingering)
        events = [event for s in self._lingering for event in (*self._announce(s), *self._announcer.end(s))]
        self._lingering.clear()
        return events

    def state(self) -> dict[str, Any]:
        """The sightings that go on, or may go on, as JSON values for :meth:`resume`."""
        kept = [
            sighting
            for sighting in (*self._lingering, *self._by_track.values())
            if sighting.announced or sighting.detections >= self._context.min_detections
        ]
        return to_state(self.camera_id, self._context, kept)

    def resume(self, state: Mapping[str, Any], at: datetime, pts_s: float) -> None:
        """Goes on where :meth:`state` was taken, with a first frame captured ``at``, which is at ``pts_s``.

        Everybody counts as just gone, so that a person who is still there continues their sighting; the others end. A
        state that cannot be read is passed over, and the log says so.
        """
        try:
            self._lingering += from_state(state, self.camera_id, self._context, at=at, pts_s=pts_s)
        except ValueError as error:
            self._context.observer.entry_refused("state")
            _log.warning(
                "sightings begin anew: their state cannot be read", camera_id=self.camera_id, reason=str(error)
            )

    def _of_track(self, track_id: int, frame: Frame) -> Sighting:
        """The sighting that a face of the track belongs to; after a gap a new one, until the person is seen to be the
        same."""
        sighting = self._by_track.get(track_id)
        if sighting is None:
            return self._begin(track_id, frame.captured_at, frame.pts_s)
        if sighting.announced and frame.pts_s - sighting.seen_pts_s > GAP_S:
            self._lose(sighting)
            return self._begin(track_id, frame.captured_at, frame.pts_s)
        return sighting

    def _part(self, sighting: Sighting) -> Sighting:
        """Another person has taken over the track of ``sighting``: returns their sighting, which knows the latest
        faces."""
        self._lose(sighting)
        new = self._begin(sighting.track_id, sighting.seen_at, sighting.seen_pts_s)
        new.template, sighting.doubtful = sighting.doubtful, TrackTemplate(self._context.dimension)
        new.template_changed = True
        new.detections = new.account.faces = new.template.count
        new.box, new.frame_size, new.seen_pts_s = sighting.box, sighting.frame_size, sighting.seen_pts_s
        seen = [other for other in self._by_track.values() if other.seen_pts_s >= new.seen_pts_s]
        note_together(seen)
        if self._context.evidence:
            self._context.evidence.parted(sighting.sighting_id, new.sighting_id)
        return new

    def _begin(self, track_id: int, at: datetime, pts_s: float) -> Sighting:
        sighting = Sighting(
            sighting_id=sighting_id(self.camera_id, at, track_id),
            camera_id=self.camera_id,
            track_id=track_id,
            started_at=at,
            started_pts_s=pts_s,
            dimension=self._context.dimension,
        )
        self._by_track[track_id] = sighting
        return sighting

    def _is_due(self, sighting: Sighting, pts_s: float) -> bool:
        """Named at once; unknown only when more faces would not help, or have not come in time."""
        if sighting.detections < self._context.min_detections:
            return False
        if sighting.identity_id:
            return True
        enough = sighting.detections >= VERDICT_LOOKS or sighting.template.count >= self._context.config.min_embeddings
        return enough and self._is_out_of_time(sighting, pts_s)

    def _is_out_of_time(self, sighting: Sighting, pts_s: float) -> bool:
        return pts_s - sighting.started_pts_s >= self._context.config.verdict_timeout_s

    def _is_over(self, sighting: Sighting, pts_s: float) -> bool:
        if sighting.resumed_until_pts_s is not None:
            return pts_s >= sighting.resumed_until_pts_s
        return sighting.announced and pts_s - sighting.seen_pts_s >= self._context.config.linger_s

    def _lose(self, sighting: Sighting) -> None:
        sighting.lost = True
        if sighting.detections < self._context.min_detections and not sighting.announced:
            self._context.observer.track_ended(self.camera_id, "too_short")
            if recorder := self._context.recorder:
                faces = sighting.account.faces
                recorder.rejected(self.camera_id, sighting.seen_at, "too_short", tracks=1, faces=faces)
            return
        if not sighting.announced and (gone := self._same_person_gone(sighting)):
            self._join(gone, sighting)
            gone.seen_at, gone.seen_pts_s, gone.box = sighting.seen_at, sighting.seen_pts_s, sighting.box
            gone.template_changed = True
            gone.resumed_until_pts_s = None
            return
        sighting.expect_no_more()
        self._lingering.append(sighting)

    def _same_person_gone(self, sighting: Sighting) -> Sighting | None:
        """The sighting that was seen last before this one began and shows the same person: by the name, else the one
        whose faces are most similar, if they are similar enough, else by the place."""
        earlier = [
            gone
            for gone in (*self._by_track.values(), *self._lingering)
            if gone is not sighting
            and gone.seen_pts_s <= sighting.started_pts_s
            and not sighting.is_another_than(gone)
            and (gone.announced or gone.resumed_until_pts_s is not None)
        ]
        if sighting.identity_id:
            same = [gone for gone in earlier if gone.identity_id == sighting.identity_id]
        elif sighting.template.count:
            least = same_visit_threshold(self.threshold)
            nearest = max(earlier, key=lambda gone: gone.likeness(sighting), default=None)
            return nearest if nearest and nearest.likeness(sighting) >= least else None
        else:
            same = [gone for gone in earlier if gone.seems_in_place(sighting)]
        return max(same, key=lambda gone: gone.seen_pts_s, default=None)

    def _continue(self, gone: Sighting, sighting: Sighting, track_id: int) -> None:
        """Lets the sighting ``gone`` go on with the track of ``sighting``."""
        self._join(gone, sighting)
        gone.template_changed = True
        gone.match = sighting.match or gone.match
        gone.candidate = sighting.candidate or gone.candidate
        gone.lost = False
        gone.resumed_until_pts_s = None
        gone.box, gone.frame_size = sighting.box, sighting.frame_size
        gone.seen_at, gone.seen_pts_s = sighting.seen_at, sighting.seen_pts_s
        gone.embedded_pts_s, gone.embedded_area_px = sighting.embedded_pts_s, sighting.embedded_area_px
        if gone in self._lingering:
            self._lingering.remove(gone)
        else:
            # Its own track is lost for too short a time to be given up, as after a cut.
            self._by_track = {key: value for key, value in self._by_track.items() if value is not gone}
        self._by_track[track_id] = gone

    def _join(self, gone: Sighting, sighting: Sighting) -> None:
        """Adds what was learnt in ``sighting`` to ``gone``: they are one, seen on two tracks."""
        gone.template.merge(sighting.template)
        gone.account.merge(sighting.account, sighting.track_id)
        gone.together |= sighting.together
        gone.zones |= sighting.zones
        for other in (*self._by_track.values(), *self._lingering):
            if sighting.sighting_id in other.together:
                other.together.add(gone.sighting_id)
        if self._context.evidence:
            self._context.evidence.joined(gone.sighting_id, sighting.sighting_id)
        self._context.observer.track_ended(self.camera_id, "continued")

    def _announce(self, sighting: Sighting) -> list[Event]:
        return self._announcer.announce(sighting, self._by_track.values())
