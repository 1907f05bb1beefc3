import hashlib

import pytest

from puna.errors import InvalidRequest
from puna.model.digest import Digest

HEX = "ab" * 32


def test_both_spellings() -> None:
    assert Digest.parse(f"sha256:{HEX}") == Digest.parse(f"sha256-{HEX}") == Digest(HEX)
    assert (str(Digest(HEX)), Digest(HEX).filename, Digest(HEX).short) == (f"sha256:{HEX}", f"sha256-{HEX}", HEX[:12])


@pytest.mark.parametrize("text", ["", HEX, f"sha512:{HEX}", f"sha256:{HEX}0", f"sha256:{HEX[1:]}", f"sha256:{HEX}\n"])
def test_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid digest format"):
        Digest.parse(text)


def test_of_bytes() -> None:
    assert Digest.of(b"abc").hex == hashlib.sha256(b"abc").hexdigest()
