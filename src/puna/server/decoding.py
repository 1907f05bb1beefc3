"""A process that decodes one sound (see `strangers`): bytes of a file in, samples of 16 bits out, one channel of them.

Its further arguments are the kind of file, and how many seconds may come of it. The kind was told by the server from
the first bytes: its reader is the only one that is tried, and only codecs of sound are.
"""

from __future__ import annotations

import io
import sys
from types import MappingProxyType

from puna.server.strangers import Overlong, told_within

RATE = 16_000
"""Samples a second: what the models that hear are given in any case."""

_READERS = MappingProxyType({"webm": "matroska", "mp2": "mp3"})
"""FFmpeg's names of kinds, where they are others."""

_CODECS = frozenset(
    {"aac", "alac", "amrnb", "amrwb", "flac", "mp2", "mp2float", "mp3", "mp3float", "opus", "vorbis",
     "pcm_alaw", "pcm_mulaw", "pcm_f32be", "pcm_f32le", "pcm_f64be", "pcm_f64le", "pcm_s8", "pcm_u8",
     "pcm_s16be", "pcm_s16le", "pcm_s24be", "pcm_s24le", "pcm_s32be", "pcm_s32le"}
)  # fmt: skip


def main() -> int:
    import av
    from av.audio.resampler import AudioResampler

    kind, seconds = sys.argv[3], float(sys.argv[4])

    def read(data: bytes) -> bytes:
        pieces, most = [], int(seconds * RATE)
        options = {"codec_whitelist": ",".join(sorted(_CODECS))}
        with av.open(io.BytesIO(data), format=_READERS.get(kind, kind), container_options=options) as file:
            if not file.streams.audio:
                raise ValueError("there is no sound in it")
            stream = file.streams.audio[0]
            codec = stream.codec_context
            if codec is None or codec.name not in _CODECS:
                raise ValueError(f"its codec is {'unknown' if codec is None else codec.name}, which is not read")
            codec.thread_count = 1
            resampler = AudioResampler(format="s16", layout="mono", rate=RATE)
            for frame in file.decode(stream):
                for part in resampler.resample(frame):
                    most -= part.samples
                    if most < 0:
                        raise Overlong
                    pieces.append(bytes(part.planes[0])[: 2 * part.samples])
            pieces += [bytes(part.planes[0])[: 2 * part.samples] for part in resampler.resample(None)]
        return b"".join(pieces)

    return told_within(read)


if __name__ == "__main__":
    sys.exit(main())
