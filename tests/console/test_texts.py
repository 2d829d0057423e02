"""The catalogue: every text of the pages in every language, with the same values in it."""

import re
from string import Formatter

import pytest

from tests.support.console import Console
from worker.console.pages import HERE
from worker.console.texts import LANGUAGES

TEXT = r'"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\.)*)\''
ALONE = re.compile(rf"\b(?:_|text)\(\s*(?:{TEXT})")
COUNTED = re.compile(r'\b(?:n_|counted)\([^"]+?,\s*"([^"]*)",\s*"([^"]*)"')
BY_VALUE = {
    "none", "red", "orange", "yellow", "green", "blue", "violet", "grey",
    "clearly", "likely", "just", "hardly", "unknown", "not recognised", "the calibration of this gallery",
    "nothing: calibrate the gallery to learn it", "pairs of people in the evidence of the model or the calibration",
    "viewer", "operator", "admin",
    "connecting", "streaming", "waiting", "stalled", "failed", "ended", "paused", "refused", "nobody reads it",
    "worker silent", "worker gone", "damaged pictures", "hardly a face", "in a mask", "out of focus",
    "the camera was taken away", "the worker is too slow for all of them", "they came too late",
    "too dark or too bright", "too small", "turned away",
}  # fmt: skip
"""What no page says as it stands, as it comes from elsewhere."""


def used() -> set[str]:
    found = set(BY_VALUE)
    for path in [*(HERE / "templates").glob("*.html"), *HERE.glob("*.py")]:
        source = path.read_text()
        found |= {alone or other for alone, other in ALONE.findall(source)}
        found |= {each for both in COUNTED.findall(source) for each in both}
    return found


def values(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_each_language_has_every_text_and_no_other() -> None:
    assert "de" in LANGUAGES
    for language, texts in LANGUAGES.items():
        assert texts.keys() == used(), language


def test_each_text_holds_the_same_values_and_the_same_markup_in_every_language() -> None:
    for texts in LANGUAGES.values():
        for english, text in texts.items():
            assert values(text) <= values(english), english
            assert sorted(re.findall("<[^>]*>", text)) == sorted(re.findall("<[^>]*>", english)), english


@pytest.mark.parametrize(
    ("asked", "language", "word"),
    [
        ("de-DE,de;q=0.9,en;q=0.8", "de", "Unbekannte Personen"), ("en-GB,de;q=0.5", "en", "Unknown people"),
        ("fr,de;q=0.3", "de", "Unbekannte Personen"), ("fr", "en", "Unknown people"), ("", "en", "Unknown people"),
        ("de;q=x, en;q=0", "en", "Unknown people"),
    ],
)  # fmt: skip
def test_a_page_speaks_the_language_that_the_browser_asks_for(
    console: Console, asked: str, language: str, word: str
) -> None:
    answer = console.as_role("viewer").get("/unknown", headers={"Accept-Language": asked})
    assert f'<html lang="{language}">' in answer.text
    assert f"<h1>{word}</h1>" in answer.text
