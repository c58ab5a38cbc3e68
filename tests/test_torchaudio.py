"""asr._torchaudio: torchaudio's Python part works beside whatever torch is installed."""

import subprocess
import sys

import torch

from asr._torchaudio import load_torchaudio


def test_torchaudio_works_beside_this_torch() -> None:
    transforms = load_torchaudio().transforms
    mel = transforms.MelSpectrogram(sample_rate=16_000, n_fft=512, hop_length=160, n_mels=80)
    spectrum = mel(torch.sin(torch.arange(16_000) * 0.1))
    assert spectrum.shape == (80, 101)
    assert torch.isfinite(spectrum).all()
    assert spectrum.max() > 1


def test_second_call_returns_the_same_module() -> None:
    assert load_torchaudio() is load_torchaudio()
    assert sys.modules["torchaudio"] is load_torchaudio()


def test_importing_asr_does_not_load_torchaudio() -> None:
    code = "import sys, asr._torchaudio; assert 'torchaudio' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
