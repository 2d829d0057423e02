"""The catalogue: every text of the pages in every language, with the same values in it."""

import ast
import re
from collections.abc import Callable, Iterator
from contextvars import copy_context
from pathlib import Path
from string import Formatter

import httpx
import pytest
import redis
from fastapi import Request
from jinja2 import Environment, nodes

from tests.support.console import Console, form
from tests.support.repository import REPOSITORY
from worker.config import FleetConfig
from worker.console.pages import HERE
from worker.console.texts import FOLDER, LANGUAGES, counted, speak, told
from worker.redis.keys import fleet_key
from worker.service.status import CameraStatus, WorkerStatus
from worker.wire import now_rfc3339

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


SAID = [
    path
    for place in (
        "api", "console", "alerts/rules.py", "alerts/delivery.py", "alerts/book.py", "fleet/registry.py",
        "redis/errors.py", "database/errors.py", "history/records.py", "history/regrouping.py", "history/denials.py",
        "gallery/groups.py", "gallery/enrolment.py", "gallery/consents.py", "gallery/gallery.py", "gallery/merging.py",
        "history/merging.py", "recognition/merging.py",
        "evaluation/audit.py", "erasure/forgetting.py", "erasure/attendance.py", "video/trial.py", "video/web.py",
    )
    for path in sorted((REPOSITORY / "worker" / place).rglob("*.py") or [REPOSITORY / "worker" / place])
    if path.stem not in {"asking", "client", "metrics", "server"} and "documents" not in path.stem
]  # fmt: skip
"""Where what people see on pages is put into words: errors, findings, reasons, accounts of what was done."""
FOR_OTHERS = re.compile(r"facestream console$|a request failed|^console\.oidc|^(?:logged|password chosen)|^facestream ")
"""What goes to logs and to who starts the console."""
NEVER_SHOWN = {
    "the calibration of this gallery",
    "pairs of people in the evidence of the model or the calibration",
    "the worker is too slow for all of them",
    "they came too late",
    "the camera was taken away",
    "faces out of focus",
    "faces too dark or too bright",
    "too dark or too bright",
    "out of focus",
    "max number of clients reached",
    "IP address mismatch",
    "not valid for",
    "EOF occurred in violation of protocol",
    "closed by server",
    "reset by peer",
    "{0}: {1}{2} never became a sighting: {3}",
    "the gallery key",
    "past looked up",
    "hardly a face",
    "in a mask",
    "calibrate with people like these: facestream calibrate --people, or --strangers from the site",
    "if they are one, 'facestream gallery merge' makes them one",
    "enroll more and better photos of both; raise the threshold if they are still confused",
    "look at the photo; if it is wrong: facestream gallery remove-sample",
    "look at the photos; facestream gallery remove-sample, or enroll more",
    "enroll photos of other days, light and angles",
    "look at these photos; remove the wrong ones: facestream gallery remove-sample",
}
"""Texts of pages, for which there is the other catalogue; what servers say; and what only commands show."""
THREE_WORDS = re.compile(r"[^\W\d_]{2,}(?:['\d]* [^\W\d_]+){2,}")
NOT_FOR_PEOPLE = {
    "text",
    "counted",
    "Field",
    "Query",
    "HTTPBearer",
    "compile",
    "debug",
    "info",
    "warning",
    "error",
    "note",
    "_note",
}


def sentences(path: Path) -> Iterator[str]:
    """Each text of a module that may be for people, with ``{0}`` for what is put into it."""
    tree = ast.parse(path.read_text())
    passed: set[int] = set()
    for node in ast.walk(tree):
        called = node.func if isinstance(node, ast.Call) else None
        name = getattr(called, "id", getattr(called, "attr", ""))
        if name in NOT_FOR_PEOPLE or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            passed |= {id(inner) for inner in ast.walk(node)}
        if isinstance(node, ast.Call):
            passed |= {id(inner) for word in node.keywords if word.arg in {"description", "meaning", "summary"}
                       for inner in ast.walk(word.value)}  # fmt: skip
        if isinstance(node, ast.JoinedStr):
            passed |= {id(piece) for piece in node.values if isinstance(piece, ast.Constant)}
    for node in ast.walk(tree):
        if id(node) in passed:
            continue
        found = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
        if isinstance(node, ast.JoinedStr):
            numbers = iter(range(len(node.values)))
            pieces = [
                piece.value if isinstance(piece, ast.Constant) else f"{{{next(numbers)}}}" for piece in node.values
            ]
            found = "".join(map(str, pieces))
        if THREE_WORDS.search(found) and "|" not in found and ".*" not in found:
            yield found.strip(" ,;:")


def in_language(language: str, what: str | Callable[[], str]) -> str:
    """What a page of this language says."""

    def say() -> str:
        speak(Request({"type": "http", "headers": [(b"accept-language", language.encode())]}))
        return told(what) if isinstance(what, str) else what()

    return copy_context().run(say)


def untold(english: str, language: str) -> bool:
    """Whether nothing of a sentence is known; what is said of Redis begins with its address."""
    filled = re.sub(r"\{(\d)\}", r"x\1", english)
    return all('lang="en"' in in_language(language, each) or in_language(language, each) == each
               for each in (filled, f"Redis at host:1 {filled}"))  # fmt: skip


@pytest.mark.parametrize("path", SAID, ids=lambda path: str(path.relative_to(REPOSITORY / "worker")))
def test_what_people_are_told_elsewhere_is_known_in_every_language(path: Path) -> None:
    said = {each for each in sentences(path) if each not in NEVER_SHOWN and not FOR_OTHERS.search(each)}
    assert [(language, each) for language in LANGUAGES for each in sorted(said) if untold(each, language)] == []


def test_there_are_sentences_to_look_at_and_one_that_is_not_known_is_found(tmp_path: Path) -> None:
    assert sum(len(set(sentences(path))) for path in SAID) > 120
    (tmp_path / "module.py").write_text('raise ValueError(f"nobody has put {this} into German yet")')
    (found,) = sentences(tmp_path / "module.py")
    assert untold(found, "de")
    assert {path.name for path in (FOLDER / "told").glob("*.json")} == {path.name for path in FOLDER.glob("*.json")}


@pytest.mark.parametrize(
    ("english", "german"),
    [
        ("camera gallery: no frame for 50 s", "Kamera gallery: seit 50 s kein Bild"),
        ("w: redis: Redis at redis:1 refuses the login (NO); check user and password in redis.url",
         "w: Redis: Redis unter redis:1 lehnt die Anmeldung ab (NO); prüfen Sie Benutzer und Passwort in redis.url"),
        ("seen 12 times; 3 too small (min 20 px; the largest face had 12), 2 turned away; 5 embedded",
         "12-mal gesehen; 3 zu klein (mindestens 20 px; das größte Gesicht hatte 12), 2 abgewandt; 5 ausgewertet"),
        ("nearest was Anna Not at 0.61 (threshold 0.50, runner-up Bob 0.20): below threshold; matched",
         "am ähnlichsten war Anna Not mit 0.61 (Schwelle 0.50, danach Bob 0.20): unter der Schwelle; erkannt"),
        ("rtsp://host/1 cannot be opened: no answer within 10 s; check the file; next try in 8 s",
         "rtsp://host/1 lässt sich nicht öffnen: keine Antwort in 10 s; prüfen Sie die Datei; nächster Versuch in 8 s"),
        ("2 past sightings, 1 unknown person", "2 vergangene Sichtungen, 1 unbekannte Person"),
        ("there is no camera {0} <b>; it may have been removed",
         "eine Kamera {0} <b> gibt es nicht; vielleicht wurde sie entfernt"),
        ("a <b>server</b> said this", '<span lang="en">a &lt;b&gt;server&lt;/b&gt; said this</span>'),
        ("", ""), ("a: b; " * 1000, f'<span lang="en">{"a: b; " * 1000}</span>'),
    ],
)  # fmt: skip
def test_a_sentence_is_found_by_what_it_was_made_of_and_names_in_it_stay(english: str, german: str) -> None:
    assert in_language("de", english) == german
    assert in_language("en", english) == english


@pytest.mark.parametrize(
    ("language", "shown"), [("en", "3,000 samples"), ("de", "3\N{NARROW NO-BREAK SPACE}000 Proben")]
)
def test_thousands_stand_apart_as_the_language_has_them(language: str, shown: str) -> None:
    assert in_language(language, lambda: counted(3000, "One sample", "{count} samples")) == shown


def alert_of(answer: httpx.Response) -> str:
    return re.sub("<[^>]*>", "", "".join(re.findall(r'class="wrong"[^>]*role="alert"[^>]*>(.*?)</p>', answer.text)))


def test_what_goes_wrong_is_told_in_the_readers_language(console: Console, redis_url: str) -> None:
    german = {"Accept-Language": "de"}
    operator = console.as_role("operator")
    operator.headers.update(german)
    missing = operator.get("/people/p-none")
    assert "<h1>Nicht gefunden</h1>" in missing.text
    assert "niemand mit der Kennung" in alert_of(missing)
    answer = form(operator, "/people", "/groups", group="a,b", threshold="", colour="", advice="")
    assert "ohne Komma und Schrägstrich" in alert_of(answer)
    refused = console.anybody(**german).post("/login", data={"name": "viewer", "password": "wrong"})
    assert "der Name oder das Passwort ist falsch" in alert_of(refused)
    status = WorkerStatus(
        worker_id="w-1", at=now_rfc3339(), version="1", uptime_s=5.0, ready=False, outbox_events=0, gallery_people=2,
        gallery_version=1, reasons={"outbox": "the disk says something odd"},
        cameras=[CameraStatus(camera_id="door", state="waiting", reason="the server answers 404 Not Found", fps=0.0)],
    )  # fmt: skip
    with redis.Redis.from_url(redis_url) as client:
        client.hset(fleet_key(FleetConfig().name, "status"), "w-1:1", status.model_dump_json())
    health = operator.get("/health").text
    assert "Kamera door: wartet: der Server antwortet 404" in health
    assert "Worker w-1: Ausgang: the disk says something odd" in health
    assert "Diese Seite ist auf Englisch" in operator.get("/runbooks/camera-down").text
    assert "Diese Seite" not in console.as_role("viewer").get("/runbooks/camera-down").text
