"""What a Jinja template can do, found out by rendering it: marked values go in, their marks are looked for. Pure.

Reading the template's text would be guessing; only the tags that surround thinking are looked up in a table, because a
model writes them whether its template shows them or not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from puna.chat.facts import PROBED_ID, CallSyntax, TemplateFacts
from puna.chat.harmony import HARMONY
from puna.chat.text import ThinkTags
from puna.errors import InvalidRequest, ModelFileError
from puna.types import JsonObject, JsonValue

KNOWN_TAGS = (
    ThinkTags("<think>", "</think>"),
    ThinkTags("[THINK]", "[/THINK]"),
    ThinkTags("<seed:think>", "</seed:think>"),
    ThinkTags("<|START_THINKING|>", "<|END_THINKING|>"),
    ThinkTags("<|channel>thought", "<channel|>"),
    ThinkTags("<|inner_prefix|>", "<|inner_suffix|>"),
    ThinkTags("<reasoning>", "</reasoning>"),
    ThinkTags("<thinking>", "</thinking>"),
)


class Renders(Protocol):
    @property
    def source(self) -> str: ...

    def render_json(
        self,
        messages: Sequence[JsonObject],
        tools: Sequence[JsonObject] | None,
        *,
        add_generation_prompt: bool,
        arguments: Mapping[str, JsonValue],
    ) -> str: ...


def probe(template: Renders) -> TemplateFacts:
    """Try it. A template that fails a trial cannot do what was tried."""
    trial = _Trial(template)
    parts = "PUNA-USER" not in trial.text([_USER]) and "PUNA-USER" in trial.text([_user_parts()])
    user = _user_parts() if parts else _USER
    tools = trial.text([user], [_TOOL])
    called = trial.text([user, _CALL], [_TOOL])
    answered = trial.text([user, _CALL, _RESULT], [_TOOL])
    return TemplateFacts(
        system="PUNA-SYSTEM" in trial.text([_system(parts), user]),
        tools="puna_tool" in tools,
        tool_calls="puna_tool" in called and "PUNA-ARGUMENT" in called,
        tool_results="PUNA-RESULT" in answered,
        parts=parts,
        thinking=_tags(template.source),
        switch=trial.text([user], None, {"enable_thinking": True})
        != trial.text([user], None, {"enable_thinking": False}),
        effort=trial.text([user], None, {"reasoning_effort": "high"})
        != trial.text([user], None, {"reasoning_effort": "low"}),
        raw_arguments="PUNA-RAW" in trial.text([user, _call(arguments="PUNA-RAW")], [_TOOL]),
        any_id=not answered
        or bool(trial.text([user, _call(_LONG_ID), {**_RESULT, "tool_call_id": _LONG_ID}], [_TOOL])),
        syntax=_syntax(trial.text([user, _assistant(parts)]), trial.text([user, _CALL])),
    )


class _Trial:
    def __init__(self, template: Renders) -> None:
        self._template = template

    def text(
        self,
        messages: Sequence[JsonObject],
        tools: Sequence[JsonObject] | None = None,
        arguments: Mapping[str, JsonValue] | None = None,
    ) -> str:
        """The prompt, or "" if the template does not take this."""
        ask = messages[-1]["role"] != "assistant"
        try:
            return self._template.render_json(messages, tools, add_generation_prompt=ask, arguments=arguments or {})
        except (InvalidRequest, ModelFileError):
            return ""


def _tags(source: str) -> ThinkTags | None:
    """Of the known tags the ones that the template closes; a template that only strips old thinking shows that too."""
    if "<|channel|>" in source and "<|message|>" in source:
        return HARMONY
    return next((tags for tags in KNOWN_TAGS if tags.close in source), None)


def _syntax(answered: str, called: str) -> CallSyntax | None:
    """What the turn of a call has where the turn of an answer has its text."""
    head, mark, tail = answered.partition(_ANSWER)
    head, tail = head.rstrip(), tail.lstrip()
    if not mark or not called.startswith(head) or not called.endswith(tail) or "PUNA-ARGUMENT" not in called:
        return None
    call = called[len(head) : len(called) - len(tail)]
    begin = call.find("puna_tool")
    end = begin + len("puna_tool")
    arguments = call.find("{", end)
    if begin < 0 or arguments < 0:
        return None
    try:
        value, stop = _JSON.raw_decode(call, arguments)
    except ValueError:
        return None
    if value != {"argument": "PUNA-ARGUMENT"} or PROBED_ID in call[:arguments]:
        return None
    before, after = call[:begin].lstrip(), call[stop:].rstrip()
    array = re.search(r"\[\s*\{[^{]*$", before) is not None and re.match(r"[^\]]*\}\s*\]", after) is not None
    return CallSyntax(before, call[end:arguments], after, array)


# --------------------------------------------------------------------------------------------------- marked values

_USER: JsonObject = {"role": "user", "content": "PUNA-USER"}
_TOOL: JsonObject = {
    "type": "function",
    "function": {
        "name": "puna_tool",
        "description": "PUNA-DESCRIPTION",
        "parameters": {
            "type": "object",
            "properties": {"argument": {"type": "string", "description": "An argument."}},
            "required": ["argument"],
        },
    },
}
_LONG_ID = "call_0123456789abcdef01234567"


def _call(id_: str = PROBED_ID, arguments: JsonValue = None) -> JsonObject:
    given: JsonValue = {"argument": "PUNA-ARGUMENT"} if arguments is None else arguments
    call: JsonObject = {"id": id_, "type": "function", "function": {"name": "puna_tool", "arguments": given}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


_CALL = _call()
_RESULT: JsonObject = {
    "role": "tool",
    "name": "puna_tool",
    "tool_call_id": PROBED_ID,
    "content": "PUNA-RESULT",
}


_ANSWER = "\N{INVISIBLE SEPARATOR}PUNA-ANSWER"
"""Shares no beginning with what a template may write before a call."""

_JSON = json.JSONDecoder()


def _assistant(parts: bool) -> JsonObject:
    return {"role": "assistant", "content": [{"type": "text", "text": _ANSWER}] if parts else _ANSWER}


def _user_parts() -> JsonObject:
    return {"role": "user", "content": [{"type": "text", "text": "PUNA-USER"}]}


def _system(parts: bool) -> JsonObject:
    text = "PUNA-SYSTEM"
    return {"role": "system", "content": [{"type": "text", "text": text}] if parts else text}
