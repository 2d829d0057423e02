"""Why somebody was recognised or not, in words."""

from collections.abc import Sequence
from typing import Final

from worker.history.account import Account
from worker.history.store import PastSighting, Tally

_FACES: Final = {
    "too_small": "too small",
    "blurred": "blurred",
    "pose": "turned away",
    "exposure": "too dark, too bright or too flat",
    "low_score": "hardly recognised as a face",
    "low_start_score": "below the detection score that starts a track",
    "too_short": "seen too few times to count as a person",
}
_VERDICTS: Final = {
    "matched": "matched",
    "below_threshold": "below threshold",
    "ambiguous": "ambiguous: the two are too close to each other",
    "improbable": "the classifier was not sure enough",
    "not_enough_evidence": "not enough faces to tell",
    "empty_gallery": "nobody is enrolled",
    "identity_taken": "somebody else in the picture is nearer to that person, who cannot be there twice",
}


def explain(sighting: PastSighting) -> str:
    """One sentence: what happened to the faces of a sighting, whom they were nearest to, and the verdict."""
    account = sighting.account
    parts = [_faces(account), _embedded(account)]
    if account.similarity is not None and account.threshold is not None:
        runner_up = ""
        if account.runner_up_similarity is not None:
            runner_up = f", runner-up {account.runner_up} {account.runner_up_similarity:.2f}"
        parts.append(
            f"nearest was {account.nearest} at {account.similarity:.2f} (threshold {account.threshold:.2f}{runner_up})"
            f": {verdict(account.reason)}{_moment(account.similarity - account.threshold, account.reason)}"
        )
    else:
        parts.append(verdict(account.reason))
    if sighting.corrections:
        parts.append(f"named {sighting.identity_name} afterwards")
    elif sighting.unknown_id:
        parts.append(f"remembered as {sighting.unknown_id}")
    return "; ".join(part for part in parts if part)


def verdict(reason: str) -> str:
    """A reason as people would say it."""
    if reason in _FACES:
        return f"no face was good enough: {_FACES[reason]}"
    return _VERDICTS.get(reason, reason)


def _moment(above: float, reason: str) -> str:
    """Which moment a verdict is of that the two numbers, rounded as they are shown, seem to contradict."""
    if reason == "below_threshold" and above >= 0:
        return ", by the threshold that was in force when it was decided; the numbers are those of the end"
    if reason == "matched" and above < 0:
        return ", at a higher similarity before; a name is kept until it is clearly below the threshold"
    return ""


def explain_rest(tallies: Sequence[Tally]) -> list[str]:
    """One sentence for each camera and reason: faces and tracks that never became a sighting."""
    sums: dict[tuple[str, str], tuple[int, int]] = {}
    for tally in tallies:
        tracks, faces = sums.get((tally.camera_id, tally.reason), (0, 0))
        sums[tally.camera_id, tally.reason] = tracks + tally.tracks, faces + tally.faces
    return [
        f"{camera_id}: {_count(tracks, 'track') + ' of ' if tracks else ''}{_count(faces, 'face')} never became a "
        f"sighting: {_FACES.get(reason, reason)}"
        for (camera_id, reason), (tracks, faces) in sorted(sums.items())
    ]


def _faces(account: Account) -> str:
    refused = []
    for reason, count in account.rejected.most_common():
        limit = ""
        if reason == "too_small":
            limit = f" (min {account.least_px:.0f} px; the largest face had {account.largest_px:.0f})"
        refused.append(f"{count} {_FACES.get(reason, reason)}{limit}")
    seen = "seen once" if account.faces == 1 else f"seen {account.faces} times"
    return f"{seen}; {', '.join(refused)}" if refused else seen


def _embedded(account: Account) -> str:
    text = f"{account.embedded} embedded"
    if (rest := account.faces - account.embedded - account.rejected.total()) > 0:
        text += f" ({rest} were not needed)"
    if account.continued_by:
        tracks = ", ".join(str(track) for track in account.continued_by)
        text += f"; went on with track {tracks}, the same person"
    return text


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
