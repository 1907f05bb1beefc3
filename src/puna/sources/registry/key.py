"""Key: the ed25519 key by which Ollama's registry knows a user. Ollama's own where there is one, else Puna's.

Imported only when a registry asks for a signature. Blocking.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from puna.errors import SourceError
from puna.plainfile import read_plain

_MAX_BYTES = 64 * 1024
_EMPTY = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """`public`: the file of its other half, which the account's page takes."""

    private: Ed25519PrivateKey
    public: Path

    def sign_get(self, url: str) -> str:
        """The Authorization of a GET: `<public half>:<signature>`, both base64."""
        line = self.private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        signature = self.private.sign(f"GET,{url},{_EMPTY}".encode())
        return f"{line.split()[1]}:{base64.b64encode(signature).decode()}"


def load_key(theirs: Sequence[Path], own: Path | None) -> SigningKey:
    """The first of `theirs` that is there, else `own`, which is made (0600). SourceError: it cannot be read or made."""
    for path in (*theirs, *((own,) if own is not None else ())):
        if path.is_file():
            return SigningKey(_read(path), path.with_name(f"{path.name}.pub"))
    if own is None:
        raise SourceError("no key can be made to sign with: this user has no home directory")
    return SigningKey(_make(own), own.with_name(f"{own.name}.pub"))


def _read(path: Path) -> Ed25519PrivateKey:
    try:
        key = load_ssh_private_key(read_plain(path, _MAX_BYTES), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SourceError(f"the key {path} cannot be read: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SourceError(f"the key {path} is not of the kind ed25519")
    return key


def _make(path: Path) -> Ed25519PrivateKey:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with suppress(FileNotFoundError):
            temporary.unlink()
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(private)
        try:
            os.link(temporary, path)  # another process's, made meanwhile, stays
        except FileExistsError:
            return _read(path)
        finally:
            temporary.unlink()
        path.with_name(f"{path.name}.pub").write_bytes(public + b"\n")
    except OSError as error:
        raise SourceError(f"the key {path} cannot be made: {error}") from error
    _log.info("made a key for registries", path=str(path))
    return key
