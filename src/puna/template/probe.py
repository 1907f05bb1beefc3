"""What a Jinja template can do, found out by rendering it: marked values go in, their marks are looked for. Pure.

Reading the template's text would be guessing; only the tags that surround thinking are looked up in a table where no
trial shows them, because a model writes them whether its template does or not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Protocol, get_args

from puna.errors import InvalidRequest, ModelFileError
from puna.model.capabilities import THINKING_TAGS
from puna.template.facts import COMMON_LEVELS, HARMONY, PROBED_ID, CallSyntax, TemplateFacts, ThinkTags
from puna.types import JsonObject, JsonValue, Level

KNOWN_TAGS = tuple(ThinkTags(*pair) for pair in THINKING_TAGS)


class Renders(Protocol):
    """A template that can be tried."""

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


def probe(template: Renders, *, tags: ThinkTags | None = None) -> TemplateFacts:
    """Try it. A template that fails a trial cannot do what was tried. `tags`: around thinking, as it is read."""
    trial = _Trial(template)
    parts = "PUNA-USER" not in trial.text([_USER]) and "PUNA-USER" in trial.text([_user_parts()])
    user = _user_parts() if parts else _USER
    tools = trial.text([user], [_TOOL])
    called = trial.text([user, _CALL], [_TOOL])
    answered = trial.text([user, _CALL, _RESULT], [_TOOL])
    system = trial.text([_system(parts), user])
    # Some take the first message for a system's, others want more than one; one that fails every trial tells nothing.
    asked = [trial.tried(messages) for messages in ([user], [_system(parts), user], [user, _assistant(parts), user])]
    prompts = [prompt.lower() for prompt in asked if prompt is not None]
    return TemplateFacts(
        user=not prompts or any("puna-user" in prompt for prompt in prompts),
        names="PUNA-NAME" in trial.text([user | {"name": "PUNA-NAME"}]),
        system="PUNA-SYSTEM" in system,
        tools="puna_tool" in tools,
        tool_calls="puna_tool" in called and "PUNA-ARGUMENT" in called,
        tool_results="PUNA-RESULT" in answered,
        parts=parts,
        thinking=_tags(template.source, trial, user, parts, tags),
        switch=trial.text([user], None, {"enable_thinking": True})
        != trial.text([user], None, {"enable_thinking": False}),
        levels=_levels(trial, user),
        raw_arguments="PUNA-RAW" in trial.text([user, _call(arguments="PUNA-RAW")], [_TOOL]),
        any_id=not answered
        or bool(trial.text([user, _call(_LONG_ID), {**_RESULT, "tool_call_id": _LONG_ID}], [_TOOL])),
        syntax=_syntax(trial.text([user, _assistant(parts)]), trial.text([user, _CALL])),
    )


_NO_LEVEL = "puna-level"


def _levels(trial: _Trial, user: JsonObject) -> tuple[Level, ...]:
    """The levels that it knows: those it tells from a word that is none, and the common ones it does not refuse."""
    shown = {level: trial.text([user], None, {"reasoning_effort": level}) for level in get_args(Level)}
    unknown = trial.text([user], None, {"reasoning_effort": _NO_LEVEL})
    if len(set(shown.values())) < 2:
        return ()  # it looks at none of them

    def known(level: Level) -> bool:
        text = shown[level]
        return bool(text) and (level in COMMON_LEVELS or text.replace(level, _NO_LEVEL) != unknown)

    return tuple(level for level in shown if known(level))


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
        return self.tried(messages, tools, arguments) or ""

    def tried(
        self,
        messages: Sequence[JsonObject],
        tools: Sequence[JsonObject] | None = None,
        arguments: Mapping[str, JsonValue] | None = None,
    ) -> str | None:
        """The prompt, or None if the template does not take this."""
        ask = messages[-1]["role"] != "assistant"
        try:
            return self._template.render_json(messages, tools, add_generation_prompt=ask, arguments=arguments or {})
        except (InvalidRequest, ModelFileError):
            return None


def _tags(source: str, trial: _Trial, user: JsonObject, parts: bool, read: ThinkTags | None) -> ThinkTags | None:
    """Those that it writes around a thought; else those that its text says."""
    if _writes_harmony(source):
        return HARMONY
    return _cleaned(_seen_tags(trial, user, parts), _closed(source)) or tags_told(source, read)


def tags_told(source: str, read: ThinkTags | None = None) -> ThinkTags | None:
    """What a template's text says of thinking: the tags that it is `read` to write, else known ones that it closes.

    A template that only strips old thinking shows by that what its model writes.
    """
    return HARMONY if _writes_harmony(source) else read or next(iter(_closed(source)), None)


def _writes_harmony(source: str) -> bool:
    return "<|channel|>" in source and "<|message|>" in source


def _closed(source: str) -> list[ThinkTags]:
    return [tags for tags in KNOWN_TAGS if tags.close in source]


def _seen_tags(trial: _Trial, user: JsonObject, parts: bool) -> ThinkTags | None:
    """What stands between the beginning of an assistant's turn and its thought, and between this and the answer."""
    answer = _assistant(parts)
    thinking = answer | {"reasoning_content": _THOUGHT, "thinking": _THOUGHT}
    on: JsonObject = {"enable_thinking": True, "thinking": True}
    before, mark, after = trial.text([user, thinking], None, on).partition(_THOUGHT)
    close, answered, _ = after.partition(_ANSWER)
    plain = trial.text([user, answer], None, on).partition(_ANSWER)[0]
    opened = before[_alike(before, plain) :]
    if not mark or not answered or not opened.strip() or not close.strip():
        return None
    tags = ThinkTags(opened.strip(), close.strip())
    return tags if max(len(tags.open), len(tags.close)) <= _LONGEST_TAG else None


def _alike(one: str, other: str) -> int:
    """How many characters both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))


def _cleaned(seen: ThinkTags | None, known: Sequence[ThinkTags]) -> ThinkTags | None:
    """Without what a template writes before and after known tags."""
    if seen is None:
        return None
    fitting = (tags for tags in known if seen.open.endswith(tags.open) and seen.close.startswith(tags.close))
    return next(fitting, seen)


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


_THOUGHT = "\N{INVISIBLE SEPARATOR}PUNA-THOUGHT"
_LONGEST_TAG = 64

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
