"""Names and other texts from outside, made fit for screens, JSON, databases and comparison."""

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

_INVISIBLE: Final = frozenset("\u00ad\u061c\u180e\u200b\u200e\u200f\u2060\ufeff") | frozenset(
    map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A)))
)
"""Characters without a picture that no spelling needs. Two joiners that Persian and Indian names need are not here."""
_OBEYED: Final = re.compile(f"[\x7f-\x9f\u2028\u2029{''.join(sorted(_INVISIBLE))}]")


def is_unicode(text: str) -> bool:
    """Whether ``text`` is proper Unicode. The name of a file whose bytes are no UTF-8 is not."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def clean_text(text: str) -> str:
    """``text`` as proper Unicode without control characters. Text that is so already comes back unchanged.

    Bytes that are no UTF-8 are taken as Windows-1252, in which most such names were written: ``Kat\\xe9`` is Katé. Each
    byte stays apart from each other, so two people do not become one.
    """
    if text.isprintable():
        return text
    return "".join(map(_clean_character, text))


def screen_text(text: str) -> str:
    """``text`` as a terminal may get it: nothing in it but characters with a picture, joiners, blanks and line breaks.

    A terminal obeys control characters: they set its title, fill its clipboard or clear it. Marks of direction make a
    text look like another one.
    """
    if text.isprintable():
        return "".join(character for character in text if character not in _INVISIBLE)
    return "\n".join(screen_cell(line) for line in text.split("\n"))


def screen_json(line: str) -> str:
    """``line``, which is JSON, with those characters escaped that JSON allows and a terminal obeys."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def screen_cell(value: object) -> str:
    """``value`` as a part of one line on a terminal; see :func:`screen_text`."""
    return "".join(character for character in clean_text(str(value)) if character not in _INVISIBLE)


def person_name(text: str) -> str:
    """``text`` as the name of a person, so that what looks the same is the same.

    It is cleaned, composed (NFC), without invisible characters, without blanks at its ends, and with one blank for each
    run of blanks inside. Capital letters, digits and signs stay as they are.
    """
    if text.isprintable() and unicodedata.is_normalized("NFC", text):
        return " ".join(text.split())  # the only thing that can be wrong with it
    visible = "".join(character for character in clean_text(text) if character not in _INVISIBLE)
    return " ".join(unicodedata.normalize("NFC", visible).split())


def are_person_names(texts: Iterable[str]) -> bool:
    """Whether each is as :func:`person_name` gives it. Told of all together, many times as fast as one after another;
    of names with a bar beside a blank it may be False though they are."""
    together = f"|{'|'.join(texts)}|"
    return (
        together.isprintable()
        and not any(wrong in together for wrong in ("  ", "| ", " |"))
        and unicodedata.is_normalized("NFC", together)
    )


def _clean_character(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # Python's mark for a byte that is no UTF-8
        byte = bytes([ord(character) - 0xDC00])
        decoded = byte.decode("cp1252", errors="ignore")
        return decoded or f"%{byte.hex()}"
    if "\ud800" <= character <= "\udfff":
        return "\ufffd"
    if unicodedata.category(character) == "Cc":
        return " " if character.isspace() else ""
    return character
