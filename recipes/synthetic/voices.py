"""A sentence and a speaker in, speech at 16 kHz out: hibari's network and flite's voices, made into many speakers.

A speaker is a voice of a synthesiser with another pitch and another size of head: resampling moves pitch and formants
together, and the synthesiser is told the pitch and the pace that undo what was not meant.
"""

import functools
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from asr.errors import CorpusError

SAMPLE_RATE = 16_000
Waveform = np.ndarray


@dataclass(frozen=True)
class Speaker:
    """A voice, how its pitch and formants are moved (factors), and its share of the sentences (a weight)."""

    name: str
    engine: str  # a key of ENGINES
    voice: str
    pitch: float = 1.0
    formants: float = 1.0
    weight: float = 1.0


def _hibari(pitch: float, formants: float, weight: float) -> Speaker:
    name = f"hibari-heart-p{round(100 * pitch):03d}-f{round(100 * formants):03d}"
    return Speaker(name, "hibari", "heart", pitch, formants, weight)


def _flite(voice: str, pitch: float, formants: float, weight: float) -> Speaker:
    name = f"flite-{voice}-p{round(100 * pitch):03d}-f{round(100 * formants):03d}"
    return Speaker(name, "flite", voice, pitch, formants, weight)


# From a large man's voice to a girl's. flite's other voices were above 15 % WER (README).
SPEAKERS = (
    *(_hibari(p, f, 1.0) for p, f in ((0.5, 0.8), (0.55, 0.82), (0.62, 0.85), (0.7, 0.88))),
    *(_hibari(p, f, 1.0) for p, f in ((0.62, 1.0), (0.75, 0.92), (0.85, 0.94), (1.0, 0.94))),
    *(_hibari(p, f, 1.0) for p, f in ((1.0, 1.0), (1.12, 1.06), (1.25, 1.0), (1.2, 1.12))),
    *(_flite("rms", f, f, 0.4) for f in (1.0, 1.08)),  # its pitch is moved by resampling only
)


def speak(text: str, speaker: Speaker, *, pace: float, seed: int) -> Waveform:
    """Return `text` as mono float32 speech (S,) at 16 kHz; `pace` is a factor on the voice's own speaking rate.

    Raises CorpusError where the synthesiser is not installed or says nothing.
    """
    import soxr

    waveform, rate = ENGINES[speaker.engine](text, speaker, pace, seed)
    if not len(waveform):
        raise CorpusError(f"{speaker.name}: no sound for {text!r}")
    return np.asarray(soxr.resample(waveform, rate * speaker.formants, SAMPLE_RATE), np.float32)


def _speak_hibari(text: str, speaker: Speaker, pace: float, seed: int) -> tuple[Waveform, int]:
    tts = _load_hibari(speaker.voice)
    from hibari import dsp

    generator = np.random.default_rng(seed)
    speed = np.asarray([pace / speaker.formants], np.float32)
    parts = [np.zeros(0, np.float32)]
    for phonemes in tts.phonemize(text):
        # As Hibari.from_ids, which leaves the pitch as it is.
        ids = np.asarray([tts.ids(phonemes)], np.int64)
        *spectra, f0 = (part[0] for part in tts.sess.run(None, {"ids": ids, "speed": speed}))
        parts.append(dsp.synth(*spectra, f0 * (speaker.pitch / speaker.formants), generator))
    return np.concatenate(parts), dsp.SR


@functools.cache
def _load_hibari(voice: str) -> Any:
    try:
        from hibari import Hibari
    except ImportError as error:
        raise CorpusError("hibari is not installed: pip install hibari-tts==0.2.1 scipy") from error
    return Hibari(voice)


def _speak_flite(text: str, speaker: Speaker, pace: float, seed: int) -> tuple[Waveform, int]:
    options = {
        "duration_stretch": speaker.formants / pace,
        "f0_shift": speaker.pitch / speaker.formants,
    }
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "speech.wav"
        command = ["flite", "-voice", speaker.voice]
        for name, value in options.items():
            command += ["--setf", f"{name}={value:.4f}"]
        try:
            subprocess.run(
                [*command, "-t", text, "-o", str(target)], check=True, capture_output=True
            )
        except FileNotFoundError as error:
            raise CorpusError(
                "the program flite is not installed: apt-get install flite"
            ) from error
        except subprocess.CalledProcessError as error:
            raise CorpusError(f"{speaker.name}: {error.stderr.decode().strip()}") from error
        waveform, rate = soundfile.read(target, dtype="float32")
    return waveform, rate


ENGINES = {"hibari": _speak_hibari, "flite": _speak_flite}
