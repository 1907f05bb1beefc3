"""Pushed to and pulled from real registries."""

import base64
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest
from yarl import URL

from fakes.gguf_files import CHATML, Tensor, gguf_bytes
from fakes.registries import TestRegistry, Tokens
from puna.errors import (
    AccessDenied,
    Forbidden,
    ModelFileError,
    ModelNotFound,
    PunaError,
    SourceNotFound,
    SourceUnreachable,
)
from puna.model.digest import Digest
from puna.model.manifest import parse_manifest
from puna.model.name import Name
from puna.sources.mend import DamageReport, verify
from puna.sources.net import Destinations
from puna.sources.partial import Partial
from puna.sources.source import Terms
from puna.sources.sources import StoredModel
from puna.types import Progress

from .conftest import MODEL, NEAR, Place, login


def named(registry: TestRegistry, path: str) -> Name:
    return Name.parse(f"{registry.host}/{path}")


async def test_there_and_back(registry: TestRegistry, place: Callable[..., Place]) -> None:
    here, there = place("here"), place("there")
    name = named(registry, "some/model:v1")
    manifest = here.put(name)
    steps = await here.push(name)
    assert [step.status for step in steps if step.digest is None] == [
        "retrieving manifest",
        "pushing manifest",
        "success",
    ]
    blobs = parse_manifest(manifest).blobs
    for layer in blobs:
        digest = str(layer.digest)
        assert Progress(f"pushing {layer.digest.short}", digest, layer.size, layer.size) in steps

    uploads = len(registry.requests("POST"))
    await here.push(name)
    assert len(registry.requests("POST")) == uploads  # all of it was there

    steps = await there.pull(name)
    assert there.library.manifest_bytes(name) == manifest
    assert there.library.resolve(name).weights.read_bytes() == MODEL
    assert [step.status for step in steps if step.digest is None] == [
        "pulling manifest",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    for layer in blobs:
        digest = str(layer.digest)
        assert Progress(f"pulling {layer.digest.short}", digest, layer.size, layer.size) in steps
    assert not there.library.partials.exists()

    asked = len(registry.requests("GET", "/blobs/"))
    await there.pull(name)
    assert len(registry.requests("GET", "/blobs/")) == asked  # nothing was fetched twice

    offer = await there.sources.offer(name, NEAR)
    assert (offer.source, offer.size) == (registry.host, sum(layer.size for layer in blobs))
    assert offer.manifest is not None
    assert offer.manifest.hex == there.library.resolve(name).digest


async def test_what_a_kill_at_the_end_of_a_download_left_goes(
    registry: TestRegistry, place: Callable[..., Place]
) -> None:
    """The blob is in its place, and what was noted of its parts there still. Another process keeps what it works on."""
    here, there = place("here"), place("there")
    name = named(registry, "some/leftover")
    here.put(name)
    await here.push(name)
    await there.pull(name)
    digest = there.library.resolve(name).weights_digest
    assert digest is not None
    left = Partial(there.library.partials, digest, len(MODEL), 1 << 20)
    assert left.try_open()
    await there.pull(name)
    assert left.directory.exists()
    left.close()
    await there.pull(name)
    assert not there.library.partials.exists()


async def test_a_damaged_blob_alone_is_fetched_again(registry: TestRegistry, place: Callable[..., Place]) -> None:
    here, there = place("here"), place("there")
    name = named(registry, "some/damaged")
    here.put(name)
    await here.push(name)
    await there.pull(name)
    weights = there.library.resolve(name).weights
    weights.write_bytes(bytes(len(MODEL)))
    asked = len(registry.requests("GET", "/blobs/"))
    await there.pull(name)
    assert weights.read_bytes() == MODEL
    fetched = registry.requests("GET", "/blobs/")[asked:]
    assert fetched
    assert all(weights.name.replace("-", ":") in line for line in fetched)


async def test_a_damaged_model_of_a_registry_is_repaired(registry: TestRegistry, place: Callable[..., Place]) -> None:
    """On the terms of who asks: those of a pull."""
    here, there = place("here"), place("there")
    name = named(registry, "some/repaired")
    here.put(name)
    await here.push(name)
    await there.pull(name)
    weights = there.library.resolve(name).weights

    async def repaired(terms: Terms) -> DamageReport:
        weights.write_bytes(MODEL[:-1])
        steps = verify([name], there.library, there.sources, repair=True, terms=terms)
        (report,) = [step async for step in steps if isinstance(step, DamageReport)]
        return report

    report = await repaired(Terms(local=True))
    assert not report.mended
    assert "use --insecure if you trust the network" in report.reason
    assert (await repaired(NEAR)).mended
    assert weights.read_bytes() == MODEL


async def test_a_new_version_removes_what_the_old_one_alone_had(
    registry: TestRegistry, place: Callable[..., Place]
) -> None:
    here, there = place("here"), place("there")
    name = named(registry, "some/moving")
    here.put(name, b"Old.")
    await here.push(name)
    await there.pull(name)
    manifest = here.put(name, b"New.")
    await here.push(name)
    steps = await there.pull(name)
    assert there.library.manifest_bytes(name) == manifest
    assert there.library.resolve(name).system == "New."
    assert "verifying sha256 digest" in {step.status for step in steps}


async def test_a_blob_is_mounted_from_the_repository_that_it_came_from(
    registry: TestRegistry, place: Callable[..., Place]
) -> None:
    here = place()
    base, derived = named(registry, "some/base"), named(registry, "other/derived")
    weights = random.Random(1).randbytes(0) + gguf_bytes(chat_template=CHATML, metadata={"general.name": "mounted"})
    here.put(base, weights=weights)
    await here.push(base)
    shape = json.loads(here.library.manifest_bytes(base))
    for layer in shape["layers"]:
        layer["from"] = base.short
    here.library.write_manifest(derived, json.dumps(shape).encode())
    begun = len(registry.requests("POST"))
    await here.push(derived)
    posts = registry.requests("POST")[begun:]
    assert len(posts) == len(shape["layers"]) + 1
    mounted = [line for line in map(unquote, posts) if "mount=sha256:" in line and "from=some/base" in line]
    assert mounted == posts
    assert all('" 201 ' in line for line in mounted)
    there = place("there")
    await there.pull(derived)
    assert there.library.resolve(derived).weights.read_bytes() == weights


async def test_a_blob_is_mounted_from_where_another_model_here_has_it(
    registry: TestRegistry, place: Callable[..., Place]
) -> None:
    """A model that was pulled says not where its layers came from; its copy under another name is not sent whole."""
    here, there = place("here"), place("there")
    pulled, never, copied = (named(registry, path) for path in ("some/pulled", "a/never-sent", "other/copied"))
    manifest = here.put(pulled, b"Mounted, and not sent again.")
    await here.push(pulled)
    await there.pull(pulled)
    for name in (never, copied):
        there.library.copy(pulled, name)
    begun = len(registry.requests("POST"))
    await there.push(copied)
    posts = registry.requests("POST")[begun:]
    assert len(posts) == len(parse_manifest(manifest).blobs)
    assert all("from=some/pulled" in unquote(line) and '" 201 ' in line for line in posts)


async def test_large_blobs_go_in_chunks(
    registry: TestRegistry, place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("puna.sources.registry.push.CHUNK", 100_000)
    here, there = place("here"), place("there")
    name = named(registry, "some/chunks")
    weights = gguf_bytes(chat_template=CHATML, tensors=[Tensor("a", (64, 3201))])
    here.put(name, weights=weights)
    patches = len(registry.requests("PATCH"))
    await here.push(name)
    assert len(registry.requests("PATCH")) - patches >= len(weights) // 100_000
    await there.pull(name)
    assert there.library.resolve(name).weights.read_bytes() == weights


async def test_what_may_have_been_meant(registry: TestRegistry, place: Callable[..., Place]) -> None:
    here = place(known=[named(registry, "some/model:v7")])
    here.put(named(registry, "some/mode:v2"))
    with pytest.raises(SourceNotFound, match=r"has no '.*/some/models:v1'.*Did you mean '.*:v7' or '.*:v2'\?"):
        await here.pull(named(registry, "some/models:v1"))


async def test_what_is_not_there(registry: TestRegistry, place: Callable[..., Place]) -> None:
    here = place()
    with pytest.raises(SourceNotFound, match="pull model manifest: file does not exist"):
        await here.pull(named(registry, "no/such"))
    with pytest.raises(ModelNotFound):
        await here.push(named(registry, "no/such"))
    with pytest.raises(SourceUnreachable) as caught:
        await here.pull(Name.parse("127.0.0.1:9/no/such"))
    told = "cannot pull '127.0.0.1:9/no/such:latest': 127.0.0.1:9 cannot be reached: Connection refused"
    assert caught.value.message == told
    assert here.library.listed() == []


async def test_a_file_that_is_none_is_not_listed(registry: TestRegistry, place: Callable[..., Place]) -> None:
    here, there = place("here"), place("there")
    name = named(registry, "some/broken")
    here.put(name, weights=b"GGUF" + bytes(100_000))
    await here.push(name)
    with pytest.raises(ModelFileError, match="is not listed"):
        await there.pull(name)
    assert not there.library.has(name)


# ------------------------------------------------------------------------------------------------------------- tokens


async def test_with_tokens(guarded: TestRegistry, tokens: Tokens, place: Callable[..., Place]) -> None:
    name = named(guarded, "private/model")
    here = place("here", login(guarded.host))
    manifest = here.put(name)
    await here.push(name)
    await here.push(name)
    there = place("there", login(guarded.host))
    await there.pull(name)
    assert there.library.manifest_bytes(name) == manifest
    with pytest.raises(AccessDenied, match="docker login"):
        await place("stranger").pull(name)
    with pytest.raises(AccessDenied, match="refused"):
        await place("liar", login(guarded.host, password="wrong")).pull(name)


def identity(host: str, token: str, tmp_path: Path) -> list[dict[str, str]]:
    """A refresh token, as docker's config keeps it, and as its helpers give it."""
    empty = base64.b64encode(b"00000000-0000-0000-0000-000000000000:").decode()
    kept = {"auths": {host: {"auth": empty, "identitytoken": token}}}
    helper = tmp_path / "docker-credential-identity"
    helper.write_text(f"#!/bin/sh\necho '{json.dumps({'Username': '<token>', 'Secret': token})}'\n")
    helper.chmod(0o755)
    asked = {"credHelpers": {host: "identity"}}
    path = f"{tmp_path}:/usr/bin:/bin"
    return [{"DOCKER_AUTH_CONFIG": json.dumps(kept)}, {"DOCKER_AUTH_CONFIG": json.dumps(asked), "PATH": path}]


@pytest.mark.parametrize("way", [0, 1], ids=["config", "helper"])
async def test_a_refresh_token_buys_others(
    guarded: TestRegistry, tokens: Tokens, place: Callable[..., Place], tmp_path: Path, way: int
) -> None:
    tokens.refresh["long-lived"] = "ada"
    name = named(guarded, f"private/refreshed{way}")
    here = place("here", identity(guarded.host, "long-lived", tmp_path)[way])
    manifest = here.put(name)
    tokens.posted.clear()
    asked = len(tokens.asked)
    await here.push(name)
    await here.pull(name)
    assert here.library.manifest_bytes(name) == manifest
    assert len(tokens.asked) == asked, "nothing is asked for otherwise"
    for path, form, authorization in tokens.posted:
        assert (path, authorization) == ("/token?of=test", "")
        assert form.keys() == {"grant_type", "service", "scope", "client_id", "refresh_token"}
        assert (form["grant_type"], form["refresh_token"]) == (["refresh_token"], ["long-lived"])
    wanted = {scope for _, form, _ in tokens.posted for scope in form["scope"][0].split()}
    assert {scope.rpartition(":")[0] for scope in wanted} == {f"repository:private/refreshed{way}"}
    with pytest.raises(AccessDenied, match="is refused") as caught:
        await place("late", identity(guarded.host, "expired", tmp_path)[way]).pull(name)
    assert "expired" not in caught.value.message


async def test_nobody_may_pull_what_is_public(
    guarded: TestRegistry, tokens: Tokens, place: Callable[..., Place]
) -> None:
    name = named(guarded, "public/model")
    here = place("here", login(guarded.host))
    here.put(name)
    await here.push(name)
    asked = len(tokens.asked)
    stranger = place("stranger")
    await stranger.pull(name)
    assert {authorization for _, authorization in tokens.asked[asked:]} == {""}
    with pytest.raises(AccessDenied):
        await stranger.push(name)


def cut(scope: str) -> tuple[str, str, str]:
    return scope.rpartition(":")


async def test_a_mount_asks_for_both_repositories(
    guarded: TestRegistry, tokens: Tokens, place: Callable[..., Place]
) -> None:
    here = place("here", login(guarded.host))
    base, derived = named(guarded, "team/base"), named(guarded, "team/derived")
    here.put(base, b"mounted with a token")
    await here.push(base)
    shape = json.loads(here.library.manifest_bytes(base))
    for layer in shape["layers"]:
        layer["from"] = base.short
    here.library.write_manifest(derived, json.dumps(shape).encode())
    await here.push(derived)
    # A registry names what may be done in whatever order.
    scopes = [
        {(repository, frozenset(actions.split(","))) for repository, _, actions in map(cut, query.get("scope", []))}
        for query, _ in tokens.asked
    ]
    wanted = {("repository:team/derived", frozenset({"pull", "push"})), ("repository:team/base", frozenset({"pull"}))}
    assert any(wanted <= asked for asked in scopes)
    assert sum('" 201 ' in line for line in guarded.requests("POST", "mount=")) >= len(shape["layers"])


async def test_who_may_not_read_where_it_came_from_sends_it(
    guarded: TestRegistry, tokens: Tokens, place: Callable[..., Place]
) -> None:
    ada, bob = place("ada", login(guarded.host)), place("bob", login(guarded.host, "bob", "word"))
    theirs, mine = named(guarded, "secret/base"), named(guarded, "public/mine")
    ada.put(theirs, b"Not for bob.")
    await ada.push(theirs)
    data = bob.put(theirs, b"Not for bob.")
    bob.library.copy(theirs, mine)
    await bob.push(mine)
    await bob.pull(mine)
    assert bob.library.manifest_bytes(mine) == data
    assert any("mount=" in line and '" 401 ' in line for line in guarded.requests("POST"))


# ------------------------------------------------------------------------------------------------- what is not called


async def test_the_list_of_registries(registry: TestRegistry, place: Callable[..., Place]) -> None:
    listed = place("listed", allowed=("*.example", registry.host))
    with pytest.raises(SourceNotFound):
        await listed.pull(named(registry, "no/such"))
    for text in ("llama3", "elsewhere.test/a/b"):
        with pytest.raises(Forbidden) as caught:
            await listed.pull(Name.parse(text))
        assert caught.value.code == "registry_not_allowed"


@pytest.mark.parametrize(
    ("host", "terms"),
    [
        ("169.254.169.254", NEAR),
        ("169.254.169.254:80", NEAR),
        ("127.0.0.1:5000", Terms(insecure=True)),
        ("10.0.0.1:5000", Terms()),
        ("10.0.0.1", Terms(local=True)),
        ("localhost", Terms()),
        ("0x7f.1", Terms()),
    ],
)
async def test_private_addresses(place: Callable[..., Place], host: str, terms: Terms) -> None:
    with pytest.raises(Forbidden) as caught:
        await place().pull(Name.parse(f"{host}/a/b"), terms)
    assert caught.value.code == "private_address"
    assert "PUNA_REGISTRIES" in caught.value.message


@pytest.mark.parametrize("host", ["a:b:c", "host:", "host:99999", "a..b:x"])
async def test_hosts_that_are_none(place: Callable[..., Place], host: str) -> None:
    with pytest.raises(PunaError):
        await place().pull(Name.parse(f"{host}/a/b"), NEAR)


# ------------------------------------------------------------------------------------------------------------ mirrors


async def test_a_mirror_is_asked_first_and_the_host_after_it(
    registry: TestRegistry, place: Callable[..., Place]
) -> None:
    here = place("here")
    mirrored = Name.parse(f"{registry.host}/proxy-library/mirrored")
    here.put(mirrored)
    await here.push(mirrored)
    dead = [URL("http://127.0.0.1:9")]
    name = Name.parse(f"{registry.host}/proxy-library/mirrored")
    there = place("there", mirrors={registry.host: dead})
    await there.pull(name)
    assert there.library.has(name)

    live = place("live", mirrors={"far.example": [*dead, URL(f"http://{registry.host}/")]}, allowed=("*",))
    live.net.destinations = Destinations(configured=frozenset({registry.host, "127.0.0.1:9"}))
    far = Name.parse("far.example/proxy-library/mirrored")
    steps = await live.pull(far, Terms())
    assert any("mirror" in step.status for step in steps)
    assert live.library.manifest_bytes(far) == here.library.manifest_bytes(mirrored)


async def test_no_more_is_downloaded_than_is_allowed(registry: TestRegistry, place: Callable[..., Place]) -> None:
    """What is here does not count; what is damaged here does."""
    name = named(registry, "bounded/model:1")
    there = place("there")
    data = there.put(name)
    await there.push(name)
    total = sum(layer.size for layer in parse_manifest(data).blobs)
    here = place("here", limit=total - 1)
    with pytest.raises(Forbidden, match=f"{total} bytes to download, and PUNA_MAX_DOWNLOAD.* allows {total - 1}") as no:
        await here.pull(name)
    assert no.value.code == "download_too_large"
    assert not here.library.has(name)
    assert [path for path in here.library.root.rglob("*") if path.is_file()] == []
    await place("enough", limit=total).pull(name)

    (small,) = [layer for layer in parse_manifest(data).blobs if layer.size == 9]
    here.library.blobs.add_bytes(there.library.blobs.path(small.digest).read_bytes())
    await here.pull(name)
    weights = here.library.resolve(name).weights
    weights.write_bytes(bytes(weights.stat().st_size))
    tight = place("here", limit=100)
    with pytest.raises(Forbidden, match="allows 100"):
        await tight.pull(name)


async def test_one_of_several_under_a_name(registry: TestRegistry, place: Callable[..., Place]) -> None:
    """The tag moves on: what was pulled is outdated then, and its digest still brings it."""
    name = Name.parse(f"{registry.host}/ada/moving:1")
    there, here = place("there"), place("here")
    first = Digest.of(there.put(name))
    await there.push(name)
    await here.pull(name)
    assert [one.state for one in await here.sources.freshness([StoredModel(name, first)], NEAR)] == ["current"]
    second = Digest.of(there.put(name, system=b"Be kind."))
    await there.push(name)
    (found,) = await here.sources.freshness([StoredModel(name, first)], NEAR)
    assert (found.state, found.offered) == ("outdated", str(second))
    await here.pull(name)
    assert [one.state for one in await here.sources.freshness([StoredModel(name, second)], NEAR)] == ["current"]
    await here.pull(name, replace(NEAR, manifest=first))
    assert Digest.of(here.library.manifest_bytes(name)) == first
    with pytest.raises(SourceNotFound):
        await here.pull(name, replace(NEAR, manifest=Digest("00" * 32)))
    assert Digest.of(here.library.manifest_bytes(name)) == first
