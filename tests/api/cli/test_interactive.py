"""The conversation, and everything else that is shown, on a real terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("there are no pseudo-terminals", allow_module_level=True)

from fakes.gguf_files import write_tiny_llama
from fakes.terminal import Terminal, on_terminal

PUNA = str(Path(sys.executable).with_name("puna"))


@pytest.fixture
def converse(puna: Any) -> Iterator[Callable[..., Terminal]]:
    """`converse(*arguments, columns=100, **environment)`: the command on a terminal."""
    with ExitStack() as terminals:

        def start(*arguments: str, columns: int = 100, **environment: str) -> Terminal:
            command = [PUNA, *arguments]
            return terminals.enter_context(
                on_terminal(command, {**puna.environment, **environment}, puna.directory, columns=columns)
            )

        yield start


def test_a_conversation(converse: Callable[..., Terminal], puna: Any) -> None:
    terminal = converse("run", "tiny")
    terminal.enter("hi")
    terminal.expect("Hello there, friend.")
    terminal.enter('"""one')
    terminal.enter('PROMPT two"""', prompt="...")
    terminal.expect("one\nPROMPT two")
    terminal.enter("/set parameter num_predict 1")
    terminal.expect("Set parameter 'num_predict' to '1'")
    terminal.enter("/set parameter wat 1")
    terminal.expect("Couldn't set parameter")
    terminal.enter("/set verbose")
    terminal.expect("Set 'verbose' mode.")
    terminal.enter("hi")
    terminal.expect("eval count:           1 token(s)")
    terminal.enter("/wat")
    terminal.expect("Unknown command '/wat'. Type /? for help")
    terminal.enter("/load nope")
    terminal.expect("Couldn't find model 'nope'")
    terminal.enter("/load tinny")
    terminal.expect("Couldn't find model 'tinny' (did you mean 'tiny:latest'?)")
    terminal.enter("/clear")
    terminal.expect("Cleared session context")
    terminal.enter("/bye")
    assert terminal.process.wait(20) == 0
    assert "Traceback" not in terminal.seen
    history = Path(puna.environment["XDG_STATE_HOME"]) / "puna" / "history"
    assert "+hi" in history.read_text()
    assert '\n+"""one\n+PROMPT two"""\n' in history.read_text(), "a block is one entry"
    assert history.stat().st_mode & 0o077 == 0


def test_ctrl_c_stops_the_answer_and_ctrl_d_ends(converse: Callable[..., Terminal]) -> None:
    terminal = converse("run", "tiny")
    terminal.expect("Send a message")
    terminal.type("\x03")
    terminal.expect("Use Ctrl + d or /bye to exit.")
    terminal.expect("Send a message")
    terminal.type("not this")
    terminal.expect("not this")
    terminal.type("\x03")
    terminal.enter("FOREVER")
    terminal.expect("on and on and")
    terminal.type("\x03")
    terminal.enter("/set system Be brief.")
    terminal.expect("Set system message.")
    terminal.expect("Send a message")
    terminal.type("\x04")
    assert terminal.process.wait(20) == 0
    assert "Traceback" not in terminal.seen


def test_what_is_typed_while_an_answer_comes_is_the_next_message(converse: Callable[..., Terminal]) -> None:
    terminal = converse("run", "tiny")
    terminal.enter("SLOW")
    terminal.expect("SLOW")
    terminal.type("PROMPT early\rand the ")
    terminal.expect("at last")
    terminal.expect("user\nPROMPT early\nassistant")  # the script echoes the prompt that it was given
    terminal.expect(">>> and the")
    terminal.type("PROMPT rest\r")
    terminal.expect("user\nand the PROMPT rest\nassistant")
    assert "PROMPT early" not in terminal.seen.partition("at last")[0], "it must not stand in the answer"


def test_a_block_comes_back_as_one_message(converse: Callable[..., Terminal]) -> None:
    terminal = converse("run", "tiny")
    terminal.enter('"""one')
    terminal.enter('PROMPT two"""', prompt="...")
    terminal.expect("user\none\nPROMPT two\nassistant")
    terminal.expect("Send a message")
    terminal.type("\x1b[A")
    terminal.expect('PROMPT two"""')
    terminal.type("\r")
    terminal.expect("user\none\nPROMPT two\nassistant")
    terminal.enter('/set system """Be')
    terminal.enter('brief."""', prompt="...")
    terminal.expect("Set system message.")
    terminal.enter("/show system")
    terminal.expect("Be\nbrief.")


@pytest.mark.parametrize("columns", [1, 20, 40])
def test_narrow_terminals(converse: Callable[..., Terminal], columns: int) -> None:
    answered = converse("run", "tiny", "hi", columns=columns)
    assert answered.ended() == 0
    assert re.sub(r"\s", "", answered.seen).endswith("Hellothere,friend.")
    if columns >= 20:
        assert max(len(line) for line in answered.seen.splitlines()) <= columns
        assert "there," in answered.seen, "a word that fits is not broken"
    for arguments in (["ps", "-v"], ["show", "tiny"]):
        shown = converse(*arguments, columns=columns)
        assert shown.ended() == 0
        assert "Traceback" not in shown.seen
    talk = converse("run", "tiny", columns=columns)
    talk.listens()
    talk.type("hi\r")
    talk.expect("H" if columns < 20 else "Hello")
    talk.listens(times=2)
    talk.type("\x04")
    assert talk.ended() == 0
    assert "Traceback" not in talk.seen


@pytest.mark.parametrize("columns", [1, 20, 40])
def test_progress_on_a_narrow_terminal(converse: Callable[..., Terminal], puna: Any, columns: int) -> None:
    (puna.directory / "Modelfile").write_text(f"FROM ./big{columns}.gguf\n")
    write_tiny_llama(puna.directory / f"big{columns}.gguf", seed=columns)
    made = converse("create", f"made-{columns}", columns=columns)
    assert made.ended() == 0, made.seen
    assert "Traceback" not in made.seen


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_colours_are_left_out_where_they_are_not_wanted(
    converse: Callable[..., Terminal], environment: dict[str, str], coloured: bool
) -> None:
    terminal = converse("run", "thinker", "--think", "THINK", **environment)
    assert terminal.ended() == 0
    assert "Let me see." in terminal.seen
    assert ("\x1b[90m" in terminal.raw) is coloured


def test_a_dumb_terminal_holds_a_conversation(converse: Callable[..., Terminal]) -> None:
    terminal = converse("run", "tiny", TERM="dumb")
    terminal.expect(">>> ")
    terminal.type("hi\r")
    terminal.expect("Hello there, friend.")
    terminal.expect(">>> ")
    terminal.type("\x04")
    assert terminal.ended() == 0
    assert "Traceback" not in terminal.seen


def test_a_conversation_without_a_place_for_its_history(converse: Callable[..., Terminal], puna: Any) -> None:
    blocked = puna.directory / "blocked"
    blocked.write_text("no directory")
    terminal = converse("run", "tiny", XDG_STATE_HOME=str(blocked))
    terminal.expect("Warning: what you type is not kept for later")
    terminal.enter("hi")
    terminal.expect("Hello there, friend.")
    terminal.enter("/bye")
    assert terminal.ended() == 0


def test_ctrl_c_on_an_answer_leaves_a_line_of_its_own(converse: Callable[..., Terminal]) -> None:
    terminal = converse("run", "tiny", "FOREVER")
    terminal.expect("on and on and")
    terminal.type("\x03")
    assert terminal.ended() == 130
    assert terminal.seen.endswith("\n")
    assert "Traceback" not in terminal.seen
