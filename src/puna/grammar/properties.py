"""Unicode's classes of characters by name, as patterns write them: `\\p{L}`, `\\p{Lu}`, `\\p{Emoji}`.

Pure. A class is two sets: what surely belongs to it in every version of Unicode that a reader may have, and what may.
Characters that this Python's tables do not know yet may belong to any.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from functools import cache
from itertools import groupby
from types import MappingProxyType

from puna.grammar.gbnf import union

Ranges = tuple[tuple[int, int], ...]

_LONG = MappingProxyType(
    {
        **{"Letter": "L", "Uppercase_Letter": "Lu", "Lowercase_Letter": "Ll", "Titlecase_Letter": "Lt"},
        **{"Modifier_Letter": "Lm", "Other_Letter": "Lo", "Mark": "M", "Number": "N", "Decimal_Number": "Nd"},
        **{"Letter_Number": "Nl", "Other_Number": "No", "Punctuation": "P", "Symbol": "S", "Separator": "Z"},
        **{"Space_Separator": "Zs", "Math_Symbol": "Sm", "Currency_Symbol": "Sc", "Control": "Cc"},
    }
)
_KINDS = {"L": "ultmo", "M": "nce", "N": "dlo", "P": "cdseifo", "S": "mcko", "Z": "slp"}
_NAMES = frozenset({"Cc", "Cf", *(kind + sort for kind, sorts in _KINDS.items() for sort in ("", *sorts))})
# Pictures that have been in Unicode since its sixth version: faces, animals, food, vehicles, places and things.
_PICTURES: Ranges = (
    *((0x2600, 0x2603), (0x2615, 0x2615), (0x2708, 0x2709), (0x2728, 0x2728), (0x2764, 0x2764), (0x2B50, 0x2B50)),
    *((0x1F300, 0x1F320), (0x1F330, 0x1F335), (0x1F337, 0x1F37C), (0x1F380, 0x1F393), (0x1F3A0, 0x1F3C4)),
    *((0x1F3E0, 0x1F3F0), (0x1F400, 0x1F43E), (0x1F442, 0x1F4FC), (0x1F5FB, 0x1F640), (0x1F645, 0x1F64F)),
    (0x1F680, 0x1F6C5),
)
_MAYBE_PICTURES: Ranges = ((0xA9, 0xA9), (0xAE, 0xAE), (0x203C, 0x3299), (0x1F000, 0x1FAFF), (0xE0020, 0xE007F))
_DIGITS: Ranges = ((0x23, 0x23), (0x2A, 0x2A), (0x30, 0x39))
_JOINERS: Ranges = ((0x200D, 0x200D), (0x20E3, 0x20E3), (0xFE0F, 0xFE0F))
_FLAGS: Ranges = ((0x1F1E6, 0x1F1FF),)
_TONES: Ranges = ((0x1F3FB, 0x1F3FF),)
_TAGS: Ranges = ((0xE0020, 0xE007F),)

_OTHERS: Mapping[str, tuple[Ranges, Ranges]] = MappingProxyType(
    {
        "Any": (((0, 0x10FFFF),), ((0, 0x10FFFF),)),
        "ASCII": (((0, 0x7F),), ((0, 0x7F),)),
        "Emoji": (_PICTURES, (*_DIGITS, *_MAYBE_PICTURES)),
        "Emoji_Presentation": (((0x1F600, 0x1F640), (0x1F680, 0x1F6C5)), _MAYBE_PICTURES),
        "Extended_Pictographic": (_PICTURES, _MAYBE_PICTURES),
        "Regional_Indicator": (_FLAGS, _FLAGS),
        "Emoji_Modifier": (_TONES, _TONES),
        "Emoji_Component": ((*_DIGITS, *_JOINERS, *_FLAGS, *_TONES, *_TAGS),) * 2,
    }
)


def property_ranges(name: str) -> tuple[Ranges, Ranges] | None:
    """What surely is in the class and what may be, sorted; None: no class of this name is known."""
    kind, _, value = name.rpartition("=")
    if kind in ("General_Category", "gc", ""):
        short = _LONG.get(value, value)
        if short in _NAMES:
            return _category(short)
    return _OTHERS.get(name)


@cache
def _category(name: str) -> tuple[Ranges, Ranges]:
    sure = [one for short, ranges in _scanned().items() if short.startswith(name) for one in ranges]
    return union(sure), union([*sure, *_scanned()["Cn"]])


@cache
def _scanned() -> Mapping[str, list[tuple[int, int]]]:
    """Where each category of two letters is."""
    found: dict[str, list[tuple[int, int]]] = {}
    start = 0
    for name, run in groupby(map(unicodedata.category, map(chr, range(0x110000)))):
        end = start + sum(1 for _ in run)
        found.setdefault(name, []).append((start, end - 1))
        start = end
    return found
