import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.names import are_person_names, clean_text, is_unicode, person_name

TEXTS = st.lists(st.text(st.sampled_from("aé |e\u0301\u0308\u200b\u200c\u00a0\t李\ud83d\x1b"), max_size=6), max_size=4)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"Kat\xe9", "Katé"),
        (b"Kat\xc3\xa9", "Katé"),
        (b"Kate\xcc\x81", "Katé"),
        (b" Ann  Lee\t", "Ann Lee"),
        ("\u00a0Ann\u3000Lee\u200b".encode(), "Ann Lee"),
        ("\ufeffAnn\u202e".encode(), "Ann"),
        (b"Ann\x1b[2JLee\n", "Ann[2JLee"),
        ("می\u200cخواهم".encode(), "می\u200cخواهم"),
        ("李 雷".encode(), "李 雷"),
        (b"anna", "anna"),
        (b"Anna (1)", "Anna (1)"),
        (b"\x81", "%81"),
        (b" \t", ""),
    ],
)
def test_names_that_look_the_same_are_the_same(raw: bytes, name: str) -> None:
    text = raw.decode("utf-8", errors="surrogateescape")
    assert person_name(text) == name
    assert person_name(name) == name
    person_name(text).encode()


@given(TEXTS)
def test_no_name_that_would_be_changed_is_taken_for_one_as_it_is_given(texts: list[str]) -> None:
    assert not are_person_names(texts) or [person_name(text) for text in texts] == texts


@given(TEXTS)
def test_names_as_they_are_given_are_known_as_such(texts: list[str]) -> None:
    names = [name for text in texts if (name := person_name(text.replace("|", ""))) and name.isprintable()]
    # A name that begins with an accent alone is composed with the bar before it.
    assert are_person_names([name for name in names if not unicodedata.combining(name[0])])


def test_bytes_that_are_no_utf8_stay_apart() -> None:
    names = {
        person_name(bytes([65, byte, 66]).decode("utf-8", errors="surrogateescape")) for byte in range(0x80, 0x100)
    }
    names.discard("A B")  # the byte of a blank that does not break
    assert len(names) >= 126


def test_clean_text_keeps_what_is_right() -> None:
    for text in ("Zoë/1.jpg", unicodedata.normalize("NFD", "Zoë"), "a  b", ""):
        assert clean_text(text) == text
    assert clean_text("\ud83d") == "\ufffd"


def test_what_is_unicode() -> None:
    assert is_unicode("Zoë")
    assert not is_unicode("Kat\udce9")
