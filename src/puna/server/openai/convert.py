"""Checked bodies to the house's requests. Pure: what must be fetched was fetched before (`messages.remote_images`).

Each group of fields is converted beside its contract (`messages`, `tools`, `output`, `options`, `thinking`); what one
field's type cannot say, fields that exclude, need or contradict each other, is checked there or here.
"""

from __future__ import annotations

from typing import cast

from puna.errors import InvalidRequest, Unsupported
from puna.server.contract.converted import Converted
from puna.server.contract.names import FieldNames
from puna.server.contract.options import read_keep_alive
from puna.server.openai.bodies import ChatCompletionBody, CompletionBody, EmbeddingBody, Inputs, Prompts, TokenizeBody
from puna.server.openai.messages import AssistantMessage, to_messages, unreadable_arguments
from puna.server.openai.options import Sampled, load_options, one_of, sampled_options
from puna.server.openai.output import to_output
from puna.server.openai.parts import Images, text_parts
from puna.server.openai.thinking import to_budget, to_think
from puna.server.openai.tools import (
    function_or_custom,
    nonstandard_tools,
    parallel_calls,
    to_tool_choice,
    to_tools,
    tool_names,
)
from puna.types import ChatRequest, CompletionRequest, EmbedRequest, TextPart

DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's `max_tokens` of /v1/completions when none is said."""


def to_chat(body: ChatCompletionBody, images: Images) -> Converted[ChatRequest]:
    _check_stream(body)
    asked = sampled_options(body, one_of(body, "max_completion_tokens", "max_tokens"))
    tools = to_tools(body)
    output, output_names = to_output(body)
    think, think_names = to_think(body)
    budget, budget_names = to_budget(body)
    request = ChatRequest(
        model=body.model,
        messages=to_messages(body.messages, images),
        options=asked.options,
        tools=tools,
        tool_choice=to_tool_choice(body, tools),
        parallel_tool_calls=parallel_calls(body),
        output=output,
        think=think,
        think_budget=budget,
        n=body.n or 1,
        logprobs=_chat_logprobs(body),
        keep_alive=read_keep_alive(body.keep_alive),
        prefill=_prefill(body),
        template_arguments=body.chat_template_kwargs or {},
        cache_key=body.prompt_cache_key,
        prediction=_prediction(body),
    )
    names = {**asked.names, **output_names, **think_names, **budget_names, **tool_names(body), **_ARGUMENTS}
    if tools and output is None:
        names["grammar"] = "tools"
    ignored = (*asked.ignored, *unreadable_arguments(body.messages))
    return Converted(request, ignored, FieldNames(names), nonstandard_tools(body))


def to_completion(body: CompletionBody) -> Converted[CompletionRequest]:
    _check_stream(body)
    count = body.n or 1
    if body.best_of is not None and body.best_of < count:
        raise InvalidRequest(f"'best_of' ({body.best_of}) must be at least 'n' ({count}).", param="best_of")
    if body.stream and body.best_of is not None and body.best_of > count:
        raise Unsupported("'best_of' cannot be streamed: the best answers are known at the end.", param="best_of")
    if body.max_tokens == 0 and not body.echo:
        raise InvalidRequest("'max_tokens' 0 needs 'echo'.", param="max_tokens", code="integer_below_min_value")
    if body.suffix is not None and _token_prompts(body.prompt):
        raise Unsupported("'suffix' needs a prompt of text.", param="suffix")
    asked = sampled_options(body, DEFAULT_COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens)
    output, output_names = to_output(body)
    request = CompletionRequest(
        model=body.model,
        prompts=to_prompts(body.prompt),
        options=asked.options,
        suffix=body.suffix,
        echo=bool(body.echo),
        n=count,
        best_of=body.best_of,
        output=output,
        logprobs=body.logprobs,
        keep_alive=read_keep_alive(body.keep_alive),
        cache_key=body.prompt_cache_key,
    )
    return Converted(request, asked.ignored, FieldNames({**asked.names, **output_names}))


def to_embed(body: EmbeddingBody) -> Converted[EmbedRequest]:
    asked = load_options(body, loading=True)
    request = EmbedRequest(
        model=body.model,
        inputs=to_prompts(body.input),
        options=asked.options,
        dimensions=body.dimensions,
        keep_alive=read_keep_alive(body.keep_alive),
    )
    return Converted(request, asked.ignored, FieldNames(asked.names))


def to_counted_chat(body: TokenizeBody, model: str, images: Images) -> Converted[ChatRequest]:
    """A chat that is counted, not answered."""
    request = ChatRequest(
        model=model,
        messages=to_messages(body.messages or [], images),
        tools=tuple(function_or_custom(tool, f"tools[{index}]") for index, tool in enumerate(body.tools or [])),
        template_arguments=body.chat_template_kwargs or {},
    )
    ignored = tuple(unreadable_arguments(body.messages or []))
    return Converted(request, ignored, FieldNames({**tool_names(body), **_ARGUMENTS}))


_OF_FORMS = {
    "prompt": ("add_special_tokens", "parse_special"),
    "content": ("add_special", "parse_special"),
    "messages": ("tools", "chat_template_kwargs"),
}
"""What is said of a text or chat that is tokenised, by the field that has it."""


def of_another_form(body: TokenizeBody) -> list[str]:
    """Fields that mean nothing to what is tokenised here."""
    here = {name for form, names in _OF_FORMS.items() if getattr(body, form) is not None for name in names}
    others = {name for names in _OF_FORMS.values() for name in names} - here
    return sorted(name for name in others if getattr(body, name) is not None)


_ARGUMENTS = {"template_arguments": "chat_template_kwargs", "cache_key": "prompt_cache_key"}


def to_prompts(prompt: Prompts | Inputs | None) -> tuple[str | tuple[int, ...], ...]:
    """None is a new document, as an empty text is."""
    if prompt is None:
        return ("",)
    if isinstance(prompt, str):
        return (prompt,)
    if isinstance(prompt[0], int):
        return (tuple(prompt),)
    many = cast("list[str | list[int]]", prompt)
    return tuple(one if isinstance(one, str) else tuple(one) for one in many)


def _token_prompts(prompt: Prompts | None) -> bool:
    return not all(isinstance(one, str) for one in to_prompts(prompt))


def _check_stream(body: Sampled) -> None:
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
        )


def _chat_logprobs(body: ChatCompletionBody) -> int | None:
    if body.logprobs:
        return body.top_logprobs or 0
    if body.top_logprobs is not None:
        raise InvalidRequest("'logprobs' must be true for 'top_logprobs' to be used.", param="top_logprobs")
    return None


def _prediction(body: ChatCompletionBody) -> str | None:
    if body.prediction is None:
        return None
    return "".join(part.text for part in text_parts(body.prediction.content) if isinstance(part, TextPart))


def _prefill(body: ChatCompletionBody) -> bool:
    continued = bool(body.continue_final_message)
    if body.add_generation_prompt is not None and body.add_generation_prompt == continued:
        raise InvalidRequest(
            "'add_generation_prompt' must be the opposite of 'continue_final_message'.", param="add_generation_prompt"
        )
    last = body.messages[-1]
    if continued and not isinstance(last, AssistantMessage):
        raise InvalidRequest(
            "'continue_final_message' needs a last message of the assistant.", param="continue_final_message"
        )
    if continued and isinstance(last, AssistantMessage) and (last.tool_calls or last.function_call):
        raise Unsupported(
            "'continue_final_message' cannot go on with a message that has calls.", param="continue_final_message"
        )
    return continued
