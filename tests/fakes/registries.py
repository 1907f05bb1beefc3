"""Real registries: Debian's docker-registry in a process of its own, and a server of tokens for it."""

from __future__ import annotations

import base64
import json
import re
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from fakes.strangers import http
from fakes.waiting import until

BINARY = "docker-registry"


def registry_binary(cache: Path) -> str:
    """The program: on the PATH, else from Debian's package, unpacked in `cache`. Skips the test where neither is."""
    found = shutil.which(BINARY)
    if found is not None:
        return found
    unpacked = cache / "usr/bin" / BINARY
    if not unpacked.exists():
        if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
            pytest.skip("no docker-registry on the PATH, and no apt to fetch it with")
        cache.mkdir(parents=True, exist_ok=True)
        fetched = subprocess.run(
            ["apt-get", "download", BINARY], cwd=cache, capture_output=True, text=True, timeout=100
        )
        packages = sorted(cache.glob(f"{BINARY}_*.deb"))
        if fetched.returncode != 0 or not packages:
            pytest.skip(f"no docker-registry on the PATH, and apt cannot fetch it: {fetched.stderr.strip()[-200:]}")
        subprocess.run(["dpkg", "-x", str(packages[-1]), str(cache)], check=True, timeout=60)
    return str(unpacked)


@dataclass
class TestRegistry:
    """A running one. `host`: as Names have it; `log`: what it says, a line each."""

    __test__ = False
    host: str
    storage: Path
    log: list[str] = field(default_factory=list)

    def requests(self, method: str, part: str = "") -> list[str]:
        """The lines of its access log for a method, that have `part`."""
        return [line for line in list(self.log) if f'"{method} ' in line and part in line]


@contextmanager
def serve_registry(binary: str, directory: Path, auth: dict[str, Any] | None = None) -> Iterator[TestRegistry]:
    config = {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": False}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "storage")}, "delete": {"enabled": True}},
        "http": {"addr": "127.0.0.1:0", "secret": "test"},
    }
    if auth is not None:
        config["auth"] = auth
    file = directory / "registry.json"
    file.write_text(json.dumps(config))  # JSON is YAML
    process = subprocess.Popen(
        [binary, "serve", str(file)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    registry = TestRegistry("", directory / "storage")
    assert process.stdout is not None
    stream = process.stdout
    reading = threading.Thread(target=lambda: registry.log.extend(stream))
    reading.start()
    try:
        said = re.compile(r"listening on (127\.0\.0\.1:\d+)")
        until(lambda: any(map(said.search, registry.log)), 20, f"a registry: {registry.log}")
        (registry.host,) = (found[1] for found in map(said.search, registry.log) if found)
        yield registry
    finally:
        process.terminate()
        process.wait(10)
        reading.join()
        stream.close()


# ------------------------------------------------------------------------------------------------------------- tokens


@dataclass
class Tokens:
    """A server of tokens. `asked`: the queries that came, with the Authorization of each. `posted`: the forms that did.

    `refresh`: OAuth2's refresh tokens, and whose each is.
    """

    url: str
    certificate: Path
    refresh: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[dict[str, list[str]], str]] = field(default_factory=list)
    posted: list[tuple[str, dict[str, list[str]], str]] = field(default_factory=list)

    @property
    def auth(self) -> dict[str, Any]:
        """The registry's setting."""
        return {
            "token": {
                "realm": f"{self.url}/token?of=test",
                "service": "test-registry",
                "issuer": "test-issuer",
                "rootcertbundle": str(self.certificate),
            }
        }


@contextmanager
def serve_tokens(directory: Path, users: dict[str, str]) -> Iterator[Tokens]:
    """Gives tokens to these users for whatever they ask, to nobody for pulling from `public/…`, and to one called bob
    for all that is there.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    certificate = _certificate(key)
    path = directory / "tokens.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    chain = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            authorization = self.headers.get("Authorization", "")
            tokens.asked.append((query, authorization))
            user = _user(authorization, users)
            if authorization and user is None:
                self._reply(401, {"details": "no such user"})
                return
            token = _signed(key, chain, user or "", _granted(query.get("scope", []), user))
            self._reply(200, {"token": token})

        def do_POST(self) -> None:
            """By OAuth2, as the registry's specification has it."""
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            tokens.posted.append((self.path, form, self.headers.get("Authorization", "")))
            user = tokens.refresh.get(form.get("refresh_token", [""])[0])
            if user is None or form.get("grant_type") != ["refresh_token"] or form.get("service") != ["test-registry"]:
                self._reply(400, {"error": "invalid_grant"})
                return
            scopes = form.get("scope", [""])[0].split()
            self._reply(200, {"access_token": _signed(key, chain, user, _granted(scopes, user))})

        def _reply(self, status: int, body: dict[str, str]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the test's output is its own."""

    with http(Handler) as port:
        tokens = Tokens(f"http://127.0.0.1:{port}", path)
        yield tokens


def _user(authorization: str, users: dict[str, str]) -> str | None:
    kind, _, text = authorization.partition(" ")
    if kind != "Basic":
        return None
    name, _, password = base64.b64decode(text).decode().partition(":")
    return name if users.get(name) == password else None


def _granted(scopes: list[str], user: str | None) -> list[dict[str, Any]]:
    access = []
    for scope in scopes:
        kind, name, actions = scope.split(":", 2)
        public = name.startswith("public/")
        allowed = actions.split(",") if user and (public or user != "bob") else ["pull"] if public else []
        access.append({"type": kind, "name": name, "actions": [one for one in actions.split(",") if one in allowed]})
    return access


def _signed(key: rsa.RSAPrivateKey, chain: str, user: str, access: list[dict[str, Any]]) -> str:
    now = int(time.time())
    head = {"typ": "JWT", "alg": "RS256", "x5c": [chain]}
    body = {
        "iss": "test-issuer",
        "sub": user,
        "aud": "test-registry",
        "exp": now + 300,
        "nbf": now - 10,
        "iat": now,
        "jti": secrets.token_hex(8),
        "access": access,
    }
    signed = ".".join(_url64(json.dumps(part).encode()) for part in (head, body))
    return f"{signed}.{_url64(key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _certificate(key: rsa.RSAPrivateKey) -> x509.Certificate:
    from datetime import datetime, timedelta, timezone

    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test-issuer")])
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
