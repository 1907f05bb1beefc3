"""The child's words: whole and in order from every thread, also while the server does not listen."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from puna.engine.cpu.voice import Voice

FRAME = 10_000


@pytest_asyncio.fixture
async def ends() -> AsyncIterator[tuple[Voice, socket.socket]]:
    """A voice, and the socket at which it is heard."""
    mouth, ear = socket.socketpair()
    mouth.setblocking(False)
    ear.setblocking(False)
    voice = Voice(mouth, asyncio.get_running_loop())
    with mouth, ear:
        yield voice, ear
        voice.close()


async def heard(ear: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await asyncio.get_running_loop().sock_recv(ear, 1 << 16)
    return data


async def test_what_is_said_is_there_at_once(ends: tuple[Voice, socket.socket]) -> None:
    voice, ear = ends
    voice.say(b"one")
    voice.say(b"two")
    assert ear.recv(100) == b"onetwo"


async def test_frames_of_several_threads_stay_whole_while_nobody_listens(ends: tuple[Voice, socket.socket]) -> None:
    """Far more than a socket holds: the rest goes out once somebody listens."""
    voice, ear = ends

    def speak(letter: int) -> None:
        for _ in range(200):
            voice.say(bytes([letter]) * FRAME)

    await asyncio.gather(*(asyncio.to_thread(speak, letter) for letter in (65, 66, 67)))
    data = await heard(ear, 600 * FRAME)
    frames = [data[at : at + FRAME] for at in range(0, len(data), FRAME)]
    assert all(frame == frame[:1] * FRAME for frame in frames)
    assert sorted(frame[:1] for frame in frames) == [b"A"] * 200 + [b"B"] * 200 + [b"C"] * 200
    voice.say(b"at once again")
    assert await heard(ear, 13) == b"at once again"


@pytest.mark.parametrize("behind", [True, False])
async def test_a_server_that_has_gone_hears_nothing(behind: bool, ends: tuple[Voice, socket.socket]) -> None:
    voice, ear = ends
    if behind:
        voice.say(b"x" * 10_000_000)
    ear.close()
    voice.say(b"y")
    await asyncio.to_thread(voice.say, b"z")
