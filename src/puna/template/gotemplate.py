"""Ollama's Go templates: messages to the text of a prompt. Pure.

The rules are Ollama's. A template that mentions `.Messages` is given them all; an older one is run once for each turn
over `.System`, `.Prompt` and `.Response`. Messages of one role in a row are joined. JSON is Go's, byte for byte, so
that prompts and their cached prefixes are the same as there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from puna.model.goparse import Tree, parse
from puna.model.goscan import check_root, names, shows, thinking_tags
from puna.template.facts import COMMON_LEVELS, TemplateFacts, ThinkTags
from puna.template.goexec import execute
from puna.template.govalues import JsonList, JsonMap, Struct, Value, Words
from puna.template.probe import probe, tags_told
from puna.template.shaping import TakesMessages
from puna.types import JsonObject, JsonValue


class GoTemplate(TakesMessages):
    """One template text, parsed. Raises ModelFileError if it is none."""

    def __init__(self, source: str, *, bos: str = "", now: Callable[[], datetime] = datetime.now) -> None:
        self.source = source
        self.bos = bos
        self._now = now
        tree = parse(source)
        self._names = names(tree)
        if not self._names & {"Messages", "Response"}:
            tree = Tree((*tree.body, *parse("{{ .Response }}").body), tree.defined)
        self._tree = tree
        tags = thinking_tags(tree)
        self._thinks = tags is not None
        self._tags = None if tags is None else ThinkTags(*tags)

    def check(self) -> None:
        """ModelFileError when it reads variables that no template is given: those would always be empty."""
        check_root(self._tree)

    @cached_property
    def facts(self) -> TemplateFacts:
        return probe(self, tags=self._tags)

    @property
    def told(self) -> TemplateFacts:
        chat = "Messages" in self._names
        return TemplateFacts(
            user=shows(self._tree, frozenset({"Prompt", "Content", "Messages"})),
            system=chat or "System" in self._names,
            tools="Tools" in self._names,
            tool_calls="ToolCalls" in self._names,
            tool_results=chat,
            thinking=tags_told(self.source, self._tags),
            switch=bool(self._names & {"Think", "IsThinkSet"}),
            levels=COMMON_LEVELS if "ThinkLevel" in self._names else (),
        )

    @property
    def inserts(self) -> bool:
        """It can fill in the middle."""
        return "Suffix" in self._names

    def render_json(
        self,
        messages: Sequence[JsonObject],
        tools: Sequence[JsonObject] | None,
        *,
        add_generation_prompt: bool,
        arguments: Mapping[str, JsonValue],
    ) -> str:
        """The same with messages and tools in OpenAI's shape."""
        think = _think(arguments, self._thinks)
        turns = _collated(messages)
        if "Messages" not in self._names:
            return self._legacy(turns, think)
        system = "\n\n".join(turn.text for turn in turns if turn.role == "system")
        root: dict[str, Value] = {
            **think,
            "System": system,
            "Messages": JsonList(turn.record for turn in turns),
            "Tools": _tools(tools or ()),
            "Response": "",
        }
        return execute(self._tree, root, now=self._now)

    def insert(self, prompt: str, suffix: str) -> str:
        """The text between `prompt` and `suffix` is asked for."""
        root: dict[str, Value] = {**_think({}, self._thinks), "Prompt": prompt, "Suffix": suffix, "Response": ""}
        return execute(self._tree, root, now=self._now)

    def _legacy(self, turns: Sequence[_Turn], think: Mapping[str, Value]) -> str:
        """One run a turn; the last ends right after the answer's place, which a last assistant message begins."""
        written = ""
        system = prompt = response = ""

        def run(stop_after: str | None) -> str:
            turn: dict[str, Value] = {"System": system, "Prompt": prompt, "Response": response}
            root: dict[str, Value] = {**think, **turn, "First": not written}
            return execute(self._tree, root, now=self._now, stop_after=stop_after)

        for turn in turns:
            if turn.role == "system":
                if prompt or response:
                    written += run(None)
                    system = prompt = response = ""
                system = turn.text
            elif turn.role == "user":
                if response:
                    written += run(None)
                    system = prompt = response = ""
                prompt = turn.text
            elif turn.role == "assistant":
                response = turn.text
        return written + run("Response")


def _think(arguments: Mapping[str, JsonValue], thinks: bool) -> dict[str, Value]:
    """What a template reads of thinking. Of a model that thinks it is on when nothing is said, as Ollama has it."""
    think = arguments.get("enable_thinking", True if thinks and "reasoning_effort" not in arguments else None)
    level = arguments.get("reasoning_effort")
    on = bool(think) or isinstance(level, str)
    return {
        "Think": on,
        "ThinkLevel": level if isinstance(level, str) else "medium" if on else "",
        "IsThinkSet": think is not None or level is not None,
    }


# --------------------------------------------------------------------------------------------------------- messages


@dataclass(frozen=True, slots=True)
class _Turn:
    """`message`: what Go has beside role and text."""

    role: str
    text: str
    message: JsonObject

    @property
    def record(self) -> Struct:
        calls = self.message.get("tool_calls")
        records = JsonList(_call(number, call) for number, call in enumerate(calls)) if isinstance(calls, list) else ()
        thinking, name, answered = (
            str(self.message.get(key) or "") for key in ("reasoning_content", "name", "tool_call_id")
        )
        fields: dict[str, Value] = {
            "Role": self.role,
            "Content": self.text,
            "Thinking": thinking,
            "Images": (),
            "ToolCalls": records,
            "ToolName": name,
            "ToolCallID": answered,
        }
        shapes: list[JsonValue] = [call.shape for call in records if isinstance(call, Struct)]
        said: JsonObject = {
            "thinking": thinking,
            "tool_calls": shapes,
            "tool_name": name,
            "tool_call_id": answered,
        }
        shape: JsonObject = {"role": self.role, "content": self.text}
        shape.update({key: value for key, value in said.items() if value})
        return Struct(fields, shape)


def _collated(messages: Sequence[JsonObject]) -> list[_Turn]:
    """Messages of one role in a row become one; results of tools stay apart."""
    turns: list[_Turn] = []
    for message in messages:
        role, text = str(message["role"]), str(message.get("content") or "")
        if turns and turns[-1].role == role and role != "tool":
            last = turns.pop()
            turns.append(_Turn(role, f"{last.text}\n\n{text}", _joined(last.message, message)))
        else:
            turns.append(_Turn(role, text, message))
    return turns


def _joined(first: JsonObject, second: JsonObject) -> JsonObject:
    """What two messages of one role have beside their text: nothing of it is lost."""
    both = second | first
    for key in ("reasoning_content", "tool_calls"):
        one, other = first.get(key), second.get(key)
        if isinstance(one, list) and isinstance(other, list):
            both[key] = [*one, *other]
        elif isinstance(one, str) and isinstance(other, str):
            both[key] = f"{one}\n\n{other}"
    return both


def _call(number: int, call: JsonValue) -> Struct:
    assert isinstance(call, dict)
    function = call["function"]
    assert isinstance(function, dict)
    name, arguments = str(function["name"]), function.get("arguments")
    given: JsonObject = arguments if isinstance(arguments, dict) else {}
    shape: JsonObject = {"index": number, "name": name, "arguments": _sorted(given)}
    values = JsonMap({key: _value(item) for key, item in given.items()})
    inner = Struct({"Index": number, "Name": name, "Arguments": values}, shape)
    identity = str(call.get("id") or "")
    whole: JsonObject = {"id": identity, "function": shape} if identity else {"function": shape}
    return Struct({"ID": identity, "Function": inner}, whole)


def _value(value: JsonValue) -> Value:
    """JSON to Go's values."""
    if isinstance(value, dict):
        return {key: _value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_value(item) for item in value]
    return value


def _sorted(value: JsonValue) -> JsonValue:
    """Maps in the order that Go prints them."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value


# ------------------------------------------------------------------------------------------------------------ tools


def _tools(tools: Sequence[JsonObject]) -> list[Value]:
    return JsonList(_tool(tool) for tool in tools)


def _tool(tool: JsonObject) -> Struct:
    function = tool["function"]
    assert isinstance(function, dict)
    parameters = _parameters(function.get("parameters"))
    name, description = str(function["name"]), str(function.get("description") or "")
    shape: JsonObject = {"name": name}
    if description:
        shape["description"] = description
    shape["parameters"] = parameters.shape
    inner = Struct({"Name": name, "Description": description, "Parameters": parameters}, shape)
    kind = str(tool.get("type") or "function")
    return Struct({"Type": kind, "Items": None, "Function": inner}, {"type": kind, "function": shape})


def _parameters(schema: JsonValue) -> Struct:
    given: JsonObject = schema if isinstance(schema, dict) else {}
    properties = given.get("properties")
    known: JsonObject = properties if isinstance(properties, dict) else {}
    records = {name: _property(item) for name, item in known.items()}
    required = given.get("required")
    kind = str(given.get("type") or "object")
    shape: JsonObject = {"type": kind}
    if "$defs" in given:
        shape["$defs"] = _sorted(given["$defs"])
    if "items" in given:
        shape["items"] = _sorted(given["items"])
    if required:
        shape["required"] = required
    shape["properties"] = {name: records[name].shape for name in sorted(records)}
    fields: dict[str, Value] = {
        "Type": kind,
        "Defs": _value(given.get("$defs")),
        "Items": _value(given.get("items")),
        "Required": _value(required) or [],
        "Properties": JsonMap(records),
    }
    return Struct(fields, shape)


_PROPERTY_KEYS = ("anyOf", "type", "items", "description", "enum", "properties", "required")


def _property(schema: JsonValue) -> Struct:
    given: JsonObject = schema if isinstance(schema, dict) else {}
    kinds = given.get("type")
    words = tuple(str(kind) for kind in kinds) if isinstance(kinds, list) else (str(kinds),) if kinds else ()
    choices, inner = given.get("anyOf"), given.get("properties")
    fields: dict[str, Value] = {
        "AnyOf": [_property(choice) for choice in choices] if isinstance(choices, list) else [],
        "Type": Words(words),
        "Items": _value(given.get("items")),
        "Description": str(given.get("description") or ""),
        "Enum": _value(given.get("enum")) or [],
        "Properties": JsonMap({key: _property(item) for key, item in inner.items()} if isinstance(inner, dict) else {}),
        "Required": _value(given.get("required")) or [],
    }
    shape: JsonObject = {key: _sorted(given[key]) for key in _PROPERTY_KEYS if given.get(key) not in (None, [], {}, "")}
    return Struct(fields, shape)
