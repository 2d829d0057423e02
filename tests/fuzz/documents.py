"""Texts and files of facestream's own that somebody else may have written: rules, alerts, keys, lists, receipts."""

import base64
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import ValidationError

from tests.fuzz.common import SECRET, Target, one_line, placed, scratch
from tests.support.sample_events import make_event
from worker.alerts.book import Book
from worker.alerts.delivery import shown
from worker.alerts.rules import Rule
from worker.audit_log import LOG, AuditLog
from worker.database import schema
from worker.encryption import Keys, parse_keys, seal, unseal, use
from worker.erased import FILE as ERASED
from worker.erased import Erased, Erasure, add_erasure, digest_of, read_erased
from worker.erasure.receipt import KEY, Signer, read_receipt
from worker.errors import AuditError, ConfigError, EncryptionError, ErasureError
from worker.history.shared import SharedDatabase
from worker.history.store import History
from worker.people_keys import Owned, PeopleKeys
from worker.redaction import first_problem

_ROOT: Final = base64.b64encode(bytes(32)).decode()
_AT: Final = "2026-03-01T08:30:00.000Z"
_ERASURES: Final = [Erasure(f"e{number}", _AT, frozenset([digest_of(f"p-{number}")])) for number in range(3)]


@cache
def rule_seeds() -> list[bytes]:
    hook = {"webhook": f"https://u:{SECRET}@site.example/hook", "webhook_secret": SECRET + SECRET}
    rules: list[dict[str, Any]] = [
        {"name": "nights", "people": ["p-1"], "weekdays": ["sat", "sun"], "after": "22:00", "before": "06:00", **hook},
        {"name": "all", "time_zone": "Europe/Berlin", "groups": ["staff"], "not_groups": ["family"], **hook},
        {"name": "mail", "who": "unknown", "apprise": [f"mailto://u:{SECRET}@127.0.0.1?to=a@b.org"]},
    ]
    return [json.dumps(rule).encode() for rule in rules]


def check_rule(data: bytes) -> None:
    try:
        rule = Rule.model_validate_json(data)
    except ValidationError as error:
        text = first_problem(error)
        # What stands in the place of a field's name is told.
        if "\n" in text or (SECRET in text and not text.partition(" (and")[0].endswith(": no such field")):
            raise AssertionError(f"not one line, or a secret: {text!r}") from None
        return
    for moment in (datetime(2026, 3, 28, 23, 59, 59, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC),
                   datetime(9999, 12, 31, 23, 59, tzinfo=UTC)):  # fmt: skip
        rule.is_about(make_event(captured_at=moment, groups="staff,family"))
    for address in rule.receivers.values():
        if SECRET in shown(address):
            raise AssertionError(f"a password is shown: {shown(address)!r}")
    if not rule.apprise:  # those are looked at in a process each
        try:
            rule.require_receivers()
        except ConfigError as error:
            one_line(error)
            if SECRET in str(error):
                raise AssertionError("a password in the error") from None
    if Rule.model_validate_json(rule.model_dump_json()) != rule:
        raise AssertionError("it does not come back as it was")


@cache
def _book() -> tuple[SharedDatabase, Book, History]:
    folder = scratch() / "told"
    history = History.open(folder, create=True)
    shared = SharedDatabase.open(folder)
    book = Book(shared)
    for seed in rule_seeds()[:2]:
        book.add(Rule.model_validate_json(seed))
    book.note(make_event(identity_id="p-1", identity_name="Anna"), book.rules())
    return shared, book, history


@cache
def alert_seeds() -> list[bytes]:
    shared, _, _ = _book()
    with shared.reading() as connection:
        return [
            json.dumps({"table": table.name, **row}).encode()
            for table in (schema.alerts, schema.rules)
            for row in connection.execute(sa.select(table)).mappings()
        ]


def check_alert(data: bytes) -> None:
    """The row of the seed takes the place of the one that was there; then rules and alerts are read, and somebody is
    erased."""
    try:
        row = json.loads(data)
        table = {"console_alerts": schema.alerts, "console_rules": schema.rules}[row.pop("table")]
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        row, table = {"document": data}, schema.rules
    shared, book, history = _book()
    values = {name: value if isinstance(value, str | int | float | bytes) else json.dumps(value)
              for name, value in row.items() if name in table.c and not name.endswith("_id")}  # fmt: skip
    with shared.reading() as connection:
        kept = {each: connection.execute(sa.select(each)).mappings().all() for each in (schema.rules, schema.alerts)}
    try:
        _write_raw(shared, table, values)
        rules = book.rules()
        if table is schema.alerts and len(rules) != len(kept[schema.rules]):
            raise AssertionError("a rule is gone")
        book.recent(9)
        book.take()
        history.erase(Erased(_ERASURES), ["Anna"], again=True)
    finally:
        with shared.writing() as connection:
            for each in (schema.alerts, schema.rules, schema.erasures):
                connection.execute(each.delete())
            for each, rows in kept.items():
                connection.execute(each.insert(), [dict(one) for one in rows])


def _write_raw(shared: SharedDatabase, table: sa.Table, values: dict[str, Any]) -> None:
    if not values:
        return
    sets = ", ".join(f"{name} = :{name}" for name in values)
    try:
        with shared.writing() as connection:
            connection.execute(sa.text(f"UPDATE {table.name} SET {sets}"), values)
    except Exception as error:  # noqa: BLE001 - what the database itself refuses is never read
        del error


PEOPLE_SEEDS: Final = [
    _ROOT.encode(),
    json.dumps({"format": "facestream.people-keys.v1", "secret": _ROOT,
                "nodes": dict.fromkeys("0123456789abcde", _ROOT)}).encode(),
]  # fmt: skip


def check_people_keys(data: bytes) -> None:
    path = placed(data, "people.key")
    try:
        keys = PeopleKeys(path)
    except ConfigError as error:
        one_line(error)
        return
    tag = keys.tag_of("p-1")
    sealed, text = keys.seal(Owned("p-1", b"vector")), keys.seal_text(Owned("p-1", "Anna"))
    if keys.has(tag) and (keys.unseal(sealed) != b"vector" or keys.unseal_text(text) != "Anna"):
        raise AssertionError("it does not come back as it was")
    keys.unseal(data)
    keys.unseal_text(data.decode("latin-1"))
    try:
        keys.destroy([tag])
    except EncryptionError as error:
        one_line(error)
        return
    for left in (keys, PeopleKeys(path)):
        if left.has(tag) or left.unseal(sealed) or left.seal(Owned("p-1", b"vector")):
            raise AssertionError("a key that was destroyed is there")


@cache
def receipt_seeds() -> list[bytes]:
    folder = scratch() / "signer"
    folder.mkdir()
    same = Ed25519PrivateKey.from_private_bytes(bytes(32))  # in each process
    (folder / KEY).write_bytes(same.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    signed = Signer(folder).signed({"erasure_id": "e", "whole": True, "places": [], "subjects": []})
    return [json.dumps(signed, indent=1).encode()]


def check_receipt(data: bytes) -> None:
    try:
        receipt = read_receipt(placed(data, "receipt.json"))
    except ErasureError as error:
        one_line(error)
        return
    # One signature can be written in several ways: base64 has bits that say nothing.
    if receipt | {"signature": ""} != json.loads(receipt_seeds()[0]) | {"signature": ""}:
        raise AssertionError("a receipt that was changed is believed")


@cache
def erased_seeds() -> list[bytes]:
    folder = scratch() / "erased"
    for erasure in _ERASURES:
        add_erasure([folder], erasure)
    return [(folder / ERASED).read_bytes()]


def check_erased(data: bytes) -> None:
    """Two copies of the list, one of them damaged: who was erased stays so."""
    folders = [scratch() / "copies" / name for name in "ab"]
    for folder, content in zip(folders, (data, erased_seeds()[0]), strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ERASED).write_bytes(content)
    for some in (folders, folders[:1]):
        try:
            erased = read_erased(some)
        except ErasureError as error:
            one_line(error)
            continue
        if some is folders and "p-1" not in erased:
            raise AssertionError("somebody came back")


@cache
def audit_seeds() -> list[bytes]:
    folder = scratch() / "audit"
    for number in range(3):
        AuditLog(folder).add("past looked up", [f"p-{number}"], command="search")
    return [(folder / LOG).read_bytes()]


def check_audit(data: bytes) -> None:
    (whole,) = audit_seeds()
    log = AuditLog(scratch() / "audit")
    (log.folder / LOG).write_bytes(data)
    try:
        _, problems = log.verify()
    except AuditError as error:
        one_line(error)
        return
    if not problems and [json.loads(line) for line in data.splitlines()] != [*map(json.loads, whole.splitlines())]:
        raise AssertionError("a log that was changed is believed")


def sealed_seeds() -> list[bytes]:
    use(parse_keys(_ROOT))
    try:
        return [bytes(seal(b"content " * 9, "door/some.jpg"))]
    finally:
        use(Keys())


def check_sealed(data: bytes) -> None:
    use(parse_keys(_ROOT))
    try:
        content = bytes(unseal(data, "door/some.jpg", "some.jpg"))
    except EncryptionError as error:
        one_line(error)
        return
    except ValueError:
        return
    finally:
        use(Keys())
    if content not in (data, b"content " * 9):
        raise AssertionError("bytes that nobody has sealed")


def _made(*told: tuple[str, Callable[[], Sequence[bytes]], Callable[[bytes], None]]) -> tuple[Target, ...]:
    return tuple(Target(*one) for one in told)


TARGETS: Final = _made(
    ("rules", rule_seeds, check_rule),
    ("alerts", alert_seeds, check_alert),
    ("people-keys", lambda: PEOPLE_SEEDS, check_people_keys),
    ("receipts", receipt_seeds, check_receipt),
    ("erased", erased_seeds, check_erased),
    ("audit", audit_seeds, check_audit),
    ("sealed", sealed_seeds, check_sealed),
)
