"""A tiny made-up language as audio: a corpus in seconds, learnable by a tiny model, for tests and first tries.

In: a folder name, a number of utterances, a seed. Out: FOLDER/toy-0000.wav (16 kHz, 16 bit) and toy-0000.txt
(its words) and so on: the layout of `asr prepare folder`. Nothing is spoken: each of six letters is a vowel-like
sound with two formants of its own, lasting 80 to 120 ms, so that what has to be learnt is real (which sound is which
letter, where words end, in what order) and how well it was learnt is not in doubt. The same seed gives the same
bytes.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

SAMPLE_RATE = 16_000
# Two formants a letter in hertz, far enough apart to be told through the noise.
FORMANTS = {
    "a": (750, 1250),
    "e": (450, 1900),
    "i": (280, 2500),
    "o": (450, 850),
    "s": (3200, 4600),
    "u": (280, 3400),
}
Waveform = np.ndarray


@dataclass(frozen=True)
class Speaker:
    """How one voice differs: pitch in hertz, a factor on all formants, a factor on all durations."""

    pitch: float
    formant_scale: float
    pace: float


def make_corpus(
    folder: str | Path,
    *,
    utterances: int = 200,
    seed: int = 0,
    speakers: int = 4,
    snr: float = 25.0,
) -> list[Path]:
    """Write the corpus into `folder` and return its audio files in order; `snr` in decibels."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    voices = [_speaker(generator) for _ in range(speakers)]
    files = []
    for number in range(utterances):
        text = random_text(generator)
        waveform = speak(text, voices[number % speakers], generator, snr=snr)
        path = folder / f"toy-{number:04d}.wav"
        soundfile.write(path, waveform, SAMPLE_RATE, subtype="PCM_16")
        path.with_suffix(".txt").write_text(text + "\n", encoding="utf-8")
        files.append(path)
    return files


def random_text(generator: np.random.Generator) -> str:
    """One or two words of together three to eight letters, for example "osa ieu"."""
    letters = "".join(generator.choice(list(FORMANTS), size=generator.integers(3, 9)))
    if len(letters) < 5 or generator.random() < 0.5:
        return letters
    cut = int(generator.integers(2, len(letters) - 1))
    return f"{letters[:cut]} {letters[cut:]}"


def speak(
    text: str, speaker: Speaker, generator: np.random.Generator, *, snr: float = 25.0
) -> Waveform:
    """The sound of `text`, float32 (S,): letters, 100 ms for a space, silence around, noise over all."""
    pieces = [_silence(0.1)]
    for letter in text:
        pieces.append(_silence(0.1) if letter == " " else _sound(letter, speaker, generator))
        pieces.append(_silence(0.02))
    pieces.append(_silence(0.1))
    clean = np.concatenate(pieces)
    noise = generator.standard_normal(len(clean))
    level = np.sqrt(np.mean(clean**2)) * 10 ** (-snr / 20)
    return (clean + level * noise).astype(np.float32)


def _speaker(generator: np.random.Generator) -> Speaker:
    return Speaker(
        pitch=generator.uniform(100, 220),
        formant_scale=generator.uniform(0.95, 1.05),
        pace=generator.uniform(0.95, 1.05),
    )


def _sound(letter: str, speaker: Speaker, generator: np.random.Generator) -> Waveform:
    samples = round(np.clip(generator.uniform(0.08, 0.12) * speaker.pace, 0.08, 0.12) * SAMPLE_RATE)
    time = np.arange(samples) / SAMPLE_RATE
    harmonics = speaker.pitch * np.arange(1, int(SAMPLE_RATE / 2 / speaker.pitch))
    weights = sum(
        np.exp(-0.5 * ((harmonics - formant * speaker.formant_scale) / 150) ** 2)
        for formant in FORMANTS[letter]
    )
    phases = generator.uniform(0, 2 * np.pi, size=len(harmonics))
    sound = np.sin(2 * np.pi * harmonics * time[:, None] + phases) @ weights
    loudness = generator.uniform(0.08, 0.12) / np.sqrt(np.mean(sound**2))
    return loudness * np.hanning(samples) ** 0.25 * sound


def _silence(seconds: float) -> Waveform:
    return np.zeros(round(seconds * SAMPLE_RATE))


def main() -> None:
    """The command line: make_toy.py FOLDER [--utterances N] [--seed N]."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the corpus goes")
    parser.add_argument("--utterances", type=int, default=200, help="how many (default: 200)")
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed, another corpus (default: 0)"
    )
    options = parser.parse_args()
    files = make_corpus(options.folder, utterances=options.utterances, seed=options.seed)
    print(f"{len(files)} utterances in {options.folder}")


if __name__ == "__main__":
    main()
