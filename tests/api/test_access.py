"""What stands before every operation: who may do it, from which page, under which name, and how much is taken."""

import re
from pathlib import Path
from typing import Any

import httpx

from tests.support.console import API, Console, console_config, running_console
from worker.api.roles import Role

NOBODY, VIEWER, OPERATOR, ADMIN = 0, 1, 2, 3
LEAST: dict[str, int] = {
    "set_up": NOBODY, "log_in": NOBODY,
    "list_groups": VIEWER, "show_group": VIEWER, "set_group": OPERATOR, "delete_group": OPERATOR,
    "regroup_person": OPERATOR,
    "list_people": VIEWER, "show_person": VIEWER, "list_samples": VIEWER, "list_sightings": VIEWER,
    "show_scene": VIEWER, "show_sample": VIEWER, "list_nearest": VIEWER,
    "show_sighting": VIEWER, "explain_sighting": VIEWER, "show_face": VIEWER, "search_photo": VIEWER,
    "plan_erasure_of_person": OPERATOR, "erase_person": OPERATOR, "plan_erasure_of_unknown": OPERATOR,
    "erase_unknown": OPERATOR, "list_erasures": OPERATOR, "show_erasure": OPERATOR,
    "list_findings": VIEWER, "show_timeline": VIEWER, "find_faces": VIEWER,
    "plan_merge_of_people": OPERATOR, "merge_people": OPERATOR,
    "set_consent": OPERATOR, "clear_consent": OPERATOR,
    "list_unknowns": VIEWER, "show_unknown": VIEWER, "list_suggestions": VIEWER,
    "follow_events": VIEWER, "show_status": VIEWER,
    "log_out": VIEWER, "show_me": VIEWER, "list_tokens": VIEWER, "create_token": VIEWER, "revoke_token": VIEWER,
    "enroll_person": OPERATOR, "rename_person": OPERATOR, "remove_person": OPERATOR, "remove_sample": OPERATOR,
    "correct_sighting": OPERATOR, "undo_correction": OPERATOR, "name_unknown": OPERATOR, "merge_unknowns": OPERATOR,
    "forget_unknown": OPERATOR, "undo_step": OPERATOR, "split_unknown": OPERATOR, "ignore_unknown": OPERATOR,
    "heed_unknown": OPERATOR,
    "list_camera_hours": VIEWER,
    "list_cameras": VIEWER, "show_camera": VIEWER, "add_camera": ADMIN, "check_camera": ADMIN, "change_camera": ADMIN,
    "remove_camera": ADMIN, "look_through_camera": ADMIN,
    "show_settings": VIEWER, "show_retention": VIEWER, "change_retention": ADMIN,
    "list_audit": ADMIN, "verify_audit": ADMIN,
    "list_rules": OPERATOR, "show_rule": OPERATOR, "list_alerts": OPERATOR,
    "create_rule": ADMIN, "change_rule": ADMIN, "delete_rule": ADMIN, "try_rule": ADMIN,
    "list_accounts": ADMIN, "create_account": ADMIN, "change_account": ADMIN, "remove_account": ADMIN,
    "make_password_link": ADMIN, "end_sessions_of": ADMIN, "choose_password": NOBODY, "change_own_password": VIEWER,
    "list_sessions": VIEWER, "end_session": VIEWER, "end_other_sessions": VIEWER,
}  # fmt: skip
"""Every operation, and the least role that may do it."""

OF_PEOPLE = {
    "set_up", "log_in", "create_token", "choose_password", "change_own_password", "list_sessions", "end_session",
    "end_other_sessions",
}  # fmt: skip
"""What a token may not do, whatever its scopes are: it must not outlive its own end."""

ROLES: tuple[Role, ...] = ("viewer", "operator", "admin")


def operations(console: Console) -> dict[str, tuple[str, str]]:
    return {
        told["operationId"]: (method.upper(), path)
        for path, methods in console.app.openapi()["paths"].items()
        for method, told in methods.items()
    }


def asked(client: httpx.Client, method: str, path: str) -> int:
    """What an operation answers to who asks for things that are not there."""
    path = re.sub(r"\{\w+\}", "none", path)
    with client.stream(method, path, json={} if method in {"POST", "PATCH", "PUT"} else None) as answer:
        return answer.status_code


def test_every_operation_is_open_to_the_roles_that_the_table_says(console: Console) -> None:
    found = operations(console)
    assert found.keys() == LEAST.keys()
    clients = [console.anybody(), *(console.as_role(role) for role in ROLES)]
    for operation, (method, path) in found.items():
        if operation == "log_out":  # it would end the session that the others need
            continue
        for rank, client in enumerate(clients):
            refused = {401} if rank == NOBODY else {403}
            status = asked(client, method, path)
            assert (status in refused) == (rank < LEAST[operation]), (operation, rank, status)


def test_every_operation_is_open_to_tokens_with_the_scopes_that_the_table_says(console: Console) -> None:
    admin = console.as_role("admin")
    clients = []
    for number in (VIEWER, OPERATOR, ADMIN):
        asked_for = {"name": "program", "scopes": ["read", "change", "manage"][:number], "days": 1}
        token = admin.post(f"{API}/tokens", json=asked_for).json()["token"]
        clients.append(console.anybody(Authorization=f"Bearer {token}"))
    for operation, (method, path) in operations(console).items():
        for rank, client in enumerate(clients, start=VIEWER):
            answer = asked(client, method, path)
            if rank < LEAST[operation]:
                assert answer == 403, (operation, rank, answer)
            elif operation not in OF_PEOPLE:
                assert answer not in {401, 403}, (operation, rank, answer)
    for wrong in ("Bearer fst_guess", "Bearer", "Basic dTpw", "fst_guess"):
        assert console.anybody(Authorization=wrong).get(f"{API}/people").status_code == 401, wrong


def test_a_change_by_a_session_needs_the_value_that_only_our_pages_know(console: Console) -> None:
    client = console.as_role("operator")
    for value in ("", "guess", console.as_role("operator").headers["X-CSRF-Token"]):
        client.headers["X-CSRF-Token"] = value
        assert client.patch(f"{API}/people/p-bob", json={"identity_name": "Rob"}).status_code == 403
    assert client.get(f"{API}/people/p-bob").json()["identity_name"] == "Bob"


def test_a_page_of_another_site_cannot_give_the_console_a_name(tmp_path: Path, redis_url: str) -> None:
    config = console_config(tmp_path, redis_url, console={"allowed_hosts": ["faces.example.org"]})
    with running_console(config) as console:
        client = console.as_role("viewer")
        for host in ("localhost", "127.0.0.1:8460", "[::1]:8460", "faces.example.org", "10.1.2.3"):
            assert client.get(f"{API}/me", headers={"Host": host}).status_code == 200, host
        for host in ("evil.example.org", "localhost.evil.example.org", "", "a@b@c", "["):
            assert client.get(f"{API}/me", headers={"Host": host}).status_code == 421, host


def test_browsers_are_told_to_run_nothing_of_others(console: Console) -> None:
    headers = console.anybody().get(f"{API}/me").headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"


def test_a_request_that_is_too_long_is_refused_however_it_is_sent(console: Console) -> None:
    client = console.anybody()

    def pieces() -> Any:
        yield b'{"name": "'
        for _ in range(40):
            yield b"a" * 50_000
        yield b'"}'

    for content in (b"a" * 1_100_000, pieces()):
        answer = client.post(f"{API}/session", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
        assert answer.json()["title"] == "Request Entity Too Large"
