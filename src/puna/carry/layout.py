"""The OCI image layout: what the files of an archive of models are called, and what its index says. Pure.

The format is the image-layout specification's, version 1.0.0: `oci-layout`, `index.json`, `blobs/sha256/<hex>`. A
model's manifest is a blob like its layers; the index names it, and the model by an annotation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from puna.errors import InvalidName, InvalidRequest, ModelFileError, Unsupported
from puna.model.digest import Digest
from puna.model.name import Name
from puna.types import JsonObject, JsonValue

MARK = "oci-layout"
INDEX = "index.json"
VERSION = "1.0.0"
REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"
"""Where tools that keep only the tag in REF_NAME put the whole name."""

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_LISTS = {INDEX_TYPE, "application/vnd.docker.distribution.manifest.list.v2+json"}
_BLOB = re.compile(r"(?:\./)?blobs/sha256/([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Carried:
    """A model of an archive. `name`: None where the index gives it none. `size`: bytes of its manifest."""

    name: Name | None
    manifest: Digest
    size: int
    media_type: str


def blob_member(digest: Digest) -> str:
    return f"blobs/sha256/{digest.hex.lower()}"


def blob_of(member: str) -> Digest | None:
    """The digest that a member's name says; None when it is no blob's."""
    match = _BLOB.fullmatch(member)
    return None if match is None else Digest(match[1])


def mark() -> bytes:
    return json.dumps({"imageLayoutVersion": VERSION}, separators=(",", ":")).encode()


def check_layout(data: bytes) -> None:
    """Of what `mark` writes, as others wrote it. Unsupported: a version that is to be read in another way."""
    try:
        version = json.loads(data)["imageLayoutVersion"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise ModelFileError(f"{MARK} of the archive is damaged: {type(error).__name__} {error}") from error
    if not isinstance(version, str) or version.partition(".")[0] != VERSION.partition(".")[0]:
        raise Unsupported(f"the archive's layout has the version {str(version)[:20]!r}, and {VERSION} is what is read")


def dump_index(models: Sequence[Carried]) -> bytes:
    """In the order given."""
    manifests: list[JsonValue] = []
    for model in models:
        descriptor: JsonObject = {"mediaType": model.media_type, "digest": str(model.manifest), "size": model.size}
        if model.name is not None:
            descriptor["annotations"] = {IMAGE_NAME: model.name.full, REF_NAME: model.name.full}
        manifests.append(descriptor)
    shape: JsonObject = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests}
    return json.dumps(shape, separators=(",", ":"), ensure_ascii=False).encode()


def parse_index(data: bytes) -> tuple[Carried, ...]:
    """ModelFileError when it is none; Unsupported when it names further indexes."""
    try:
        shape = json.loads(data)
        manifests = shape["manifests"]
        items = [(item, item["digest"], item["size"]) for item in manifests]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise ModelFileError(f"{INDEX} of the archive is damaged: {type(error).__name__} {error}") from error
    if not items:
        raise ModelFileError(f"{INDEX} of the archive names no model")
    return tuple(_listed(item, digest, size) for item, digest, size in items)


def _listed(item: JsonObject, digest: JsonValue, size: JsonValue) -> Carried:
    media_type = item.get("mediaType")
    if media_type in _LISTS:
        raise Unsupported(f"the archive's {digest} is an index of images for several machines, and no model")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ModelFileError(f"{INDEX} of the archive is damaged: the size of {digest} is no number of bytes")
    try:
        found = Digest.parse(str(digest))
    except InvalidRequest as error:
        raise ModelFileError(f"{INDEX} of the archive is damaged: {str(digest)[:80]!r} is no digest") from error
    return Carried(_name(item.get("annotations")), found, size, str(media_type or ""))


def _name(annotations: JsonValue) -> Name | None:
    if not isinstance(annotations, dict):
        return None
    text = annotations.get(IMAGE_NAME) or annotations.get(REF_NAME)
    if not isinstance(text, str):
        return None
    try:
        return Name.parse(text)
    except InvalidName as error:
        raise ModelFileError(f"{INDEX} of the archive gives a model a name that is none: {error}") from error
