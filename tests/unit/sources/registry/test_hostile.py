"""Registries that lie, leak and lead elsewhere."""

import base64
import gzip
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from yarl import URL

from fakes.gguf_files import CHATML, gguf_bytes
from fakes.proxies import ConnectProxy
from puna.errors import AccessDenied, DigestMismatch, Forbidden, ModelFileError, PunaError, SourceError, Unsupported
from puna.model.manifest import MODEL_TYPE
from puna.model.name import Name
from puna.sources.net import Destinations, Net, Patience
from puna.sources.registry.challenge import parse_challenge
from puna.sources.registry.credentials import Credentials
from puna.sources.registry.registry import Registry
from puna.sources.source import Terms
from puna.sources.sources import Sources
from puna.store.library import Library
from puna.types import Progress

NEAR = Terms(insecure=True, literal=True, local=True)
WEIGHTS = gguf_bytes(chat_template=CHATML)
CONFIG = b'{"model_format":"gguf"}'
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def layer(media_type: str, data: bytes, **changed: Any) -> dict[str, Any]:
    return {
        "mediaType": media_type,
        "digest": f"sha256:{hashlib.sha256(data).hexdigest()}",
        "size": len(data),
    } | changed


def manifest(*layers: dict[str, Any], **changed: Any) -> dict[str, Any]:
    config = layer("application/vnd.docker.container.image.v1+json", CONFIG)
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    return {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": list(layers)} | changed


MODEL = manifest(layer(MODEL_TYPE, WEIGHTS))


@dataclass
class Stand:
    """Serves `manifest` and the two blobs. `gate` answers instead where it gives an answer. `seen`: path, headers."""

    manifest: Any = field(default_factory=lambda: MODEL)
    gate: Callable[[web.Request], web.StreamResponse | None] = lambda request: None
    headers: dict[str, str] = field(default_factory=dict)
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    host: str = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.path_qs, dict(request.headers)))
        gated = self.gate(request)
        if gated is not None:
            return gated
        if "/manifests/" in request.path:
            text = self.manifest if isinstance(self.manifest, bytes) else json.dumps(self.manifest).encode()
            return web.Response(body=text, headers=self.headers)
        for blob in (WEIGHTS, CONFIG):
            if hashlib.sha256(blob).hexdigest() in request.path:
                return _ranged(request, blob)
        return web.Response(status=404)

    def authorizations(self, part: str = "") -> set[str]:
        return {headers.get("Authorization", "") for path, headers in self.seen if part in path}


def _ranged(request: web.Request, data: bytes) -> web.Response:
    part = request.http_range
    start, end = part.start or 0, part.stop if part.stop is not None else len(data)
    return web.Response(
        status=206, body=data[start:end], headers={"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
    )


@asynccontextmanager
async def served(stand: Stand, tls: ssl.SSLContext | None = None) -> AsyncIterator[Stand]:
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", stand.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    stand.host = f"127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield stand
    finally:
        await runner.cleanup()


class Puller:
    def __init__(self, root: Path) -> None:
        self.net = Net(patience=Patience(first=0.01, most=0.02, stall=1.0))
        self.library = Library.open(root / "models")
        self.key = root / "key" / "id_ed25519"
        self.environment: dict[str, str] = {}
        self.mirrors: dict[str, list[URL]] = {}

    async def __call__(self, text: str, terms: Terms = NEAR) -> list[Progress]:
        registry = Registry(self.net, Credentials(self.environment, None), mirrors=self.mirrors, own_key=self.key)
        sources = Sources(self.library, [registry])
        return [step async for step in sources.pull(Name.parse(text), terms)]

    def login(self, host: str) -> str:
        auth = base64.b64encode(b"ada:secret").decode()
        self.environment["DOCKER_AUTH_CONFIG"] = json.dumps({"auths": {host: {"auth": auth}}})
        return f"Basic {auth}"


@pytest.fixture
async def pull(tmp_path: Path) -> AsyncIterator[Puller]:
    puller = Puller(tmp_path)
    yield puller
    await puller.net.close()


async def test_an_honest_one(pull: Puller) -> None:
    async with served(Stand()) as stand:
        await pull(f"{stand.host}/a/b")
        assert pull.library.has(Name.parse(f"{stand.host}/a/b"))
        assert stand.authorizations() == {""}


@pytest.mark.parametrize(
    ("shape", "kind", "words"),
    [
        (b"{", SourceError, "not JSON"),
        (b"[]", SourceError, "not an object"),
        (b" " * (4 * 1024 * 1024 + 1), SourceError, "larger than"),
        ({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json"}, Unsupported, "OCI image index"),
        ({"schemaVersion": 2, "manifests": []}, Unsupported, "an index of several"),
        (manifest(layer(MODEL_TYPE, WEIGHTS), schemaVersion=1), Unsupported, "schemaVersion"),
        (manifest(layer("application/vnd.ollama.image.tensor", b"x")), Unsupported, "safetensors tensors"),
        (manifest(layer("application/vnd.docker.image.rootfs.diff.tar.gzip", b"x")), Unsupported, "rootfs"),
        (manifest(), Unsupported, "has no weights"),
        (manifest(layer(MODEL_TYPE, b"x", digest="sha256:../../../etc/passwd")), ModelFileError, "not a digest"),
        (manifest(layer(MODEL_TYPE, b"x", size=-1)), ModelFileError, "bytes"),
        (manifest(*[layer(MODEL_TYPE, b"x")] * 1001), ModelFileError, "1001 layers"),
        (manifest(layer(MODEL_TYPE, b"x"), layer(MODEL_TYPE, b"x", size=9)), ModelFileError, "two sizes"),
        (manifest(layer("application/vnd.ollama.image.system", b"x", size=2**30)), ModelFileError, "a text of"),
        (manifest(layer(MODEL_TYPE, WEIGHTS, size=len(WEIGHTS) + 1)), SourceError, "by its manifest"),
        (manifest(layer(MODEL_TYPE, WEIGHTS, size=2**62)), PunaError, "no space left|by its manifest"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
async def test_what_is_refused_before_weights_come(pull: Puller, shape: Any, kind: type[PunaError], words: str) -> None:
    async with served(Stand(shape)) as stand:
        with pytest.raises(kind, match=words):
            await pull(f"{stand.host}/a/b")
        assert sum(hashlib.sha256(WEIGHTS).hexdigest() in path for path, _ in stand.seen) <= 1
    assert pull.library.listed() == []
    outside = {path.name for path in pull.library.root.parent.iterdir()} - {"models", "key"}
    assert outside == set()


async def test_a_stub_of_a_remote_model(pull: Puller) -> None:
    stub = json.dumps({"remote_host": "https://far.example", "remote_model": "m"}).encode()
    shape = manifest(config=layer("application/vnd.docker.container.image.v1+json", stub))

    def gate(request: web.Request) -> web.StreamResponse | None:
        return _ranged(request, stub) if hashlib.sha256(stub).hexdigest() in request.path else None

    async with served(Stand(shape, gate)) as stand:
        with pytest.raises(Unsupported, match="runs on https://far.example"):
            await pull(f"{stand.host}/a/b")


async def test_a_manifest_that_is_not_what_its_digest_says(pull: Puller) -> None:
    async with served(Stand(headers={"Docker-Content-Digest": f"sha256:{'0' * 64}"})) as stand:
        with pytest.raises(DigestMismatch):
            await pull(f"{stand.host}/a/b")


async def test_a_redirect_gets_no_authorization(pull: Puller) -> None:
    async with served(Stand()) as cdn:

        def gate(request: web.Request) -> web.StreamResponse | None:
            if "Authorization" not in request.headers:
                return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
            if "/blobs/" in request.path:
                return web.Response(status=307, headers={"Location": f"http://{cdn.host}{request.path}"})
            return None

        async with served(Stand(gate=gate)) as stand:
            basic = pull.login(stand.host)
            await pull(f"{stand.host}/a/b")
            assert stand.authorizations() == {"", basic}
            assert cdn.authorizations() == {""}
            assert cdn.seen


async def test_redirects_lead_nowhere_less_public_and_end(pull: Puller) -> None:
    def gate(request: web.Request) -> web.StreamResponse | None:
        return web.Response(status=302, headers={"Location": targets[-1]})

    async with served(Stand(gate=gate)) as stand:
        targets = ["http://169.254.169.254/latest/meta-data"]
        with pytest.raises(Forbidden) as caught:
            await pull(f"{stand.host}/a/b")
        assert caught.value.code == "private_address"
        for target, words in (
            ("/round", "maximum redirects"),
            ("ftp://x/y", "no http"),
            ("file:///etc/passwd", "no http"),
            ("http://[", "no URL"),
        ):
            targets.append(target)
            with pytest.raises(SourceError, match=words):
                await pull(f"{stand.host}/a/b")


@pytest.mark.parametrize("realm", ["http://far.example/token", "file:///etc/passwd", "http://[::1", ""])
async def test_tokens_are_asked_of_nobody_else(pull: Puller, realm: str) -> None:
    def gate(request: web.Request) -> web.StreamResponse | None:
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}",service="s"'})

    async with served(Stand(gate=gate)) as stand:
        with pytest.raises(SourceError, match="does not match original host|no URL"):
            await pull(f"{stand.host}/a/b")


async def test_the_key_signs_as_ollamas_does(pull: Puller) -> None:
    def gate(request: web.Request) -> web.StreamResponse | None:
        given = request.headers.get("Authorization", "")
        if request.path == "/token":
            return web.json_response({"token": "granted"} if ":" in given else {}, status=200 if given else 401)
        if given != "Bearer granted":
            challenge = f'Bearer realm="http://{stand.host}/token?z=1",service="s",scope="repository:a/b:pull"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        return None

    async with served(Stand(gate=gate)) as stand:
        await pull(f"{stand.host}/a/b")
        path, headers = next(seen for seen in stand.seen if "nonce=" in seen[0])
    public, _, signature = headers["Authorization"].partition(":")
    query = path.partition("?")[2].split("&")
    assert [pair.partition("=")[0] for pair in query] == ["nonce", "scope", "service", "ts", "z"]
    empty = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()
    key = load_ssh_public_key(f"ssh-ed25519 {public}".encode())
    key.verify(base64.b64decode(signature), f"GET,http://{stand.host}{path},{empty}".encode())  # type: ignore[union-attr,call-arg]
    assert pull.key.stat().st_mode & 0o777 == 0o600
    assert public in pull.key.with_name("id_ed25519.pub").read_text()


async def test_who_is_not_let_in_is_told_how(pull: Puller) -> None:
    def gate(request: web.Request) -> web.StreamResponse | None:
        if request.path == "/token":
            return web.Response(status=401)
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="http://{stand.host}/token"'})

    async with served(Stand(gate=gate)) as stand:
        with pytest.raises(AccessDenied, match=r"unauthorized: access denied.*id_ed25519\.pub"):
            await pull(f"{stand.host}/a/b")
        assert len(stand.seen) < 8


async def test_an_error_is_told_in_bounds(pull: Puller) -> None:
    async with served(Stand(gate=lambda request: web.Response(status=418, text="\x1b[2J" + "x" * 10**6))) as stand:
        with pytest.raises(SourceError, match="pull model manifest: 418: ") as caught:
            await pull(f"{stand.host}/a/b")
        assert len(str(caught.value)) < 500
        assert "\x1b" not in str(caught.value)


# --------------------------------------------------------------------------------------------- proxies, certificates


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    return made


async def test_a_private_authority(
    pull: Puller, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    safe = Terms(local=True, literal=True)
    async with served(Stand(), context) as stand:
        with pytest.raises(SourceError, match="SSL_CERT_FILE names"):
            await pull(f"{stand.host}/a/b", safe)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        await pull.net.close()
        pull.net = Net(patience=pull.net.patience)
        await pull(f"{stand.host}/a/b", safe)
        monkeypatch.setenv("SSL_CERT_FILE", "/no/such")
        await pull.net.close()
        pull.net = Net(patience=pull.net.patience)
        with pytest.raises(SourceError, match="is not there"):
            await pull(f"{stand.host}/a/b", safe)


async def test_a_proxy(pull: Puller) -> None:
    """A plain one: it is asked for the whole URL, of a host that only it can find."""
    async with served(Stand()) as proxy:
        pull.net.environment = {"http_proxy": f"http://{proxy.host}", "NO_PROXY": "other.test,10.0.0.0/8"}
        pull.net.destinations = Destinations(allowed=("*", "registry.test"))
        await pull("registry.test/a/b", Terms(insecure=True))
        assert {headers["Host"] for _, headers in proxy.seen} == {"registry.test"}
        for host in ("other.test", "sub.other.test", "10.1.2.3", "localhost", "127.0.0.1"):
            assert pull.net.proxy(URL(f"http://{host}/")) is None
        pull.net.environment = {"http_proxy": "socks5://127.0.0.1:1080"}
        with pytest.raises(SourceError, match="socks5"):
            await pull("registry.test/a/b", Terms(insecure=True))


def tls(authority: trustme.CA, host: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    return context


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return authority


async def test_tls_through_a_proxy(pull: Puller, trusted: trustme.CA) -> None:
    """It is told where to connect, and sees nothing else; the registry's certificate is checked as always."""
    basic = pull.login("registry.test")

    def gate(request: web.Request) -> web.StreamResponse | None:
        if request.headers.get("Authorization") != basic:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return None

    async with (
        served(Stand(gate=gate), tls(trusted, "registry.test")) as stand,
        ConnectProxy({"registry.test:443": stand.host}, login="me:proxy word").serving() as proxy,
    ):
        pull.net.environment = {"https_proxy": f"http://me:proxy%20word@{proxy.host}"}
        await pull("registry.test/a/b", Terms())
        assert pull.library.has(Name.parse("registry.test/a/b"))
        assert all(head.startswith("CONNECT registry.test:443 HTTP/1.1\r\n") for head in proxy.heads)
        assert "\r\nAuthorization" not in "".join(proxy.heads)
        assert proxy.passed
        assert (b"/v2/" in proxy.passed, basic.encode() in proxy.passed) == (False, False)
        assert not any("Proxy-Authorization" in headers for _, headers in stand.seen)


async def test_what_a_proxy_cannot_do_is_told(pull: Puller, trusted: trustme.CA) -> None:
    async with (
        served(Stand(), tls(trusted, "other.test")) as stand,
        ConnectProxy({"registry.test:443": stand.host}, login="me:word").serving() as proxy,
    ):
        for address, host, words in (
            (f"me:hush@{proxy.host}", "registry.test", f"the proxy {proxy.host} says 407"),
            (f"me:word@{proxy.host}", "registry.test", "not valid for 'registry.test'"),
            (f"me:word@{proxy.host}", "nowhere.test", f"the proxy {proxy.host} says 502"),
            ("me:hush@127.0.0.1:9", "registry.test", "the proxy 127.0.0.1:9 cannot be reached"),
        ):
            pull.net.environment = {"https_proxy": f"http://{address}"}
            with pytest.raises(SourceError) as caught:
                await pull(f"{host}/a/b", Terms())
            assert words in caught.value.message
            assert "hush" not in caught.value.message


async def test_a_proxy_near_brings_nothing_nearer(pull: Puller, trusted: trustme.CA) -> None:
    """A registry that is reached through a proxy on this machine is not on this machine."""
    async with served(Stand(), tls(trusted, "127.0.0.1")) as near:

        def gate(request: web.Request) -> web.StreamResponse | None:
            # With a body, which keeps the connection while the next one is looked for.
            headers = {"Location": f"https://{near.host}{request.path}"}
            return web.Response(status=307, headers=headers, body=bytes(1 << 20))

        async with (
            served(Stand(gate=gate), tls(trusted, "registry.test")) as stand,
            ConnectProxy({"registry.test:443": stand.host}).serving() as proxy,
        ):
            pull.net.environment = {"https_proxy": f"http://{proxy.host}"}
            pull.net.destinations = Destinations(allowed=("registry.test",))
            with pytest.raises(Forbidden) as caught:
                await pull("registry.test/a/b", Terms())
        assert caught.value.code == "private_address"
        assert near.seen == []


# ------------------------------------------------------------------------------------------------------- credentials


@pytest.mark.parametrize("key", ["registry.test", "https://registry.test", "https://registry.test/v1/"])
def test_dockers_config(tmp_path: Path, key: str) -> None:
    auth = base64.b64encode(b"ada:pass:word").decode()
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text(json.dumps({"auths": {key: {"auth": auth}}}))
    found = Credentials({}, tmp_path).find("registry.test")
    assert found is not None
    assert (found.user, found.password) == ("ada", "pass:word")
    assert "pass" not in repr(found)
    assert Credentials({}, tmp_path).find("other.test") is None


def test_helpers(tmp_path: Path) -> None:
    helper = tmp_path / "docker-credential-test"
    answer = json.dumps({"Username": "ada", "Secret": "word"})
    helper.write_text(
        "#!/bin/sh\nread host\nif [ $host = registry.test ]; then\n"
        f"  echo '{answer}'\nelse\n  echo credentials not found; exit 1\nfi\n"
    )
    helper.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "DOCKER_CONFIG": str(tmp_path)}
    for config in ({"credHelpers": {"registry.test": "test"}}, {"credsStore": "test"}):
        (tmp_path / "config.json").write_text(json.dumps(config))
        found = Credentials(environment, None).find("registry.test")
        assert found is not None
        assert (found.user, found.password) == ("ada", "word")
        assert Credentials(environment, None).find("other.test") is None
    (tmp_path / "config.json").write_text(json.dumps({"credsStore": "../../bin/sh"}))
    with pytest.raises(SourceError, match="not there"):
        Credentials(environment, None).find("registry.test")


@pytest.mark.parametrize(
    ("header", "scheme"),
    [
        ('Bearer realm="https://a/t",service="s",scope="a b"', "bearer"),
        ('Basic realm="x", Bearer realm="https://a/t"', "bearer"),
        ("Basic", "basic"),
        ('Negotiate abc, Basic realm="a, \\"b\\""', "basic"),
        ('Negotiate, NTLM, Bearer realm="https://a/t"', "bearer"),
        ('Negotiate YII+/w==, Basic realm="x" , Bearer realm = "https://a/t" ,error="x"', "bearer"),
        ('Bearer realm=https://a/t, x="', "bearer"),
        ("", None),
        ("Digest x", None),
        ('realm="https://a/t"', None),
        ('Bearer"' * 1000, None),
    ],
)
def test_challenges(header: str, scheme: str | None) -> None:
    found = parse_challenge(header)
    assert (None if found is None else found.scheme) == scheme
    assert scheme != "bearer" or found is not None
    if found is not None and scheme == "bearer":
        assert found.realm == "https://a/t"


# ------------------------------------------------------------------------------------- what servers do in other ways


async def test_what_lets_nobody_in_is_named(pull: Puller) -> None:
    headers = {"WWW-Authenticate": 'Digest realm="a", nonce="b", Negotiate'}
    async with served(Stand(gate=lambda request: web.Response(status=401, headers=headers))) as stand:
        with pytest.raises(AccessDenied, match="lets in by Digest, Negotiate, which is not spoken here"):
            await pull(f"{stand.host}/a/b")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('{"errors":[{"code":"DENIED","message":"buy it first"}]}', "{host}: buy it first"),
        ('{"errors":[{"code":"DENIED"},7]}', "{host}: DENIED"),
        ("<html>log in</html>", "{host}"),
        ("no, thanks", "{host}: no, thanks"),
    ],
)
async def test_why_something_is_denied_is_told(pull: Puller, body: str, told: str) -> None:
    async with served(Stand(gate=lambda request: web.Response(status=403, text=body))) as stand:
        with pytest.raises(AccessDenied) as caught:
            await pull(f"{stand.host}/a/b")
        what = f"pull model manifest: unauthorized: access denied by {told.format(host=stand.host)}"
        assert caught.value.message == what


async def test_a_manifest_that_a_proxy_compressed(pull: Puller) -> None:
    plain = json.dumps(MODEL).encode()
    headers = {"Content-Encoding": "gzip", "Docker-Content-Digest": f"sha256:{hashlib.sha256(plain).hexdigest()}"}
    async with served(Stand(gzip.compress(plain), headers=headers)) as stand:
        await pull(f"{stand.host}/a/b")
        assert pull.library.manifest_bytes(Name.parse(f"{stand.host}/a/b")) == plain
        for body, coding, words in (
            (gzip.compress(bytes(5 * 1024 * 1024)), "gzip", "larger than"),
            (gzip.compress(plain)[:-9], "gzip", "ends early"),
            (plain, "gzip", "is damaged"),
            (plain, "br", r"compressed \(br\), which was not asked for"),
        ):
            stand.manifest, stand.headers = body, {"Content-Encoding": coding}
            with pytest.raises(SourceError, match=words):
                await pull(f"{stand.host}/a/b")


async def test_a_blob_that_a_proxy_compressed(pull: Puller) -> None:
    def gate(request: web.Request) -> web.StreamResponse | None:
        if "/blobs/" not in request.path:
            return None
        return web.Response(body=gzip.compress(WEIGHTS), headers={"Content-Encoding": "gzip"})

    async with served(Stand(gate=gate)) as stand:
        with pytest.raises(SourceError, match=r"compressed \(gzip\), which was not asked for"):
            await pull(f"{stand.host}/a/b")
