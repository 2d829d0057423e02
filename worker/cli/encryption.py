"""``facestream encryption``: what is kept on disk, encrypted, made plain again, or given another key."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from worker.cli.history import GalleryOption, StateDir, settings
from worker.cli.options import AsJson, ConfigFile, command_group, quiet_logs
from worker.cli.screen import complain, count_of, print_json, progress_bar, say
from worker.encryption import Keys, Sealing, keys, new_key, parse_keys, sealing_of, unseal, use
from worker.errors import ConfigError, FacestreamError, OutputError, SinkError
from worker.files import open_private, replace_file, writing
from worker.people_keys import PeopleKeys

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from worker.config import Config
    from worker.gallery.database.gallery import DatabaseGallery
    from worker.history.store import History

_SAID: Final[dict[Sealing, str]] = {
    "plain": "not encrypted", "current": "encrypted", "older": "encrypted with an older key",
    "unknown": "encrypted with a key that is not given",
}  # fmt: skip
_HEAD_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class _Store:
    """``files``: all of it that holds people; ``convert`` writes it anew, file by file, as the keys say."""

    kind: str
    path: Path
    files: Callable[[], list[Path]]
    convert: Callable[[], Iterator[object]]

    def sealings(self) -> Counter[Sealing]:
        """How many of its files are sealed by which of the keys."""
        from worker import sqlite

        if self.kind == "database":
            return Counter(sqlite.sealing_of(path) for path in self.files())
        return Counter(sealing_of(_head(path)) for path in self.files())


def register(app: typer.Typer) -> None:
    """Adds the commands of this chapter to ``app``."""
    group = command_group(
        app, "encryption", "Encryption of what is kept on disk: check, apply, undo, rotate the key, open a picture."
    )
    group.command("check")(check)
    group.command("apply")(apply)
    group.command("undo")(undo)
    group.command("rotate")(rotate)
    group.command("open")(open_picture)


def check(
    gallery: GalleryOption = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    json_output: AsJson = False,
) -> int:
    """Say what is encrypted and what is not; exit code 1 if something is not, or has an older or unknown key."""
    quiet_logs()
    code = 0
    config_ = settings(config, gallery, state_dir)
    people = keys().people is not None
    # With keys of people alone, files are meant to be plain.
    stores = _stores(config_) if keys().reading or not people else []
    for shared in _shared(config_):
        with shared.open() as rows:
            plain = "" in rows.tags_of()
        code = 1 if plain else code
        _tell_rows(shared.label, plain=plain, json_output=json_output)
    if not stores and not people and not json_output:
        say("nothing is kept on this machine by this configuration")
    for store in stores:
        found = store.sealings()
        if any(number for sealing, number in found.items() if sealing != "current"):
            code = 1
        if json_output:
            print_json({"kind": store.kind, "path": str(store.path), "files": dict(found)})
        else:
            said = ", ".join(f"{count_of(number, 'file')} {_SAID[sealing]}" for sealing, number in found.items())
            say(f"{store.kind} {store.path}: {said or 'empty'}")
    return code


def apply(
    gallery: GalleryOption = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    json_output: AsJson = False,
) -> int:
    """Encrypt all that is not yet encrypted with the (first) key; stop the workers that use it before. What is damaged
    or in use stays as it is and is named, the exit code is 1 then, and the command may be given again."""
    quiet_logs()
    config_ = settings(config, gallery, state_dir)
    _require_key()
    return _convert(config_, json_output)


def undo(
    gallery: GalleryOption = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    json_output: AsJson = False,
) -> int:
    """Make all of it plain again; stop the workers before, and take the key out of the configuration afterwards."""
    quiet_logs()
    config_ = settings(config, gallery, state_dir)
    _require_key()
    people = keys().people
    use(Keys(None, keys().reading, None if people is None else PeopleKeys(people.path, writing=False)))
    return _convert(config_, json_output)


def rotate(
    gallery: GalleryOption = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    json_output: AsJson = False,
) -> int:
    """Put a new key into the key file and encrypt everything with it; stop the workers before. The older keys leave the
    file once nothing needs them any more; backups that were made before need them still."""
    quiet_logs()
    config_ = settings(config, gallery, state_dir)
    _require_key()
    file = config_.encryption.key_file
    if file is None or config_.encryption.key is not None:
        raise ConfigError(
            "only a key in a file (encryption.key_file) can be replaced by this command; elsewhere, write a new key "
            "before the old one, run 'facestream encryption apply', and then take the old one away"
        )
    # First of all the new key goes to the disk: nothing is ever sealed with a key that a crash could lose.
    with writing(file):
        older, new = file.read_text(encoding="ascii"), new_key()
        replace_file(file.resolve(), f"{new}\n{older}".encode("ascii"))
    use(replace(parse_keys(f"{new}\n{older}"), people=keys().people))
    if _convert(config_, json_output):
        complain(f"{file} keeps the older keys: mend what is named above, and run 'facestream encryption apply'")
        return 1
    if str(config_.evidence.store).startswith("s3://"):
        say(f"{file} keeps the older keys, for pictures in {config_.evidence.store} until they expire", err=True)
        return 0
    with writing(file):
        replace_file(file.resolve(), f"{new}\n".encode("ascii"))
    return 0


def open_picture(
    picture: Annotated[Path, typer.Argument(metavar="FILE", help="An encrypted picture below evidence.store.")],
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="JPEG file to write.")],
    config: ConfigFile = None,
) -> None:
    """Write a picture of a sighting as an ordinary JPEG that only its owner may read."""
    from worker.history.evidence_store import about

    quiet_logs()
    settings(config, None, None)
    path = picture.resolve()
    try:
        plain = unseal(path.read_bytes(), about("/".join(path.parts[-3:])), picture)
    except OSError as error:
        raise SinkError(f"{picture} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise SinkError(f"{picture} cannot be opened: {error}") from None
    if output.resolve() == path:
        raise OutputError(f"{output} is the encrypted picture itself: name another file")
    with writing(output), open_private(output) as file:
        file.write(plain)
    say(f"wrote {output}")


def _require_key() -> None:
    if not keys().reading and keys().people is None:
        raise ConfigError(
            "there is no key: make one with 'openssl rand -base64 32', and name its file with "
            "FACESTREAM_ENCRYPTION__KEY_FILE, or 'encryption: {key_file: FILE}' in the configuration"
        )


def _convert(config: "Config", json_output: bool) -> int:
    """Converts each store by itself; one that cannot be does not keep the others from it."""
    from worker.config import cache_dir
    from worker.evaluation.face_cache import remove_cache
    from worker.gallery.database.gallery import DatabaseGallery

    code = 0
    for store in _stores(config):
        done = 0
        try:
            with progress_bar(f"{store.kind} {store.path.name}", len(store.files())) as advance:
                for _ in store.convert():
                    done += 1
                    advance(1)
        except FacestreamError as error:
            code = 1
            complain(str(error))
            continue
        found = store.sealings()
        if json_output:
            print_json({"kind": store.kind, "path": str(store.path), "files": dict(found)})
        elif found:
            said = ", ".join(f"{count_of(number, 'file')} {_SAID[sealing]}" for sealing, number in found.items())
            say(f"{store.kind} {store.path}: {said}")
    for shared in _shared(config):
        try:
            with shared.open() as rows:
                rows.seal_anew()
                plain = "" in rows.tags_of()
                # All tables, of the past too, are written anew with those of a gallery.
                if isinstance(rows, DatabaseGallery) and not rows.rewrite_tables():
                    complain(f"{shared.label}: what was there stays in its tables until their owner runs VACUUM FULL")
        except FacestreamError as error:
            code = 1
            complain(str(error))
            continue
        _tell_rows(shared.label, plain=plain, json_output=json_output)
    # The next calibration makes them again.
    remove_cache(cache_dir())
    return code


@dataclass(frozen=True, slots=True)
class _Shared:
    """Rows of people in a database."""

    label: str
    open: "Callable[[], AbstractContextManager[DatabaseGallery | History]]"


def _shared(config: "Config") -> list[_Shared]:
    """Everything that this configuration has in a database, where people have keys of their own."""
    from worker.config import history_place
    from worker.database.address import parse_database_url
    from worker.gallery.database.gallery import DatabaseGallery
    from worker.history.store import History

    if keys().people is None:
        return []
    found = []
    for url in dict.fromkeys(path for path in (config.gallery, config.shadow_gallery) if path and "://" in path):
        found += [
            _Shared(f"{one.label.partition('?')[0]}?gallery={one.name}", partial(closing, one))
            for one in DatabaseGallery.all_in(url)
        ]
    if isinstance(place := history_place(config), str):
        found.append(_Shared(f"past in {parse_database_url(place).server}", partial(History.open, place)))
    return found


def _tell_rows(label: str, *, plain: bool, json_output: bool) -> None:
    if json_output:
        print_json({"kind": "rows", "path": label, "sealed": not plain})
    else:
        say(f"rows {label}: {'NOT all are sealed' if plain else 'sealed'} by keys of people")


def _stores(config: "Config") -> list[_Store]:
    """All that a worker with this configuration keeps on this machine."""
    from worker.config import default_state_dir, history_folder

    state_dirs = {folder for folder in (history_folder(config), default_state_dir()) if folder and folder.is_dir()}
    named = [Path(path) for path in (config.gallery, config.shadow_gallery) if path and "://" not in path]
    copies = [path.parent for folder in sorted(state_dirs) for path in sorted(folder.rglob("CURRENT"))]
    stores = [store for folder in [*named, *copies] for store in _of_gallery(folder)]
    for folder in sorted(state_dirs):
        stores += [_of_database(path) for path in sorted(folder.rglob("*.sqlite3"))]
    place = config.evidence.store
    if place is not None and "://" not in place and Path(place).is_dir():
        stores.append(_of_pictures(Path(place)))
    return stores


def _of_gallery(folder: Path) -> Iterator[_Store]:
    from worker.gallery.crops import CROPS, rewrite_crops
    from worker.gallery.folder import PREVIOUS, FolderGallery, rewrite

    for path in (folder, folder / PREVIOUS):
        if not FolderGallery.exists(path):
            continue
        yield _Store("gallery", path, partial(_files, path / "snapshots", "*/*"), partial(_once, rewrite, path))
        crops = path / CROPS
        if crops.is_dir():
            yield _Store("crops", crops, partial(_files, crops, "*.crop"), partial(rewrite_crops, crops))


def _of_database(path: Path) -> _Store:
    from worker import sqlite

    return _Store("database", path, lambda: [path], partial(_once, sqlite.convert, path))


def _of_pictures(folder: Path) -> _Store:
    from worker.history.evidence_store import FolderStore

    return _Store("pictures", folder, partial(_files, folder, "*/*/*.jpg"), lambda: FolderStore(folder).rewrite())


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern))


def _once(convert: Callable[[Path], object], path: Path) -> Iterator[object]:
    yield convert(path)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)
