"""The pages of fields are what the contract says now."""

from __future__ import annotations

import ast
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

import puna
from puna import errors
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


def test_every_code_that_an_error_is_made_with_has_the_status_of_that_error():
    made: dict[str, set[int]] = {}
    for path in Path(puna.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match call:
                case ast.Call(func=ast.Name(name), keywords=said):
                    kind = getattr(errors, name, None)
                    given = [one.value for one in said if one.arg == "code"]
                    if isinstance(kind, type) and issubclass(kind, errors.PunaError) and given:
                        for code in ast.walk(given[0]):
                            if isinstance(code, ast.Constant) and code.value in get_args(Code):
                                made.setdefault(code.value, set()).add(kind.status)
    assert "unsupported_encoding" in made
    assert {code: found for code, found in made.items() if not found <= set(codes.statuses(code))} == {}
