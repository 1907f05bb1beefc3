"""The threads that computed the rows choose the tokens, each row by one of them: the same as one alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from puna.engine.cpu.choice import Draw, Rate
from puna.engine.cpu.forward import Forward
from puna.engine.cpu.history import History
from puna.engine.cpu.sampler import Sampler, log_probabilities
from puna.engine.runner import Sampling
from puna.model.gguf import read_header
from real.cpu.models import write_model
from real.cpu.test_families import RECIPES

ROWS = 30


def test_tokens_are_those_of_the_specification_for_any_number_of_threads(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_model(path, RECIPES["llama"])
    wanted = [Sampling(max_tokens=1, seed=row, logprobs=row % 3 or None, repeat_penalty=1.1) for row in range(ROWS)]
    ids = list(range(3, 3 + ROWS))
    for threads in (1, 2, 3):
        forward = Forward(path, read_header(path), threads=threads, num_ctx=ROWS)
        forward.allocate(2)
        for _ in range(20):
            logits = forward(ids, [0], [0, ROWS], [0, 1], [0, 2], range(ROWS))
            before = logits.copy()
            orders = [
                Draw(Sampler(wanted[row]), row, History(ids), length=row) if row % 4 else Rate(row, ids[row], 2)
                for row in range(ROWS)
            ]
            expected = [
                Sampler(wanted[row])(logits[row], ids[:row]) if row % 4 else log_probabilities(logits[row], ids[row], 2)
                for row in range(ROWS)
            ]
            assert forward.choose(logits, orders) == expected
            assert np.array_equal(logits, before)
        forward.close()
