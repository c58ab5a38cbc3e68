"""Speak the sentences below with flite's voices into data/samples: Opus files at 16 kHz and their manifest.

Needs the program flite (`apt-get install flite`). Run from anywhere: `python recipes/samples/make_samples.py`.
The speech is made by a program because the repository then holds no recording of a person.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import soundfile

from asr import audio
from asr.files import atomic_write

FOLDER = Path(__file__).resolve().parents[2] / "data" / "samples"
RATE = 16_000
SENTENCES = (
    ("river", "slt", "The small boat crossed the river before the rain began to fall."),
    ("letter", "rms", "She opened the letter with care, and read it twice by the window."),
    ("garden", "awb", "There was an old stone wall at the end of the garden."),
    ("morning", "slt", "In the morning, the two brothers walked down the hill to the market."),
    ("fire", "rms", "He put another log on the fire and sat down to wait for his friend."),
    (
        "captain",
        "awb",
        "The captain said nothing, but he looked at the dark water for a long time.",
    ),
    ("house", "slt", "Nobody had lived in the house since the summer of that year."),
    ("horse", "rms", "The white horse stood under the trees and would not move."),
)


def speak(voice: str, sentence: str, target: Path) -> float:
    """Write one spoken sentence and return its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        spoken = Path(folder) / "spoken.wav"
        subprocess.run(["flite", "-voice", voice, "-t", sentence, "-o", str(spoken)], check=True)
        waveform = audio.read(spoken, sample_rate=RATE)
    soundfile.write(target, waveform, RATE, format="OGG", subtype="OPUS")
    return audio.info(target).duration


def main() -> None:
    if shutil.which("flite") is None:
        sys.exit("error: the program flite is needed: apt-get install flite")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with atomic_write(FOLDER / "manifest.jsonl") as manifest:
        for name, voice, sentence in SENTENCES:
            target = FOLDER / f"{name}.opus"
            entry = {
                "audio_filepath": target.name,
                "duration": round(speak(voice, sentence, target), 4),
                "text": sentence,
                "speaker": f"flite-{voice}",
                "id": name,
            }
            manifest.write(json.dumps(entry) + "\n")


if __name__ == "__main__":
    main()
