"""Harmony, the form in which gpt-oss models write: messages with a header that names their channel. Pure.

    <|channel|>analysis<|message|>thinking<|end|><|start|>assistant<|channel|>final<|message|>answer<|return|>

What is on the channel `analysis` is thinking; everything else is the answer.
"""

from __future__ import annotations

from puna.chat.text import partial_suffix

MARKS = ("<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>", "<|return|>", "<|call|>")
_ENDS = ("<|end|>", "<|return|>", "<|call|>", "<|start|>")
_MESSAGE = "<|message|>"


class HarmonySplitter:
    """Thinking and answer apart, like `ThinkingSplitter`; headers are not given. The prompt ends before a header."""

    def __init__(self) -> None:
        self._held = ""
        self._in_body = False
        self._analysis = False
        self._seen = False

    @property
    def held(self) -> int:
        return len(self._held)

    @property
    def thinking(self) -> bool:
        return not self._in_body or self._analysis

    @property
    def open(self) -> bool:
        return self._in_body and self._analysis and not any(partial_suffix(self._held, end) for end in _ENDS)

    @property
    def settled(self) -> bool:
        """Never: another message may follow."""
        return False

    def feed(self, text: str) -> tuple[str, str]:
        self._held += text
        thought = answer = ""
        while self._in_body or self._header():
            body, ended = self._body()
            if self._analysis:
                thought += body
            else:
                answer += body
            if not ended:
                break
        return thought, answer

    def finish(self) -> tuple[str, str]:
        """A header that has no end was none if no message has come: then it is the answer."""
        held, self._held = self._held, ""
        if self._in_body:
            return (held, "") if self._analysis else ("", held)
        return "", "" if self._seen else held

    def _header(self) -> bool:
        """Read one, if it is there whole."""
        head, mark, rest = self._held.partition(_MESSAGE)
        if not mark:
            return False
        self._held = rest
        self._analysis = "<|channel|>analysis" in head
        self._in_body = self._seen = True
        return True

    def _body(self) -> tuple[str, bool]:
        """What may be given of a message, and whether it has ended."""
        places = [(place, end) for end in _ENDS if (place := self._held.find(end)) >= 0]
        if places:
            place, end = min(places)
            body, self._held = self._held[:place], self._held[place + len(end) :]
            self._in_body = False
            return body, True
        keep = len(self._held) - max(partial_suffix(self._held, end) for end in _ENDS)
        body, self._held = self._held[:keep], self._held[keep:]
        return body, False
