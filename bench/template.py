"""What a chat's template costs a request: rendered by a cell of the cage, and in this process, in turn.

    python bench/template.py [--rounds N]

Prints microseconds, medians of rounds: what the cage adds to a request is their difference.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

from puna.inference.prompt import PLAIN_TEMPLATE
from puna.template.cage import Cage
from puna.template.languages import TemplateKey, compile_template
from puna.types import Message

CHATS = {
    "one short message": [Message.of("user", "Why is the sky blue?")],
    "forty turns, 20 kB": [Message.of(role, "word " * 100) for role in ("user", "assistant")] * 20,
    "one text of 1 MB": [Message.of("user", "word " * 200_000)],
}


def microseconds(render: Callable[[], str], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        render()
    return (time.perf_counter() - began) / times * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    key = TemplateKey("jinja", PLAIN_TEMPLATE)
    here = compile_template(key)
    with Cage() as cage:
        caged = cage.open(key)
        for what, messages in CHATS.items():
            times = 200 if len(str(messages)) < 100_000 else 10
            ours, theirs = partial(caged.render, messages), partial(here.render, messages)
            pairs = [(microseconds(ours, times), microseconds(theirs, times)) for _ in range(rounds)]
            cell, own = (statistics.median(column) for column in zip(*pairs, strict=True))
            print(f"{what:20}  cell {cell:8.0f} us   here {own:8.0f} us   added {cell - own:8.0f} us")


if __name__ == "__main__":
    main()
