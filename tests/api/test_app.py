"""The description of the API, and how it tells what went wrong."""

import json
from typing import Any, cast

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import ignored_auth, positive_data_acceptance

from tests.support.console import API, Console
from tests.support.repository import REPOSITORY
from worker.api.roles import Role

# Beside a session, a header for somebody else, such as a proxy with passwords of its own, changes nothing. And a cursor
# or a password may have the right form and still be none.
NOT_FOR_US = [ignored_auth, positive_data_acceptance]
COMMITTED = REPOSITORY / "docs" / "openapi.json"


def test_the_committed_description_is_that_of_the_program(console: Console) -> None:
    served = console.as_role("viewer").get(f"{API}/openapi.json").json()
    assert served["openapi"].startswith("3.1")
    assert served == json.loads(COMMITTED.read_text()), "write it anew: python docs/reference.py"


def test_what_is_wrong_is_told_as_a_problem(console: Console) -> None:
    client = console.as_role("operator")
    for answer in (
        client.get(f"{API}/nothing"),
        client.put(f"{API}/people"),
        client.patch(f"{API}/people/p-bob", json={"identity_name": "Rob", "admin": True}),
        client.patch(f"{API}/people/p-bob", content=b"{"),
        client.get(f"{API}/people", params={"limit": 0}),
        console.anybody().get(f"{API}/people"),
    ):
        assert answer.headers["content-type"] == "application/problem+json"
        told = answer.json()
        assert told["status"] == answer.status_code
        assert told["detail"]


LEAVES = {
    "follow_events": "it answers for ever",
    "search_photo": "it looks at photos, for seconds each",
    "enroll_person": "it looks at photos, for seconds each",
    "check_camera": "it would connect to whatever address is made up",
}
ENDS = {"log_out", "log_in", "set_up", "end_other_sessions", "end_session", "change_own_password", "choose_password"}
"""What ends the session that the others need, or stands for it. A token may try it."""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("who", ["admin's session", "admin", "operator", "viewer", "nobody"])
def test_no_request_of_any_shape_breaks_the_server_or_gets_an_answer_of_another_shape(
    console: Console, who: str
) -> None:
    """Schemathesis makes requests of the description, right and wrong ones."""
    schema = schemathesis.openapi.from_dict(console.app.openapi())
    schema.config.update(base_url=console.address)
    headers: dict[str, str] = {}
    cookies: dict[str, str] = {}
    left = set(LEAVES)
    if who == "admin's session":
        client = console.as_role("admin")
        headers, cookies = {"X-CSRF-Token": client.headers["X-CSRF-Token"]}, dict(client.cookies)
        left |= ENDS
    elif who != "nobody":
        client = console.as_role(cast(Role, who))
        scopes = client.get(f"{API}/me").json()["scopes"]
        made = client.post(f"{API}/tokens", json={"name": "program", "scopes": scopes, "days": 1}).json()
        headers = {"Authorization": f"Bearer {made['token']}"}
    tried = set()
    for result in schema.get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr] # the description was read
        name = operation.definition.raw["operationId"]
        if name in left:
            continue

        def ask(case: Any) -> None:
            case.call_and_validate(headers=headers, cookies=cookies, excluded_checks=NOT_FOR_US)

        most = 15 if who.startswith("admin") else 5
        quick = settings(max_examples=most, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        quick(given(case=operation.as_strategy())(ask))()
        tried.add(name)
    every = {told["operationId"] for methods in console.app.openapi()["paths"].values() for told in methods.values()}
    assert tried == every - left
