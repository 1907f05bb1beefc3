"""Endpoint: the URLs of one repository of a registry, or of a mirror of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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

    def _url(self, path: str) -> URL:
        return self.base.with_path(f"/v2/{self.repository}/{path}")


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
    found = [
        Endpoint(
            base=url.origin(),
            host=url.authority,
            repository="/".join(filter(None, (url.path.strip("/"), repository(name)))),
            mirror=True,
        )
        for url in mirrors.get(name.host.lower(), ())
    ]
    return (*found, own_endpoint(name, terms))


def _base(text: str, name: Name) -> URL:
    try:
        url = URL(text).origin()
    except ValueError as error:
        raise InvalidName(f"invalid model name {name.full!r}: its host is none", param="model") from error
    if not url.host:
        raise InvalidName(f"invalid model name {name.full!r}: its host is none", param="model")
    return url
