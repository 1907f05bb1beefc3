"""The contract of each native endpoint: every field of its body, and what becomes of it. Data only.

Source: the reference of Ollama's native API. Fields match exactly; `null` is absent.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from puna.server.contract.options import KeepAlive
from puna.server.contract.shapes import Honoured, JsonObject, JsonValue, Refused, Reported, Shape
from puna.server.contract.tools import MAX_TOOLS
from puna.server.ollama.messages import MessageBody
from puna.server.ollama.tools import ToolBody

_Model: TypeAlias = Annotated[str, Honoured("The model's name.")]
_Options: TypeAlias = Annotated[JsonObject, Honoured("Settings of loading and sampling; see the reference of options.")]
_KeepAlive: TypeAlias = Annotated[
    KeepAlive | None,
    Honoured("How long the model stays loaded: seconds, or a duration such as `5m`; negative: for ever; 0: unload."),
]
_Stream: TypeAlias = Annotated[bool, Honoured("Lines of JSON as they come; false: one object.")]


class GeneratingBody(Shape):
    """Fields of both endpoints that generate."""

    model: _Model = ""
    stream: _Stream = True
    format: Annotated[JsonValue, Honoured('`"json"`, or a JSON Schema that the answer satisfies.')] = None
    keep_alive: _KeepAlive = None
    options: _Options = Field(default_factory=dict)
    think: Annotated[JsonValue, Honoured("Whether, or how much (`high`, `medium`, `low`, `max`), a model thinks.")] = (
        None
    )
    think_budget: Annotated[
        int | None,
        Field(ge=0),
        Honoured("Not Ollama's: so many tokens of thinking at most; then the thought is closed and answered."),
    ] = None
    truncate: Annotated[
        bool, Honoured("When messages do not fit, old ones are cut, and the answer says so; false: refused.")
    ] = True
    shift: Annotated[
        bool | None,
        Reported("No context slides: an answer that fills it ends with `length`.", harmless=(False,)),
    ] = None
    logprobs: Annotated[bool, Honoured("The log-probability of each token.")] = False
    top_logprobs: Annotated[int, Honoured("Alternatives per token, 0 to 20. Needs `logprobs`.")] = 0


class GenerateBody(GeneratingBody):
    """POST /api/generate"""

    prompt: Annotated[str, Honoured("The prompt; empty: the model is only loaded.")] = ""
    suffix: Annotated[str, Honoured("Fill in the middle, where the model can.")] = ""
    system: Annotated[str, Honoured("Instead of the model's system message.")] = ""
    template: Annotated[str, Honoured("Instead of the model's template, in Go's language.")] = ""
    context: Annotated[list[int], Honoured("What an earlier answer gave: its prompt and text go before.")] = Field(
        default_factory=list
    )
    raw: Annotated[bool, Honoured("The prompt is continued as it is, without a template.")] = False
    images: Annotated[list[str], Honoured("Base64 of images or sounds, for a model that takes them.")] = Field(
        default_factory=list
    )


class ChatBody(GeneratingBody):
    """POST /api/chat"""

    messages: Annotated[list[MessageBody], Honoured("The conversation; empty: the model is only loaded.")] = Field(
        default_factory=list
    )
    tools: Annotated[
        list[ToolBody], Field(max_length=MAX_TOOLS), Honoured("Functions the model may call, with every model.")
    ] = Field(default_factory=list)


class EmbedBody(Shape):
    """POST /api/embed"""

    model: _Model = ""
    input: Annotated[JsonValue, Honoured("A text or a list of texts; empty: the model is only loaded.")] = None
    truncate: Annotated[bool, Honoured("Inputs over the limit are cut, and the answer says which; false: refused.")] = (
        True
    )
    dimensions: Annotated[int, Honoured("So many first numbers of each vector, normalised again; 0: all.")] = 0
    keep_alive: _KeepAlive = None
    options: _Options = Field(default_factory=dict)


class EmbeddingsBody(Shape):
    """POST /api/embeddings"""

    model: _Model = ""
    prompt: Annotated[str, Honoured("The text; empty: the model is only loaded.")] = ""
    keep_alive: _KeepAlive = None
    options: _Options = Field(default_factory=dict)


class NamedBody(Shape):
    """A request about one model."""

    model: _Model = ""
    name: Annotated[str, Honoured("The old word for `model`.")] = ""

    @property
    def target(self) -> str:
        return self.model or self.name


class ShowBody(NamedBody):
    """POST /api/show"""

    verbose: Annotated[bool, Honoured("The header's lists too: vocabulary, merges, scores.")] = False


class DeleteBody(NamedBody):
    """DELETE /api/delete"""


class CopyBody(Shape):
    """POST /api/copy"""

    source: Annotated[str, Honoured("The model that is there.")] = ""
    destination: Annotated[str, Honoured("Its further name.")] = ""


class TransferBody(NamedBody):
    """POST /api/push"""

    insecure: Annotated[bool, Honoured("Speak plain http to the registry of the name.")] = False
    stream: Annotated[bool, Honoured("Each step as it comes; false: the last one.")] = True


class PullBody(TransferBody):
    """POST /api/pull"""

    files: Annotated[
        dict[str, str],
        Honoured(
            "GGUF files of this machine that become the model: absolute paths to their sha256. From programs on this "
            "machine alone."
        ),
    ] = Field(default_factory=dict)


class OutdatedBody(Shape):
    """POST /api/outdated"""

    models: Annotated[list[str], Honoured("The models to ask about; none named: all that are here.")] = Field(
        default_factory=list
    )
    insecure: Annotated[bool, Honoured("Registries may be asked without TLS.")] = False


class OfferBody(NamedBody):
    """POST /api/offer"""

    insecure: Annotated[bool, Honoured("The registry may be asked without TLS.")] = False


class SearchBody(Shape):
    """POST /api/search"""

    word: Annotated[str, Honoured("What names, or what sources say of them, have to hold.")] = ""
    insecure: Annotated[bool, Honoured("Registries may be asked without TLS.")] = False


class VerifyBody(Shape):
    """POST /api/verify"""

    model: Annotated[str, Honoured("The model to check; empty: all.")] = ""
    repair: Annotated[bool, Honoured("Bring back what is damaged from where it came.")] = False
    insecure: Annotated[bool, Honoured("Registries may be asked for it without TLS.")] = False
    stream: Annotated[bool, Honoured("Each step and finding as it comes; false: all findings in one object.")] = True


class UnloadBody(NamedBody):
    """POST /api/unload: at once where it is idle, else when its requests are done."""

    everything: Annotated[bool, Field(alias="all"), Honoured("Unload all models, in place of one that is named.")] = (
        False
    )


class EstimateBody(NamedBody):
    """POST /api/estimate"""

    options: Annotated[JsonObject | None, Honoured("`num_ctx` and other options of loading.")] = None


_NOT_YET = "it is not done when a model is created here"


class CreateBody(NamedBody):
    """POST /api/create"""

    from_: Annotated[str, Field(alias="from"), Honoured("The model to start from.")] = ""
    files: Annotated[dict[str, str], Honoured("Names of files to the digests of their blobs.")] = Field(
        default_factory=dict
    )
    adapters: Annotated[dict[str, str], Honoured("The same of an adapter; one at most.")] = Field(default_factory=dict)
    template: Annotated[str, Honoured("Its template, in Go's language.")] = ""
    system: Annotated[str, Honoured("Its system message.")] = ""
    license: Annotated[JsonValue, Honoured("A text or a list of texts, added to the base's.")] = None
    parameters: Annotated[JsonObject, Honoured("Its options, over the base's.")] = Field(default_factory=dict)
    messages: Annotated[list[MessageBody], Honoured("Its stored messages, instead of the base's.")] = Field(
        default_factory=list
    )
    requires: Annotated[str, Honoured("The least release that can run it.")] = ""
    stream: Annotated[bool, Honoured("Each step as it comes; false: the last one.")] = True
    renderer: Annotated[
        str,
        Honoured("Kept in the model. Its prompts are then made by the file's own chat template, which must be there."),
    ] = ""
    parser: Annotated[
        str, Honoured("Kept in the model. Answers are read as the template that makes prompts has them.")
    ] = ""
    quantize: Annotated[str, Honoured("Weights of this type, by llama.cpp's program llama-quantize, on the PATH.")] = ""
    quantization: Annotated[str, Honoured("The same.")] = ""
    draft_quantize: Annotated[str, Refused(_NOT_YET, harmless=("",))] = ""
    draft_files: Annotated[dict[str, str], Refused(_NOT_YET, harmless=({},))] = Field(default_factory=dict)
    remote_host: Annotated[str, Refused(_NOT_YET, harmless=("",))] = ""
    info: Annotated[JsonObject, Refused(_NOT_YET, harmless=({},))] = Field(default_factory=dict)


BODIES: tuple[type[Shape], ...] = (
    GenerateBody,
    ChatBody,
    EmbedBody,
    EmbeddingsBody,
    ShowBody,
    CopyBody,
    DeleteBody,
    PullBody,
    TransferBody,
    VerifyBody,
    OutdatedBody,
    OfferBody,
    SearchBody,
    CreateBody,
)
