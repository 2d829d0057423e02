"""``facestream gallery``: who is known."""

from pathlib import Path
from typing import Annotated, Any

import typer

from worker.cli import audit, migrate
from worker.cli.common import AsJson, GalleryPath, WaitS, open_crops, open_gallery, print_json, quiet_logs

_app = typer.Typer(
    help="List, show, remove and rename the people of a gallery; audit and export it; give it another model.",
    no_args_is_help=True,
)
Who = Annotated[str, typer.Argument(help="Name or id of the person.")]
WAIT_S = 15.0


def register(app: typer.Typer) -> None:
    """Adds the commands to ``app``."""
    _app.command()(audit.audit)
    migrate.register(_app)
    app.add_typer(_app, name="gallery")


def _open(path: str) -> Any:
    quiet_logs()
    return open_gallery(path)


@_app.command("list")
def list_people(gallery: GalleryPath, json_output: AsJson = False) -> None:
    """The people, with how many samples each has."""
    opened = _open(gallery)
    people = opened.people()
    for person in people:
        if json_output:
            print_json(
                {"identity_id": person.identity_id, "identity_name": person.name, "samples": len(person.samples)}
            )
        else:
            samples = f"{len(person.samples):>4} sample{'' if len(person.samples) == 1 else 's'}"
            typer.echo(f"{person.name:<32}  {samples:<12}  {person.identity_id}")
    if not json_output:
        typer.echo(f"{len(people)} people, model {opened.model_id}, version {opened.version}")


@_app.command()
def show(who: Who, gallery: GalleryPath, json_output: AsJson = False) -> None:
    """One person: every sample, where it came from, how good it is."""
    person = _open(gallery).person(who)
    samples = [
        {"sample_id": s.sample_id, "photo": s.photo, "quality": round(s.quality, 3), "added_at": s.added_at}
        for s in person.samples
    ]
    if json_output:
        print_json({"identity_id": person.identity_id, "identity_name": person.name, "samples": samples})
        return
    typer.echo(f"{person.name}  {person.identity_id}")
    for sample in samples:
        typer.echo(
            f"  {sample['photo']:<40}  quality {sample['quality']:.2f}  {sample['added_at']}  {sample['sample_id']}"
        )


@_app.command()
def remove(who: Who, gallery: GalleryPath, wait_s: WaitS = WAIT_S) -> int:
    """Take a person out, with all samples and kept crops, also from the gallery that a switch has put aside.

    Of a shared gallery, says which workers have forgotten the person, and fails if one has not.
    """
    from worker.gallery.switching import remove_person

    opened = _open(gallery)
    person = remove_person(opened, who)
    typer.echo(f"removed {person.name} ({len(person.samples)} samples); version {opened.version}")
    return _await_workers(opened, wait_s)


@_app.command("remove-sample")
def remove_sample(
    sample: Annotated[str, typer.Argument(help="Id of the sample, as 'show' and 'audit' print it.")],
    gallery: GalleryPath,
    wait_s: WaitS = WAIT_S,
) -> int:
    """Take one sample out, with its kept crop; a person whose last sample it was goes with it."""
    from worker.gallery.switching import prune_crops

    opened = _open(gallery)
    removed = opened.remove_sample(sample)
    prune_crops(opened)
    typer.echo(f"removed sample {removed.photo}; version {opened.version}")
    return _await_workers(opened, wait_s)


@_app.command()
def rename(who: Who, name: Annotated[str, typer.Argument(help="The new name.")], gallery: GalleryPath) -> None:
    """Give a person another name; the id stays."""
    opened = _open(gallery)
    person = opened.person(who)
    opened.rename(person.identity_id, name)
    typer.echo(f"renamed {person.name} to {name}; version {opened.version}")


@_app.command()
def export(
    gallery: GalleryPath,
    npz: Annotated[Path, typer.Option("--npz", help="File to write: faces, embeddings and names.")],
) -> None:
    """Write faces, embeddings and names to a NumPy file (no pickle inside)."""
    from worker.gallery.crops import export_faces

    opened = _open(gallery)
    crops = open_crops(opened)
    if crops and crops.exists:
        export_faces(opened, crops, npz)
    else:
        opened.export_npz(npz)
    typer.echo(f"wrote {npz}")


def _await_workers(gallery: Any, wait_s: float) -> int:
    """Says which workers have taken up a removal from a shared gallery; the exit code."""
    from worker.gallery.shared.gallery import SharedGallery

    if not isinstance(gallery, SharedGallery):
        return 0
    missing = 0
    for worker, acknowledged in gallery.wait_for_workers(wait_s):
        if acknowledged:
            typer.echo(f"worker {worker.worker_id}: done")
        else:
            missing += 1
            typer.echo(
                f"worker {worker.worker_id}: NOT acknowledged (it has version {worker.version}, "
                f"last heard of {worker.silent_s:.0f} s ago); it forgets the person when it reaches Redis again",
                err=True,
            )
    return 1 if missing else 0
