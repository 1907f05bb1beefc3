"""An aarch64's logits are this machine's to the last bit. `PUNA_TEST_AARCH64` runs a Python with NumPy there."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import native_build
import numpy as np
import pytest
from native_build import TARGETS, compiler, plan

import puna
from puna.engine.cpu import library
from real.cpu.models import forward_logits, write_model
from real.cpu.test_bits import POSITIONS, RECIPES_OF_BITS, tokens

PYTHON = shlex.split(os.environ.get("PUNA_TEST_AARCH64", ""))
COMPUTE = """
import os, sys
from pathlib import Path
import numpy as np
sys.path += sys.argv[1].split(os.pathsep)
from puna.engine.cpu import library
from puna.engine.cpu.forward import Forward
from puna.model.gguf import read_header

built, model, target, ids = Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], [int(word) for word in sys.argv[5:]]
library._BUILT = built
forward = Forward(model, read_header(model), threads=2, num_ctx=len(ids), cache_type="f16")
blocks = -(-len(ids) // forward.block_size)
forward.allocate(blocks)
np.save(target, forward(ids, [0], [0, len(ids)], range(blocks), [0, blocks], range(len(ids))))
print(library.variant())
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("aarch64")
    target = TARGETS["linux-aarch64"]
    native_build.build(plan(target, compiler()), target, out)
    return out


@pytest.mark.skipif(not PYTHON, reason="needs an aarch64's Python with NumPy: PUNA_TEST_AARCH64")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", RECIPES_OF_BITS)
def test_an_aarch64_computes_the_same_bytes(name: str, built: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    write_model(model, RECIPES_OF_BITS[name])
    ids = tokens(3)
    here = forward_logits(model, ids, num_ctx=POSITIONS)
    packages = os.pathsep.join(
        [str(Path(puna.__file__).parents[1]), *(path for path in sys.path if "packages" in path)]
    )
    for variant in ("dotprod", "portable"):
        environment = {**os.environ, library.VARIABLE: variant, "PYTHONPATH": ""}
        told = [packages, str(built), str(model), str(tmp_path / "there.npy"), *map(str, ids)]
        words = [*PYTHON, "-c", COMPUTE, *told]
        done = subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        assert done.stdout == f"{variant}\n"
        there = np.load(tmp_path / "there.npy")
        np.testing.assert_array_equal(there.view(np.int32), here.view(np.int32))
