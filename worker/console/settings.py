"""One's own password and log-ins, tokens, the accounts of all, what holds here, and the audit log."""

from http import HTTPStatus
from typing import Annotated, Final, cast, get_args

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import ValidationError

from worker.api import cameras, keys, settings, token_operations
from worker.api.access import Caller, SharedParts
from worker.api.account_documents import AccountDocument
from worker.api.errors import TooManyAttemptsError
from worker.api.parts import Parts
from worker.api.problems import Problem, unusable
from worker.api.roles import ROLES, SHORTEST_PASSWORD, Scope
from worker.api.setting_documents import RetentionDocument
from worker.console.choices import chosen, require_same
from worker.console.pages import Looker, Manager, Visitor, gone_to, render
from worker.history.retention import Retention

router = APIRouter(include_in_schema=False)

_SHOWN: Final = 100
Text = Annotated[str, Form(max_length=300)]
Words = Annotated[str, Query(max_length=300)]


@router.get("/settings")
def settingspage(caller: Visitor, parts: SharedParts, said: str = "") -> HTMLResponse:
    """One's own password, log-ins and tokens, thresholds, how long things are kept; for who manages: accounts and all
    tokens."""
    return _page(caller, parts, said=said)


@router.post("/settings/password")
def change_password(
    request: Request, caller: Looker, parts: SharedParts, old_password: Text = "", password: Text = "", again: Text = ""
) -> RedirectResponse:
    """Another password of one's own; all other sessions end."""
    require_same(password, again)
    try:
        keys.change_password(request, parts, caller, old_password, password)
    except TooManyAttemptsError as error:
        raise unusable(error) from None
    except Problem as problem:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, problem.detail) from None
    return gone_to("/settings", said="password")


@router.post("/settings/sessions")
def end_other_sessions(caller: Looker, parts: SharedParts) -> RedirectResponse:
    """Ends all sessions of one's own but this one."""
    parts.sessions.end_all(caller.account.name, but=caller.secret)
    return gone_to("/settings", said="elsewhere")


@router.post("/settings/sessions/{session_id}/end")
def end_session(caller: Looker, parts: SharedParts, session_id: str) -> RedirectResponse:
    """Ends a session of one's own."""
    parts.sessions.end_one(caller.account.name, session_id)
    return gone_to("/settings", said="session")


@router.post("/settings/tokens")
def add_token(
    caller: Looker,
    parts: SharedParts,
    name: Text = "",
    scopes: Annotated[list[str] | None, Form()] = None,
    days: Annotated[float, Form(gt=0, le=3650)] = 90.0,
    camera: Annotated[list[str] | None, Form(max_length=1000)] = None,
) -> HTMLResponse:
    """Makes a token; its secret is on this page and never again."""
    wanted = tuple(cast(Scope, scope) for scope in scopes or () if scope in get_args(Scope))
    _token, secret = token_operations.make_token(parts, caller, name, wanted, days, chosen(camera))
    return _page(caller, parts, secret=secret)


@router.post("/settings/tokens/{token_id}/end")
def end_token(caller: Looker, parts: SharedParts, token_id: str) -> RedirectResponse:
    """Ends a token of one's own; anybody's for who manages."""
    token_operations.end_token(parts, caller, token_id)
    return gone_to("/settings", said="ended")


@router.post("/settings/retention")
def keep(
    _caller: Manager, parts: SharedParts, etag: Text, sightings: Text = "", unknowns: Text = "", pictures: Text = ""
) -> RedirectResponse:
    """Sets for how long things are kept, for all workers; an empty field: as each is configured."""
    typed = {"sightings_days": sightings, "unknowns_days": unknowns, "pictures_days": pictures}
    try:
        given = RetentionDocument(**{name: _number(value) for name, value in typed.items()})
    except ValidationError as error:
        raise unusable(error) from None
    settings.keep(parts, given, etag)
    return gone_to("/settings", said="kept")


@router.get("/settings/audit")
def audit_page(
    caller: Manager,
    parts: SharedParts,
    about: Words = "",
    action: Words = "",
    by: Words = "",
    before: int | None = None,
    verify: bool = False,
) -> HTMLResponse:
    """Who did what, newest first; and whether the log is whole."""
    found = settings.audit(parts, about=about, action=action, by=by, before=before, limit=_SHOWN)
    return render(
        "audit", caller, entries=found.items, before=found.next_before,
        asked={"about": about, "action": action, "by": by}, verified=settings.verify(parts) if verify else None,
    )  # fmt: skip


def _page(caller: Caller, parts: Parts, *, said: str = "", secret: str = "") -> HTMLResponse:
    """``secret``: of a token that was made just now."""
    manages = caller.may("manage")
    known = cameras.known(parts)
    holds = settings.settings(parts, known)
    return render(
        "settings", caller, said=said, secret=secret, tokens=token_operations.tokens_of(parts, caller),
        scopes=ROLES[caller.account.role],
        accounts=[AccountDocument.of(one) for one in parts.accounts.accounts()] if manages else [], roles=list(ROLES),
        sessions=keys.sessions_of(parts, caller), cameras=[one.camera_id for one in known],
        holds=holds, etag=settings.etag(Retention(**holds.retention.model_dump())), shortest=SHORTEST_PASSWORD,
    )  # fmt: skip


def _number(value: str) -> str | None:
    return value.strip().replace(",", ".") or None
