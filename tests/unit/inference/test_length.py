from __future__ import annotations

from pathlib import Path

import pytest

from fakes.gguf_files import write_tiny_llama
from puna.chat.disguise import Given
from puna.errors import ContextLengthExceeded
from puna.inference.length import LONG_TEXT, check_least, is_long, longest_token
from puna.inference.prompt import Rendering
from puna.model.gguf import Header, read_header
from puna.template.jinja import JinjaTemplate
from puna.types import Message, TextPart, Tool, ToolCall

SHOWS = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
LAST = "{{ messages[-1].content }}"


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> Header:
    """Its longest token is 40 bytes."""
    return read_header(write_tiny_llama(tmp_path_factory.mktemp("length") / "tiny.gguf", more_tokens=["x" * 40]))


def test_no_token_stands_for_more_than_the_longest(header):
    assert longest_token(header) == 40
    check_least(["x" * 400_000], header, 10_001)
    with pytest.raises(ContextLengthExceeded, match="at least 10000 tokens"):
        check_least(["x" * 400_000], header, 10_000)
    with pytest.raises(ContextLengthExceeded):
        check_least(["é" * 200_000, "é" * 200_000], header, 10_000)


def test_what_may_take_no_token_is_not_counted(header, tmp_path: Path):
    swallowing = write_tiny_llama(
        tmp_path / "tiny.gguf", more_tokens=["x" * 40], metadata={"general.name": "Phi-3 mini"}
    )
    check_least(["x\n \t\r" * 80_000], read_header(swallowing), 2_001)
    check_least(["x" * LONG_TEXT] * 100, header, 10)
    check_least([" " * 400_000], header, 10, cut=True)


def test_white_space_is_text(header):
    with pytest.raises(ContextLengthExceeded, match="at least 10000 tokens"):
        check_least([" " * 400_000], header, 10_000)
    with pytest.raises(ContextLengthExceeded, match="at least 10000 tokens"):
        check_least(["  x" + " \n" * 199_999 + "x  "], header, 10_000, cut=True)


def test_arrays_tell_the_same(header, tmp_path: Path):
    path = write_tiny_llama(tmp_path / "tiny.gguf", more_tokens=["é" * 30])
    assert longest_token(read_header(path)) == longest_token(read_header(path, arrays=True)) == 60


@pytest.mark.parametrize("kind", ["bert", "t5", "rwkv", "no_vocab"])
def test_vocabularies_that_leave_something_out_tell_nothing(tmp_path: Path, kind):
    path = write_tiny_llama(tmp_path / "tiny.gguf", metadata={"tokenizer.ggml.model": kind})
    check_least(["x" * 10_000_000], read_header(path), 10)


def test_a_text_that_the_template_shows_is_refused_before_it_is_rendered(header):
    long = Message.of("user", "word " * 200_000)
    messages = [Message.of("user", "Hi"), long, Message.of("user", "Bye")]
    rendering = Rendering(JinjaTemplate(SHOWS), (), {}, False, header)
    with pytest.raises(ContextLengthExceeded):
        rendering.check(messages, 4096)
    rendering.check(messages, 30_000)


def test_a_text_that_it_leaves_out_counts_for_nothing(header):
    long = Message.of("user", "word " * 200_000)
    rendering = Rendering(JinjaTemplate(LAST), (), {}, False, header)
    rendering.check([long, Message.of("user", "Hi")], 4096)
    with pytest.raises(ContextLengthExceeded):
        rendering.check([Message.of("user", "Hi"), long], 4096)


def test_what_is_long():
    assert not is_long(Given((Message.of("user", "Hi"),) * 500))
    assert is_long(Given((Message.of("user", "Hi"),) * 501))
    assert is_long(Given((Message.of("user", "x" * 60_000),) * 2))
    assert is_long(Given((Message("user", (TextPart("x"),) * 1000),)))
    call = ToolCall("id", "f", "{}")
    assert not is_long(Given((Message("assistant", tool_calls=(call,) * 10),)))
    assert is_long(Given((Message("assistant", tool_calls=(call,) * 1000),)))
    assert is_long(Given(tools=(Tool("f", "what it does"),) * 1000))
    assert is_long(Given(arguments={"documents": ["x"] * 1000}))
