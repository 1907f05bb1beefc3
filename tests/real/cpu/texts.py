"""Texts of all kinds to tokenize: sentences, code, digits, spaces, many scripts, special tokens, random letters."""

from __future__ import annotations

import random
from collections.abc import Sequence

_SCRIPTS = (
    "The quick brown fox jumps over the lazy dog",
    "Größenwahn, naïve façade, Ærøskøbing, coöperate",
    "Съешь же ещё этих мягких французских булок",
    "Το γρήγορο καφέ αλεπού πηδάει",
    "快速的棕色狐狸跳过懒狗。你好，世界！",
    "いろはにほへと ちりぬるを カタカナ",
    "다람쥐 헌 쳇바퀴에 타고파",
    "نص حكيم له سر قاطع وذو شأن عظيم",
    "דג סקרן שט בים מאוכזב",
    "ऋषियों को सताने वाले दुष्ट राक्षसों",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า",
    "👩‍👩‍👧‍👦 🇩🇪 ❤️ 👍🏽 ✨🚀",
    "∑ ∫ √2 ≈ 1.414 ± ½ → ∞ ℵ₀",
    "Zalgo: Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́O",
)
_CODE = (
    "def f(x):\n    return [i**2 for i in range(x) if i % 2 == 0]\n",
    'for (int i = 0; i < 10; ++i) {\n\tprintf("%d\\n", i);\n}\r\n',
    '{"key": [1, 2.5, null, true], "nested": {"a\\u00e9": "\\n"}}',
    "SELECT * FROM t WHERE a >= 10 AND b LIKE '%x_%';",
    "https://example.com/a/b?c=d&e=%20#frag user@example.org",
    "#!/bin/sh\nset -eu; echo \"$HOME\" | sed 's/a/b/g' > /dev/null",
    "I'm you're he'S WE'LL they'd don't o'clock 'tis ''quoted''",
)
_SPACES = (" ", "  ", "\t", "\n", "\n\n", "\r\n", "\u00a0", "\u3000", "\u2003", "\u200b", "   \n  ", "\x0b", "\x85")
_DIGITS = ("0", "42", "1234567890", "3.14159", "1,000,000", "٣٤٥", "Ⅷ", "²", "1e-10", "0x1F")


def texts(count: int, specials: Sequence[str] = (), seed: int = 0) -> list[str]:
    """`count` texts, the same for the same arguments."""
    source = random.Random(seed)
    words = [word for sentence in _SCRIPTS for word in sentence.split()]
    pools: list[Sequence[str]] = [words, words, _CODE, _SPACES, _DIGITS, _SCRIPTS, list(specials) or words]
    made = ["", *_SCRIPTS, *_CODE, *_SPACES, *_DIGITS, *specials]
    while len(made) < count:
        parts = []
        for _ in range(source.randint(1, 9)):
            pool = source.choice(pools)
            parts.append(source.choice(pool) if source.random() < 0.85 else _letters(source))
        made.append(source.choice(("", "", " ", " ", "\n")).join(parts))
    return made[:count]


def _letters(source: random.Random) -> str:
    """A few letters from anywhere in what is assigned early enough for every Unicode version in use."""
    ranges = ((0x20, 0x7F), (0xA0, 0x250), (0x370, 0x590), (0x900, 0xE00), (0x2000, 0x2C00), (0x3040, 0x9FFF))
    return "".join(chr(source.randrange(*source.choice(ranges))) for _ in range(source.randint(1, 6)))
