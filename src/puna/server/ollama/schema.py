"""The bodies of Ollama's native requests: fields, types and defaults; see the reference of its native API.

Strict: a number is no string and a string no number. `null` is absent. Names match exactly; what is not listed here is
collected in `unknown`, to be reported (or refused, in strict mode).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from puna.errors import InvalidRequest
from puna.types import JsonObject


class Body(BaseModel):
    """Base of every object that a client sends."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: object) -> object:
        return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value

    @property
    def unknown(self) -> tuple[str, ...]:
        """Paths of the fields that are not known, here and inside."""
        return tuple(_unknown(self, ""))


def _unknown(value: object, path: str) -> Iterator[str]:
    if isinstance(value, Body):
        dot = f"{path}." if path else ""
        yield from (f"{dot}{name}" for name in value.model_extra or ())
        for name in value.model_fields_set:
            yield from _unknown(getattr(value, name, None), f"{dot}{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown(item, f"{path}[{index}]")


class GenerateBody(Body):
    model: str = ""
    prompt: str = ""
    suffix: str = ""
    system: str = ""
    template: str = ""
    context: list[int] = Field(default_factory=list)
    stream: bool = True
    raw: bool = False
    format: object = None
    keep_alive: object = None
    images: list[str] = Field(default_factory=list)
    options: dict[str, object] = Field(default_factory=dict)
    think: object = None
    truncate: bool = True
    shift: bool | None = None
    logprobs: bool = False
    top_logprobs: int = 0


class FunctionCallBody(Body):
    name: str
    arguments: dict[str, object] = Field(default_factory=dict)
    index: int | None = None


class ToolCallBody(Body):
    id: str = ""
    type: str = "function"
    function: FunctionCallBody


class MessageBody(Body):
    role: str
    content: str = ""
    thinking: str = ""
    images: list[str] = Field(default_factory=list)
    tool_calls: list[ToolCallBody] = Field(default_factory=list)
    tool_name: str = ""
    tool_call_id: str = ""


class FunctionBody(Body):
    name: str
    description: str = ""
    parameters: dict[str, object] | None = None
    strict: bool = False


class ToolBody(Body):
    type: str = "function"
    function: FunctionBody


class ChatBody(Body):
    model: str = ""
    messages: list[MessageBody] = Field(default_factory=list)
    stream: bool = True
    format: object = None
    keep_alive: object = None
    tools: list[ToolBody] = Field(default_factory=list)
    options: dict[str, object] = Field(default_factory=dict)
    think: object = None
    truncate: bool = True
    shift: bool | None = None
    logprobs: bool = False
    top_logprobs: int = 0


class EmbedBody(Body):
    model: str = ""
    input: object = None
    truncate: bool = True
    dimensions: int = 0
    keep_alive: object = None
    options: dict[str, object] = Field(default_factory=dict)


class EmbeddingsBody(Body):
    model: str = ""
    prompt: str = ""
    keep_alive: object = None
    options: dict[str, object] = Field(default_factory=dict)


class NamedBody(Body):
    """A request about one model; `name` is the old word for `model`."""

    model: str = ""
    name: str = ""

    @property
    def target(self) -> str:
        return self.model or self.name


class ShowBody(NamedBody):
    verbose: bool = False


class DeleteBody(NamedBody):
    pass


class CopyBody(Body):
    source: str = ""
    destination: str = ""


class TransferBody(NamedBody):
    """A pull or a push."""

    insecure: bool = False
    stream: bool = True


class CreateBody(NamedBody):
    from_: str = Field(default="", alias="from")
    files: dict[str, str] = Field(default_factory=dict)
    adapters: dict[str, str] = Field(default_factory=dict)
    template: str = ""
    system: str = ""
    license: object = None
    parameters: dict[str, object] = Field(default_factory=dict)
    messages: list[MessageBody] = Field(default_factory=list)
    requires: str = ""
    renderer: str = ""
    parser: str = ""
    quantize: str = ""
    quantization: str = ""
    draft_quantize: str = ""
    draft_files: dict[str, str] = Field(default_factory=dict)
    remote_host: str = ""
    info: dict[str, object] = Field(default_factory=dict)
    stream: bool = True


BodyType = TypeVar("BodyType", bound=Body)

_EXPECTED = {
    "string_type": "string",
    "int_type": "integer",
    "int_from_float": "integer",
    "int_parsing_size": "integer",
    "float_type": "number",
    "bool_type": "boolean",
    "list_type": "array",
    "dict_type": "object",
    "model_type": "object",
}


def read(kind: type[BodyType], value: JsonObject) -> BodyType:
    """`value` as `kind`; InvalidRequest naming the first field that is wrong."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        param = field_path(first["loc"])
        if first["type"] == "missing":
            raise InvalidRequest(f"{param} is required", param=param) from error
        expected = _EXPECTED.get(first["type"], first["msg"])
        found = json_kind(first["input"])
        message = f"json: cannot unmarshal {found} into field {param} of type {expected}"
        raise InvalidRequest(message, param=param, code="invalid_type") from error


def field_path(location: tuple[int | str, ...]) -> str:
    """('messages', 0, 'role') → 'messages[0].role'."""
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path


def json_kind(value: object) -> str:
    """What a JSON value is, in the words of Ollama's decoder."""
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"
