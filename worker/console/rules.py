"""Rules: who is told of whom, where and when; and what became of the alerts."""

from collections import Counter
from collections.abc import Iterable
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from worker.alerts.book import StoredRule
from worker.alerts.words import WEEKDAYS
from worker.api import fleet, groups, rules
from worker.api.access import Caller, SharedParts
from worker.api.parts import Parts
from worker.api.problems import Problem
from worker.api.rule_documents import RuleSettings, TrialDocument
from worker.console.choices import meant
from worker.console.pages import Manager, Visitor, gone_to, render
from worker.console.texts import text

router = APIRouter(include_in_schema=False)

Line = Annotated[str, Form(max_length=300)]
Several = Annotated[list[str] | None, Form()]
_SHOWN: Final = 50


@router.get("/rules")
def list_page(caller: Visitor, parts: SharedParts, said: str = "") -> HTMLResponse:
    """All rules, and what became of the newest alerts; for who may change something."""
    return _page(caller, parts, said=said)


@router.get("/rules/{rule_id}")
def one_page(caller: Manager, parts: SharedParts, rule_id: str) -> HTMLResponse:
    """One rule, to be changed or deleted."""
    return _page(caller, parts, chosen=rules.find(parts, rule_id))


def _page(
    caller: Caller, parts: Parts, *, said: str = "", tried: TrialDocument | None = None,
    chosen: StoredRule | None = None,
) -> HTMLResponse:  # fmt: skip
    if not caller.may("change"):
        raise Problem(HTTPStatus.FORBIDDEN, f"{caller.account.name} may not see rules: ask an operator")
    return render(
        "rules", caller, rules=[(rules.document(each), rules.etag(each)) for each in parts.rules()], said=said,
        alerts=rules.alerts(parts, _SHOWN), waiting=parts.waiting(), tried=tried, cameras=fleet.cameras(parts),
        groups=[(name, name) for name in groups.known(parts)], named=lambda ids: _named(parts, ids),
        weekdays=[(day, text(day)) for day in WEEKDAYS],
        chosen=None if chosen is None else (rules.document(chosen), rules.etag(chosen)),
    )  # fmt: skip


def _named(parts: Parts, ids: Iterable[str]) -> list[str]:
    """What people are called; the id of who is not enrolled any more, or shares a name."""
    people = parts.people()
    names = {person.identity_id: person.name for person in people}
    often = Counter(names.values())
    return [name if often[name := names.get(each, each)] == 1 else each for each in ids]


def _ids(parts: Parts, lines: str) -> list[str]:
    """Whom these lines mean: names, or ids.

    Raises:
        Problem: one means nobody, or several people.
    """
    found, people = [], parts.people()
    for line in filter(None, map(str.strip, lines.splitlines())):
        identity_id, problem = meant(people, line)
        if identity_id is None:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{line[:100]!r}: {problem}")
        found.append(identity_id)
    return list(dict.fromkeys(found))


def _settings(
    parts: SharedParts,
    name: Line = "",
    enabled: Line = "",
    who: Line = "anyone",
    people: Annotated[str, Form(max_length=200_000)] = "",
    group: Several = None,
    not_group: Several = None,
    cameras: Annotated[str, Form(max_length=3000)] = "",
    weekday: Several = None,
    after: Line = "",
    before: Line = "",
    time_zone: Line = "UTC",
    webhook: Annotated[str, Form(max_length=2000)] = "",
    webhook_secret: Line = "",
    apprise: Annotated[str, Form(max_length=20_000)] = "",
    forget: Line = "",
    picture: Line = "",
) -> RuleSettings:
    """What a form says. An address that is not given stays as it is, unless all are to be forgotten."""
    addresses = [line.strip() for line in apprise.splitlines() if line.strip()]
    values: dict[str, Any] = {
        "name": name, "enabled": bool(enabled), "who": who, "people": _ids(parts, people), "groups": group or (),
        "not_groups": not_group or (), "cameras": [each.strip() for each in cameras.split(",") if each.strip()],
        "weekdays": weekday or (), "after": after.strip(), "before": before.strip(), "time_zone": time_zone.strip(),
        "webhook": webhook.strip() or ("" if forget else None),
        "webhook_secret": webhook_secret or ("" if forget else None),
        "apprise": addresses or ([] if forget else None), "picture": bool(picture),
    }  # fmt: skip
    return rules.settings_of(values)


Given = Annotated[RuleSettings, Depends(_settings)]


@router.post("/rules")
def make(request: Request, _caller: Manager, parts: SharedParts, given: Given) -> RedirectResponse:
    """Makes a rule."""
    rules.make(parts, rules.watch_of(request), given)
    return gone_to("/rules", said="made")


@router.post("/rules/{rule_id}")
def change(
    request: Request, _caller: Manager, parts: SharedParts, rule_id: str, etag: Annotated[str, Form()], given: Given
) -> RedirectResponse:
    """Lets a rule say something else."""
    rules.change(parts, rules.watch_of(request), rule_id, given, etag)
    return gone_to("/rules", said="changed")


@router.post("/rules/{rule_id}/try")
def send_test(caller: Manager, parts: SharedParts, rule_id: str) -> HTMLResponse:
    """Sends a test to the receivers of a rule, and says what came back."""
    return _page(caller, parts, tried=rules.tried(parts, rule_id))


@router.post("/rules/{rule_id}/delete")
def delete(
    request: Request, _caller: Manager, parts: SharedParts, rule_id: str, etag: Annotated[str, Form()]
) -> RedirectResponse:
    """Deletes a rule."""
    rules.remove(parts, rules.watch_of(request), rule_id, etag)
    return gone_to("/rules", said="deleted")
