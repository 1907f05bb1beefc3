"""Rules of the house that a machine can see."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import puna

TESTS = Path(__file__).parents[1]
PACKAGE = Path(puna.__file__).parent
WAITING = TESTS / "fakes" / "waiting.py"
"""The one place that waits by the clock: between two looks at a condition."""


def parsed(folder: Path) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(folder.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def sleeps(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls of any `sleep` that takes time; `sleep(0)` only lets others run."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="sleep") | ast.Name(id="sleep"), args=[ast.Constant(value=0)]):
                pass
            case ast.Call(func=ast.Attribute(attr="sleep") | ast.Name(id="sleep")):
                yield node


def test_no_test_waits_with_sleep() -> None:
    """A state is waited for, not a time: `fakes.waiting.until`."""
    found = [f"{path.relative_to(TESTS)}:{call.lineno}" for path, tree in parsed(TESTS) for call in sleeps(tree)]
    assert [place for place in found if not place.startswith(str(WAITING.relative_to(TESTS)))] == []
    assert [*sleeps(ast.parse("import time\ntime.sleep(0.1)"))], "it would be seen"


def clocks(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Looks at a clock that goes on while a busy machine does something else."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="time"), attr="monotonic" | "perf_counter"):
                yield node


def test_no_test_asserts_by_the_clock() -> None:
    """What is meant is the order of events, a count, or a processor's time: `time.thread_time`, `psutil`."""
    found = {path for path, tree in parsed(TESTS) for _ in clocks(tree)}
    assert found == {WAITING, TESTS / "fakes" / "terminal.py"}, "which end what hangs"


ROOMS_OF_THEIR_OWN = ("cli", "engine/cpu/families", "server/ollama", "server/openai")
"""Whose files are told by their kind, not one by one."""


def test_the_plan_of_the_house_names_every_module() -> None:
    words = set(re.findall(r"[a-z_]+", (TESTS.parent / "ARCHITECTURE.md").read_text(encoding="utf-8")))
    modules = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if not path.stem.startswith("__")]
    told = [path for path in modules if not path.as_posix().startswith(ROOMS_OF_THEIR_OWN)]
    assert [path.as_posix() for path in told if path.stem not in words] == []


def public_names(tree: ast.Module) -> Iterator[str]:
    """Of classes and of types that have a name."""
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name) if not name.startswith("_"):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id="TypeAlias")):
                yield name


PYDANTIC = {"JsonValue", "JsonObject"}
"""What schemas call these is pydantic's own form of the same."""


def test_one_word_means_one_thing() -> None:
    """No two modules have a public class or type of one name: who reads of one has not to ask which."""
    modules = defaultdict(list)
    for path, tree in parsed(PACKAGE):
        for name in set(public_names(tree)) - PYDANTIC:
            modules[name].append(str(path.relative_to(PACKAGE)))
    assert {name: places for name, places in modules.items() if len(places) > 1} == {}
