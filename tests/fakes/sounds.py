"""Sounds in the files that others send, encoded by FFmpeg's libraries."""

from __future__ import annotations

import io
from types import MappingProxyType

import av
import numpy as np
from av.audio.resampler import AudioResampler

ENCODED = MappingProxyType(
    {
        "flac": ("flac", "flac"),
        "mp3": ("mp3", "libmp3lame"),
        "ogg": ("ogg", "libopus"),
        "m4a": ("ipod", "aac"),
        "mp4": ("mp4", "aac"),
        "webm": ("webm", "libopus"),
        "mpga": ("mp2", "mp2"),
        "mpeg": ("mpeg", "mp2"),
        "aac": ("adts", "aac"),
        "aiff": ("aiff", "pcm_s16be"),
        "caf": ("caf", "pcm_s16be"),
    }
)
"""FFmpeg's container and codec of each."""


def encoded(
    kind: str, seconds: float, hertz: float, *, rate: int = 48_000, channels: int = 1, first: bytes = b""
) -> bytes:
    """A tone. `first`: tags before it."""
    container, codec = ENCODED[kind]
    tone = (np.sin(2 * np.pi * np.arange(round(seconds * rate)) * hertz / rate) * 12000).astype("<i2")
    whole = av.AudioFrame.from_ndarray(tone.reshape(1, -1), format="s16", layout="mono")
    whole.sample_rate = rate
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        layout = "mono" if channels == 1 else "stereo"
        stream = file.add_stream(codec, rate=rate, layout=layout)
        context = stream.codec_context
        context.open()
        resampler = AudioResampler(stream.format.name, layout, rate, frame_size=context.frame_size or None)
        for frame in (*resampler.resample(whole), *resampler.resample(None)):
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return first + out.getvalue()


def film() -> bytes:
    """Pictures that move, without a sound."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=25, width=32, height=32, pix_fmt="yuv420p")
        for shade in (0, 99):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), shade, "u1"), format="rgb24")))
        file.mux(stream.encode(None))
    return out.getvalue()
