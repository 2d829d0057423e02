"""\"That was not Anna\": what becomes of a past sighting that named the wrong person, in two steps.

First the event is made, then it is delivered, and only then the history notes the correction. So what fails in the
middle may be repeated: the event has the same id.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from worker.config import Config
from worker.errors import HistoryError, HistoryUnavailableError, SinkError
from worker.gallery.gallery import Gallery
from worker.history.records import PastSighting, UnknownPerson
from worker.history.reuniting import Moved
from worker.history.store import History
from worker.recognition.unknowns import Unknowns, correction, made_with, unknown_id_of
from worker.types import Event

_DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Correction:
    """Of ``sighting``: ``event`` tells the new verdict. ``new_unknown`` is set if the person has not been met before.

    ``caveat`` says why the face may be given that name again; empty where it is a counter-example from now on.
    ``names``: it named nobody before.
    """

    sighting: PastSighting
    event: Event
    undoes: bool = False
    new_unknown: UnknownPerson | None = None
    caveat: str = ""
    names: bool = False


class Reunions:
    """Tells the readers of events of sightings whose unknown person has another id than was told; see
    :mod:`worker.history.reuniting`."""

    def __init__(self) -> None:
        self._publish: Callable[[Sequence[Event]], None] | None = None

    def publish_by(self, publish: Callable[[Sequence[Event]], None]) -> None:
        """``publish`` keeps the events behind all that were told before, or raises a SinkError."""
        self._publish = publish

    def __call__(self, moved: Moved) -> None:
        """Raises HistoryUnavailableError: they cannot be told now; try again later."""
        events = [correction(sighting, None, unknown_id=unknown_id) for sighting, unknown_id in moved]
        if self._publish is None:
            raise HistoryUnavailableError("the id of an unknown person cannot be corrected before the worker has begun")
        try:
            self._publish(events)
        except SinkError as error:
            raise HistoryUnavailableError(f"the id of an unknown person cannot be corrected yet: {error}") from None


def correct(
    sighting: PastSighting, person: str | None, history: History, gallery: Gallery, config: Config
) -> Correction:
    """``sighting`` does not show the person whom it names, but ``person`` (id or name) or, with None, somebody unknown.

    A sighting that names nobody may be given the name of ``person``, unless it shows somebody who has an unknown id.

    Raises:
        HistoryError: it names the same person; or nobody, and cannot be given this name.
        GalleryError: nobody is called ``person``.
    """
    if not sighting.identity_id:
        if person is None or sighting.unknown_id:
            raise HistoryError(f"sighting {sighting.sighting_id} names nobody: {_what_instead(sighting)}")
        known = gallery.person(person)
        return Correction(
            sighting, correction(sighting, gallery, identity_id=known.identity_id, name=known.name), names=True,
            caveat="it named nobody before",
        )  # fmt: skip
    caveat = _caveat(sighting, gallery)
    if person is not None:
        known = gallery.person(person)
        if known.identity_id == sighting.identity_id:
            raise HistoryError(f"sighting {sighting.sighting_id} is {known.name} already")
        event = correction(sighting, gallery, identity_id=known.identity_id, name=known.name)
        return Correction(sighting, event, caveat=caveat)
    unknown_id, new = _unknown(sighting, history, gallery, config)
    return Correction(sighting, correction(sighting, gallery, unknown_id=unknown_id), new_unknown=new, caveat=caveat)


def undo(sighting: PastSighting, gallery: Gallery) -> Correction:
    """Takes the last correction of ``sighting`` back.

    Raises:
        HistoryError: there is none, or something has been done since that it cannot take back.
    """
    if not sighting.denials:
        raise HistoryError(f"sighting {sighting.sighting_id} has not been corrected: there is nothing to undo")
    denial = sighting.denials[-1]
    if sighting.identity_id != denial.given_id:
        raise HistoryError(
            f"sighting {sighting.sighting_id} was given the name {sighting.identity_name} after that; "
            "'facestream correct' without --undo says whom it shows"
        )
    if not denial.identity_id or not gallery.knows(denial.identity_id):
        raise HistoryError(
            f"sighting {sighting.sighting_id} named somebody who has been removed from the gallery since: "
            "the correction stays"
        )
    name = gallery.person(denial.identity_id).name
    event = correction(sighting, gallery, identity_id=denial.identity_id, name=name)
    return Correction(sighting, event, undoes=True)


def settle(correction: Correction, history: History, config: Config) -> None:
    """Notes in ``history`` what was corrected, once the event is delivered.

    Raises:
        HistoryError: the sighting was changed meanwhile, or the file cannot be written.
    """
    sighting, event = correction.sighting, correction.event
    if correction.undoes:
        history.take_back(sighting, event.identity_name)
        _retract(sighting, history)
        return
    if correction.names:
        history.give_name(sighting, event.identity_id, event.identity_name)
        return
    if correction.new_unknown is not None:
        history.write(
            unknowns=[correction.new_unknown],
            keep_s=config.history.keep_days * _DAY_S,
            remember_s=config.unknowns.remember_days * _DAY_S,
        )
    history.deny(
        sighting,
        identity_id=event.identity_id,
        identity_name=event.identity_name,
        unknown_id=event.unknown_id,
        link=not correction.caveat,
    )


def _what_instead(sighting: PastSighting) -> str:
    if sighting.denials:
        return "it was corrected before; 'facestream correct --undo' takes that back"
    if sighting.unknown_id:
        return f"'facestream unknown enroll {sighting.unknown_id} --name NAME' gives the person a name"
    return "there is no name to correct; 'facestream correct --person NAME' says who it is"


def _caveat(sighting: PastSighting, gallery: Gallery) -> str:
    if not gallery.knows(sighting.identity_id):
        return f"{sighting.identity_name} is not in the gallery any more"
    if sighting.template is None:
        return "no face of that sighting is remembered"
    if sighting.embedder != made_with(gallery):
        return (
            f"that sighting was seen with the model {sighting.embedder.model_id}, the gallery is of {gallery.model_id}"
        )
    return ""


def _unknown(
    sighting: PastSighting, history: History, gallery: Gallery, config: Config
) -> tuple[str, UnknownPerson | None]:
    """The id of the unknown person whom ``sighting`` shows; and the person, if not met before."""
    template = sighting.template
    if template is None or not config.unknowns.enabled:
        return "", None
    at = sighting.ended_at
    threshold = float(sighting.event["threshold"])
    if sighting.account.threshold_group and (common := gallery.threshold_of(sighting.camera_id)) is not None:
        threshold = common  # that of a group is about its people, and not about strangers
    beside = history.sightings(since=sighting.started_at, until=at, camera_id=sighting.camera_id)
    unknowns = Unknowns(config.unknowns, sighting.embedder, len(template), history=history)
    key = _key(sighting, sighting.corrections)
    unknown_id = unknowns.identify(
        key,
        template,
        sighting.embedded_faces,
        at,
        threshold=threshold,
        taken={other.unknown_id for other in beside if other.unknown_id},
    )
    if unknown_id != unknown_id_of(key):
        return unknown_id, None
    return unknown_id, UnknownPerson(unknown_id, sighting.embedder, template, sighting.embedded_faces, at, at)


def _key(sighting: PastSighting, corrections: int) -> str:
    """What the id of an unknown person is made from: another one for each correction, as what is forgotten stays so."""
    return f"{sighting.sighting_id}#{corrections}" if corrections else sighting.sighting_id


def _retract(sighting: PastSighting, history: History) -> None:
    """Forgets the unknown person whom a correction that was taken back has made, unless they were met again."""
    made = {unknown_id_of(_key(sighting, number)) for number in range(sighting.corrections)}
    if sighting.unknown_id in made and not history.sightings(unknown_id=sighting.unknown_id):
        history.drop_unknown(sighting.unknown_id)
