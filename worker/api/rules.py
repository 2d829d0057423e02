"""Rules: whom somebody is told of, where, when and how; and what became of the alerts."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Final, cast

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError

from worker.alerts.book import RuleError, StoredRule
from worker.alerts.delivery import shown
from worker.alerts.rules import Rule
from worker.alerts.trial import try_rule
from worker.alerts.watch import Watch
from worker.api.access import Changer, IdempotencyKey, Manager, SharedParts, once
from worker.api.groups import known
from worker.api.paging import IfMatch, etag_of, require_match
from worker.api.parts import Parts, rule_in_sight
from worker.api.problems import Problem, not_found, responses, unusable
from worker.api.rule_documents import (
    AlertDocument,
    AlertsPage,
    ReceiverDocument,
    RuleDocument,
    RuleSettings,
    RulesPage,
    TrialDocument,
    TrialOutcome,
)
from worker.audit_log import note
from worker.errors import ConfigError
from worker.wire import rfc3339

router = APIRouter(tags=["rules"])

_SECRETS: Final = ("webhook", "webhook_secret", "apprise")


def document(stored: StoredRule) -> RuleDocument:
    """A rule as it is shown."""
    told = stored.rule.model_dump(mode="json", exclude=set(_SECRETS))
    receivers = [
        ReceiverDocument(receiver=key, address=shown(address)) for key, address in stored.rule.receivers.items()
    ]
    return RuleDocument(rule_id=stored.rule_id, receivers=receivers, **told)


def listed(parts: Parts) -> list[RuleDocument]:
    """All rules, by name."""
    return [document(stored) for stored in parts.rules()]


def etag(stored: StoredRule) -> str:
    """Another one after each change."""
    return etag_of(stored.rule_id, stored.rule.model_dump_json())


def find(parts: Parts, rule_id: str) -> StoredRule:
    """
    Raises:
        Problem: there is none.
    """
    return _find(parts, rule_id)[0]


def _find(parts: Parts, rule_id: str) -> tuple[StoredRule, StoredRule]:
    """As it is in sight, and as it is."""
    stored = parts.book.rule(rule_id)
    if stored is not None and (seen := rule_in_sight(stored)) is not None:
        return seen, stored
    raise not_found(f"there is no rule {rule_id}; it may have been deleted")


def make(parts: Parts, watch: Watch, settings: RuleSettings) -> StoredRule:
    """Makes a rule, which is about what is captured from now on.

    Raises:
        Problem: it makes no sense, names a group or a person who is not there, or a receiver that cannot be used.
    """
    rule = _checked(parts, settings, {})
    try:
        stored = parts.book.add(rule)
    except RuleError as error:
        raise Problem(HTTPStatus.CONFLICT, str(error)) from None
    watch.changed()
    _note(parts, "rule made", stored)
    return stored


def change(parts: Parts, watch: Watch, rule_id: str, settings: RuleSettings, if_match: str | None = None) -> StoredRule:
    """Lets a rule say something else.

    Raises:
        Problem: as :func:`make`; or there is none, or it was changed meanwhile.
    """
    while True:
        seen, before = _find(parts, rule_id)
        require_match(if_match, etag(seen))
        rule = _checked(parts, settings, before.rule.model_dump(include=set(_SECRETS)))
        if parts.book.change(before, rule):
            break
    watch.changed()
    stored = StoredRule(rule_id, rule, before.made_s)
    _note(parts, "rule changed", stored)
    return stored


def remove(parts: Parts, watch: Watch, rule_id: str, if_match: str | None = None) -> None:
    """Deletes a rule.

    Raises:
        Problem: there is none, or it was changed meanwhile.
    """
    while True:
        stored, before = _find(parts, rule_id)
        require_match(if_match, etag(stored))
        if parts.book.remove(before):
            break
    watch.changed()
    _note(parts, "rule removed", stored)


def alerts(parts: Parts, most: int) -> list[AlertDocument]:
    """What became of the newest alerts."""
    rules = {stored.rule_id: stored.rule for stored in parts.rules()}
    receivers = {rule_id: rule.receivers for rule_id, rule in rules.items()}
    found = []
    for alert in parts.alerts(most):
        rule = rules.get(alert.rule_id)
        address = receivers.get(alert.rule_id, {}).get(alert.receiver, "")
        found.append(
            AlertDocument(
                rule_id=alert.rule_id, rule="" if rule is None else rule.name, sighting_id=alert.sighting_id,
                address=shown(address) if address else "taken out", state=alert.state, problem=alert.problem,
                tries=alert.tries, made_at=rfc3339(datetime.fromtimestamp(alert.made_s, UTC)),
            )
        )  # fmt: skip
    return found


def tried(parts: Parts, rule_id: str) -> TrialDocument:
    """Sends one marked test message to each receiver of a rule, and tells what came back.

    Raises:
        Problem: there is none.
    """
    stored = find(parts, rule_id)
    outcomes = try_rule(stored.rule, parts.config.network.policy)
    failed = sum(bool(each.problem) for each in outcomes)
    note(parts.audit_folder, "rule tried", (), rule=rule_id, receivers=len(outcomes), failed=failed)
    return TrialDocument(
        rule_id=rule_id,
        items=[
            TrialOutcome(
                receiver=each.receiver, address=shown(each.address), taken=not each.problem, problem=each.problem
            )
            for each in outcomes
        ],
    )  # fmt: skip


def settings_of(values: dict[str, Any]) -> RuleSettings:
    """What a form says.

    Raises:
        Problem: a value cannot be.
    """
    try:
        return RuleSettings.model_validate(values)
    except ValidationError as error:
        raise unusable(error) from None


def watch_of(request: Request) -> Watch:
    """What carries the rules out."""
    return cast(Watch, request.app.state.watch)


def _checked(parts: Parts, settings: RuleSettings, before: dict[str, Any]) -> Rule:
    given = settings.model_dump()
    kept = {name: before[name] for name in _SECRETS if given[name] is None and name in before}
    given = {name: value for name, value in given.items() if value is not None} | kept
    try:
        rule = Rule.model_validate(given)
        rule.require_receivers()
    except (ValidationError, ConfigError) as error:
        raise unusable(error) from None
    groups = known(parts)
    for name in (*rule.groups, *rule.not_groups):
        if name not in groups:
            raise Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY, f"there is no group {name!r}: make it first, or leave it out"
            )
    gallery = parts.gallery() if rule.people and parts.has_gallery() else None
    for identity_id in rule.people:
        if gallery is None or not gallery.knows(identity_id):
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"nobody with the id {identity_id} is enrolled")
    return rule


def _note(parts: Parts, action: str, stored: StoredRule) -> None:
    # By its id: its name may be that of a person, and the log is for good.
    note(parts.audit_folder, action, stored.rule.people, rule=stored.rule_id, receivers=len(stored.rule.receivers))


@router.get("/rules", operation_id="list_rules")
def list_rules(_caller: Changer, parts: SharedParts) -> RulesPage:
    """All rules; addresses are not shown."""
    return RulesPage(items=listed(parts))


@router.post(
    "/rules",
    operation_id="create_rule",
    status_code=HTTPStatus.CREATED,
    response_model=RuleDocument,
    responses=responses(HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY),
)
def create_rule(
    request: Request,
    caller: Manager,
    parts: SharedParts,
    settings: RuleSettings,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Make a rule. It is about what is captured from now on."""

    def answer() -> tuple[HTTPStatus, str]:
        return HTTPStatus.CREATED, document(make(parts, watch_of(request), settings)).model_dump_json()

    return once(parts, caller, idempotency_key, f"rule {settings.model_dump_json()}", answer)


@router.get("/rules/{rule_id}", operation_id="show_rule", responses=responses(HTTPStatus.NOT_FOUND))
def show_rule(_caller: Changer, parts: SharedParts, rule_id: str, response: Response) -> RuleDocument:
    """One rule; addresses are not shown."""
    stored = find(parts, rule_id)
    response.headers["ETag"] = etag(stored)
    return document(stored)


@router.put(
    "/rules/{rule_id}",
    operation_id="change_rule",
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.PRECONDITION_FAILED, HTTPStatus.UNPROCESSABLE_ENTITY),
)
def change_rule(
    request: Request,
    _caller: Manager,
    parts: SharedParts,
    rule_id: str,
    settings: RuleSettings,
    response: Response,
    if_match: IfMatch = None,
) -> RuleDocument:
    """Let a rule say something else. Addresses that are null stay as they are."""
    stored = change(parts, watch_of(request), rule_id, settings, if_match)
    response.headers["ETag"] = etag(stored)
    return document(stored)


@router.delete(
    "/rules/{rule_id}",
    operation_id="delete_rule",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.PRECONDITION_FAILED),
)
def delete_rule(request: Request, _caller: Manager, parts: SharedParts, rule_id: str, if_match: IfMatch = None) -> None:
    """Delete a rule; what it would still have told is not told."""
    remove(parts, watch_of(request), rule_id, if_match)


@router.post("/rules/{rule_id}/try", operation_id="try_rule", responses=responses(HTTPStatus.NOT_FOUND))
def try_one(_caller: Manager, parts: SharedParts, rule_id: str) -> TrialDocument:
    """Send one message, which says that it is a test, to each receiver of a rule; it takes up to 20 seconds. The answer
    says what came back. A webhook gets it with the field ``test``."""
    return tried(parts, rule_id)


@router.get("/alerts", operation_id="list_alerts")
def list_alerts(_caller: Changer, parts: SharedParts, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> AlertsPage:
    """What became of the newest alerts."""
    return AlertsPage(items=alerts(parts, limit))
