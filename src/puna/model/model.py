"""Model: a Manifest resolved to files and facts; what everything above the store works with. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from puna.model.capabilities import Capability, TemplateKind, template_kind
from puna.model.digest import Digest
from puna.model.gguf import Header
from puna.model.manifest import ADAPTER_TYPE, MODEL_TYPE, PROJECTOR_TYPE, Config, Manifest
from puna.model.name import Name
from puna.types import Message, Options


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Everything of one stored model.

    `digest`: 64 hex digits of the manifest's bytes. `size`: bytes of all blobs. `modified`: UTC.

    `weights`: the file, or the first of several; `shards`: the others, in order. `weights_digest`: of the file, or of
    the list of their digests. `header`: of all of them.
    `go_template`: the template layer; None: the model has only its Jinja template, or none.
    `ignored_parameters`: stored parameters without effect. `read_only`: it lies in a store that is only read.
    """

    name: Name
    digest: str
    manifest: Manifest
    config: Config
    header: Header
    weights: Path
    weights_digest: Digest
    shards: tuple[Path, ...] = ()
    projectors: tuple[Path, ...] = ()
    adapters: tuple[Path, ...] = ()
    go_template: str | None = None
    system: str | None = None
    options: Options = field(default_factory=Options)
    ignored_parameters: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()
    licenses: tuple[str, ...] = ()
    capabilities: frozenset[Capability] = frozenset()
    size: int = 0
    modified: datetime
    read_only: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """Of the weights, in order."""
        return (self.weights, *self.shards)

    @property
    def chat_template(self) -> str | None:
        """The Jinja template of the weights."""
        return self.header.chat_template

    @property
    def template_kind(self) -> TemplateKind:
        """Which of its templates makes its prompts."""
        return template_kind(self.go_template, self.chat_template, renderer=self.config.renderer)

    @property
    def unrendered(self) -> str | None:
        """Why no template can make prompts as the model was published to have them; None when one can."""
        named = self.config.renderer or self.config.parser
        if named is None or self.template_kind != "none":
            return None
        return (
            f"its prompts are made by '{named}', a part of Ollama's program, and its file has no chat template "
            "of its own: give it one ('TEMPLATE' in a Modelfile), or ask with raw prompts"
        )

    @property
    def rendered_by(self) -> str | None:
        """In words, what stands in for the renderer that its config names; None where it names none."""
        if self.unrendered is not None or self.config.renderer is None:
            return self.unrendered
        return f"the file's own chat template, in place of Ollama's renderer '{self.config.renderer}'"

    @property
    def unused(self) -> str | None:
        """What of its files no engine uses, in words; None: nothing."""
        if self.projectors or not self.header.holds_projector:
            return None
        return "its projector lies in the file of its weights, an older form of Ollama's, which no engine here uses"


def config_of(header: Header) -> Config:
    """The facts of a header for listings."""
    return Config(
        model_family=header.architecture,
        model_families=(header.architecture,),
        model_type=size_text(header.parameter_count),
        file_type=header.quantization,
        context_length=header.context_length,
        embedding_length=header.embedding_length,
    )


def media_type_of(header: Header) -> str:
    """Which kind of layer a GGUF is: the weights, a projector or an adapter."""
    arch = header.architecture
    if header.kind == "adapter":
        return ADAPTER_TYPE
    if header.kind in {"projector", "mmproj"} or arch == "clip":
        return PROJECTOR_TYPE
    if header.number(f"{arch}.vision.block_count") and not header.block_count:
        return PROJECTOR_TYPE
    return MODEL_TYPE


def size_text(parameters: int) -> str:
    """A count of parameters as Ollama writes it: '134.52M', '1.2B', and '7B' when it is whole."""
    if parameters >= 1_000_000_000:
        return _scaled(parameters / 1e9, 1) + "B"
    if parameters >= 1_000_000:
        return _scaled(parameters / 1e6, 2) + "M"
    if parameters >= 1_000:
        return f"{parameters / 1e3:.0f}K"
    return str(parameters)


def _scaled(value: float, decimals: int) -> str:
    return f"{value:.0f}" if value.is_integer() else f"{value:.{decimals}f}"
