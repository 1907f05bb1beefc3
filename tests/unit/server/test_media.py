"""What images and sounds must be."""

from __future__ import annotations

import io
import struct

import pytest
from PIL import Image

from fakes.projectors import mp3, plain, wav
from puna.errors import InvalidRequest
from puna.server.media import (
    MAX_IMAGE,
    MAX_PIXELS,
    MAX_SOUND,
    check_image,
    check_sound,
    check_together,
    image_kind,
    sound_kind,
)
from puna.types import AudioPart, ImagePart, Message

PNG = plain((9, 9, 9), 5, 7)


def image(kind: str, width: int = 5, height: int = 7, **options: object) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (10, 20, 30)).save(out, kind, **options)
    return out.getvalue()


def changed(place: int, form: str, value: int) -> bytes:
    """A wav of a second with another number in its header."""
    data = bytearray(wav(1, 440))
    struct.pack_into(form, data, place, value)
    return bytes(data)


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
    with pytest.raises(InvalidRequest) as caught:
        check_sound(b"ID3" + bytes(MAX_SOUND), "p")
    assert caught.value.code == "audio_too_large"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (wav(0.09, 440), "audio_too_short"),
        (wav(0, 440), "audio_too_short"),
        (wav(0.2, 440)[:100], "audio_too_short"),
        (wav(0.2, 440)[:40], "invalid_audio_format"),
        (wav(0.2, 440)[:12], "invalid_audio_format"),
        (wav(3700, 0, rate=100), "audio_too_large"),
        (changed(20, "<H", 2), "invalid_audio_format"),
        (changed(24, "<I", 0), "invalid_audio_format"),
        (changed(24, "<I", 2**32 - 1), "audio_too_short"),
        (changed(24, "<I", 1), "audio_too_large"),
        (changed(32, "<H", 4), "invalid_audio_format"),
        (changed(32, "<H", 0), "invalid_audio_format"),
    ],
)
def test_sounds_of_no_bearable_length_are_refused(data: bytes, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_sound(data, "p")
    assert caught.value.code == code


@pytest.mark.parametrize(
    "data",
    [
        mp3(5),
        b"ID3\4\0\0\0\0\1\1" + bytes(129) + mp3(5),
        mp3(2) + b"noise\xff\xff" + mp3(3),
        mp3(5, head=b"\xff\xf3\x40\xc4", size=104),
        mp3(5, head=b"\xff\xe3\x48\xc4", size=288),
    ],
)
def test_the_length_of_an_mp3_is_that_of_its_frames(data: bytes) -> None:
    assert check_sound(data, "p", "mp3") == data


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (mp3(3), "audio_too_short"),
        (mp3(3) + bytes(100_000), "audio_too_short"),
        (b"ID3" + bytes(99), "invalid_audio_format"),
        (b"ID3\4\0\0\x7f\x7f\x7f\x7f" + mp3(5), "invalid_audio_format"),
        (b"\xff\xfb" * 2000, "invalid_audio_format"),
        (mp3(70_000, head=b"\xff\xe3\x18\xc4", size=72), "audio_too_large"),
    ],
)
def test_an_mp3_of_no_bearable_length_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_sound(data, "p")
    assert caught.value.code == code


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


def test_other_parts_of_a_wav_are_passed_over() -> None:
    tone = wav(0.2, 440)
    assert check_sound(tone[:12] + b"LIST\3\0\0\0abc\0" + tone[12:], "p")


def test_sounds() -> None:
    tone, song = wav(0.1, 440), mp3(5)
    assert (sound_kind(tone), sound_kind(song), sound_kind(b"ID3\4")) == ("wav", "mp3", "mp3")
    assert sound_kind(image("jpeg")) is None
    assert check_sound(tone, "p", "wav") == tone
    assert check_sound(song, "p") == song
    for data, kind in ((tone, "mp3"), (song, "wav"), (PNG, None), (b"", None)):
        with pytest.raises(InvalidRequest) as caught:
            check_sound(data, "p", kind)
        assert (caught.value.code, caught.value.param) == ("invalid_audio_format", "p")
