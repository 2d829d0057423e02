"""The files in a folder that belong to its owner, and not to the system or to another folder."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from worker.errors import SourceError

_SYSTEM_NAMES: Final = frozenset({
    # Network storage: thumbnails, recycle bins, snapshots.
    "@eadir", "@__thumb", "@tmp", "@sharebin", "@sharesnap", "@recycle", "@recently-snapshot", "@transcode",
    "@appstore", "#recycle", "#snapshot", "~snapshot", "trashbox", "recycle bin", "recycle.bin", "files_trashbin",
    "files_versions",
    # Windows.
    "$recycle.bin", "recycler", "recycled", "system volume information", "$extend", "$windows.~bt", "$windows.~ws",
    "msocache", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini",
    # macOS and Linux. The hidden ones among them do not keep a folder from being empty.
    ".ds_store", ".localized", ".apdisk", ".spotlight-v100", ".fseventsd", ".trashes", ".temporaryitems",
    ".documentrevisions-v100", ".volumeicon.icns", ".metadata_never_index", ".directory", ".hidden", ".snapshot",
    ".snapshots", ".zfs", ".recycle", ".thumbnails", ".@__thumb", ".@upload_cache", ".streams", ".@__qini", ".trash",
    ".stfolder", ".stversions", ".stignore", ".sync",
    "__macosx", "network trash folder", "temporary items", "thevolumesettingsfolder", "icon\r", "ipod photo cache",
    "lost+found", "trash", "aquota.user", "aquota.group",
})  # fmt: skip
_SYSTEM_PATTERN: Final = re.compile(
    r"found\.\d{3}|\.?trash-\d+|\._.*|\.nfs[0-9a-f]+|.*\.(?:photoslibrary|photolibrary|migratedphotolibrary|aplibrary|lrdata|lrcat-data)"
)
"""Files that a check of a disk found, and the libraries of photo programs: these hold previews and what was deleted."""


def is_hidden(name: str) -> bool:
    """Whether the name of a file or folder hides it, as that of ``.DS_Store`` and ``.Trash-1000`` does."""
    return name.startswith(".")


def is_system_name(name: str) -> bool:
    """Whether systems make files or folders of this name by themselves: recycle bins, thumbnails and their like."""
    lowered = name.lower()
    return lowered in _SYSTEM_NAMES or _SYSTEM_PATTERN.fullmatch(lowered) is not None


@dataclass(slots=True)
class Tree:
    """What lies below a folder: files, sorted; and the folders that were passed over, as systems made them or as they
    are links."""

    files: list[Path] = field(default_factory=list)
    system: list[Path] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)


def files_below(root: Path) -> Tree:
    """The files in ``root``, at any depth. Hidden files and folders are passed over, and so is what systems make.

    Links to folders are not followed: a link may lead back up, or to files that nobody meant. A link to a file counts
    as that file, and ``root`` itself may be a link.

    Raises:
        SourceError: a folder cannot be listed.
    """

    def stop(error: OSError) -> None:
        raise SourceError(f"folder {error.filename} cannot be listed: {error.strerror}") from None

    tree = Tree()
    for folder, subfolders, files in os.walk(root, onerror=stop):
        names = sorted(name for name in subfolders if not is_hidden(name))
        system = [name for name in names if is_system_name(name)]
        links = [name for name in names if name not in system and Path(folder, name).is_symlink()]
        tree.system += [Path(folder, name) for name in system]
        tree.links += [Path(folder, name) for name in links]
        subfolders[:] = [name for name in names if name not in system and name not in links]
        tree.files += [Path(folder, name) for name in files if not is_hidden(name) and not is_system_name(name)]
    tree.files.sort()
    return tree
