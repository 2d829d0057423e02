"""The catalogue: every text of the pages in every language, with the same values in it."""

import re
from pathlib import Path
from string import Formatter

import pytest
from jinja2 import Environment, nodes

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
    "faces out of focus", "faces too dark or too bright",
    "mon", "tue", "wed", "thu", "fri", "sat", "sun", "ready", "not ready", "silent", "gone",
}  # fmt: skip
"""What no page says as it stands, as it comes from elsewhere."""


TEMPLATES = sorted((HERE / "templates").glob("*.html"))
WORD = re.compile(r"[^\W\d_]{2,}")
SENTENCE = re.compile(r"[^\W\d_]{2,} [^\W\d_]{2,}|^[A-Z][a-z]")
READ_OUT = r'\b(?:aria-label|placeholder|title|alt|data-\w+)="([^"]*)"'
NOT_WORDS = {"facestream", "Apprise", "not ready", "mask: 0,0 0.5,0 0.5,1 \N{MIDDLE DOT} zone till: 0.5,0 1,0 1,1"}
"""Names, an example of what is to be typed, and a value that is compared."""
WORDS_OF_THE_PROGRAM = {"state", "role", "type", "condition"}
"""Fields whose values are English words."""


def unspoken(path: Path) -> set[str]:
    """What the template says without asking the catalogue."""
    source = path.read_text()
    bare = re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", "\0", source, flags=re.DOTALL)
    pieces = [*re.findall(READ_OUT, bare), *re.sub(r"<[^>]*>", "\0", bare).split("\0")]
    found = {piece.strip(" \n\N{MIDDLE DOT}") for piece in pieces if WORD.search(piece) and not piece.startswith("/")}
    tree = Environment(autoescape=True).parse(source)
    asked = {
        id(inner)
        for call in tree.find_all(nodes.Call)
        if isinstance(call.node, nodes.Name) and call.node.name in {"_", "n_"}
        for value in [*call.args, *(keyword.value for keyword in call.kwargs)]
        for inner in (value, *value.find_all(nodes.Node))
    }
    for output in tree.find_all(nodes.Output):
        for node in (*output.nodes, *output.find_all(nodes.Node)):
            said = node.value if isinstance(node, nodes.Const) and isinstance(node.value, str) else ""
            if id(node) not in asked and SENTENCE.search(said):
                found.add(said)
        for shown in output.nodes:
            if isinstance(shown, nodes.Getattr) and shown.attr in WORDS_OF_THE_PROGRAM:
                found.add(f"{{{{ ....{shown.attr} }}}}")
    return found - NOT_WORDS


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_no_page_says_anything_past_the_catalogue(path: Path) -> None:
    assert unspoken(path) == set()


@pytest.mark.parametrize(
    "past",
    [
        "<p>Nothing here</p>", '<img alt="A face">', '{{ {"a": "Some words"}["a"] }}', "{{ worker.state }}",
        '<p>{{ _("x") }} and more</p>', '{{ "Gone" if gone else _("x") }}',
    ],
)  # fmt: skip
def test_what_is_past_the_catalogue_is_found(tmp_path: Path, past: str) -> None:
    page = tmp_path / "page.html"
    page.write_text(f'{{{{ _("Told", name="In a Value") }}}}<b class="known">{past}</b>')
    assert len(unspoken(page)) == 1


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
