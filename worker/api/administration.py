"""Accounts: made, changed, disabled and removed, and the links with which people choose their passwords."""

from http import HTTPStatus
from typing import Final, Literal

from fastapi import APIRouter, Response

from worker.api.access import IdempotencyKey, Manager, SharedParts, once
from worker.api.account_documents import (
    AccountChange,
    AccountDocument,
    AccountsPage,
    EndedDocument,
    LinkDocument,
    NewAccount,
    time_text,
)
from worker.api.accounts import Account
from worker.api.parts import Parts
from worker.api.problems import responses
from worker.api.roles import Role
from worker.api.sight import Cameras, in_order
from worker.audit_log import note

router = APIRouter(tags=["accounts"])

_CHANGES: Final = responses(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)


def create(parts: Parts, name: str, password: str | None, role: Role, cameras: Cameras = None) -> Account:
    """As :meth:`worker.api.accounts.Accounts.create`; the audit log tells, as of all that follows here."""
    made = parts.accounts.create(name, password, role, cameras=cameras)
    _note(parts, "account made", made.name, role=role)
    return made


def change(
    parts: Parts,
    name: str,
    *,
    role: Role | None = None,
    password: str | None = None,
    cameras: Cameras | Literal["same"] = "same",
    disabled: bool | None = None,
) -> Account:
    """As :meth:`worker.api.accounts.Accounts.change`."""
    changed = parts.accounts.change(name, role=role, password=password, cameras=cameras, disabled=disabled)
    given = {"role": role, "password": password, "disabled": disabled}
    what = [field for field, value in given.items() if value is not None] + ["cameras"] * (cameras != "same")
    _note(parts, "account changed", name, changed=" ".join(what))
    return changed


def remove(parts: Parts, name: str) -> None:
    """As :meth:`worker.api.accounts.Accounts.remove`."""
    parts.accounts.remove(name)
    _note(parts, "account removed", name)


def make_link(parts: Parts, name: str) -> LinkDocument:
    """As :meth:`worker.api.accounts.Accounts.link`."""
    secret, expires_s = parts.accounts.link(name)
    _note(parts, "password link made", name)
    return LinkDocument(
        account=name, path=f"/password/{secret}", secret=secret, expires_at=time_text(expires_s)
    )  # fmt: skip


def end_sessions(parts: Parts, name: str) -> int:
    """Ends all sessions of an account; returns how many."""
    ended = parts.sessions.end_all(name)
    _note(parts, "sessions ended", name)
    return ended


def _note(parts: Parts, action: str, name: str, **details: str | int) -> None:
    note(parts.audit_folder, action, (), account=name, **details)


@router.get("/accounts", operation_id="list_accounts")
def list_accounts(_caller: Manager, parts: SharedParts) -> AccountsPage:
    """Everybody who may use the console."""
    return AccountsPage(items=[AccountDocument.of(account) for account in parts.accounts.accounts()])


@router.post(
    "/accounts",
    operation_id="create_account",
    response_model=AccountDocument,
    status_code=HTTPStatus.CREATED,
    responses=responses(HTTPStatus.UNPROCESSABLE_ENTITY),
)
def create_account(
    caller: Manager, parts: SharedParts, given: NewAccount, idempotency_key: IdempotencyKey = None
) -> Response:
    """Make an account. Without a password, ``/accounts/{name}/link`` lets somebody choose it."""

    def make() -> tuple[HTTPStatus, str]:
        account = create(parts, given.name, given.password, given.role, in_order(given.cameras))
        return HTTPStatus.CREATED, AccountDocument.of(account).model_dump_json()

    asked = f"account {given.name} {given.role} {given.cameras}"
    return once(parts, caller, idempotency_key, asked, make)


@router.patch("/accounts/{name}", operation_id="change_account", responses=_CHANGES)
def change_account(_caller: Manager, parts: SharedParts, name: str, given: AccountChange) -> AccountDocument:
    """Give an account another role, other cameras, or another password, which ends its sessions; or disable it, which
    ends its sessions and stops its tokens."""
    cameras: Cameras | Literal["same"] = "same"
    if "cameras" in given.model_fields_set:
        cameras = in_order(given.cameras)
    changed = change(
        parts, name, role=given.role, password=given.password, cameras=cameras, disabled=given.disabled
    )  # fmt: skip
    return AccountDocument.of(changed)


@router.delete(
    "/accounts/{name}", operation_id="remove_account", status_code=HTTPStatus.NO_CONTENT, responses=_CHANGES
)  # fmt: skip
def remove_account(_caller: Manager, parts: SharedParts, name: str) -> None:
    """Remove an account with its sessions and tokens."""
    remove(parts, name)


@router.post(
    "/accounts/{name}/link", operation_id="make_password_link", status_code=HTTPStatus.CREATED, responses=_CHANGES
)  # fmt: skip
def make_password_link(_caller: Manager, parts: SharedParts, name: str) -> LinkDocument:
    """Make a link with which somebody chooses the password of an account, once, within two days. The link before holds
    no more."""
    return make_link(parts, name)


@router.delete("/accounts/{name}/sessions", operation_id="end_sessions_of", responses=_CHANGES)
def end_sessions_of(_caller: Manager, parts: SharedParts, name: str) -> EndedDocument:
    """End all sessions of an account."""
    return EndedDocument(sessions=end_sessions(parts, name))
