"""What the tests share: fixed seeds, one thread, small waveforms and files made of them."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asr import manifest
from asr.manifest import Utterance

ROOT = Path(__file__).resolve().parents[1]
REAL_SPEECH = Path(os.environ.get("ROOT", ROOT / "data"))  # as for recipes/librispeech/run.sh
SAMPLE_RATE = 16_000
FORMANTS = np.array(  # of a, i, u, e, o in hertz
    [
        [730, 1090, 2440],
        [270, 2290, 3010],
        [300, 870, 2240],
        [530, 1840, 2480],
        [570, 840, 2410],
    ]
)

SMALL = ("encoder.width", "decoder.width", "decoder.attention.width")

Waveform = np.ndarray


def pytest_configure(config: pytest.Config) -> None:
    """One thread for torch: the matrices of the tests are too small to share out."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard() -> Iterator[None]:
    """Where the tests run in the background, SIGINT may be ignored, in their child processes too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def run_recipe() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """run_recipe(script, *arguments, **environment): a recipe's run.sh, with one step of a network of a few units.

    It has to succeed.
    """
    return _run_recipe


@pytest.fixture
def make_waveform() -> Callable[..., Waveform]:
    """make_waveform(seconds, pitch=150.0, sample_rate=16000, seed=0): vowels in noise.

    float32 (S,) in [-0.5, 0.5]; its loudness rises and falls four times a second, as syllables do. The detector of
    speech takes it for speech where the pitch is at most 230 Hz.
    """
    return _waveform


@pytest.fixture
def make_audio(tmp_path: Path) -> Callable[..., Path]:
    """make_audio(name="a.wav", seconds=0.5, **as make_waveform): the same as a file in tmp_path.

    The name's ending chooses the format: wav (16 bit), flac, ogg, mp3.
    """

    def make(name: str = "a.wav", seconds: float = 0.5, **options: float) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        sample_rate = int(options.get("sample_rate", SAMPLE_RATE))
        soundfile.write(path, _waveform(seconds, **options), sample_rate)
        return path

    return make


@pytest.fixture
def make_manifest(tmp_path: Path, make_audio: Callable[..., Path]) -> Callable[..., Path]:
    """make_manifest(texts=("a", "b"), name="train.jsonl", seconds=0.5): a manifest with its audio.

    Utterance n says texts[n], is n · 0.1 s longer than the first and spoken by one of two speakers.
    """

    def make(
        texts: Sequence[str] = ("a", "b"), name: str = "train.jsonl", seconds: float = 0.5
    ) -> Path:
        stem = Path(name).stem
        utterances = []
        for number, text in enumerate(texts):
            length = seconds + 0.1 * number
            audio = make_audio(f"{stem}/{number}.wav", length, pitch=120.0 + 10 * number)
            speaker = f"speaker-{number % 2}"
            utterances.append(Utterance(f"{stem}-{number}", audio, length, text, speaker))
        path = tmp_path / name
        manifest.write(path, utterances)
        return path

    return make


@pytest.fixture(scope="session")
def real_speech() -> Path:
    """The folder of real corpora; the test is skipped where there is none."""
    if not (REAL_SPEECH / "LibriSpeech").is_dir():
        pytest.skip(f"no real speech: {REAL_SPEECH / 'LibriSpeech'} is not there")
    return REAL_SPEECH


def _waveform(
    seconds: float, pitch: float = 150.0, sample_rate: int = SAMPLE_RATE, seed: int = 0
) -> Waveform:
    samples = round(seconds * sample_rate)
    time = np.arange(samples) / sample_rate
    frames = np.arange(0, seconds + 0.02, 0.01)
    place = 4 * frames  # in syllables
    glide = np.clip((place % 1 - 0.7) / 0.3, 0, 1)[:, None]
    vowel, following = (FORMANTS[(place.astype(int) + n) % len(FORMANTS)] for n in (0, 1))
    formants = vowel * (1 - glide) + following * glide
    swing = 1 + 0.05 * np.sin(2 * np.pi * 1.3 * frames)
    phase = 2 * np.pi * pitch * np.cumsum(np.interp(time, frames, swing)) / sample_rate
    voice = np.zeros(samples)
    for n in range(1, int(min(3200, 0.45 * sample_rate) / pitch)):
        distance = (n * pitch * swing[:, None] - formants) / [60, 90, 120]
        loudness = ([1, 0.6, 0.3] / (1 + distance**2)).sum(1) / n**0.5
        voice += np.interp(time, frames, loudness) * np.sin(n * phase)
    syllables = 0.6 - 0.4 * np.cos(2 * np.pi * 4 * time)
    noise = np.random.default_rng(seed).standard_normal(samples)
    waveform = 0.3 * syllables * voice + 0.002 * noise
    return np.clip(waveform, -0.5, 0.5).astype(np.float32)


def _run_recipe(
    script: Path, *arguments: str | Path, **environment: str
) -> "subprocess.CompletedProcess[str]":
    small = [f"model.{name}=16" for name in SMALL]
    sets = [word for option in ("training.max_steps=1", *small) for word in ("--set", option)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", script, *arguments, *sets],
        env=os.environ | {"PATH": path} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran
