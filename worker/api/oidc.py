"""OpenID Connect: people come in by the account that they have at the provider of their organisation.

Authorization code with PKCE, state and nonce. Authlib makes the requests and checks the claims; what is sent and
received goes by :mod:`worker.asking`, with its limits, and to no host that the policy refuses.
"""

import hmac
import json
import re
import secrets
import ssl
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from authlib.common.urls import add_params_to_uri
from authlib.oauth2 import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import ExpiredTokenError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from worker.api.errors import LoginError
from worker.api.roles import ROLES, Role
from worker.api.sight import Cameras, in_order
from worker.asking import Asker
from worker.config import OidcConfig
from worker.errors import ConfigError
from worker.hosts import ALLOW, HostPolicy, HostRefusedError
from worker.names import person_name

_TIMEOUT_S: Final = 10.0
_MOST_BYTES: Final = 256 * 1024
_KEPT_S: Final = 3600.0
_AGAIN_S: Final = 30.0
"""So often at most the keys are asked for again because one is not known."""
_LEEWAY_S: Final = 60
_CLOCKS_S: Final = 300.0
_SAFE: Final = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
"""How an ID token may be signed: never not at all, and never with a secret that others may know."""
_ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_BEARER: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""What an access token may be made of (RFC 6750)."""
_EVERY: Final = "*"


class ProviderAwayError(LoginError):
    """The provider cannot be asked now."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A log-in that has begun: what only the browser that began it knows."""

    state: str
    nonce: str
    verifier: str


@dataclass(frozen=True, slots=True)
class Person:
    """Whom the provider has let in, and what they may do here. ``role`` is None for somebody without one."""

    subject: str
    name: str
    role: Role | None
    cameras: Cameras


class Provider:
    """The provider of a configuration. Safe to use from any thread.

    Raises:
        ConfigError: the configuration is not complete.
    """

    def __init__(self, config: OidcConfig, policy: HostPolicy) -> None:
        if not config.issuer or not config.client_id or not config.roles:
            raise ConfigError("console.oidc needs issuer, client_id and roles: which value of the claim is which role")
        self.issuer, self._host = config.issuer, urlsplit(config.issuer).hostname or ""
        self.label = config.label or self._host
        self._config, self._policy = config, policy
        self._secret = config.read_client_secret()
        try:
            self._trusted = ssl.create_default_context(cafile=config.ca_file)
        except OSError:
            raise ConfigError(f"console.oidc.ca_file {config.ca_file} cannot be read as certificates") from None
        self._lock = threading.Lock()
        self._described: tuple[float, dict[str, Any]] | None = None
        self._keys: tuple[float, KeySet] | None = None

    def begin(self, redirect_uri: str) -> tuple[str, Begun]:
        """Where the browser is sent to, and what it has to keep.

        Raises:
            ProviderAwayError: the provider cannot be asked.
            LoginError: it does not describe itself as it should.
        """
        begun = Begun(*(secrets.token_urlsafe(32) for _ in range(3)))
        uri = prepare_grant_uri(
            self._description()["authorization_endpoint"], self._config.client_id, "code", redirect_uri,
            " ".join(dict.fromkeys(("openid", *self._config.scopes))), begun.state, nonce=begun.nonce,
            code_challenge=create_s256_code_challenge(begun.verifier), code_challenge_method="S256",
        )  # fmt: skip
        return str(uri), begun

    def finish(self, begun: Begun, answered: Mapping[str, str], redirect_uri: str) -> Person:
        """Who has come back with what the provider ``answered``.

        Raises:
            ProviderAwayError: the provider cannot be asked.
            LoginError: the answer is none of this log-in, or does not hold; the text says why, and no secret.
        """
        if not hmac.compare_digest(answered.get("state", "").encode(), begun.state.encode()):
            raise LoginError("this answer belongs to another log-in: begin again")
        if answered.get("iss", self.issuer) != self.issuer:
            raise LoginError("this answer is of another provider: begin again")
        if "error" in answered or not answered.get("code"):
            code = answered.get("error", "no code")
            raise LoginError(f"the provider did not let you in ({_word(code)})")
        given = self._exchange(answered["code"], begun.verifier, redirect_uri)
        claims = self._claims(given, begun.nonce)
        return self._person(claims, self._beside(claims, given.get("access_token")))

    def leave_url(self, back: str) -> str:
        """Where somebody ends their session at the provider, who then leads to the page ``back``; empty where there is
        no such page, or it is away."""
        try:
            address = self._description().get("end_session_endpoint", "")
        except LoginError:
            return ""
        given = [("client_id", self._config.client_id), ("post_logout_redirect_uri", back)]
        return str(add_params_to_uri(address, given)) if str(address).startswith(("https://", "http://")) else ""

    def _exchange(self, code: str, verifier: str, redirect_uri: str) -> dict[str, Any]:
        """What the provider gives for a code: an ID token among it, which is a text."""
        described = self._description()
        methods = described.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        method = "client_secret_basic" if "client_secret_basic" in methods else "client_secret_post"
        client = ClientAuth(self._config.client_id, self._secret, method if self._secret else "none")
        body = prepare_token_request("authorization_code", "", redirect_uri, code=code, code_verifier=verifier)
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        url, headers, body = client.prepare("POST", described["token_endpoint"], headers, body)
        status, given = self._ask("POST", url, content=str(body).encode(), headers=headers)
        if status != httpx.codes.OK or not isinstance(given.get("id_token"), str):
            raise LoginError(f"the provider gave no ID token ({status}, {_word(given.get('error', 'no reason'))})")
        return given

    def _claims(self, given: Mapping[str, Any], nonce: str) -> dict[str, Any]:
        """What the ID token says, which was made for this log-in just now, by the provider, for us."""
        token = given["id_token"]
        offered = self._description().get("id_token_signing_alg_values_supported", ["RS256"])
        algorithms = sorted(_SAFE.intersection(map(str, offered)))
        try:
            try:
                decoded = jwt.decode(token, self._key_set(), algorithms=algorithms)
            except InvalidKeyIdError:  # keys are changed now and then
                decoded = jwt.decode(token, self._key_set(fresh=True), algorithms=algorithms)
            made_s = decoded.claims.get("iat")
            if isinstance(made_s, int | float) and abs(off_s := time.time() - made_s) > _CLOCKS_S:
                raise LoginError(
                    f"the clocks of this machine and of the provider differ by {abs(off_s) / 60:.0f} minutes: "
                    "set the clock of the console's machine"
                )
            options: Any = {
                "iss": {"essential": True, "value": self.issuer},
                "aud": {"essential": True, "value": self._config.client_id},
            }
            params = {"nonce": nonce, "client_id": self._config.client_id}
            if isinstance(given.get("access_token"), str):  # the one that the ID token names, if it names one
                params["access_token"] = given["access_token"]
            claims = CodeIDToken(decoded.claims, decoded.header, options, params)
            claims.validate(leeway=_LEEWAY_S)
        except ExpiredTokenError:
            raise LoginError("the provider's ID token has expired: begin again") from None
        except (JoseError, ValueError, TypeError) as error:
            claim = getattr(error, "claim", "")
            what = f"{getattr(error, 'error', '') or type(error).__name__}{': ' if claim else ''}{claim}"
            raise LoginError(f"the provider's ID token does not hold ({_word(what)})") from None
        return dict(claims)

    def _beside(self, claims: Mapping[str, Any], token: object) -> dict[str, Any]:
        """What the provider says of somebody beside the ID token, if that lacks a claim that is needed here; nothing
        where there is nothing to ask."""
        needed = [self._config.roles_claim, self._config.cameras_claim]
        needed += ["email", "email_verified"] if self._config.allowed_domains else []
        lacking = [each for each in needed if each and _claim(claims, each) is None]
        url = self._description().get("userinfo_endpoint")
        if not lacking or url is None:
            return {}
        if not isinstance(token, str) or not _BEARER.fullmatch(token):
            raise LoginError(f"the provider gave no access token with which to ask for the claim {lacking[0]}")
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        status, told = self._ask("GET", str(url), headers=headers)
        if status != httpx.codes.OK:
            why = _word(told.get("error", "no reason"))
            raise LoginError(f"the provider's userinfo does not tell the claim {lacking[0]} ({status}, {why})")
        if told.get("sub") != claims["sub"]:
            raise LoginError("the provider's userinfo is about somebody else: begin again")
        return told

    def _person(self, *told: Mapping[str, Any]) -> Person:
        """Who that is; ``told``: the claims of the ID token, and others, which count where it says nothing."""
        mail = next((each for each in told if each.get("email") and "email_verified" in each), {})
        domain, domains = str(mail.get("email", "")).rpartition("@")[2].lower(), self._config.allowed_domains
        if domains and (domain not in {each.lower() for each in domains} or mail["email_verified"] is not True):
            raise LoginError("the provider tells no address of an allowed domain for you: ask an admin")
        wanted = {self._config.roles[value] for value in _values(told, self._config.roles_claim)
                  if value in self._config.roles}  # fmt: skip
        role: Role | None = next((each for each in reversed(ROLES) if each in wanted), None)
        cameras: Cameras = None
        if self._config.cameras_claim and role != "admin":
            named = _values(told, self._config.cameras_claim)
            cameras = None if _EVERY in named else in_order(named)
        names = (each[of] for of in ("preferred_username", "email", "name") for each in told if each.get(of))
        subject = str(told[0]["sub"])
        return Person(subject, person_name(str(next(names, ""))) or subject, role, cameras)

    def _description(self) -> dict[str, Any]:
        with self._lock:
            if self._described is None or time.monotonic() - self._described[0] > _KEPT_S:
                _status, given = self._ask("GET", f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
                if given.get("issuer") != self.issuer:
                    raise LoginError("what the provider says of itself names another issuer than console.oidc.issuer")
                if not all(isinstance(given.get(each), str) for each in _ENDPOINTS):
                    raise LoginError("what the provider says of itself lacks an address that is needed")
                self._described = time.monotonic(), given
            return self._described[1]

    def _key_set(self, *, fresh: bool = False) -> KeySet:
        address = self._description()["jwks_uri"]
        with self._lock:
            age_s = float("inf") if self._keys is None else time.monotonic() - self._keys[0]
            if self._keys is None or age_s > (_AGAIN_S if fresh else _KEPT_S):
                _status, given = self._ask("GET", address)
                self._keys = time.monotonic(), KeySet.import_key_set(given)  # type: ignore[arg-type] # it is checked
            return self._keys[1]

    def _ask(self, method: str, url: str, **more: Any) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of one answer; no redirect is followed."""
        parts = urlsplit(url)
        try:
            if parts.scheme != "https" and (parts.scheme != "http" or not self.issuer.startswith("http://")):
                raise LoginError("an address of the provider is not https")
            port = parts.port or (443 if parts.scheme == "https" else 80)
            self._policy.addresses(parts.hostname or "", port, own=self._host)
            with closing(Asker(_TIMEOUT_S, verify=self._trusted)) as server:
                answer = server.ask(method, url, most_bytes=_MOST_BYTES, **more)
        except HostRefusedError as error:
            raise LoginError(f"the provider leads to {error}; {ALLOW}") from None
        except (OSError, httpx.HTTPError, httpx.InvalidURL) as error:
            raise ProviderAwayError(f"{self.label} cannot be reached now ({type(error).__name__})") from None
        if answer.body is None or answer.status >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise ProviderAwayError(f"{self.label} does not answer as it should (status {answer.status})")
        try:
            given = json.loads(answer.body)
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict):
            raise LoginError(f"{self.label} did not answer with JSON (status {answer.status})")
        return answer.status, given


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim; ``path`` may lead into it: ``realm_access.roles``. None where it is not there."""
    found: Any = claims.get(path, claims)
    for part in path.split(".") if found is claims else ():
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _values(told: Iterable[Mapping[str, Any]], path: str) -> list[str]:
    """The texts of a claim, of the first that has it."""
    found = next((value for claims in told if (value := _claim(claims, path)) is not None), None)
    if isinstance(found, str):
        return [found]
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def _word(text: object) -> str:
    """What a server says, as far as it can be shown."""
    return "".join(character for character in str(text)[:80] if character.isalnum() or character in " _-:.") or "?"
