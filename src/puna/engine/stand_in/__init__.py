"""The model that answers to every name under the scripted engine: a GGUF header without weights, beside this file.

Tests of programs that talk to Puna so need no download. What it is it says: its architecture is `scripted`.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone
from functools import cache
from pathlib import Path

from puna.model.capabilities import capabilities
from puna.model.digest import Digest
from puna.model.gguf import Header, read_header
from puna.model.manifest import CONFIG_TYPE, MODEL_TYPE, Layer, Manifest
from puna.model.model import Model, config_of
from puna.model.name import Name


def stand_in(name: Name) -> Model:
    """Under any Name. Each has a digest, and so a runner, of its own, as a script may tell them apart."""
    path, header = _file()
    digest = Digest(hashlib.sha256("/".join(name.folded).encode()).hexdigest())
    size = path.stat().st_size
    config = config_of(header)
    layer = Layer(MODEL_TYPE, Digest.parse(path.name), size)
    return Model(
        name=name,
        digest=digest.hex,
        manifest=Manifest(Layer(CONFIG_TYPE, digest, 0), (layer,)),
        config=config,
        header=header,
        weights=path,
        weights_digest=digest,
        capabilities=capabilities(header, None, []),
        size=size,
        modified=datetime.fromtimestamp(path.stat().st_mtime, timezone.utc),
        read_only=True,
    )


@cache
def _file() -> tuple[Path, Header]:
    (path,) = Path(__file__).parent.glob("sha256-*")
    return path, read_header(path)
