"""What a sound must be before an engine gets it: of a kind that engines read, or made so; of a bearable length.

A kind is told by the first bytes, never by a name. Blocking: what engines do not read is decoded by a process.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from importlib.util import find_spec
from types import MappingProxyType

from puna.errors import Code, InvalidRequest, Unsupported
from puna.server.decoding import RATE
from puna.server.flac import BadFlac, read_flac, told_seconds
from puna.server.strangers import Rations, TakesTooMuch, Unreadable, read_beside

MAX_SOUND = 25 * 1024 * 1024
"""Bytes of one sound."""

SOUND_SECONDS = (0.1, 3600.0)
"""The least is OpenAI's; llama.cpp ends itself at a sound of a few samples. The most is for all sounds of a request."""

_PLAIN_WAVES = frozenset({1, 3, 6, 7, 0xFFFE})
"""Codes of forms whose samples all have the same size: integers, floats, A-law, µ-law, and the long way to say one."""

_BEGINNINGS = (
    ("ogg", 0, b"OggS"), ("mp4", 4, b"ftyp"), ("webm", 0, b"\x1a\x45\xdf\xa3"), ("mpeg", 0, b"\x00\x00\x01\xba"),
    ("aiff", 0, b"FORM"), ("caf", 0, b"caff"), ("amr", 0, b"#!AM"),
)  # fmt: skip
"""Kinds that engines do not read, and by which four bytes, at which place, each is known."""

_CALLED = MappingProxyType({"m4a": {"mp4"}, "mpga": {"mp2", "mp3"}, "mpeg": {"mpeg", "mp2", "mp3"}})
"""What else kinds are called by those who send them."""

DECODING = Rations(cpu_seconds=60.0, wait_seconds=120.0, room=512 << 20)
"""An hour of opus takes a tenth of these seconds."""


def check_sound(data: bytes, param: str, kind: str | None = None) -> bytes:
    """`data` as engines read it, if it is a sound of a bearable length. `kind`: what it is said to be, which is held
    to what it is. InvalidRequest and Unsupported name `param` and the kind."""
    if len(data) > MAX_SOUND:
        raise _invalid(param, f"the sound has {len(data)} bytes, at most {MAX_SOUND} are allowed", "audio_too_large")
    found = sound_kind(data)
    if found is None:
        raise _invalid(param, "the sound is of no kind that is read: wav, mp3, flac, ogg, m4a, mp4, webm, mpeg, aac")
    if kind is not None and found not in _CALLED.get(kind, {kind}):
        raise _invalid(param, f"the sound is {found}, not {kind} as its format says")
    if found not in _LENGTHS:
        data = _decoded(data, found, param)
    elif found == "flac":
        try:
            data = read_flac(data[_after_tag(data) :]).data
        except BadFlac as error:
            raise _invalid(param, f"the flac is damaged: {error}") from error
    seconds = _LENGTHS["wav" if found not in _LENGTHS else found](data)
    if seconds is None:
        raise _invalid(param, f"the {found} is damaged, or of a rare kind")
    least, most = SOUND_SECONDS
    if seconds < least:
        raise _invalid(param, f"the sound is {seconds:.3f} s long, at least {least} s are needed", "audio_too_short")
    if seconds > most:
        raise _invalid(param, f"the sound is {seconds:.0f} s long, at most {most:.0f} s are allowed", "audio_too_large")
    return data


def sound_seconds(data: bytes) -> float:
    """How long a sound is that engines read; 0 where that cannot be told."""
    kind = sound_kind(data)
    return (_LENGTHS[kind](data) if kind is not None and kind in _LENGTHS else None) or 0.0


def sound_kind(data: bytes) -> str | None:
    """Told from the first bytes."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "wav"
    behind = _after_tag(data)
    if data[behind : behind + 4] == b"fLaC":
        return "flac"
    if data[:3] == b"ID3":
        return "mp3"
    # A frame of MPEG begins with eleven bits set, two of a version, and two of a layer: 3, 2, 1; 0 is AAC's.
    if len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0:
        layer = data[1] >> 1 & 3
        if layer == 1:
            return "mp3"
        if layer == 2 or (layer == 0 and data[1] & 0xF0 == 0xF0):
            return "mp2" if layer else "aac"
    return next((name for name, place, begun in _BEGINNINGS if data[place : place + 4] == begun), None)


def _decoded(data: bytes, kind: str, param: str) -> bytes:
    """As a wav, by a process of its own, within bounds."""
    if not _decodes():
        needs = f"reading {kind} needs the extra 'sound': pip install 'puna[sound]' (wav, mp3 and flac do not)"
        raise Unsupported(f"Invalid '{param}': the sound is {kind}; {needs}.", param=param)
    arguments = (kind, str(SOUND_SECONDS[1]))
    try:
        samples = read_beside("puna.server.decoding", data, DECODING, f"a sound of kind {kind}", *arguments)
    except Unreadable as error:
        raise _invalid(param, f"the {kind} cannot be read: {error}") from error
    except TakesTooMuch as error:
        told = f"{error}, or more than {SOUND_SECONDS[1]:.0f} s of sound"
        raise _invalid(param, f"to read the {kind} takes {told}", "audio_too_large") from error
    return wav_file(samples, RATE)


def wav_file(samples: bytes, rate: int) -> bytes:
    """One channel of 16-bit samples, as a file."""
    form = struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16)
    head = b"WAVE" + b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(samples))
    return b"".join((b"RIFF", struct.pack("<I", len(head) + len(samples)), head, samples))


def _decodes() -> bool:
    try:
        return find_spec("av") is not None
    except ValueError:  # a module without one stands in its place
        return False


def _invalid(param: str, what: str, code: Code = "invalid_audio_format") -> InvalidRequest:
    return InvalidRequest(f"Invalid '{param}': {what}.", param=param, code=code)


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


_LENGTHS: MappingProxyType[str, Callable[[bytes], float | None]] = MappingProxyType(
    {"wav": _wav_seconds, "mp3": _mp3_seconds, "flac": told_seconds}
)
"""Of the kinds that engines read."""
