"""What is said arrives as it was said: every kind of ask and reply, over the bytes of the wire."""

from __future__ import annotations

import asyncio
import math
import socket
import threading
from typing import Any

import pytest

from puna.engine.cpu.protocol import (
    HEADER,
    AskCancel,
    AskCount,
    AskDetokenize,
    AskGenerate,
    AskMessage,
    AskScore,
    AskTokenize,
    AskWeigh,
    Failed,
    Frames,
    Hello,
    Load,
    ReplyBody,
    ask_frame,
    hello_frame,
    load_frame,
    read_ask,
    read_frame,
    read_hello,
    read_load,
    read_replies,
    receive_frame,
    replies_frame,
)
from puna.engine.runner import End, Sampling, Token, Weighed
from puna.errors import ContextLengthExceeded, InvalidRequest, ModelFileError, Overloaded, PunaError
from puna.types import Candidate

SAMPLING = Sampling(max_tokens=9, seed=2**32 - 1, logit_bias=((3, 1.5), (4, -math.inf)), logprobs=2, temperature=0.1)

ASKS: list[AskMessage] = [
    AskGenerate(1, (1, 2, 3), SAMPLING, "root ::= [é]"),
    AskGenerate(2, (), Sampling(max_tokens=1, seed=0), None, (7, 8)),
    AskScore(3, (1, 2), 5),
    AskWeigh(7, (1, 2), (3, 4)),
    AskTokenize(4, "é\n\x00𝄞", special=True, bos=False),
    AskDetokenize(5, (7, 8)),
    AskCount(6),
    AskCancel(1),
]

TOP = (Candidate(1, b"\xff\x00", -0.25), Candidate(2, "é".encode(), -math.inf))

ANSWERS: list[ReplyBody] = [
    Token(5, b"\xf0\x9f"),
    Token(6, b"", -1.5, TOP),
    Token(7, b"x", 0.0, ()),
    End("length", 10, 0, 3, 5, 6, {"seed": 1, "logit_bias": [[1, 2.0]]}),
    [(-0.5, TOP), (-2.0, ())],
    Weighed((-0.5, -math.inf), 32),
    [],
    [1, 2, 3],
    b"\x00\xff",
]


def body(frame: bytes) -> bytes:
    (length,) = HEADER.unpack(frame[: HEADER.size])
    assert length == len(frame) - HEADER.size
    return frame[HEADER.size :]


@pytest.mark.parametrize("ask", ASKS)
def test_asks(ask: AskMessage) -> None:
    assert read_ask(body(ask_frame(ask))) == ask


def test_a_bias_is_written_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop of the server writes it: a copy of each pair took a fifth of a second for a bias of each token."""
    written: list[Any] = []
    monkeypatch.setattr("puna.engine.cpu.protocol._frame", lambda value: written.append(value) or b"")
    bias = tuple((token, 1.0) for token in range(50_000))
    ask_frame(AskGenerate(3, (1,), Sampling(max_tokens=1, seed=0, logit_bias=bias), None))
    ((_, said),) = written
    assert said["sampling"]["logit_bias"] is bias


def test_all_replies_of_a_step_are_one_frame() -> None:
    replies = list(enumerate(ANSWERS))
    assert read_replies(body(replies_frame(replies))) == replies


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("no", param="grammar", code="x"),
        ModelFileError("broken"),
        ContextLengthExceeded(600, 512, param="prompt", what="prompt"),
        Overloaded("later", retry_after=3.0),
    ],
)
def test_errors_keep_their_kind_and_all_they_say(error: PunaError) -> None:
    ((number, read),) = read_replies(body(replies_frame([(4, error)])))
    assert number == 4
    assert type(read) is type(error)
    assert vars(read) == vars(error)
    failed = read_hello(body(hello_frame(Failed(error))))
    assert isinstance(failed, Failed)
    assert vars(failed.error) == vars(error)


def test_the_first_word() -> None:
    hello = Hello("1.0", 320, None, (1, 2), False, 64, 4096, 10**9, {"</s>": 2})
    assert read_hello(body(hello_frame(hello))) == hello


def test_what_to_load() -> None:
    load = Load("/a b/é.gguf", 512, 4, threads=None, step_tokens=64, memory=0, speculation=False)
    assert read_load(body(load_frame(load))) == load


def test_a_frame_is_received_whole_and_its_end_is_seen() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        frame = load_frame(Load("x" * 300_000, 512, 4, threads=None, step_tokens=None, memory=0))
        threading.Thread(target=lambda: [ours.sendall(frame[:2]), ours.sendall(frame[2:]), ours.close()]).start()
        assert receive_frame(theirs) == body(frame)
        assert receive_frame(theirs) == b""


def test_a_token_is_a_few_bytes_and_the_same_value_each_time() -> None:
    frame = replies_frame([(number, Token(7, b" the")) for number in range(16)])
    assert len(frame) < 16 * 24
    first, second = read_replies(body(frame))[0][1], read_replies(body(frame))[1][1]
    assert first is second


@pytest.mark.parametrize("size", [1, 3, 4, 5, 1000])
def test_frames_are_cut_from_what_arrives_in_any_pieces(size: int) -> None:
    sent = [ask_frame(ask) for ask in ASKS]
    stream, frames = b"".join(sent), Frames()
    got = [one for at in range(0, len(stream), size) for one in frames.feed(stream[at : at + size])]
    assert got == [body(frame) for frame in sent]


async def test_frames_are_read_until_the_other_side_is_gone() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(ask_frame(ASKS[0]) + ask_frame(ASKS[1])[:-1])
    reader.feed_eof()
    assert read_ask(await read_frame(reader)) == ASKS[0]
    assert await read_frame(reader) == b""
