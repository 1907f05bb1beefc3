"""Files named in prompts."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from puna.cli.media import Attached, attach, media_kind
from puna.errors import InvalidRequest

SEES = ("completion", "vision")
PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)


def test_a_path_becomes_an_attachment(tmp_path: Path) -> None:
    path = tmp_path / "a cat.png"
    path.write_bytes(PNG)
    escaped = str(path).replace(" ", "\\ ")
    attached = attach(f"What is this? {escaped}", SEES)
    assert attached.text == "What is this?"
    assert [base64.b64decode(item) for item in attached.data] == [PNG]
    assert attached.notes == (f"Added image '{path}'",)


def test_quotes_around_a_path_go_with_it(tmp_path: Path) -> None:
    path = tmp_path / "x.PNG"
    path.write_bytes(PNG)
    assert attach(f"look: '{path}' please", SEES).text == "look:  please"


@pytest.mark.parametrize("text", ["see cat.png", "see ./no-such-file.png", "1/2.png is no path", "plain"])
def test_other_text_stays(text: str) -> None:
    attached = attach(text, SEES)
    assert (attached.text, attached.data) == (text, ())


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(b"hello")
    with pytest.raises(InvalidRequest, match="invalid file type"):
        attach(str(path), SEES)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (PNG, "image"),
        (b"\xff\xd8\xff\xe0", "image"),
        (b"RIFF0000WEBPVP8 ", "image"),
        (b"RIFF0000WAVEfmt ", "audio"),
        (b"RIFF0000AVI ", None),
        (b"", None),
    ],
)
def test_the_kind_is_told_by_the_first_bytes(content: bytes, kind: str | None) -> None:
    assert media_kind(content) == kind


def test_a_model_that_cannot_see_gets_the_path_as_text(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(PNG)
    assert attach(str(path), ("completion", "tools")) == Attached(str(path))
