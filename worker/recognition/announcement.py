"""What the world is told of a sighting: its events, its place in the history, the id of an unknown person."""

from collections.abc import Iterable

from worker.events.codec import encode, event_id
from worker.faces.quality import smallest_face_px
from worker.history.records import PastSighting
from worker.recognition.sighting import RecognitionContext, Sighting
from worker.recognition.unknowns import Going, unknown_id_of
from worker.types import Event, EventType

NOT_ENROLLED = frozenset({"below_threshold", "empty_gallery", "denied"})
"""Outcomes that say that the person is not enrolled; any other leaves it open."""


class Announcer:
    """Speaks for the sightings of one camera."""

    def __init__(self, camera_id: str, context: RecognitionContext, *, threshold: float, epoch: int) -> None:
        self._camera_id = camera_id
        self._context = context
        self._threshold = threshold
        self._epoch = epoch

    def adjust(self, context: RecognitionContext, threshold: float) -> None:
        """Goes by other rules from now on."""
        self._context, self._threshold = context, threshold

    def announce(self, sighting: Sighting, present: Iterable[Sighting]) -> list[Event]:
        """The event that is due, if any; ``present`` are those in front of the camera."""
        self._tell_apart(sighting, present)
        if not sighting.announced:
            kind: EventType = "started"
        elif sighting.announced_identity != sighting.identity_id:
            kind = "updated"
        else:
            return []
        sighting.announced_identity = sighting.identity_id
        return [self._event(sighting, kind)]

    def end(self, sighting: Sighting) -> list[Event]:
        """The person has left."""
        self._context.observer.track_ended(self._camera_id, sighting.outcome)
        self._conclude(sighting)
        event = self._event(sighting, "ended")
        if event.similarity is not None:
            self._context.observer.verdict(
                self._camera_id, named=bool(event.identity_id), similarity=event.similarity, margin=event.margin
            )
        self._remember(sighting, event)
        return [event]

    def _tell_apart(self, sighting: Sighting, present: Iterable[Sighting]) -> None:
        """Gives an unknown person an id as soon as there are faces enough to tell them by. Takes it back from a person
        who is known after all."""
        unknowns = self._context.unknowns
        if unknowns is None:
            return
        if sighting.identity_id:
            own_id = unknown_id_of(sighting.sighting_id)
            if sighting.unknown_id in {"", own_id}:
                unknowns.retract(own_id)
            sighting.unknown_id = ""
        elif (
            not sighting.unknown_id
            and sighting.outcome in NOT_ENROLLED
            and sighting.template.count >= self._context.config.min_embeddings
        ):
            sighting.unknown_id = unknowns.identify(
                sighting.sighting_id,
                sighting.template.vector,
                sighting.template.count,
                sighting.seen_at,
                threshold=self._threshold,
                beside=[_going(other) for other in present if other.unknown_id],
            )

    def _conclude(self, sighting: Sighting) -> None:
        """Gives an unknown person the id for which the database is still asked."""
        unknowns, template = self._context.unknowns, sighting.template
        if unknowns is not None and not sighting.unknown_id and not sighting.identity_id and template.count:
            sighting.unknown_id = unknowns.conclude(
                sighting.sighting_id, template.vector, template.count, sighting.seen_at
            )

    def _remember(self, sighting: Sighting, event: Event) -> None:
        context = self._context
        template = sighting.template.vector if sighting.template.count else None
        if context.unknowns is not None and event.unknown_id and template is not None:
            is_new = event.unknown_id == unknown_id_of(sighting.sighting_id)
            context.unknowns.met(event.unknown_id, template, sighting.template.count, sighting.seen_at, is_new=is_new)
        if context.recorder is None:
            return
        sighting.account.least_px = smallest_face_px(context.config.min_quality)
        sighting.account.conclude(sighting.candidate, sighting.match, self._threshold, sighting.outcome)
        context.recorder.sighting(
            PastSighting(
                sighting_id=sighting.sighting_id,
                camera_id=self._camera_id,
                started_at=sighting.started_at,
                ended_at=sighting.seen_at,
                identity_id=event.identity_id,
                identity_name=event.identity_name,
                unknown_id=event.unknown_id,
                embedder=context.embedder,
                template=template,
                embedded_faces=sighting.template.count,
                quality=event.quality,
                event=encode(event),
                account=sighting.account,
            )
        )

    def _event(self, sighting: Sighting, kind: EventType) -> Event:
        match, unknowns = sighting.match, self._context.unknowns
        known = match is not None and match.similarity > -1.0
        event = Event(
            event_id=event_id(
                sighting.sighting_id, kind, sighting.transitions, sighting.identity_id, sighting.last_event_id
            ),
            type=kind,
            camera_id=self._camera_id,
            track_id=sighting.track_id,
            sighting_id=sighting.sighting_id,
            identity_id=sighting.identity_id,
            identity_name=match.identity_name if match and match.identity_id else "",
            similarity=match.similarity if match and known else None,
            threshold=match.threshold if match and match.threshold_group else self._threshold,
            margin=match.margin if match and known and match.runner_up > -1.0 else None,
            quality=sighting.template.best_quality if sighting.template.count else None,
            box=sighting.box,
            frame_size=sighting.frame_size,
            captured_at=sighting.seen_at,
            started_at=sighting.started_at,
            ended_at=sighting.seen_at if kind == "ended" else None,
            pts_s=sighting.seen_pts_s,
            model_id=self._context.model_id,
            gallery_version=match.gallery_version if match else 0,
            worker_id=self._context.worker_id,
            epoch=self._epoch,
            # The sighting keeps the id that it was given: what people say of the two may be undone while it goes on.
            unknown_id=sighting.unknown_id if unknowns is None else unknowns.known_as(*_going(sighting)),
            embedded_faces=sighting.template.count,
            zones=",".join(sorted(sighting.zones)),
            groups=",".join(match.groups) if match else "",
        )
        sighting.transitions += 1
        sighting.last_event_id = event.event_id
        return event


def _going(sighting: Sighting) -> Going:
    return sighting.unknown_id, sighting.started_at, sighting.template.vector if sighting.template.count else None
