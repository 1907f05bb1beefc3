"""Tokens' bytes to text as it may be shown: whole characters, no stop string, thinking apart. Pure.

Everything here is fed piece by piece and gives the same text however the pieces are cut. The parts are chained by
`TextStream`, the one that callers use.

Positions count characters of the decoded text, from its beginning. They are how log-probabilities find the text that
their token wrote (`Ledger`): pieces of text may be held back, cut or given late, their positions stay.
"""

from __future__ import annotations

from codecs import utf_8_decode
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from puna.chat.characters import read_by_grammar
from puna.template.facts import ThinkTags
from puna.types import TokenLogprob


class StopMatcher:
    """Holds back what may become a stop string. The one that is complete first counts; of two, the longer."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(dict.fromkeys(stop for stop in stops if stop))
        self._firsts = frozenset(stop[0] for stop in self._stops)
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""
        self.found: str | None = None

    @property
    def settled(self) -> bool:
        """Whether all that is fed is given at once, now and later."""
        return not self._stops

    def feed(self, text: str) -> str:
        """What may be shown by now. Once `found` is set, nothing more ever is."""
        if not self._stops:
            return text
        if self.found is not None:
            return ""
        text = self._held + text
        cut = self._cut(text)
        if cut is not None:
            self._held = ""
            return text[:cut]
        keep = len(text) - self._partial(text)
        self._held = text[keep:]
        return text[:keep]

    def finish(self) -> str:
        """What was held back and did not become a stop string."""
        held, self._held = self._held, ""
        return held

    def _cut(self, text: str) -> int | None:
        """Where the first complete stop string begins."""
        best: tuple[int, int] | None = None
        for stop in self._stops:
            begin = text.find(stop)
            if begin >= 0 and (best is None or (begin + len(stop), begin) < best):
                best = (begin + len(stop), begin)
                self.found = stop
        return None if best is None else best[1]

    def _partial(self, text: str) -> int:
        """How many characters at the end may be the beginning of a stop string."""
        for begin in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[begin] in self._firsts:
                tail = text[begin:]
                if any(stop.startswith(tail) for stop in self._stops):
                    return len(tail)
        return 0


class ThinkingSplitter:
    """Thinking and answer apart. Thinking comes first or not at all: a tag in the middle of an answer is text.

    `inside`: the prompt has opened the thinking already. Tags and the white space around them are not given.
    """

    def __init__(self, tags: ThinkTags | None, *, inside: bool = False) -> None:
        self._tags = tags
        self._state = "answer" if tags is None else "thinking" if inside else "start"
        self._inside = self._fresh = inside
        self._held = ""

    @property
    def held(self) -> int:
        """How many characters fed are not given yet."""
        return len(self._held)

    @property
    def thinking(self) -> bool:
        """Whether what comes next is thinking, as far as is known."""
        return self._state == "thinking"

    @property
    def open(self) -> bool:
        """Whether the closing tag may be put here: inside a thought, and not in the middle of that tag."""
        return self._state == "thinking" and self._tags is not None and not partial_suffix(self._held, self._tags.close)

    @property
    def settled(self) -> bool:
        """Whether all that comes is answer."""
        return self._state == "answer"

    def feed(self, text: str) -> tuple[str, str]:
        """(thinking, answer) that may be shown by now."""
        if self._state == "answer":
            return "", text
        self._held += text
        if self._state == "start" and not self._opened():
            return "", self._take() if self._state == "answer" else ""
        thought = self._thought() if self._state == "thinking" else ""
        return thought, self._after()

    def finish(self) -> tuple[str, str]:
        """What was held back: the beginning of a tag that did not come."""
        held = self._take()
        if self._state == "thinking":
            return held, ""
        return "", "" if self._state == "closed" else held

    def _take(self) -> str:
        held, self._held = self._held, ""
        return held

    def _opened(self) -> bool:
        """Look for the opening tag. False: not there, or not to be told yet."""
        assert self._tags is not None
        begin = self._held.lstrip()
        if begin.startswith(self._tags.open):
            self._held = begin[len(self._tags.open) :]
            self._state, self._fresh = "thinking", True
            return True
        if begin and not self._tags.open.startswith(begin):
            self._state = "answer"
        return False

    def _thought(self) -> str:
        """Thinking up to its closing tag; white space waits, since before a tag it is not part of it."""
        assert self._tags is not None
        if self._fresh and not self._begun():
            return ""
        end = self._held.find(self._tags.close)
        if end >= 0:
            thought, self._held = self._held[:end].rstrip(), self._held[end + len(self._tags.close) :]
            self._state = "closed"
            return thought
        keep = len(self._held) - partial_suffix(self._held, self._tags.close)
        keep = len(self._held[:keep].rstrip())
        thought, self._held = self._held[:keep], self._held[keep:]
        return thought

    def _begun(self) -> bool:
        """White space before the first thought is passed over, and a tag that repeats the one in the prompt."""
        assert self._tags is not None
        self._held = self._held.lstrip()
        if self._inside and self._tags.open.startswith(self._held[: len(self._tags.open)]):
            if len(self._held) < len(self._tags.open):
                return False
            self._held = self._held[len(self._tags.open) :].lstrip()
            self._inside = False
        self._fresh = not self._held
        return not self._fresh

    def _after(self) -> str:
        """The answer's beginning, once the thinking is closed and white space has passed."""
        if self._state == "closed":
            self._held = self._held.lstrip()
            if self._held:
                self._state = "answer"
        return self._take() if self._state == "answer" else ""


def partial_suffix(text: str, tag: str) -> int:
    """How many characters at the end of `text` begin `tag`."""
    for size in range(min(len(tag) - 1, len(text)), 0, -1):
        if text.endswith(tag[:size]):
            return size
    return 0


class Ledger:
    """Log-probabilities that wait for their tokens' text to be shown; one entry a token, in order."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, TokenLogprob]] = deque()

    def add(self, position: int, entry: TokenLogprob) -> None:
        """`position`: where the text of the token begins."""
        self._waiting.append((position, entry))

    def take(self, position: int) -> tuple[TokenLogprob, ...]:
        """The entries of tokens whose text begins before `position`."""
        taken = []
        while self._waiting and self._waiting[0][0] < position:
            taken.append(self._waiting.popleft()[1])
        return tuple(taken)


@dataclass(frozen=True, slots=True)
class ShownText:
    """Text to show: `position` is how far the decoded text is used up with it (see the module's header)."""

    text: str
    thinking: bool
    position: int


class Splitter(Protocol):
    """Thinking and answer apart. `held`: characters fed and not given yet; `thinking`: what seems to come next is;
    `open`: a thought has begun that may be closed here; `settled`: all that is fed is given at once, as answer, now and
    later.
    """

    @property
    def held(self) -> int: ...

    @property
    def thinking(self) -> bool: ...

    @property
    def open(self) -> bool: ...

    @property
    def settled(self) -> bool: ...

    def feed(self, text: str) -> tuple[str, str]: ...

    def finish(self) -> tuple[str, str]: ...


class TextStream:
    """Bytes of tokens in, pieces of text out. `stop` is the stop string that ended it.

    `held`: a grammar holds the answer, whose characters are those that it has read.
    """

    def __init__(self, stops: Sequence[str] = (), splitter: Splitter | None = None, *, held: bool = False) -> None:
        self._held = held
        self._half = b""
        self._matcher = StopMatcher(stops)
        self._splitter = splitter or ThinkingSplitter(None)
        self._released = 0
        self.decoded = 0

    @property
    def stop(self) -> str | None:
        return self._matcher.found

    @property
    def thinking(self) -> bool:
        return self._splitter.thinking

    @property
    def open(self) -> bool:
        """Whether a thought may be closed here: see `close_thought`."""
        return not self._half and self._splitter.open

    @property
    def thought_over(self) -> bool:
        """Whether no thinking can come any more."""
        return self._splitter.settled

    @property
    def settled(self) -> bool:
        """Whether `decode` gives all that `feed` would from now on: no stop string to look for, no thinking to come."""
        return self._matcher.settled and self._splitter.settled

    def decode(self, data: bytes, final: bool = False) -> str:
        """The whole characters that the bytes of one token complete. A broken one becomes U+FFFD."""
        data = self._half + data
        text, used = read_by_grammar(data, final) if self._held else utf_8_decode(data, "replace", final)
        self._half = data[used:]
        self.decoded += len(text)
        return text

    def feed(self, data: bytes) -> list[ShownText]:
        """What the bytes of one token let show."""
        text = self.decode(data)
        return self._pass(self._matcher.feed(text)) if text else []

    def close_thought(self, text: str) -> list[ShownText]:
        """What shows when `text`, in which no stop string is looked for, is put here to end a thought that is open."""
        held = self._pass(self._matcher.finish())
        self.decoded += len(text)
        return held + self._pass(text)

    def finish(self) -> list[ShownText]:
        """All that was held back, at the end. After a stop string: only what came before it."""
        rest = ""
        if self.stop is None:
            rest = self._matcher.feed(self.decode(b"", final=True)) + self._matcher.finish()
        return self._pass(rest) + self._pieces(*self._splitter.finish())

    def _pass(self, text: str) -> list[ShownText]:
        self._released += len(text)
        return self._pieces(*self._splitter.feed(text)) if text else []

    def _pieces(self, thought: str, answer: str) -> list[ShownText]:
        position = self._released - self._splitter.held
        pieces = []
        if thought:
            pieces.append(ShownText(thought, True, position - len(answer)))
        if answer:
            pieces.append(ShownText(answer, False, position))
        return pieces
