"""Write the table of docs/reference/engines.md from what engines say. `--check`: only whether it is up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from puna.engine.engine import Profile
from puna.engine.runner import Feature
from puna.roster import ROSTER
from puna.server.engines import factory

TARGET = Path(__file__).parent / "reference" / "engines.md"

BEGIN = "<!-- from here to the end of the table: python docs/generate_engines.py -->\n"
END = "<!-- the end of the table -->\n"

FEATURES = {
    Feature.CONSTRAINT: "constraint (JSON, schemas, tools, grammars)",
    Feature.LOGPROBS: "log-probabilities, alternatives",
    Feature.LOGIT_BIAS: "logit bias",
    Feature.MIROSTAT: "mirostat",
    Feature.SCORE: "scoring a prompt (echo)",
    Feature.PREDICTION: "guesses from `prediction`",
    Feature.EMBED: "embeddings",
    Feature.RANK: "heads for ranks (`/v1/rerank`)",
    Feature.MEDIA: "images, sounds",
}


def _can(yes: bool) -> str:
    return "yes" if yes else "–"


def rows(profiles: list[Profile]) -> list[list[str]]:
    """The table's lines, cell by cell."""
    table = [
        ["", *(f"`{one.name}`" for one in profiles)],
        ["what it is", *(one.what for one in profiles)],
        ["machines", *(one.machines for one in profiles)],
        ["families", *(one.families for one in profiles)],
        ["tensor types", *(one.types for one in profiles)],
        ["requests at once", *(str(one.slots) for one in profiles)],
        ["a seed repeats byte for byte", *(one.seeds for one in profiles)],
    ]
    table += [[what, *(_can(feature in one.features) for one in profiles)] for feature, what in FEATURES.items()]
    return [
        *table,
        ["projectors", *(str(one.projectors) if one.projectors else "–" for one in profiles)],
        ["adapters", *(_can(one.adapters) for one in profiles)],
        ["GPU (`num_gpu`)", *(_can(one.gpu) for one in profiles)],
        ["`PUNA_KV_CACHE_TYPE`", *(", ".join(sorted(one.cache_types)) for one in profiles)],
        ["without effect", *(", ".join(f"`{name}`" for name in one.without_effect) or "–" for one in profiles)],
    ]


def table() -> str:
    head, *rest = (f"| {' | '.join(cells)} |\n" for cells in rows([factory(entry).profile for entry in ROSTER]))
    return head + "|---" * (len(ROSTER) + 1) + "|\n" + "".join(rest)


def page(text: str) -> str:
    """The page with its table as it should be."""
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{TARGET} has lost the marks around its table")
    return before + BEGIN + table() + END + after


def main(arguments: list[str]) -> int:
    text = TARGET.read_text(encoding="utf-8")
    if arguments == ["--check"]:
        if page(text) != text:
            print(f"{TARGET} is out of date: run python docs/generate_engines.py", file=sys.stderr)  # noqa: T201
        return int(page(text) != text)
    TARGET.write_text(page(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
