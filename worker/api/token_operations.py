"""Tokens: made, listed and ended."""

import json
from http import HTTPStatus
from typing import Final

from fastapi import APIRouter, Response

from worker.api.access import Caller, IdempotencyKey, Reader, SharedParts, once
from worker.api.account_documents import NewToken, NewTokenDocument, TokenDocument, TokensPage
from worker.api.parts import Parts
from worker.api.problems import Problem, responses
from worker.api.roles import Scope
from worker.api.sight import Cameras, in_order
from worker.api.tokens import Token
from worker.audit_log import note

router = APIRouter(tags=["accounts"])

_DAY_S: Final = 86_400.0


def make_token(
    parts: Parts, caller: Caller, name: str, scopes: tuple[Scope, ...], days: float, cameras: Cameras
) -> tuple[Token, str]:
    """As :meth:`worker.api.tokens.Tokens.create`; the audit log tells."""
    token, secret = parts.tokens.create(caller.account, name, scopes, days * _DAY_S, cameras)
    note(parts.audit_folder, "token made", account=caller.account.name, token=token.token_id, scopes=" ".join(scopes))
    return token, secret


def end_token(parts: Parts, caller: Caller, token_id: str) -> None:
    """Ends a token of the caller; anybody's for who manages.

    Raises:
        NoSuchAccountError: there is none.
    """
    parts.tokens.revoke(token_id, None if caller.may("manage") else caller.account.name)
    note(parts.audit_folder, "token ended", token=token_id)


def tokens_of(parts: Parts, caller: Caller) -> list[TokenDocument]:
    """The tokens of the caller; those of everybody for who manages."""
    return [
        TokenDocument.of(token) for token in parts.tokens.all(None if caller.may("manage") else caller.account.name)
    ]


@router.get("/tokens", operation_id="list_tokens")
def list_tokens(caller: Reader, parts: SharedParts) -> TokensPage:
    """The tokens of the caller; those of everybody for the scope ``manage``."""
    return TokensPage(items=tokens_of(parts, caller))


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
        token, secret = make_token(
            parts, caller, given.name, tuple(given.scopes), given.days, in_order(given.cameras)
        )  # fmt: skip
        shown.append(secret)
        # What is kept for a repeated request holds no secret.
        document = NewTokenDocument(**TokenDocument.of(token).model_dump(), token=None)
        return HTTPStatus.CREATED, document.model_dump_json()

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
    end_token(parts, caller, token_id)
