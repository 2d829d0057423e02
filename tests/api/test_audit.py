"""The audit log of what is done by the console: it says which account did it."""

from pathlib import Path

from tests.support.console import API, Console
from worker.audit_log import AuditLog


def done(folder: Path) -> list[tuple[str, str, str]]:
    """Who did what, by which command, as the log says."""
    return [
        (entry["by"].partition(" at the console of ")[0], entry["action"], entry["details"].get("command", ""))
        for entry in AuditLog(folder).entries()
    ]


def test_each_change_and_each_look_at_a_past_bears_the_name_of_the_account(console: Console, tmp_path: Path) -> None:
    viewer, operator, admin = console.as_role("viewer"), console.as_role("operator"), console.as_role("admin")
    before = len(done(tmp_path / "people.state"))
    viewer.get(f"{API}/sightings", params={"identity_id": "p-anna"})
    viewer.get("/sightings/door_1")
    viewer.get("/unknown")
    operator.patch(f"{API}/people/p-bob", json={"identity_name": "Rob"})
    operator.post(f"{API}/unknowns/u-1/name", json={"identity_name": "Carla"})
    operator.post(f"{API}/sightings/door_1/correction", json={})
    admin.delete(f"{API}/unknowns/u-2")
    viewer.get(f"{API}/people")
    assert done(tmp_path / "people.state")[before:] == [
        ("viewer", "past looked up", "explain"),
        ("viewer", "past looked up", "explain"),
        ("viewer", "past looked up", "unknown show"),
        ("operator", "renamed", ""),
        ("operator", "past looked up", "unknown enroll"),
        ("operator", "enrolled", ""),
        ("operator", "past looked up", "correct"),
        ("admin", "past looked up", "unknown forget"),
    ]
    assert AuditLog(tmp_path / "people.state").verify()[1] == []
