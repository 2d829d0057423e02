"""The way in by an OpenID provider: a real one, which somebody may lie for."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc.jwk import RSAKey

from tests.support.console import API, PASSWORD, Console, console_config, form, running_console
from tests.support.provider import CLIENT, SECRET, OpenIdProvider, oidc, running_provider
from worker.api.parts import Parts
from worker.errors import ConfigError


@pytest.fixture(scope="module")
def running() -> Iterator[OpenIdProvider]:
    with running_provider() as provider:
        yield provider


@pytest.fixture
def provider(running: OpenIdProvider) -> OpenIdProvider:
    """One that tells the truth."""
    running.signing, running.header, running.known_keys = running.key, {"alg": "RS256", "kid": "k1"}, [running.key]
    running.claims, running.change = lambda _claims: None, lambda _path, told: told
    running.user("anna", preferred_username="anna", email="anna@example.org", email_verified=True, groups=["reception"])
    return running


@pytest.fixture
def console(tmp_path: Path, redis_url: str, provider: OpenIdProvider) -> Iterator[Console]:
    with running_console(console_config(tmp_path, redis_url, **oidc(provider.issuer, tmp_path))) as made:
        yield made


def go(console: Console, client: httpx.Client, to: str = "/") -> str:
    """Where the browser is sent."""
    answer = client.get("/login/provider", params={"to": to})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def come(client: httpx.Client, provider: OpenIdProvider, location: str, subject: str = "anna") -> httpx.Response:
    back = provider.let_in(location, subject)
    return client.get(urlsplit(back).path, params=urlsplit(back).query)


def log_in(console: Console, provider: OpenIdProvider, subject: str = "anna") -> tuple[httpx.Client, httpx.Response]:
    client = console.anybody()
    answer = come(client, provider, go(console, client), subject)
    if answer.status_code == 200:
        client.headers["X-CSRF-Token"] = client.get(f"{API}/me").json()["csrf"]
    return client, answer


def problem_of(answer: httpx.Response) -> str:
    found = re.search(r'role="alert">([^<]*)<', answer.text)
    assert found, answer.text
    return found[1]


def test_who_the_provider_lets_in_gets_an_account_with_the_role_of_the_claims(
    console: Console, provider: OpenIdProvider
) -> None:
    client = console.anybody()
    assert "Log in with Example Org" in client.get("/login").text
    location = go(console, client, "/people?q=b")
    asked = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
    assert location.startswith(f"{provider.issuer}/oauth2/authorize?")
    assert asked["redirect_uri"] == f"{console.address}/login/provider/back"
    assert (asked["response_type"], asked["code_challenge_method"], asked["client_id"]) == ("code", "S256", CLIENT)
    assert asked["scope"].split() == ["openid", "profile", "email"]
    answer = come(client, provider, location)
    assert (answer.status_code, answer.headers["Refresh"]) == (200, "0; url=/people?q=b")
    assert 'href="/people?q=b"' in answer.text
    cookies = answer.headers.get_list("set-cookie")
    assert any("facestream_session=" in each and "samesite=strict" in each.lower() for each in cookies)
    me = client.get(f"{API}/me").json()
    assert (me["name"], me["role"], me["provider"], me["has_password"]) == ("anna", "operator", provider.issuer, False)
    path, sent, authorization = next(each for each in reversed(provider.asked) if each[0] == "/oauth2/token")
    assert authorization.startswith("Basic "), path
    assert len(sent["code_verifier"][0]) >= 43


def test_the_role_of_today_holds_and_nobody_without_one_comes_in(console: Console, provider: OpenIdProvider) -> None:
    before, _ = log_in(console, provider)
    provider.user("anna", preferred_username="anna", groups=["guards", "it", "others"])
    now, _ = log_in(console, provider)
    assert now.get(f"{API}/me").json()["role"] == "admin", "the highest counts"
    provider.user("anna", preferred_username="anna", groups=["others"])
    _, refused = log_in(console, provider)
    assert (refused.status_code, "no role here (claim groups)" in problem_of(refused)) == (401, True)
    assert [client.get(f"{API}/me").status_code for client in (before, now)] == [401, 401]
    provider.user("bob", preferred_username="bob")
    assert log_in(console, provider, "bob")[1].status_code == 401
    assert "bob" not in {account.name for account in console.parts.accounts.accounts()}


def test_a_name_that_is_taken_is_not_taken_over(console: Console, provider: OpenIdProvider) -> None:
    for subject in ("other-1", "other-2"):
        provider.user(subject, preferred_username="admin", groups=["guards"])
        client, _ = log_in(console, provider, subject)
        me = client.get(f"{API}/me").json()
        assert (me["name"] != "admin", me["role"]) == (True, "viewer")
    assert len(console.parts.accounts.accounts()) == 5
    assert console.as_role("admin").get(f"{API}/me").json()["role"] == "admin"


def test_an_admin_sees_and_disables_the_account_but_does_not_change_it(
    console: Console, provider: OpenIdProvider
) -> None:
    client, _ = log_in(console, provider)
    admin = console.as_role("admin")
    assert "come from the provider" in admin.get("/settings/accounts/anna").text
    for change in ({"role": "admin"}, {"password": PASSWORD}, {"cameras": ["door"]}):
        refused = admin.patch(f"{API}/accounts/anna", json=change)
        assert (refused.status_code, "OpenID provider" in refused.json()["detail"]) == (422, True)
    assert admin.post(f"{API}/accounts/anna/link").status_code == 422
    assert admin.patch(f"{API}/accounts/anna", json={"disabled": True}).status_code == 200
    assert client.get(f"{API}/me").status_code == 401
    _, refused = log_in(console, provider)
    assert (refused.status_code, "is disabled" in problem_of(refused)) == (401, True)


def test_who_logs_out_is_shown_the_way_out_of_the_provider(console: Console, provider: OpenIdProvider) -> None:
    client, _ = log_in(console, provider)
    gone = form(client, "/settings", "/logout")
    assert gone.headers["location"] == "/login?out=true"
    text = client.get(gone.headers["location"]).text
    assert f'href="{provider.issuer}/oauth2/end_session?client_id={CLIENT}' in text
    assert client.get(f"{API}/me").status_code == 401
    viewer = console.as_role("viewer")
    assert form(viewer, "/settings", "/logout").headers["location"] == "/login"


def test_a_log_in_belongs_to_the_browser_that_began_it(console: Console, provider: OpenIdProvider) -> None:
    mine, theirs = console.anybody(), console.anybody()
    location = go(console, mine)
    go(console, theirs)
    back = urlsplit(provider.let_in(location, "anna"))
    for client, query, told in (
        (theirs, back.query, "another log-in"), (console.anybody(), back.query, "another browser"),
        (mine, re.sub("state=[^&]*", "state=guess", back.query), "another log-in"),
    ):  # fmt: skip
        refused = client.get(back.path, params=query)
        assert (refused.status_code, told in problem_of(refused)) == (401, True), told
        assert client.get(f"{API}/me").status_code == 401
    again = mine.get(back.path, params=back.query)
    assert again.status_code == 401, "what was refused is over"


def lies(provider: OpenIdProvider) -> dict[str, tuple[dict[str, Any], str]]:
    """What a provider, or somebody in its place, may say, and what is told of it."""
    other = RSAKey.generate_key(2048, {"kid": "k2"}, private=True)
    same_name = RSAKey.generate_key(2048, {"kid": "k1"}, private=True)

    def changed(**values: Any) -> Any:
        return {"claims": lambda claims: claims.update(values)}

    def moved(by_s: float) -> Any:
        return {"claims": lambda claims: claims.update({each: claims[each] + by_s for each in ("iat", "exp")})}

    def without(name: str) -> Any:
        return {"claims": lambda claims: claims.pop(name)}

    return {
        "nonce": (changed(nonce="guess"), "nonce"),
        "no nonce": (without("nonce"), "nonce"),
        "audience": (changed(aud="another program"), "aud"),
        "several audiences": (changed(aud=[CLIENT, "another program"]), "azp"),
        "issuer": (changed(iss="https://evil.example.org"), "iss"),
        "expired": ({"claims": lambda claims: claims.update(exp=claims["iat"] - 120)}, "has expired"),
        "no expiry": (without("exp"), "exp"),
        "an hour behind": (moved(-3600), "differ by 60 minutes"),
        "an hour ahead": (moved(3600), "differ by 60 minutes"),
        "no signature": ({"signing": None}, "does not hold"),
        "a secret that all know": ({"header": {"alg": "HS256", "kid": "k1"}, "signing": None}, "does not hold"),
        "unknown key": ({"header": {"alg": "RS256", "kid": "k2"}, "signing": other}, "invalid_key_id"),
        "another key": ({"signing": same_name}, "bad_signature"),
        "no token": ({"change": lambda path, told: {} if "token" in path else told}, "no ID token"),
        "no text": ({"change": lambda path, told: told | {"id_token": 7} if "token" in path else told}, "no ID token"),
    }


@pytest.mark.parametrize("lie", [
    "nonce", "no nonce", "audience", "several audiences", "issuer", "expired", "no expiry", "an hour behind",
    "an hour ahead", "no signature", "a secret that all know", "unknown key", "another key", "no token", "no text",
])  # fmt: skip
def test_what_does_not_hold_lets_nobody_in(console: Console, provider: OpenIdProvider, lie: str) -> None:
    changes, told = lies(provider)[lie]
    for name, value in changes.items():
        setattr(provider, name, value)
    client, refused = log_in(console, provider)
    assert refused.status_code == 401
    assert told in problem_of(refused)
    assert SECRET not in refused.text
    assert client.get(f"{API}/me").status_code == 401
    assert "anna" not in {account.name for account in console.parts.accounts.accounts()}


def test_a_provider_that_is_away_or_says_nonsense_leaves_passwords_working(
    tmp_path: Path, redis_url: str, provider: OpenIdProvider
) -> None:
    away = "http://127.0.0.1:9"
    for issuer, change, status, told in (
        (away, None, 503, "cannot be reached"),
        (provider.issuer, {"issuer": "https://evil.example.org"}, 401, "another issuer"),
        (provider.issuer, {"token_endpoint": None}, 401, "lacks an address"),
    ):  # fmt: skip
        if change is not None:
            provider.change = lambda _path, told, change=change: told | change  # type: ignore[misc]
        folder = tmp_path / f"of {told}"
        folder.mkdir()
        with running_console(console_config(folder, redis_url, **oidc(issuer, folder))) as console:
            client = console.anybody()
            refused = client.get("/login/provider")
            assert (refused.status_code, told in problem_of(refused)) == (status, True), refused.text
            assert client.post("/login", data={"name": "viewer", "password": PASSWORD}).status_code == 303


def test_a_provider_leads_to_no_other_host(tmp_path: Path, redis_url: str, provider: OpenIdProvider) -> None:
    elsewhere = provider.issuer.replace("127.0.0.1", "127.0.0.2")
    provider.change = lambda path, told: (
        told | {"token_endpoint": f"{elsewhere}/oauth2/token"} if "well" in path else told
    )
    with running_console(console_config(tmp_path, redis_url, **oidc(provider.issuer, tmp_path))) as console:
        _, refused = log_in(console, provider)
        assert "network.allowed_hosts" in problem_of(refused)
    assert not [path for path, _, _ in provider.asked if path == "/oauth2/token" and elsewhere in path]


def test_cameras_and_domains_by_claims(tmp_path: Path, redis_url: str, provider: OpenIdProvider) -> None:
    more = {"cameras_claim": "cameras", "allowed_domains": ["Example.org"], "roles_claim": "realm.roles"}
    with running_console(console_config(tmp_path, redis_url, **oidc(provider.issuer, tmp_path, **more))) as console:
        who = {"preferred_username": "anna", "realm": {"roles": "guards"}}
        verified = {"email": "anna@example.org", "email_verified": True}
        for claims, cameras in (({"cameras": ["yard", "door"]}, ["door", "yard"]), ({"cameras": "*"}, None), ({}, [])):
            provider.user("anna", **who, **verified, **claims)
            client, answer = log_in(console, provider)
            assert answer.status_code == 200, answer.text
            assert client.get(f"{API}/me").json()["cameras"] == cameras
        assert client.get(f"{API}/sightings").json()["items"] == []
        others: list[dict[str, Any]] = [
            {"email": "anna@evil.org", "email_verified": True},
            {"email": "anna@example.org"},
            {},
        ]
        for told in others:
            provider.user("anna", **who, **told)
            _, refused = log_in(console, provider)
            assert "allowed domain" in problem_of(refused)


def asked_beside(provider: OpenIdProvider) -> list[str]:
    return [authorization for path, _, authorization in provider.asked if path == "/userinfo"]


def test_a_claim_that_the_id_token_lacks_is_asked_for_and_no_other(
    tmp_path: Path, redis_url: str, provider: OpenIdProvider
) -> None:
    more = {"cameras_claim": "cameras", "allowed_domains": ["example.org"], "roles_claim": "realm.roles"}
    lacking: tuple[tuple[str, ...], ...] = (
        ("realm",), ("cameras",), ("email",), ("email_verified",), ("realm", "preferred_username"), (),
    )  # fmt: skip
    verified = {"email": "anna@example.org", "email_verified": True}
    who = {"preferred_username": "anna", "realm": {"roles": ["guards"]}, "cameras": ["door"], **verified}
    provider.user("anna", **who)
    with running_console(console_config(tmp_path, redis_url, **oidc(provider.issuer, tmp_path, **more))) as console:
        for names in lacking:
            provider.asked.clear()
            provider.claims = lambda claims, names=names: [claims.pop(name) for name in names]  # type: ignore[misc]
            client, answer = log_in(console, provider)
            assert answer.status_code == 200, (names, answer.text)
            me = client.get(f"{API}/me").json()
            assert (me["name"], me["role"], me["cameras"]) == ("anna", "viewer", ["door"]), names
            assert len(asked_beside(provider)) == bool(names)
            assert all(each.startswith("Bearer ") for each in asked_beside(provider))
        # What the ID token says counts, also that somebody is in no group.
        provider.claims = lambda claims: claims.update(realm={"roles": []})
        assert "no role here" in problem_of(log_in(console, provider)[1])
        provider.claims = lambda claims: claims.update(email="anna@evil.org", email_verified=False)
        assert "allowed domain" in problem_of(log_in(console, provider)[1])
        provider.claims = lambda claims: (claims.update(email="anna@evil.org"), claims.pop("email_verified"))
        provider.change = lambda path, told: told | {"email": "eve@evil.org"} if path == "/userinfo" else told
        assert "allowed domain" in problem_of(log_in(console, provider)[1])


@pytest.mark.parametrize(
    ("path", "change", "status", "told"),
    [
        ("/userinfo", {"sub": "bob"}, 401, "about somebody else"),
        ("/userinfo", {"sub": None}, 401, "about somebody else"),
        ("/userinfo", {"much": "x" * 300_000}, 503, "does not answer as it should"),
        ("/userinfo", {"groups": 7}, 401, "no role here"),
        ("/oauth2/token", {"access_token": "of-somebody-else"}, 401, "at_hash"),
        ("/oauth2/token", {"access_token": None}, 401, "no access token"),
        ("/oauth2/token", {"access_token": "two\r\nlines"}, 401, "at_hash"),
        ("/.well-known/openid-configuration", {"userinfo_endpoint": "http://127.0.0.1:9/"}, 503, "cannot be reached"),
        ("/.well-known/openid-configuration", {"userinfo_endpoint": "http://127.0.0.2/"}, 401, "allowed_hosts"),
        ("/.well-known/openid-configuration", {"userinfo_endpoint": "file:///etc/passwd"}, 401, "not https"),
        ("/.well-known/openid-configuration", {"userinfo_endpoint": None}, 401, "no role here"),
    ],
)  # fmt: skip
def test_what_is_asked_beside_the_id_token_has_to_hold_as_well(
    console: Console, provider: OpenIdProvider, path: str, change: dict[str, Any], status: int, told: str
) -> None:
    provider.claims = lambda claims: claims.pop("groups")
    provider.change = lambda at, said: said | change if at == path else said
    client, refused = log_in(console, provider)
    assert (refused.status_code, told in problem_of(refused)) == (status, True), refused.text
    assert client.get(f"{API}/me").status_code == 401
    assert "anna" not in {account.name for account in console.parts.accounts.accounts()}


def test_an_access_token_that_the_provider_does_not_take_is_told(console: Console, provider: OpenIdProvider) -> None:
    provider.claims = lambda claims: (claims.pop("groups"), claims.pop("at_hash"))
    for token, told in (
        ("not-known-any-more", "does not tell the claim groups (400"),
        ("two\r\nlines", "no access token"),
    ):
        provider.change = lambda path, said, token=token: (  # type: ignore[misc]
            said | {"access_token": token} if path == "/oauth2/token" else said
        )
        _, refused = log_in(console, provider)
        assert (refused.status_code, told in problem_of(refused)) == (401, True), refused.text


def test_a_configuration_that_is_not_whole_is_told(tmp_path: Path, redis_url: str) -> None:
    for changes, told in (
        ({"client_id": ""}, "client_id"), ({"roles": {}}, "roles"), ({"ca_file": "/nowhere"}, "ca_file"),
        ({"client_secret_file": "/nowhere"}, "client_secret_file"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=told):
            Parts(console_config(tmp_path, redis_url, **oidc("https://id.example.org", tmp_path, **changes)))
    (tmp_path / "other").mkdir()
    with running_console(console_config(tmp_path / "other", redis_url)) as console:
        assert "Log in with" not in console.anybody().get("/login").text
        assert console.anybody().get("/login/provider").status_code == 404
