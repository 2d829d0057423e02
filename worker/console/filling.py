"""Fills a form of a page of ours in, wherever it is: what stands in the page is changed at these places alone."""

import html
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Final

from markupsafe import Markup

Span = tuple[int, int]

_FIXED: Final = {"file", "password", "submit"}


@dataclass(slots=True)
class _Field:
    """An input, an option of a select, or a textarea. ``span`` is that of its tag; of a textarea, of its content.
    ``words`` are those of an option."""

    name: str
    kind: str
    value: str
    is_on: bool
    attributes: dict[str, str | None]
    span: Span
    label: str = ""
    words: str = ""


@dataclass(slots=True)
class _Form:
    action: str
    begin: int
    around: list[Span]
    fields: list[_Field] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Filled:
    """A page with a form to fill. ``labels``: what people read beside its fields, by name; ``other``: label and value
    of fields that hold something else in the page."""

    labels: Mapping[str, str]
    other: Sequence[tuple[str, str]]
    _text: str
    _begin: int
    _edits: Sequence[tuple[Span, str]]

    def page(self, note: Markup) -> str:
        """The page with the form filled, and ``note`` at its beginning."""
        made = self._text
        for (begin, end), new in sorted([*self._edits, ((self._begin, self._begin), str(note))], reverse=True):
            made = made[:begin] + new + made[end:]
        return made


def filled(page: str, action: str, given: Sequence[tuple[str, str]], *, keep: Collection[str] = ()) -> Filled | None:
    """The form of ``page`` that is sent to ``action``, with these values; None if there is none.

    Of several, it is the one whose hidden fields are the given ones. Hidden fields stay as the page has them, except
    those that are named in ``keep``.
    """
    values: dict[str, list[str]] = {}
    for name, value in given:
        values.setdefault(name, []).append(value)
    forms = [form for form in _Reader(page).forms if form.action == action and _is_meant(form, values)]
    if not forms:
        return None
    form = forms[0]
    edits = [(span, f"{page[span[0] : span[1] - 1]} open>") for span in form.around]
    other: list[tuple[str, str]] = []
    for each in form.fields:
        edit = _edit(each, values, keep)
        if edit is not None:
            edits.append((each.span, edit))
            if each.label and (each.kind != "option" or each.is_on):
                other.append((each.label, _in_words(each)))
    return Filled({each.name: each.label for each in form.fields}, other, page, form.begin, edits)


def _is_meant(form: _Form, values: Mapping[str, list[str]]) -> bool:
    hidden = [each for each in form.fields if each.kind == "hidden" and each.name not in {"csrf", "key", "etag"}]
    shown = {each.name for each in form.fields}
    return all(each.value in values.get(each.name, ()) for each in hidden) and values.keys() - {"do"} <= shown


def _edit(each: _Field, values: Mapping[str, list[str]], keep: Collection[str]) -> str | None:
    """What comes in its place; None if it holds what was given."""
    given = values.get(each.name, [])
    if each.kind in _FIXED or (each.kind == "hidden" and each.name not in keep):
        return None
    if each.kind in {"checkbox", "radio", "option"}:
        if each.kind == "option" and each.name not in values:
            return None
        return None if (each.value in given) == each.is_on else _tag(each, None, is_on=not each.is_on)
    # A browser ends the lines of a text in its own way.
    if not given or given[0].replace("\r\n", "\n") == each.value:
        return None
    return f"\n{html.escape(given[0])}" if each.kind == "textarea" else _tag(each, given[0], is_on=False)


def _tag(each: _Field, value: str | None, *, is_on: bool) -> str:
    flag = "selected" if each.kind == "option" else "checked"
    attributes = {name: given for name, given in each.attributes.items() if name != flag}
    if value is not None:
        attributes["value"] = value
    if is_on:
        attributes[flag] = None
    told = "".join(f" {name}" if given is None else f' {name}="{html.escape(given)}"'
                   for name, given in attributes.items())  # fmt: skip
    return f"<{'option' if each.kind == 'option' else 'input'}{told}>"


def _in_words(each: _Field) -> str:
    if each.kind in {"checkbox", "radio"}:
        return "✓" if each.is_on else "✗"
    return each.words.strip() or each.value or "–"


class _Reader(HTMLParser):
    """The forms of a page that are sent by POST, with the places of their fields."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.forms: list[_Form] = []
        self._lines = [0, *(place + 1 for place, sign in enumerate(page) if sign == "\n")]
        self._ids: dict[str, _Form] = {}
        self._elsewhere: list[tuple[str, _Field]] = []
        self._details: list[Span] = []
        self._form: _Form | None = None
        self._labelled: list[_Field] = []
        self._label: str | None = None
        self._select = ""
        self._option: _Field | None = None
        self._area: _Field | None = None
        self._quiet: list[bool] = []
        self.feed(page)
        self.close()
        for form_id, one in self._elsewhere:
            if form_id in self._ids:
                self._ids[form_id].fields.append(one)

    def _span(self) -> Span:
        line, column = self.getpos()
        begin = self._lines[line - 1] + column
        return begin, begin + len(self.get_starttag_text() or "")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "details":
            self._details.append(self._span())
        elif tag == "form" and given.get("method") == "post":
            self._form = _Form(given.get("action") or "", self._span()[1], list(self._details))
            self.forms.append(self._form)
            self._ids[given.get("id") or ""] = self._form
        elif tag == "label":
            self._label, self._labelled = "", []
        elif tag == "span":
            self._quiet.append("dim" in (given.get("class") or "").split())
        elif tag == "select":
            self._select = given.get("name") or ""
        elif tag == "textarea":
            self._area = self._field(given, "textarea", given.get("name") or "", "")
        elif tag == "option" and self._select:
            self._option = self._field(given, "option", self._select, given.get("value") or "")
        elif tag == "input":
            kind = given.get("type") or "text"
            default = "on" if kind in {"checkbox", "radio"} else ""
            self._field(given, kind, given.get("name") or "", given.get("value") or default)

    def _field(self, given: dict[str, str | None], kind: str, name: str, value: str) -> _Field:
        is_on = "checked" in given or "selected" in given
        made = _Field(name, kind, value, is_on, given, self._span())
        if given.get("form"):
            self._elsewhere.append((given["form"] or "", made))
        elif self._form is not None:
            self._form.fields.append(made)
        if self._label is not None:
            self._labelled.append(made)
        return made

    def handle_data(self, data: str) -> None:
        if self._area is not None:
            self._area.value += data
        elif self._select and self._option is not None:
            self._option.words += data
        elif self._label is not None and not any(self._quiet):
            self._label += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "details":
            self._details.pop()
        elif tag == "form":
            self._form = None
        elif tag == "span":
            self._quiet.pop()
        elif tag == "select":
            self._select, self._option = "", None
        elif tag == "textarea" and self._area is not None:
            line, column = self.getpos()
            self._area.span = self._area.span[1], self._lines[line - 1] + column
            self._area.value = self._area.value.removeprefix("\n")
            self._area = None
        elif tag == "label":
            for each in self._labelled:
                each.label = (self._label or "").strip()
            self._label = None
