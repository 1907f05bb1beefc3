"""Endpoint: the URLs of one repository of a registry, or of a mirror of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from yarl import URL

from puna.errors import InvalidName
from puna.model.digest import Digest
from puna.model.name import Name
from puna.sources.source import Terms

DOCKER_HUB = "docker.io"
_API_HOSTS = {DOCKER_HUB: "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}
"""Hosts of names whose API is elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """`host`: as the Name or the setting has it. `repository`: its path there. `mirror`: it is not the Name's host."""

    base: URL
    host: str
    repository: str
    mirror: bool = False

    def manifest(self, reference: str) -> URL:
        """Of a tag or a digest."""
        return self._url(f"manifests/{reference}")

    def blob(self, digest: Digest) -> URL:
        return self._url(f"blobs/{digest}")

    def uploads(self, mount: Digest | None = None, source: str | None = None) -> URL:
        """Where an upload begins; with `mount` and `source`, where a blob of another repository is asked for."""
        url = self._url("blobs/uploads/")
        return url if mount is None or source is None else url.with_query({"mount": str(mount), "from": source})

    def tags(self) -> URL:
        """The list of the repository's tags."""
        return self._url("tags/list")

    def _url(self, path: str) -> URL:
        return self.base.with_path(f"/v2/{self.repository}/{path}")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Where the repositories of a registry are listed. `endpoint`: of no repository, and `at` one of them.

    `host`: of the Names that what is there has. `prefix`: what a mirror's repositories have before that.
    """

    endpoint: Endpoint
    host: str
    prefix: str = ""

    def page(self, number: int, after: str) -> URL:
        """`number` repositories, from the one behind `after` on."""
        query = {"n": str(number)} | ({"last": after} if after else {})
        return self.endpoint.base.with_path("/v2/_catalog").with_query(query)

    def at(self, repository: str) -> Endpoint:
        return replace(self.endpoint, repository=repository)

    def name(self, repository: str, tag: str) -> Name | None:
        """None: a repository of that path has no Name."""
        namespace, slash, model = repository.removeprefix(self.prefix).partition("/")
        if not slash or not repository.startswith(self.prefix):
            return None
        try:
            return Name.of(self.host, namespace, model, tag)
        except InvalidName:
            return None


def catalogues_of(hosts: Sequence[str], mirrors: Mapping[str, Sequence[URL]], terms: Terms) -> tuple[Catalogue, ...]:
    """Of registries and of mirrors. InvalidName when a host is none that can be called."""
    found = [
        Catalogue(_mirror(url, ""), host, f"{url.path.strip('/')}/".lstrip("/"))
        for host, urls in mirrors.items()
        for url in urls
    ]
    known = {catalogue.endpoint.base for catalogue in found}
    own = (Catalogue(replace(own_endpoint(Name.of(host, "a", "a", "a"), terms), repository=""), host) for host in hosts)
    return (*found, *(one for one in own if one.endpoint.base not in known))


def repository(name: Name) -> str:
    return f"{name.namespace}/{name.model}"


def own_endpoint(name: Name, terms: Terms) -> Endpoint:
    """Of the Name's own host. InvalidName when the host is none that can be called."""
    host = name.host.lower()
    scheme = "http" if terms.insecure else "https"
    return Endpoint(
        base=_base(f"{scheme}://{_API_HOSTS.get(host, host)}", name), host=host, repository=repository(name)
    )


def endpoints(name: Name, terms: Terms, mirrors: Mapping[str, Sequence[URL]]) -> tuple[Endpoint, ...]:
    """Where to ask for a model, in order: the mirrors of its host, then the host."""
    found = [_mirror(url, repository(name)) for url in mirrors.get(name.host.lower(), ())]
    return (*found, own_endpoint(name, terms))


def _mirror(url: URL, repository: str) -> Endpoint:
    path = "/".join(filter(None, (url.path.strip("/"), repository)))
    return Endpoint(base=url.origin(), host=url.authority, repository=path, mirror=True)


def _base(text: str, name: Name) -> URL:
    try:
        url = URL(text).origin()
    except ValueError as error:
        raise InvalidName(f"invalid model name {name.full!r}: its host is none", param="model") from error
    if not url.host:
        raise InvalidName(f"invalid model name {name.full!r}: its host is none", param="model")
    return url
