"""Tools on every model: what the model is told of them, what it may write, and how its calls are read.

Pure. A model whose template knows tools writes calls its own way (`CallSyntax`, found out from the template); for all
others, and where that way is not to be told, calls are written as DEFAULT_SYNTAX and described in words.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import cast

from puna.chat.callparser import (
    CUSTOM_ARGUMENT,
    CUSTOM_PARAMETERS,
    NAME,
    CallForm,
    CallParser,
    Piece,
    PieceCallArguments,
    PieceCallStart,
    PieceText,
)
from puna.errors import InvalidRequest, UnsatisfiableSchema
from puna.grammar.around import not_beginning, without
from puna.grammar.gbnf import (
    EMPTY,
    NEVER,
    Chars,
    Expression,
    GrammarTooLarge,
    NoAnswer,
    Rules,
    Terminal,
    chars,
    choice,
    optional,
    seq,
)
from puna.grammar.schema import json_characters, json_value, loose_json_value, schema_to_gbnf
from puna.grammar.stacks import TooManyReadings, readable
from puna.grammar.written import grammar_text, grammar_to_gbnf
from puna.template.facts import PROBED_ID, CallSyntax, TemplateFacts
from puna.types import Grammar, JsonObject, JsonOutput, Output, Tool, ToolChoice

__all__ = [
    "CUSTOM_ARGUMENT",
    "DEFAULT_SYNTAX",
    "MAX_CALLS",
    "CallParser",
    "CallPlan",
    "Piece",
    "PieceCallArguments",
    "PieceCallStart",
    "PieceText",
    "as_function",
    "new_call_id",
    "plan_calls",
]

DEFAULT_SYNTAX = CallSyntax('<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>")
MAX_CALLS = 16
"""Calls in one answer at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPlan:
    """What a request with tools asks of prompt, grammar and reading.

    `tools`: for the template to render, custom ones in the form of functions. `instructions`: to be told to the
    model instead. `constraint`: GBNF of the whole answer (see `puna.grammar.around.after_thinking`), None: free.
    `callable`: the tools that may be called, each with the parameters that its calls are held to. `ignored`: paths of
    what tools' schemas say and what is not enforced, and of tools that nothing can call.
    """

    tools: tuple[Tool, ...] = ()
    instructions: str | None = None
    constraint: str | None = None
    form: CallForm | None = None
    callable: Mapping[str, Tool] = field(default_factory=lambda: MappingProxyType({}))
    ignored: tuple[str, ...] = ()

    def parser(self, new_id: Callable[[], str] | None = None) -> CallParser:
        """A reader of one answer."""
        return CallParser(self.form, self.callable, new_id or new_call_id)


def new_call_id() -> str:
    """`call_` and 24 characters, never the same twice."""
    return f"call_{secrets.token_hex(12)}"


def plan_calls(
    tools: tuple[Tool, ...],
    choice: ToolChoice,
    *,
    parallel: bool,
    native: bool,
    syntax: CallSyntax | None,
    output: Output | None,
) -> CallPlan:
    """How tools, tool choice and form of the answer are honoured. Raises InvalidRequest naming what cannot be.

    `native`: the template renders tools; `syntax`: the way it writes calls, if that is known.
    """
    allowed = _allowed(tools, choice)
    if choice.mode == "none" or not allowed:
        return CallPlan(constraint=_output_gbnf(output))
    known = syntax if native and syntax is not None and _usable(syntax) else None
    used = known or DEFAULT_SYNTAX
    by_name = {tool.name: (index, tool) for index, tool in enumerate(tools) if tool.name in allowed}
    answer = _Answer(used, by_name, parallel)
    try:
        constraint = answer.gbnf(choice, output)
    except TooManyReadings as error:
        answer = _Answer(used, by_name, parallel, unheld=_ambiguous(used, by_name, error))
        constraint = answer.gbnf(choice, output)
    ignored = tuple(answer.ignored)
    if not answer.held:
        return CallPlan(constraint=constraint, ignored=ignored)
    told = tuple(tool for tool in tools if tool.name not in answer.impossible)
    return CallPlan(
        tools=tuple(as_function(tool) for tool in told) if known else (),
        instructions=None if known else _instructions(told, choice, frozenset(answer.held), parallel),
        constraint=constraint,
        form=CallForm.of(used),
        callable=MappingProxyType(answer.held),
        ignored=ignored,
    )


def _ambiguous(syntax: CallSyntax, tools: Mapping[str, tuple[int, Tool]], error: TooManyReadings) -> frozenset[str]:
    """Names of the tools whose arguments can be read in ever more ways, as `error` says of all of them together.

    InvalidRequest where one has to be held to them all the same, or none is to blame by itself.
    """
    found = []
    for index, tool in tools.values():
        if not _Answer(syntax, {tool.name: (index, tool)}, parallel=False).has_many_readings():
            continue
        if tool.strict or tool.kind == "custom":
            raise _cannot_be_held(error, f"tools[{index}]") from error
        found.append(tool.name)
    if not found:
        raise _cannot_be_held(error, "tools") from error
    return frozenset(found)


def _cannot_be_held(error: TooManyReadings, param: str) -> InvalidRequest:
    return InvalidRequest(f"These tools cannot be held to their schemas: {error}.", param=param)


def native_syntax(facts: TemplateFacts) -> CallSyntax | None:
    """How a template itself writes calls; None: it does not, or how is not to be told, and Puna describes the tools."""
    known = facts.syntax is not None and facts.tools and facts.tool_calls and _usable(facts.syntax)
    return facts.syntax if known else None


def as_function(tool: Tool) -> Tool:
    """How a template sees it: a custom tool as a function of one text."""
    if tool.kind == "function":
        return tool
    return replace(tool, kind="function", parameters=dict(CUSTOM_PARAMETERS), grammar=None)


def _allowed(tools: tuple[Tool, ...], choice: ToolChoice) -> frozenset[str]:
    names = [tool.name for tool in tools]
    for index, name in enumerate(names):
        if not re.fullmatch(NAME, name):
            raise InvalidRequest(
                f"No call can be written of a tool with the name {name!r}.", param=f"tools[{index}].name"
            )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidRequest(f"Two tools have the name {twice!r}.", param="tools")
    if choice.mode == "required" and not tools:
        raise InvalidRequest("tool_choice asks for a call, but there are no tools.", param="tool_choice")
    for name in choice.names or ():
        if name not in names:
            raise InvalidRequest(f"tool_choice names {name!r}, which is not one of the tools.", param="tool_choice")
    if choice.names is not None and not choice.names and choice.mode == "required":
        raise InvalidRequest("tool_choice asks for a call, but allows none of the tools.", param="tool_choice")
    return frozenset(names if choice.names is None else choice.names)


def _usable(syntax: CallSyntax) -> bool:
    return bool(syntax.before.strip()) and bool(syntax.between.strip())


def _output_gbnf(output: Output | None) -> str | None:
    if output is None:
        return None
    if isinstance(output, Grammar):
        return grammar_to_gbnf(output, param="output")
    return schema_to_gbnf(output.schema, param="output")


# --------------------------------------------------------------------------------------------- what it may write


class _Answer:
    """The grammar of an answer with calls. `unheld`: names of tools whose arguments may be any object."""

    def __init__(
        self,
        syntax: CallSyntax,
        tools: Mapping[str, tuple[int, Tool]],
        parallel: bool,
        unheld: frozenset[str] = frozenset(),
    ) -> None:
        self.rules = Rules()
        self.syntax = syntax
        self.tools = tools
        self.most = MAX_CALLS if parallel else 1
        self.unheld = unheld
        self.ignored: list[str] = []
        self.held: dict[str, Tool] = {}
        self.impossible: dict[str, UnsatisfiableSchema] = {}

    def gbnf(self, asked: ToolChoice, output: Output | None) -> str | None:
        """None: any text. A tool whose arguments nothing satisfies is left out, unless the choice names it.

        InvalidRequest and TooManyReadings.
        """
        try:
            calls = self._calls(asked)
            if calls == NEVER:
                return _output_gbnf(output)
            if asked.mode == "required":
                return readable(self.rules, calls)
            if output is not None:
                return readable(self.rules, choice(calls, self._output(output)))
            return readable(self.rules, self._text_or(calls))
        except TooManyReadings:
            raise
        except (GrammarTooLarge, NoAnswer) as error:
            raise InvalidRequest("The grammar of these tools would be too large.", param="tools") from error

    def has_many_readings(self) -> bool:
        """The arguments of the tools, each by itself."""
        try:
            for index, tool in self.tools.values():
                readable(self.rules, self._arguments(index, tool))
        except TooManyReadings:
            return True
        except UnsatisfiableSchema:
            pass
        return False

    def _text_or(self, calls: Expression) -> Expression:
        mark = self.syntax.mark
        if mark:
            return seq(without(self.rules, mark), optional(calls))
        return choice(calls, not_beginning(self.rules, "".join(self.syntax.before.split())))

    def _output(self, output: Output) -> Expression:
        if isinstance(output, JsonOutput):
            return json_value(self.rules, output.schema, param="output")
        return _whole(self.rules, output, lambda allowed: allowed, "output")

    def _calls(self, asked: ToolChoice) -> Expression:
        """NEVER: there is nothing to call."""
        before, after = self.syntax.before, self.syntax.after
        lead = trail = ""
        if self.syntax.array:
            cut, end = before.rindex("{"), after.index("}") + 1
            lead, before, after, trail = before[:cut], before[cut:], after[:end], after[end:]
        options = [self._call_or_never(before, index, tool, after, asked) for index, tool in self.tools.values()]
        if self.impossible and not self.held:
            if asked.mode == "required":
                raise next(iter(self.impossible.values()))
            return NEVER
        one = self.rules.add(choice(*options), "call")
        between = seq(Terminal(","), optional(Terminal(" "))) if self.syntax.array else optional(Terminal("\n"))
        more = self.rules.repeat(self.rules.add(seq(between, one), "again"), 0, self.most - 1)
        return self.rules.add(seq(self._loose(lead), one, more, self._loose(trail)), "calls")

    def _call_or_never(self, before: str, index: int, tool: Tool, after: str, asked: ToolChoice) -> Expression:
        try:
            return self._call(before, index, tool, after)
        except UnsatisfiableSchema as error:
            if tool.name in (asked.names or ()):
                raise _not_callable(tool, error) from error
            self.impossible[tool.name] = error
            self.ignored.append(f"tools[{index}]")
            return NEVER

    def _call(self, before: str, index: int, tool: Tool, after: str) -> Expression:
        head = seq(self._loose(before), Terminal(tool.name), self._loose(self.syntax.between))
        return seq(head, self._arguments(index, tool), self._loose(after))

    def _arguments(self, index: int, tool: Tool) -> Expression:
        value, self.held[tool.name] = self._held(index, tool)
        return value

    def _held(self, index: int, tool: Tool) -> tuple[Expression, Tool]:
        if tool.kind == "custom":
            return self._free_text(index, tool), tool
        # A schema of something else than an object could not be called with named arguments.
        param, types = f"tools[{index}].parameters", frozenset({"object"})
        if tool.strict:
            return json_value(self.rules, tool.parameters, param=param, types=types), tool
        if tool.name in self.unheld:
            self.ignored.append(param)
            anything: JsonObject = {"type": "object"}
            return json_value(self.rules, anything, param=param), replace(tool, parameters=anything)
        held = loose_json_value(self.rules, tool.parameters, param=param, types=types)
        self.ignored += held.left_out
        return held.value, replace(tool, parameters=cast("JsonObject | None", held.schema))

    def _free_text(self, index: int, tool: Tool) -> Expression:
        if tool.grammar is None:
            text = json_value(self.rules, {"type": "string"}, param=f"tools[{index}]")
        else:
            inside = _whole(self.rules, tool.grammar, json_characters, f"tools[{index}].grammar")
            text = seq(Terminal('"'), self.rules.add(inside, "free"), Terminal('"'))
        return seq(Terminal(f'{{"{CUSTOM_ARGUMENT}":'), optional(Terminal(" ")), text, Terminal("}"))

    def _loose(self, text: str) -> Expression:
        """What the template writes, its white space optional; its id any id."""
        parts: list[Expression] = []
        for number, piece in enumerate(text.split(PROBED_ID)):
            if number:
                parts.append(self.rules.repeat(_ID_CHARACTER, 9, 9))
            rest = piece
            while rest:
                word = rest.lstrip()
                if space := rest[: len(rest) - len(word)]:
                    parts.append(optional(Terminal(space)))
                end = next((i for i, char in enumerate(word) if char.isspace()), len(word))
                parts.append(Terminal(word[:end]))
                rest = word[end:]
        return seq(*parts) if parts else EMPTY


def _whole(rules: Rules, grammar: Grammar, written: Callable[[Chars], Expression], param: str) -> Expression:
    """A caller's grammar as a part of the answer's. It is refused for what it is by itself: in a larger one, the search
    for its readings may end before it comes to them.
    """
    grammar_to_gbnf(grammar, param=param)
    return grammar_text(rules, grammar, written, param=param)


def _not_callable(tool: Tool, error: UnsatisfiableSchema) -> InvalidRequest:
    return InvalidRequest(
        f"tool_choice names {tool.name!r}, which nothing can call. {error.message}",
        param="tool_choice",
        code=error.code,
    )


_ID_CHARACTER = chars("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")


# ----------------------------------------------------------------------------------------------- what it is told


def _instructions(tools: tuple[Tool, ...], asked: ToolChoice, allowed: frozenset[str], parallel: bool) -> str:
    """In words, for a model whose template does not know tools."""
    lines = ["You can call tools. Each line describes one, in JSON:"]
    lines += [_described(tool) for tool in tools if tool.name in allowed]
    example = f'<tool_call>\n{{"name": "{min(allowed)}", "arguments": {{…}}}}\n</tool_call>'
    lines += ["", "A call is written like this, with all its arguments as one JSON object:", example, ""]
    if asked.mode == "required":
        lines.append("Answer with a call, and nothing else.")
    else:
        lines.append("Call a tool when it helps to answer; otherwise answer in plain text.")
    lines.append("You can make several calls, one after another." if parallel else "Make at most one call.")
    lines.append("The result of a call comes back in the next message.")
    return "\n".join(lines)


def _described(tool: Tool) -> str:
    shown = as_function(tool)
    about: JsonObject = {"name": shown.name}
    if shown.description:
        about["description"] = shown.description
    about["parameters"] = shown.parameters if shown.parameters is not None else {"type": "object"}
    if tool.grammar is not None:
        about["format"] = {"syntax": tool.grammar.syntax, "definition": tool.grammar.text}
    return json.dumps(about, ensure_ascii=False)
