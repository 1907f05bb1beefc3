from __future__ import annotations

import annotated_types
import pytest

from puna.model.parameters import PARAMETERS
from puna.server.openai.options import Sampled

SHARED = [name for name in Sampled.model_fields if name in PARAMETERS and PARAMETERS[name].kind in {"int", "float"}]


@pytest.mark.parametrize("name", SHARED)
def test_what_a_field_takes_its_option_takes_too(name: str) -> None:
    """And no option takes what an engine could not compute with: none is without bounds."""
    row = PARAMETERS[name]
    limits = Sampled.model_fields[name].metadata
    (least,) = [item.ge for item in limits if isinstance(item, annotated_types.Ge)] or [row.least]
    (most,) = [item.le for item in limits if isinstance(item, annotated_types.Le)] or [row.most]
    assert row.least <= least
    assert most <= row.most  # type: ignore[operator]
    assert row.most < 1e38
    assert row.least > -1e38
