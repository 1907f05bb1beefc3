from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest

from puna.engine.cpu.rope import rope
from puna.engine.cpu.shape import RopeScaling

PLAIN = RopeScaling(kind="none", factor=1.0, attention_factor=1.0, original_context=4096, fast=32.0, slow=1.0)
YARN = replace(PLAIN, kind="yarn", factor=32.0)


def test_speeds_are_powers_of_the_base() -> None:
    found = rope(500000.0, 128, PLAIN)
    np.testing.assert_allclose(found.speeds, 500000.0 ** (-np.arange(0, 128, 2) / 128), rtol=1e-7)
    assert found.magnitude == 1.0


def test_speeds_have_these_bits_on_every_machine() -> None:
    made = [rope(10000.0, 64, PLAIN), rope(1000000.0, 128, YARN), rope(150000.0, 64, YARN)]
    digest = sha256(b"".join(one.speeds.astype("<f4").tobytes() for one in made)).hexdigest()
    assert (digest[:16], [one.magnitude.hex() for one in made]) == (DIGEST, MAGNITUDES)


DIGEST = "a476611d955dfae5"
MAGNITUDES = ["0x1.0000000000000p+0", "0x1.58b90bfbe8e7cp+0", "0x1.58b90bfbe8e7cp+0"]


def test_factors_and_linear_scaling_divide() -> None:
    factors = np.arange(1, 33, dtype=np.float32)
    plain, divided = rope(10000.0, 64, PLAIN), rope(10000.0, 64, PLAIN, factors)
    np.testing.assert_allclose(divided.speeds * factors, plain.speeds, rtol=1e-6)
    slow = rope(10000.0, 64, replace(PLAIN, kind="linear", factor=8.0))
    np.testing.assert_allclose(slow.speeds * 8, plain.speeds, rtol=1e-6)


@pytest.mark.parametrize("base", [10000.0, 150000.0])
def test_yarn_keeps_fast_pairs_and_stretches_slow_ones(base: float) -> None:
    plain, found = rope(base, 64, PLAIN), rope(base, 64, YARN)
    assert found.speeds[0] == plain.speeds[0]
    assert found.speeds[-1] == pytest.approx(plain.speeds[-1] / 32, rel=1e-6)
    assert (np.diff(found.speeds) < 0).all()
    assert found.magnitude == pytest.approx(1 + 0.1 * np.log(32))
