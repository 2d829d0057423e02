"""Where the kept crops of a gallery's samples lie, so that they go with the samples."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from worker.errors import GalleryError

CROPS: Final = "crops"
_NAME: Final = re.compile(r"^([0-9a-f]{32})-([0-9a-f]{64})\.crop$")


def crop_files(folder: Path) -> dict[str, Path]:
    """The files in the folder of crops ``folder``, by the sample that each belongs to; none where it is missing."""
    try:
        entries = list(folder.iterdir())
    except OSError:
        return {}
    return {match[1]: path for path in entries if (match := _NAME.match(path.name))}


def remove_crops(folder: Path, sample_ids: Iterable[str]) -> int:
    """Removes the crops of these samples from the folder of crops ``folder``; returns how many there were.

    Raises:
        GalleryError: one cannot be removed.
    """
    files = crop_files(folder)
    gone = [files[sample_id] for sample_id in sample_ids if sample_id in files]
    for path in gone:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from None
    return len(gone)


def unwritable(folder: Path, error: OSError) -> GalleryError:
    """The error of a folder of crops in which something cannot be changed."""
    return GalleryError(f"crops {folder} cannot be written: {error.strerror or error}; check its permissions")
