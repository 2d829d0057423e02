"""An OpenID provider that runs: oidc-provider-mock, and between it and the network somebody who may change what it
says."""

import io
import json
import logging
import os
import threading
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import httpx
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from werkzeug.serving import make_server

CLIENT, SECRET = "facestream", "the-secret-of-the-client"
ROLES = {"guards": "viewer", "reception": "operator", "it": "admin"}


def oidc(issuer: str, folder: Path, **changes: Any) -> dict[str, Any]:
    """The part of a console's configuration that names a provider; its secret lies in ``folder``."""
    (folder / "secret").write_text(f"{SECRET}\n")
    given = {
        "issuer": issuer, "client_id": CLIENT, "client_secret_file": str(folder / "secret"), "roles": ROLES,
        "label": "Example Org",
    }  # fmt: skip
    return {"console": {"oidc": given | changes}}


class OpenIdProvider:
    """``change``: is given path and JSON of each answer, and returns what is sent in its place. ``claims``: changes of
    the ID token, which is then signed anew with ``key``; None for one without a signature."""

    def __init__(self) -> None:
        # The library refuses http otherwise.
        os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"
        from oidc_provider_mock import app

        logging.getLogger("oidc_provider_mock").setLevel(logging.ERROR)
        self._app = app(require_nonce=True)
        self.key = RSAKey.generate_key(2048, {"kid": "k1"}, private=True)
        self.known_keys = [self.key]
        self.signing: RSAKey | None = self.key
        self.header: dict[str, Any] = {"alg": "RS256", "kid": "k1"}
        self.claims: Callable[[dict[str, Any]], object] = lambda _claims: None
        self.change: Callable[[str, dict[str, Any]], dict[str, Any]] = lambda _path, told: told
        self.challenges: list[str] = []
        self.asked: list[tuple[str, dict[str, list[str]], str]] = []
        self.issuer = ""

    def user(self, subject: str, **claims: Any) -> None:
        """Somebody who has an account there."""
        httpx.put(f"{self.issuer}/users/{quote(subject)}", json=claims, trust_env=False).raise_for_status()

    def let_in(self, location: str, subject: str) -> str:
        """What a person does there, who was sent to ``location``: the address to which they are sent back."""
        answer = httpx.post(location, data={"sub": subject}, trust_env=False)
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        path = environ["PATH_INFO"]
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        self.asked.append((path, parse_qs(body.decode("utf-8", "replace")), environ.get("HTTP_AUTHORIZATION", "")))
        if path == "/oauth2/authorize":
            self.challenges += parse_qs(environ["QUERY_STRING"]).get("code_challenge", [])
        head: list[Any] = []
        environ["wsgi.input"] = io.BytesIO(body)
        content = b"".join(self._app.wsgi_app(environ, lambda *given, **_more: head.extend(given[:2])))
        headers = [(name, value) for name, value in head[1] if name.lower() != "content-length"]
        if path in {"/jwks", "/oauth2/token", "/userinfo", "/.well-known/openid-configuration"} and head[0].startswith(
            "200"
        ):
            content = json.dumps(self._told(path, json.loads(content), parse_qs(body.decode()))).encode()
        start_response(head[0], [*headers, ("Content-Length", str(len(content)))])
        return [content]

    def _told(self, path: str, told: dict[str, Any], asked: dict[str, list[str]]) -> dict[str, Any]:
        if path == "/jwks":
            told = KeySet(list(self.known_keys)).as_dict(private=False)  # type: ignore[assignment]
        if path == "/oauth2/token":
            proof = urlsafe_b64encode(sha256(asked["code_verifier"][0].encode()).digest()).decode().rstrip("=")
            assert proof == self.challenges[-1], "who redeems a code is who began the log-in"
            claims = json.loads(_decoded(told["id_token"].split(".")[1]))
            self.claims(claims)
            if self.signing is None:
                told["id_token"] = f"{_part({'alg': 'none'})}.{_part(claims)}."
            else:
                told["id_token"] = jwt.encode(self.header, claims, self.signing)
        return self.change(path, told)


def _part(value: dict[str, Any]) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _decoded(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


@contextmanager
def running_provider() -> Iterator[OpenIdProvider]:
    """One on this machine."""
    provider = OpenIdProvider()
    server = make_server("127.0.0.1", 0, provider, threaded=True)
    provider.issuer = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join(30)
