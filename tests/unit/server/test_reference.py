"""The pages of fields are what the contract says now."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

from puna.errors import Code
from puna.server import codes
from puna.server.anthropic import reference as anthropic
from puna.server.contract.reference import nested_shapes
from puna.server.contract.shapes import shape_fields
from puna.server.files import reference as files
from puna.server.ollama import bodies as ollama_bodies
from puna.server.ollama import reference as ollama
from puna.server.openai import reference as openai
from puna.server.responses import reference as responses

PAGES = Path(__file__).parents[3] / "docs" / "reference"


@pytest.mark.parametrize(
    ("page", "dialect"),
    [
        ("openai.md", openai),
        ("responses.md", responses),
        ("files.md", files),
        ("anthropic.md", anthropic),
        ("ollama-fields.md", ollama),
        ("errors.md", codes),
    ],
)
def test_the_page_is_up_to_date(page: str, dialect: ModuleType):
    assert (PAGES / page).read_text(encoding="utf-8") == dialect.reference()


def test_every_native_field_has_a_mark():
    shapes = [*ollama_bodies.BODIES, *nested_shapes(ollama_bodies.BODIES)]
    assert [(shape, row.name) for shape in shapes for row in shape_fields(shape) if row.mark is None] == []


def test_every_code_is_in_the_reference():
    """That errors carry no other is for the type checker to say: the type of their code is this list."""
    assert set(codes.MEANINGS) == set(get_args(Code))
