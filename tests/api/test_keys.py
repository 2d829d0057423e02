"""Accounts, sessions and tokens: who gets in, and for how long."""

from pathlib import Path

import httpx

from tests.support.console import API, PASSWORD, Console, console_config, serving
from worker.api.app import make_app
from worker.api.parts import Parts
from worker.api.roles import Role
from worker.history.store import FILE


def test_the_code_of_the_first_start_makes_one_admin_and_no_more(tmp_path: Path, redis_url: str) -> None:
    app = make_app(Parts(console_config(tmp_path, redis_url)))
    code = app.state.first_code.code
    given = {"code": code, "name": "root", "password": PASSWORD}
    with serving(app) as address, httpx.Client(base_url=address) as client:
        assert client.post(f"{API}/setup", json=given | {"code": "guess"}).status_code == 403
        assert client.post(f"{API}/setup", json=given | {"password": "short"}).status_code == 422
        made = client.post(f"{API}/setup", json=given)
        assert (made.status_code, made.json()["role"]) == (200, "admin")
        assert client.get(f"{API}/me").json()["name"] == "root"
        assert client.post(f"{API}/setup", json=given | {"name": "other"}).status_code == 409
    again = make_app(Parts(console_config(tmp_path, redis_url)))
    assert again.state.first_code.code == "", "a console with an admin has no code"
    again.state.parts.close()


def test_wrong_codes_are_limited(tmp_path: Path, redis_url: str) -> None:
    app = make_app(Parts(console_config(tmp_path, redis_url)))
    given = {"code": "guess", "name": "root", "password": PASSWORD}
    with serving(app) as address, httpx.Client(base_url=address) as client:
        for _ in range(20):
            client.post(f"{API}/setup", json=given)
        right = given | {"code": app.state.first_code.code}
        assert client.post(f"{API}/setup", json=right).status_code == 429


def test_the_cookie_of_a_session_is_for_this_site_and_no_script(console: Console) -> None:
    answer = console.anybody().post(f"{API}/session", json={"name": "viewer", "password": PASSWORD})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_wrong_passwords_are_told_alike_and_limited(console: Console) -> None:
    client = console.anybody()

    def tried(name: str, password: str = "wrong password") -> httpx.Response:
        return client.post(f"{API}/session", json={"name": name, "password": password})

    assert tried("admin").json()["detail"] == tried("nobody").json()["detail"]
    for _ in range(4):
        assert tried("admin").status_code == 401
    refused = tried("admin", PASSWORD)
    assert refused.status_code == 429, "the right password comes too late as well"
    assert int(refused.headers["Retry-After"]) > 0
    assert tried("viewer", PASSWORD).status_code == 200, "other accounts are not locked"


def test_a_good_log_in_forgets_the_failures_before(console: Console) -> None:
    client = console.anybody()
    for _ in range(3):
        for _ in range(4):
            client.post(f"{API}/session", json={"name": "viewer", "password": "wrong password"})
        good = client.post(f"{API}/session", json={"name": "viewer", "password": PASSWORD})
        assert good.status_code == 200


def test_who_logs_out_or_is_removed_has_no_session_any_more(console: Console) -> None:
    viewer, operator, admin = console.as_role("viewer"), console.as_role("operator"), console.as_role("admin")
    cookie = viewer.cookies["facestream_session"]
    assert viewer.delete(f"{API}/session").status_code == 204
    assert console.anybody(Cookie=f"facestream_session={cookie}").get(f"{API}/me").status_code == 401
    assert admin.patch(f"{API}/accounts/operator", json={"password": "another password"}).status_code == 200
    assert operator.get(f"{API}/me").status_code == 401, "a new password ends the sessions"
    assert admin.delete(f"{API}/accounts/operator").status_code == 204
    assert [account["name"] for account in admin.get(f"{API}/accounts").json()["items"]] == ["admin", "viewer"]


def test_a_role_takes_effect_at_once_and_the_last_admin_stays(console: Console) -> None:
    viewer, admin = console.as_role("viewer"), console.as_role("admin")
    assert viewer.patch(f"{API}/people/p-bob", json={"identity_name": "Rob"}).status_code == 403
    admin.patch(f"{API}/accounts/viewer", json={"role": "operator"})
    assert viewer.patch(f"{API}/people/p-bob", json={"identity_name": "Rob"}).status_code == 200
    demoted = admin.patch(f"{API}/accounts/admin", json={"role": "viewer"})
    for answer in (demoted, admin.delete(f"{API}/accounts/admin")):
        assert "last admin" in answer.json()["detail"]
    taken = admin.post(f"{API}/accounts", json={"name": "viewer", "password": PASSWORD, "role": "viewer"})
    assert taken.status_code == 422


def test_a_token_may_do_no_more_than_its_account(console: Console) -> None:
    wanted: list[tuple[Role, list[str], int]] = [
        ("viewer", ["read"], 201), ("viewer", ["read", "change"], 422), ("operator", ["change"], 201),
        ("operator", ["manage"], 422), ("admin", ["manage"], 201), ("admin", [], 422),
    ]  # fmt: skip
    clients = {role: console.as_role(role) for role, _, _ in wanted}
    for role, scopes, status in wanted:
        made = clients[role].post(f"{API}/tokens", json={"name": "script", "scopes": scopes, "days": 1})
        assert made.status_code == status, (role, scopes)


def test_a_token_works_until_it_is_revoked_and_only_its_digest_is_kept(console: Console, tmp_path: Path) -> None:
    operator = console.as_role("operator")
    asked = {"name": "script", "scopes": ["read", "change"], "days": 1}
    key = {"Idempotency-Key": "token-1"}
    made = operator.post(f"{API}/tokens", json=asked, headers=key).json()
    assert operator.post(f"{API}/tokens", json=asked, headers=key).json() == made | {"token": None}
    program = console.anybody(Authorization=f"Bearer {made['token']}")
    assert program.get(f"{API}/me").json()["scopes"] == ["change", "read"]
    assert program.patch(f"{API}/people/p-bob", json={"identity_name": "Rob"}).status_code == 200, "without CSRF"
    assert program.post(f"{API}/tokens", json=asked).status_code == 403, "a token makes no tokens"
    stored = b"".join(path.read_bytes() for path in (tmp_path / "people.state").glob(f"{FILE}*"))
    assert made["token_id"].encode() in stored
    for secret in (made["token"], operator.cookies["facestream_session"], PASSWORD):
        assert secret.encode() not in stored
    assert b"$argon2id$" in stored
    console.as_role("admin").patch(f"{API}/accounts/operator", json={"role": "viewer"})
    assert program.patch(f"{API}/people/p-bob", json={"identity_name": "Bob"}).status_code == 403
    assert operator.delete(f"{API}/tokens/{made['token_id']}").status_code == 204
    assert program.get(f"{API}/me").status_code == 401
    assert console.as_role("viewer").delete(f"{API}/tokens/{made['token_id']}").status_code == 404


def test_a_disabled_account_has_no_session_and_its_tokens_stop(console: Console) -> None:
    admin, operator = console.as_role("admin"), console.as_role("operator")
    made = operator.post(f"{API}/tokens", json={"name": "script", "scopes": ["read"]}).json()
    program = console.anybody(Authorization=f"Bearer {made['token']}")
    link = admin.post(f"{API}/accounts/operator/link").json()
    assert admin.patch(f"{API}/accounts/operator", json={"disabled": True}).json()["disabled"] is True
    assert [client.get(f"{API}/me").status_code for client in (operator, program)] == [401, 401]
    chosen = console.anybody().post(f"{API}/password", json={"secret": link["secret"], "password": PASSWORD})
    assert chosen.status_code == 401, "a link made before does not open it"
    assert admin.post(f"{API}/accounts/operator/link").status_code == 422
    admin.patch(f"{API}/accounts/operator", json={"disabled": False})
    assert [client.get(f"{API}/me").status_code for client in (operator, program)] == [401, 200]
    assert admin.patch(f"{API}/accounts/admin", json={"disabled": True}).status_code == 422, "the last admin stays"


def test_a_link_sets_a_password_once_and_its_secret_is_not_kept(console: Console, tmp_path: Path) -> None:
    admin, nobody = console.as_role("admin"), console.anybody()
    made = admin.post(f"{API}/accounts", json={"name": "guard", "role": "viewer", "cameras": ["door"]}).json()
    assert (made["has_password"], made["cameras"]) == (False, ["door"])
    assert nobody.post(f"{API}/session", json={"name": "guard", "password": PASSWORD}).status_code == 401
    before, link = (admin.post(f"{API}/accounts/guard/link").json() for _ in range(2))

    def choose(secret: str, password: str = PASSWORD) -> int:
        return nobody.post(f"{API}/password", json={"secret": secret, "password": password}).status_code

    assert choose(before["secret"]) == 401, "the link before holds no more"
    assert choose(link["secret"], "short") == 422
    assert choose(link["secret"]) == 200
    assert choose(link["secret"]) == 401
    assert nobody.post(f"{API}/session", json={"name": "guard", "password": PASSWORD}).status_code == 200
    expired, _expires_s = console.parts.accounts.link("guard", -1.0)
    assert choose(expired) == 401
    stored = b"".join(path.read_bytes() for path in (tmp_path / "people.state").glob(f"{FILE}*"))
    assert not [secret for secret in (link["secret"], before["secret"]) if secret.encode() in stored]
    actions = [line["action"] for line in admin.get(f"{API}/audit").json()["items"]]
    assert {"account made", "password link made", "password chosen by link"} <= set(actions)


def test_an_admin_who_cannot_log_in_counts_for_none(console: Console) -> None:
    admin = console.as_role("admin")
    assert admin.post(f"{API}/accounts", json={"name": "second", "role": "admin"}).status_code == 201
    assert admin.delete(f"{API}/accounts/admin").status_code == 422
    secret = admin.post(f"{API}/accounts/second/link").json()["secret"]
    console.anybody().post(f"{API}/password", json={"secret": secret, "password": PASSWORD})
    assert admin.delete(f"{API}/accounts/admin").status_code == 204


def test_sessions_are_listed_and_ended(console: Console) -> None:
    here, there = console.as_role("viewer"), console.as_role("viewer")
    listed = here.get(f"{API}/sessions").json()["items"]
    assert sorted(one["current"] for one in listed) == [False, True]
    assert {one["address"] for one in listed} == {"127.0.0.1"}
    assert all("httpx" in one["agent"] for one in listed)
    of_another = console.as_role("operator").delete(f"{API}/sessions/{listed[0]['session_id']}")
    assert of_another.status_code == 404
    assert here.delete(f"{API}/sessions").json() == {"sessions": 1}
    assert there.get(f"{API}/me").status_code == 401
    made = here.post(f"{API}/tokens", json={"name": "script", "scopes": ["read"]}).json()
    program = console.anybody(Authorization=f"Bearer {made['token']}")
    assert program.delete(f"{API}/sessions").status_code == 403
    assert console.as_role("admin").delete(f"{API}/accounts/viewer/sessions").json() == {"sessions": 1}
    assert here.get(f"{API}/me").status_code == 401


def test_wrong_old_passwords_are_limited(console: Console) -> None:
    client = console.as_role("viewer")
    for status in [403] * 5 + [429]:
        changed = client.put(f"{API}/me/password", json={"old": "guess", "new": "a new password"})
        assert changed.status_code == status


def test_an_expired_token_is_none(console: Console) -> None:
    account = next(each for each in console.parts.accounts.accounts() if each.name == "viewer")
    _token, secret = console.parts.tokens.create(account, "old", ("read",), lives_s=-1.0)
    assert console.anybody(Authorization=f"Bearer {secret}").get(f"{API}/me").status_code == 401
