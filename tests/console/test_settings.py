"""The page Settings: accounts, tokens, the threshold in words, the audit log."""

import re
from typing import Any

import pytest

from tests.support.console import API, PASSWORD, Console, form
from worker.api.cameras import everything
from worker.audit_log import LOG
from worker.gallery.groups import Group
from worker.gallery.opening import open_gallery


def test_an_admin_makes_changes_and_removes_an_account(console: Console) -> None:
    admin = console.as_role("admin")
    long = "محمد 🎉 " + "x" * 50
    made = form(admin, "/settings", "/settings/accounts", name=long, role="viewer")
    assert (made.status_code, long in made.text) == (200, True)
    again = form(admin, "/settings", "/settings/accounts", name=long, role="viewer")
    assert (again.status_code, "choose another name" in again.text, f'value="{long}"' in again.text) == (
        422,
        True,
        True,
    )
    one = "/settings/accounts/viewer"
    viewer = console.as_role("viewer")
    form(admin, one, one, role="operator")
    assert viewer.get(f"{API}/me").json()["role"] == "operator"
    form(admin, one, f"{one}/remove")
    assert viewer.get(f"{API}/me").status_code == 401
    assert [account.name for account in console.parts.accounts.accounts()] == ["admin", "operator", long]
    last = "/settings/accounts/admin"
    for path, fields in ((f"{last}/remove", {}), (last, {"role": "viewer"}), (f"{last}/disabled", {})):
        refused = form(admin, last, path, **fields)
        assert (refused.status_code, "last admin" in refused.text) == (422, True), path


def test_a_link_lets_its_owner_choose_a_password_once(console: Console) -> None:
    admin = console.as_role("admin")
    page = form(admin, "/settings", "/settings/accounts", name="guard", role="viewer").text
    (link,) = re.findall(r"<code>([^<]+)</code>", page)
    assert link.startswith(f"{console.address}/password/")
    assert link not in admin.get("/settings/accounts/guard").text
    path = link.removeprefix(console.address)
    guard = console.anybody()
    assert "guard" in guard.get(path).text
    assert guard.get(path).status_code == 200, "to look at it uses nothing up"
    for fields, problem in (
        ({"password": PASSWORD, "again": "another one 1"}, "not the same"),
        ({"password": "short", "again": "short"}, "characters"),
    ):
        refused = guard.post(path, data=fields)
        assert (refused.status_code, problem in refused.text) == (422, True)
    assert guard.post(path, data={"password": PASSWORD, "again": PASSWORD}).status_code == 303
    assert guard.get(f"{API}/me").json()["name"] == "guard"
    used = guard.post(path, data={"password": PASSWORD, "again": PASSWORD})
    assert (used.status_code, "used before" in used.text) == (403, True)
    (other,) = re.findall(
        r"<code>([^<]+)</code>", form(admin, "/settings/accounts/guard", "/settings/accounts/guard/link").text
    )
    assert guard.get(f"{API}/me").status_code == 200, "the old password holds until the link is used"
    console.anybody().post(other.removeprefix(console.address), data={"password": "b" * 12, "again": "b" * 12})
    assert guard.get(f"{API}/me").status_code == 401, "a new password ends the sessions"


def test_an_account_is_disabled_and_enabled(console: Console) -> None:
    admin, viewer = console.as_role("admin"), console.as_role("viewer")
    one = "/settings/accounts/viewer"
    form(admin, one, f"{one}/disabled")
    assert viewer.get("/", follow_redirects=True).url.path == "/login"
    refused = console.anybody().post("/login", data={"name": "viewer", "password": PASSWORD})
    assert (refused.status_code, "is disabled: ask an admin" in refused.text) == (401, True)
    assert "disabled" in admin.get("/settings").text
    form(admin, one, f"{one}/disabled")
    console.as_role("viewer")


def test_who_is_logged_in_sees_where_and_logs_out_elsewhere(console: Console) -> None:
    here, there, third = (console.as_role("viewer") for _ in range(3))
    there.get("/settings")
    page = here.get("/settings").text
    (first, second) = sorted(re.findall(r"/settings/sessions/(\w+)/end", page))
    assert first != second
    assert page.count("127.0.0.1") >= 2
    form(here, "/settings", f"/settings/sessions/{first}/end")
    assert sorted(client.get(f"{API}/me").status_code for client in (there, third)) == [200, 401]
    form(here, "/settings", "/settings/sessions")
    assert [client.get(f"{API}/me").status_code for client in (here, there, third)] == [200, 401, 401]


def test_ones_own_password_is_changed_by_the_old_one(console: Console) -> None:
    here, there = console.as_role("viewer"), console.as_role("viewer")
    new = "a new password"
    for old, first, second, problem in (
        ("wrong password", new, new, "old password is wrong"), (PASSWORD, new, "another", "not the same"),
        (PASSWORD, "short", "short", "characters"),
    ):  # fmt: skip
        refused = form(here, "/settings", "/settings/password", old_password=old, password=first, again=second)
        assert (refused.status_code, problem in refused.text) == (422, True), problem
    changed = form(here, "/settings", "/settings/password", old_password=PASSWORD, password=new, again=new)
    assert changed.status_code == 303
    assert [client.get(f"{API}/me").status_code for client in (here, there)] == [200, 401]
    assert console.anybody().post(f"{API}/session", json={"name": "viewer", "password": new}).status_code == 200


def test_a_token_is_shown_once_and_ended(console: Console) -> None:
    viewer = console.as_role("viewer")
    page = form(viewer, "/settings", "/settings/tokens", name="script", scopes="read", days="1").text
    (secret,) = re.findall(r"<code>(fst_[^<]+)</code>", page)
    program = console.anybody(Authorization=f"Bearer {secret}")
    assert program.get(f"{API}/me").json()["scopes"] == ["read"]
    again = viewer.get("/settings").text
    assert "script" in again
    assert secret not in again
    (token,) = console.parts.tokens.all()
    form(viewer, "/settings", f"/settings/tokens/{token.token_id}/end")
    assert program.get(f"{API}/me").status_code == 401
    csrf = viewer.headers["X-CSRF-Token"]
    more = viewer.post("/settings/tokens", data={"csrf": csrf, "name": "x", "scopes": "manage", "days": "1"})
    assert (more.status_code, "may have these scopes" in more.text) == (422, True)


def test_who_does_not_manage_sees_their_own_tokens_alone(console: Console) -> None:
    form(console.as_role("admin"), "/settings", "/settings/tokens", name="of the admin", scopes="read", days="1")
    operator = console.as_role("operator")
    text = operator.get("/settings").text
    assert "of the admin" not in text
    assert "/settings/accounts" not in text
    csrf = operator.headers["X-CSRF-Token"]
    assert operator.get("/settings/audit").status_code == 403
    assert operator.get("/settings/accounts/viewer").status_code == 403
    actions = ("", "/link", "/disabled", "/sessions", "/remove")
    for path in ("accounts", *(f"accounts/viewer{action}" for action in actions)):
        assert operator.post(f"/settings/{path}", data={"csrf": csrf, "role": "admin"}).status_code == 403, path
    assert [one.name for one in console.parts.accounts.accounts()] == ["admin", "operator", "viewer"]


def test_thresholds_are_told_as_false_alarms_to_everybody(console: Console) -> None:
    gallery = open_gallery(console.parts.gallery_path)
    gallery.set_thresholds(0.5, {"yard": 0.7}, {"default": {"fmr": 1e-4, "fpir": 0.002}})
    gallery.set_group("banned", Group(threshold=0.4))
    viewer = console.as_role("viewer")
    text = viewer.get("/settings").text
    assert "from a similarity of 0.50 on" in text
    assert "1 in 500 strangers is taken for somebody" in text
    told = viewer.get(f"{API}/settings").json()["thresholds"]
    assert [(each["of"], each["name"], each["threshold"]) for each in told][-1] == ("group", "banned", 0.4)
    (everybody,) = (each for each in told if each["of"] == "everybody")
    assert (everybody["stranger_rate"], everybody["false_alarm_days"] > 0) == (0.002, True)


def test_an_admin_sets_how_long_things_are_kept_for_all_and_everybody_sees_it(console: Console) -> None:
    admin, viewer = console.as_role("admin"), console.as_role("viewer")
    assert viewer.get("/settings").text.count("as this console is configured") == 3
    assert 'action="/settings/retention"' not in viewer.get("/settings").text
    done = form(admin, "/settings", "/settings/retention", sightings="2,5", unknowns="", pictures=" 1 ")
    assert done.headers["location"] == "/settings?said=kept"
    text = viewer.get("/settings").text
    assert ("2.5 days" in text, text.count("set here, for all workers")) == (True, 2)
    assert viewer.get(f"{API}/retention").json() == {
        "sightings_days": 2.5, "unknowns_days": None, "pictures_days": 1.0
    }  # fmt: skip
    line = admin.get(f"{API}/audit", params={"action": "retention changed"}).json()["items"][0]
    assert (line["details"]["sightings_days"], line["details"]["unknowns_days"]) == ("2.5", "as configured")
    assert line["by"].startswith("admin at the console")
    wrong = form(admin, "/settings", "/settings/retention", sightings="soon", unknowns="2")
    assert (wrong.status_code, 'value="soon"' in wrong.text, "sightings_days" in wrong.text) == (422, True, True)
    assert console.parts.config.history.keep_days == 7.0


def test_what_is_too_old_by_a_shorter_time_goes_at_once(console: Console) -> None:
    admin = console.as_role("admin")
    assert admin.get(f"{API}/sightings").json()["items"]
    assert admin.put(f"{API}/retention", json={"sightings_days": 1e-9}).status_code == 200
    assert admin.get(f"{API}/sightings").json()["items"] == []


def test_two_who_set_how_long_things_are_kept_do_not_overwrite_each_other(console: Console) -> None:
    admin = console.as_role("admin")
    seen = admin.get(f"{API}/retention").headers["ETag"]
    assert admin.put(f"{API}/retention", json={"unknowns_days": 3}, headers={"If-Match": seen}).status_code == 200
    assert admin.put(f"{API}/retention", json={}, headers={"If-Match": seen}).status_code == 412
    csrf = admin.headers["X-CSRF-Token"]
    late = admin.post("/settings/retention", data={"csrf": csrf, "etag": seen, "sightings": "4"})
    assert (late.status_code, 'value="4"' in late.text) == (412, True)
    assert admin.get(f"{API}/retention").json()["unknowns_days"] == 3


def test_the_audit_log_is_shown_filtered_and_checked(console: Console) -> None:
    admin = console.as_role("admin")
    admin.get(f"{API}/sightings/door_1")
    admin.get("/people/p-bob")
    everything = admin.get(f"{API}/audit").json()["items"]
    assert [line["number"] for line in everything] == sorted((line["number"] for line in everything), reverse=True)
    about = admin.get(f"{API}/audit", params={"about": "door_1"}).json()["items"]
    assert 0 < len(about) < len(everything)
    assert admin.get(f"{API}/audit", params={"by": "somebody else"}).json()["items"] == []
    first = admin.get(f"{API}/audit", params={"limit": 1}).json()
    second = admin.get(f"{API}/audit", params={"limit": 1, "before": first["next_before"]}).json()
    assert [first["items"][0], second["items"][0]] == everything[:2]
    assert "past looked up" in admin.get("/settings/audit", params={"action": "looked"}).text
    assert "The log is whole" in admin.get("/settings/audit", params={"verify": "true"}).text
    log = console.parts.audit_folder / LOG
    log.write_text(log.read_text().replace("past looked up", "past looked at", 1))
    assert "was changed after it was written" in admin.get("/settings/audit", params={"verify": "true"}).text
    assert admin.get(f"{API}/audit/verification").json()["problems"]


def test_the_page_asks_once_for_the_cameras(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    admin, asked = console.as_role("admin"), []

    def counting(*given: Any, **more: Any) -> Any:
        asked.append(given)
        return everything(*given, **more)

    monkeypatch.setattr("worker.api.cameras.everything", counting)
    assert admin.get("/settings").status_code == 200
    assert len(asked) == 1
