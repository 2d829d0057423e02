"""How good a classifier is on photos that it was not trained with: figures, a table, pictures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worker.files import writing
from worker.training.dataset import Photo
from worker.training.rejection import Limits
from worker.types import Candidate

CONFIDENT: Final = 0.9
"""From this probability on an answer passes for sure of itself, whatever the limits are."""
_LEFT_OUT_SHOWN: Final = 50


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said of one photo; without a ``candidate``, ``problem`` says why."""

    photo: Photo
    candidate: Candidate | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The answers to photos of known people and of strangers.

    ``confusion`` int64 (k, k + 2): who was shown, and what was said of them: a person's name, no name, or nothing
    because no face was found.
    """

    people: tuple[str, ...]
    confusion: NDArray[np.int64]
    report: dict[str, Any]


def judge(answers: Sequence[Answer], people: tuple[str, ...], limits: Limits) -> Judgement:
    """Counts a photo without a face as an error, as is a known person who gets no name."""
    number = {name: row for row, name in enumerate(people)}
    known = [answer for answer in answers if answer.photo.name in number]
    confusion = np.zeros((len(people), len(people) + 2), np.int64)
    first = 0
    for answer in known:
        row = number[answer.photo.name]
        first += answer.candidate is not None and answer.candidate.identity_name == answer.photo.name
        confusion[row, _column(answer, number, limits)] += 1
    strangers = [answer for answer in answers if answer.photo.name not in number]
    wrong = [answer for answer in known if _column(answer, number, limits) != number[answer.photo.name]]
    report = {
        "photos": len(known),
        "accuracy": _share(first, len(known)),
        "accuracy_with_rejection": _share(int(np.trace(confusion)), len(known)),
        "named_wrongly": int(confusion[:, : len(people)].sum() - np.trace(confusion)),
        "not_named": int(confusion[:, -2].sum()),
        "without_face": int(confusion[:, -1].sum()),
        "strangers": _strangers(strangers, limits),
        "per_person": [_person(name, confusion[row], row) for name, row in number.items()],
        "errors": [_error(answer, limits) for answer in wrong],
    }
    return Judgement(people, confusion, report)


def write_report(report: dict[str, Any], folder: Path) -> None:
    """Writes ``report.json`` and ``report.md``.

    Raises:
        OutputError: they cannot be written.
    """
    text = json.dumps(report, ensure_ascii=False, indent=2) + "\n"
    for name, content in (("report.json", text), ("report.md", markdown(report))):
        with writing(folder / name):
            (folder / name).write_text(content, encoding="utf-8")


def markdown(report: dict[str, Any]) -> str:
    """``report`` as a page."""
    photos, rejection = report["photos"], report["rejection"]
    lines = [
        f"# Classifier of {len(report['people'])} people ({report['kind']}, {report['model_id']})",
        "",
        f"Trained with {photos['train']} photos, seed {report['seed']}, in {report['duration_s']} s.",
        f"A face is named from probability {report['least_probability']:.3f} and cosine {report['threshold']:.3f} on.",
        _rejection_line(rejection),
        "",
    ]
    if validation := report.get("cross_validation"):
        lines += [_validation_line(validation), ""]
    if test := report.get("test"):
        lines += _test_lines(test)
    if left_out := report["left_out"]:
        lines += ["## Photos that were not used", "", "| photo | person | why |", "|---|---|---|"]
        for gone in left_out[:_LEFT_OUT_SHOWN]:
            why = f"{gone['reason']}: {gone['detail']}" if gone["detail"] else gone["reason"]
            lines.append(f"| {_cell(Path(gone['path']).name)} | {_cell(gone['name'])} | {_cell(why)} |")
        if len(left_out) > _LEFT_OUT_SHOWN:
            lines.append(f"| and {len(left_out) - _LEFT_OUT_SHOWN} more | | |")
        lines.append("")
    return "\n".join(lines)


def summary(report: dict[str, Any]) -> list[str]:
    """A few lines for a terminal."""
    photos = report["photos"]
    lines = [f"{len(report['people'])} people, {photos['train']} photos trained with, {report['duration_s']} s"]
    reasons: dict[str, int] = {}
    for gone in report["left_out"]:
        reasons[gone["reason"]] = reasons.get(gone["reason"], 0) + 1
    if reasons:
        lines.append("left out: " + ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items())))
    if validation := report.get("cross_validation"):
        lines.append(_validation_line(validation))
    if test := report.get("test"):
        if test["photos"]:
            lines.append(
                f"test: {test['accuracy']:.2%} of {test['photos']} photos right, {test['accuracy_with_rejection']:.2%} "
                f"once doubtful answers are refused; {test['named_wrongly']} named wrongly, "
                f"{test['not_named']} not named, {test['without_face']} without a face"
            )
        if strangers := test["strangers"]:
            lines.append(_strangers_line(strangers))
    return [*lines, _rejection_line(report["rejection"])]


def _column(answer: Answer, number: dict[str, int], limits: Limits) -> int:
    if answer.candidate is None:
        return len(number) + 1
    return number[answer.candidate.identity_name] if _named(answer.candidate, limits) else len(number)


def _named(candidate: Candidate, limits: Limits) -> bool:
    return (candidate.probability or 0.0) >= limits.probability and candidate.similarity >= limits.cosine


def _strangers(answers: Sequence[Answer], limits: Limits) -> dict[str, Any] | None:
    said = [answer.candidate for answer in answers if answer.candidate]
    if not answers:
        return None
    named = sum(_named(candidate, limits) for candidate in said)
    confident = sum((candidate.probability or 0.0) >= CONFIDENT for candidate in said)
    return {
        "people": len({answer.photo.name for answer in answers}),
        "photos": len(answers),
        "faces": len(said),
        "named": named,
        "rate": _share(named, len(said)),
        "probability_alone": _share(confident, len(said)),
    }


def _person(name: str, said: NDArray[np.int64], row: int) -> dict[str, Any]:
    photos, right = int(said.sum()), int(said[row])
    return {
        "name": name,
        "photos": photos,
        "right": right,
        "named_wrongly": int(said[:-2].sum()) - right,
        "not_named": int(said[-2]),
        "without_face": int(said[-1]),
        "accuracy": _share(right, photos),
    }


def _error(answer: Answer, limits: Limits) -> dict[str, Any]:
    candidate = answer.candidate
    if candidate is None:
        return {"path": str(answer.photo.path), "name": answer.photo.name, "said": answer.problem}
    return {
        "path": str(answer.photo.path),
        "name": answer.photo.name,
        "said": candidate.identity_name if _named(candidate, limits) else "unknown",
        "nearest": candidate.identity_name,
        "probability": round(candidate.probability or 0.0, 4),
        "similarity": round(candidate.similarity, 4),
    }


def _share(count: int, total: int) -> float | None:
    return round(count / total, 4) if total else None


def _rejection_line(rejection: dict[str, Any]) -> str:
    if not rejection["held_out_people"]:
        return "Too few people to hold some out: how often a stranger is given a name is not known."
    measured = rejection["strangers_named"]
    rate = (
        "too few strangers to say how often one is named"
        if measured is None
        else f"{measured:.2%} of their photos named"
    )
    return (
        f"Limits fitted on {rejection['held_out_people']} people held out in training: {rate}, under limits fitted "
        f"without them; {rejection['known_named_rightly']:.2%} of unseen photos of known people named rightly."
    )  # fmt: skip


def _validation_line(validation: dict[str, Any]) -> str:
    if validation["accuracy"] is None:
        return f"No cross-validation: {validation['problem']}."
    return (
        f"Cross-validation in {validation['folds']} parts: {validation['accuracy']:.2%} of {validation['photos']} "
        f"photos right ({validation['without_face']} without a face; {validation['accuracy_of_faces']:.2%} of faces, "
        f"± {validation['spread_of_folds']:.2%} between parts)."
    )


def _strangers_line(strangers: dict[str, Any]) -> str:
    if not strangers["faces"]:
        return f"strangers: no face in {strangers['photos']} photos"
    return (
        f"strangers: {strangers['named']} of {strangers['faces']} faces of {strangers['people']} people were named "
        f"({strangers['rate']:.2%}); by a probability of {CONFIDENT} alone it would be "
        f"{strangers['probability_alone']:.2%}"
    )  # fmt: skip


def _test_lines(test: dict[str, Any]) -> list[str]:
    lines = ["## Test", ""]
    if test["photos"]:
        lines += [
            f"Right: {test['accuracy']:.2%} of {test['photos']} photos by first choice.",
            f"Right once doubtful answers are refused: {test['accuracy_with_rejection']:.2%}.",
            "A photo without a face is an error.",
            "",
            "| person | photos | right | named wrongly | not named | no face | accuracy |",
            "|---|---|---|---|---|---|---|",
        ]
        for person in test["per_person"]:
            share = "" if person["accuracy"] is None else f"{person['accuracy']:.1%}"
            lines.append(
                f"| {_cell(person['name'])} | {person['photos']} | {person['right']} | {person['named_wrongly']} | "
                f"{person['not_named']} | {person['without_face']} | {share} |"
            )
        lines.append("")
    if test["strangers"]:
        lines += [_strangers_line(test["strangers"]).capitalize() + ".", ""]
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
