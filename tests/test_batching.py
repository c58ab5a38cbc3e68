"""asr.batching: batches by length that repeat by seed, padding, and features that are computed once."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asr import audio, batching, manifest, phonemes
from asr.augment import AugmentOptions, waveform_variants
from asr.batching import (
    PAD_FRAMES,
    DataOptions,
    Example,
    TrainingSet,
    epoch_batches,
    load_training_set,
)
from asr.errors import TrainingError
from asr.features import FeatureOptions, LogMel
from asr.manifest import Utterance
from asr.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[1]
FEATURES = FeatureOptions(n_mels=20)
PLAIN = AugmentOptions(speeds=(1.0,))
TOKENIZER = Tokenizer()

MakeAudio = Callable[..., Path]

frames_of_examples = st.lists(
    st.lists(st.integers(2, 2000), min_size=1, max_size=3), min_size=1, max_size=60
)


def rounded(frames: int) -> int:
    return -(-frames // PAD_FRAMES) * PAD_FRAMES


@given(frames_of_examples, st.integers(100, 20_000), st.integers(0, 99), st.booleans())
def test_an_epoch_has_every_example_once_within_the_bound(
    frames: list[list[int]], batch_frames: int, seed: int, short_first: bool
) -> None:
    arguments: dict[str, Any] = {"batch_frames": batch_frames, "seed": seed, "epoch": 3}
    batches = epoch_batches(frames, **arguments, short_first=short_first)
    picked = [index for batch in batches for index, _ in batch]
    assert sorted(picked) == list(range(len(frames)))
    for batch in batches:
        longest = max(rounded(frames[index][variant]) for index, variant in batch)
        assert len(batch) == 1 or longest * len(batch) <= batch_frames


@given(frames_of_examples, st.integers(0, 99), st.integers(0, 99))
def test_an_epoch_is_a_function_of_its_arguments(
    frames: list[list[int]], seed: int, epoch: int
) -> None:
    first, second = (
        epoch_batches(frames, batch_frames=4000, seed=seed, epoch=epoch) for _ in range(2)
    )
    assert first == second


def make_frames(count: int = 300) -> list[list[int]]:
    generator = np.random.default_rng(0)
    lengths = generator.integers(100, 1600, count)
    return [[int(n), int(n / 0.9), int(n / 1.1)] for n in lengths]


def test_an_epoch_is_the_same_in_every_process() -> None:
    program = (
        "from asr.batching import epoch_batches;"
        "print(epoch_batches([[9 * i + 5, 8 * i + 5] for i in range(50)],"
        " batch_frames=900, seed=1, epoch=2))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    frames = [[9 * i + 5, 8 * i + 5] for i in range(50)]
    assert result.stdout == f"{epoch_batches(frames, batch_frames=900, seed=1, epoch=2)}\n"


def test_epochs_and_seeds_differ_in_order_variant_and_company() -> None:
    frames = make_frames()
    arguments = [(1, 0), (1, 1), (2, 0)]
    epochs = [epoch_batches(frames, batch_frames=8000, seed=s, epoch=e) for s, e in arguments]
    for other in epochs[1:]:
        assert epochs[0] != other
        assert dict(pick for batch in other for pick in batch) != dict(
            pick for batch in epochs[0] for pick in batch
        )
        company = [
            {frozenset(i for i, _ in batch) for batch in epoch} for epoch in (epochs[0], other)
        ]
        assert len(company[0] & company[1]) < 0.2 * len(company[0])
    variants = [variant for batch in epochs[0] for _, variant in batch]
    assert min(variants.count(variant) for variant in range(3)) > 60


def test_short_first_comes_in_order_of_length_and_otherwise_at_random() -> None:
    frames = make_frames()

    def mean_lengths(short_first: bool) -> list[float]:
        batches = epoch_batches(frames, batch_frames=8000, seed=0, epoch=0, short_first=short_first)
        return [float(np.mean([frames[i][v] for i, v in batch])) for batch in batches]

    ordered = mean_lengths(True)
    assert all(later > 0.9 * earlier for earlier, later in pairwise(ordered))
    assert ordered[0] < 300 < 1200 < ordered[-1]
    assert np.corrcoef(mean_lengths(False), np.arange(len(ordered)))[0, 1] < 0.5


def test_batches_are_full_and_little_of_them_is_padding() -> None:
    frames = make_frames(1000)
    batches = epoch_batches(frames, batch_frames=12_000, seed=0, epoch=0)
    padded = [len(b) * max(rounded(frames[i][v]) for i, v in b) for b in batches]
    audible = sum(frames[i][v] for b in batches for i, v in b)
    assert np.mean(padded) > 0.85 * 12_000
    assert audible > 0.85 * sum(padded)


def test_a_batch_is_zero_and_pad_past_the_lengths() -> None:
    store = np.arange(1, 61, dtype=np.float16).reshape(30, 2)
    examples = [Example("a", (4, 5, 6), 0, (0, 10), (10, 7)), Example("b", (7,), 0, (17,), (13,))]
    data = TrainingSet(examples, [store], [], 0.01)
    batch = data.batch([(0, 1), (1, 0)])
    assert batch.features.shape == (2, PAD_FRAMES, 2)
    assert batch.features.dtype == torch.float32
    assert batch.feature_lengths.tolist() == [7, 13]
    assert torch.equal(batch.features[0, :7], torch.from_numpy(store[10:17]).float())
    assert torch.equal(batch.features[1, :13], torch.from_numpy(store[17:30]).float())
    assert batch.features[0, 7:].abs().max() == batch.features[1, 13:].abs().max() == 0
    assert batch.tokens.tolist() == [[4, 5, 6], [7, Tokenizer.pad, Tokenizer.pad]]
    assert batch.token_lengths.tolist() == [3, 1]
    assert batch.phonemes.shape == (2, 0)
    assert batch.ids == ("a", "b")
    assert batch.seconds == pytest.approx(0.2)
    assert len(data) == 2
    assert data.hours == pytest.approx(0.23 / 3600)


@pytest.fixture
def corpus(make_manifest: Callable[..., Path]) -> list[Utterance]:
    return manifest.read(make_manifest(["hello", "it's two", "A B"], seconds=0.6))


def load(
    utterances: Sequence[Utterance],
    cache: Path,
    *,
    augmentation: AugmentOptions = PLAIN,
    features: FeatureOptions = FEATURES,
    **data: Any,
) -> TrainingSet:
    return load_training_set(
        [("train", utterances)],
        TOKENIZER,
        features=features,
        augmentation=augmentation,
        options=DataOptions(cache=str(cache), workers=1, **data),
    )


def test_a_batch_has_the_phonemes_of_its_texts(corpus: list[Utterance], tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx", reason="the pronouncing dictionary is not installed")
    data = load_training_set(
        [("train", corpus)],
        TOKENIZER,
        features=FEATURES,
        augmentation=PLAIN,
        options=DataOptions(cache=str(tmp_path), workers=1),
        with_phonemes=True,
    )
    batch = data.batch([(0, 0), (1, 0)])
    hello, its_two = phonemes.encode("hello"), phonemes.encode("it's two")
    assert batch.phoneme_lengths.tolist() == [4, 5]
    assert batch.phonemes.tolist() == [[*hello, phonemes.BLANK], list(its_two)]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The audio files read so far, one entry a reading."""
    seen: list[Path] = []
    original = audio.read

    def read(path: Path, **options: Any) -> np.ndarray:
        seen.append(path)
        return original(path, **options)

    monkeypatch.setattr(audio, "read", read)
    return seen


def test_cached_features_equal_fresh_ones(corpus: list[Utterance], tmp_path: Path) -> None:
    augmentation = AugmentOptions(speeds=(1.0, 0.9), gain_db=(-6.0, 6.0))
    data = load(corpus, tmp_path / "cache", augmentation=augmentation)
    log_mel = LogMel(FEATURES)
    for index, utterance in enumerate(corpus):
        waveform = torch.from_numpy(audio.read(utterance.audio))
        variants = waveform_variants(waveform, augmentation, 16_000, utterance.id)
        for variant, expected in enumerate(map(log_mel.extract, variants)):
            batch = data.batch([(index, variant)])
            assert batch.feature_lengths.tolist() == [len(expected)]
            cached = batch.features[0, : len(expected)]
            assert torch.equal(cached, expected.half().float())
            torch.testing.assert_close(cached, expected, atol=5e-3, rtol=1e-3)


def test_texts_are_normalised_and_encoded(corpus: list[Utterance], tmp_path: Path) -> None:
    data = load(corpus, tmp_path / "cache")
    assert [TOKENIZER.decode(e.tokens) for e in data.examples] == ["hello", "it's two", "a b"]
    assert [e.id for e in data.examples] == [u.id for u in corpus]
    assert data.skipped == []


def test_features_are_computed_once(
    corpus: list[Utterance], tmp_path: Path, reads: list[Path]
) -> None:
    first = load(corpus, tmp_path / "cache")
    assert reads == [u.audio for u in corpus]
    second = load(corpus, tmp_path / "cache")
    respelt = [dataclasses.replace(u, text="other") for u in corpus]
    assert len(load(respelt, tmp_path / "cache")) == 3
    assert len(reads) == 3
    assert first.examples == second.examples
    assert np.array_equal(first.stores[0], second.stores[0])


def test_other_features_speeds_or_files_are_computed_anew(
    corpus: list[Utterance], tmp_path: Path, reads: list[Path]
) -> None:
    cache = tmp_path / "cache"
    load(corpus, cache)
    load(corpus, cache, features=FeatureOptions(n_mels=21))
    load(corpus, cache, augmentation=AugmentOptions(speeds=(1.0, 0.9)))
    load(corpus[:2], cache)
    assert len(reads) == 3 + 3 + 3 + 2
    masks = AugmentOptions(speeds=(1.0,), time_masks=9)  # drawn anew each time, not cached
    load(corpus, cache, augmentation=masks)
    assert len(reads) == 11


def test_a_recording_that_changed_is_read_again(
    corpus: list[Utterance], tmp_path: Path, reads: list[Path], make_audio: MakeAudio
) -> None:
    first = load(corpus, tmp_path / "cache")
    changed = make_audio("changed.wav", 0.9)
    later = corpus[1].audio.stat().st_mtime + 100
    os.replace(changed, corpus[1].audio)
    os.utime(corpus[1].audio, (later, later))
    second = load(corpus, tmp_path / "cache")
    assert len(reads) == 6
    assert second.examples[1].frames > first.examples[1].frames
    os.remove(corpus[2].audio)  # what is cached serves even if the audio has gone
    index = next((tmp_path / "cache").glob("*.json"))
    os.utime(index, (later + 1, later + 1))
    assert len(load(corpus, tmp_path / "cache")) == 3
    assert len(reads) == 6


def test_a_cache_that_was_cut_off_is_computed_anew(
    corpus: list[Utterance], tmp_path: Path, reads: list[Path]
) -> None:
    load(corpus, tmp_path / "cache")
    next((tmp_path / "cache").glob("*.json")).unlink()
    load(corpus, tmp_path / "cache")
    assert len(reads) == 6
    assert len(os.listdir(tmp_path / "cache")) == 2


def test_processes_compute_the_same_features_as_one(
    corpus: list[Utterance], tmp_path: Path
) -> None:
    options = DataOptions(cache=str(tmp_path / "b"), workers=2)
    one = batching.cached_features(
        corpus,
        FEATURES,
        PLAIN,
        dataclasses.replace(options, cache=str(tmp_path / "a"), workers=1),
        print,
    )
    two = batching.cached_features(corpus, FEATURES, PLAIN, options, print)
    assert one.read_bytes() == two.read_bytes()
    assert json.loads(one.with_suffix(".json").read_text()) == json.loads(
        two.with_suffix(".json").read_text()
    )


def test_a_bad_file_is_named_and_the_rest_trains(
    corpus: list[Utterance], tmp_path: Path, make_audio: MakeAudio
) -> None:
    noise = tmp_path / "noise.wav"
    noise.write_bytes(b"not audio")
    bad = [
        Utterance("gone", tmp_path / "gone.wav", 1.0, "text"),
        Utterance("noise", noise, 1.0, "text"),
        Utterance("brief", make_audio("brief.wav", 0.03), 0.03, "a"),
    ]
    data = load([bad[0], corpus[0], *bad[1:], *corpus[1:]], tmp_path / "cache")
    assert [e.id for e in data.examples] == [u.id for u in corpus]
    assert len(data.skipped) == 3
    for line, utterance in zip(data.skipped, bad, strict=True):
        assert line.startswith("train: ")
        assert str(utterance.audio) in line
        assert "\n" not in line
    assert "0.03 s is too short" in data.skipped[2]


@pytest.mark.parametrize("changed", [4e9, 1e9])  # 1e9: by a copy that keeps its time
def test_a_bad_file_that_was_mended_is_used(
    corpus: list[Utterance], tmp_path: Path, make_audio: MakeAudio, changed: float
) -> None:
    bad = Utterance("late", tmp_path / "late.wav", 1.0, "text")
    assert len(load([*corpus, bad], tmp_path / "cache")) == 3
    make_audio("late.wav", 1.0)
    os.utime(bad.audio, (changed, changed))
    data = load([*corpus, bad], tmp_path / "cache")
    assert len(data) == 4
    assert data.skipped == []


def test_unusable_utterances_are_named_with_the_reason(
    corpus: list[Utterance], tmp_path: Path, make_audio: MakeAudio
) -> None:
    good = Utterance("good", make_audio("good.wav", 0.5), 0.5, "yes")
    spoken = [
        dataclasses.replace(corpus[0], text=" ... !"),
        dataclasses.replace(corpus[1], text="a" * 30),
        corpus[2],
    ]
    data = load([*spoken, good], tmp_path / "cache", max_seconds=0.75)
    assert [e.id for e in data.examples] == ["good"]
    assert data.skipped == [
        f"train: {spoken[0].id}: no text",
        f"train: {spoken[1].id}: 30 characters in 0.7 s: text and audio cannot belong together",
        f"train: {spoken[2].id}: 0.8 s, longer than max_seconds = 0.75",
    ]


def test_an_id_that_comes_twice_is_named_and_never_gets_the_wrong_audio(
    corpus: list[Utterance], tmp_path: Path
) -> None:
    twin = dataclasses.replace(corpus[2], id=corpus[0].id, text="another")
    data = load([*corpus, twin], tmp_path / "cache")
    alone = load(corpus, tmp_path / "other")
    assert [e.tokens for e in data.examples] == [e.tokens for e in alone.examples]
    for index in range(3):
        assert torch.equal(data.batch([(index, 0)]).features, alone.batch([(index, 0)]).features)
    assert len(data.skipped) == 1
    assert data.skipped[0].startswith(f"train: {twin.id}: not the only one with this id")


def test_nothing_to_train_on_is_one_error_with_the_first_reason(tmp_path: Path) -> None:
    missing = [Utterance("gone", tmp_path / "gone.wav", 1.0, "text")]
    with pytest.raises(
        TrainingError, match=r"no utterance to train on; first problem: .*gone\.wav"
    ):
        load(missing, tmp_path / "cache")
    with pytest.raises(TrainingError, match=r"no utterance to train on$"):
        load([], tmp_path / "cache")


def test_several_manifests_share_one_set_even_if_one_has_nothing(
    corpus: list[Utterance], tmp_path: Path
) -> None:
    missing = Utterance("gone", tmp_path / "gone.wav", 1.0, "text")
    manifests = [("a", corpus[:2]), ("b", [missing]), ("c", []), ("d", corpus[2:])]
    progress: list[tuple[int, int]] = []
    data = load_training_set(
        manifests,
        TOKENIZER,
        features=FEATURES,
        augmentation=PLAIN,
        options=DataOptions(cache=str(tmp_path / "cache"), workers=1),
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert [e.id for e in data.examples] == [u.id for u in corpus]
    assert [line.split(":")[0] for line in data.skipped] == ["b"]
    assert progress == [(1, 4), (2, 4), (3, 4), (4, 4)]
    alone = load(corpus, tmp_path / "other")
    for index in range(3):
        assert torch.equal(data.batch([(index, 0)]).features, alone.batch([(index, 0)]).features)


def test_speeds_make_lengths_inversely_proportional(
    corpus: list[Utterance], tmp_path: Path
) -> None:
    data = load(corpus, tmp_path / "cache", augmentation=AugmentOptions(speeds=(1.0, 0.5, 2.0)))
    for utterance, example in zip(corpus, data.examples, strict=True):
        for frames, speed in zip(example.frames, (1.0, 0.5, 2.0), strict=True):
            samples = utterance.duration * 16_000 / speed
            assert frames == pytest.approx(1 + (samples - 512) / 160, abs=1)
    assert data.hours == pytest.approx(sum(e.frames[0] for e in data.examples) / 100 / 3600)


def test_features_are_of_the_file_that_a_link_leads_to(
    corpus: list[Utterance], tmp_path: Path, reads: list[Path]
) -> None:
    link = tmp_path / "link.wav"
    linked = [dataclasses.replace(corpus[0], audio=link)]
    frames = []
    for target in corpus[:2]:
        link.unlink(missing_ok=True)
        link.symlink_to(target.audio)
        frames.append(load(linked, tmp_path / "cache").examples[0].frames)
    assert len(reads) == 2
    assert frames[0] != frames[1]


def test_relative_names_in_two_folders_are_two_recordings(
    corpus: list[Utterance], tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    relative = [dataclasses.replace(corpus[0], audio=Path("x.wav"))]
    for number, utterance in enumerate(corpus[:2]):
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy2(utterance.audio, folder / "x.wav")
        monkeypatch.chdir(folder)
        load(relative, tmp_path / "cache")
    assert len(reads) == 2
