"""Somebody is erased everywhere, by the command ``facestream forget`` in a process of its own.

At its end it reads every file of galleries and histories. In this process, which has their SQLite databases open, that
would take away the locks on them.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from pydantic import SecretStr

from worker.api import people, unknowns
from worker.api.access import Changer, IdempotencyKey, SharedParts, once, require_all_cameras
from worker.api.documents import ErasedDocument, ErasurePlan, ErasuresPage
from worker.api.paging import MOST, IfMatch, cursor_of, place_of, require_match
from worker.api.parts import Parts
from worker.api.problems import Problem, not_found, responses
from worker.audit_log import note
from worker.config import Config
from worker.erasure.forgetting import open_galleries
from worker.erasure.own import erasure_folders
from worker.erasure.plan import Request, make_plan
from worker.erasure.receipt import RECEIPTS, read_receipt
from worker.errors import ErasureError

router = APIRouter(tags=["erasures"])

_SECTIONS: Final = {
    "gallery", "shadow_gallery", "classifier", "models_dir", "state_dir", "redis", "evidence", "history", "unknowns",
    "encryption", "fleet", "outbox", "network",
}  # fmt: skip
"""Of the configuration: what an erasure has to know."""
_WHOLE: Final = responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED)


class Erasing:
    """One erasure, which goes on whoever waits for it."""

    def __init__(self, parts: Parts, an_id: str) -> None:
        self.receipt: dict[str, Any] | None = None
        self.problem = ""
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        note(parts.audit_folder, "erasure ordered", [an_id])
        # In memory alone: it may hold passwords.
        self._config = os.memfd_create("config")
        os.write(self._config, json.dumps(_plain(_needed(parts.config))).encode())
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115 # the thread below closes it
        config = f"/proc/self/fd/{self._config}"
        command = [sys.executable, "-m", "worker", "forget", "--yes", "--json", "--config", config, "--", an_id]
        lines_of_any_length = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        self._child = subprocess.Popen(  # noqa: S603 # our own program, and an id after "--"
            command, stdin=subprocess.DEVNULL, stdout=self._out, stderr=subprocess.PIPE, text=True, errors="replace",
            pass_fds=(self._config,), env=lines_of_any_length,
        )  # fmt: skip
        threading.Thread(target=self._watch, name="erasing").start()

    def lines(self) -> Iterator[str]:
        """What is done, as it is done; ends when all is. For one reader."""
        while (line := self._lines.get()) is not None:
            yield line

    def _watch(self) -> None:
        last, stderr = "it ended without a word", self._child.stderr
        for line in stderr or ():
            last = line.rstrip("\n")
            self._lines.put(last)
        self._child.wait()
        self._out.seek(0)
        try:
            self.receipt = json.loads(self._out.read())
        except ValueError:
            self.problem = last.removeprefix("facestream: error: ")
        self._out.close()
        os.close(self._config)
        if stderr is not None:
            stderr.close()
        self._lines.put(None)


def _needed(config: Config) -> dict[str, Any]:
    return config.model_dump(include=_SECTIONS, exclude_unset=True)


def _plain(value: Any) -> Any:
    """As JSON values, with the secrets."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return value if isinstance(value, int | float | str | None) else str(value)


def plan_of(parts: Parts, *, identity_id: str = "", unknown_id: str = "") -> ErasurePlan:
    """What there is of a person or an unknown person, everywhere.

    Raises:
        Problem: there is no such person.
        FacestreamError: something cannot be read.
    """
    require_all_cameras()
    if identity_id:
        name = people.find(parts, identity_id).name
        request = Request(people=(identity_id,))
    else:
        name = unknowns.find(parts, unknown_id).unknown_id
        request = Request(unknown_ids=(unknown_id,))
    parts.looked_up("forget", identity_id or unknown_id)
    galleries = open_galleries(parts.config, may_lack=True)
    try:
        plan = make_plan(request, galleries, parts.config)
    finally:
        for gallery in galleries:
            gallery.close()
    return ErasurePlan(name=name, **plan.document())


def order(parts: Parts, if_match: str | None = None, *, identity_id: str = "", unknown_id: str = "") -> Erasing:
    """Begins to erase a person or an unknown person.

    Raises:
        Problem: there is no such person, or they were changed meanwhile.
    """
    require_all_cameras()
    if identity_id:
        require_match(if_match, people.etag(people.find(parts, identity_id)))
    else:
        require_match(if_match, unknowns.etag(unknowns.find(parts, unknown_id)))
    return Erasing(parts, identity_id or unknown_id)


def receipts(parts: Parts) -> list[ErasedDocument]:
    """The receipts that this installation keeps, the newest first; one that is damaged is left out."""
    require_all_cameras()
    found = []
    for path in _receipt_files(parts):
        with suppress(ErasureError):
            found.append(_document(read_receipt(path)))
    return sorted(found, key=_order, reverse=True)


def receipt(parts: Parts, erasure_id: str) -> dict[str, Any]:
    """A receipt, whose signature is right.

    Raises:
        Problem: there is none here.
        ErasureError: it was changed.
    """
    require_all_cameras()
    for path in _receipt_files(parts):
        if path.stem == erasure_id:
            return read_receipt(path)
    raise not_found("there is no such receipt here; each is kept where the erasure was carried out")


def _receipt_files(parts: Parts) -> list[Path]:
    return [path for folder in erasure_folders(parts.config) for path in (folder / RECEIPTS).glob("*.json")]


def _document(signed: dict[str, Any]) -> ErasedDocument:
    return ErasedDocument(
        erasure_id=str(signed["erasure_id"]), asked_at=str(signed["asked_at"]), finished_at=str(signed["finished_at"]),
        whole=bool(signed["whole"]), receipt=signed,
    )  # fmt: skip


def _order(document: ErasedDocument) -> tuple[str, str]:
    return document.finished_at, document.erasure_id


def _carried_out(work: Erasing) -> tuple[HTTPStatus, str]:
    for _line in work.lines():
        pass
    if work.receipt is None:
        raise Problem(HTTPStatus.CONFLICT, work.problem)
    return HTTPStatus.OK, _document(work.receipt).model_dump_json()


@router.get(
    "/people/{identity_id}/erasure", operation_id="plan_erasure_of_person", responses=responses(HTTPStatus.NOT_FOUND)
)
def plan_of_person(_caller: Changer, parts: SharedParts, identity_id: str) -> ErasurePlan:
    """What there is of a person, everywhere, before anything is changed."""
    return plan_of(parts, identity_id=identity_id)


@router.post(
    "/people/{identity_id}/erasure", operation_id="erase_person", response_model=ErasedDocument, responses=_WHOLE
)
def erase_person(
    caller: Changer,
    parts: SharedParts,
    identity_id: str,
    if_match: IfMatch = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Erase a person everywhere, as ``facestream forget`` does; the answer comes when all is done, with the signed
    receipt. It cannot be undone."""
    return once(
        parts, caller, idempotency_key, f"erase {identity_id}",
        lambda: _carried_out(order(parts, if_match, identity_id=identity_id)),
    )  # fmt: skip


@router.get(
    "/unknowns/{unknown_id}/erasure", operation_id="plan_erasure_of_unknown", responses=responses(HTTPStatus.NOT_FOUND)
)
def plan_of_unknown(_caller: Changer, parts: SharedParts, unknown_id: str) -> ErasurePlan:
    """What there is of an unknown person, everywhere, before anything is changed."""
    return plan_of(parts, unknown_id=unknown_id)


@router.post(
    "/unknowns/{unknown_id}/erasure", operation_id="erase_unknown", response_model=ErasedDocument, responses=_WHOLE
)
def erase_unknown(
    caller: Changer,
    parts: SharedParts,
    unknown_id: str,
    if_match: IfMatch = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Erase an unknown person everywhere, as ``facestream forget`` does. It cannot be undone."""
    return once(
        parts, caller, idempotency_key, f"erase {unknown_id}",
        lambda: _carried_out(order(parts, if_match, unknown_id=unknown_id)),
    )  # fmt: skip


@router.get("/erasures", operation_id="list_erasures")
def list_erasures(
    _caller: Changer,
    parts: SharedParts,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 50,
) -> ErasuresPage:
    """The erasures of which this installation keeps a receipt, the newest first."""
    found = receipts(parts)
    if cursor is not None:
        after = place_of(cursor, str, str)
        found = [each for each in found if _order(each) < after]
    more = cursor_of(*_order(found[limit - 1])) if len(found) > limit else None
    return ErasuresPage(items=found[:limit], next_cursor=more)


@router.get("/erasures/{erasure_id}", operation_id="show_erasure", responses=responses(HTTPStatus.NOT_FOUND))
def show_erasure(_caller: Changer, parts: SharedParts, erasure_id: str) -> ErasedDocument:
    """One erasure; ``receipt`` as a file is what ``facestream forget --verify`` checks."""
    return _document(receipt(parts, erasure_id))
