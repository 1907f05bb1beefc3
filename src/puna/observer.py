"""What happens to runners, told to whoever counts it. Told on the event loop; must be quick and must not raise."""

from __future__ import annotations


class Observer:
    """Hears nothing; what counts is a subclass. Names are stored Names, seconds are seconds."""

    def loaded(self, model: str, engine: str, seconds: float) -> None:
        """A model is ready."""

    def load_failed(self, model: str, engine: str, code: str) -> None:
        """A load ended with an error of this code."""

    def runner_ended(self, model: str, engine: str) -> None:
        """A runner ended on its own, or had to be ended."""


UNOBSERVED = Observer()
