"""Text in which some control tokens' spellings are only text, to token ids.

Between two control tokens the text is one piece for the tokenizer, whoever wrote its parts: so prompts without such a
spelling, which are all but a few, have the ids that they always had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from puna.chat.disguise import Written
from puna.engine.runner import Runner
from puna.lane import in_lane
from puna.model.markup import Markup
from puna.types import MEDIA_MARKER

ZERO_WIDTH = "\N{ZERO WIDTH SPACE}"
"""Breaks a control token's spelling where a text can only be given to an engine that looks for them."""

LARGE = 200_000
"""Characters of a text that is not looked through in the event loop."""

_SPACE = " \t\n\v\f\r"


async def tokenize_prompt(runner: Runner, text: str, bos: str, *, begun: bool = False) -> list[int]:
    """Control tokens' text counts as these. A prompt begins with one `bos` if the model wants it, however it came."""
    written = bool(bos) and text.startswith(bos)
    return await runner.tokenize(text, special=True, bos=not (written or begun))


async def tokenize_written(runner: Runner, written: Written, bos: str, *, begun: bool = False) -> list[int]:
    """The same, but in a text that is disguised only what shows as a control token is one."""
    if not written.meant:
        return await tokenize_prompt(runner, written.disguised, bos, begun=begun)
    tokens: list[int] = []
    info, markup = runner.info, runner.info.markup
    if info.add_bos and info.bos is not None and not begun and not (bos and written.disguised.startswith(bos)):
        tokens.append(info.bos)
    before = ""
    large = len(written.disguised) > LARGE
    parts = await in_lane(lambda: markup.split(written.disguised)) if large else markup.split(written.disguised)
    for part in parts:
        if isinstance(part, int):
            tokens.append(part)
            before = markup.texts[part]
        else:
            text = await _behind(runner, before, part) if before else part
            tokens += await _plain(runner, written, text)
    return tokens


async def _behind(runner: Runner, control: str, part: str) -> str:
    """`part` without the white space that the control token before it takes, as some of some models do."""
    if part[:1] not in _SPACE:
        return part
    _, *behind = await runner.tokenize(f"{control} a", special=True, bos=False)
    return part.lstrip(_SPACE) if behind == await runner.tokenize("a", special=False, bos=False) else part


async def _plain(runner: Runner, written: Written, part: str) -> list[int]:
    """Ids of a part that holds no control token."""
    text = written.shown(part)
    tokens = await runner.tokenize(text, special=False, bos=False)
    if runner.info.markup.texts.keys().isdisjoint(tokens):
        return tokens
    return await _in_halves(runner, text)


async def _in_halves(runner: Runner, text: str) -> list[int]:
    """Ids of a text in which the engine finds user-defined tokens whatever it is told: it gets each of them in two.

    A control token between the halves keeps them apart, and goes again. A line's end follows it, which joins no word,
    and goes too: without it SentencePiece would put a space there.
    """
    between, apart = next(iter(runner.info.markup.ids.items()))
    halves = list(_halves(text, runner.info.markup))
    line = await runner.tokenize("\n", special=False, bos=False)
    tokens = await runner.tokenize(f"{between}\n".join(halves), special=True, bos=False)
    return [
        token
        for number, group in enumerate(_split(tokens, apart))
        for token in (group[len(line) :] if number and group[: len(line)] == line else group)
    ]


def _split(tokens: Sequence[int], apart: int) -> Iterator[Sequence[int]]:
    begin = 0
    for end, token in enumerate(tokens):
        if token == apart:
            yield tokens[begin:end]
            begin = end + 1
    yield tokens[begin:]


def _halves(text: str, markup: Markup) -> Iterator[str]:
    """`text` cut inside each control token's spelling, behind its bracket, where words are cut in any case."""
    end = 0
    for begin, stop in markup.spans(text):
        letter = next((place for place in range(begin + 1, stop) if text[place].isalnum()), begin + 1)
        if letter > end:
            yield text[end:letter]
            end = letter
    yield text[end:]


def beside(written: Written, markup: Markup) -> tuple[tuple[str, ...], bool]:
    """The texts around each place of media, for an engine that reads control tokens out of them; whether it changed.

    Such an engine cannot be told which are none: these get a character without width inside.
    """
    parts = written.disguised.split(MEDIA_MARKER)
    texts = tuple(_broken(written.shown(part), part, markup) for part in parts)
    return texts, MEDIA_MARKER.join(texts) != written.text


async def spelled(runner: Runner, tokens: Sequence[int]) -> str:
    """Ids as such a text."""
    markup = runner.info.markup
    text = (await runner.detokenize(tokens)).decode(errors="replace")
    if markup.controls(text) == [token for token in tokens if token in markup.texts]:
        return text
    text, run = "", list[int]()
    for token in tokens:
        if token in markup.texts:
            text += await _run(runner, run) + markup.texts[token]
            run = []
        else:
            run.append(token)
    return text + await _run(runner, run)


async def _run(runner: Runner, tokens: Sequence[int]) -> str:
    """Text of ids among which no control token is."""
    text = (await runner.detokenize(tokens)).decode(errors="replace") if tokens else ""
    return _broken(text, "", runner.info.markup)


def _broken(text: str, disguised: str, markup: Markup) -> str:
    """`text` with a break in each control token's spelling that the disguised text has not."""
    inside = [begin + 1 for begin, end in markup.spans(text) if text[begin:end] != disguised[begin:end]]
    return ZERO_WIDTH.join(text[begin:end] for begin, end in zip([0, *inside], [*inside, len(text)], strict=True))
