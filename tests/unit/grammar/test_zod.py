"""Every helper of zod 4, by zod itself under Node: served, and then zod takes what is written; or refused by name."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from fakes.gbnf_reader import Gbnf
from fakes.kinds import cell, documented, outcome
from fakes.node import Node
from fakes.zod_kinds import KINDS, MORE_THAN_IT_WRITES
from puna.grammar.schema import conforms, schema_to_gbnf

TEXTS = 12


@pytest.fixture(scope="module")
def made(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """By kind: `plain`, `format` and `tool`, each with its `schema` or why zod has none."""
    return node.run("zod.mjs", as_file(tmp_path_factory, KINDS))["schemas"]


def as_file(directory: pytest.TempPathFactory, value: Any) -> str:
    path: Path = directory.mktemp("zod") / "argument.json"
    path.write_text(json.dumps(value))
    return str(path)


def written(schema: Any) -> list[str]:
    """Texts of its grammar, which its own check takes."""
    grammar, chance = Gbnf(schema_to_gbnf(schema)), random.Random(json.dumps(schema))
    texts = [grammar.walk(chance, 60) for _ in range(TEXTS)]
    assert [said for text in texts if (said := conforms(text, schema))] == []
    return texts


def test_zod_takes_what_is_written(node: Node, made: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    texts = {
        kind: written(made[kind]["plain"]["schema"])
        for kind in KINDS
        if outcome(made[kind]["plain"]) == "served" and kind not in MORE_THAN_IT_WRITES
    }
    assert len(texts) > 100
    wrong = node.run("zod.mjs", as_file(tmp_path_factory, []), as_file(tmp_path_factory, texts))["wrong"]
    assert {kind: found for kind, found in wrong.items() if found} == {}


@pytest.mark.parametrize("way", ["format", "tool"])
def test_what_the_sdk_makes_of_it_has_the_same_outcome(made: Any, way: str) -> None:
    for kind in KINDS:
        sent = made[kind][way]
        if "schema" in sent:
            assert outcome(sent) == outcome(made[kind]["plain"]), (kind, sent)


def test_the_table_in_the_docs_says_so(made: Any) -> None:
    rows = {}
    for kind in KINDS:
        found = outcome(made[kind]["plain"], by="zod")
        rows[kind] = f"{found}; zod checks more than it writes" if kind in MORE_THAN_IT_WRITES else found
    assert documented("zod") == {cell(kind): said for kind, said in rows.items()}
