"""What images must be, and sounds and images together."""

from __future__ import annotations

import io
import struct

import pytest
from PIL import Image

from fakes.projectors import plain, wav
from puna.errors import InvalidRequest
from puna.server.media import (
    MAX_IMAGE,
    MAX_PIXELS,
    check_image,
    check_together,
    image_kind,
)
from puna.types import AudioPart, ImagePart, Message

PNG = plain((9, 9, 9), 5, 7)


def image(kind: str, width: int = 5, height: int = 7, **options: object) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (10, 20, 30)).save(out, kind, **options)
    return out.getvalue()


def refusal(data: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        check_image(data, "images[3]")
    assert caught.value.param == "images[3]"
    return caught.value


@pytest.mark.parametrize("data", [PNG, image("png"), image("jpeg"), image("jpeg", progressive=True)])
def test_what_engines_read_is_passed_on(data: bytes) -> None:
    assert check_image(data, "images[3]") == data


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif\0\0x"}])
def test_a_webp_becomes_the_same_picture_as_png(options: dict[str, object]) -> None:
    webp = image("webp", **options)
    assert image_kind(webp) == "webp"
    png = check_image(webp, "images[3]")
    assert image_kind(png) == "png"
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.size == (5, 7)
        assert all(abs(a - b) < 8 for a, b in zip(picture.getpixel((2, 2)), (10, 20, 30), strict=True))


def test_a_moving_webp_is_refused() -> None:
    out = io.BytesIO()
    frames = [Image.new("RGB", (4, 4), (shade, 0, 0)) for shade in (0, 255)]
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:])
    assert "moves" in refusal(out.getvalue()).message


@pytest.mark.parametrize("data", [PNG[:20], PNG[:8], image("jpeg")[:20], b"\xff\xd8\xff", image("webp")[:25]])
def test_one_whose_size_cannot_be_read_is_damaged(data: bytes) -> None:
    assert refusal(data).code == "invalid_image_format"
    assert "damaged" in refusal(data).message


def test_no_pixels_are_no_image() -> None:
    assert "damaged" in refusal(PNG[:16] + bytes(8) + PNG[24:]).message


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"BM", b"<svg", b"RIFF0000AVI "])
def test_other_kinds_are_refused(data: bytes) -> None:
    assert "none of png, jpeg and webp" in refusal(data).message


def test_few_bytes_of_many_pixels_are_refused() -> None:
    """Of all three: the size is read where each has it."""
    over = struct.pack(">II", MAX_PIXELS // 1000, 1001)
    fits = struct.pack(">II", MAX_PIXELS // 1000, 1000)
    assert refusal(PNG[:16] + over + PNG[24:]).code == "image_too_large"
    assert check_image(PNG[:16] + fits + PNG[24:], "p")
    jpeg = image("jpeg")
    at = jpeg.index(b"\xff\xc0") + 5
    assert refusal(jpeg[:at] + b"\xff\xff\xff\xff" + jpeg[at + 4 :]).code == "image_too_large"
    webp = image("webp")
    assert refusal(webp[:26] + b"\xff\x3f\xff\x3f" + webp[30:]).code == "image_too_large"
    lossless = image("webp", lossless=True)
    assert refusal(lossless[:21] + b"\xff\xff\xff\x0f" + lossless[25:]).code == "image_too_large"


def test_many_bytes_are_refused() -> None:
    assert refusal(PNG + bytes(MAX_IMAGE)).code == "image_too_large"


def test_what_is_bearable_alone_may_be_too_much_together() -> None:
    large = PNG[:16] + struct.pack(">II", MAX_PIXELS // 1000, 1000) + PNG[24:]
    images = [Message("user", (ImagePart(large),))] * 3
    check_together(images, "messages")
    long = Message("user", (AudioPart(wav(2000, 0, rate=10)),))
    check_together([*images, long], "messages")
    for messages, code in (
        ([*images, Message("user", (ImagePart(PNG),))], "image_too_large"),
        ([long, long], "audio_too_large"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            check_together(messages, "messages")
        assert (caught.value.code, caught.value.param) == (code, "messages")
