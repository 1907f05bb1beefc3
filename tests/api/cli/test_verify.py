"""`puna verify`: what it says, and what it ends with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fakes.gguf_files import write_tiny_llama
from puna.model.manifest import CONFIG_TYPE, MODEL_TYPE, SYSTEM_TYPE, Config, Layer, Manifest
from puna.model.name import Name
from puna.store.library import Library


def fill(models: Path, weights: Path, *names: str) -> Library:
    library = Library.open(models)
    for name in names:
        layers = (
            Layer(MODEL_TYPE, library.blobs.add_bytes(weights.read_bytes()), weights.stat().st_size),
            library.blobs.add_layer(SYSTEM_TYPE, name.encode()),
        )
        config = library.blobs.add_layer(CONFIG_TYPE, Config(model_family="llama").dump())
        library.write_manifest(Name.parse(name), Manifest(config, layers))
    return library


def test_what_is_damaged_is_named_and_ends_with_one(serving: Any, command: Callable[..., Any], tmp_path: Path) -> None:
    library = fill(tmp_path / "models", write_tiny_llama(tmp_path / "tiny.gguf"), "one", "two")
    with serving(models=tmp_path / "models") as server:
        puna = command(server.url)
        ended = puna("verify", "--all")
        assert (ended.status, ended.out) == (0, "verified all models (2): every byte is as it was stored\n")

        (system,) = library.resolve(Name.parse("two")).manifest.of_type(SYSTEM_TYPE)
        path = library.blobs.path(system.digest)
        path.write_bytes(b"tw")
        ended = puna("verify", "two")
        words = "the system message of model 'two:latest' is cut short: 2 of 3 bytes are there"
        assert ended.status == 1
        assert ended.out == f"damaged: {words} ({system.digest})\n"
        assert "1 file of two:latest is damaged. Mend them with: puna verify two:latest --repair" in ended.err
        assert puna("verify", "one").status == 0
        ended = puna("verify", "--all", "--repair")
        assert ended.status == 1
        assert "cannot be repaired: " in ended.out

        lines = [json.loads(line) for line in server.post("/api/verify", {"model": "two"}).body.splitlines()]
        assert lines[-1] == {"status": "success", "models": 1, "damaged": 1, "repaired": 0}
        whole = server.post("/api/verify", {"stream": False}).json
        assert [file["model"] for file in whole["files"]] == ["two:latest"]
        assert whole["files"][0]["fault"] == "truncated"
        refused = server.post("/api/chat", {"model": "two", "messages": [{"role": "user", "content": "x"}]})
        assert refused.status == 400
        assert words in refused.json["error"]

        path.write_bytes(b"two")
        assert puna("verify", "--all").status == 0
        assert puna("verify", "nope").status == 1
        for wrong in ([], ["two", "--all"]):
            ended = puna("verify", *wrong)
            assert ended.status == 2
            assert "one of MODEL and --all is needed" in ended.err
