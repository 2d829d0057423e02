"""Names and other texts from outside, made fit for screens, JSON, databases and comparison."""

import unicodedata
from typing import Final

_INVISIBLE: Final = frozenset("\u00ad\u061c\u180e\u200b\u200e\u200f\u2060\ufeff") | frozenset(
    map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A)))
)
"""Characters without a picture that no spelling needs. Two joiners that Persian and Indian names need are not here."""


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


def person_name(text: str) -> str:
    """``text`` as the name of a person, so that what looks the same is the same.

    It is cleaned, composed (NFC), without invisible characters, without blanks at its ends, and with one blank for each
    run of blanks inside. Capital letters, digits and signs stay as they are.
    """
    visible = "".join(character for character in clean_text(text) if character not in _INVISIBLE)
    return " ".join(unicodedata.normalize("NFC", visible).split())


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
