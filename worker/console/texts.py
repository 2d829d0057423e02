"""What the pages say, in the reader's language: English as it stands in the templates, others from ``languages``.

A text holds what changes in braces, such as ``{count} people``. It may hold markup; values are escaped.

What the program says elsewhere, such as an error or a finding, is an English sentence when it comes here: programs and
logs get the same one. :func:`told` finds the sentence that it was made from in ``languages/told``.
"""

import json
import re
from collections import defaultdict
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
_PLACES: Final = re.compile(r"\{(\d+)\}")
_WORD: Final = re.compile(r"[^\W\d_]+")
_LONGEST: Final = 1000
_CUTS: Final = tuple(
    map(re.compile, (r"^([^:;,()]*)(: )", r"(; )(?![^(]*\))", r"(: )", r"(, )", r"( ?[()])", r"(?<=\d)( )"))
)
"""Where a sentence may be made of several; the last is after a number."""

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


def told(english: str, *, marked: bool = True) -> str:
    """What the program says, in the reader's language as far as that is known, else English, ``marked`` as that. A text
    of a page is in that language already."""
    if language() == ENGLISH or not english or isinstance(english, Markup):
        return english
    found = _TOLD[language()].say(english) if language() in _TOLD and len(english) <= _LONGEST else None
    if found is None and marked:
        return Markup('<span lang="en">{}</span>').format(english)
    return found or english


def counted(count: int, one: str, many: str, /, **values: object) -> Markup:
    """The text for one, or for another number; it may hold ``{count}``."""
    return text(one if count == 1 else many, count=grouped(count), **values)


def grouped(number: float) -> str:
    """A whole number with its thousands apart; a comma would be that of a fraction in most languages but English."""
    return f"{number:,.0f}".replace(",", "," if language() == ENGLISH else "\N{NARROW NO-BREAK SPACE}")


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


class _Told:
    """The sentences of one language: those that are always the same, and the others, those first that say most."""

    def __init__(self, sentences: dict[str, str]) -> None:
        self._same = {english: said for english, said in sentences.items() if not _PLACES.search(english)}
        self._made = [
            (max(_PLACES.sub("\0", english).split("\0"), key=len), _pattern(english), _PLACES.sub(r"{v\1}", said))
            for english, said in sorted(sentences.items(), key=lambda each: -len(_PLACES.sub("", each[0])))
            if english not in self._same
        ]

    def say(self, english: str) -> str | None:
        """A sentence, or several that stand in one, as far as they are known; None where nothing is."""
        found = self._say(english, {})
        return None if found is None else found[0]

    def _say(self, english: str, seen: dict[str, tuple[str, bool] | None]) -> tuple[str, bool] | None:
        """The same, and whether that is all of it."""
        if english not in seen:
            seen[english] = self._whole(english, seen) or self._parts(english, seen)
        return seen[english]

    def _whole(self, english: str, seen: dict[str, tuple[str, bool] | None]) -> tuple[str, bool] | None:
        if english in self._same:
            return self._same[english], True
        for literal, pattern, said in self._made:
            if literal in english and (found := pattern.fullmatch(english)):
                values = defaultdict(str, found.groupdict())
                for place, value in found.groupdict().items():
                    # A word alone is a name, which stays as it is.
                    if " " in value and (spoken := self._say(value, seen)) is not None:
                        values[place] = spoken[0]
                return said.format_map(values), True
        return None

    def _parts(self, english: str, seen: dict[str, tuple[str, bool] | None]) -> tuple[str, bool] | None:
        part = None
        for cut in _CUTS:
            pieces = [piece for piece in cut.split(english) if piece]
            spoken = [self._say(piece, seen) for piece in pieces] if len(pieces) > 1 else []
            if any(spoken):
                is_all = all((new and new[1]) or not _WORD.search(old) for new, old in zip(spoken, pieces, strict=True))
                joined = "".join(new[0] if new else old for new, old in zip(spoken, pieces, strict=True)), is_all
                if is_all:
                    return joined
                part = part or joined
        return part


def _pattern(english: str) -> re.Pattern[str]:
    """What finds a sentence again; of several values side by side, the first takes all. Beside one word alone, a value
    is one, too; and none goes over into the next sentence."""
    pieces, at = list[str](), 0
    value = "(?:(?!; ).)" if len(_WORD.findall(_PLACES.sub("", english))) > 1 else r"\S"
    for place in re.finditer(r"\{(\d+)\}(?:\{\d+\})*", english):
        pieces += [re.escape(english[at : place.start()]), f"(?P<v{place[1]}>{value}*?)"]
        at = place.end()
    return re.compile("".join([*pieces, re.escape(english[at:])]), re.DOTALL)


_TOLD: Final = {
    path.stem: _Told(json.loads(path.read_text("utf-8"))) for path in sorted((FOLDER / "told").glob("*.json"))
}
"""By language, what is said elsewhere."""
