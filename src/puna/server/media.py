"""What an image or a sound must be before an engine gets it: of a kind that engines read, of a bearable size. Pure."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from types import MappingProxyType

from puna.errors import Code, InvalidRequest, Unsupported
from puna.server.sounds import SOUND_SECONDS, sound_seconds
from puna.types import AudioPart, ImagePart, Message

MAX_IMAGE = 20 * 1024 * 1024
"""Bytes of one image."""

MAX_PIXELS = 50_000_000
"""Of one image: a few bytes can unpack to more than the machine has memory."""

MAX_PIXELS_TOGETHER = 3 * MAX_PIXELS
"""Of all images of a request: the engine unpacks them all before it looks at the first."""


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


def image_kind(data: bytes) -> str | None:
    """Told from the first bytes."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if data[:3] == b"\xff\xd8\xff":
        return "jpeg"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


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
