"""How everything is, what is wrong now, and what to do about it."""

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, PlainTextResponse
from markdown_it import MarkdownIt
from markupsafe import Markup

from worker.api import fleet
from worker.api.access import SharedParts
from worker.api.problems import not_found
from worker.console.pages import HERE, Visitor, render
from worker.console.texts import told

router = APIRouter(include_in_schema=False)

_SUFFIX: Final = ".md"
_TEXT: Final = MarkdownIt("commonmark", {"html": False}).enable("table")


@router.get("/standing")
def standing(_caller: Visitor, parts: SharedParts) -> PlainTextResponse:
    """For pages that are open: why Redis cannot be asked; empty if it can."""
    return PlainTextResponse(told(parts.redis_trouble(), marked=False))


@router.get("/health")
def health_page(caller: Visitor, parts: SharedParts) -> HTMLResponse:
    """Workers and cameras, and what is wrong now."""
    return render("health", caller, status=fleet.status(parts))


@router.get("/runbooks/{name}")
def runbook_page(caller: Visitor, name: str) -> HTMLResponse:
    """What to do about something that is wrong."""
    pages = {path.stem: path for path in _folder().glob(f"*{_SUFFIX}")}
    if name not in pages:
        raise not_found(f"there is no runbook {name[:80]!r}")
    tokens = _TEXT.parse(pages[name].read_text("utf-8"))
    tag = "a"
    for token in [inner for outer in tokens for inner in outer.children or ()]:
        if token.type == "link_open":
            to, tag = urlsplit(str(token.attrs["href"])), "a"
            if to.path.removesuffix(_SUFFIX) in pages and not to.scheme:
                token.attrs["href"] = f"/runbooks/{to.path.removesuffix(_SUFFIX)}"
            elif to.scheme != "https":  # a page of the documentation, which is elsewhere
                token.tag, token.attrs, tag = "span", {}, "span"
        elif token.type == "link_close":
            token.tag = tag
    title = next((each.content for each in tokens if each.type == "inline"), name)
    html = Markup(_TEXT.renderer.render(tokens, _TEXT.options, {}))  # noqa: S704 # our own texts
    return render("runbook", caller, title=title, html=html)


def _folder() -> Path:
    """Within the package, or in the checkout."""
    shipped = HERE / "runbooks"
    return shipped if shipped.is_dir() else HERE.parent.parent / "docs" / "runbooks"
