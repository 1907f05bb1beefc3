"""The model's own chat template, in Jinja: messages to the text of a prompt. Pure, and bounded.

A template is part of a model file, so it is not trusted: it runs in `minijinja`, which can reach nothing but the values
it is given, under a limit of steps that string growth counts against too. What a template can do with messages, tools
and thinking is found out by trying (`puna.template.probe`), not by reading it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

import minijinja

from puna.errors import InvalidRequest, ModelFileError, TemplateTooCostly, Unsupported
from puna.model.bounds import MAX_OUTPUT
from puna.template.facts import COMMON_LEVELS, TemplateFacts
from puna.template.probe import probe, tags_told
from puna.template.shaping import TakesMessages
from puna.types import JsonObject, JsonValue

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_STEPS = 20_000_000
MAX_SOURCE = 1_000_000

_GENERATION = re.compile(r"\{%(-|\+)?\s*(end)?generation\s*(-|\+)?%\}")


class Refusal(Exception):
    """A template's own `raise_exception`."""


class JinjaTemplate(TakesMessages):
    """One template text, compiled. Raises ModelFileError if it is none.

    `bos`, `eos`: the text of these tokens. `now` tells the time to templates that write the date.
    """

    def __init__(
        self, source: str, *, bos: str = "", eos: str = "", now: Callable[[], datetime] = datetime.now
    ) -> None:
        if len(source) > MAX_SOURCE:
            raise ModelFileError(f"the chat template is longer than {MAX_SOURCE} characters")
        self.source = source
        self.bos = bos
        self.eos = eos
        self._environment = minijinja.Environment(
            templates={"chat": _without_generation_blocks(source)},
            filters={"tojson": _tojson},
            globals={"raise_exception": _refuse, "strftime_now": lambda form: now().strftime(str(form))},
            fuel=MAX_STEPS,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_escape_callback=lambda _name: False,
        )

    @cached_property
    def facts(self) -> TemplateFacts:
        return probe(self)

    @property
    def told(self) -> TemplateFacts:
        """Little: it is taken to write whatever it mentions."""
        typed = re.search(r"""\.type\b|\[['"]type['"]\]""", self.source) is not None
        return TemplateFacts(
            user="content" in self.source or re.search(r"\{\{-?\s*messages", self.source) is not None,
            system=True,
            tools="tools" in self.source,
            tool_calls="tool_calls" in self.source,
            tool_results="tool" in self.source,
            parts=typed and "is string" not in self.source,
            thinking=tags_told(self.source),
            switch="enable_thinking" in self.source,
            levels=COMMON_LEVELS if "reasoning_effort" in self.source else (),
        )

    @property
    def inserts(self) -> bool:
        """Jinja templates are of chats only."""
        return False

    def insert(self, prompt: str, suffix: str) -> str:
        raise Unsupported("the model's chat template does not fill in the middle", param="suffix")

    def check(self) -> None:
        """Nothing: which variables there are, a template finds out by asking."""

    def render_json(
        self,
        messages: Sequence[JsonObject],
        tools: Sequence[JsonObject] | None,
        *,
        add_generation_prompt: bool,
        arguments: Mapping[str, JsonValue],
    ) -> str:
        """The same with messages and tools in the shape that templates read."""
        context: dict[str, object] = {
            **arguments,
            "messages": messages,
            "add_generation_prompt": add_generation_prompt,
            "bos_token": self.bos,
            "eos_token": self.eos,
        }
        if tools:
            # Left undefined without tools: templates ask `is defined` as well as `is not none`.
            context["tools"] = tools
        try:
            text: str = self._environment.render_template("chat", **context)
        except Refusal as error:
            raise InvalidRequest(f"the model's chat template refuses: {error}", param="messages") from error
        except minijinja.TemplateError as error:
            raise _broken(error) from error
        except (AttributeError, TypeError, ValueError, LookupError, RecursionError) as error:
            # A method of a value in the messages was called wrongly: the message, not the kind, tells why.
            raise ModelFileError(f"the model's chat template failed: {error}") from error
        if len(text) > MAX_OUTPUT:
            raise InvalidRequest(f"the prompt is longer than {MAX_OUTPUT} characters", param="messages")
        return text


def _without_generation_blocks(source: str) -> str:
    """`{% generation %}` only marks what an assistant said; as a condition it keeps the white space rules."""

    def condition(match: re.Match[str]) -> str:
        left, end, right = match[1] or "", match[2], match[3] or ""
        return f"{{%{left} {'endif' if end else 'if true'} {right}%}}"

    return _GENERATION.sub(condition, source)


def _refuse(message: object) -> NoReturn:
    raise Refusal(str(message))


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Sequence[str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As templates are written for: Python's spacing, other scripts as they are, nothing escaped for HTML."""
    pair = None if separators is None else (str(separators[0]), str(separators[1]))
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=pair, sort_keys=sort_keys)


def _broken(error: minijinja.TemplateError) -> ModelFileError:
    detail = error.detail or error.message
    if error.kind == "OutOfFuel":
        return TemplateTooCostly(f"the model's chat template takes more than {MAX_STEPS} steps")
    where = f" (line {error.line})" if error.line else ""
    kind = TemplateTooCostly if any(words in detail for words in _BOUNDS) else ModelFileError
    return kind(f"the model's chat template failed{where}: {detail}")


_BOUNDS = ("exceeds maximum recursion limits", "too many elements")
"""What the library says where a template is over a bound of its own."""
