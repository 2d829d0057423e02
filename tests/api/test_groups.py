"""Groups of people by the API."""

from pathlib import Path

from tests.support.console import API, Console, console_config, running_console
from worker.audit_log import AuditLog


def test_groups_are_made_filled_shown_and_deleted(console: Console, tmp_path: Path) -> None:
    client = console.as_role("operator")
    settings = {"threshold": 0.6, "colour": "red", "advice": "call the guard"}
    made = client.put(f"{API}/groups/banned", json=settings).json()
    assert made == {"group": "banned", "people": 0, **settings}
    assert client.put(f"{API}/groups/day%20staff", json={}).status_code == 200
    seen = client.get(f"{API}/people/p-anna").headers["ETag"]
    put = client.put(
        f"{API}/people/p-anna/groups", json={"groups": ["banned", "day staff"]}, headers={"If-Match": seen}
    )
    assert put.json()["groups"] == ["banned", "day staff"]
    late = client.put(f"{API}/people/p-anna/groups", json={"groups": []}, headers={"If-Match": seen})
    assert late.status_code == 412
    assert client.put(f"{API}/people/p-bob/groups", json={"groups": ["day staff"]}).status_code == 200
    listed = client.get(f"{API}/groups").json()["items"]
    assert [(group["group"], group["people"]) for group in listed] == [("banned", 1), ("day staff", 2)]
    found = client.get(f"{API}/people", params={"group": "banned"}).json()
    assert [person["identity_id"] for person in found["items"]] == ["p-anna"]
    assert client.put(f"{API}/people/p-anna/groups", json={"groups": ["day staff"]}).json()["groups"] == ["day staff"]
    assert client.delete(f"{API}/groups/day%20staff").status_code == 204
    assert client.get(f"{API}/people/p-anna").json()["groups"] == []
    done = [entry["action"] for entry in AuditLog(tmp_path / "people.state").entries()]
    done = [action for action in done if action != "past looked up"]
    assert done[-6:] == ["group set", "group set", "regrouped", "regrouped", "regrouped", "group removed"]


def test_what_cannot_be_is_refused_in_one_line(console: Console) -> None:
    client = console.as_role("operator")
    for path, body, status, said in (
        ("groups/a,b", {}, 422, "cannot name a group"),
        ("groups/banned", {"threshold": 2}, 422, "threshold"),
        ("groups/banned", {"colour": "pink"}, 422, "colour"),
        ("people/p-anna/groups", {"groups": ["guests"]}, 404, "no group 'guests'"),
        ("people/p-nobody/groups", {"groups": []}, 404, "p-nobody"),
    ):
        refused = client.put(f"{API}/{path}", json=body)
        assert (refused.status_code, said in refused.json()["detail"]) == (status, True), refused.text
    assert client.delete(f"{API}/groups/guests").status_code == 404
    assert client.get(f"{API}/groups").json() == {"items": []}


def test_where_nobody_is_enrolled_there_are_no_groups(tmp_path: Path, redis_url: str) -> None:
    with running_console(console_config(tmp_path, redis_url), filled=False) as console:
        client = console.as_role("operator")
        assert client.get(f"{API}/groups").json() == {"items": []}
        assert client.put(f"{API}/groups/staff", json={}).status_code == 409
