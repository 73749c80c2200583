"""Make the files in `syllables/` again: `python -m insighto.sandbox.make_syllables`. Needs the `lame` encoder.

Each syllable lies in its own whole number of frames, shifted by what encoder and decoder delay the sound, so that
cutting between frames cuts in silence. The last group of frames is the pause.
"""

import subprocess
import sys
from array import array

from insighto.sandbox import audio, mp3

DELAY = 1_105  # samples: 576 of the encoder, 529 of every decoder
STORED_KBPS = {44_100: 32, 48_000: 32, 24_000: 24, 22_050: 24, 16_000: 24}


def make(rate: int) -> bytes:
    samples_per_frame = 1_152 if rate > 32_000 else 576
    slot = mp3.SLOTS[rate] * samples_per_frame
    skipped = -(-DELAY // samples_per_frame)
    sound = array("h", bytes(2 * (skipped * samples_per_frame - DELAY)))
    for pitch in audio.PITCHES_HZ:
        for index in range(audio.SYLLABLES):
            spoken = audio.syllable(index, pitch, rate, min(slot, int(audio.SYLLABLE_S * rate)))
            sound += spoken + array("h", bytes(2 * (slot - len(spoken))))
    groups = len(audio.PITCHES_HZ) * audio.SYLLABLES + 1
    sound += array("h", bytes(4 * slot))
    command = ["lame", "-r", "-s", str(rate / 1_000), "--signed", "--bitwidth", "16", "--little-endian", "-m", "m",
               "--cbr", "-b", str(STORED_KBPS[rate]), "--resample", str(rate / 1_000), "--nores", "-t", "-q", "0",
               "--silent", "-", "-"]  # fmt: skip
    encoded = subprocess.run(command, input=sound.tobytes(), stdout=subprocess.PIPE, check=True).stdout  # noqa: S603
    frames = mp3.split(encoded)[skipped:][: groups * mp3.SLOTS[rate]]
    for frame in frames:
        first_of_side_info = frame[4] if rate <= 32_000 else frame[4] << 1 | frame[5] >> 7
        if first_of_side_info:
            sys.exit("a frame borrows from the one before it")
    return b"".join(frames)


if __name__ == "__main__":
    mp3.FOLDER.mkdir(exist_ok=True)
    for rate in mp3.SLOTS:
        (mp3.FOLDER / f"{rate}.mp3").write_bytes(make(rate))
