"""What comes from outside, and what must hold of it whatever it is: an answer, or the project's own error of one line.

Each target takes any bytes. Bytes that a fuzzer has changed come from ``seeds``, which are good ones.
"""

import io
import itertools
import json
import os
import sqlite3
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

import av
import h5py
import numpy as np
import yaml
from PIL import Image as Pillow
from pydantic import ValidationError

from tests.fuzz import documents, requests
from tests.fuzz.common import SECRET, Target, one_line, placed, scratch
from tests.fuzz.h5_process import ELSEWHERE, h5_process
from tests.support.galleries import DIGEST, DIMENSION, MODEL, sample
from tests.support.past import NOON, unknown
from tests.support.past import sighting as past_sighting
from tests.support.sample_events import make_event
from tests.support.scenes import ALICE, Scene
from worker.config import CameraConfig, Config, load_config
from worker.errors import ConfigError, GalleryError, HistoryError, ModelError, SinkError, SourceError
from worker.events.codec import decode, encode
from worker.faces.manifests import load_manifest
from worker.gallery.enrolment import people_of
from worker.gallery.folder import FolderGallery
from worker.history.records import EmbedderId, PastSighting, Tally, explain
from worker.history.store import FILE as HISTORY_FILE
from worker.history.store import History
from worker.observer import Observer
from worker.recognition import corrections
from worker.redaction import redact
from worker.video.addresses import parse_address
from worker.video.decoder import open_video
from worker.video.photos import read_photo
from worker.video.planes import grey_of, rgb_of

_MAX_PIXELS: Final = 250_000
_MOST_PICTURES: Final = 60


@cache
def photo_seeds() -> list[bytes]:
    seeds = []
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3)).astype(np.uint8)
    rgb = Pillow.fromarray(pixels)
    for kind, mode in (
        ("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "P"), ("PNG", "RGBA"), ("WEBP", "RGBA"), ("TIFF", "RGB"), ("GIF", "P"),
        ("BMP", "RGB"), ("PPM", "RGB"), ("AVIF", "RGB"), ("JPEG2000", "RGB"), ("QOI", "RGB"), ("SGI", "RGB"),
    ):  # fmt: skip
        out = io.BytesIO()
        rgb.convert(mode).save(out, kind)
        seeds.append(out.getvalue())
    for options in (
        {"progressive": True},
        {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"},
    ):
        out = io.BytesIO()
        rgb.save(out, "JPEG", **options)
        seeds.append(out.getvalue())
    seeds.append(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    return seeds


def check_photo(data: bytes) -> None:
    try:
        image = read_photo(placed(data, "photo"), max_pixels=_MAX_PIXELS)
    except SourceError as error:
        one_line(error)
        return
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size > 3 * _MAX_PIXELS:
        raise AssertionError(f"no picture: {image.shape} {image.dtype}")


@cache
def video_seeds() -> list[bytes]:
    seeds = []
    for codec, container, suffix in (
        ("libx264", "mp4", "mp4"), ("libx264", "h264", "h264"), ("libx264", "mpegts", "ts"), ("mjpeg", "mjpeg", "mjpg"),
        ("libx264", "matroska", "mkv"), ("mpeg4", "avi", "avi"), ("libx265", "mp4", "hevc"),
    ):  # fmt: skip
        path = scratch() / f"seed.{suffix}"
        with av.open(str(path), "w", format=container) as file:
            stream = file.add_stream(codec, rate=25)
            stream.width, stream.height = 64, 48
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
            for number in range(6):
                shade = np.full((48, 64, 3), 40 * number, np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(shade).reformat(format=stream.pix_fmt)))
            file.mux(stream.encode())
        seeds.append(path.read_bytes())
    return seeds


def check_video(data: bytes) -> None:
    path = placed(data, "video")
    camera = CameraConfig.model_validate({"id": "door", "source": str(path), "max_megapixels": _MAX_PIXELS / 1e6})
    try:
        video = open_video(parse_address(str(path)), camera, Observer())
    except SourceError as error:
        one_line(error)
        return
    try:
        for picture in itertools.islice(video.pictures(lambda: True), _MOST_PICTURES):
            if picture is not None and picture.planes is not None:
                with suppress(SourceError):
                    if (
                        rgb_of(picture.planes()).size > 3 * 16 * _MAX_PIXELS
                    ):  # stretched by its pixels' shape, 4 at most
                        raise AssertionError("a picture above the limit")
                    grey_of(picture.planes())
    except SourceError as error:
        one_line(error)
    finally:
        video.close()


@cache
def h5_seeds() -> list[bytes]:
    seeds = []
    # In the folder of the file that is read: no array may come out of it.
    with h5py.File(scratch() / "away.h5", "w") as other:
        other.create_dataset("x", data=np.full((4, 6), ELSEWHERE, np.float32))
    for compression in (None, "gzip"):
        path = scratch() / "seed.h5"
        with h5py.File(path, "w") as file:
            group = file.create_group("dense")
            group.create_dataset("dense/kernel:0", data=np.arange(24.0).reshape(4, 6), compression=compression)
            group.attrs["weight_names"] = [b"dense/kernel:0"]
            file.attrs["layer_names"] = [b"dense"]
            if compression:
                file["link"] = h5py.SoftLink("/dense")
                file["away"] = h5py.ExternalLink("away.h5", "/x")
        seeds.append(path.read_bytes())
    with h5py.File(scratch() / "seed.h5", "w") as file:
        group = file.create_group("dense")
        layout = h5py.VirtualLayout((4, 6), "f4")
        layout[:] = h5py.VirtualSource("away.h5", "x", shape=(4, 6))
        group.create_virtual_dataset("dense/kernel:0", layout)
        group.attrs["weight_names"] = [b"dense/kernel:0"]
        file.attrs["layer_names"] = [b"dense"]
    return [*seeds, (scratch() / "seed.h5").read_bytes()]


def check_h5(data: bytes) -> None:
    """What HDF5 itself does over it, in a process of its own, ends with arrays or with one line, and reads no other
    file. A crash, or a time without end, is that process's own affair, as it is in the product."""
    path, taken, said = placed(data, "weights.h5"), scratch() / "arrays.npz", scratch() / "said"
    taken.unlink(missing_ok=True)
    code = h5_process().read(path, taken, said)
    if code == 0:
        with np.load(taken, allow_pickle=False) as held:
            arrays = [held[name] for name in held.files]
        if any(array.dtype != np.float32 or (array == ELSEWHERE).any() for array in arrays):
            raise AssertionError("no float32, or out of another file")
    elif code > 0:
        lines = said.read_text(errors="replace").splitlines()
        if code != 1 or len(lines) != 1 or not lines[0].strip():
            raise AssertionError(f"exit code {code}, said: {lines}")


@cache
def manifest_seeds() -> list[bytes]:
    shipped = Path(__file__).parents[2] / "models"
    return [path.read_bytes() for path in sorted(shipped.glob("*.yaml"))]


def check_manifest(data: bytes) -> None:
    try:
        load_manifest(str(placed(data, "manifest.yaml")))
    except ModelError as error:
        one_line(error)


@cache
def config_seeds() -> list[bytes]:
    whole = {
        "worker_id": "a",
        "cameras": [{"id": "door", "source": f"rtsp://u:{SECRET}@10.0.0.1/x", "pixel_aspect": "12:11", "rotate": 90}],
        "redis": {"url": f"redis://:{SECRET}@localhost:6379/0"},
        "detection": {"min_face_px": 40},
        "network": {"allowed_hosts": ["10.0.0.0/8"], "refused_ranges": ["private"]},
        "evidence": {"store": "/tmp/x", "of": "known"},
    }
    return [yaml.safe_dump(whole).encode(), b"cameras: []\n", b"&a [*a]\n", b"gallery: ~nobody/x\n"]


def check_config(data: bytes) -> None:
    try:
        load_config(placed(data, "config.yaml"))
    except ConfigError as error:
        one_line(error)
        if SECRET in str(error):
            raise AssertionError("a password in the error") from None


URL_SEEDS: Final = [
    f"rtsp://admin:{SECRET}@10.0.0.1:554/stream?channel=1&password={SECRET}".encode(),
    f"http://admin:{SECRET}@[fe80::1%25eth0]/video.mjpg".encode(), b"0", b"/dev/video0", b"clip.mp4", b"~/x.mp4",
    f"rtsp://a:{SECRET}@b@c/\xff".encode("latin-1"), b"concat:a|b", b"https://host/x.m3u8",
]  # fmt: skip


def check_url(data: bytes) -> None:
    text = data.decode("utf-8", errors="surrogateescape")
    redact(text)
    try:
        address = parse_address(text)
        camera = CameraConfig.model_validate({"id": "door", "source": text})
    except (ConfigError, ValidationError) as error:
        if isinstance(error, ConfigError):
            one_line(error)
        return
    if f":{SECRET}@" in address.label + repr(address) + repr(camera):
        raise AssertionError(f"a password is shown: {address.label!r}")
    if address.kind == "network" and not address.target.lower().startswith(("rtsp", "http")):
        raise AssertionError(f"opened as a stream: {address.target!r}")


@cache
def event_seeds() -> list[bytes]:
    events = [make_event(), make_event(type="ended", ended_at=NOON), make_event(identity_id="", identity_name="")]
    return [json.dumps(encode(event)).encode() for event in events]


def check_event(data: bytes) -> None:
    """The names and values of the fields are those of a JSON object."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        fields = {"schema": data}
    if not isinstance(fields, dict):
        return
    texts = {name.encode(errors="replace"): value if isinstance(value, bytes) else str(value).encode(errors="replace")
             for name, value in fields.items()}  # fmt: skip
    try:
        event = decode(texts)
    except SinkError as error:
        one_line(error)
        return
    again = decode(encode(event))  # other writers may give more digits than ours
    if decode(encode(again)) != again:
        raise AssertionError(f"it does not come back as it was: {again}")


@cache
def state_seeds() -> list[bytes]:
    scene = Scene()
    scene.frames(15, {7: ALICE})
    return [json.dumps(scene.sightings.state()).encode()]


def check_state(data: bytes) -> None:
    try:
        state = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(state, dict):
        scene = Scene()
        scene.sightings.resume(state, NOON, 0.0)
        scene.frames(2, {1: ALICE})
        json.dumps(scene.sightings.state(), allow_nan=False)
        for event in scene.sightings.close():
            decode(encode(event))


_TEMPLATE: Final = np.full(DIMENSION, DIMENSION**-0.5, "<f4")
_EMBEDDER: Final = EmbedderId(MODEL, DIGEST)
_KEPT_S: Final = 1e9
_CONFIG: Final = Config(gallery="people", cameras=())
_TABLES: Final = ("sightings", "unknowns", "denials", "tallies")


@cache
def row_seeds() -> list[bytes]:
    """One row of a table, as JSON; bytes as ``hex:...``."""
    past, _ = _past()
    seeds = []
    for table in _TABLES:
        names = [column for _, column, *_ in past.execute(f"PRAGMA table_info({table})")]
        for row in past.execute(f"SELECT * FROM {table}"):
            values = {name: f"hex:{value.hex()}" if isinstance(value, bytes) else value
                      for name, value in zip(names, row, strict=True)}  # fmt: skip
            seeds.append(json.dumps({"table": table, **values}).encode())
    return seeds


@cache
def _past() -> tuple[sqlite3.Connection, History]:
    """A history with a few rows, by two connections: one writes what nobody should, one reads as a worker does."""
    folder = scratch() / "history"
    history = History.open(folder, create=True)
    seen = [past_sighting(number, _TEMPLATE, identity_id="p", identity_name="Anna", embedder=_EMBEDDER)
            for number in range(2)]  # fmt: skip
    met = Tally("door", NOON, "blurred", 1, 2)
    history.write(seen, [unknown("u-1", _TEMPLATE, embedder=_EMBEDDER)], [met], keep_s=_KEPT_S, remember_s=_KEPT_S)
    history.deny(history.sightings()[0], unknown_id="u-1")
    return sqlite3.connect(folder / HISTORY_FILE, isolation_level=None), history


def check_row(data: bytes) -> None:
    """The row of the seed takes the place of the one that was there, and everything is read."""
    try:
        row = json.loads(data)
        table = row.pop("table")
        assert table in _TABLES
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError, AssertionError):
        table, row = "sightings", {**json.loads(row_seeds()[0]), "template": data}
        row.pop("table")
    past, history = _past()
    columns = [column for _, column, *_ in past.execute(f"PRAGMA table_info({table})")]
    values = {name: _sql_value(row[name]) for name in columns if name in row}
    past.execute("BEGIN")
    kept = {
        name: past.execute(f"SELECT * FROM {name}").fetchall()
        for name in ("sightings", "unknowns", "denials", "tallies")
    }
    try:
        if values:
            sets = ", ".join(f"{name} = :{name}" for name in values)
            with suppress(sqlite3.Error, UnicodeError, OverflowError):
                past.execute(f"UPDATE {table} SET {sets} WHERE rowid = 1" if table in ("sightings", "unknowns") else
                             f"UPDATE {table} SET {sets}", values)  # fmt: skip
        past.execute("COMMIT")
        _read_everything(history)
    finally:
        past.execute("BEGIN")
        for name, rows in kept.items():
            past.execute(f"DELETE FROM {name}")
            past.executemany(f"INSERT INTO {name} VALUES ({','.join('?' * len(rows[0]))})", rows)
        past.execute("COMMIT")


def _sql_value(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("hex:"):
        with suppress(ValueError):
            return bytes.fromhex(value[4:])
    return value if isinstance(value, str | int | float | bytes | None) else json.dumps(value)


def _read_everything(history: History) -> None:
    with suppress(HistoryError):
        for sighting in history.sightings():
            json.dumps(sighting.event)
            explain(sighting)
            _correct(sighting, history)
    for read in (
        lambda: history.similar(_TEMPLATE, _EMBEDDER, 0.5),
        history.unknowns,
        lambda: history.unknown("u-1"),
        history.tallies,
        history.newest_model,
        lambda: history.counter_examples(_EMBEDDER),
    ):
        try:
            found = read()
        except HistoryError as error:
            one_line(error)
            continue
        for vector in _vectors(found):
            if not np.isfinite(vector).all() or not len(vector):
                raise AssertionError(f"a vector that is none: {vector}")


def _correct(sighting: PastSighting, history: History) -> None:
    for whom in (None, "Anna", "undo"):
        try:
            made = (
                corrections.undo(sighting, _people()) if whom == "undo"
                else corrections.correct(sighting, whom, history, _people(), _CONFIG)
            )  # fmt: skip
            encode(made.event)
        except (HistoryError, GalleryError) as error:
            one_line(error)


@cache
def _people() -> FolderGallery:
    gallery = FolderGallery.in_memory(MODEL, DIGEST, DIMENSION)
    gallery.add([sample("Anna", 1)])
    return gallery


def _vectors(found: Any) -> list[Any]:
    if isinstance(found, list | tuple):
        return [vector for part in found for vector in _vectors(part)]
    vector = getattr(found, "template", None)
    return [] if vector is None else [vector]


FOLDER_SEEDS: Final = [
    b"Anna/1.jpg\nAnna/2.png\nBob.jpg",
    b"a/b/c/d.jpg\n.hidden/x.jpg\n@eaDir/x.jpg",
    b"L:l -> ..\nP:p.jpg",
    b"P:p.jpg\np.jpg",
]
_PHOTO: Final = b"\xff\xd8\xff\xe0"


def check_folder(data: bytes) -> None:
    """Each line is the path of a file; ``L:NAME -> TARGET`` is a link, ``P:NAME`` a pipe."""
    with tempfile.TemporaryDirectory(dir=scratch()) as name:
        root = Path(name) / "given"
        root.mkdir()
        outside = Path(name) / "outside"
        outside.mkdir()
        (outside / "secret.jpg").write_bytes(_PHOTO)
        (root / "way out").symlink_to(outside)
        for line in data.split(b"\n")[:20]:
            with suppress(OSError, ValueError):
                _make(root, line)
        try:
            people = people_of(root)
        except SourceError as error:
            one_line(error)
            return
        for photo, person in people:
            if (
                photo.parent.resolve() == outside.resolve()
                or root.resolve() not in (photo.parent.resolve() / "x").parents
            ):
                raise AssertionError(f"outside of the folder that was given: {photo}")
            person.encode()


def _make(root: Path, line: bytes) -> None:
    kind, _, rest = line.partition(b":") if line[:2] in (b"L:", b"P:") else (b"F", b"", line)
    text, _, target = rest.partition(b" -> ")
    path = root / os.fsdecode(text)
    # To write to a pipe that is there already would wait for its reader.
    if ".." in path.parts or root not in path.parents or os.path.lexists(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == b"L":
        path.symlink_to(os.fsdecode(target))
    elif kind == b"P":
        os.mkfifo(path)
    else:
        path.write_bytes(_PHOTO)


def _targets() -> dict[str, Target]:
    made: Any = (
        ("photos", photo_seeds, check_photo),
        ("video", video_seeds, check_video),
        ("h5", h5_seeds, check_h5),
        ("manifests", manifest_seeds, check_manifest),
        ("configuration", config_seeds, check_config),
        ("urls", lambda: URL_SEEDS, check_url),
        ("events", event_seeds, check_event),
        ("states", state_seeds, check_state),
        ("rows", row_seeds, check_row),
        ("folders", lambda: FOLDER_SEEDS, check_folder),
    )
    own = {name: Target(name, seeds, check) for name, seeds, check in made}
    own["h5"] = Target("h5", h5_seeds, check_h5, h5_process().close)
    return own | {target.name: target for target in (*documents.TARGETS, requests.TARGET)}


TARGETS: Final = _targets()
