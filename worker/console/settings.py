"""Accounts, tokens, what holds here, and the audit log."""

from http import HTTPStatus
from typing import Annotated, Any, Final, cast, get_args

from fastapi import APIRouter, Form, Query
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import ValidationError

from worker.api import settings
from worker.api.access import Caller, SharedParts
from worker.api.accounts import ROLES, SHORTEST_PASSWORD, AccountError, Role, Scope
from worker.api.documents import AccountDocument, TokenDocument
from worker.api.parts import Parts
from worker.api.problems import Problem
from worker.api.settings import RetentionDocument
from worker.console.pages import Looker, Manager, Visitor, gone_to, render
from worker.history.retention import Retention
from worker.redaction import first_problem

router = APIRouter(include_in_schema=False)

_SHOWN: Final = 100
_DAY_S: Final = 86_400.0
Text = Annotated[str, Form(max_length=300)]
Words = Annotated[str, Query(max_length=300)]


@router.get("/settings")
def settings_page(caller: Visitor, parts: SharedParts, said: str = "") -> HTMLResponse:
    """Tokens of one's own, thresholds, how long things are kept; for who manages: accounts and all tokens."""
    return _page(caller, parts, said=said)


@router.post("/settings/accounts")
def add_account(caller: Manager, parts: SharedParts, name: Text = "", password: Text = "", role: Text = "") -> Response:
    """Makes an account."""
    try:
        parts.accounts.create(name, password, _role(role))
    except AccountError as error:
        return _page(caller, parts, problem=str(error), typed={"name": name, "role": role})
    return gone_to("/settings", said="made")


@router.post("/settings/accounts/{name}/role")
def change_role(caller: Manager, parts: SharedParts, name: str, role: Text = "") -> Response:
    """Gives an account another role, at once."""
    try:
        parts.accounts.change(name, role=_role(role))
    except AccountError as error:
        return _page(caller, parts, problem=str(error))
    return gone_to("/settings", said="role")


@router.post("/settings/accounts/{name}/password")
def change_password(caller: Manager, parts: SharedParts, name: str, password: Text = "") -> Response:
    """Gives an account another password, which ends its sessions."""
    try:
        parts.accounts.change(name, password=password)
    except AccountError as error:
        return _page(caller, parts, problem=str(error))
    return gone_to("/settings", said="password")


@router.post("/settings/accounts/{name}/remove")
def remove_account(caller: Manager, parts: SharedParts, name: str) -> Response:
    """Removes an account with its sessions and tokens."""
    try:
        parts.accounts.remove(name)
    except AccountError as error:
        return _page(caller, parts, problem=str(error))
    return gone_to("/settings", said="removed")


@router.post("/settings/tokens")
def add_token(
    caller: Looker,
    parts: SharedParts,
    name: Text = "",
    scopes: Annotated[list[str] | None, Form()] = None,
    days: Annotated[float, Form(gt=0, le=3650)] = 90.0,
) -> Response:
    """Makes a token; its secret is on this page and never again."""
    chosen = tuple(cast(Scope, scope) for scope in scopes or () if scope in get_args(Scope))
    try:
        _token, secret = parts.accounts.create_token(caller.account, name, chosen, days * _DAY_S)
    except AccountError as error:
        return _page(caller, parts, problem=str(error), typed={"token": name})
    return _page(caller, parts, secret=secret)


@router.post("/settings/tokens/{token_id}/end")
def end_token(caller: Looker, parts: SharedParts, token_id: str) -> RedirectResponse:
    """Ends a token of one's own; anybody's for who manages."""
    parts.accounts.revoke_token(token_id, None if caller.may("manage") else caller.account.name)
    return gone_to("/settings", said="ended")


@router.post("/settings/retention")
def keep(
    _caller: Manager, parts: SharedParts, etag: Text, sightings: Text = "", unknowns: Text = "", pictures: Text = ""
) -> Response:
    """Sets for how long things are kept, for all workers; an empty field: as each is configured."""
    typed = {"sightings_days": sightings, "unknowns_days": unknowns, "pictures_days": pictures}
    try:
        given = RetentionDocument(**{name: _number(text) for name, text in typed.items()})
    except ValidationError as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, first_problem(error)) from None
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


def _page(
    caller: Caller, parts: Parts, *, said: str = "", problem: str = "", secret: str = "",
    typed: dict[str, str] | None = None,
) -> HTMLResponse:  # fmt: skip
    manages = caller.may("manage")
    tokens = parts.accounts.tokens(None if manages else caller.account.name)
    holds = settings.settings(parts)
    blank: dict[str, Any] = {"name": "", "role": "viewer", "token": ""}
    return render(
        "settings", caller, HTTPStatus.UNPROCESSABLE_ENTITY if problem else HTTPStatus.OK, said=said, problem=problem,
        secret=secret, tokens=[TokenDocument.of(token) for token in tokens], scopes=ROLES[caller.account.role],
        accounts=[AccountDocument.of(one) for one in parts.accounts.accounts()] if manages else [], roles=list(ROLES),
        holds=holds, etag=settings.etag(Retention(**holds.retention.model_dump())), shortest=SHORTEST_PASSWORD,
        typed=blank | (typed or {}),
    )  # fmt: skip


def _number(text: str) -> str | None:
    return text.strip().replace(",", ".") or None


def _role(text: str) -> Role:
    if text not in ROLES:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"a role is one of these: {', '.join(ROLES)}")
    return text
