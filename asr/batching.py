"""Manifests in, padded batches out: cached features, length buckets by seconds of audio, an order that can resume.

Log-mel features are computed once for every utterance and speed (decoding audio each epoch would starve training)
and kept as float16 in one memory-mapped file per manifest.
"""

import hashlib
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asr import audio, augment, phonemes, text
from asr.errors import AsrError, TrainingError
from asr.features import FeatureOptions, LogMel
from asr.files import atomic_write
from asr.manifest import Utterance
from asr.options import check_range
from asr.tokenizer import Tokenizer

PAD_FRAMES = 32  # batch lengths are rounded up to it: few sizes let the allocator reuse blocks


@dataclass(frozen=True)
class DataOptions:
    """What is trained on and how it is grouped."""

    train: tuple[str, ...] = ()  # manifests
    dev: tuple[str, ...] = ()  # manifests for validation
    only: tuple[str, ...] = ()  # files of utterance ids, one a line: others are not trained on
    exclude: tuple[str, ...] = ()  # manifests and texts: refused is what holds a sentence of theirs
    cache: str = (
        "data/cache"  # folder of features and of what was heard; may be deleted at any time
    )
    batch_seconds: float = 120.0  # of audio in a batch, padding included, over all processes
    max_seconds: float = 20.0  # longer utterances are left out, and said so
    workers: int = 0  # processes that compute features; 0 is one a CPU

    def __post_init__(self) -> None:
        """Refuse values out of range; raises ConfigError naming the option and what is allowed."""
        check_range(self, "data", ("batch_seconds", "max_seconds"), 0.1, 1e6)
        check_range(self, "data", ("workers",), 0)


@dataclass(frozen=True)
class Batch:
    """Utterances padded to one length; every `*_lengths` counts what is valid beside its padded tensor."""

    features: Tensor  # (B, T, M) float32, zero past the lengths
    feature_lengths: Tensor  # (B,)
    tokens: Tensor  # (B, L) without sos and eos, padded with pad
    token_lengths: Tensor  # (B,)
    phonemes: Tensor  # (B, P), with P = 0 where no model is to learn them
    phoneme_lengths: Tensor  # (B,)
    ids: tuple[str, ...]
    seconds: float  # of audio, without padding


@dataclass(frozen=True)
class Example:
    """An utterance ready for training: its tokens, and where each of its variants (speeds) is in a feature file."""

    id: str
    tokens: tuple[int, ...]
    store: int
    offsets: tuple[int, ...]
    frames: tuple[int, ...]
    phonemes: tuple[int, ...] = ()


class TrainingSet:
    """All training utterances with cached features; `skipped` names the ones left out, with the reason."""

    def __init__(
        self,
        examples: list[Example],
        stores: list[np.ndarray],
        skipped: list[str],
        hop_seconds: float,
    ):
        self.examples = examples
        self.stores = stores
        self.skipped = skipped
        self.hop_seconds = hop_seconds

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def hours(self) -> float:
        """Hours of audio at the first variant's speed."""
        return sum(e.frames[0] for e in self.examples) * self.hop_seconds / 3600

    @property
    def digest(self) -> str:
        """What tells it from a set of other utterances, or of the same with other texts."""
        known = hashlib.sha256()
        for example in sorted(self.examples, key=lambda example: example.id):
            known.update(repr((example.id, example.tokens)).encode())
        return known.hexdigest()[:16]

    def batch(self, picks: Sequence[tuple[int, int]]) -> Batch:
        """The batch of (example index, variant) pairs."""
        chosen = [(self.examples[i], v) for i, v in picks]
        frames = [e.frames[v] for e, v in chosen]
        mels = self.stores[0].shape[1]
        features = torch.zeros(len(chosen), -(-max(frames) // PAD_FRAMES) * PAD_FRAMES, mels)
        for row, (example, variant) in enumerate(chosen):
            start = example.offsets[variant]
            stored = self.stores[example.store][start : start + frames[row]]
            features[row, : frames[row]] = torch.from_numpy(np.array(stored, dtype=np.float32))
        return Batch(
            features,
            torch.tensor(frames),
            *padded([e.tokens for e, _ in chosen], Tokenizer.pad),
            *padded([e.phonemes for e, _ in chosen], phonemes.BLANK),
            tuple(e.id for e, _ in chosen),
            sum(frames) * self.hop_seconds,
        )


def padded(rows: Sequence[tuple[int, ...]], padding: int) -> tuple[Tensor, Tensor]:
    """Rows of labels as one tensor (B, L), and their lengths (B,)."""
    lengths = [len(row) for row in rows]
    labels = torch.full((len(rows), max(lengths)), padding)
    for place, row in zip(labels, rows, strict=True):
        place[: len(row)] = torch.tensor(row)
    return labels, torch.tensor(lengths)


def epoch_batches(
    frames: Sequence[Sequence[int]],
    *,
    batch_frames: int,
    seed: int,
    epoch: int,
    short_first: bool = False,
) -> list[list[tuple[int, int]]]:
    """The batches of an epoch as lists of (example index, variant): a function of its arguments, so it can resume.

    Every example comes once, in one of its variants; `frames[i][v]` is its length. Neighbours in length share a
    batch of at most `batch_frames` frames with padding; batches come in random order, or the short ones first.
    """
    rng = random.Random(f"{seed} {epoch}")
    picks = [(i, rng.randrange(len(variants))) for i, variants in enumerate(frames)]
    jitter = [rng.uniform(0.9, 1.1) for _ in picks]
    picks.sort(key=lambda pick: frames[pick[0]][pick[1]] * jitter[pick[0]])
    batches: list[list[tuple[int, int]]] = []
    longest = 0
    for index, variant in picks:
        padded = -(-frames[index][variant] // PAD_FRAMES) * PAD_FRAMES
        longest = max(longest, padded)
        if not batches or longest * (len(batches[-1]) + 1) > batch_frames:
            batches.append([])
            longest = padded
        batches[-1].append((index, variant))
    if not short_first:
        rng.shuffle(batches)
    return batches


def load_training_set(
    manifests: Sequence[tuple[str, Sequence[Utterance]]],
    tokenizer: Tokenizer,
    *,
    features: FeatureOptions,
    augmentation: augment.AugmentOptions,
    options: DataOptions,
    with_phonemes: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> TrainingSet:
    """Encode the texts and open, or first compute, the cached features of named manifests."""
    if with_phonemes:
        phonemes.encode("")  # raises before the features are computed, not after
    examples: list[Example] = []
    stores: list[np.ndarray] = []
    skipped: list[str] = []
    total, done = sum(len(utterances) for _, utterances in manifests), 0
    for name, given in manifests:
        utterances, repeated = _first_of_each_id(given)
        skipped += [
            f"{name}: {i}: not the only one with this id; the first is used" for i in repeated
        ]

        def progress(count: int, before: int = done) -> None:
            on_progress(before + count, total)

        path = cached_features(utterances, features, augmentation, options, progress)
        done += len(given)
        index = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        skipped += [f"{name}: {problem}" for problem in index["problems"]]
        stores.append(_open_store(path, features.n_mels))
        for utterance in utterances:
            if utterance.id not in index["entries"]:
                continue
            offsets, frames = map(tuple, index["entries"][utterance.id])
            normalised = text.normalise(utterance.text)
            tokens = tokens_of(normalised, tokenizer)
            spoken = phonemes.encode(normalised) if with_phonemes else ()
            example = Example(utterance.id, tokens, len(stores) - 1, offsets, frames, spoken)
            reason = _unusable(example, features, options)
            if reason:
                skipped.append(f"{name}: {utterance.id}: {reason}")
            else:
                examples.append(example)
    if not examples:
        raise TrainingError(
            "no utterance to train on" + (f"; first problem: {skipped[0]}" if skipped else "")
        )
    return TrainingSet(examples, stores, skipped, features.hop_ms / 1000)


def _first_of_each_id(utterances: Sequence[Utterance]) -> tuple[list[Utterance], list[str]]:
    """Features are kept by id, so an id may stand once: its first utterance, and the ids that came again."""
    counts = Counter(utterance.id for utterance in utterances)
    first = {utterance.id: utterance for utterance in reversed(utterances)}
    return [first[i] for i in counts], [i for i, count in counts.items() if count > 1]


def _open_store(path: Path, n_mels: int) -> np.ndarray:
    """The frames (N, M) of a feature file, read as they are needed; an empty file cannot be mapped."""
    if path.stat().st_size == 0:
        return np.zeros((0, n_mels), np.float16)
    return np.memmap(path, dtype=np.float16, mode="r").reshape(-1, n_mels)


def tokens_of(normalised: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokens of a normalised text, without the characters that the alphabet lacks."""
    return tuple(tokenizer.encode("".join(c for c in normalised if c in tokenizer.alphabet)))


def _unusable(example: Example, features: FeatureOptions, options: DataOptions) -> str | None:
    seconds = example.frames[0] * features.hop_ms / 1000
    if not example.tokens:
        return "no text"
    if seconds > options.max_seconds:
        return f"{seconds:.1f} s, longer than max_seconds = {options.max_seconds:g}"
    if len(example.tokens) > seconds * 25:
        return f"{len(example.tokens)} characters in {seconds:.1f} s: text and audio cannot belong together"
    return None


def cached_features(
    utterances: Sequence[Utterance],
    features: FeatureOptions,
    augmentation: augment.AugmentOptions,
    options: DataOptions,
    on_progress: Callable[[int], None],
) -> Path:
    """The file of normalised float16 features (frames of all variants, M); computed if it is not there or older.

    Beside it stands a .json with each utterance's offsets and frame counts, and the problems met.
    """
    path = Path(options.cache) / f"{_cache_key(utterances, features, augmentation)}.f16"
    work = partial(_variants, features=features, augmentation=augmentation)
    if _is_current(path, utterances, work):
        return path
    entries: dict[str, tuple[list[int], list[int]]] = {}
    problems: list[str] = []
    offset = 0
    with atomic_write(path, "wb") as file, _executor(options.workers) as executor:
        for done, (utterance, result) in enumerate(
            zip(utterances, executor.map(work, utterances), strict=True), 1
        ):
            on_progress(done)
            if isinstance(result, str):
                problems.append(result)
                continue
            offsets = []
            for variant in result:
                offsets.append(offset)
                offset += len(variant)
                file.write(variant.tobytes())
            entries[utterance.id] = (offsets, [len(variant) for variant in result])
    with atomic_write(path.with_suffix(".json")) as file:
        json.dump({"entries": entries, "problems": problems}, file)
    return path


def _is_current(
    path: Path, utterances: Sequence[Utterance], work: Callable[[Utterance], list[np.ndarray] | str]
) -> bool:
    """Whether a feature file is complete, no recording is newer, and those that could not be used still cannot be."""
    index = path.with_suffix(".json")
    if not (path.exists() and index.exists()):
        return False
    made = index.stat().st_mtime  # it is written last
    if any(_changed(u.audio) > made for u in utterances if u.audio.exists()):
        return False
    entries = json.loads(index.read_text(encoding="utf-8"))["entries"]
    return all(isinstance(work(u), str) for u in utterances if u.id not in entries)


def _changed(path: Path) -> float:
    """When a file's content, or what it was given instead of its content, last changed."""
    status = path.stat()
    return max(status.st_mtime, status.st_ctime)


def _cache_key(
    utterances: Sequence[Utterance], features: FeatureOptions, augmentation: augment.AugmentOptions
) -> str:
    audio_part: Any = [
        repr(features),
        augmentation.waveform_key(),
        [(u.id, os.path.realpath(u.audio)) for u in utterances],
    ]
    return hashlib.sha256(json.dumps(audio_part).encode()).hexdigest()[:16]


def _executor(workers: int) -> Executor:
    import multiprocessing

    workers = workers or os.cpu_count() or 1
    if workers == 1:
        return ThreadPoolExecutor(1)
    # Forking after torch has started threads may hang.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(
        workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)
    )


def _variants(
    utterance: Utterance, *, features: FeatureOptions, augmentation: augment.AugmentOptions
) -> list[np.ndarray] | str:
    """Normalised float16 features (T, M) of an utterance at every speed, or the reason why there are none."""
    try:
        waveform = torch.from_numpy(audio.read(utterance.audio, sample_rate=features.sample_rate))
    except AsrError as error:
        return str(error)
    log_mel = LogMel(features)
    variants = augment.waveform_variants(waveform, augmentation, features.sample_rate, utterance.id)
    arrays = [log_mel.extract(variant).numpy().astype(np.float16) for variant in variants]
    if min(map(len, arrays)) < 2:
        return f"{utterance.audio}: {utterance.duration:.2f} s is too short"
    return arrays
