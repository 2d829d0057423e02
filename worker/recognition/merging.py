"""Two enrolled people who are one: in the gallery, in the past, and for those who read the events.

The gallery comes first: it refuses what cannot be. What fails after that puts it back as it was.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from worker.config import RedisConfig
from worker.errors import FacestreamError, SinkError
from worker.events.publisher import publish_at_once
from worker.gallery.gallery import Gallery, Require
from worker.gallery.merging import Merger
from worker.history.records import PastMerger
from worker.history.store import History
from worker.recognition.unknowns import all_of, correction, publish_regrouping, take_name_back
from worker.redis.client import Client
from worker.types import Event


@dataclass(frozen=True, slots=True)
class Merged:
    """What was done: ``step`` takes it back; ``corrections`` are the events that told of it."""

    step: str
    merger: Merger
    corrections: tuple[Event, ...]


def merge(
    identity_id: str,
    other_id: str,
    history: History,
    gallery: Gallery,
    client: Client,
    config: RedisConfig,
    *,
    remember_s: float,
    require: Require,
) -> Merged:
    """Gives a person all that is of ``other_id``, who is the same person; past sightings are published as corrected. It
    can be undone for ``remember_s``, unless the database says otherwise. ``require`` as for :meth:`Gallery.merge`.

    Raises:
        GalleryError: they cannot be merged, or the gallery cannot be written.
        SinkError: Redis does not take the events, and nothing was changed.
        HistoryError: it cannot be written, and nothing was changed.
    """
    merger = gallery.merge(identity_id, other_id, require=require)
    with _or_back(lambda: gallery.part(merger)):
        name = gallery.person(identity_id).name
        seen = all_of(history, other_id)
        told = [correction(sighting, gallery, identity_id=identity_id, name=name) for sighting in seen]
        step = history.merge_people(
            merger.document(), name, [sighting.sighting_id for sighting in seen], lambda: _tell(told, client, config),
            remember_s=remember_s,
        )  # fmt: skip
    return Merged(step, merger, tuple(told))


def take_back(
    step: str, history: History, gallery: Callable[[], Gallery], client: Callable[[], Client], config: RedisConfig
) -> tuple[str, str]:
    """Takes back what was done in ``step``: a merge of two people, a name that an unknown person was given, or a merge
    or a split of unknown people. Returns whose sightings went back to whom. ``gallery`` is asked for in the first two
    cases alone. What is not in sight of ``history`` goes back with the rest.

    Raises:
        GalleryError: people cannot be taken apart, or the gallery cannot be written.
        SinkError: Redis does not take the events, and nothing was changed.
        HistoryError: there is no such step, it was undone meanwhile, others came after it, or it cannot be written.
    """
    everywhere = history.of_cameras(None)
    if (past := history.merger(step)) is not None:
        undo(past, everywhere, gallery(), client(), config)
        return past.identity_id, past.other_id
    if (naming := history.naming(step)) is not None:
        take_name_back(naming, everywhere, gallery(), client(), config)
        return naming.identity_id, naming.unknown_id
    return history.undo_regrouping(step, partial(publish_regrouping, client(), config))


def undo(past: PastMerger, history: History, gallery: Gallery, client: Client, config: RedisConfig) -> None:
    """Takes a merger back: the other person is there again, with the samples and the past sightings that are left of
    theirs, which are published as corrected. What was seen since stays with the person.

    Raises:
        GalleryError: it cannot be taken back, or the gallery cannot be written.
        SinkError: Redis does not take the events, and nothing was changed.
        HistoryError: it was undone meanwhile, others came after it, or it cannot be written.
    """
    history.require_last(past)
    gallery.part(Merger.of(past.told["merger"]))
    with _or_back(lambda: gallery.merge(past.identity_id, past.other_id)):
        theirs = set(past.sightings)
        back = [sighting for sighting in all_of(history, past.identity_id) if sighting.sighting_id in theirs]
        told = [correction(sighting, gallery, identity_id=past.other_id, name=past.other_name) for sighting in back]
        history.part_people(past, [sighting.sighting_id for sighting in back], lambda: _tell(told, client, config))


def _tell(events: Sequence[Event], client: Client, config: RedisConfig) -> None:
    if lost := publish_at_once(client, config, events):
        raise SinkError(
            f"{lost} of {len(events)} 'corrected' events could not be delivered, and nothing was changed; try again"
        )


@contextmanager
def _or_back(put_back: Callable[[], object]) -> Iterator[None]:
    try:
        yield
    except FacestreamError:
        put_back()
        raise
