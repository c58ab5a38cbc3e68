"""The toy corpus: the same bytes each time, the folder layout, and letters that can be told apart."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr import config, corpora, evaluate, manifest, recognizer
from asr.training import train
from recipes.toy import make_toy

RECIPE = Path(make_toy.__file__).with_name("toy.toml")


def _bytes(files: list[Path]) -> list[bytes]:
    return [path.read_bytes() + path.with_suffix(".txt").read_bytes() for path in files]


def _profile(waveform: np.ndarray) -> np.ndarray:
    """How a sound's energy lies over 40 bands of 200 Hz, in decibels."""
    power = np.abs(np.fft.rfft(waveform, 16_000)) ** 2
    bands = power[:8000].reshape(40, 200).sum(axis=1)
    return 10 * np.log10(bands / bands.sum() + 1e-4)


def test_same_seed_gives_the_same_corpus_and_another_seed_another(tmp_path: Path) -> None:
    first, again, other = (
        _bytes(make_toy.make_corpus(tmp_path / name, utterances=5, seed=seed))
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert first == again
    assert first != other


def test_corpus_is_audio_with_texts_beside_it(tmp_path: Path) -> None:
    files = make_toy.make_corpus(tmp_path, utterances=30)
    assert len(files) == 30
    for path in files:
        audio = soundfile.info(path)
        text = path.with_suffix(".txt").read_text(encoding="utf-8").strip()
        letters = text.replace(" ", "")
        assert (audio.samplerate, audio.channels) == (16_000, 1)
        assert 3 <= len(letters) <= 8
        assert set(letters) <= set(make_toy.FORMANTS)
        assert 0.2 + 0.1 * len(letters) <= audio.duration <= 0.3 + 0.15 * len(letters)


def test_speech_stays_within_full_scale(tmp_path: Path) -> None:
    loudest = max(
        np.abs(soundfile.read(path)[0]).max()
        for path in make_toy.make_corpus(tmp_path, utterances=50)
    )
    assert 0.1 < loudest < 0.9


def test_letters_can_be_told_apart_in_every_voice() -> None:
    generator = np.random.default_rng(0)
    voices = [make_toy.Speaker(pitch, scale, 1.0) for pitch in (100, 220) for scale in (0.95, 1.05)]

    def profiles(letter: str) -> np.ndarray:
        sounds = [make_toy.speak(letter, voice, generator) for voice in voices for _ in range(5)]
        return np.array([_profile(sound) for sound in sounds])

    templates = {letter: profiles(letter).mean(axis=0) for letter in make_toy.FORMANTS}
    for letter in make_toy.FORMANTS:
        for profile in profiles(letter):
            nearest = min(templates, key=lambda name: np.linalg.norm(templates[name] - profile))
            assert nearest == letter


def test_command_line_writes_the_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "corpus"
    monkeypatch.setattr("sys.argv", ["make_toy.py", str(folder), "--utterances", "3"])
    make_toy.main()
    assert capsys.readouterr().out == f"3 utterances in {folder}\n"
    assert len(list(folder.glob("*.wav"))) == len(list(folder.glob("*.txt"))) == 3


def test_make_manifest_fixture_agrees_with_its_audio(make_manifest: Callable[..., Path]) -> None:
    utterances = manifest.read(make_manifest(texts=("ab", "c", "d")))
    assert [utterance.text for utterance in utterances] == ["ab", "c", "d"]
    for utterance in utterances:
        assert soundfile.info(utterance.audio).duration == pytest.approx(utterance.duration)


def test_the_recipe_learns_the_made_up_language(tmp_path: Path) -> None:
    make_toy.make_corpus(tmp_path / "toy", utterances=150)
    corpora.prepare("folder", tmp_path / "toy", tmp_path, holdout=20)
    recipe = config.load(
        RECIPE,
        [
            f"data.train=['{tmp_path}/toy-train.jsonl']",
            f"data.dev=['{tmp_path}/toy-dev.jsonl']",
            f"data.cache='{tmp_path}/cache'",
            "training.max_steps=150",
            "training.validate_every=150",
        ],
    )
    model = train(
        tmp_path / "run",
        model=recipe.model,
        data=recipe.data,
        training=recipe.training,
        features=recipe.features,
        augmentation=recipe.augment,
    )
    dev = manifest.read(tmp_path / "toy-dev.jsonl")
    result = evaluate.evaluate(recognizer.load(model), dev)
    assert result.cer < 0.15
    assert result.diagonality > 0.9
