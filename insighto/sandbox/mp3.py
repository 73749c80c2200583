"""MP3 put together from syllables that were encoded once: every stored frame stands alone.

The files in `syllables/` hold, for each pitch, the six syllables of `audio`, one after another, in frames of the
lowest bit rate and without a bit reservoir. A frame may therefore be moved anywhere, and be made longer: a higher bit
rate is the same frame with another number in its header and padding after its data. `make_syllables` made them.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

FOLDER = Path(__file__).parent / "syllables"
SYLLABLES = 6
# Samples per second: frames in a syllable. MPEG-1 has 1152 samples in a frame, MPEG-2 576.
SLOTS = {44_100: 6, 48_000: 7, 24_000: 7, 22_050: 6, 16_000: 4}
_KBPS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBPS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES_1 = (44_100, 48_000, 32_000)
_RATES_2 = (22_050, 24_000, 16_000)


def supports(rate: int, kbps: int) -> bool:
    return rate in SLOTS and kbps in (_KBPS_1 if rate > 32_000 else _KBPS_2) and kbps >= _stored_kbps(rate)


def speak(units: list[int], *, pitch: int, rate: int, kbps: int) -> Iterator[bytes]:
    """Frames at a constant bit rate, a syllable (or pause, -1) at a time."""
    syllables, silence = _library(rate)
    debt = 0
    for unit in units:
        frames = silence if unit < 0 else syllables[pitch * SYLLABLES + unit]
        if kbps == _stored_kbps(rate):  # There is no room to spare: the frames as they are.
            yield b"".join(frames)
            continue
        out = bytearray()
        for frame in frames:
            size, debt = _size(rate, kbps, debt)
            out += _resized(frame, rate, kbps, size)
        yield bytes(out)


def split(data: bytes) -> list[bytes]:
    """The frames of a plain MP3 file; anything else is our own mistake."""
    frames, at = [], 0
    while at + 4 <= len(data):
        assert data[at] == 0xFF, "not a frame"
        first = data[at + 1] >> 3 & 3 == 3
        kbps = (_KBPS_1 if first else _KBPS_2)[data[at + 2] >> 4]
        rate = (_RATES_1 if first else _RATES_2)[data[at + 2] >> 2 & 3]
        size = (144_000 if first else 72_000) * kbps // rate + (data[at + 2] >> 1 & 1)
        frames.append(data[at : at + size])
        at += size
    return frames


@lru_cache(maxsize=8)
def _library(rate: int) -> tuple[list[list[bytes]], list[bytes]]:
    frames = split((FOLDER / f"{rate}.mp3").read_bytes())
    slot = SLOTS[rate]
    groups = [frames[at : at + slot] for at in range(0, len(frames), slot)]
    return groups[:-1], groups[-1]


def _stored_kbps(rate: int) -> int:
    return 32 if rate > 32_000 else 24


def _size(rate: int, kbps: int, debt: int) -> tuple[int, int]:
    """The bytes of the next frame, so that the average is exact, and what is owed after it."""
    exact = (144_000 if rate > 32_000 else 72_000) * kbps
    size, debt = exact // rate, debt + exact % rate
    return (size + 1, debt - rate) if debt >= rate else (size, debt)


def _resized(frame: bytes, rate: int, kbps: int, size: int) -> bytes:
    table = _KBPS_1 if rate > 32_000 else _KBPS_2
    plain = (144_000 if rate > 32_000 else 72_000) * kbps // rate
    third = table.index(kbps) << 4 | frame[2] & 0x0C | (size > plain) << 1 | frame[2] & 1
    header = bytes([frame[0], frame[1], third, frame[3]])
    return (header + frame[4:]).ljust(size, b"\0")[:size]
