"""What a training writes to its folder: the network, the report as data and as a page, the faces as arrays."""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from worker.errors import ClassifierError, SinkError
from worker.files import draft_beside, open_private, replace_file
from worker.gallery.classifier import DESCRIPTION_FILE
from worker.training.answers import CONFIDENT
from worker.training.cnn import CHECKPOINT_FILE, ENLARGE
from worker.training.dataset import Embedded

FILES: Final = frozenset(
    {DESCRIPTION_FILE, CHECKPOINT_FILE, "report.json", "report.md", "confusion.png", "learning.png"}
)
"""The files that a training writes, besides those that are named after their digest."""
_LEFT_OUT_SHOWN: Final = 50


def write_report(report: dict[str, Any], folder: Path) -> None:
    """Writes ``report.json`` and ``report.md``.

    Raises:
        SinkError: they cannot be written.
    """
    try:
        text = json.dumps(report, ensure_ascii=False, indent=2) + "\n"
        (folder / "report.json").write_text(text, encoding="utf-8")
        (folder / "report.md").write_text(markdown(report), encoding="utf-8")
    except OSError as error:
        raise SinkError(f"cannot write the report to {folder}: {error.strerror or error}") from None


def markdown(report: dict[str, Any]) -> str:
    """The report as a page in Markdown."""
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
    """The report as a few lines for a terminal."""
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


def require_own_folder(output: Path) -> None:
    """Returns if the folder ``output`` is new, empty, or of an earlier training.

    Raises:
        ClassifierError: it is a file, or a folder that holds other things.
    """
    if output.exists() and not output.is_dir():
        raise ClassifierError(f"{output} is a file; a classifier is a folder")
    ours = ("arrays-", "cnn-", "checkpoint.npz", f"{DESCRIPTION_FILE}.")
    if output.is_dir():
        for entry in output.iterdir():
            if entry.name not in FILES and not entry.name.startswith(ours):
                raise ClassifierError(f"{output} holds other things ({entry.name}); choose another folder (--output)")


def write_network(output: Path, weights: dict[str, Any], threshold: float) -> Path:
    """Writes the arrays of a face network, and a manifest with which it is an embedder; returns the manifest's path.

    Raises:
        ClassifierError: they cannot be written.
    """
    from worker.faces.networks.face_cnn import DIMENSION, SIDE, write_weights
    from worker.faces.weights import sha256_of

    try:
        output.mkdir(parents=True, exist_ok=True)
        draft = draft_beside(output / "cnn.h5")
        write_weights(weights, draft)
        digest = sha256_of(draft)
        model_id = f"cnn-{digest[:12]}"
        draft.replace(output / f"{model_id}.h5")
        manifest = {
            "id": model_id,
            "description": "a face network trained with 'facestream train cnn'",
            "format": "h5",
            "network": "face_cnn",
            "files": [{"name": f"{model_id}.h5", "sha256": digest}],
            "licence": "that of the photos it was trained with",
            "source": "trained on this machine",
            "input": {"side": SIDE, "channel_order": "rgb", "layout": "nhwc"},
            "alignment": {"kind": "box", "enlarge": ENLARGE, "shorter_side": SIDE},
            "dimension": DIMENSION,
            "threshold": min(max(threshold, -0.99), 0.99),
            "threshold_fitted_on": "people held out of the training",
        }
        path = output / f"{model_id}.yaml"
        replace_file(path, yaml.safe_dump(manifest, sort_keys=False).encode())
    except OSError as error:
        raise ClassifierError(f"classifier {output} cannot be written: {error.strerror or error}") from None
    return path


def drop_old_networks(output: Path, model_id: str) -> None:
    """Removes the networks of earlier trainings: all except that of ``model_id``."""
    for old in output.glob("cnn-*"):
        if old.stem != model_id:
            old.unlink(missing_ok=True)


def write_npz(path: Path, trained: Embedded, tested: Embedded) -> None:
    """Writes the arrays ``train_faces``, ``train_embeddings``, ``train_names`` and those of ``test``, without pickle.

    Raises:
        SinkError: the file cannot be written.
    """
    arrays: dict[str, Any] = {}
    for name, found in (("train", trained), ("test", tested)):
        faces = np.concatenate(found.chips) if found.chips else np.empty((0, 0, 0, 3), np.uint8)
        names = np.array([photo.name for photo in found.photos], dtype=np.str_)
        arrays |= {f"{name}_faces": faces, f"{name}_embeddings": found.vectors, f"{name}_names": names}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_private(path) as file:
            np.savez_compressed(file, **arrays)
    except OSError as error:
        raise SinkError(f"cannot write {path}: {error.strerror or error}") from None
