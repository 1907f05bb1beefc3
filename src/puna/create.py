"""Create: a base model or files, and what is to be changed about them, become a new manifest.

The base is a model of the library (pulled if it is not there), or files whose blobs are there already: a client on this
machine has them linked, any other uploads them. What cannot be done is refused by its name before anything is written.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from puna.convert.launch import adapter_to_gguf, to_gguf
from puna.convert.quantize import find_program, kind_of, quantized
from puna.errors import InvalidRequest, ModelDamaged, ModelFileError, NotFound, TemplateTooCostly, Unsupported
from puna.lane import in_jobs, in_making, on_trial
from puna.model.adapters import check_fits
from puna.model.composition import composed
from puna.model.digest import Digest
from puna.model.gguf import MAGIC, Header, read_header
from puna.model.manifest import (
    ADAPTER_TYPE,
    CONFIG_TYPE,
    LICENSE_TYPE,
    MESSAGES_TYPE,
    MODEL_TYPE,
    PARAMS_TYPE,
    PROMPT_TYPE,
    SYSTEM_TYPE,
    TEMPLATE_TYPE,
    Config,
    Layer,
    Manifest,
)
from puna.model.messages import messages_to_json
from puna.model.model import Model, config_of, media_type_of
from puna.model.modelfile import parse_requires
from puna.model.name import Name
from puna.model.parameters import OBSOLETE, PARAMETERS, options_from_json, options_to_json
from puna.model.reference import Reference
from puna.sources.source import Terms
from puna.sources.sources import Sources
from puna.sources.worker import Report, Worker
from puna.store.library import Library
from puna.store.reading import MAX_TEXT_BYTES
from puna.template.cage import Cage
from puna.template.facts import ChatTemplate
from puna.template.languages import TemplateKey
from puna.types import JsonObject, JsonValue, Message, Progress, Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequest:
    """What a new model is made from.

    `from_`: a model's Name. `files`, `adapters`: relative path to the digest of a blob that is there.

    Empty texts leave what the base has. `license` is added to the base's, `parameters` win over the base's key by key,
    `messages` replace the base's.
    """

    name: Name
    from_: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=dict)
    template: str | None = None
    system: str | None = None
    license: Sequence[str] = ()
    parameters: JsonObject = field(default_factory=dict)
    messages: Sequence[Message] = ()
    requires: str | None = None
    renderer: str | None = None
    parser: str | None = None
    quantize: str | None = None


@dataclass(frozen=True, slots=True)
class _Base:
    config: Config
    layers: tuple[Layer, ...]
    parameters: JsonObject
    header: Header


async def create(
    request: CreateRequest, library: Library, sources: Sources, cage: Cage, *, local: bool = False
) -> AsyncGenerator[Progress, None]:
    """Ends with Progress('success'), or raises: InvalidRequest and Unsupported name the field, before any step.

    `cage`: where templates are tried. `local`: who asks is on this machine, for a base that has to be pulled.
    """
    await on_trial(lambda: check_request(request, cage))
    base = None if request.from_ is None else Reference.parse(request.from_, param="from")
    if base is not None and not library.has(base.name):
        terms = Terms(literal=Name.writes_host(request.from_ or ""), local=local, manifest=base.digest)
        await asyncio.to_thread(sources.check, base.name, terms)
        async with aclosing(sources.pull(base.name, terms)) as steps:
            async for progress in steps:
                if progress.status != "success":
                    yield progress
    lane = in_making if converts(request) else in_jobs
    work = Worker(lambda report: _build(request, base, library, cage, report), lane)
    async for progress in work.run():
        yield progress
    yield Progress("writing manifest")
    listing = Worker(lambda _: library.write_manifest(request.name, work.result))
    async for progress in listing.run():
        yield progress
    yield Progress("success")


def converts(request: CreateRequest) -> bool:
    """Whether weights are computed anew."""
    return bool(request.quantize) or any(_is_safetensors(name) for name in request.files)


def check_request(request: CreateRequest, cage: Cage) -> tuple[str, ...]:
    """The parameters that have no effect. InvalidRequest or Unsupported, by the request alone. Waits for the cage."""
    if request.from_ is None and not request.files:
        raise InvalidRequest("neither 'from' or 'files' was specified", param="from")
    if request.from_ is not None and request.files:
        raise InvalidRequest("'from' and 'files' exclude each other", param="files")
    if len(request.adapters) > 1 and not _is_published(request.adapters):
        raise InvalidRequest("only one adapter is currently supported", param="adapters")
    for field_name, files in (("files", request.files), ("adapters", request.adapters)):
        for path, digest in files.items():
            _check_relative(path, field_name)
            Digest.parse(digest, param=field_name)
    if request.template:
        _check_template(request.template, cage)
    if request.requires:
        parse_requires(request.requires)
    if request.quantize:
        kind_of(request.quantize)
        find_program()
    _, ignored = options_from_json(request.parameters, param="parameters")
    unknown = next((name for name in ignored if name not in OBSOLETE and name not in PARAMETERS), None)
    if unknown is not None:
        raise InvalidRequest(f"unknown parameter '{unknown}'", param=f"parameters.{unknown}")
    return tuple(ignored)


def _check_template(text: str, cage: Cage) -> None:
    """What Go refuses, what no chat could be made with, and what would drop a user's words without a sound."""
    try:
        template = cage.open(TemplateKey("go", text))
        template.check()
        _try(template)
    except ModelFileError as error:
        raise InvalidRequest(f"template error: {error}", param="template") from error
    if not template.facts.user:
        raise InvalidRequest(
            "template error: it has no place for what a user says: .Messages or .Prompt", param="template"
        )


def _check_bounds(header: Header, cage: Cage, report: Report) -> None:
    """TemplateTooCostly for the file's own template, as it is read or in the simplest chat. With one that is broken
    otherwise the file may still serve without chats, which is told.
    """
    if header.chat_template is None:
        return
    try:
        template = cage.open(TemplateKey("jinja", header.chat_template, header.bos_token or "", header.eos_token or ""))
        template.render([Message.of("user", "?")])
    except TemplateTooCostly:
        raise
    except InvalidRequest:
        return  # it refuses so short a chat
    except ModelFileError as error:
        report(Progress(f"warning: chats with this model will be refused: {error}; a TEMPLATE takes the file's place"))


_SAID = "What would somebody say here, in a line or two? " * 8
"""Long enough for templates that look at the beginning of a text."""


def _try(template: ChatTemplate) -> None:
    """The error of the simplest chat, if a longer one with tools fails too."""
    user = Message.of("user", _SAID)
    try:
        if "<no value>" in template.render([user]):
            raise ModelFileError("it prints <no value>: in a chat, a variable of it has none")
    except ModelFileError as error:
        with suppress(ModelFileError):
            turns = [Message.of("system", _SAID), user, Message.of("assistant", _SAID), user]
            if "<no value>" not in template.render(turns, tools=[Tool("tool", "?")]):
                return
        raise error from None


def _is_published(adapters: Mapping[str, str]) -> bool:
    """Whether they are the files of one adapter as PEFT writes it."""
    return any(name.lower().endswith(".safetensors") for name in adapters)


def _check_relative(path: str, param: str) -> None:
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or any(part in {"", ".", ".."} for part in path.split("/")):
        raise InvalidRequest(f"file path must be relative: {path!r}", param=param)


# ----------------------------------------------------------------------------------------------------------- building


def _build(request: CreateRequest, wanted: Reference | None, library: Library, cage: Cage, report: Report) -> Manifest:
    """Blocking. All blobs of the manifest are in the store when it returns."""
    if wanted is not None:
        base = _from_model(library.resolve(wanted), library)
    else:
        base = _from_uploads(request, library, report)
    if not request.template:
        _check_bounds(base.header, cage, report)
    if request.quantize:
        base = _quantized(base, kind_of(request.quantize), library, report)
    layers = [*base.layers, *_adapters(request, base, library, report)]
    added_layers = _Adding(library, report, layers)
    _change(request, base, added_layers)
    config = _config(request, base, report)
    return Manifest(library.blobs.add_layer(CONFIG_TYPE, config.dump()), tuple(added_layers.layers))


def _from_uploads(request: CreateRequest, library: Library, report: Report) -> _Base:
    if any(_is_safetensors(name) for name in request.files):
        return _from_safetensors(request, library, report)
    report(Progress("parsing GGUF"))
    files = request.files.items()
    return _from_files([_uploaded(name, digest, "files", library, report) for name, digest in files])


def _is_safetensors(name: str) -> bool:
    return name.lower().endswith(".safetensors")


def _from_safetensors(request: CreateRequest, library: Library, report: Report) -> _Base:
    """A published directory's files become one GGUF."""
    files = {name: _blob(name, digest, "files", library, report) for name, digest in request.files.items()}
    with library.scratch("create") as scratch:
        made = to_gguf(files, scratch, request.name.model, report)
        return _from_files([_taken(made, request.name, library, report)])


def _quantized(base: _Base, kind: str, library: Library, report: Report) -> _Base:
    """The same with other weights. What lies beside them stays."""
    weights = [layer for layer in base.layers if layer.media_type == MODEL_TYPE]
    if len(weights) != 1:
        raise Unsupported("a model in several files cannot be quantized: join them first", param="quantize")
    with library.scratch("create") as scratch:
        made = quantized(library.blobs.path(weights[0].digest), base.header, kind, scratch, report)
        if made is None:
            return base
        taken, header = _taken(made, None, library, report)
    config = replace(base.config, file_type=header.quantization)
    layers = tuple(taken if layer.media_type == MODEL_TYPE else layer for layer in base.layers)
    return _Base(config, layers, base.parameters, header)


def _taken(made: Path, name: Name | None, library: Library, report: Report) -> tuple[Layer, Header]:
    """A file that was made here, as a blob."""
    size = made.stat().st_size
    digest = library.blobs.add_file(
        made, lambda done: report(Progress("verifying conversion", "conversion", size, done))
    )
    header = read_header(made, name="the converted file")
    return Layer(media_type_of(header), digest, header.size, None if name is None else f"{name.model}.gguf"), header


def _config(request: CreateRequest, base: _Base, report: Report) -> Config:
    """The base's, but for what is asked. Who gives a template of his own wants it used: then no renderer is."""
    config = base.config
    if request.requires:
        config = replace(config, requires=parse_requires(request.requires))
    config = replace(config, renderer=request.renderer or config.renderer, parser=request.parser or config.parser)
    if config.renderer is None:
        return config
    if request.template and not request.renderer:
        report(Progress(f"warning: the template makes the prompts, no longer the base's renderer {config.renderer}"))
        return replace(config, renderer=None, parser=request.parser)
    if base.header.chat_template is None and request.renderer:
        what = f"the renderer '{config.renderer}' is a part of Ollama's program, and the file has no chat template"
        raise Unsupported(f"{what} to stand in for it: give a TEMPLATE instead", param="renderer")
    if request.template:
        report(Progress(f"warning: the renderer {config.renderer} is named too: the template is stored, and not used"))
    return config


def _change(request: CreateRequest, base: _Base, to: _Adding) -> None:
    """In Ollama's order: template, system, licences, parameters, messages."""
    if request.template:
        to.replace(request.template.encode(), TEMPLATE_TYPE, PROMPT_TYPE)
    if request.system:
        to.replace(request.system.encode(), SYSTEM_TYPE)
    for text in request.license:
        to.add(text.encode(), LICENSE_TYPE)
    for name in sorted(OBSOLETE & request.parameters.keys()):
        to.report(Progress(f"warning: parameter {name} has no effect"))
    options, ignored = options_from_json(request.parameters, param="parameters")
    parameters = options_to_json(options)
    for name in ignored:
        if name in PARAMETERS:
            to.report(Progress(f"warning: parameter {name} is a whole number: {parameters[name]} is stored"))
    if parameters:
        to.replace(_json(base.parameters | parameters), PARAMS_TYPE)
    if request.messages:
        to.replace(b"[" + b",".join(map(_json, messages_to_json(request.messages))) + b"]", MESSAGES_TYPE)


class _Adding:
    """The layers of the new model so far."""

    def __init__(self, library: Library, report: Report, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)
        self.report = report
        self._library = library
        for layer in layers:
            report(Progress(f"using existing layer {layer.digest}"))

    def add(self, data: bytes, media_type: str) -> None:
        if len(data) > MAX_TEXT_BYTES:
            what = media_type.rpartition(".")[2]
            raise InvalidRequest(f"{what}: {len(data)} bytes are more than the {MAX_TEXT_BYTES} allowed", param=what)
        there = self._library.blobs.has(Digest.of(data))
        layer = self._library.blobs.add_layer(media_type, data)
        self.layers.append(layer)
        self.report(Progress(f"{'using existing' if there else 'creating new'} layer {layer.digest}"))

    def replace(self, data: bytes, media_type: str, *others: str) -> None:
        """In place of all layers of these types."""
        self.layers = [layer for layer in self.layers if layer.media_type not in {media_type, *others}]
        self.add(data, media_type)


def _from_model(model: Model, library: Library) -> _Base:
    layers = tuple(replace(layer, from_=model.name.short) for layer in model.manifest.layers)
    stored = model.manifest.of_type(PARAMS_TYPE)
    parameters: JsonValue = json.loads(library.blobs.read(stored[-1].digest, limit=MAX_TEXT_BYTES)) if stored else {}
    return _Base(model.config, layers, parameters if isinstance(parameters, dict) else {}, model.header)


def _from_files(files: Sequence[tuple[Layer, Header]]) -> _Base:
    """One model's weights, in one file or its shards, and projectors or adapters beside it."""
    layers, header = composed(files)
    return _Base(config_of(header), layers, {}, header)


def _blob(name: str, digest_text: str, param: str, library: Library, report: Report) -> Path:
    """Where the uploaded file is, whose bytes are what they are called by."""
    digest = Digest.parse(digest_text, param=param)
    path = library.blobs.find(digest)
    if path is None:
        raise NotFound(f'{name}: blob "{digest}" not found: upload it first', param=param)
    total = path.stat().st_size
    fault = library.blobs.fault(
        digest, on_bytes=lambda done: report(Progress("verifying sha256 digest", str(digest), total, done))
    )
    if fault is not None:
        raise ModelDamaged(f"{name}: blob {digest} {fault.words}: upload it again", param=param)
    return path


def _uploaded(name: str, digest_text: str, param: str, library: Library, report: Report) -> tuple[Layer, Header]:
    digest = Digest.parse(digest_text, param=param)
    path = _blob(name, digest_text, param, library, report)
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
    if start != MAGIC:
        raise Unsupported(f"{name}: unknown type; only GGUF files can be used", param=param)
    header = read_header(path, name=PurePosixPath(name).name)
    return Layer(media_type_of(header), digest, header.size, PurePosixPath(name).name), header


def _adapters(request: CreateRequest, base: _Base, library: Library, report: Report) -> list[Layer]:
    if _is_published(request.adapters):
        found = [_converted_adapter(request, base, library, report)]
    else:
        found = [_uploaded(name, digest, "adapters", library, report) for name, digest in request.adapters.items()]
    for layer, header in found:
        if layer.media_type != ADAPTER_TYPE:
            raise InvalidRequest(f"{layer.from_} is not an adapter", param="adapters")
        if header.architecture != base.header.architecture:
            what = f"an adapter for {header.architecture}, the model is {base.header.architecture}"
            raise InvalidRequest(f"{layer.from_} is {what}", param="adapters")
        check_fits(header, base.header, f"the adapter {layer.from_}")
    return [layer for layer, _ in found]


def _converted_adapter(request: CreateRequest, base: _Base, library: Library, report: Report) -> tuple[Layer, Header]:
    files = {name: _blob(name, digest, "adapters", library, report) for name, digest in request.adapters.items()}
    with library.scratch("create") as scratch:
        layer, header = _taken(adapter_to_gguf(files, scratch, base.header, report), None, library, report)
    return replace(layer, from_="adapter.gguf"), header


def _json(value: JsonValue) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
