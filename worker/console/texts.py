"""What the pages say, in the reader's language: English as it stands in the templates, others from ``languages``.

A text holds what changes in braces, such as ``{count} people``. It may hold markup; values are escaped.
"""

import json
from contextvars import ContextVar
from pathlib import Path
from typing import Final

from fastapi import Request
from markupsafe import Markup

FOLDER: Final = Path(__file__).parent / "languages"
ENGLISH: Final = "en"
LANGUAGES: Final[dict[str, dict[str, str]]] = {
    path.stem: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))
}
"""By language, the texts by their English."""

_language: ContextVar[str] = ContextVar("language", default=ENGLISH)


async def speaking(request: Request) -> None:
    """Lets the page speak the first language that the browser asks for and that there is."""
    speak(request)


def speak(request: Request) -> None:
    """The same, outside of dependencies."""
    _language.set(_wanted(request.headers.get("accept-language", "")))


def language() -> str:
    """The language of the page, such as ``de``."""
    return _language.get()


def text(english: str, /, **values: object) -> Markup:
    """This text in the reader's language, with these values in it."""
    found = LANGUAGES.get(language(), {}).get(english, english)
    return Markup(found).format(**values) if values else Markup(found)  # noqa: S704 # our own texts


def counted(count: int, one: str, many: str, /, **values: object) -> Markup:
    """The text for one, or for another number; it may hold ``{count}``."""
    return text(one if count == 1 else many, count=f"{count:,}", **values)


def _wanted(accepted: str) -> str:
    ranked = []
    for place, each in enumerate(accepted.split(",")):
        tag, _, quality = each.strip().partition(";q=")
        try:
            ranked.append((-float(quality or 1), place, tag.partition("-")[0].lower()))
        except ValueError:
            continue
    known = (tag for weight, _, tag in sorted(ranked) if weight and (tag == ENGLISH or tag in LANGUAGES))
    return next(known, ENGLISH)
