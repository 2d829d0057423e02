"""The strangers that a worker has seen, from its history: how similar are they to the people of a gallery?

The history holds the sightings that were given no name. Two things are known to be wrong with them as a sample of
strangers. Strangers who reached the threshold of their day bear a name, so that the highest similarities are missing:
what lies above is filled in, as the part below the threshold lets expect it. And some of those without a
name are enrolled people whom the worker did not recognise: they make the rate look too high, never too low.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from worker.errors import SourceError
from worker.evaluation.calibration import Target, rate_of
from worker.evaluation.false_matches import NonMatedScores, strangers_against_gallery
from worker.evaluation.promise import CalibrationSet, calibration_set
from worker.gallery.gallery import Gallery
from worker.history.records import EmbedderId, PastSighting
from worker.types import Embeddings

_FEWEST_PEOPLE: Final = 100
_DAY_S: Final = 86_400.0

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PastStrangers:
    """Sightings without a name, as probes of strangers.

    ``similarities`` float64 (n,) are those to the nearest person of the gallery as it is now; ``people`` int64 (n,)
    says which are of one unknown person; ``limits`` float64 (n,) are the thresholds of their verdicts; ``cameras`` name
    where each was seen. ``days`` is the time from the first to the last of them.
    """

    similarities: Floats
    people: Indices
    limits: Floats
    cameras: tuple[str, ...]
    days: float

    def __len__(self) -> int:
        return len(self.similarities)

    @property
    def per_camera_and_day(self) -> float:
        """How many strangers pass a camera in a day."""
        return len(self) / max(self.days, 1.0) / max(len(set(self.cameras)), 1)

    def of_camera(self, camera_id: str) -> "PastStrangers":
        """Those of one camera."""
        rows = np.array([camera == camera_id for camera in self.cameras], bool)
        _, people = np.unique(self.people[rows], return_inverse=True)
        cameras = (camera_id,) * int(rows.sum())
        return PastStrangers(self.similarities[rows], people.astype(np.int64), self.limits[rows], cameras, self.days)


def past_strangers(sightings: Sequence[PastSighting], gallery: Gallery, *, min_embeddings: int = 2) -> PastStrangers:
    """The sightings without a name whose template the model of ``gallery`` made, from ``min_embeddings`` faces or more.

    Raises:
        SourceError: there is no such sighting.
    """
    embedder = EmbedderId(gallery.model_id, gallery.preprocessing_digest)
    unknown = [
        sighting
        for sighting in sightings
        if not sighting.identity_id and sighting.embedder == embedder and sighting.embedded_faces >= min_embeddings
    ]
    templates = [sighting.template for sighting in unknown if sighting.template is not None]
    unknown = [sighting for sighting in unknown if sighting.template is not None]
    if not unknown:
        raise SourceError(
            f"the history holds no sighting of an unknown person that {gallery.model_id} has embedded: "
            "let the worker run for some days first"
        )
    found = gallery.search(Embeddings(np.stack(templates).astype(np.float32), gallery.model_id))
    who = [sighting.unknown_id or sighting.sighting_id for sighting in unknown]
    _, people = np.unique(who, return_inverse=True)
    limits = [1.0 if (seen := sighting.account.threshold) is None else seen for sighting in unknown]
    times = [sighting.started_at.timestamp() for sighting in unknown]
    return PastStrangers(
        np.array([candidate.similarity for candidate in found], np.float64),
        people.astype(np.int64),
        np.array(limits, np.float64),
        tuple(sighting.camera_id for sighting in unknown),
        (max(times) - min(times)) / _DAY_S,
    )


def completed(strangers: PastStrangers) -> NonMatedScores:
    """Their similarities with the tail that the verdicts have cut off, as probes that all count the same.

    The similarity to the nearest of many people is taken for an extreme value: a Gumbel distribution, whose tail falls
    exponentially. It is fitted to what lies below the lowest threshold that was in force.

    Raises:
        SourceError: too few of them show how the tail falls.
    """
    limit = float(strangers.limits.min())
    seen = strangers.similarities < limit
    similarities, people = strangers.similarities[seen], strangers.people[seen]
    if len(np.unique(people)) < _FEWEST_PEOPLE:
        raise SourceError(
            f"{len(strangers)} sightings of unknown people are too few to tell a rate: those of about "
            f"{_FEWEST_PEOPLE} people are needed"
        )
    place, scale = _extreme_values(similarities, limit)
    beyond = float(stats.gumbel_r.sf(limit, place, scale))
    filled = max(1, int(np.ceil(len(similarities) * beyond / (1 - beyond))))
    tail = stats.gumbel_r.isf(beyond * (np.arange(filled) + 0.5) / filled, place, scale).clip(max=1.0)
    _, numbers = np.unique(people, return_inverse=True)
    return strangers_against_gallery(
        np.concatenate([similarities, tail]),
        np.concatenate([numbers, numbers.max() + 1 + np.arange(filled)]).astype(np.int64),
    )


def _extreme_values(values: Floats, limit: float) -> tuple[float, float]:
    """The place and the scale of the Gumbel distribution that is likeliest to give ``values`` below ``limit``."""
    spread = max(float(values.std()), 1e-3)

    def unlikeliness(parameters: Floats) -> float:
        place, scale = float(parameters[0]), float(np.exp(parameters[1]))
        fits = stats.gumbel_r.logpdf(values, place, scale).sum()
        return -float(fits - len(values) * stats.gumbel_r.logcdf(limit, place, scale))

    begin = np.array([float(values.mean()) - 0.45 * spread, float(np.log(0.78 * spread))])
    place, log_scale = optimize.minimize(unlikeliness, begin, method="Nelder-Mead").x
    return float(place), float(np.exp(log_scale))


def set_of_history(strangers: PastStrangers, target: Target, *, must_decide: bool) -> CalibrationSet:
    """The evidence of ``strangers``; see :func:`worker.evaluation.promise.calibration_set`.

    Raises:
        SourceError: too few of them show how the tail falls.
        UnsupportedTargetError: they must decide, and cannot support the target.
    """
    scores = completed(strangers)
    filled = scores.people - len(np.unique(strangers.people[strangers.similarities < strangers.limits.min()]))
    who = (
        f"sightings against this gallery ({scores.people - filled:,} without a name, some of which may be known people "
        f"who were not recognised, and {filled:,} that are computed for those that a name has hidden)"
    )
    return calibration_set("history", scores, target, who=who, must_decide=must_decide)


def rates_by_camera(strangers: PastStrangers | None, threshold: float) -> dict[str, dict[str, Any]]:
    """For each camera, as JSON values: how many sightings without a name, and the share that reaches ``threshold``.

    The share is None where too few were seen to tell. Without ``strangers`` there is no camera.
    """
    found: dict[str, dict[str, Any]] = {}
    if strangers is None:
        return found
    for camera_id in sorted(set(strangers.cameras)):
        own = strangers.of_camera(camera_id)
        try:
            rate = rate_of(completed(own), threshold)
        except SourceError:
            found[camera_id] = {"sightings": len(own), "fpir": None, "fpir_at_most_95": None}
            continue
        found[camera_id] = {
            "sightings": len(own), "fpir": float(f"{rate.value:.6g}"), "fpir_at_most_95": float(f"{rate.at_most:.6g}"),
        }  # fmt: skip
    return found
