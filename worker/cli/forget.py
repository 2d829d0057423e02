"""``facestream forget``: somebody is erased, everywhere, and gets a receipt of it."""

import json
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.history import GalleryOption, StateDir, audit_folder, settings
from worker.cli.options import (
    PHOTO_MIN_FACE_PX,
    AsJson,
    ConfigFile,
    EngineName,
    ModelsDir,
    RedisUrl,
    StreamName,
    no_face,
    open_embedder,
    photo_detector,
    quiet_logs,
)
from worker.cli.screen import Document, count_of, print_json, say, say_lines, screen_width, wrapped
from worker.errors import ConfigError, SinkError
from worker.names import person_name

if TYPE_CHECKING:
    from worker.config import Config
    from worker.erasure.forgetting import Forgetting
    from worker.erasure.plan import Plan, Request
    from worker.gallery.gallery import Gallery
    from worker.history.records import EmbedderId
    from worker.redis.client import Client
    from worker.types import Vectors


def register(app: typer.Typer) -> None:
    """Adds the command of this chapter to ``app``."""
    app.command("forget")(forget)


def forget(
    who: Annotated[
        str | None,
        typer.Argument(
            metavar="[WHO]", help="Name or id of a person, the id of an unknown person, or a photo: all who are in it."
        ),
    ] = None,
    gallery: GalleryOption = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    redis: RedisUrl = None,
    stream: StreamName = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    events: Annotated[
        bool, typer.Option("--events/--no-events", help="Tell consumers through Redis, by events of the type 'erased'.")
    ] = True,
    delete_entries: Annotated[
        bool, typer.Option("--delete-entries", help="Also delete the person's entries in the event streams.")
    ] = False,
    receipt: Annotated[
        Path | None, typer.Option("--receipt", metavar="FILE", help="Also write the receipt to this file.")
    ] = None,
    wait_s: Annotated[
        float, typer.Option("--wait-s", min=0, help="How long to wait for the workers that run, in seconds.")
    ] = 15.0,
    classifier: Annotated[
        list[Path] | None,
        typer.Option(
            "--classifier", metavar="DIR", help="Say whether this classifier was trained on the person; repeatable."
        ),
    ] = None,
    verify: Annotated[
        Path | None, typer.Option("--verify", metavar="RECEIPT", help="Check a receipt; nothing is changed.")
    ] = None,
    models_dir: ModelsDir = None,
    engine: EngineName = "auto",
    json_output: AsJson = False,
) -> int:
    """Erase a person from the gallery with all its versions, the past, pictures, events that wait and every worker.

    Says before what it will touch, and asks. Exit code 1 if anything within reach is left, or a worker has not said
    that it is done.
    """
    from worker.erasure.forgetting import open_galleries

    quiet_logs()
    config_ = settings(config, gallery, state_dir, url=redis, stream=stream)
    if verify is not None:
        return _verify(verify, who, config_, json_output)
    if who is None:
        raise ConfigError("whom? give a name, an id or a photo; or --verify RECEIPT")
    galleries = open_galleries(config_, may_lack=who.startswith("u-"))
    if config_.gallery is not None and not galleries:
        say("nobody is enrolled yet: there is no gallery where the configuration names one", err=True)
    request = _named_by(config_.classifier, who) or _request(who, galleries, models_dir or config_.models_dir, engine)
    signed, kept = erase(
        request, galleries, config_, yes=yes, events=events, delete_entries=delete_entries, wait_s=wait_s,
        json_output=json_output, classifiers=classifier or (),
    )  # fmt: skip
    if receipt is not None:
        _write(receipt, signed)
    if json_output:
        print_json(signed)
    else:
        _tell_remains(signed)
        say(f"receipt: {receipt or kept}")
    return 0 if signed["whole"] else 1


def erase(
    request: "Request",
    galleries: "Sequence[Gallery]",
    config_: "Config",
    *,
    yes: bool,
    events: bool,
    delete_entries: bool,
    wait_s: float,
    json_output: bool,
    classifiers: Sequence[Path] = (),
) -> tuple[Document, Path]:
    """Erases the people of ``request`` everywhere; returns the receipt, and where it lies. ``classifiers`` are looked
    at, beside that of the configuration.

    Raises:
        FacestreamError: nobody is like that, or it cannot be begun; nothing was changed.
    """
    from worker.audit_log import AuditLog
    from worker.erasure.forgetting import Forgetting
    from worker.erasure.own import erasure_folders, remove_abandoned
    from worker.erasure.plan import make_plan
    from worker.erasure.receipt import Signer
    from worker.wire import now_rfc3339

    folders = erasure_folders(config_)
    if not folders:
        raise ConfigError("where is the person kept? give --gallery PATH, --state-dir DIR or --config FILE")
    trained = _people_of([*classifiers, *([config_.classifier] if config_.classifier else [])])
    plan = make_plan(request, galleries, config_)
    _tell_plan(plan, galleries, json_output)
    # Before anything is changed: those who have read events of this person must learn of it.
    client = _connect(config_) if events or delete_entries else None
    if not yes:
        typer.confirm("Erase all of this? It cannot be undone", abort=True, err=True)
    signer = Signer(folders[-1])
    log = AuditLog(audit_folder(config_))
    log.add("erasure asked for", [*plan.identity_ids, *plan.unknown_ids], past_sightings=len(plan.traces))
    folders += _folders_of(config_.shadow_gallery, folders)
    asked_at = now_rfc3339()
    erasure = plan.erasure(uuid.uuid4().hex, asked_at)
    work = Forgetting(plan, erasure, galleries, config_, folders, lambda line: say(line, err=json_output))
    work.begin()
    work.stores()
    work.at("faces of photos, kept for calibration", *_face_cache())
    work.wait_for_workers(wait_s)
    if client is not None:
        _tell_consumers(work, plan, client, config_, events=events, delete=delete_entries)
    work.empty_databases()
    for one in galleries:
        one.close()
    remove_abandoned(config_)
    work.search(_searched(config_))
    for path, people in trained.items():
        if not people.isdisjoint(plan.names):
            work.remains(f"the classifier {path} was trained on this person", "train it anew without them")
    _note_remains(work, plan, config_, events=events, deleted=delete_entries)
    log.add("erased" if work.outcome.is_whole else "erased in part", erasure=erasure.erasure_id)
    head, _ = log.verify()
    signed = signer.signed(
        {
            "audit_log": {"line": head.number, "chain": head.chain},
            "erasure_id": erasure.erasure_id,
            "asked_at": asked_at,
            "finished_at": now_rfc3339(),
            "whole": work.outcome.is_whole,
            "subjects": sorted(
                {signer.subject_of(one) for one in (*plan.names, *plan.identity_ids, *plan.unknown_ids)}
            ),
            "found": plan.document(),
            "places": [place.document() for place in work.outcome.places],
            "workers": work.outcome.workers,
            "remains": work.outcome.remains,
            "searched": work.outcome.searched,
        }
    )
    return signed, signer.keep(signed)


def _verify(receipt: Path, who: str | None, config: "Config", json_output: bool) -> int:
    """Checks the signature, and whether the erasure still stands in the list; with ``who``, also whom it is about."""
    from worker.erased import read_erased
    from worker.erasure.own import erasure_folders
    from worker.erasure.receipt import KEY, Signer, read_receipt

    document = read_receipt(receipt)
    folders = erasure_folders(config)
    ours = next((Signer(folder) for folder in folders if (folder / KEY).exists()), None)
    told: Document = {
        "erasure_id": document["erasure_id"],
        "whole": document["whole"],
        "signature": "right",
        "signed_here": None if ours is None else ours.public_key == document["public_key"],
        "in_force": document["erasure_id"] in read_erased(folders).ids if folders else None,
        "about": None if who is None or ours is None else ours.subject_of(who) in document["subjects"],
    }
    if json_output:
        print_json(told)
    else:
        say(f"erasure {told['erasure_id']}, asked for at {document['asked_at']}: the signature is right")
        _tell_check(
            told["signed_here"], "signed by this installation", f"signed with another key: {document['public_key']}"
        )
        _tell_check(told["in_force"], "in the list of erased people", "NOT in the list of erased people any more")
        _tell_check(told["about"], "about this person", "not about this person")
        for place in document["places"]:
            say(f"{place['place']}, {place['where']}: {place['problem'] or place['removed']}")
    return 0 if not any(told[name] is False for name in ("signed_here", "in_force", "about")) else 1


def _tell_check(found: bool | None, right: str, wrong: str) -> None:
    if found is not None:
        say(right if found else wrong)


def _folders_of(gallery: str | None, known: Sequence[Path]) -> list[Path]:
    from worker.erased import folders_of

    return [folder for folder in folders_of(gallery) if folder not in known]


def _request(who: str, galleries: "Sequence[Gallery]", models_dir: Path | None, engine: str) -> "Request":
    """Whom ``who`` means: a person of that name or id first, then a photo, then an unknown person."""
    from worker.erasure.plan import Request
    from worker.errors import GalleryError

    known = None
    for gallery in galleries:
        try:
            known = gallery.person(who)
        except GalleryError as error:
            if "people called" in str(error):
                raise
    if known is not None:
        return Request(people=(known.identity_id,))
    if Path(who).is_file():
        return Request(faces=_faces(Path(who), galleries, models_dir, engine))
    if who.startswith("u-") or not galleries:
        return Request(unknown_ids=(who,))
    return Request(people=(who,))


def _faces(
    photo: Path, galleries: "Sequence[Gallery]", models_dir: Path | None, engine: str
) -> "tuple[EmbedderId, Vectors, float]":
    """All faces in the photo: what made the vectors, the vectors float32 (n, d), the cosine of the same person."""
    import numpy as np

    from worker.config import DEFAULT_MODEL_ID
    from worker.history.records import EmbedderId
    from worker.video.photos import read_photo

    image = read_photo(photo)
    (found,) = photo_detector(PHOTO_MIN_FACE_PX, engine).detect([image])
    if not len(found):
        raise no_face(photo)
    embedder = open_embedder(galleries[0].model_id if galleries else DEFAULT_MODEL_ID, models_dir, engine)
    vectors = embedder.embed(embedder.align(image, found)).vectors
    threshold = galleries[0].threshold if galleries else None
    made_with = EmbedderId(embedder.model_id, embedder.preprocessing_digest)
    return made_with, np.asarray(vectors, np.float32), embedder.threshold if threshold is None else threshold


def _tell_plan(plan: "Plan", galleries: "Sequence[Gallery]", json_output: bool) -> None:
    names = {key: name for gallery in galleries for key, name in gallery.contents.names.items()}
    found = plan.document()
    for identity_id in sorted(plan.identity_ids):
        say(f"{names.get(identity_id, '(earlier entry)')}  {identity_id}", err=json_output)
    for unknown_id in sorted(plan.unknown_ids):
        say(f"unknown person {unknown_id}", err=json_output)
    say(
        f"{count_of(found['samples'], 'sample')}, {count_of(found['crops'], 'crop')}, "
        f"{count_of(found['past_sightings'], 'past sighting')}, "
        f"{count_of(found['frames_of_others'], 'frame')} of others in which they may be",
        err=json_output,
    )


def _connect(config: "Config") -> "Client":
    from worker.redis.client import connect

    try:
        return connect(config.redis)
    except SinkError as error:
        raise SinkError(
            f"{error}; nothing was changed. Consumers must learn of an erasure: name the Redis with --redis, or give "
            "--no-events if there is none"
        ) from None


def _tell_consumers(
    work: "Forgetting", plan: "Plan", client: "Client", config: "Config", *, events: bool, delete: bool
) -> None:
    from worker.erased import Erased
    from worker.events import erasing
    from worker.events.publisher import publish_at_once
    from worker.redis.errors import told_redis_errors
    from worker.wire import parse_rfc3339

    stream = config.redis.stream

    def tell() -> str:
        at = parse_rfc3339(work.outcome.erasure.at)
        with told_redis_errors(config.redis):
            made = erasing.erased_events(client, stream, plan.seen(), plan.ids(), at, "facestream-forget")
        if lost := publish_at_once(client, config.redis, made):
            raise SinkError(f"{count_of(lost, 'event')} of the type 'erased' could not be delivered: run this again")
        return f"{count_of(len(made), 'event')} of the type 'erased' published"

    def remove() -> str:
        with told_redis_errors(config.redis):
            gone = erasing.delete_entries(client, stream, Erased([work.outcome.erasure]))
        return count_of(gone, "entry", "entries") + " deleted"

    if events:
        work.at("consumers", f"stream {stream}", tell)
    if delete:
        work.at("event streams", f"stream {stream}", remove)


def _face_cache() -> "tuple[str, Callable[[], str]]":
    from worker.config import cache_dir
    from worker.evaluation.face_cache import FOLDER, remove_cache

    def remove() -> str:
        remove_cache(cache_dir())
        return "the whole cache; it is made anew"

    return str(cache_dir() / FOLDER), remove


def _searched(config: "Config") -> list[Path]:
    from worker.config import cache_dir
    from worker.evaluation.face_cache import FOLDER

    folders = [cache_dir() / FOLDER]
    if config.evidence.store is not None and "://" not in config.evidence.store:
        folders.append(Path(config.evidence.store))
    return [folder for folder in folders if folder.exists()]


def _named_by(classifier: Path | str | None, who: str) -> "Request | None":
    """The person of this name or id, if it is a classifier that says who it is."""
    from worker.erasure.plan import Request
    from worker.gallery.classifier import identity_id_of

    if classifier is None:
        return None
    known = {identity_id_of(name): name for people in _people_of([classifier]).values() for name in people}
    found = [(key, name) for key, name in known.items() if person_name(who) in (key, name)]
    return Request(trained=tuple(found)) if found else None


def _people_of(classifiers: Sequence[Path | str]) -> dict[Path | str, frozenset[str]]:
    """Whom each was trained on.

    Raises:
        ClassifierError: one cannot be read.
    """
    from worker.gallery.classifier import Classifier

    return {path: frozenset(map(person_name, Classifier.open(path).people)) for path in classifiers}


def _note_remains(work: "Forgetting", plan: "Plan", config: "Config", *, events: bool, deleted: bool) -> None:
    config = plan.retention.over(config)
    if not events:
        work.remains("consumers were not told", "tell each that keeps events; docs/data-protection.md says what to do")
    else:
        work.remains("what consumers keep of events", "each deletes it when it reads the 'erased' event")
    if not deleted:
        work.remains(
            f"entries of the stream {config.redis.stream}, and dead letters of its groups",
            "run this again with --delete-entries, or wait until they are trimmed",
            f"about {config.redis.max_events} further events have come",
        )
    work.remains("Redis' own files and replicas", "rewrite them: BGREWRITEAOF, SAVE; replicas follow by themselves")
    work.remains("backups, copies and exports of galleries and databases", "delete them, or let them expire")
    if str(config.evidence.store or "").startswith("s3://"):
        work.remains("earlier versions of pictures, if the bucket keeps versions", "delete them, or let them expire")
    if config.evidence.store is not None and config.evidence.keep_days > config.history.keep_days:
        until = timedelta(days=config.evidence.keep_days)
        work.remains(
            "pictures of sightings that the history remembers no more",
            "set history.keep_days to evidence.keep_days or more",
            f"they expire {until.days} days after they were taken",
        )
    work.remains("blocks of the disk that held deleted files", "encrypt the disk; an SSD cannot overwrite in place")
    if plan.unsearched:
        work.remains(
            f"{count_of(len(plan.unsearched), 'name')} that cannot be searched for: too short, or part of another name",
            "nothing; the vectors were searched for",
        )


def _tell_remains(receipt: Document) -> None:
    for remains in receipt["remains"]:
        until = f" (until {remains['until']})" if remains["until"] else ""
        say_lines(wrapped(f"out of reach: {remains['what']}{until}: {remains['to_do']}", screen_width(), ""))


def _write(path: Path, receipt: Document) -> None:
    from worker.files import open_private, writing

    with writing(path), open_private(path) as file:
        file.write(f"{json.dumps(receipt, indent=1)}\n".encode())
