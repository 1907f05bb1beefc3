"""Checked bodies to the house's requests. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from puna.errors import InvalidRequest
from puna.server.contract.converted import Converted
from puna.server.contract.names import FieldNames
from puna.server.contract.options import read_keep_alive
from puna.server.openai.options import sampled_options
from puna.server.openai.output import JsonObjectFormat
from puna.server.openai.strict import check_strict
from puna.server.openai.thinking import effort_as_think
from puna.server.responses.bodies import (
    Asking,
    CompactBody,
    Continuing,
    FlatSchemaFormat,
    InputTokensBody,
    ResponseBody,
)
from puna.server.responses.pieces import Brought
from puna.server.responses.tools import chosen, equipment, flat_names, may_call_twice, nonstandard_equipment
from puna.server.responses.turns import Placed, to_turns
from puna.types import NO_OPTIONS, ChatRequest, JsonOutput, Message, Options, Think

LEAST_TOKENS = 16
"""The fewest `max_output_tokens` that OpenAI's own API takes."""


def check_body(body: ResponseBody) -> None:
    """InvalidRequest for fields that need or exclude each other, before anything is looked up."""
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
        )
    if body.background and body.store is False:
        raise InvalidRequest("'background' needs 'store': there is nothing to poll otherwise.", param="background")


def check_past(body: Continuing) -> None:
    """InvalidRequest where there are two pasts, or nothing at all."""
    conversation = body.conversation if isinstance(body, Asking) else None
    if conversation is not None and body.previous_response_id is not None:
        raise InvalidRequest(
            "'conversation' and 'previous_response_id' cannot be used together.", param="previous_response_id"
        )
    if body.input is None and body.previous_response_id is None and conversation is None:
        raise InvalidRequest("Missing required parameter: 'input'.", param="input", code="missing_required_parameter")


def to_response_chat(body: ResponseBody, items: Sequence[Placed], brought: Brought) -> Converted[ChatRequest]:
    """`items`: all of them, the earlier ones first."""
    asked = sampled_options(body, body.max_output_tokens)
    logprobs = body.top_logprobs
    if logprobs is None and "message.output_text.logprobs" in (body.include or ()):
        logprobs = 0
    small = body.max_output_tokens is not None and body.max_output_tokens < LEAST_TOKENS
    converted = _to_chat(
        body,
        body.model,
        items,
        brought,
        options=asked.options,
        logprobs=logprobs,
        think_budget=body.reasoning_budget_tokens,
        keep_alive=read_keep_alive(body.keep_alive),
        cache_key=body.prompt_cache_key,
    )
    names = {**asked.names, "num_predict": "max_output_tokens", **converted.names.paths}
    return Converted(
        converted.request,
        (*asked.ignored, *converted.ignored),
        FieldNames(names),
        (*(("max_output_tokens",) if small else ()), *converted.nonstandard),
    )


def to_counted(body: InputTokensBody, items: Sequence[Placed], brought: Brought) -> Converted[ChatRequest]:
    """What is counted, not answered."""
    return _to_chat(body, body.model, items, brought)


SUMMARISE = (
    "Write a summary of our conversation so far, for a reader who has not seen it and goes on with it: what was asked, "
    "what was found and decided, names, numbers and quotes that matter, what is open. Only the summary, no remarks."
)
"""What a model is asked whose conversation is compacted."""

MOST_SUMMARY = 1024
"""Tokens of a summary. One that ends here, or where the context does, is told to be cut."""

SUMMARY = "A summary of the conversation so far:\n\n"
"""Stands before it where the conversation goes on."""


def to_compacting(body: CompactBody, items: Sequence[Placed], brought: Brought) -> Converted[ChatRequest]:
    """The conversation, and a last message that asks for its summary."""
    turns = to_turns(body.instructions, items, brought)
    if not items:
        raise _nothing()
    request = ChatRequest(
        model=body.model,
        messages=(*turns.messages, Message.of("user", SUMMARISE)),
        options=Options(num_predict=MOST_SUMMARY),
        cache_key=body.prompt_cache_key,
    )
    return Converted(
        request, turns.ignored, FieldNames({**turns.names, "messages": "input", "cache_key": "prompt_cache_key"})
    )


def _to_chat(
    body: Asking,
    model: str,
    items: Sequence[Placed],
    brought: Brought,
    *,
    options: Options = NO_OPTIONS,
    logprobs: int | None = None,
    think_budget: int | None = None,
    keep_alive: float | None = None,
    cache_key: str | None = None,
) -> Converted[ChatRequest]:
    tools = equipment(body)
    turns = to_turns(body.instructions, items, brought)
    if not items:
        raise _nothing()
    output = _output(body)
    request = ChatRequest(
        model=model,
        messages=turns.messages,
        options=options,
        tools=tools,
        tool_choice=chosen(body, tools),
        parallel_tool_calls=may_call_twice(body),
        output=output,
        think=_think(body),
        think_budget=think_budget,
        logprobs=logprobs,
        truncate=body.truncation == "auto",
        keep_alive=keep_alive,
        cache_key=cache_key,
    )
    names = {
        **turns.names,
        "messages": "input",
        "output": "text.format",
        "grammar": "tools" if tools and output is None else "text.format",
        "think": "reasoning.effort",
        "think_budget": "reasoning_budget_tokens",
        "logprobs": "top_logprobs",
        "cache_key": "prompt_cache_key",
        "truncate": "truncation",
        **flat_names(body),
    }
    return Converted(request, turns.ignored, FieldNames(names), nonstandard_equipment(body))


def _nothing() -> InvalidRequest:
    return InvalidRequest(
        "Invalid 'input': empty array. There is nothing to answer.", param="input", code="empty_array"
    )


def _think(body: Asking) -> Think | None:
    return None if body.reasoning is None else effort_as_think(body.reasoning.effort)


def _output(body: Asking) -> JsonOutput | None:
    match None if body.text is None else body.text.format:
        case JsonObjectFormat(schema_=schema):
            return JsonOutput(schema)
        case FlatSchemaFormat() as spec:
            if spec.strict:
                check_strict(spec.schema_, what=f"text.format '{spec.name}'", param="text.format.schema")
            return JsonOutput(spec.schema_)
        case _:
            return None
