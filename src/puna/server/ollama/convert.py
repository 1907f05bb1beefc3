"""Ollama's bodies to the house's requests. Pure."""

from __future__ import annotations

import json
from typing import cast

from puna.errors import InvalidRequest, Unsupported
from puna.model.parameters import PARAMETERS
from puna.server.contract.converted import Converted
from puna.server.contract.names import FieldNames
from puna.server.contract.options import read_keep_alive, read_options
from puna.server.media import check_together
from puna.server.ollama.bodies import ChatBody, EmbedBody, EmbeddingsBody, GenerateBody, GeneratingBody
from puna.server.ollama.messages import illustrated, to_message
from puna.server.ollama.tools import to_tool
from puna.types import ChatRequest, CompletionRequest, EmbedRequest, JsonOutput, JsonValue, Message, Options, Think

_NAMES = {
    **{name: f"options.{name}" for name in PARAMETERS},
    "output": "format",
    "grammar": "format",
    "tools[].parameters": "tools[].function.parameters",
}
_GENERATE = FieldNames(
    {**_NAMES, "messages[].content[]": "images", "messages[].content": "prompt", "messages": "prompt"}
)
_CHAT = FieldNames(
    {
        **_NAMES,
        "messages[].content[]": "messages[].images",
        "messages[].name": "messages[].tool_name",
        "tools[].name": "tools[].function.name",
    }
)
_TOOLS = FieldNames({**_CHAT.paths, "grammar": "tools"})
_EMBED = FieldNames(_NAMES)
_EMBEDDINGS = FieldNames({**_NAMES, "input[]": "prompt", "input": "prompt"})


MAX_TOP_LOGPROBS = 20


_LOADING = {"model", "options", "keep_alive", "stream", "truncate"}
"""What may be said to a request that only loads its model; `truncate` is said by default."""


def loads_only(body: GenerateBody | ChatBody) -> bool:
    """Whether there is nothing to answer."""
    if isinstance(body, ChatBody):
        return not body.messages
    return not (body.prompt or body.suffix or body.images)


def _options(body: GenerateBody | ChatBody) -> tuple[Options, tuple[str, ...]]:
    """And the paths of those without effect; of all that is said where the model is only loaded."""
    if not loads_only(body):
        options, ignored = read_options(body.options)
        # Alternatives are of log-probabilities, which were not asked for.
        return options, (*ignored, "top_logprobs") if body.top_logprobs and not body.logprobs else ignored
    options, ignored = read_options(body.options, loading=True)
    said = (body.model_fields_set & type(body).model_fields.keys()) - _LOADING
    return options, (*ignored, *(name for name in sorted(said) if getattr(body, name)))


def to_generate(body: GenerateBody) -> Converted[ChatRequest | CompletionRequest]:
    """A prompt becomes a chat of one turn; a raw one, or one with a suffix, is continued as it is."""
    if body.raw and (body.template or body.system or body.context):
        raise InvalidRequest("raw mode does not support template, system, or context", param="raw")
    if body.raw or body.suffix:
        return _to_completion(body)
    options, ignored = _options(body)
    turns = [Message.of("system", body.system)] if body.system else []
    turns.append(Message("user", illustrated(body.prompt, body.images, "images")))
    check_together(turns, "images")
    request = ChatRequest(
        model=body.model,
        messages=tuple(turns),
        options=options,
        output=_output(body.format),
        think=_think(body.think),
        think_budget=body.think_budget,
        logprobs=_logprobs(body),
        keep_alive=read_keep_alive(body.keep_alive),
        truncate=body.truncate,
        template=body.template or None,
        context=tuple(body.context),
    )
    return Converted(request, ignored, _GENERATE)


def _to_completion(body: GenerateBody) -> Converted[CompletionRequest]:
    if body.images:
        raise Unsupported("images need a chat template: leave out raw and suffix", param="images")
    if body.raw and body.suffix:
        raise InvalidRequest("raw mode does not support suffix", param="suffix")
    if _think(body.think):
        raise Unsupported("think needs a chat template: leave out raw and suffix", param="think")
    options, ignored = _options(body)
    request = CompletionRequest(
        model=body.model,
        prompts=(body.prompt,),
        suffix=body.suffix or None,
        options=options,
        output=_output(body.format),
        logprobs=_logprobs(body),
        keep_alive=read_keep_alive(body.keep_alive),
    )
    # A fill in the middle has no conversation, so these have nothing to act on.
    aside = [name for name in ("system", "template", "context") if getattr(body, name)]
    aside += [] if body.think_budget is None else ["think_budget"]
    return Converted(request, (*ignored, *aside), _GENERATE)


def to_chat(body: ChatBody) -> Converted[ChatRequest]:
    options, ignored = _options(body)
    messages = tuple(to_message(message, f"messages[{index}]") for index, message in enumerate(body.messages))
    check_together(messages, "messages")
    request = ChatRequest(
        model=body.model,
        messages=messages,
        options=options,
        tools=tuple(to_tool(tool, f"tools[{index}]") for index, tool in enumerate(body.tools)),
        output=_output(body.format),
        think=_think(body.think),
        think_budget=body.think_budget,
        logprobs=_logprobs(body),
        keep_alive=read_keep_alive(body.keep_alive),
        truncate=body.truncate,
    )
    return Converted(request, ignored, _TOOLS if request.tools and request.output is None else _CHAT)


def to_embed(body: EmbedBody) -> Converted[EmbedRequest]:
    """No input, an empty text and an empty list make a request without inputs: it only loads the model."""
    options, ignored = read_options(body.options, loading=True)
    if body.dimensions < 0:
        raise InvalidRequest("dimensions must not be negative", param="dimensions")
    request = EmbedRequest(
        model=body.model,
        inputs=_inputs(body.input),
        options=options,
        dimensions=body.dimensions or None,
        truncate=body.truncate,
        keep_alive=read_keep_alive(body.keep_alive),
    )
    return Converted(request, ignored, _EMBED)


def to_embed_one(body: EmbeddingsBody) -> Converted[EmbedRequest]:
    """The older form: one prompt."""
    options, ignored = read_options(body.options, loading=True)
    request = EmbedRequest(
        model=body.model,
        inputs=_inputs(body.prompt),
        options=options,
        truncate=True,
        keep_alive=read_keep_alive(body.keep_alive),
    )
    return Converted(request, ignored, _EMBEDDINGS)


def _inputs(value: JsonValue) -> tuple[str, ...]:
    match value:
        case None | "":
            return ()
        case str():
            return (value,)
        case list() if all(isinstance(item, str) for item in value):
            return tuple(cast("list[str]", value))
        case _:
            raise InvalidRequest("invalid input type", param="input", code="invalid_type")


def _output(value: JsonValue) -> JsonOutput | None:
    """'json', a JSON Schema, or nothing."""
    match value:
        case None | "":
            return None
        case "json":
            return JsonOutput()
        case dict():
            return JsonOutput(value)
        case _:
            raise InvalidRequest(
                f'invalid format: {json.dumps(value)[:200]}; expected "json" or a valid JSON Schema object',
                param="format",
            )


def _think(value: JsonValue) -> Think | None:
    match value:
        case None | bool():
            return value
        case "high" | "medium" | "low" | "max":
            return cast("Think", value)
        case _:
            raise InvalidRequest(
                f"invalid think value: {json.dumps(value)[:200]} "
                '(must be "high", "medium", "low", "max", true, or false)',
                param="think",
            )


def _logprobs(body: GeneratingBody) -> int | None:
    """How many alternatives a token; None: no log-probabilities."""
    if not 0 <= body.top_logprobs <= MAX_TOP_LOGPROBS:
        raise InvalidRequest(f"top_logprobs must be between 0 and {MAX_TOP_LOGPROBS}", param="top_logprobs")
    return body.top_logprobs if body.logprobs else None
