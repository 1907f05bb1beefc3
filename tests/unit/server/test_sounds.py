"""What sounds must be, and what becomes of those that engines do not read."""

from __future__ import annotations

import random
import struct
import sys
from dataclasses import replace

import numpy as np
import pytest

from fakes.damage import rounds
from fakes.projectors import mp3, plain, wav
from fakes.sounds import ENCODED, encoded, film
from puna.errors import InvalidRequest, Overloaded, Unsupported
from puna.server import sounds
from puna.server.flac import BadFlac, read_flac
from puna.server.sounds import MAX_SOUND, check_sound, sound_kind, sound_seconds

CLAIM = slice(18, 26)
"""In a FLAC: eight bytes, whose last 36 bits are how many samples there are."""


BEGUN = {
    b"OggS": "ogg",
    b"\0\0\0 ftyp": "mp4",
    b"\x1aE\xdf\xa3": "webm",
    b"\0\0\1\xba": "mpeg",
    b"FORM": "aiff",
    b"caff": "caf",
    b"\xff\xf1": "aac",
    b"\xff\xfd": "mp2",
}


def refusal(data: bytes, kind: str | None = None) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        check_sound(data, "file", kind)
    assert caught.value.param == "file"
    return caught.value


def claiming(flac: bytes, samples: int) -> bytes:
    packed = int.from_bytes(flac[CLAIM], "big") >> 36 << 36 | samples
    return flac[:18] + packed.to_bytes(8, "big") + flac[26:]


def samples_of(data: bytes) -> np.ndarray:
    return np.frombuffer(data[44:], "<i2").astype(float)


def hertz_of(data: bytes) -> float:
    """The loudest tone of a wav of 16,000 samples a second."""
    heard = np.abs(np.fft.rfft(samples_of(data)))
    return float(heard.argmax() * 16_000 / len(samples_of(data)))


def changed(place: int, form: str, value: int) -> bytes:
    """A wav of a second with another number in its header."""
    data = bytearray(wav(1, 440))
    struct.pack_into(form, data, place, value)
    return bytes(data)


def test_many_bytes_are_refused() -> None:
    assert refusal(b"ID3" + bytes(MAX_SOUND)).code == "audio_too_large"


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


def test_other_parts_of_a_wav_are_passed_over() -> None:
    tone = wav(0.2, 440)
    assert check_sound(tone[:12] + b"LIST\3\0\0\0abc\0" + tone[12:], "p")


def test_sounds() -> None:
    tone, song = wav(0.1, 440), mp3(5)
    assert (sound_kind(tone), sound_kind(song), sound_kind(b"ID3\4")) == ("wav", "mp3", "mp3")
    assert sound_kind(b"\xff\xd8\xff\xe0") is None
    assert check_sound(tone, "p", "wav") == tone
    assert check_sound(song, "p") == song
    for data, kind in ((tone, "mp3"), (song, "wav"), (plain((9, 9, 9), 5, 7), None), (b"", None)):
        with pytest.raises(InvalidRequest) as caught:
            check_sound(data, "p", kind)
        assert (caught.value.code, caught.value.param) == ("invalid_audio_format", "p")


# -------------------------------------------------------------------------------------------------------------- flac


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (12345, 1), (16000, 2), (44100, 2), (48000, 1)])
@pytest.mark.parametrize("seconds", [0.2, 1.0, 7.77])
def test_the_length_of_a_flac_is_that_of_its_frames(rate: int, channels: int, seconds: float) -> None:
    flac = encoded("flac", seconds, 440, rate=rate, channels=channels)
    assert (sound_kind(flac), check_sound(flac, "p", "flac")) == ("flac", flac)
    assert sound_seconds(flac) == pytest.approx(seconds, abs=1 / rate)
    for claim in (0, 1, 2**36 - 1):
        assert check_sound(claiming(flac, claim), "p") == flac, "a decoder makes room for what is claimed"


def test_tags_before_a_flac_are_taken_off() -> None:
    flac = encoded("flac", 1, 440)
    assert check_sound(b"ID3\4\0\0\0\0\1\1" + bytes(129) + flac, "p", "flac") == flac


def test_a_flac_that_is_cut_is_as_long_as_what_is_there() -> None:
    flac = encoded("flac", 4, 440)
    cut = check_sound(flac[: len(flac) // 2], "p")
    assert 0.5 < sound_seconds(cut) < 3.5


def test_a_frame_that_is_damaged_does_not_hide_the_others() -> None:
    flac = encoded("flac", 4, 440)
    frames = [at for at in range(42, len(flac) - 1) if flac[at : at + 2] == b"\xff\xf8"]
    damaged = bytearray(flac)
    damaged[frames[3] + 5] ^= 0xFF
    lost = sound_seconds(flac) - read_flac(bytes(damaged)).seconds
    assert 0 < lost < 0.2


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (encoded("flac", 0.05, 440), "audio_too_short"),
        (b"fLaC" + bytes(100), "invalid_audio_format"),
        (encoded("flac", 1, 440)[:41], "invalid_audio_format"),
        (encoded("flac", 1, 440)[:60], "invalid_audio_format"),
        (encoded("flac", 1, 440)[:18] + bytes(8) + encoded("flac", 1, 440)[26:], "invalid_audio_format"),
        (encoded("flac", 1, 440)[:10] + b"\0\x10" + encoded("flac", 1, 440)[12:], "invalid_audio_format"),
    ],
)
def test_a_flac_of_no_bearable_length_is_refused(data: bytes, code: str) -> None:
    assert refusal(data).code == code


def test_few_bytes_of_flac_of_many_hours_are_refused() -> None:
    """Frames of silence: some bytes each, for thousands of samples."""
    flac = encoded("flac", 1, 0, rate=8000)
    flac = flac[:18] + (int.from_bytes(flac[CLAIM], "big") & (1 << 44) - 1 | 20 << 44).to_bytes(8, "big") + flac[26:]
    start = flac.index(b"\xff\xf8")
    head = bytearray(flac[start : flac.index(b"\xff\xf8", start + 2)])
    assert head[4] == 0, "the number of the first frame, in a byte of its own"
    frames = [numbered(bytes(head), number) for number in range(2_000)]
    assert read_flac(flac).seconds < 3600 < read_flac(flac[:start] + b"".join(frames)).seconds
    assert refusal(flac[:start] + b"".join(frames)).code == "audio_too_large"


def numbered(frame: bytes, number: int) -> bytes:
    """A frame whose head says that it is another one."""
    coded = chr(number).encode("utf-8", "surrogatepass")
    behind = (frame[2] >> 4 in {6, 7} and (frame[2] >> 4) - 5) or 0
    head = frame[:4] + coded + frame[5 : 5 + behind]
    crc = 0
    for byte in head:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ (0x07 if crc & 0x80 else 0)) & 0xFF
    return head + bytes([crc]) + frame[6 + behind :]


@pytest.mark.parametrize("noise", [b"\xff\xf8", b"\xff\xf9\xff\xf8"])
def test_what_looks_like_frames_without_end_is_given_up(noise: bytes) -> None:
    assert "only begins like a frame" in refusal(encoded("flac", 1, 440) + noise * 1_000_000).message


def test_any_damage_to_a_flac_is_read_or_refused() -> None:
    chance, flac = random.Random(7), encoded("flac", 0.3, 440)
    for _ in range(rounds(300)):
        data = bytearray(flac)
        for _ in range(chance.randint(1, 6)):
            data[4 + chance.randrange(len(data) - 4)] = chance.randrange(256)
        del data[chance.randrange(4, len(data)) :]
        try:
            read = read_flac(bytes(data))
        except BadFlac:
            continue
        assert read_flac(read.data) == read


# ------------------------------------------------------------------------------------------------------------ others


@pytest.mark.parametrize("kind", [kind for kind in ENCODED if kind not in {"flac", "mp3"}])
def test_what_engines_do_not_read_becomes_a_wav(kind: str) -> None:
    data = check_sound(encoded(kind, 1, 440), "file")
    assert sound_kind(data) == "wav"
    assert sound_seconds(data) == pytest.approx(1, abs=0.1)
    assert hertz_of(data) == pytest.approx(440, abs=3)
    assert np.abs(samples_of(data)).max() == pytest.approx(12000, rel=0.2)


def test_both_channels_are_heard() -> None:
    assert hertz_of(check_sound(encoded("ogg", 1, 440, channels=2), "p")) == pytest.approx(440, abs=3)


@pytest.mark.parametrize(("begun", "kind"), BEGUN.items())
def test_without_the_extra_a_kind_is_refused_by_name(begun: bytes, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(Unsupported) as caught:
        check_sound(begun + bytes(100), "file")
    assert caught.value.param == "file"
    assert "pip install 'puna[sound]'" in caught.value.message
    assert f"the sound is {kind};" in caught.value.message


@pytest.mark.parametrize("begun", BEGUN)
def test_what_only_begins_like_a_sound_is_refused(begun: bytes) -> None:
    error = refusal(begun + bytes(1000))
    assert (error.code, begun[1:]) in {("invalid_audio_format", begun[1:]), ("audio_too_short", b"\xf1")}


def test_a_picture_that_moves_without_a_sound_says_so() -> None:
    assert "no sound in it" in refusal(film()).message


def test_the_format_is_held_to_the_bytes() -> None:
    ogg = encoded("ogg", 0.2, 440)
    assert "the sound is ogg, not m4a" in refusal(ogg, "m4a").message
    for called, kind in (("m4a", "m4a"), ("mpga", "mpga"), ("mpeg", "mpeg"), ("mpeg", "mp3"), ("mpga", "mp3")):
        assert check_sound(encoded(kind, 0.5, 440), "p", called)


def test_what_takes_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ogg = encoded("ogg", 20, 440)
    monkeypatch.setattr(sounds, "DECODING", replace(sounds.DECODING, cpu_seconds=0.001))
    assert "0.001 s of a processor" in refusal(ogg).message
    monkeypatch.setattr(sounds, "DECODING", replace(sounds.DECODING, cpu_seconds=60.0, room=1 << 20))
    assert "1 MB of memory" in refusal(ogg).message


def test_few_bytes_of_many_hours_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounds, "SOUND_SECONDS", (0.1, 2.0))
    assert refusal(encoded("ogg", 3, 440)).code == "audio_too_large"
    assert check_sound(encoded("ogg", 1.5, 440), "p")


def test_a_reader_that_the_system_does_not_let_run_is_no_fault_of_the_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounds, "DECODING", replace(sounds.DECODING, wait_seconds=0.01))
    with pytest.raises(Overloaded, match="too little"):
        check_sound(encoded("ogg", 1, 440), "p")
