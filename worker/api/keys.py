"""The way in: the first admin, log-ins, and passwords of one's own."""

import hmac
import secrets
import threading
from http import HTTPStatus
from typing import Final, cast

from fastapi import APIRouter, Request, Response

from worker.api.access import COOKIE, Caller, Reader, SharedParts, address_of, agent_of, session_of
from worker.api.account_documents import (
    AccountDocument,
    ChosenPassword,
    Credentials,
    EndedDocument,
    FirstAdmin,
    MeDocument,
    PasswordChange,
    SessionDocument,
    SessionsPage,
)
from worker.api.accounts import Account, Accounts
from worker.api.errors import LoginError, TooManyAttemptsError
from worker.api.oidc import Person
from worker.api.parts import Parts
from worker.api.problems import Problem, responses
from worker.api.sessions import session_id_of
from worker.audit_log import acting_as, note

router = APIRouter(tags=["accounts"])

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


def log_in(request: Request, response: Response, parts: Parts, name: str, password: str) -> Caller:
    """Begins a session.

    Raises:
        LoginError: the name or the password is wrong, or too many tries have failed.
    """
    try:
        account = parts.sessions.check(name, password, address_of(request))
    except LoginError as error:
        parts.metrics.login("limited" if isinstance(error, TooManyAttemptsError) else "wrong")
        raise
    parts.metrics.login("ok")
    return begin(request, response, parts, account.name)


def set_up(request: Request, response: Response, parts: Parts, code: str, name: str, password: str) -> Caller:
    """Makes the first admin, and begins a session.

    Raises:
        Problem: it is not the code.
        AccountError: the name or the password cannot be taken.
    """
    account = first_code_of(request).use(code, name, password)
    return begin(request, response, parts, account.name)


def begin(request: Request, response: Response, parts: Parts, name: str) -> Caller:
    """Begins a session of an account whose owner has shown who they are; the browser gets its cookie.

    Raises:
        NoSuchAccountError: there is no such account, or it is disabled.
    """
    session_s = parts.config.console.session_hours * 3600
    secret = parts.sessions.begin(name, session_s, address_of(request), agent_of(request))
    response.set_cookie(
        COOKIE, secret, max_age=int(session_s), httponly=True, samesite="strict",
        secure=request.url.scheme == "https", path="/",
    )  # fmt: skip
    return cast(Caller, session_of(parts, secret))


def change_password(request: Request, parts: Parts, caller: Caller, old: str, new: str) -> None:
    """Gives the caller another password; their other sessions end.

    Raises:
        Problem: the old password is wrong, or a token asks.
        TooManyAttemptsError: too many wrong ones were given.
        AccountError: the new one is too short, or theirs is that of the OpenID provider.
    """
    require_session(caller)
    name = caller.account.name
    try:
        parts.sessions.check(name, old, address_of(request))
    except TooManyAttemptsError:
        raise
    except LoginError:
        raise Problem(HTTPStatus.FORBIDDEN, "the old password is wrong") from None
    parts.accounts.change(name, password=new, keep=caller.secret)
    note(parts.audit_folder, "password changed", account=name)


def use_link(parts: Parts, secret: str, password: str) -> Account:
    """As :meth:`worker.api.accounts.Accounts.use_link`; the audit log tells."""
    account = parts.accounts.use_link(secret, password)
    acting_as(account.name)
    note(parts.audit_folder, "password chosen by link", account=account.name)
    return account


def known_by_provider(parts: Parts, person: Person) -> Account:
    """The account of somebody whom the OpenID provider has let in; made at the first time. The audit log tells.

    Raises:
        LoginError: the provider gives them no role here; their sessions end.
        AccountError: the account is disabled, or the provider names a camera that cannot be one.
    """
    issuer = "" if parts.provider is None else parts.provider.issuer
    if person.role is None:
        for account in parts.accounts.accounts():
            if (account.provider, account.subject) == (issuer, person.subject):
                parts.sessions.end_all(account.name)
        claim = parts.config.console.oidc.roles_claim
        raise LoginError(f"the provider gives you no role here (claim {claim}): ask those who keep your account there")
    account = parts.accounts.of_provider(issuer, person.subject, person.name, person.role, person.cameras)
    acting_as(account.name)
    note(parts.audit_folder, "logged in by the provider", account=account.name, role=account.role)
    return account


def sessions_of(parts: Parts, caller: Caller) -> list[SessionDocument]:
    """Where the caller is logged in."""
    current = session_id_of(caller.secret) if caller.secret else ""
    return [SessionDocument.of(session, current) for session in parts.sessions.all(caller.account.name)]


def require_session(caller: Caller) -> None:
    """
    Raises:
        Problem: a token asks.
    """
    if not caller.secret:
        raise Problem(HTTPStatus.FORBIDDEN, "a token does not do this: log in")


def me_document(caller: Caller) -> MeDocument:
    """Who asks."""
    document = AccountDocument.of(caller.account).model_dump()
    document["cameras"] = None if caller.cameras is None else list(caller.cameras)
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
        parts.sessions.end(caller.secret)
    response.delete_cookie(COOKIE, path="/")


@router.get("/me", operation_id="show_me")
def show_me(caller: Reader) -> MeDocument:
    """Who asks, and what they may do."""
    return me_document(caller)


@router.put(
    "/me/password",
    operation_id="change_own_password",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS),
)
def change_own_password(request: Request, caller: Reader, parts: SharedParts, given: PasswordChange) -> None:
    """Choose another password of one's own, by the old one; all other sessions end."""
    change_password(request, parts, caller, given.old, given.new)


@router.post(
    "/password", operation_id="choose_password", responses=responses(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND)
)
def choose_password(parts: SharedParts, given: ChosenPassword) -> AccountDocument:
    """Choose the password of the account whose link this is; the link is used up, and all sessions of the account
    end."""
    return AccountDocument.of(use_link(parts, given.secret, given.password))


@router.get("/sessions", operation_id="list_sessions")
def list_sessions(caller: Reader, parts: SharedParts) -> SessionsPage:
    """Where the caller is logged in."""
    return SessionsPage(items=sessions_of(parts, caller))


@router.delete("/sessions", operation_id="end_other_sessions")
def end_other_sessions(caller: Reader, parts: SharedParts) -> EndedDocument:
    """Log the caller out everywhere else."""
    require_session(caller)
    return EndedDocument(sessions=parts.sessions.end_all(caller.account.name, but=caller.secret))


@router.delete(
    "/sessions/{session_id}",
    operation_id="end_session",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND),
)
def end_one_session(caller: Reader, parts: SharedParts, session_id: str) -> None:
    """End one session of the caller."""
    require_session(caller)
    parts.sessions.end_one(caller.account.name, session_id)
