"""Paths and URLs as people write them: ``~`` for a home, and blanks that came along when they were pasted."""

from pathlib import Path
from typing import Annotated, Final, TypeAlias

from pydantic import AfterValidator

_INVISIBLE: Final = "\u200b\u200e\u200f\u2060\ufeff"
"""Characters without width that web pages leave around what is copied from them."""


def expand_user(path: Path) -> Path:
    """``path`` with the home in place of ``~`` or ``~NAME``.

    Raises:
        ValueError: there is no such user.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"'{path}' begins with a user unknown to this machine; write the path in full") from None


def expand_text(text: str) -> str:
    """:func:`expand_user` for what is a path or a URL; blanks around a URL are taken off.

    Raises:
        ValueError: there is no such user.
    """
    if "://" in text:
        return tidy_url(text)
    return str(expand_user(Path(text))) if text.startswith("~") else text


def tidy_url(text: str) -> str:
    """``text`` without what stands around it and cannot be seen, if it is a URL or the number of a device.

    The name of a file may begin or end with a blank: it stays as it is.
    """
    tidy = text.strip().strip(_INVISIBLE).strip()
    return tidy if "://" in tidy or tidy.isdecimal() else text


UserPath: TypeAlias = Annotated[Path, AfterValidator(expand_user)]
PathText: TypeAlias = Annotated[str, AfterValidator(expand_text)]
UrlText: TypeAlias = Annotated[str, AfterValidator(tidy_url)]
