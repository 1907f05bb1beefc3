"""A store as Ollama leaves it, all that is odd in one: listed, shown, run, copied, deleted and pruned as by Ollama."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.gguf_files import CHATML, gguf_bytes
from fakes.stores import put_blob, put_model
from puna.model.digest import Digest
from puna.store.library import Library

WEIGHTS = gguf_bytes(chat_template=CHATML, metadata={"llama.context_length": 4096})
ADAPTER = gguf_bytes(metadata={"general.type": "adapter", "adapter.type": "lora"})
GO = "{{ .System }}{{ range .Messages }}{{ .Content }}{{ end }}"
OLD = 10_000.0
"""A date of long ago, for what pruning may take."""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    put_model(
        root,
        "Full/latest",
        WEIGHTS,
        {
            "template": GO.encode(),
            "params": b'{"temperature":0.5,"stop":["<end>"],"mirostat":1,"tfs_z":0.9}',
            "system": b"Be brief.",
            "messages": b'[{"role":"user","content":"q","images":["aGk="]},{"role":"assistant","content":"a"}]',
            "license": b"MIT text",
            "adapter": ADAPTER,
        },
        config={"model_format": "", "model_families": None, "rootfs": {"type": "layers"}, "architecture": "amd64"},
    )
    put_model(root, "old/latest", WEIGHTS, {"prompt": b"{{ .Prompt }}!", "embed": b"obsolete"}, colon=True)
    put_model(
        root,
        "rendered/latest",
        WEIGHTS,
        config={"renderer": "qwen3-coder", "parser": "qwen3-coder", "requires": "0.14.0"},
    )
    put_model(root, "example.com:5000/Someone/thing/v1", WEIGHTS)
    put_model(root, "cloudy/latest", b"", config={"remote_host": "https://ollama.com:443", "remote_model": "x"})
    manifest = root / "manifests/registry.ollama.ai/library/cloudy/latest"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "layers": None}))
    (root / "blobs" / Digest.of(b"").filename).unlink()
    return root


@pytest.fixture
def served(models: Path, serving: Callable[..., Any]) -> Iterator[Any]:
    with serving(models=models) as server:
        yield server


USABLE = {"Full:latest", "old:latest", "rendered:latest", "example.com:5000/Someone/thing:v1"}


def listed(server: Any) -> set[str]:
    return {model["name"] for model in server.get("/api/tags").json["models"]}


def files(models: Path) -> dict[str, bytes]:
    """Manifests and blobs, whatever their names."""
    paths = [path for folder in ("manifests", "blobs") for path in (models / folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(models)): path.read_bytes() for path in paths}


def test_what_is_listed_shown_and_run(served: Any, models: Path) -> None:
    before = files(models)
    assert listed(served) == USABLE
    shown = served.post("/api/show", {"model": "full"}).json
    assert (shown["system"], shown["license"], shown["template"]) == ("Be brief.", "MIT text", GO)
    assert shown["messages"] == [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert {"temperature", "stop"} <= {line.split()[0] for line in shown["parameters"].splitlines()}
    assert (shown["details"]["format"], shown["details"]["families"]) == ("gguf", ["llama"])
    assert "ADAPTER " in shown["modelfile"]
    assert served.post("/api/show", {"model": "OLD"}).json["template"] == "{{ .Prompt }}!"
    rendered = served.post("/api/show", {"model": "rendered"}).json
    assert (rendered["template"], rendered["requires"]) == (CHATML, "0.14.0")
    for name in USABLE - {"Full:latest"}:
        answer = served.post(
            "/api/chat", {"model": name, "messages": [{"role": "user", "content": "x"}], "stream": False}
        )
        assert answer.status == 200, (name, answer.body)
    assert served.post("/api/show", {"model": "cloudy"}).status == 400
    assert files(models) == before


def test_copies_have_the_same_bytes_and_names_their_case(served: Any, models: Path) -> None:
    assert served.post("/api/copy", {"source": "FULL", "destination": "someONE/else"}).status == 200
    names = models / "manifests" / "registry.ollama.ai"
    # Each part is spelled as a stored manifest spells it: the namespace of another host's model too.
    copy = names / "Someone" / "else" / "latest"
    assert copy.read_bytes() == (names / "library" / "Full" / "latest").read_bytes()
    ids = {model["name"]: model["digest"] for model in served.get("/api/tags").json["models"]}
    assert ids["Full:latest"] == ids["Someone/else:latest"] == Digest.of(copy.read_bytes()).hex


def test_deleting_keeps_what_others_use(served: Any, models: Path) -> None:
    def there(data: bytes) -> bool:
        digest = Digest.of(data)
        return any((models / "blobs" / name).exists() for name in (digest.filename, str(digest)))

    assert served.request("DELETE", "/api/delete", {"model": "full"}).status == 200
    assert not (models / "manifests/registry.ollama.ai/library/Full").exists()
    assert [there(data) for data in (WEIGHTS, b"Be brief.", b"MIT text", ADAPTER)] == [True, False, False, False]
    for name in ("old", "rendered", "example.com:5000/someone/thing:v1"):
        assert served.request("DELETE", "/api/delete", {"model": name}).status == 200
    assert not there(WEIGHTS)
    assert listed(served) == set()


def test_pruning_takes_what_nobody_names(models: Path) -> None:
    orphan = put_blob(models, b"orphan")
    partial = models / "blobs" / f"sha256-{'0' * 64}-partial-0"
    partial.write_text('{"N":0,"Offset":0,"Size":1,"Completed":0}')
    library, before = Library.open(models), files(models)
    assert library.prune() == (), "nothing is old enough"
    for path in (models / "blobs").iterdir():
        os.utime(path, (OLD, OLD))
    removed = library.prune(now=(models / "blobs").stat().st_ctime + 7200)
    assert set(removed) == {orphan.filename, partial.name}
    assert files(models) == {name: data for name, data in before.items() if Path(name).name not in removed}


@pytest.mark.parametrize("stray", ["library/Full/.DS_Store", "library/broken/latest"])
def test_strays_and_damage_keep_all(served: Any, models: Path, stray: str) -> None:
    """They are left out of the list, and nobody can tell what is in use: nothing is removed."""
    orphan = put_blob(models, b"orphan")
    path = models / "manifests" / "registry.ollama.ai" / stray
    path.parent.mkdir(exist_ok=True)
    path.write_text("{")
    assert listed(served) == USABLE
    assert Library.open(models).prune(now=(models / "blobs").stat().st_ctime + 7200) == ()
    assert (models / "blobs" / orphan.filename).exists()
