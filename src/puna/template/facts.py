"""What a chat template can do, found out by rendering it with marked values and looking for them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from puna.types import JsonValue, Level, Message, Tool

COMMON_LEVELS: tuple[Level, ...] = ("low", "medium", "high")
"""What models are trained on whose template writes down whatever level it is given."""

PROBED_ID = "abcdef123"
"""The id that templates are tried with: where a syntax has it, any nine letters and digits may stand.

Mistral's templates refuse any other length.
"""


@dataclass(frozen=True, slots=True)
class ThinkTags:
    """What a model writes around its thinking, e.g. `<think>` and `</think>`."""

    open: str
    close: str


HARMONY = ThinkTags("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>")
"""What surrounds the thinking; also the sign that a model writes Harmony."""


@dataclass(frozen=True, slots=True)
class CallSyntax:
    """How a model writes a tool call: `before`, the name, `between`, the arguments as a JSON object, `after`.

    For instance `<tool_call>{"name": "`, `", "arguments": `, `}</tool_call>`. `array`: the calls of one answer stand
    in one JSON array, whose brackets are in `before` and `after`. White space is as the template writes it.
    """

    before: str
    between: str
    after: str
    array: bool = False

    @property
    def mark(self) -> str:
        """What a call begins with, up to its JSON or its name; "" when it begins with the JSON."""
        for end, character in enumerate(self.before):
            if character == "{" or (character == "[" and self.before[end + 1 :].lstrip().startswith("{")):
                return self.before[:end].rstrip()
        return self.before


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateFacts:
    """What a template makes of what it is given.

    `user`, `names`, `system`, `tools`, `tool_calls`, `tool_results`: it writes them into the prompt (what a user says,
    and a speaker's name). `parts`: it wants content as a list of parts. `thinking`: the tags around thinking, if the
    model thinks; `switch`: `enable_thinking` changes the prompt; `levels`: the values of `reasoning_effort` that it
    knows, weakest first; none: it has no effect. `syntax`: how it writes a tool call, None if that is not to be told.
    `raw_arguments`: a call's arguments may be text that is no object. `any_id`: so may its id be; else nine letters.
    """

    system: bool
    user: bool = True
    names: bool = False
    tools: bool = False
    tool_calls: bool = False
    tool_results: bool = False
    parts: bool = False
    thinking: ThinkTags | None = None
    switch: bool = False
    levels: tuple[Level, ...] = ()
    syntax: CallSyntax | None = None
    raw_arguments: bool = False
    any_id: bool = True


Trust: TypeAlias = Literal["known", "suspect", "brought"]
"""How long a template may keep others waiting. `known`: it was tried and kept its bounds. `suspect`: it broke
them once. `brought`: it came with a request, and nobody has tried it."""


class ChatTemplate(Protocol):
    """Messages to the text of a prompt, in whichever template language."""

    @property
    def source(self) -> str: ...

    @property
    def bos(self) -> str: ...

    @property
    def trust(self) -> Trust: ...

    @property
    def facts(self) -> TemplateFacts: ...

    def check(self) -> None:
        """ModelFileError where it asks for what no template is given."""
        ...

    @property
    def inserts(self) -> bool:
        """It can fill in the middle."""
        ...

    def insert(self, prompt: str, suffix: str) -> str:
        """The text between `prompt` and `suffix` is asked for. Only of one that `inserts`."""
        ...

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        add_generation_prompt: bool = True,
        arguments: Mapping[str, JsonValue] | None = None,
    ) -> str: ...
