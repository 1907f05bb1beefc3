"""What a fingerprint changes with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fakes.house import make_model
from puna.engine.runner import RunnerInfo
from puna.inference.report import fingerprint

MODEL = make_model()
INFO = RunnerInfo(
    engine="cpu", version="avx2", num_ctx=4096, slots=16, vocabulary=10, bos=None, eos=(1,), add_bos=False,
    embedding_length=4, seed_exact=True, features=frozenset(), memory=0, bits="1 f16",
)  # fmt: skip


@pytest.mark.parametrize("changes", [{"slots": 1}, {"version": "avx512"}, {"memory": 7}, {"pid": 7}, {"reason": "x"}])
def test_what_changes_no_byte_changes_no_fingerprint(changes: dict[str, object]) -> None:
    assert fingerprint(MODEL, replace(INFO, **changes)) == fingerprint(MODEL, INFO)  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"engine": "llama"}, {"bits": "2 f16"}, {"bits": "1 q8_0"}, {"num_ctx": 2048}])
def test_what_may_change_one_does(changes: dict[str, object]) -> None:
    assert fingerprint(MODEL, replace(INFO, **changes)) != fingerprint(MODEL, INFO)  # type: ignore[arg-type]
    assert fingerprint(replace(MODEL, digest="1" * 64), INFO) != fingerprint(MODEL, INFO)
