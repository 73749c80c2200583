"""A voice for the sandbox: babble whose length follows the text. Formant synthesis, nothing but arithmetic.

PCM, WAV and the two telephone codes are computed here; MP3 is put together in `mp3` from syllables of the same
synthesizer that were encoded beforehand.
"""

import math
import random
import re
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from insighto.sandbox import mp3

PITCHES_HZ = (92, 112, 134, 168, 198, 232)
SYLLABLES = 6
SYLLABLE_S = 0.16
LONGEST_S = 600.0
PAUSE = -1

_CONTENT_TYPES = {
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
    "ulaw": "audio/basic",
    "alaw": "audio/x-alaw-basic",
}
# Formants of a, e, i, o, u and a schwa: centre frequency, bandwidth, strength.
_VOWELS = (
    ((730, 90, 1.0), (1_150, 110, 0.55), (2_500, 170, 0.2)),
    ((530, 70, 1.0), (1_840, 120, 0.5), (2_480, 170, 0.25)),
    ((290, 60, 1.0), (2_250, 120, 0.45), (3_000, 180, 0.25)),
    ((500, 70, 1.0), (880, 90, 0.6), (2_540, 170, 0.12)),
    ((320, 60, 1.0), (800, 90, 0.5), (2_240, 170, 0.1)),
    ((600, 80, 1.0), (1_400, 110, 0.5), (2_450, 170, 0.2)),
)
_CONSONANTS = ("b", "s", "m", "t", "l", "n")
_WORD = re.compile(r"\w+|[.,;:!?…。、！？]", re.UNICODE)
_VOWEL_GROUP = re.compile(r"[aeiouyäöüàáâãèéêìíîòóôõùúû]+", re.IGNORECASE)
_WIDE = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]")


@dataclass(frozen=True, slots=True)
class Form:
    """What the bytes look like: container or code, samples per second, and for MP3 the bit rate."""

    container: str
    rate: int
    kbps: int = 0

    @property
    def content_type(self) -> str:
        return _CONTENT_TYPES[self.container]


def plan(text: str) -> list[int]:
    """The syllables and pauses of a text: a syllable per vowel group, a pause per punctuation mark."""
    units: list[int] = []
    for word in _WORD.findall(text):
        if not (word[0].isalnum() or word[0] == "_"):
            units += [PAUSE, PAUSE]
            continue
        count = len(_WIDE.findall(word)) or len(_VOWEL_GROUP.findall(word)) or -(-len(word) // 3)
        units += [sum(map(ord, word[at : at + 3])) % SYLLABLES for at in range(count)]
    units.append(PAUSE)
    return units[: int(LONGEST_S / SYLLABLE_S)]


def speak(text: str, *, voice: int, form: Form) -> Iterator[bytes]:
    """The sound of `text`, syllable by syllable. Another `voice` number has another pitch."""
    pitch = voice % len(PITCHES_HZ)
    units = plan(text)
    if form.container == "mp3":
        yield from mp3.speak(units, pitch=pitch, rate=form.rate, kbps=form.kbps)
        return
    sounds = _sounds(pitch, form.rate)
    if form.container == "wav":
        yield riff_header(sum(len(sounds[unit]) for unit in units) * 2, form.rate)
    for unit in units:
        samples = sounds[unit]
        if form.container in ("ulaw", "alaw"):
            encode = _ulaw if form.container == "ulaw" else _alaw
            yield bytes(encode(sample) for sample in samples)
        else:
            yield samples.tobytes()


def riff_header(size: int, rate: int) -> bytes:
    """The 44 bytes before 16-bit mono samples."""
    return struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16,
                       b"data", size)  # fmt: skip


@lru_cache(maxsize=64)
def _sounds(pitch: int, rate: int) -> dict[int, "array[int]"]:
    length = int(SYLLABLE_S * rate)
    sounds = {index: syllable(index, PITCHES_HZ[pitch], rate, length) for index in range(SYLLABLES)}
    sounds[PAUSE] = array("h", bytes(2 * length))
    return sounds


def syllable(index: int, pitch_hz: int, rate: int, length: int) -> "array[int]":
    """A consonant and a vowel, faded at both ends so that syllables can be put in any order."""
    noise = random.Random(index)  # noqa: S311 - the hiss in a voice, not a secret
    consonant = _CONSONANTS[index]
    higher = 1 + (pitch_hz - 92) / 1_000  # a smaller head with a higher voice
    filters = [
        _resonator(centre * higher, width, strength, rate)
        for centre, width, strength in _VOWELS[index]
        if centre * higher < rate * 0.45
    ]
    onset = int(length * (0.3 if consonant in "st" else 0.2))
    fade_in, fade_out = int(length * 0.08), int(length * 0.3)
    memory = [[0.0, 0.0] for _ in filters]
    phase, previous, voiced = 0.0, 0.0, []
    for position in range(length):
        glide = 1.06 - 0.12 * position / length
        phase += pitch_hz * glide / rate
        pulse = 0.0
        if phase >= 1.0:
            phase -= 1.0
            pulse = 1.0
        hiss = noise.uniform(-1, 1)
        source = pulse + 0.004 * hiss
        if position < onset:
            if consonant in "st":
                source = 0.05 * hiss
            elif consonant in "mnl":
                source *= 0.45
            else:
                source *= position / onset
        value = 0.0
        for (gain, first, second), state in zip(filters, memory, strict=True):
            out = gain * source + first * state[0] + second * state[1]
            state[1], state[0] = state[0], out
            value += out
        if position < onset and consonant in "st":
            value, previous = hiss * 0.3 - previous * 0.2, hiss * 0.3
        envelope = min(1.0, position / fade_in, (length - 1 - position) / fade_out)
        voiced.append(value * envelope * envelope * (3 - 2 * envelope))
    loudest = max(map(abs, voiced)) or 1.0
    return array("h", (int(value / loudest * 15_000) for value in voiced))


def _resonator(centre: float, width: float, strength: float, rate: int) -> tuple[float, float, float]:
    radius = math.exp(-math.pi * width / rate)
    angle = 2 * math.pi * centre / rate
    return strength * (1 - radius), 2 * radius * math.cos(angle), -radius * radius


def _ulaw(sample: int) -> int:
    sign = 0x80 if sample < 0 else 0
    size = min(abs(sample), 32_635) + 0x84
    exponent = max(0, size.bit_length() - 8)
    return ~(sign | exponent << 4 | size >> exponent + 3 & 0x0F) & 0xFF


def _alaw(sample: int) -> int:
    sign = 0x80 if sample >= 0 else 0
    size = min(abs(sample), 32_635)
    exponent = max(0, size.bit_length() - 8)
    code = exponent << 4 | (size >> (exponent + 3 if exponent else 4)) & 0x0F
    return (sign | code) ^ 0x55
