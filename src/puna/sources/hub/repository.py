"""Repository: what a hub lists of one model's files at one revision, as its API tells it. Pure.

What the API says is a claim of another machine: paths lead nowhere, sizes and digests are checked for their form.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from puna.errors import SourceError
from puna.model.digest import Digest
from puna.types import JsonObject, JsonValue

MOST_FILES = 20_000
_HEX = re.compile(r"[0-9a-f]{40,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class RepoFile:
    """One file. `digest`: of its bytes, for a large one; `blob_id`: git's id of a small one. None: not told."""

    path: str
    size: int
    digest: Digest | None = None
    blob_id: str | None = None

    @property
    def filename(self) -> str:
        return PurePosixPath(self.path).name

    @property
    def directory(self) -> str:
        return self.path.rpartition("/")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """`id`: 'ORG/REPO' in the hub's own spelling. `revision`: the commit. `license`: its name, '' if none is told."""

    id: str
    revision: str
    files: tuple[RepoFile, ...]
    license: str = ""

    def file(self, path: str) -> RepoFile | None:
        return next((file for file in self.files if file.path == path), None)


def parse_repository(shape: JsonValue, asked: str) -> Repository:
    """From the answer of `/api/models/ORG/REPO/revision/REV?blobs=true`. SourceError when it is none."""
    if not isinstance(shape, dict):
        raise SourceError(f"the hub's answer about {asked} is no description of a model")
    revision, siblings = shape.get("sha"), shape.get("siblings")
    if not isinstance(revision, str) or not _HEX.fullmatch(revision):
        raise SourceError(f"the hub names no revision of {asked}")
    if not isinstance(siblings, list) or len(siblings) > MOST_FILES:
        raise SourceError(f"the hub lists no files of {asked}, or more than {MOST_FILES}")
    named = shape.get("id")
    same = isinstance(named, str) and named.lower() == asked.lower()
    files = (_file(item) for item in siblings)
    return Repository(
        id=named if same and isinstance(named, str) else asked,
        revision=revision,
        files=tuple(file for file in files if file is not None),
        license=_license(shape),
    )


def _file(item: JsonValue) -> RepoFile | None:
    """None for what has no path that could be one, or no size: it cannot be fetched."""
    if not isinstance(item, dict):
        return None
    path, size, lfs, blob = item.get("rfilename"), item.get("size"), item.get("lfs"), item.get("blobId")
    digest = lfs.get("sha256") or lfs.get("oid") if isinstance(lfs, dict) else None
    if isinstance(lfs, dict) and size is None:
        size = lfs.get("size")
    if not isinstance(path, str) or not safe(path):
        return None
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        return None
    text = digest.removeprefix("sha256:") if isinstance(digest, str) else ""
    return RepoFile(
        path,
        size,
        Digest(text) if _SHA256.fullmatch(text) else None,
        blob if isinstance(blob, str) and _HEX.fullmatch(blob) else None,
    )


def safe(path: str) -> bool:
    """Whether it is relative and stays where it begins."""
    return (
        bool(path)
        and "\\" not in path
        and "\0" not in path
        and all(part not in {"", ".", ".."} for part in path.split("/"))
    )


def _license(shape: JsonObject) -> str:
    card, tags = shape.get("cardData"), shape.get("tags")
    named = card.get("license") if isinstance(card, dict) else None
    if isinstance(named, str):
        return named
    found: Sequence[JsonValue] = tags if isinstance(tags, list) else ()
    return next((tag[8:] for tag in found if isinstance(tag, str) and tag.startswith("license:")), "")
