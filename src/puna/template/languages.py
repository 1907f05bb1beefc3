"""Both languages of chat templates: which one a text is in, and what it is compiled to. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from puna.template.facts import TemplateFacts
from puna.template.gotemplate import GoTemplate
from puna.template.jinja import JinjaTemplate
from puna.types import JsonObject, JsonValue


@dataclass(frozen=True, slots=True)
class TemplateKey:
    """What a compiled template depends on. `bos`, `eos`: the text of these tokens."""

    language: Literal["go", "jinja"]
    source: str
    bos: str = ""
    eos: str = ""


class Compiled(Protocol):
    """A template that can be run. Its methods raise InvalidRequest for what it is given, ModelFileError for itself."""

    @property
    def facts(self) -> TemplateFacts:
        """Found by trying it."""
        ...

    @property
    def told(self) -> TemplateFacts:
        """What its text says of itself; nothing is run."""
        ...

    @property
    def inserts(self) -> bool:
        """It can fill in the middle."""
        ...

    def check(self) -> None:
        """ModelFileError where it asks for what no template is given."""
        ...

    def render_json(
        self,
        messages: Sequence[JsonObject],
        tools: Sequence[JsonObject] | None,
        *,
        add_generation_prompt: bool,
        arguments: Mapping[str, JsonValue],
    ) -> str: ...

    def insert(self, prompt: str, suffix: str) -> str: ...


def compile_template(key: TemplateKey) -> GoTemplate | JinjaTemplate:
    """Raises ModelFileError."""
    if key.language == "go":
        return GoTemplate(key.source, bos=key.bos)
    return JinjaTemplate(key.source, bos=key.bos, eos=key.eos)
