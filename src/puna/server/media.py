"""What an image or a sound must be before an engine gets it: of a kind that engines read, of a bearable size. Pure."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from types import MappingProxyType

from puna.errors import Code, InvalidRequest, Unsupported
from puna.types import AudioPart, ImagePart, Message

MAX_IMAGE = 20 * 1024 * 1024
"""Bytes of one image."""

MAX_PIXELS = 50_000_000
"""Of one image: a few bytes can unpack to more than the machine has memory."""

MAX_PIXELS_TOGETHER = 3 * MAX_PIXELS
"""Of all images of a request: the engine unpacks them all before it looks at the first."""

MAX_SOUND = 25 * 1024 * 1024
"""Bytes of one sound."""

SOUND_SECONDS = (0.1, 3600.0)
"""The least is OpenAI's; llama.cpp ends itself at a sound of a few samples. The most is for all sounds of a request."""

_PLAIN_WAVES = frozenset({1, 3, 6, 7, 0xFFFE})
"""Codes of forms whose samples all have the same size: integers, floats, A-law, µ-law, and the long way to say one."""

_OTHER_SOUNDS = (
    ("flac", 0, b"fLaC"), ("ogg", 0, b"OggS"), ("m4a or mp4", 4, b"ftyp"), ("webm", 0, b"\x1a\x45\xdf\xa3"),
    ("aiff", 0, b"FORM"), ("amr", 0, b"#!AM"), ("caf", 0, b"caff"),
)  # fmt: skip
"""What else is called a sound, and by which four bytes, at which place, it is known."""


def check_image(data: bytes, param: str) -> bytes:
    """`data` as engines read it, if it begins like a png, jpeg or webp of a bearable size. A webp takes a while."""
    if len(data) > MAX_IMAGE:
        raise _invalid(param, f"the image has {len(data)} bytes, at most {MAX_IMAGE} are allowed", "image_too_large")
    kind = image_kind(data)
    if kind is None:
        raise _invalid(param, "the image is none of png, jpeg and webp", "invalid_image_format")
    size = _SIZES[kind](data)
    if size is None or 0 in size:
        raise _invalid(param, f"the {kind} is damaged: its size cannot be read", "invalid_image_format")
    width, height = size
    if width * height > MAX_PIXELS:
        much = f"{width} x {height} pixels, at most {MAX_PIXELS} are allowed"
        raise _invalid(param, f"the image has {much}", "image_too_large")
    return _png(data, param) if kind == "webp" else data


def check_sound(data: bytes, param: str, kind: str | None = None) -> bytes:
    """`data`, if it begins like a wav or mp3 of a bearable size. `kind`: which of them it must be."""
    if len(data) > MAX_SOUND:
        raise _invalid(param, f"the sound has {len(data)} bytes, at most {MAX_SOUND} are allowed", "audio_too_large")
    found = sound_kind(data)
    if found is None:
        named = next((name for name, place, begun in _OTHER_SOUNDS if data[place : place + 4] == begun), None)
        is_ = "is neither wav nor mp3" if named is None else f"is {named}; only wav and mp3 are read"
        raise _invalid(param, f"the sound {is_}", "invalid_audio_format")
    if kind is not None and kind != found:
        raise _invalid(param, f"the sound is {found}, not {kind} as its format says", "invalid_audio_format")
    seconds = _LENGTHS[found](data)
    if seconds is None:
        raise _invalid(param, f"the {found} is damaged, or of a rare kind", "invalid_audio_format")
    least, most = SOUND_SECONDS
    if seconds < least:
        raise _invalid(param, f"the sound is {seconds:.3f} s long, at least {least} s are needed", "audio_too_short")
    if seconds > most:
        raise _invalid(param, f"the sound is {seconds:.0f} s long, at most {most:.0f} s are allowed", "audio_too_large")
    return data


def check_together(messages: Iterable[Message], param: str) -> None:
    """What was checked one by one must also be bearable together."""
    parts = [part for message in messages for part in message.content]
    pixels = sum(_pixels(part.data) for part in parts if isinstance(part, ImagePart))
    if pixels > MAX_PIXELS_TOGETHER:
        much = f"{pixels} pixels together, at most {MAX_PIXELS_TOGETHER} are allowed"
        raise _invalid(param, f"the images have {much}", "image_too_large")
    seconds = sum(sound_seconds(part.data) for part in parts if isinstance(part, AudioPart))
    if seconds > SOUND_SECONDS[1]:
        much = f"{seconds:.0f} s together, at most {SOUND_SECONDS[1]:.0f} s are allowed"
        raise _invalid(param, f"the sounds have {much}", "audio_too_large")


def _pixels(data: bytes) -> int:
    kind = image_kind(data)
    size = _SIZES[kind](data) if kind else None
    return size[0] * size[1] if size else 0


def sound_seconds(data: bytes) -> float:
    """How long a sound is; 0 where that cannot be told."""
    kind = sound_kind(data)
    return (_LENGTHS[kind](data) if kind else None) or 0.0


def image_kind(data: bytes) -> str | None:
    """Told from the first bytes."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if data[:3] == b"\xff\xd8\xff":
        return "jpeg"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def sound_kind(data: bytes) -> str | None:
    """Told from the first bytes."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "wav"
    # A frame of MPEG's layer III begins with eleven bits set, two of a version, and 01.
    frame = len(data) > 1 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2
    return "mp3" if frame or data[:3] == b"ID3" else None


def _png(webp: bytes, param: str) -> bytes:
    """Engines read no webp."""
    try:
        from PIL import Image
    except ImportError as error:
        raise Unsupported(
            f"Invalid '{param}': reading webp needs the extra 'webp': pip install 'puna[webp]'.", param=param
        ) from error
    png = io.BytesIO()
    try:
        with Image.open(io.BytesIO(webp), formats=["WEBP"]) as image:
            if getattr(image, "is_animated", False):
                raise _invalid(param, "the webp moves; only still images can be read", "invalid_image_format")
            image.convert("RGB").save(png, "PNG", compress_level=1)
    except (OSError, ValueError, SyntaxError) as error:
        raise _invalid(param, f"the webp cannot be read: {error}", "invalid_image_format") from error
    return png.getvalue()


def _invalid(param: str, what: str, code: Code) -> InvalidRequest:
    return InvalidRequest(f"Invalid '{param}': {what}.", param=param, code=code)


# --------------------------------------------------------------------------------------------------- width and height


def _png_size(data: bytes) -> tuple[int, int] | None:
    if len(data) < 24 or data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """From the first frame header; segments before it are passed over."""
    place = 2
    while place + 9 <= len(data):
        mark, kind, length = struct.unpack_from(">BBH", data, place)
        if mark != 0xFF:
            return None
        if kind == 0xFF:
            place += 1  # Marks may be padded.
        elif 0xC0 <= kind <= 0xCF and kind not in {0xC4, 0xC8, 0xCC}:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        else:
            place += 2 + length
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    if len(data) < 30:
        return None
    match data[12:16]:
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", data, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
        case _:
            return None


_SIZES = MappingProxyType({"png": _png_size, "jpeg": _jpeg_size, "webp": _webp_size})


# ------------------------------------------------------------------------------------------------------------ length


def _wav_seconds(data: bytes) -> float | None:
    """Of what is there, whatever the header says of it; None if that cannot be told."""
    place, frame, rate = 12, 0, 0
    while place + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        place += 8
        if kind == b"fmt " and length >= 16 and place + 16 <= len(data):
            code, channels, rate, _, frame, bits = struct.unpack_from("<HHIIHH", data, place)
            if code not in _PLAIN_WAVES or frame != channels * bits // 8:
                return None
        if kind == b"data":
            return min(length, len(data) - place) / frame / rate if frame and rate else None
        place += length + length % 2
    return None


_MP3_RATES = MappingProxyType({3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)})
"""Samples a second, by the version's two bits; 1 is none."""

_MP3_KILOBITS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MP3_KILOBITS_LOW = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
"""A second, from the second number on; the first says that it is said nowhere. The lower ones are not version 1's."""

_MP3_GAPS = 1000
"""Places where no frame is, though one should, before what is between the frames is not looked at any more."""


def _mp3_seconds(data: bytes) -> float | None:
    """Of its frames, each of which says its own length; None if it has none, or much that is none."""
    place, seconds, gaps = _after_tag(data), 0.0, 0
    while (place := data.find(b"\xff", place)) >= 0 and place + 4 <= len(data):
        frame = _mp3_frame(data[place + 1], data[place + 2])
        if frame is None:
            gaps += 1
            if gaps > _MP3_GAPS:
                return None
            place += 1
            continue
        seconds += frame[0]
        place += frame[1]
    return seconds or None


def _after_tag(data: bytes) -> int:
    """Where an ID3 tag ends, whose length has seven bits a byte."""
    if data[:3] != b"ID3" or len(data) < 10:
        return 0
    length = 0
    for byte in data[6:10]:
        length = length << 7 | byte & 0x7F
    return 10 + length


def _mp3_frame(first: int, second: int) -> tuple[float, int] | None:
    """Seconds and bytes of a frame by its second and third byte; None if they are no frame's."""
    version, kilobits, rate = first >> 3 & 3, second >> 4, second >> 2 & 3
    if first & 0xE6 != 0xE2 or version == 1 or kilobits in {0, 15} or rate == 3:
        return None
    samples, table = (1152, _MP3_KILOBITS) if version == 3 else (576, _MP3_KILOBITS_LOW)
    hertz = _MP3_RATES[version][rate]
    return samples / hertz, samples // 8 * table[kilobits - 1] * 1000 // hertz + (second >> 1 & 1)


_LENGTHS = MappingProxyType({"wav": _wav_seconds, "mp3": _mp3_seconds})
