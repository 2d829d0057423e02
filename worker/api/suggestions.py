"""Whom unknown people resemble, and what naming them risks."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from fastapi import APIRouter

from worker.api.access import Reader, SharedParts
from worker.api.documents import Risk
from worker.api.parts import Parts
from worker.api.unknown_documents import AlikeDocument, AlikePage, Suggestion
from worker.gallery.gallery import Gallery
from worker.history.records import UnknownPerson
from worker.types import Candidate

router = APIRouter(tags=["unknowns"])

_DAY_S: Final = 86_400.0
_ALIKE: Final = 0.75
"""Where nothing is known of strangers, a suggestion needs this share of the threshold."""


def suggest(
    parts: Parts, people: Sequence[UnknownPerson], gallery: Gallery, denied: Collection[tuple[str, str]]
) -> dict[str, list[Suggestion]]:
    """The nearest enrolled people of each of these, by unknown_id; not those whom people ``denied`` them to be, and
    nobody where another model has seen the person."""
    impostors = parts.impostors(gallery)
    return {
        unknown_id: [
            Suggestion(
                identity_id=identity_id,
                identity_name=name,
                similarity=round(similarity, 4),
                stranger_rate=impostors.rate_at(similarity) if impostors else None,
            )
            for identity_id, name, similarity in _nearest(candidate)
            if (unknown_id, identity_id) not in denied
        ]
        for unknown_id, candidate in parts.strangers.nearest(people, gallery)[0].items()
    }


def _nearest(candidate: Candidate) -> list[tuple[str, str, float]]:
    both = [
        (candidate.identity_id or "", candidate.identity_name, candidate.similarity),
        (candidate.runner_up_id, candidate.runner_up_name, candidate.runner_up),
    ]
    return [each for each in both if each[0]]


def alike(
    parts: Parts, seen: Mapping[str, Mapping[str, int]] | None = None, most: int | None = None
) -> tuple[list[AlikeDocument], bool]:
    """Unknown people who resemble the same person, and what it risks that they are taken for them; ``seen``: how often
    each camera saw each of them, if that is known already. And whether these are all: with ``most``, no more than so
    many are compared now, and the others in the background."""
    if not parts.has_gallery():
        return [], True
    gallery = parts.gallery()
    risk, impostors = risk_of(parts, gallery), parts.impostors(gallery)
    least = impostors.one_percent if impostors else _ALIKE * risk.threshold
    with parts.history() as history:
        people = [person for person in parts.strangers.look(history) if not person.is_ignored]
        seen, denied = history.seen_unknown() if seen is None else seen, history.denied_people()
    groups: dict[str, list[tuple[float, UnknownPerson, str]]] = {}
    nearest, is_all = parts.strangers.nearest(people, gallery, most)
    for person in people:
        candidate = nearest.get(person.unknown_id)
        if candidate is None or candidate.similarity < least:
            continue
        if (person.unknown_id, candidate.identity_id) not in denied:
            groups.setdefault(candidate.identity_id or "", []).append(
                (candidate.similarity, person, candidate.identity_name)
            )
    a_day = strangers_a_day(people)
    samples = Counter(sample.identity_id for sample in gallery.contents.samples)
    made = []
    for identity_id, group in groups.items():
        group.sort(key=lambda each: (-each[0], each[1].unknown_id))
        ids = [person.unknown_id for _, person, _ in group]
        taken = min((risk.false_match_rate or 0.0) * samples[identity_id], 1.0)
        made.append(
            AlikeDocument(
                identity_id=identity_id, identity_name=group[0][2], unknown_ids=ids,
                sightings=sum(sum(seen.get(unknown_id, {}).values()) for unknown_id in ids),
                least=round(group[-1][0], 4), most=round(group[0][0], 4),
                stranger_days=round(1 / (a_day * taken), 2) if a_day * taken > 0 else None,
            )
        )  # fmt: skip
    return sorted(made, key=lambda each: (-each.sightings, each.identity_name)), is_all


def strangers_a_day(people: Sequence[UnknownPerson]) -> float:
    """How many new unknown people came a day, since the first of those who are remembered."""
    if not people:
        return 0.0
    since_s = datetime.now(UTC).timestamp() - min(person.first_seen for person in people).timestamp()
    return len(people) / max(since_s / _DAY_S, 1.0)


def risk_of(parts: Parts, gallery: Gallery, threshold: float | None = None) -> Risk:
    """How often ``threshold``, or the one in use, is wrong, as far as the calibration or the model's own data say."""
    threshold = parts.threshold(gallery) if threshold is None else threshold
    made: dict[str, Any] = gallery.calibration.get("default") or {}
    impostors = parts.impostors(gallery)
    rate, strangers, origin = None, None, "nothing: calibrate the gallery to learn it"
    if made and gallery.threshold is not None and abs(threshold - gallery.threshold) < 1e-9:
        rate, strangers = made.get("fmr"), made.get("fpir")
        origin = "the calibration of this gallery"
    elif impostors is not None:
        rate, origin = impostors.rate_at(threshold), "pairs of people in the evidence of the model or the calibration"
    return Risk(
        threshold=round(threshold, 4), enrolled_samples=gallery.sample_count, is_calibrated=gallery.is_calibrated,
        false_match_rate=rate, stranger_rate=strangers, from_=origin,
    )  # fmt: skip


@router.get("/suggestions", operation_id="list_suggestions")
def list_suggestions(_caller: Reader, parts: SharedParts) -> AlikePage:
    """Unknown people who resemble the same enrolled person, and how often a stranger is taken for that person."""
    found, _ = alike(parts)
    parts.looked_up("unknown show", *(unknown_id for each in found for unknown_id in each.unknown_ids))
    return AlikePage(items=found)
