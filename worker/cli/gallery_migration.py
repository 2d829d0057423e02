"""``facestream gallery re-embed / switch / roll-back``: another model, without downtime."""

from pathlib import Path
from typing import Annotated

import typer

from worker.cli.options import (
    AsJson,
    EngineName,
    GalleryPath,
    ModelsDir,
    gallery_key,
    open_crops,
    open_embedder,
    open_gallery,
    photo_detector,
    quiet_logs,
)
from worker.cli.screen import Document, count_of, people_of, print_json, progress_bar, say
from worker.errors import GalleryError

AcceptDifferences = Annotated[
    bool, typer.Option("--accept-differences", help="Even if the two galleries do not hold the same people.")
]


def register(group: typer.Typer) -> None:
    """Adds these commands to the group ``facestream gallery``."""
    group.command("re-embed")(re_embed)
    group.command("switch")(switch)
    group.command("roll-back")(roll_back)


def re_embed(
    gallery: GalleryPath,
    output: Annotated[str, typer.Option("--output", metavar="NEW", help="Folder of the new gallery.")],
    model: Annotated[str, typer.Option("--model", metavar="ID_OR_MANIFEST", help="The new model.")],
    photos: Annotated[
        Path | None, typer.Option("--photos", help="Folder of the photos, for samples whose crop was not kept.")
    ] = None,
    models_dir: ModelsDir = None,
    engine: EngineName = "auto",
    json_output: AsJson = False,
) -> int:
    """Embed everybody with another model, from kept crops or photos; says who must be enrolled again.

    A run that was interrupted goes on where it stopped.
    """
    quiet_logs()
    from worker.gallery import opening, re_embedding
    from worker.gallery.crops import CropStore

    old = open_gallery(gallery)
    crops = open_crops(old)
    keeps = crops is not None and crops.exists
    if photos is None and not keeps:
        raise GalleryError(
            f"gallery {old.label} keeps no crops: give the folder of the photos with --photos, or enroll them anew"
        )
    embedder = open_embedder(model, models_dir, engine)
    new = (
        open_gallery(output)
        if opening.gallery_exists(output)
        else opening.create_gallery(output, embedder.model_id, embedder.preprocessing_digest, embedder.dimension)
    )
    with progress_bar("embedding samples", old.sample_count) as advance:
        result = re_embedding.re_embed(
            old, new, embedder,
            crops=crops,
            new_crops=CropStore(output, gallery_key()) if keeps and new.folder else None,
            photos=photos,
            detector=photo_detector(engine=engine) if photos else None,
            advance=advance,
        )  # fmt: skip
    document = {
        "people": result.people,
        "samples": result.samples,
        "enroll_again": [person.name for person in result.missing],
        "lost_samples": {person.name: count for person, count in result.partial},
        "model_id": embedder.model_id,
    }
    if json_output:
        print_json(document)
    else:
        _print_result(document, new.label)
    return 0 if result.samples else 1


def switch(
    gallery: GalleryPath,
    to: Annotated[str, typer.Option("--to", metavar="NEW", help="The gallery that takes its place.")],
    accept_differences: AcceptDifferences = False,
) -> None:
    """Let a gallery hold what another one holds, at once; running workers take up the new model by themselves."""
    quiet_logs()
    from worker.gallery import opening

    before = open_gallery(gallery).is_calibrated
    accept = opening.difference(gallery, to) if accept_differences else None
    version = opening.switch(gallery, to, accept=accept)
    _tell_version(gallery, version, "switched", before)


def roll_back(gallery: GalleryPath, accept_differences: AcceptDifferences = False) -> None:
    """Undo the last switch."""
    quiet_logs()
    from worker.gallery import opening

    before = open_gallery(gallery).is_calibrated
    previous = opening.previous_of(gallery)
    accept = opening.difference(gallery, previous) if accept_differences else None
    version = opening.roll_back(gallery, accept=accept)
    _tell_version(gallery, version, "rolled back", before)


def _tell_version(gallery: str, version: int, what: str, calibrated_before: bool) -> None:
    opened = open_gallery(gallery)
    say(f"{what}: {opened.label} is now version {version}, model {opened.model_id}, {people_of(len(opened))}")
    if calibrated_before and not opened.is_calibrated:
        say("its threshold is not calibrated, but the one before was: run 'facestream calibrate'", err=True)


def _print_result(document: Document, output: str) -> None:
    for name in document["enroll_again"]:
        say(f"{name}: nothing to embed: must be enrolled again")
    for name, count in document["lost_samples"].items():
        say(f"{name}: {count_of(count, 'sample')} could not be embedded; the others were")
    say(
        f"{count_of(document['samples'], 'sample')} of {people_of(document['people'])} embedded with "
        f"{document['model_id']} in {output}; {people_of(len(document['enroll_again']))} must be enrolled again"
    )
