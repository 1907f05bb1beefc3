"""One choice: its tokens to Events. Pure; knows no engine and no clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from puna.chat.calls import CallParser, PieceCallArguments, PieceCallStart, PieceText
from puna.chat.text import Ledger, ShownText, TextStream
from puna.engine.runner import Token
from puna.errors import EngineError
from puna.inference.logprobs import entry, finite
from puna.types import (
    Finished,
    FinishReason,
    TextDelta,
    ThinkingDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallStart,
)

ChoiceEvent: TypeAlias = TextDelta | ThinkingDelta | ToolCallStart | ToolCallDelta | Finished


class Choice:
    """Fed with tokens in order, then ended once.

    `controls`: bytes that stand for control tokens which the text needs (a stop string, a tag), since a Runner gives
    those without bytes. `parser`: reads tool calls out of the answer. `logprobs`: whether entries go with the text.
    `check`: what is wrong with an answer that the model has ended, if anything; it should never have an objection.
    """

    def __init__(
        self,
        index: int,
        stream: TextStream,
        *,
        parser: CallParser | None = None,
        controls: Mapping[int, bytes] | None = None,
        logprobs: bool = False,
        check: Callable[[str], str | None] | None = None,
    ) -> None:
        self.index = index
        self.tokens: list[int] = []
        self.reasoning = 0
        self._stream = stream
        self._parser = parser
        self._controls = controls or {}
        self._ledger = Ledger() if logprobs else None
        self._check = check
        self._answer: list[str] = []
        self._shown = 0
        self._plain = parser is None and check is None and not logprobs
        self._settled = self._plain and stream.settled
        self._calls = 0
        self._logprobs = 0.0

    @property
    def stopped(self) -> bool:
        """A stop string came, or a call again: feed no more."""
        return self._stream.stop is not None or (self._parser is not None and self._parser.repeated)

    @property
    def open(self) -> bool:
        """Whether a thought may be closed here."""
        return self._stream.open

    @property
    def thought_over(self) -> bool:
        """Whether no thinking can come any more."""
        return self._stream.thought_over

    @property
    def mean_logprob(self) -> float:
        """Of its tokens; they must come with log-probabilities."""
        return self._logprobs / len(self.tokens) if self.tokens else 0.0

    def feed(self, token: Token) -> Sequence[ChoiceEvent]:
        """What one more token lets show."""
        self.tokens.append(token.id)
        if token.logprob is not None:
            self._logprobs += finite(token.logprob)
        stream = self._stream
        data = token.data or self._controls.get(token.id, b"")
        if self._settled:
            text = stream.decode(data)
            return (TextDelta(self.index, text),) if text else ()
        if self._ledger is not None:
            self._ledger.add(stream.decoded, self._entry(token))
        thinking = stream.thinking
        pieces = stream.feed(data)
        if thinking or stream.thinking:
            self.reasoning = len(self.tokens)
        self._settled = self._plain and stream.settled
        return [event for piece in pieces for event in self._events(piece)]

    def close_thought(self, tokens: Sequence[int], text: str) -> Sequence[ChoiceEvent]:
        """What shows when `tokens`, which spell `text`, end the open thought. They are the answer's as if generated."""
        self.tokens += tokens
        self.reasoning = len(self.tokens)
        pieces = self._stream.close_thought(text)
        self._settled = self._plain and self._stream.settled
        return [event for piece in pieces for event in self._events(piece)]

    def finish(self, reason: FinishReason) -> Sequence[ChoiceEvent]:
        """What was held back, then Finished. `reason` is the engine's; a stop string or a call changes it."""
        events = [event for piece in self._stream.finish() for event in self._events(piece)]
        if self._parser is not None:
            for part in self._parser.finish():
                events += self._part(part)
        events += self._last_entries()
        if self.stopped:
            reason = "stop"
        elif reason == "stop" and not self._calls:
            self._check_answer()
        if self._calls and reason == "stop":
            reason = "tool_calls"
        error = None if self._parser is None else self._parser.parse_error
        return [*events, Finished(self.index, reason, tuple(self.tokens), self._stream.stop, error)]

    def _check_answer(self) -> None:
        objection = None if self._check is None else self._check("".join(self._answer))
        if objection is not None:
            raise EngineError(f"the engine broke the form that was asked for: {objection}")

    def _entry(self, token: Token) -> TokenLogprob:
        return entry(token.id, token.data, 0.0 if token.logprob is None else token.logprob, token.top)

    def _take(self, position: int) -> tuple[TokenLogprob, ...]:
        return () if self._ledger is None else self._ledger.take(position)

    def _events(self, piece: ShownText) -> list[ChoiceEvent]:
        if piece.thinking:
            return [ThinkingDelta(self.index, piece.text, self._take(piece.position))]
        begin = piece.position - len(piece.text)
        # Tokens of the tags around the thinking: they belong to no text of the answer.
        tags = self._take(begin)
        events: list[ChoiceEvent] = [ThinkingDelta(self.index, "", tags)] if tags else []
        if self._check is not None:
            self._answer.append(piece.text)
        if self._parser is None:
            return [*events, TextDelta(self.index, piece.text, self._take(piece.position))]
        if not self._shown:
            self._shown = begin
        for part in self._parser.feed(piece.text):
            events += self._part(part)
        return events

    def _part(self, part: PieceText | PieceCallStart | PieceCallArguments) -> list[ChoiceEvent]:
        if isinstance(part, PieceText):
            self._shown += len(part.text)
            return [TextDelta(self.index, part.text, self._take(self._shown))]
        if isinstance(part, PieceCallStart):
            self._calls += 1
            return [ToolCallStart(self.index, self._calls - 1, part.id, part.name, part.kind, part.written)]
        return [ToolCallDelta(self.index, self._calls - 1, part.text)]

    def _last_entries(self) -> list[ChoiceEvent]:
        """Tokens at the end that wrote no text; those of a stop string or a call are not shown."""
        if self._ledger is None or self.stopped or self._calls:
            return []
        entries = self._ledger.take(self._stream.decoded + 1)
        return [TextDelta(self.index, "", entries)] if entries else []
