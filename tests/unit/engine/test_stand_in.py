"""The scripted engine's stand-in for models that are not there."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fakes.stand_in import stand_in_bytes
from puna.engine.stand_in import stand_in
from puna.model.capabilities import Capability
from puna.model.name import Name


def test_its_file_is_what_the_test_suite_writes_under_its_digest() -> None:
    weights = stand_in(Name.parse("any")).weights
    assert weights.read_bytes() == stand_in_bytes()
    assert weights.name == f"sha256-{hashlib.sha256(stand_in_bytes()).hexdigest()}"


def test_it_says_what_it_is_under_every_name() -> None:
    one, other = stand_in(Name.parse("gpt-4o")), stand_in(Name.parse("library/llama3:8b"))
    assert (one.name.short, other.name.short) == ("gpt-4o:latest", "llama3:8b")
    assert one.config.model_family == one.header.architecture == "scripted"
    assert one.weights_digest != other.weights_digest, "a script may tell them apart"
    assert one == stand_in(Name.parse("gpt-4o"))
    assert one.capabilities >= {Capability.COMPLETION, Capability.TOOLS, Capability.THINKING, Capability.INSERT}
    assert isinstance(one.weights, Path)
