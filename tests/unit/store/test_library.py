import hashlib
import json
import os
import random
import time
from pathlib import Path

import pytest

from fakes.gguf_files import CHATML, Tensor, gguf_bytes
from fakes.stores import put_blob, put_model
from puna.errors import Conflict, ModelDamaged, ModelFileError, ModelNotFound, PunaError, StoreError, Unsupported
from puna.model.capabilities import Capability
from puna.model.digest import Digest
from puna.model.listed import Listed
from puna.model.manifest import CONFIG_TYPE, MAX_MANIFEST_BYTES, MODEL_TYPE, Layer, Manifest
from puna.model.name import NEAREST_AMONG, Name, nearest
from puna.store.library import PRUNE_AGE, Library
from puna.types import Message, Options

WEIGHTS = gguf_bytes(chat_template=CHATML, tensors=[Tensor("a", (8,))])
OTHER = gguf_bytes(architecture="qwen2", tensors=[Tensor("b", (8,))])


def name(text: str) -> Name:
    return Name.parse(text)


def blobs_in(models: Path) -> set[str]:
    return {path.name for path in (models / "blobs").iterdir()}


def age(path: Path, seconds: float) -> None:
    """Only the date of change can be set back, so the tests prune in the future instead."""
    os.utime(path, (time.time() - seconds,) * 2)


def test_a_model_of_ollamas(tmp_path: Path) -> None:
    layers = {
        "template": b"{{ .Prompt }}",
        "system": b"Be brief.",
        "params": b'{"stop":["<|im_end|>"],"temperature":0.5,"num_gqa":8,"top_k":"many"}',
        "messages": b'[{"role":"user","content":"Hi"}]',
        "license": b"MIT",
        "embed": b"old",
    }
    path = put_model(tmp_path, "m/t", WEIGHTS, layers, config={"model_family": "llama", "model_families": None})
    model = Library.open(tmp_path).resolve(name("m:t"))
    assert (model.name, model.digest) == (name("m:t"), hashlib.sha256(path.read_bytes()).hexdigest())
    assert (model.header.architecture, model.chat_template) == ("llama", CHATML)
    assert (model.weights.read_bytes(), model.weights_digest) == (WEIGHTS, Digest.of(WEIGHTS))
    assert (model.go_template, model.system, model.licenses) == ("{{ .Prompt }}", "Be brief.", ("MIT",))
    assert (model.options, model.ignored_parameters) == (
        Options(stop=("<|im_end|>",), temperature=0.5),
        ("num_gqa", "top_k"),
    )
    assert model.messages == (Message.of("user", "Hi"),)
    assert model.capabilities == {Capability.COMPLETION, Capability.TOOLS}
    assert model.size == sum(layer.size for layer in model.manifest.blobs)
    assert abs(model.modified.timestamp() - path.stat().st_mtime) < 1
    assert not model.read_only


def test_old_blob_names_and_the_old_template_type(tmp_path: Path) -> None:
    put_model(tmp_path, "m/latest", WEIGHTS, {"prompt": b"old"}, colon=True)
    assert Library.open(tmp_path).resolve(name("m")).go_template == "old"


def test_projector_and_adapter(tmp_path: Path) -> None:
    projector = gguf_bytes(architecture="clip", tensors=[Tensor("v", (8,))])
    put_model(tmp_path, "m/latest", WEIGHTS, {"projector": projector, "adapter": OTHER})
    model = Library.open(tmp_path).resolve(name("m"))
    assert [path.read_bytes() for path in (*model.projectors, *model.adapters)] == [projector, OTHER]
    assert Capability.VISION in model.capabilities


def test_spelling(tmp_path: Path) -> None:
    put_model(tmp_path, "Foo/V1", WEIGHTS)
    library = Library.open(tmp_path)
    assert library.resolve(name("foo:v1")).name == name("Foo:V1")
    library.copy(name("FOO:v1"), name("foo:Other"))
    library.copy(name("foo:v1"), name("FOO:OTHER"))
    assert {model.name.short for model in library.listed()} == {"Foo:V1", "Foo:Other"}
    library.delete(name("fOO:v1"))
    assert not library.has(name("Foo:V1"))


def test_not_found(tmp_path: Path) -> None:
    library = Library.open(tmp_path / "not" / "yet")
    with pytest.raises(ModelNotFound, match="model 'nope:latest' not found"):
        library.resolve(name("nope"))
    with pytest.raises(ModelNotFound):
        library.delete(name("nope"))
    with pytest.raises(ModelNotFound):
        library.copy(name("nope"), name("x"))
    assert library.listed() == []
    assert library.prune() == ()
    assert not (tmp_path / "not").exists()


def test_a_directory_where_a_tag_should_be(tmp_path: Path) -> None:
    put_model(tmp_path, "m/latest", WEIGHTS)
    (tmp_path / "manifests/registry.ollama.ai/library/m/dir").mkdir()
    (tmp_path / "manifests/registry.ollama.ai/library/file").write_text("x")
    library = Library.open(tmp_path)
    for text in ("m:dir", "file:x"):
        with pytest.raises(ModelNotFound):
            library.resolve(name(text))
    assert len(library.listed()) == 1


def test_bad_directories(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="not a directory"):
        Library.open(tmp_path / "file")
    with pytest.raises(StoreError, match="read-only"):
        Library.open(tmp_path / "own", read_only=[tmp_path / "missing"])


def damage_manifest(models: Path, path: Path) -> None:
    path.write_text("{")


def lose_weights(models: Path, path: Path) -> None:
    (models / "blobs" / Digest.of(WEIGHTS).filename).unlink()


def cut_weights(models: Path, path: Path) -> None:
    os.truncate(models / "blobs" / Digest.of(WEIGHTS).filename, len(WEIGHTS) - 1)


def lose_config(models: Path, path: Path) -> None:
    shape = json.loads(path.read_text())
    shape["config"]["digest"] = f"sha256:{'00' * 32}"
    path.write_text(json.dumps(shape))


@pytest.mark.parametrize("damage", [damage_manifest, lose_weights, cut_weights, lose_config])
def test_unusable_models_are_refused_and_not_listed(tmp_path: Path, damage: object) -> None:
    path = put_model(tmp_path, "m/latest", WEIGHTS)
    put_model(tmp_path, "good/latest", OTHER)
    library = Library.open(tmp_path)
    library.resolve(name("m"))
    damage(tmp_path, path)  # type: ignore[operator]
    with pytest.raises((ModelFileError, StoreError)):
        library.resolve(name("m"))
    assert [model.name.model for model in library.listed()] == ["good"]


@pytest.mark.parametrize(
    "layers", [{"params": b"["}, {"params": b"[]"}, {"messages": b"{}"}, {"messages": b'[{"role":1}]'}]
)
def test_unusable_layers(tmp_path: Path, layers: dict[str, bytes]) -> None:
    put_model(tmp_path, "m/latest", WEIGHTS, layers)
    with pytest.raises(ModelFileError):
        Library.open(tmp_path).resolve(name("m"))


def test_models_without_weights_here(tmp_path: Path) -> None:
    path = put_model(tmp_path, "m/latest", WEIGHTS, config={"remote_host": "https://example.com"})
    shape = json.loads(path.read_text()) | {"layers": []}
    path.write_text(json.dumps(shape))
    with pytest.raises(Unsupported, match="runs on https://example.com"):
        Library.open(tmp_path).resolve(name("m"))


def test_resolved_again_only_when_something_changed(tmp_path: Path) -> None:
    path = put_model(tmp_path, "m/latest", WEIGHTS)
    library = Library.open(tmp_path)
    assert library.known(name("m")) is None
    first = library.resolve(name("m"))
    assert library.resolve(name("m")) is library.known(name("m")) is first
    assert library.listed() == [Listed.of(first)]
    put_model(tmp_path, "m/latest", WEIGHTS, {"system": b"New"})
    assert library.known(name("m")) is None
    assert library.resolve(name("m")).system == "New"
    library.copy(name("m"), name("copy"))
    assert library.resolve(name("copy")).header is library.resolve(name("m")).header
    os.utime(library.resolve(name("m")).weights, (1, 1))
    assert library.known(name("m")) is None
    path.unlink()
    assert library.known(name("m")) is None
    with pytest.raises(ModelNotFound):
        library.resolve(name("m"))


def test_newest_first(tmp_path: Path) -> None:
    for index, text in enumerate(("b", "c", "a")):
        age(put_model(tmp_path, f"{text}/latest", WEIGHTS), index * 100)
    assert [model.name.model for model in Library.open(tmp_path).listed()] == ["b", "c", "a"]


# -------------------------------------------------------------------------------------------------------------- writing


def manifest_of(library: Library, weights: bytes = WEIGHTS) -> Manifest:
    config = library.blobs.add_layer(CONFIG_TYPE, b"{}")
    return Manifest(config, (library.blobs.add_layer(MODEL_TYPE, weights),))


def test_only_whole_models_are_listed(tmp_path: Path) -> None:
    library = Library.open(tmp_path)
    manifest = manifest_of(library)
    lacking = Manifest(manifest.config, (*manifest.layers, Layer(MODEL_TYPE, Digest("00" * 32), 1)))
    wrong = Manifest(manifest.config, (Layer(MODEL_TYPE, Digest.of(WEIGHTS), 1),))
    for bad, error in ((lacking, Conflict), (wrong, StoreError)):
        with pytest.raises(error):
            library.write_manifest(name("m"), bad)
    assert not library.has(name("m"))
    assert library.write_manifest(name("m"), manifest) == ()
    assert library.manifest_bytes(name("m")) == manifest.dump()
    assert [path.name for path in (tmp_path / "manifests/registry.ollama.ai/library/m").iterdir()] == ["latest"]


def test_a_manifest_larger_than_any_is_damaged(tmp_path: Path) -> None:
    path = put_model(tmp_path, "m/t", WEIGHTS)
    library = Library.open(tmp_path)
    path.write_bytes(path.read_bytes() + b" " * MAX_MANIFEST_BYTES)
    for work in (library.resolve, library.manifest_bytes, lambda one: library.copy(one, name("other"))):
        with pytest.raises(ModelDamaged, match="the manifest of m:t is damaged: it is larger than"):
            work(name("m:t"))
    assert not library.listed()


def test_copy_keeps_the_bytes(tmp_path: Path) -> None:
    path = put_model(tmp_path, "m/latest", WEIGHTS)
    library = Library.open(tmp_path)
    library.copy(name("m"), name("ns/copy:x"))
    library.copy(name("m"), name("m"))
    assert library.manifest_bytes(name("ns/copy:x")) == path.read_bytes()
    assert library.resolve(name("ns/copy:x")).digest == library.resolve(name("m")).digest


def test_delete_keeps_what_others_use(tmp_path: Path) -> None:
    put_model(tmp_path, "a/latest", WEIGHTS, {"system": b"A"})
    put_model(tmp_path, "b/latest", WEIGHTS, {"system": b"B"})
    library = Library.open(tmp_path, no_prune=True)
    library.delete(name("a"))
    assert Digest.of(b"A").filename not in blobs_in(tmp_path)
    assert library.resolve(name("b")).system == "B"
    library.delete(name("b"))
    assert blobs_in(tmp_path) == set()
    assert not (tmp_path / "manifests").exists()


def test_delete_removes_nothing_in_doubt(tmp_path: Path) -> None:
    put_model(tmp_path, "a/latest", WEIGHTS)
    put_model(tmp_path, "b/latest", OTHER).write_text("{")
    before = blobs_in(tmp_path)
    library = Library.open(tmp_path)
    library.delete(name("a"))
    assert blobs_in(tmp_path) == before
    library.delete(name("b"))
    assert library.listed() == []


@pytest.mark.parametrize("no_prune", [False, True])
def test_replacing_frees_what_is_unused(tmp_path: Path, no_prune: bool) -> None:
    put_model(tmp_path, "m/latest", WEIGHTS, {"system": b"A"})
    library = Library.open(tmp_path, no_prune=no_prune)
    freed = library.write_manifest(name("m"), manifest_of(library, OTHER))
    assert (Digest.of(WEIGHTS).filename in blobs_in(tmp_path)) is no_prune
    assert bool(freed) is not no_prune


# -------------------------------------------------------------------------------------------------------------- pruning


def prune_later(library: Library) -> set[str]:
    return set(library.prune(now=time.time() + PRUNE_AGE + 60))


def test_prune(tmp_path: Path) -> None:
    put_model(tmp_path, "m/latest", WEIGHTS)
    used = blobs_in(tmp_path)
    unused = put_blob(tmp_path, b"unused").filename
    partial = f"{Digest.of(b'x').filename}-partial"
    (tmp_path / "blobs" / partial).write_bytes(b"x")
    temporary = tmp_path / "manifests/registry.ollama.ai/library/m/.abc.tmp"
    temporary.write_text("{")
    (tmp_path / "manifests/registry.ollama.ai/library/gone").mkdir()
    (tmp_path / "downloads/package-x/wheels").mkdir(parents=True)
    (tmp_path / "downloads/package-x/wheels/w.whl").write_bytes(b"x")
    library = Library.open(tmp_path)
    assert library.prune() == (), "all of it is young"
    assert prune_later(Library.open(tmp_path, no_prune=True)) == set()
    assert prune_later(library) == {unused, partial, ".abc.tmp", "package-x"}
    assert blobs_in(tmp_path) == used
    assert library.resolve(name("m"))
    assert not (tmp_path / "manifests/registry.ollama.ai/library/gone").exists()
    assert list((tmp_path / "downloads").iterdir()) == []


def test_what_earlier_versions_unpacked_goes_and_nothing_beside_it(tmp_path: Path) -> None:
    put_model(tmp_path, "m/latest", WEIGHTS)
    old, other = tmp_path / "unpacked" / "abc.unpacked", tmp_path / "unpacked" / "notes.txt"
    old.parent.mkdir()
    old.write_bytes(b"x")
    other.write_bytes(b"x")
    library = Library.open(tmp_path)
    assert library.prune() == ("abc.unpacked",)
    assert other.exists()
    other.unlink()
    assert library.prune() == ()
    assert not old.parent.exists()


@pytest.mark.parametrize("stray", ["registry.ollama.ai/library/m/.DS_Store", "registry.ollama.ai/library/m/bad"])
def test_prune_does_nothing_in_doubt(tmp_path: Path, stray: str) -> None:
    put_model(tmp_path, "m/latest", WEIGHTS)
    put_blob(tmp_path, b"unused")
    (tmp_path / "manifests" / stray).write_text("x")
    assert prune_later(Library.open(tmp_path)) == set()


def test_prune_spares_a_file_just_linked(tmp_path: Path) -> None:
    source = tmp_path / "x.gguf"
    source.write_bytes(WEIGHTS)
    age(source, 10 * PRUNE_AGE)
    library = Library.open(tmp_path / "models")
    library.blobs.add_file(source)
    assert library.prune() == ()


# --------------------------------------------------------------------------------------------------------- other stores


def test_stores_beside_ours(tmp_path: Path) -> None:
    theirs, own = tmp_path / "theirs", tmp_path / "own"
    put_model(theirs, "m/latest", WEIGHTS)
    put_model(theirs, "both/latest", WEIGHTS, {"system": b"theirs"})
    put_model(own, "both/latest", OTHER, {"system": b"ours"})
    before = sorted(path.name for path in theirs.rglob("*"))
    library = Library.open(own, read_only=[theirs])
    assert library.resolve(name("m")).read_only
    assert library.resolve(name("both")).system == "ours"
    read_only = {model.name.model: library.resolve(model.name).read_only for model in library.listed()}
    assert read_only == {"m": True, "both": False}
    with pytest.raises(Unsupported, match="read-only"):
        library.delete(name("m"))
    library.copy(name("m"), name("mine"))
    library.delete(name("both"))
    assert prune_later(library) == set()
    assert library.resolve(name("both")).system == "theirs"
    assert not library.resolve(name("mine")).read_only
    assert library.resolve(name("mine")).weights.parent == own / "blobs"
    assert sorted(path.name for path in theirs.rglob("*")) == before


def test_errors_are_ours(tmp_path: Path) -> None:
    put_model(tmp_path, "m/latest", WEIGHTS)
    (tmp_path / "blobs" / Digest.of(WEIGHTS).filename).unlink()
    (tmp_path / "blobs" / Digest.of(WEIGHTS).filename).mkdir()
    with pytest.raises(PunaError):
        Library.open(tmp_path).resolve(name("m"))


def test_what_is_not_there_is_answered_with_what_is_near(tmp_path: Path) -> None:
    there = ("llama3/8b", "llama3/70b", "llama2/latest", "mistral/latest")
    for stored in (*there, "registry.example:5001/team/writers/latest"):
        put_model(tmp_path, stored, WEIGHTS)
    library = Library.open(tmp_path)

    def near(text: str) -> tuple[str, ...]:
        with pytest.raises(ModelNotFound) as caught:
            library.resolve(name(text))
        assert caught.value.message.startswith(f"model '{name(text).short}' not found")
        return caught.value.near

    assert near("llama3") == ("llama3:70b", "llama3:8b", "llama2:latest")
    assert near("mistrl") == ("mistral:latest",)
    assert near("MISTRAL:7b") == ("mistral:latest",)
    assert near("qwen") == ()
    assert near("registry.example:5000/team/writer") == ("registry.example:5001/team/writers:latest",)
    assert near("registry.example:5001/nobody/else") == ()


def test_many_models_are_not_all_compared() -> None:
    stored = [name(f"model-{number:05}") for number in range(NEAREST_AMONG + 1)]
    assert nearest(name(f"modell-{0:05}"), stored)[0] == stored[0]
    assert stored[-1] not in nearest(name(f"modell-{NEAREST_AMONG:05}"), stored)


def damaged(chance: random.Random, number: int) -> bytes:
    """Cut on even numbers, else with one bit flipped, anywhere."""
    if number % 2 == 0:
        return WEIGHTS[: chance.randrange(len(WEIGHTS))]
    place = chance.randrange(len(WEIGHTS))
    return WEIGHTS[:place] + bytes([WEIGHTS[place] ^ (1 << chance.randrange(8))]) + WEIGHTS[place + 1 :]


def test_no_damage_goes_unseen_and_the_whole_file_is_taken_again(tmp_path: Path) -> None:
    put_model(tmp_path, "m/t", WEIGHTS)
    library, chance = Library.open(tmp_path), random.Random(3)
    library.verify(library.resolve(name("m:t")))
    weights = tmp_path / "blobs" / Digest.of(WEIGHTS).filename
    for number in range(400):
        weights.write_bytes(damaged(chance, number))
        with pytest.raises(ModelFileError):
            library.verify(library.resolve(name("m:t")))
    weights.write_bytes(WEIGHTS)
    library.verify(library.resolve(name("m:t")))


def test_a_model_that_another_server_replaces_is_no_damage_to_what_was_read_of_it(tmp_path: Path) -> None:
    put_model(tmp_path, "m/t", WEIGHTS, {"system": b"Before."})
    one, two = Library.open(tmp_path), Library.open(tmp_path)
    before = one.resolve(name("m:t"))
    put_model(tmp_path, "other/t", WEIGHTS, {"system": b"After."})
    two.copy(name("other:t"), name("m:t"))
    assert not (tmp_path / "blobs" / Digest.of(b"Before.").filename).exists()
    one.verify(before)
    after = one.resolve(name("m:t"))
    (tmp_path / "blobs" / Digest.of(b"After.").filename).unlink()
    with pytest.raises(ModelFileError, match="missing"):
        one.verify(after)
    (tmp_path / "blobs" / Digest.of(WEIGHTS).filename).unlink()
    with pytest.raises(ModelFileError, match="weights"):
        one.verify(before)
