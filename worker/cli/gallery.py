"""``facestream enroll`` and ``gallery``: who is known. Another model for a gallery: :mod:`.gallery_migration`."""

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli import gallery_groups, gallery_migration
from worker.cli.options import (
    PHOTO_MIN_FACE_PX,
    AsJson,
    DetectorName,
    EngineName,
    GalleryPath,
    MinFacePx,
    ModelName,
    ModelsDir,
    NamingThreshold,
    command_group,
    gallery_key,
    open_crops,
    open_embedder,
    open_gallery,
    photo_detector,
    quiet_logs,
)
from worker.cli.screen import (
    Document,
    count_of,
    fit,
    padded,
    people_of,
    print_json,
    say,
    say_lines,
    screen_width,
    time_text,
    wrapped,
)
from worker.errors import ConfigError, HistoryError, ModelError

if TYPE_CHECKING:
    from worker.evaluation.audit import Finding, Kind
    from worker.gallery.consents import Consent
    from worker.gallery.crops import Crop, CropStore
    from worker.gallery.gallery import Gallery
    from worker.types import Image
    from worker.video.drawing import Tile

Who = Annotated[str, typer.Argument(help="Name or id of the person.")]
WaitS = Annotated[
    float,
    typer.Option("--wait-s", min=0, help="How long to wait for the workers that follow a shared gallery, in seconds."),
]
WAIT_S = 15.0
ConsentUntil = Annotated[
    str | None,
    typer.Option("--consent-until", metavar="TIME", help="The people may be recognised until then."),
]
ConsentBasis = Annotated[str, typer.Option("--consent-basis", help="Why they may be recognised, such as 'contract'.")]

_HEADINGS = {
    "resemblance": "people who resemble each other more than the threshold allows for",
    "same_person": "probably one person under two names",
    "wrong_sample": "sample of somebody else",
    "mixed_samples": "samples of two people mixed",
    "odd_sample": "sample unlike the person's others",
    "look_alikes": "look-alikes",
    "poor_coverage": "too little known of them",
}
_SHORT = {"same_person": "one person?", "wrong_sample": "wrong?", "odd_sample": "odd?", "look_alikes": "alike"}
_MOST_TILES = 60
_NAMED_ALIKE = 4


def register(app: typer.Typer) -> None:
    """Adds the commands of this chapter to ``app``."""
    app.command("enroll")(enroll)
    group = command_group(
        app,
        "gallery",
        "The people of a gallery: list, show, remove, rename, merge, group; audit, copy and export it; give it another "
        "model.",
    )
    group.command("list")(list_people)
    group.command("show")(show_person)
    group.command("remove")(remove_person)
    group.command("remove-sample")(remove_sample)
    group.command("rename")(rename_person)
    group.command("merge")(merge_people)
    group.command("consent")(note_consent)
    group.command("copy")(copy_gallery)
    group.command("export")(export_gallery)
    group.command("audit")(audit_gallery)
    gallery_groups.register(group)
    gallery_migration.register(group)


def enroll(
    photos: Annotated[
        list[Path],
        typer.Argument(help="A folder of one folder per person, or of one photo per person named after them."),
    ],
    gallery: GalleryPath,
    model: ModelName = None,
    models_dir: ModelsDir = None,
    detector: DetectorName = None,
    engine: EngineName = "auto",
    min_face_px: MinFacePx = PHOTO_MIN_FACE_PX,
    min_quality: Annotated[
        float | None,
        typer.Option("--min-quality", min=0, max=1, help="Faces below this quality are not taken (default: 0.2)."),
    ] = None,
    keep_crops: Annotated[
        bool | None,
        typer.Option(
            "--keep-crops/--no-keep-crops",
            help="Keep the face of each photo beside the gallery, so that another model can embed it; encrypted if "
            "a gallery key is set (default: as before in this gallery; no for a new one).",
        ),
    ] = None,
    consent_until: ConsentUntil = None,
    consent_basis: ConsentBasis = "",
    json_output: AsJson = False,
) -> int:
    """Add people to a gallery (made if it does not exist); says for each photo what was taken or why not."""
    from worker.config import DEFAULT_MODEL_ID
    from worker.faces.quality import REJECT_BELOW
    from worker.gallery import enrolment, opening
    from worker.gallery.crops import CropStore

    quiet_logs()
    # A mistyped path is found before a gallery is made.
    named = [photo for path in photos for photo in enrolment.people_of(path)]
    crops = None if opening.is_shared(gallery) else CropStore(gallery, gallery_key())
    if keep_crops and crops is None:
        raise ConfigError("--keep-crops: a shared gallery keeps no pictures of faces; enroll without it")
    keep = crops.exists if crops and keep_crops is None else keep_crops
    existing = opening.open_gallery(gallery) if opening.gallery_exists(gallery) else None
    default = DEFAULT_MODEL_ID if existing is None else existing.model_id
    embedder = open_embedder(model or default, models_dir, engine)
    searcher = photo_detector(min_face_px, engine, detector, models_dir)
    target = existing
    if target is None:
        target = opening.open_or_create_gallery(
            gallery, embedder.model_id, embedder.preprocessing_digest, embedder.dimension
        )
    target.require_model(embedder.model_id, embedder.preprocessing_digest)
    consent = _consent(None, consent_until, consent_basis, "")
    taken: set[str] = set()
    accepted = rejected = doubtful = 0
    limit = REJECT_BELOW if min_quality is None else min_quality
    results = enrolment.enroll_named(
        named, target, searcher, embedder, min_quality=limit, crops=crops if keep else None
    )
    for result in results:
        accepted, rejected = accepted + result.accepted, rejected + (not result.accepted)
        doubtful += result.reason == "nearer_to_another_person"
        if result.accepted and result.identity_id:
            taken.add(result.identity_id)
        if json_output:
            print_json(dataclasses.asdict(result) | {"path": str(result.path)})
        else:
            verdict = "taken" if result.accepted else "not taken"
            reason = "".join(f"{mark}{text}" for mark, text in ((": ", result.reason), (", ", result.detail)) if text)
            say(f"{result.path}: {verdict}{reason} (quality {result.quality:.2f})")
    for identity_id in sorted(taken) if consent is not None else ():
        target.set_consent(identity_id, consent)
    if not json_output:
        say(f"{count_of(accepted, 'photo')} taken, {rejected} not; {people_of(len(target.people()))} in {target.label}")
        if doubtful:
            say(
                f"{count_of(doubtful, 'photo')} taken although another person is nearer. One misplaced photo makes "
                "right ones look wrong: 'facestream gallery audit' says which it is"
            )
    if accepted and (warning := _resemblance_warning(target, embedder.threshold)):
        say(f"facestream: warning: {warning}; facestream calibrate --people, with people like these", err=True)
    return 0 if accepted else 1


def _resemblance_warning(gallery: "Gallery", default: float) -> str:
    """What the people of ``gallery`` say about its threshold (``default`` if it is not calibrated); may be empty."""
    from worker.gallery.resemblance import resemblance_in

    found = resemblance_in(gallery, default if gallery.threshold is None else gallery.threshold)
    return found.warning if found else ""


def list_people(gallery: GalleryPath, json_output: AsJson = False) -> None:
    """The people, with how many samples each has."""
    opened = _open(gallery)
    people = opened.people()
    for person in people:
        if json_output:
            print_json(
                {
                    "identity_id": person.identity_id,
                    "identity_name": person.name,
                    "samples": len(person.samples),
                    "groups": list(person.groups),
                    "consent": None if person.consent is None else person.consent.document(),
                }
            )
        else:
            samples = count_of(len(person.samples), "sample")
            noted = [_consent_text(person.consent), f"[{', '.join(person.groups)}]" if person.groups else ""]
            columns = [padded(person.name, 32), f"{samples:>12}", person.identity_id, " ".join(filter(None, noted))]
            say_lines(fit(columns, screen_width()))
    soon, over = opened.consents_to_mind()
    if soon or over:
        say(
            f"facestream: warning: the consent of {people_of(over)} is over, that of {soon} more ends within 30 days; "
            "'facestream database expire' erases those whose consent is over",
            err=True,
        )
    if not json_output:
        say(f"{people_of(len(people))}, model {opened.model_id}, version {opened.version}")


def show_person(who: Who, gallery: GalleryPath, json_output: AsJson = False) -> None:
    """One person: every sample, where it came from, how good it is."""
    from worker.wire import parse_rfc3339

    person = _open(gallery).person(who)
    samples = [
        {"sample_id": s.sample_id, "photo": s.photo, "quality": round(s.quality, 3), "added_at": s.added_at}
        for s in person.samples
    ]
    if json_output:
        told = {"identity_id": person.identity_id, "identity_name": person.name, "groups": list(person.groups)}
        print_json(told | {"samples": samples})
        return
    say(f"{person.name}  {person.identity_id}")
    for sample in samples:
        added = time_text(parse_rfc3339(str(sample["added_at"])))
        photo = padded(f"  {sample['photo']}", 42)
        columns = [photo, f"quality {sample['quality']:.2f}", added, str(sample["sample_id"])]
        say_lines(fit(columns, screen_width()))


def remove_person(who: Who, gallery: GalleryPath, wait_s: WaitS = WAIT_S, json_output: AsJson = False) -> int:
    """Take a person out, with all samples and kept crops, also from the gallery that a switch has put aside.

    For a shared gallery, it says which workers have forgotten the person, and fails if one has not.
    """
    from worker.gallery import opening

    opened = _open(gallery)
    person = opening.remove_person(opened, who)
    _forget_denials(gallery, person.identity_id)
    removed = {"identity_id": person.identity_id, "identity_name": person.name, "samples": len(person.samples)}
    text = f"removed {person.name} ({count_of(len(person.samples), 'sample')}); version {opened.version}"
    return _tell_removal(opened, removed, text, wait_s, json_output)


def remove_sample(
    sample: Annotated[str, typer.Argument(help="Id of the sample, as 'show' and 'audit' print it.")],
    gallery: GalleryPath,
    wait_s: WaitS = WAIT_S,
    json_output: AsJson = False,
) -> int:
    """Take one sample out, with its kept crop; this removes a person who has no other sample."""
    from worker.gallery.opening import prune_crops

    opened = _open(gallery)
    removed = opened.remove_sample(sample)
    prune_crops(opened)
    if not opened.knows(removed.identity_id):
        _forget_denials(gallery, removed.identity_id)
    text = f"removed sample {removed.photo}; version {opened.version}"
    return _tell_removal(opened, {"sample_id": sample, "photo": removed.photo}, text, wait_s, json_output)


def rename_person(
    who: Who,
    name: Annotated[str, typer.Argument(help="The new name.")],
    gallery: GalleryPath,
    json_output: AsJson = False,
) -> None:
    """Give a person another name; the id stays."""
    opened = _open(gallery)
    person = opened.person(who)
    opened.rename(person.identity_id, name)
    if json_output:
        renamed = {"identity_id": person.identity_id, "identity_name": name, "previous_name": person.name}
        print_json(renamed | {"version": opened.version})
    else:
        say(f"renamed {person.name} to {name}; version {opened.version}")


def merge_people(
    who: Who,
    other: Annotated[str, typer.Argument(help="Name or id of the same person's other entry, which goes.")],
    gallery: GalleryPath,
    json_output: AsJson = False,
) -> None:
    """Two entries are one person: the first one keeps its name and id, and gets all samples of the other."""
    opened = _open(gallery)
    gone = opened.merge(who, other)
    person = opened.person(gone.identity_id)
    if json_output:
        merged = {"identity_id": person.identity_id, "identity_name": person.name, "samples": len(person.samples)}
        print_json(merged | {"merged": gone.other_id, "merged_name": gone.other_name, "version": opened.version})
    else:
        say(
            f"{gone.other_name} is now {person.name} ({count_of(len(person.samples), 'sample')}); "
            f"version {opened.version}"
        )


def note_consent(
    who: Who,
    gallery: GalleryPath,
    since: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="From when on, such as 2026-03-01 (default: at once).")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Until when.")] = None,
    basis: Annotated[str, typer.Option("--basis", help="Why the person may be recognised, such as 'contract'.")] = "",
    remark: Annotated[str, typer.Option("--note", help="Anything that you want to remember with it.")] = "",
    clear: Annotated[bool, typer.Option("--clear", help="Forget the consent: nothing bounds the time.")] = False,
    json_output: AsJson = False,
) -> None:
    """Note from when until when a person may be recognised; outside of that time, no worker names them."""
    consent = None if clear else _consent(since, until, basis, remark)
    if consent is None and not clear:
        raise ConfigError("what is allowed? give --until TIME, --from TIME, --basis or --note; or --clear")
    person = _open(gallery).set_consent(who, consent)
    if json_output:
        told = None if consent is None else consent.document()
        print_json({"identity_id": person.identity_id, "identity_name": person.name, "consent": told})
    else:
        say(f"{person.name}  {_consent_text(consent) or 'no consent is noted'}")


def _consent(since: str | None, until: str | None, basis: str, remark: str) -> "Consent | None":
    """None if nothing is given.

    Raises:
        ConfigError: a time cannot be read, or the end comes before the beginning.
    """
    from worker.gallery.consents import Consent

    if since is None and until is None and not basis and not remark:
        return None
    return Consent(_moment(since, "--from"), _moment(until, "--until"), basis, remark)


def _moment(text: str | None, option: str) -> str:
    """A date or a time, which is local unless it names a zone, as RFC 3339; "" for None."""
    from worker.wire import rfc3339

    if text is None:
        return ""
    try:
        return rfc3339(datetime.fromisoformat(text).astimezone(UTC))
    except (ValueError, OverflowError):
        raise ConfigError(f"{option} {text!r} is not a time: write 2027-03-01 or 2027-03-01T08:30") from None


def _consent_text(consent: "Consent | None") -> str:
    if consent is None:
        return ""
    now = datetime.now(UTC)
    bounds = [f"{word} {value[:10]}" for word, value in (("from", consent.since), ("until", consent.until)) if value]
    state = "consent IS OVER" if consent.is_over(now) else "consent ends soon" if consent.ends_soon(now) else "consent"
    return " ".join([state, *bounds]) + (f" ({consent.basis})" if consent.basis else "")


def copy_gallery(
    source: Annotated[str, typer.Argument(metavar="FROM", help="A gallery: a folder, or the URL of a database.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="A new gallery: a folder, or the URL of a database.")],
    json_output: AsJson = False,
) -> None:
    """Make a new gallery that holds all that another one holds; each sample is read back and compared."""
    from worker.gallery import opening

    quiet_logs()
    made = opening.copy_gallery(source, target)
    if json_output:
        print_json({"gallery": made.label, "people": len(made), "samples": made.sample_count, "version": made.version})
    else:
        say(f"{people_of(len(made))} with {count_of(made.sample_count, 'sample')} copied to {made.label}")


def export_gallery(
    gallery: GalleryPath,
    npz: Annotated[Path, typer.Option("--npz", help="File to write: faces, embeddings and names.")],
) -> None:
    """Write faces, embeddings and names to a NumPy file (no pickle inside)."""
    opened = _open(gallery)
    crops = open_crops(opened)
    opened.export_npz(npz, crops if crops and crops.exists else None)
    say(f"wrote {npz}")


def _tell_removal(gallery: "Gallery", removed: Document, text: str, wait_s: float, json_output: bool) -> int:
    """Says what was removed, and which workers have taken it up from a shared gallery; returns the exit code."""
    from worker.gallery.database.gallery import DatabaseGallery

    if json_output:
        print_json(removed | {"version": gallery.version})
    else:
        say(text)
    if not isinstance(gallery, DatabaseGallery):
        return 0
    missing = 0
    for worker, acknowledged in gallery.wait_for_workers(wait_s):
        missing += not acknowledged
        if json_output:
            print_json({"worker_id": worker.worker_id, "acknowledged": acknowledged, "version": worker.version})
        elif acknowledged:
            say(f"worker {worker.worker_id}: done")
        else:
            say(
                f"worker {worker.worker_id}: NOT acknowledged (it has version {worker.version}, "
                f"last heard of {worker.silent_s:.0f} s ago); it forgets the person when it reaches the database again",
                err=True,
            )
    return 1 if missing else 0


def _forget_denials(path: str, identity_id: str) -> None:
    """Forgets which past sightings do not show somebody who was removed from the gallery at ``path``, if the history is
    beside it. A running worker does the same in its own history.

    Raises:
        HistoryError: it cannot be written.
    """
    from worker.config import history_folder, load_config
    from worker.history.store import FILE, History

    folder = history_folder(load_config(None, {"gallery": path}))
    if folder is None or not (folder / FILE).exists():
        return
    try:
        with History.open(folder) as history:
            history.forget_denials_of(identity_id)
    except HistoryError as error:
        raise HistoryError(
            f"the person is removed from the gallery, but corrections of past sightings still hold the name: {error}"
        ) from None


def _open(path: str) -> "Gallery":
    quiet_logs()
    return open_gallery(path)


def audit_gallery(
    gallery: GalleryPath,
    threshold: NamingThreshold = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Most findings of a kind that are printed (--json prints all).")
    ] = 20,
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet", metavar="FILE.png", help="Picture of the findings: faces if crops are kept, else a plot."
        ),
    ] = None,
    json_output: AsJson = False,
) -> int:
    """Find people enrolled twice, look-alikes, wrong samples and thin coverage; each with what to do about it."""
    quiet_logs()
    from worker.config import RecognitionConfig
    from worker.evaluation import audit
    from worker.gallery.resemblance import resemblance_in

    opened = open_gallery(gallery)
    limit_from = threshold if threshold is not None else _threshold_in_use(opened)
    resemblance = resemblance_in(opened, limit_from)
    between = audit.pair_threshold(resemblance, limit_from) if threshold is None else threshold
    findings = audit.audit(
        opened, threshold=limit_from, margin=RecognitionConfig().margin, between=between, resemblance=resemblance
    )
    if json_output:
        for finding in findings:
            print_json(dataclasses.asdict(finding))
    else:
        _print_findings(findings, audit.counts(findings), limit)
        _tell_crowded(findings, len(opened), between)
        say(f"{people_of(len(opened))}, {count_of(opened.sample_count, 'sample')}, threshold {limit_from:.3f}")
        if between > limit_from:
            say(
                f"people here resemble each other: two of them were compared at {between:.3f}, which keeps the promise "
                "for them; --threshold names another one"
            )
    if sheet:
        _draw_findings(opened, findings, limit_from, sheet)
        say(f"written: {sheet}", err=json_output)
    return 0


def _threshold_in_use(gallery: "Gallery") -> float:
    from worker.faces.alignment import split_variant
    from worker.faces.manifests import load_manifest

    if gallery.threshold is not None:
        return gallery.threshold
    try:
        return load_manifest(split_variant(gallery.model_id)[0]).threshold
    except ModelError:
        raise ConfigError(
            f"the gallery is not calibrated, and the manifest of {gallery.model_id} is your own: give --threshold"
        ) from None


def _print_findings(findings: "Sequence[Finding]", counts: "dict[Kind, int]", limit: int) -> None:
    from worker.evaluation.audit import fold_look_alikes

    lines: dict[str, list[str]] = {kind: [] for kind in counts}
    for finding in findings:
        if finding.kind != "look_alikes":
            lines[finding.kind].append(_finding_line(finding))
    lines["look_alikes"] = [_look_alike_line(group) for group in fold_look_alikes(findings)]
    for of_kind in lines.values():
        for line in of_kind[:limit]:
            say_lines(wrapped(line, screen_width(), ""))
    for kind, count in counts.items():
        hidden = len(lines[kind]) - limit
        more = f" ({hidden} lines not shown: --limit {len(lines[kind])})" if hidden > 0 else ""
        say(f"{count:>6}  {_HEADINGS[kind]}{more}")


def _look_alike_line(group: "Sequence[Finding]") -> str:
    """One line for all who resemble one person."""
    if len(group) == 1:
        return _finding_line(group[0])
    ranked = sorted(group, key=lambda finding: -(finding.similarity or 0.0))
    named = ", ".join(f"{finding.people[1]} {finding.similarity:.2f}" for finding in ranked[:_NAMED_ALIKE])
    rest = f" and {len(ranked) - _NAMED_ALIKE} more" if len(ranked) > _NAMED_ALIKE else ""
    name = ranked[0].people[0]
    return (
        f"{_HEADINGS['look_alikes']}: {name} resembles {people_of(len(ranked))}: {named}{rest}; "
        f"look at the photos of {name}: one poor photo is often the cause"
    )


def _tell_crowded(findings: "Sequence[Finding]", people: int, threshold: float) -> None:
    """Says so if there are so many look-alikes that the threshold is the cause."""
    alike = sorted((found.similarity or 0.0 for found in findings if found.kind == "look_alikes"), reverse=True)
    bearable = max(people // 50, 5)
    if len(alike) > 2 * bearable:
        say(
            f"{len(alike)} pairs of {people_of(people)} look alike at the threshold {threshold:.3f}: it is too low for "
            f"this gallery. At {alike[bearable]:.3f}, {bearable} are left: facestream calibrate"
        )


def _finding_line(finding: "Finding") -> str:
    if finding.kind == "resemblance":
        return f"{finding.detail}; {finding.advice}"
    who = " / ".join(finding.people)
    cosine = "" if finding.similarity is None else f" [{finding.similarity:.2f}]"
    photo = f" {finding.photos[0]}" if finding.kind in {"wrong_sample", "odd_sample"} else ""
    sample = f" (sample {finding.sample_ids[0]})" if photo else ""
    return f"{_HEADINGS[finding.kind]}: {who}{cosine}:{photo} {finding.detail}{sample}; {finding.advice}"


def _draw_findings(gallery: "Gallery", findings: "Sequence[Finding]", threshold: float, sheet: Path) -> None:
    from worker.evaluation.plots import plot_similarities
    from worker.video.drawing import contact_sheet

    compared = [(finding, finding.similarity) for finding in findings if finding.similarity is not None][:_MOST_TILES]
    crops = open_crops(gallery)
    if crops and (tiles := _tiles(compared[: _MOST_TILES // 2], crops)):
        contact_sheet(tiles, sheet, title=f"Gallery {_short_label(gallery)}", columns=6)
        return
    rows = [(f"{' / '.join(found.people)} ({_HEADINGS[found.kind]})", similarity) for found, similarity in compared]
    plot_similarities(rows, title=f"Findings in gallery {_short_label(gallery)}", threshold=threshold, path=sheet)


def _tiles(compared: "Sequence[tuple[Finding, float]]", crops: "CropStore") -> "list[Tile]":
    """The samples of each finding, side by side. A finding of whose samples no crop was kept has no tiles."""
    from worker.video.drawing import Tile

    tiles, kept = [], crops.sample_ids()
    for finding, similarity in compared:
        if not kept.intersection(finding.sample_ids):
            continue
        # An odd sample stands beside another one of the same person.
        names = (*finding.people, *finding.people)
        for name, sample_id in zip(names, finding.sample_ids, strict=False):
            caption = f"{_SHORT[finding.kind]} {similarity:.2f} {name}"
            tiles.append(Tile(_face(crops.read(sample_id)), caption, "rejected"))
    return tiles


def _short_label(gallery: "Gallery") -> str:
    return str(gallery.label if gallery.folder is None else gallery.folder.name)


def _face(crop: "Crop | None") -> "Image":
    import numpy as np

    return np.full((64, 64, 3), 200, np.uint8) if crop is None else crop.image
