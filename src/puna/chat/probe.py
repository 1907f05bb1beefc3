"""What a Jinja template can do, found out by rendering it: marked values go in, their marks are looked for. Pure.

Reading the template's text would be guessing; only the tags that surround thinking are looked up in a table, because a
model writes them whether its template shows them or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from puna.chat.facts import TemplateFacts
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
    plain = trial.text([user])
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
        call_open=_opening(plain, trial.text([user, _CALL])),
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
    return next((tags for tags in KNOWN_TAGS if tags.close in source), None)


def _opening(plain: str, called: str) -> str | None:
    """What a template writes before a call's name: the text after the turn's header, up to the JSON or the name."""
    if "puna_tool" not in called:
        return None
    end = called.find("puna_tool")
    begin = _shared(plain, called)
    text = called[begin:end]
    for stop in ("{", "["):
        cut = text.find(stop + '"') if stop == "{" else -1
        if cut >= 0:
            text = text[:cut]
    return text.strip()


def _shared(first: str, second: str) -> int:
    """How many characters both begin with."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))


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
# Nine letters and digits: Mistral's templates refuse any other id.
_CALL: JsonObject = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "abcdef123",
            "type": "function",
            "function": {"name": "puna_tool", "arguments": {"argument": "PUNA-ARGUMENT"}},
        }
    ],
}
_RESULT: JsonObject = {
    "role": "tool",
    "name": "puna_tool",
    "tool_call_id": "abcdef123",
    "content": "PUNA-RESULT",
}


def _user_parts() -> JsonObject:
    return {"role": "user", "content": [{"type": "text", "text": "PUNA-USER"}]}


def _system(parts: bool) -> JsonObject:
    text = "PUNA-SYSTEM"
    return {"role": "system", "content": [{"type": "text", "text": text}] if parts else text}
