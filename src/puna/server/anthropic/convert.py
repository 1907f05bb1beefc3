"""Checked bodies to the house's requests. Pure: what must be fetched was fetched before (`messages.elsewhere`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from puna.server.anthropic.blocks import CacheControl, HeldElsewhere
from puna.server.anthropic.bodies import Conversing, MessagesBody
from puna.server.anthropic.messages import goes_on, to_turns
from puna.server.anthropic.thinking import to_output, to_thought
from puna.server.anthropic.tools import nonstandard_tools, parallel_calls, to_tool_choice, to_tools
from puna.server.contract.converted import Converted
from puna.server.contract.names import FieldNames
from puna.server.contract.options import overruled, read_keep_alive
from puna.server.contract.shapes import Shape
from puna.server.openai.options import load_options
from puna.types import ChatRequest, Options

_NAMES = {
    "num_predict": "max_tokens",
    "stop": "stop_sequences",
    "tools[].parameters": "tools[].input_schema",
}


@dataclass(frozen=True, slots=True)
class Style:
    """What of a request decides the form of its answer.

    `limit`: its `max_tokens`; `stops`: its stop sequences; `thoughts`: whether their text is shown; `marked`: whether
    something in it is marked to be cached.
    """

    model: str
    limit: int
    stops: frozenset[str]
    thoughts: bool
    marked: bool

    @classmethod
    def of(cls, body: MessagesBody) -> Style:
        return cls(
            model=body.model,
            limit=body.max_tokens,
            stops=frozenset(body.stop_sequences or ()),
            thoughts=to_thought(body, None).shown,
            marked=_marked(body),
        )


def to_chat(body: MessagesBody, fetched: HeldElsewhere) -> Converted[ChatRequest]:
    said = Options(
        num_predict=body.max_tokens,
        stop=None if body.stop_sequences is None else tuple(body.stop_sequences),
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
    )
    return _converted(body, fetched, said, body.max_tokens)


def to_counted_chat(body: Conversing, fetched: HeldElsewhere) -> Converted[ChatRequest]:
    """A chat that is counted, not answered."""
    return _converted(body, fetched, Options(), None)


def _converted(
    body: Conversing, fetched: HeldElsewhere, said: Options, max_tokens: int | None
) -> Converted[ChatRequest]:
    base = load_options(body)
    turns = to_turns(body.system, body.messages, fetched)
    tools = to_tools(body)
    output, output_names = to_output(body)
    thought = to_thought(body, max_tokens)
    request = ChatRequest(
        model=body.model,
        messages=turns.messages,
        options=said.over(base.options),
        tools=tools,
        tool_choice=to_tool_choice(body, tools),
        parallel_tool_calls=parallel_calls(body),
        output=output,
        think=thought.think,
        # Agents ask for it whatever the model is.
        think_if_able=True,
        think_budget=thought.budget,
        keep_alive=read_keep_alive(body.keep_alive),
        prefill=goes_on(body.messages),
    )
    nested = {name: path for name, path in base.names.items() if getattr(said, name, None) is None}
    names = {**_NAMES, **nested, **output_names, **thought.names, **turns.names}
    if tools and output is None:
        names["grammar"] = "tools"
    ignored = (*base.ignored, *overruled(base.options, said), *thought.ignored)
    return Converted(request, ignored, FieldNames(names), (*thought.nonstandard, *nonstandard_tools(tools)))


def _marked(shape: Shape) -> bool:
    """Whether something in it has a mark to be cached."""
    return any(isinstance(inner, CacheControl) or _marked(inner) for inner in _inner(shape))


def _inner(shape: Shape) -> Iterator[Shape]:
    waiting = [getattr(shape, name) for name in shape.model_fields_set if name in type(shape).model_fields]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Shape):
            yield value
        elif isinstance(value, list):
            waiting += value
