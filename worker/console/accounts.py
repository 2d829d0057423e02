"""The accounts of others: made, changed, disabled and removed; and links with which they choose their passwords."""

from typing import Annotated, get_args

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from worker.api import administration
from worker.api.access import Caller, SharedParts
from worker.api.account_documents import LinkDocument
from worker.api.accounts import Account
from worker.api.cameras import known
from worker.api.parts import Parts
from worker.api.problems import not_found
from worker.api.roles import Role
from worker.console.choices import chosen, role_of
from worker.console.pages import Manager, gone_to, render, segment

router = APIRouter(include_in_schema=False)

Text = Annotated[str, Form(max_length=300)]
Ids = Annotated[list[str] | None, Form(max_length=1000)]


@router.post("/settings/accounts")
def add_account(
    request: Request, caller: Manager, parts: SharedParts, name: Text = "", role: Text = "", camera: Ids = None
) -> HTMLResponse:
    """Makes an account, and a link with which its owner chooses the password."""
    made = administration.create(parts, name, None, role_of(role), chosen(camera))
    return _page(request, caller, parts, made, said="made", link=administration.make_link(parts, made.name))


@router.get("/settings/accounts/{name}")
def account_page(request: Request, caller: Manager, parts: SharedParts, name: str, said: str = "") -> HTMLResponse:
    """One account."""
    return _page(request, caller, parts, _find(parts, name), said=said)


@router.post("/settings/accounts/{name}")
def change_account(
    _caller: Manager, parts: SharedParts, name: str, role: Text = "", camera: Ids = None
) -> RedirectResponse:
    """Gives an account another role and other cameras, at once."""
    administration.change(parts, name, role=role_of(role), cameras=chosen(camera))
    return _gone(name, "changed")


@router.post("/settings/accounts/{name}/link")
def make_link(request: Request, caller: Manager, parts: SharedParts, name: str) -> HTMLResponse:
    """Makes a link for another password; it is on this page and never again."""
    account = _find(parts, name)
    return _page(request, caller, parts, account, link=administration.make_link(parts, name))


@router.post("/settings/accounts/{name}/disabled")
def disable(
    _caller: Manager, parts: SharedParts, name: str, disabled: Annotated[bool, Form()] = True
) -> RedirectResponse:
    """Disables an account, or enables it again."""
    administration.change(parts, name, disabled=disabled)
    return _gone(name, "disabled" if disabled else "enabled")


@router.post("/settings/accounts/{name}/sessions")
def end_sessions(_caller: Manager, parts: SharedParts, name: str) -> RedirectResponse:
    """Ends all sessions of an account."""
    administration.end_sessions(parts, _find(parts, name).name)
    return _gone(name, "ended")


@router.post("/settings/accounts/{name}/remove")
def remove_account(_caller: Manager, parts: SharedParts, name: str) -> RedirectResponse:
    """Removes an account with its sessions and tokens."""
    administration.remove(parts, name)
    return gone_to("/settings", said="removed")


def _find(parts: Parts, name: str) -> Account:
    for account in parts.accounts.accounts():
        if account.name == name:
            return account
    raise not_found(f"there is no account {name}; it may have been removed")


def _gone(name: str, said: str) -> RedirectResponse:
    return gone_to(f"/settings/accounts/{segment(name)}", said=said)


def _page(
    request: Request, caller: Caller, parts: Parts, account: Account, *, said: str = "",
    link: LinkDocument | None = None,
) -> HTMLResponse:  # fmt: skip
    cameras = account.cameras or ()
    return render(
        "account", caller, account=account, said=said, roles=get_args(Role), chosen=cameras,
        cameras=sorted({*(one.camera_id for one in known(parts)), *cameras}),
        link=None if link is None else f"{str(request.base_url).rstrip('/')}{link.path}",
        expires=None if link is None else link.expires_at, sessions=parts.sessions.all(account.name),
    )  # fmt: skip
