"""How long a model may think: a budget, and the end of a running thought when somebody asks for it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from puna.engine.runner import Constraint
from puna.inference.choice import Choice
from puna.template.facts import HARMONY, ThinkTags


class ThoughtWatch:
    """The thoughts of one running answer, which somebody else may end."""

    def __init__(self) -> None:
        self._thinking: set[int] = set()
        self.asked = False

    def note(self, choice: Choice) -> None:
        """Whether this choice thinks now."""
        if choice.open:
            self._thinking.add(choice.index)
        else:
            self._thinking.discard(choice.index)

    def end(self) -> bool:
        """Let every choice that thinks go on to its answer. False: none thinks."""
        if not self._thinking:
            return False
        self.asked = True
        return True


@dataclass(frozen=True, slots=True)
class ThoughtLimit:
    """When a thought is closed, and what stands there then.

    `budget`: tokens of thinking after which it is, the opening tag among them; None: only when `watch` says so.
    `constraint`: what the answer must match that follows; in `Job.constraint` a thought may stand before it.
    """

    closing: str
    budget: int | None
    watch: ThoughtWatch
    constraint: Constraint | None = None

    def reached(self, choice: Choice) -> bool:
        """Whether the thought of `choice` has to be closed now."""
        self.watch.note(choice)
        over = self.watch.asked or (self.budget is not None and choice.reasoning >= self.budget)
        return over and choice.open


def closing_text(tags: ThinkTags) -> str:
    """What ends a thought, as models write it."""
    return tags.close if tags == HARMONY else f"\n{tags.close}\n\n"
