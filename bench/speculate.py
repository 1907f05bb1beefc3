"""Answers with and without guessing next tokens (PUNA_SPECULATION), through HTTP and from the engine alone; in turn.

    python bench/speculate.py MODEL.gguf [--repeat 5] [--quick] [--log FILE]

Tokens a second of one answer after its first. Prompts: a letter and JSON that are to be written again with a change, at
temperature 0, so that much of the answer repeats them; a story, drawn with a seed, of which little repeats anything.
From the engine alone there are two more, for models with random weights, whose answers repeat nothing of what is asked:
the story with its own tokens as a prediction, once with every 24th changed, as where a text is edited, and once with
half of them wrong, in stretches of 16.

Prints medians and the median of the ratios within a round. An answer that differs from the one without guesses is an
error: guesses must never change a token.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from load import Target, many
from machine import PATIENCE
from puna.engine.cpu.client import CpuEngine
from puna.engine.runner import LoadOptions, ModelFiles, Prompt, Runner, Sampling, Token
from puna.model.gguf import read_header
from puna.settings import Settings
from puna.template.jinja import JinjaTemplate
from rounds import Rounds
from serve import MODEL, import_model
from servers import puna

LETTER = """\
Here is a letter. Write it again word for word, with the date 3 May in place of 12 April, and then add a postscript.

Dear Mrs Harlow,

thank you for your order of 12 April. We have packed two boxes of blue paper, one roll of brown string and a set of \
pens, and the carrier will bring them to your door before noon on Friday. The bill for all of it comes to forty pounds \
and is enclosed. Should anything be missing or broken, please write to us within ten days, and we will put it right at \
our own cost.

With kind regards,
The Paper House"""

PEOPLE = """\
Change the city of the second person to "Lisbon" and print the whole JSON again.

```json
[
  {"id": 1, "name": "Anna Berg", "city": "Oslo", "email": "anna.berg@example.org", "active": true},
  {"id": 2, "name": "Ben Ode", "city": "Paris", "email": "ben.ode@example.org", "active": false},
  {"id": 3, "name": "Carla Diaz", "city": "Madrid", "email": "carla.diaz@example.org", "active": true},
  {"id": 4, "name": "Dan Yu", "city": "Taipei", "email": "dan.yu@example.org", "active": true}
]
```"""

STORY = "Tell me a story about a lighthouse keeper who finds a letter in a bottle, and what he does about it."

TOKENS = 200
EDITED = 24
STRETCH = 16

PREDICTIONS: dict[str, Callable[[int], bool]] = {
    f"predicted, every {EDITED}th token changed": lambda place: place % EDITED == EDITED - 1,
    "predicted, half of it wrong": lambda place: place // STRETCH % 2 == 1,
}
"""Of a predicted answer, whether the token at a place is wrong."""

CONTEXT = 2048
WITH, WITHOUT = "with", "without"


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked: the user's words, and whether the likeliest token is always taken."""

    name: str
    words: str
    greedy: bool


TASKS = (
    Task("a letter written again", LETTER, True),
    Task("JSON edited", PEOPLE, True),
    Task("a story", STORY, False),
)


class Answers:
    """What was answered, by name of the task: the same must come whichever way it is computed."""

    def __init__(self) -> None:
        self._known: dict[str, object] = {}

    def check(self, what: str, answer: object) -> None:
        """RuntimeError if another answer came before."""
        if self._known.setdefault(what, answer) != answer:
            raise RuntimeError(f"{what}: guessing changed the answer: {self._known[what]!r} became {answer!r}")


def over_http(task: Task, target: Target, answers: Answers) -> float:
    said: dict[str, object] = {"ignore_eos": False, **({"temperature": 0.0} if task.greedy else {})}
    stream = asyncio.run(many(target, [task.words], TOKENS, said))[0]
    answers.check(f"HTTP, {task.name}", stream.answer.text)
    return stream.rate


class Alone:
    """Two runners over one file, one that guesses and one that does not. Prompts as the model's template has them."""

    def __init__(self, file: Path, runners: Mapping[str, Runner]) -> None:
        self._runners = runners
        self._template = JinjaTemplate(read_header(file, arrays=True).chat_template or "")

    async def prompt(self, task: Task) -> Prompt:
        messages = [{"role": "user", "content": task.words}]
        text = self._template.render_json(messages, None, add_generation_prompt=True, arguments={})  # type: ignore[arg-type]
        runner = self._runners[WITHOUT]
        return Prompt(tuple(await runner.tokenize(text, special=True, bos=runner.info.add_bos)))

    async def answer(self, name: str, prompt: Prompt, task: Task) -> tuple[tuple[int, ...], float]:
        """The tokens, and how many a second came after the first."""
        sampling = Sampling(max_tokens=TOKENS, seed=1, temperature=0.0 if task.greedy else 0.8, prefilled=False)
        tokens: list[int] = []
        first = 0.0
        async for step in self._runners[name].generate(prompt, sampling):
            if isinstance(step, Token):
                tokens.append(step.id)
                first = first or time.perf_counter()
        return tuple(tokens), (len(tokens) - 1) / (time.perf_counter() - first)

    async def predicted(self, task: Task, wrong: Callable[[int], bool]) -> Prompt:
        """The prompt with its own answer as prediction, but for the places that are to be wrong."""
        prompt = await self.prompt(task)
        told, _ = await self.answer(WITHOUT, prompt, task)
        vocabulary = self._runners[WITHOUT].info.vocabulary
        mixed = ((token + 1) % vocabulary if wrong(place) else token for place, token in enumerate(told))
        return replace(prompt, prediction=tuple(mixed))


@contextlib.asynccontextmanager
async def runners(file: Path, folder: Path) -> AsyncIterator[dict[str, Runner]]:
    header = read_header(file)
    files = ModelFiles(file, "0" * 64, header.architecture, "")
    started: dict[str, Runner] = {}
    try:
        for name, speculation in ((WITH, True), (WITHOUT, False)):
            engine = CpuEngine(Settings(models=folder, speculation=speculation))
            started[name] = await engine.start(files, LoadOptions(num_ctx=CONTEXT, slots=1))
        yield started
    finally:
        for runner in started.values():
            await runner.close()


def measure_http(file: Path, folder: Path, rounds: Rounds, repeat: int) -> None:
    answers = Answers()
    import_model(folder, file)
    with puna(WITH, MODEL, folder, {}) as guessing, puna(WITHOUT, MODEL, folder, {"PUNA_SPECULATION": "0"}) as plain:
        rounds.pids = {server.name: server.target.pids for server in (guessing, plain)}
        for server in (guessing, plain):
            asyncio.run(many(server.target, [STORY], 8))
        for _ in range(repeat):
            for task in TASKS:
                takes = {s.name: partial(over_http, task, s.target, answers) for s in (guessing, plain)}
                rounds.round(f"HTTP, {task.name}", takes)


def measure_alone(file: Path, folder: Path, rounds: Rounds, repeat: int) -> None:
    answers = Answers()
    loop = asyncio.new_event_loop()
    stack = contextlib.AsyncExitStack()
    try:
        started = loop.run_until_complete(stack.enter_async_context(runners(file, folder)))
        rounds.pids = {name: (runner.info.pid or 0,) for name, runner in started.items()}
        alone = Alone(file, started)
        asked = [(task.name, loop.run_until_complete(alone.prompt(task)), task) for task in TASKS]
        story = TASKS[-1]
        for what, wrong in PREDICTIONS.items():
            asked.append((f"{story.name}, {what}", loop.run_until_complete(alone.predicted(story, wrong)), story))

        def take(what: str, prompt: Prompt, task: Task, name: str) -> float:
            tokens, rate = loop.run_until_complete(alone.answer(name, prompt, task))
            answers.check(what, tokens)
            return rate

        for _ in range(repeat):
            for what, prompt, task in asked:
                rounds.round(f"engine, {what}", {name: partial(take, what, prompt, task, name) for name in started})
    finally:
        loop.run_until_complete(stack.aclose())
        loop.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="each once, quiet or not")
    parser.add_argument("--log", type=Path, help="a file that gets each round as a line of JSON")
    said = parser.parse_args()
    repeat, patience = (1, 0.0) if said.quick else (said.repeat, PATIENCE)
    rounds = Rounds([WITH, WITHOUT], log=said.log, patience=patience)
    with tempfile.TemporaryDirectory(prefix="puna-bench-") as folder:
        measure_http(said.file, Path(folder), rounds, repeat)
        measure_alone(said.file, Path(folder), rounds, repeat)
    print(f"\n{said.file.name}, tokens a second\n\n{rounds.table()}")


if __name__ == "__main__":
    main()
