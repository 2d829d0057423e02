"""The description of the API, and how it tells what went wrong."""

import json
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import ignored_auth, positive_data_acceptance

from tests.support.console import API, Console
from tests.support.repository import REPOSITORY

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


@pytest.mark.slow
def test_no_request_of_any_shape_breaks_the_server_or_gets_an_answer_of_another_shape(console: Console) -> None:
    """Schemathesis makes requests of the description, right and wrong ones."""
    schema = schemathesis.openapi.from_dict(console.app.openapi())
    schema.config.update(base_url=console.address)
    client = console.as_role("admin")
    headers = {"X-CSRF-Token": client.headers["X-CSRF-Token"]}
    cookies = dict(client.cookies)
    leaves = {
        "follow_events",
        "log_out",
        "set_up",
        "log_in",
        "search_photo",
        "find_faces",
        "enroll_person",
        "check_camera",
    }
    tried = set()
    for result in schema.get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr] # the description was read
        name = operation.definition.raw["operationId"]
        if name in leaves:
            continue

        def ask(case: Any) -> None:
            case.call_and_validate(headers=headers, cookies=cookies, excluded_checks=NOT_FOR_US)

        quick = settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        quick(given(case=operation.as_strategy())(ask))()
        tried.add(name)
    operations = sum(len(methods) for methods in console.app.openapi()["paths"].values())
    assert len(tried) == operations - len(leaves)
