"""How text is cut into words before byte-level merging, by the pre-tokenizer's name in the file. Pure.

A rule is a list of patterns: each cuts what the ones before left, and both matches and gaps are words. Source: the
patterns that the models' own tokenizers declare, as llama.cpp names and reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

_CONTRACTION = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTION}|{_LETTERS}|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTION}|{_LETTERS}|\p{{N}}|{_REST}"
_QWEN35 = (
    rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Upper and lower case by ASCII only: so llama.cpp reads the classes of these two.
_UPPER, _LOWER = r"(?:(?=\p{L})[^a-z])", r"(?:(?=\p{L})[^A-Z])"
_CASED_REST = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _cased(tail: str, digits: str) -> str:
    lead = r"[^\r\n\p{L}\p{N}]?"
    return rf"{lead}{_UPPER}*{_LOWER}+{tail}|{lead}{_UPPER}+{_LOWER}*{tail}|{digits}|{_CASED_REST}"


@dataclass(frozen=True, slots=True)
class WordRule:
    """How a pre-tokenizer cuts text into words.

    `whole_words`: a word that is a token is not merged. `add_bos`: what holds when the file does not say.
    """

    patterns: tuple[str, ...]
    whole_words: bool = False
    add_bos: bool = False


_PLAIN = WordRule((_GPT2,))
_DIGITS_FIRST = WordRule((r"\p{N}", _GPT2))
_TRIPLES = WordRule((_LLAMA3,))
_TRIPLES_WHOLE = WordRule((_LLAMA3,), whole_words=True, add_bos=True)
_SINGLES = WordRule((_QWEN2,))
_SINGLES_MARKED = WordRule((_QWEN35,))
_CASES = WordRule((_cased(f"{_CONTRACTION}?", r"\p{N}{1,3}"),))

WORD_RULES: Mapping[str, WordRule] = {
    "llama-bpe": _TRIPLES_WHOLE,
    "llama3": _TRIPLES_WHOLE,
    "llama-v3": _TRIPLES_WHOLE,
    "falcon3": _TRIPLES_WHOLE,
    "pixtral": _TRIPLES_WHOLE,
    "lfm2": _TRIPLES_WHOLE,
    "smaug-bpe": _TRIPLES,
    "dbrx": _TRIPLES,
    "gpt-2": _PLAIN,
    "phi-2": _PLAIN,
    "olmo": _PLAIN,
    "mpt": _PLAIN,
    "jais": _PLAIN,
    "smollm": _DIGITS_FIRST,
    "starcoder": _DIGITS_FIRST,
    "refact": _DIGITS_FIRST,
    "command-r": _DIGITS_FIRST,
    "exaone": _DIGITS_FIRST,
    "codeshell": _DIGITS_FIRST,
    "qwen2": _SINGLES,
    "qwen35": _SINGLES_MARKED,
    "deepseek-r1-qwen": _SINGLES,
    "stablelm2": _SINGLES,
    "megrez": _SINGLES,
    "deepseek-v3": WordRule((
        r"\p{N}{1,3}",
        "[一-龥\u3040-ゟ゠-ヿ]+",
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    )),
    "tekken": WordRule((_cased("", r"\p{N}"),), whole_words=True, add_bos=True),
    "gpt-4o": _CASES,
    "llama4": _CASES,
}  # fmt: skip


def word_cutter(rule: WordRule) -> Callable[[str], list[str]]:
    """What cuts a text into its words by a rule; joined again they are the text."""
    import regex  # the server's process, which reads the names above, has no use for it

    patterns = [regex.compile(pattern) for pattern in rule.patterns]

    def cut(text: str) -> list[str]:
        parts = [text] if text else []
        for pattern in patterns:
            parts = [piece for part in parts for piece in _cut(pattern, part)]
        return parts

    def _cut(pattern: regex.Pattern[str], part: str) -> list[str]:
        pieces: list[str] = []
        end = 0
        for match in pattern.finditer(part):
            start, stop = match.span()
            if start > end:
                pieces.append(part[end:start])
            if stop > start:
                pieces.append(part[start:stop])
            end = stop
        if end < len(part):
            pieces.append(part[end:])
        return pieces

    return cut
