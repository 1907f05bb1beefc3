from __future__ import annotations

import gc
import time

from puna.server.anthropic.messages import UserTurn, to_turns
from puna.server.body import LARGE
from puna.types import TextPart


def taken(times: int) -> float:
    """Seconds of this thread's for a conversation of which one speaker says all."""
    conversation = [UserTurn(role="user", content="Hello")] * times
    gc.disable()  # a full collection looks at all that other tests have left
    try:
        began = time.thread_time()
        (message,) = to_turns(None, conversation, {}).messages
        seconds = time.thread_time() - began
    finally:
        gc.enable()
    assert message.content == (TextPart("Hello"),) * times
    return seconds


def test_messages_of_one_speaker_become_one_without_copying_it_for_each():
    """Four times as many take four times as long; with a copy for each, sixteen times and more."""
    assert taken(LARGE) < 9 * taken(LARGE // 4) + 0.2
