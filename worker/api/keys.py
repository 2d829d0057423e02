"""Accounts, sessions and tokens: who may come in."""

import hmac
import json
import secrets
import threading
from http import HTTPStatus
from typing import Final, cast

from fastapi import APIRouter, Request, Response

from worker.api.access import COOKIE, Caller, Manager, Reader, SharedParts, address_of, once, session_of
from worker.api.accounts import Account, Accounts, LoginError, TooManyAttemptsError
from worker.api.documents import (
    AccountChange,
    AccountDocument,
    AccountsPage,
    Credentials,
    FirstAdmin,
    MeDocument,
    NewAccount,
    NewToken,
    NewTokenDocument,
    TokenDocument,
    TokensPage,
)
from worker.api.parts import Parts
from worker.api.people import IdempotencyKey
from worker.api.problems import Problem, responses

router = APIRouter(tags=["accounts"])

_DAY_S: Final = 86_400.0
_MOST_WRONG_CODES: Final = 20


class FirstCode:
    """The one-time code of a console without an admin; it is shown on standard output alone."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._lock = threading.Lock()
        self._code = "" if accounts.has_admin() else secrets.token_urlsafe(12)
        self._wrong = 0

    @property
    def code(self) -> str:
        """Empty where there is an admin, or the code was used."""
        return self._code

    def use(self, code: str, name: str, password: str) -> Account:
        """Makes the first admin.

        Raises:
            Problem: it is not the code, or was used, or too many wrong ones were tried.
            AccountError: the name or the password cannot be taken; the code stays.
        """
        with self._lock:
            if not self._code:
                raise Problem(HTTPStatus.CONFLICT, "there is an admin already: log in, or ask them for an account")
            if self._wrong >= _MOST_WRONG_CODES:
                raise Problem(
                    HTTPStatus.TOO_MANY_REQUESTS, "too many wrong codes: start the console again for a new one"
                )
            if not hmac.compare_digest(self._code.encode(), code.strip().encode("utf-8", "replace")):
                self._wrong += 1
                raise Problem(HTTPStatus.FORBIDDEN, "this is not the code that the console has written when it started")
            account = self._accounts.create(name, password, "admin", first=True)
            self._code = ""
            return account


def first_code_of(request: Request) -> FirstCode:
    """The one of this console."""
    return cast(FirstCode, request.app.state.first_code)


def enter(request: Request, response: Response, parts: Parts, secret: str) -> Caller:
    """Gives the browser the cookie of a new session."""
    response.set_cookie(
        COOKIE, secret, max_age=int(parts.config.console.session_hours * 3600), httponly=True, samesite="strict",
        secure=request.url.scheme == "https", path="/",
    )  # fmt: skip
    return cast(Caller, session_of(parts, secret))


def log_in(request: Request, response: Response, parts: Parts, name: str, password: str) -> Caller:
    """Begins a session.

    Raises:
        LoginError: the name or the password is wrong, or too many tries have failed.
    """
    session_s = parts.config.console.session_hours * 3600
    try:
        _account, secret = parts.accounts.log_in(name, password, address_of(request), session_s)
    except LoginError as error:
        parts.metrics.login("limited" if isinstance(error, TooManyAttemptsError) else "wrong")
        raise
    parts.metrics.login("ok")
    return enter(request, response, parts, secret)


def set_up(request: Request, response: Response, parts: Parts, code: str, name: str, password: str) -> Caller:
    """Makes the first admin, and begins a session.

    Raises:
        Problem: it is not the code.
        AccountError: the name or the password cannot be taken.
    """
    account = first_code_of(request).use(code, name, password)
    secret = parts.accounts.begin_session(account.name, parts.config.console.session_hours * 3600)
    return enter(request, response, parts, secret)


def me_document(caller: Caller) -> MeDocument:
    """Who asks."""
    document = AccountDocument.of(caller.account).model_dump()
    return MeDocument(**document, scopes=sorted(caller.scopes), csrf=caller.csrf)


@router.post("/setup", operation_id="set_up", responses=responses(HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT))
def make_first_admin(request: Request, response: Response, parts: SharedParts, given: FirstAdmin) -> MeDocument:
    """Make the first admin, with the code that the console has written to its standard output, and log in."""
    return me_document(set_up(request, response, parts, given.code, given.name, given.password))


@router.post(
    "/session", operation_id="log_in", responses=responses(HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS)
)
def begin_session(request: Request, response: Response, parts: SharedParts, given: Credentials) -> MeDocument:
    """Log in: the answer sets the cookie of a session."""
    return me_document(log_in(request, response, parts, given.name, given.password))


@router.delete("/session", operation_id="log_out", status_code=HTTPStatus.NO_CONTENT)
def end_session(caller: Reader, response: Response, parts: SharedParts) -> None:
    """Log out."""
    if caller.secret:
        parts.accounts.end_session(caller.secret)
    response.delete_cookie(COOKIE, path="/")


@router.get("/me", operation_id="show_me")
def show_me(caller: Reader) -> MeDocument:
    """Who asks, and what they may do."""
    return me_document(caller)


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
    """Make an account."""

    def make() -> tuple[HTTPStatus, str]:
        account = parts.accounts.create(given.name, given.password, given.role)
        return HTTPStatus.CREATED, AccountDocument.of(account).model_dump_json()

    return once(parts, caller, idempotency_key, f"account {given.name} {given.role}", make)


@router.patch(
    "/accounts/{name}",
    operation_id="change_account",
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY),
)
def change_account(_caller: Manager, parts: SharedParts, name: str, change: AccountChange) -> AccountDocument:
    """Give an account another role, or another password, which ends its sessions."""
    return AccountDocument.of(parts.accounts.change(name, role=change.role, password=change.password))


@router.delete(
    "/accounts/{name}",
    operation_id="remove_account",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY),
)
def remove_account(_caller: Manager, parts: SharedParts, name: str) -> None:
    """Remove an account with its sessions and tokens."""
    parts.accounts.remove(name)


@router.get("/tokens", operation_id="list_tokens")
def list_tokens(caller: Reader, parts: SharedParts) -> TokensPage:
    """The tokens of the caller; those of everybody for the scope ``manage``."""
    found = parts.accounts.tokens(None if caller.may("manage") else caller.account.name)
    return TokensPage(items=[TokenDocument.of(token) for token in found])


@router.post(
    "/tokens",
    operation_id="create_token",
    response_model=NewTokenDocument,
    status_code=HTTPStatus.CREATED,
    responses=responses(HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.FORBIDDEN),
)
def create_token(
    caller: Reader, parts: SharedParts, given: NewToken, idempotency_key: IdempotencyKey = None
) -> Response:
    """Make a token for a program. Its secret is shown this once."""
    if not caller.secret:
        raise Problem(HTTPStatus.FORBIDDEN, "a token makes no tokens, or it would outlive its own end: log in")
    shown: list[str] = []

    def make() -> tuple[HTTPStatus, str]:
        token, secret = parts.accounts.create_token(
            caller.account, given.name, tuple(given.scopes), given.days * _DAY_S
        )
        shown.append(secret)
        # What is kept for a repeated request holds no secret.
        return HTTPStatus.CREATED, NewTokenDocument.with_secret(token, None).model_dump_json()

    response = once(parts, caller, idempotency_key, f"token {given.model_dump_json()}", make)
    if not shown:
        return response
    document = json.loads(bytes(response.body)) | {"token": shown[0]}
    return Response(json.dumps(document), HTTPStatus.CREATED, media_type="application/json")


@router.delete(
    "/tokens/{token_id}",
    operation_id="revoke_token",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND),
)
def revoke_token(caller: Reader, parts: SharedParts, token_id: str) -> None:
    """End a token of the caller; anybody's for the scope ``manage``."""
    parts.accounts.revoke_token(token_id, None if caller.may("manage") else caller.account.name)
