"""Threads and processes change one store at once: whoever reads it sees models, or sees that they are gone."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from os import utime
from pathlib import Path

import pytest

from fakes.gguf_files import write_tiny_llama
from puna.errors import Conflict, ModelNotFound
from puna.model.manifest import CONFIG_TYPE, MODEL_TYPE, SYSTEM_TYPE, Config, Layer, Manifest
from puna.model.name import Name
from puna.store.library import Library

NAMES = [Name.parse(text) for text in ("a", "b", "own/c", "example.com/own/d:1", "example.com/own/d:2")]
CONFIG = Config(model_format="gguf", model_family="llama").dump()


def hammer(models: Path, weights: Path, seed: int, turns: int) -> dict[str, int]:
    """How often each work was done, and what it raised but for what a client may be told."""
    library, choose, done = Library.open(models), random.Random(seed), dict[str, int]()
    for _ in range(turns):
        name, other = choose.choice(NAMES), choose.choice(NAMES)
        work = choose.choice(["list", "show", "create", "copy", "delete", "bytes"])
        outcome = work
        try:
            match work:
                case "list":
                    assert all(model.label.size for model in library.listed())
                case "show":
                    assert library.resolve(name).header.architecture == "llama"
                case "create":
                    create(library, name, weights, choose.randrange(3))
                case "copy":
                    library.copy(name, other)
                case "delete":
                    library.delete(name)
                case _:
                    assert library.manifest_bytes(name)
        except (ModelNotFound, Conflict) as error:
            outcome = f"{work}: {type(error).__name__}"
        done[outcome] = done.get(outcome, 0) + 1
    return done


def create(library: Library, name: Name, weights: Path, variant: int) -> None:
    layers = [
        Layer(MODEL_TYPE, library.blobs.add_file(weights), weights.stat().st_size),
        library.blobs.add_layer(SYSTEM_TYPE, b"system %d" % variant),
    ]
    library.write_manifest(name, Manifest(library.blobs.add_layer(CONFIG_TYPE, CONFIG), tuple(layers)))


CODE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from unit_races import hammer
print(sum(hammer(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), 150).values()))
"""


@pytest.mark.timeout(240)
def test_no_work_on_the_store_fails_because_of_another(tmp_path: Path) -> None:
    models, weights = tmp_path / "models", write_tiny_llama(tmp_path / "tiny.gguf")
    (tmp_path / "unit_races.py").write_text(Path(__file__).read_text("utf-8"), "utf-8")
    tests = Path(__file__).parents[2]
    code = f"import sys; sys.path.insert(0, {str(tests)!r})\n{CODE}"
    others = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), str(models), str(weights), str(seed)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in (1, 2)
    ]
    faults: list[BaseException] = []
    counts: list[dict[str, int]] = []

    def run(seed: int) -> None:
        try:
            counts.append(hammer(models, weights, seed, 150))
        except BaseException as fault:  # noqa: BLE001 - told below
            faults.append(fault)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in (3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for other in others:
        out, err = other.communicate(timeout=200)
        assert (other.returncode, out.strip()) == (0, "150"), err
    assert faults == []
    did = {work for count in counts for work in count}
    assert {"list", "show", "create", "copy", "delete", "bytes"} <= did


def test_a_blob_that_is_claimed_is_not_removed(tmp_path: Path) -> None:
    """Somebody stores the same bytes again; then the model that had them is deleted; then he writes his manifest."""
    library, weights = Library.open(tmp_path / "models"), write_tiny_llama(tmp_path / "tiny.gguf")
    create(library, NAMES[0], weights, 0)
    # A moment ago, whatever the clock of this file system can tell apart.
    manifest = next(path for path in (tmp_path / "models" / "manifests").rglob("*") if path.is_file())
    utime(manifest, (manifest.stat().st_mtime - 1,) * 2)
    layers = (
        Layer(MODEL_TYPE, library.blobs.add_file(weights), weights.stat().st_size),
        library.blobs.add_layer(SYSTEM_TYPE, b"system 0"),
    )
    config = library.blobs.add_layer(CONFIG_TYPE, CONFIG)
    Library.open(tmp_path / "models").delete(NAMES[0])
    library.write_manifest(NAMES[1], Manifest(config, layers))
    assert library.resolve(NAMES[1]).system == "system 0"
    library.delete(NAMES[1])
    assert [*library.blobs.directory.iterdir()] == []
