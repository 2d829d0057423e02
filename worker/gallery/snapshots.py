"""Versions of a small set of files. Each is written as a whole, checked by digest, and taken into use atomically.

Layout of the folder::

    CURRENT                               the name of the snapshot in use
    lock                                  held by the process that writes
    snapshots/<version>-<sha256>/         the digest of its manifest.json
        manifest.json                     the digests of the other files, and fields of the owner
        ...

Where the process has a key, each file but CURRENT is sealed, see :mod:`worker.encryption`; digests are those of the
files as they lie there.

The name holds the digest of the manifest, and the manifest those of the files, so that no flipped bit goes unseen. If
a process is killed, at any moment, either the old or the new version is in use. Large files that do not change can be
shared: a version then holds a hard link to the file that an earlier version wrote.
"""

import hashlib
import json
import mmap
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from worker.encryption import is_sealed, seal, unseal
from worker.errors import GalleryError
from worker.files import file_stamp, private_folder, replace_file, sync_folder, tighten, why_unwritable, write_durably
from worker.logs import get_logger

KEPT_SNAPSHOTS: Final = 3
MANIFEST: Final = "manifest.json"
_NAME: Final = re.compile(r"^(\d{8,})-([0-9a-f]{64})$")
_LOCK_TIMEOUT_S: Final = 30.0

_log = get_logger(__name__)


FileContent = bytes | mmap.mmap


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One intact version: its number, its manifest, and the content of its files. Shared files are memory-mapped, or in
    memory if they are encrypted."""

    version: int
    manifest: dict[str, Any]
    files: dict[str, FileContent]


class SnapshotStore:
    """The snapshots in one folder, the newest ``kept`` of them. Reading needs no lock; writing happens inside
    :meth:`locked`."""

    def __init__(self, folder: Path, *, kept: int = KEPT_SNAPSHOTS) -> None:
        self.folder = folder
        self._kept = kept
        self._snapshots = folder / "snapshots"
        self._current = folder / "CURRENT"
        self._digests: dict[str, str] = {}
        self._verified: dict[tuple[int, ...], str] = {}
        self._unsealed: dict[str, bytes] = {}

    def exists(self) -> bool:
        """Whether a snapshot was ever written here.

        Raises:
            GalleryError: this user may not look into the folder.
        """
        try:
            return self._current.exists() or bool(self._names())
        except OSError as error:
            hint = "it is for the user who made it: run as that user, or give it to this one (chown)"
            what = hint if isinstance(error, PermissionError) else "choose another path"
            raise GalleryError(f"gallery {self.folder} cannot be read: {error.strerror or error}; {what}") from None

    def stamp(self) -> tuple[int, int, int] | None:
        """A value that changes whenever another snapshot comes into use; costs one ``stat``."""
        return file_stamp(self._current)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps every other writer out, in this process and in others.

        Raises:
            GalleryError: another process holds the lock for too long, or the folder cannot be written.
        """
        try:
            private_folder(self.folder)
            lock = FileLock(self.folder / "lock", timeout=_LOCK_TIMEOUT_S, mode=0o600)
            lock.acquire()
        except Timeout:
            raise GalleryError(f"gallery {self.folder} is being changed by another process; try again later") from None
        except (OSError, NotImplementedError) as error:
            raise _unwritable(self.folder, error) from None
        try:
            yield
        finally:
            lock.release()

    def read(self) -> Snapshot:
        """The snapshot in use; if it is damaged, the newest intact one before it.

        Raises:
            GalleryError: no snapshot is intact.
            EncryptionError: it is encrypted, and its key is not among those of this process.
        """
        tighten(self.folder)
        while True:
            pointed_to = self._pointer()
            names = self._names()
            if pointed_to in names:
                names = names[: names.index(pointed_to) + 1]
            elif names:
                _log.warning("gallery_pointer_damaged", gallery=str(self.folder), file="CURRENT")
            damaged: dict[str, str] = {}
            for name in reversed(names):
                try:
                    snapshot = self._load(self._snapshots / name)
                except (OSError, ValueError) as error:
                    if self._pointer() != pointed_to:
                        break  # replaced and pruned while it was read: begin again with the new one
                    damaged[name] = str(error)
                else:
                    self._tell_of(damaged, f"version {snapshot.version} is used instead")
                    return snapshot
            else:
                self._tell_of(damaged, "no version before it is intact")
                raise GalleryError(
                    f"gallery {self.folder} has no intact snapshot: restore the folder from a backup, "
                    "or remove it and enroll the photos again"
                )

    def write(
        self,
        files: Mapping[str, FileContent],
        fields: Mapping[str, Any],
        shared: Mapping[str, bytes | None] | None = None,
    ) -> tuple[int, dict[str, FileContent]]:
        """Makes ``files`` and ``shared`` the snapshot in use; call inside :meth:`locked`.

        ``fields`` go into the manifest. A file that is memory-mapped in ``files``, or was so in the manifest that
        ``fields`` come from, will be so again when it is read.
        A file in ``shared`` without content is the file of that name in the snapshot that was read or written last. It
        is linked, not copied, so no other content may have its name. Old snapshots are removed, and so is what killed
        writers left behind.

        Returns the new version, and those files of ``shared`` that came with content, memory-mapped.

        Raises:
            GalleryError: the folder cannot be written; the snapshot in use stays as it was.
        """
        names, shared = self._names(), shared or {}
        version = 1 + max((_version(name) for name in names), default=0)
        new: dict[str, FileContent] = {
            file: seal(content, _about(file)) for file, content in {**files, **shared}.items() if content is not None
        }
        digests = {name: self._digests[name] for name in shared if name not in new}
        digests |= {name: hashlib.sha256(content).hexdigest() for name, content in new.items()}
        was_mapped = fields.get("mapped", ())
        mapped = [
            *shared,
            *(file for file, content in files.items() if isinstance(content, mmap.mmap) or file in was_mapped),
        ]
        manifest = json.dumps({**fields, "version": version, "files": digests, "mapped": mapped}, indent=1).encode()
        manifest = seal(manifest, _about(MANIFEST))
        name = f"{version:08d}-{hashlib.sha256(manifest).hexdigest()}"
        draft = self._snapshots / f".draft-{secrets.token_hex(8)}"
        try:
            self._remove_drafts()
            private_folder(self._snapshots)
            private_folder(draft)
            for file_name, content in {**new, MANIFEST: manifest}.items():
                write_durably(draft / file_name, content)
            for file_name in shared:
                if file_name not in new:
                    self._link(names, draft / file_name)
            sync_folder(draft)
            draft.rename(self._snapshots / name)
            sync_folder(self._snapshots)
            stored: dict[str, FileContent] = {
                file: self._map(self._snapshots / name / file, digests[file]) for file in shared if file in new
            }
            replace_file(self._current, name.encode())
        except (OSError, ValueError) as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise _unwritable(self.folder, error) from None
        self._digests = digests
        for old in [*names, name][: -self._kept]:
            shutil.rmtree(self._snapshots / old, ignore_errors=True)
        return version, stored

    def forget_older(self) -> None:
        """Removes every snapshot except the one in use, so that no damage leads back to them; call inside
        :meth:`locked`.

        Raises:
            GalleryError: one of them cannot be removed.
        """
        kept = self._pointer()
        try:
            self._remove_drafts()
            for name in self._names():
                if name != kept:
                    shutil.rmtree(self._snapshots / name)
            sync_folder(self._snapshots)
        except OSError as error:
            raise _unwritable(self.folder, error) from None

    def clear(self) -> None:
        """Removes every snapshot; call inside :meth:`locked`.

        Raises:
            GalleryError: one of them cannot be removed.
        """
        try:
            self._current.unlink(missing_ok=True)
            if self._snapshots.exists():
                shutil.rmtree(self._snapshots)
        except OSError as error:
            raise _unwritable(self.folder, error) from None

    def all_readable(self) -> Iterator[Snapshot]:
        """Every snapshot that is intact, oldest first."""
        for name in self._names():
            try:
                yield self._load(self._snapshots / name)
            except (OSError, ValueError):
                continue

    def _tell_of(self, damaged: Mapping[str, str], instead: str) -> None:
        for name, problem in damaged.items():
            _log.warning(
                "gallery_snapshot_damaged", gallery=str(self.folder), snapshot=name, problem=problem, instead=instead
            )

    def _load(self, folder: Path) -> Snapshot:
        digest_of_manifest = folder.name.split("-", 1)[1]
        raw = (folder / MANIFEST).read_bytes()
        if hashlib.sha256(raw).hexdigest() != digest_of_manifest:
            raise ValueError(f"{MANIFEST} does not match its digest")
        manifest = json.loads(bytes(unseal(raw, _about(MANIFEST), self._label())))
        digests, mapped = manifest["files"], manifest.get("mapped", [])
        files: dict[str, FileContent] = {}
        for name, digest in digests.items():
            if name in mapped:
                files[name] = self._map(folder / name, digest)
                continue
            content = (folder / name).read_bytes()
            if hashlib.sha256(content).hexdigest() != digest:
                raise ValueError(f"{name} does not match its digest")
            files[name] = bytes(unseal(content, _about(name), self._label()))
        self._digests = digests
        self._unsealed = {digest: self._unsealed[digest] for digest in digests.values() if digest in self._unsealed}
        return Snapshot(manifest["version"], manifest, files)

    def _map(self, path: Path, digest: str) -> FileContent:
        """The file, memory-mapped. Once its digest was right, it is read again only after it has changed. What is in a
        sealed one is decrypted to memory, once."""
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            seen = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
            if self._verified.get(seen) != digest:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    raise ValueError(f"{path.name} does not match its digest")
                self._verified[seen] = digest
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if not is_sealed(content):
            return content
        if digest not in self._unsealed:
            self._unsealed[digest] = bytes(unseal(content, _about(path.name), self._label()))
        return self._unsealed[digest]

    def _label(self) -> str:
        return f"gallery {self.folder}"

    def _link(self, names: list[str], target: Path) -> None:
        """Links ``target`` to the file of its name in the newest of the snapshots ``names`` that has such a file."""
        holders = (self._snapshots / name / target.name for name in reversed(names))
        source = next((path for path in holders if path.exists()), None)
        if source is None:
            raise FileNotFoundError(2, f"{target.name} is gone")
        try:
            target.hardlink_to(source)
        except OSError:  # a file system without hard links
            write_durably(target, source.read_bytes())

    def _names(self) -> list[str]:
        try:
            entries = [entry.name for entry in self._snapshots.iterdir()]
        except OSError:
            return []
        return sorted((name for name in entries if _NAME.match(name)), key=lambda name: (_version(name), name))

    def _pointer(self) -> str:
        try:
            return self._current.read_bytes().decode("ascii", errors="replace")
        except OSError:
            return ""

    def _remove_drafts(self) -> None:
        for draft in self._snapshots.glob(".draft-*"):
            shutil.rmtree(draft, ignore_errors=True)


class MemoryStore:
    """One snapshot in memory, never on disk; with the methods of :class:`SnapshotStore`."""

    folder = Path("in memory")

    def __init__(self) -> None:
        self._snapshot = Snapshot(0, {}, {})

    def stamp(self) -> tuple[int, int, int] | None:
        return None

    @contextmanager
    def locked(self) -> Iterator[None]:
        yield

    def read(self) -> Snapshot:
        return self._snapshot

    def forget_older(self) -> None:
        """There are none."""

    def write(
        self,
        files: Mapping[str, FileContent],
        fields: Mapping[str, Any],
        shared: Mapping[str, bytes | None] | None = None,
    ) -> tuple[int, dict[str, FileContent]]:
        version, kept, shared = self._snapshot.version + 1, self._snapshot.files, shared or {}
        stored = {name: kept[name] if content is None else content for name, content in shared.items()}
        self._snapshot = Snapshot(version, dict(fields), {**files, **stored})
        return version, stored


def _about(file: str) -> str:
    return f"gallery/{file}"


def _version(name: str) -> int:
    return int(name.split("-", 1)[0])


def _unwritable(folder: Path, error: OSError | ValueError | NotImplementedError) -> GalleryError:
    return GalleryError(f"gallery {folder} cannot be written: {why_unwritable(error)}")
