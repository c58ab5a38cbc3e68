"""How far a word can be trusted: what the decoder, the attention and CTC say of it in, the chance that it is right out.

The chance comes from a logistic model of few features, fitted on transcribed speech that the recognizer was not trained
on (recipes/benchmark/confidence.py) and stored as a small JSON file beside the model: the calibration.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.alignment import Alignment, Integers, Span, attended_steps
from asr.decoding import Hypothesis
from asr.errors import ConfigError
from asr.files import atomic_write, content_name
from asr.tokenizer import Tokenizer

Floats = NDArray[np.floating]

FEATURES = (
    "mean_log_prob",  # decoder, of the word's characters and of the space or end after it, nats
    "min_log_prob",  # the least of them
    "attention_peak",  # largest weight of a character's row, mean over the word
    "attention_entropy",  # nats, mean over the word
    "log_length",  # characters
    "ctc_log_prob",  # of the characters where forced alignment puts them, mean, nats
    "ctc_margin",  # what the forced path loses against the best path there, nats a character
    "ctc_agreement",  # 1 - edits a character between the word and CTC's own text there
    "ctc_evidence",  # CTC's probability of the likeliest character where the word was read, mean over the steps
    "neighbours",  # mean_log_prob of the words beside it, mean
)
HEARD_FEATURES = (
    "mean_log_prob",
    "min_log_prob",
    "attention_peak",
    "attention_entropy",
    "ctc_evidence",
)
WINDOW = 5  # words whose features are averaged to tell speech from noise: one alone says too little
FORMAT = 1
RIDGE = 1.0  # of the standardised weights: so that features that say the same share the weight


@dataclass(frozen=True)
class Logistic:
    """A logistic model: P = sigmoid(bias + sum of weight * (feature - mean) / scale)."""

    features: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float

    def probability(self, rows: Floats) -> Floats:
        """Return the chance (N,) of words with features (N, FEATURES); NaN counts as the feature's mean."""
        chosen = rows[:, [FEATURES.index(name) for name in self.features]]
        standard = np.nan_to_num((chosen - np.array(self.mean)) / np.array(self.scale))
        return _sigmoid(standard @ np.array(self.weights) + self.bias)


@dataclass(frozen=True)
class Calibration:
    """The chance that a word is right, and the chance that it was spoken at all rather than made of noise."""

    right: Logistic
    heard: Logistic | None = None
    name: str | None = field(default=None, compare=False)  # of the file that it was read from

    def save(self, path: str | Path) -> None:
        """Write the calibration as JSON, whole or not at all."""
        with atomic_write(path) as file:
            content = asdict(self)
            del content["name"]
            json.dump({"format": FORMAT, **content}, file, indent=1)
            file.write("\n")


def load_calibration(path: str | Path) -> Calibration:
    """Read what `Calibration.save` wrote. Raises ConfigError naming the file and what is wrong with it."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: cannot read calibration: {reason}") from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: not a calibration: not JSON: {error.msg}") from error
    try:
        return replace(_parsed(content), name=content_name(path))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: not a calibration of this version: {error}") from error


def word_features(
    hypothesis: Hypothesis,
    words: Sequence[Span],
    ctc_log_probs: Tensor | None,
    alignment: Alignment | None,
) -> Floats:
    """Return the features (N, FEATURES) of `words` of a hypothesis; those that cannot be had are NaN.

    `ctc_log_probs` (F, V) and `alignment` are those that the words' times were made with, None where there are none.
    """
    log_probs = np.array(hypothesis.token_log_probs)
    weights = hypothesis.attention.double()
    peak = weights.amax(1).numpy() if weights.shape[1] else np.full(len(weights), math.nan)
    entropy = torch.special.entr(weights).sum(1).numpy()
    greedy = None if ctc_log_probs is None else ctc_log_probs.detach().cpu().max(-1)
    rows = np.full((len(words), len(FEATURES)), math.nan)
    for index, word in enumerate(words):
        own = slice(word.first, word.last)
        said = log_probs[word.first : word.last + 1]
        rows[index, :5] = (
            said.mean(),
            said.min(),
            peak[own].mean(),
            entropy[own].mean(),
            math.log(word.last - word.first),
        )
        if greedy is not None and alignment is not None:
            rows[index, 5:8] = _ctc_features(hypothesis.tokens, word, alignment, greedy)
    if ctc_log_probs is not None and len(ctc_log_probs) and weights.shape[1]:
        rows[:, 8] = _evidence(words, attended_steps(weights), ctc_log_probs, weights.shape[1])
    rows[:, 9] = _beside(rows[:, 0])
    return rows


def confidences(rows: Floats, calibration: Calibration | None) -> list[float]:
    """Return the confidence of each word, of its features; without a calibration the decoder's mean probability."""
    if calibration is None:
        return [float(p) for p in np.exp(rows[:, FEATURES.index("mean_log_prob")])]
    return [float(p) for p in calibration.right.probability(rows)]


def chance_heard(rows: Floats, calibration: Calibration | None) -> Floats | None:
    """Return the chance (N,) that each word was spoken at all, of its features; None where that is not known."""
    if calibration is None or calibration.heard is None:
        return None
    return calibration.heard.probability(smoothed(rows))


def smoothed(rows: Floats) -> Floats:
    """Return features (N, FEATURES) as means over WINDOW words, fewer at the ends."""
    reach = WINDOW // 2
    windows = [rows[max(0, i - reach) : i + reach + 1] for i in range(len(rows))]
    return np.stack([_known_mean(window) for window in windows]) if windows else rows


def fit(rows: Floats, right: NDArray[np.bool_], features: Sequence[str] = FEATURES) -> Logistic:
    """Fit a logistic model to features (N, FEATURES) and whether each word was right, by Newton's method.

    The weights have a small ridge penalty. Raises ConfigError where all words are right, or all wrong.
    """
    if right.all() or not right.any():
        raise ConfigError(f"{len(right)} words, none or all of them right: nothing to fit")
    chosen = rows[:, [FEATURES.index(name) for name in features]]
    mean = np.nan_to_num(_known_mean(chosen))
    scale = np.maximum(np.sqrt(np.nan_to_num(_known_mean((chosen - mean) ** 2))), 1e-6)
    inputs = np.nan_to_num((chosen - mean) / scale)
    inputs = np.concatenate([inputs, np.ones((len(inputs), 1))], 1)
    penalty = np.diag([RIDGE] * len(features) + [0.0])
    weights = np.zeros(len(features) + 1)
    for _ in range(50):
        chance = _sigmoid(inputs @ weights)
        gradient = inputs.T @ (chance - right) + penalty @ weights
        curvature = (inputs * (chance * (1 - chance))[:, None]).T @ inputs + penalty
        change = np.linalg.solve(curvature + 1e-9 * np.eye(len(weights)), gradient)
        weights = weights - change
        if np.abs(change).max() < 1e-8:
            break
    values = [tuple(float(v) for v in row) for row in (mean, scale, weights)]
    return Logistic(tuple(features), values[0], values[1], values[2][:-1], values[2][-1])


def edit_distance(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the least number of substitutions, deletions and insertions that turn `a` into `b`."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        corner, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (x != y))
    return row[-1]


def _ctc_features(
    tokens: Sequence[int], word: Span, alignment: Alignment, greedy: Any
) -> tuple[float, float, float]:
    """The CTC features of one word; `greedy` is the largest log probability and its label, (F,) each."""
    inside = alignment.log_probs[word.first : word.last]
    before = int(alignment.ends[word.first - 1]) if word.first else 0
    after = int(alignment.starts[word.last]) if word.last < len(tokens) else len(greedy.values)
    best = greedy.values[alignment.starts[word.first : word.last]].numpy()
    labels = greedy.indices[before:after].unique_consecutive().tolist()
    heard = [label for label in labels if label >= Tokenizer.first_character]
    count = len(inside)
    distance = edit_distance(tokens[word.first : word.last], heard)
    return float(inside.mean()), float((inside - best).mean()), max(-1.0, 1 - distance / count)


def _evidence(words: Sequence[Span], steps: Integers, ctc_log_probs: Tensor, size: int) -> Floats:
    """Each word's CTC evidence, from the memory step of its first token to that of its last."""
    characters = ctc_log_probs[:, Tokenizer.first_character :].detach().cpu().double()
    best = characters.amax(1).exp().numpy()
    frames = len(best) / size
    found = []
    for word in words:
        first, last = int(steps[word.first]), int(steps[word.last - 1]) + 1
        found.append(best[int(first * frames) : max(int(last * frames), 1)].mean())
    return np.array(found)


def _known_mean(rows: Floats) -> Floats:
    """Column means of what is not NaN; NaN for a column that is NaN throughout."""
    known = ~np.isnan(rows)
    means: Floats = np.where(known, rows, 0).sum(0) / np.maximum(known.sum(0), 1)
    return np.where(known.any(0), means, math.nan)


def _beside(values: Floats) -> Floats:
    """The mean of each value's neighbours; NaN for one that has none."""
    padded = np.concatenate([[math.nan], values, [math.nan]])
    pairs = np.stack([padded[:-2], padded[2:]])
    known = (~np.isnan(pairs)).sum(0)
    return np.where(known > 0, np.nansum(pairs, 0) / np.maximum(known, 1), math.nan)


def _sigmoid(values: Floats) -> Floats:
    return 1 / (1 + np.exp(-np.clip(values, -40, 40)))


def _parsed(content: Any) -> Calibration:
    if content["format"] != FORMAT:
        raise ValueError(f"format {content['format']!r}; this version reads {FORMAT}")
    heard = content["heard"]
    return Calibration(_logistic(content["right"]), None if heard is None else _logistic(heard))


def _logistic(content: Any) -> Logistic:
    features = tuple(str(name) for name in content["features"])
    unknown = sorted(set(features) - set(FEATURES))
    if unknown:
        raise ValueError(f"unknown features {', '.join(unknown)}")
    columns = [tuple(float(v) for v in content[key]) for key in ("mean", "scale", "weights")]
    bias = float(content["bias"])
    if any(len(column) != len(features) for column in columns):
        raise ValueError("mean, scale and weights need one number a feature")
    if not all(math.isfinite(v) for v in (bias, *columns[0], *columns[1], *columns[2])):
        raise ValueError("numbers must be finite")
    if min(columns[1], default=1.0) <= 0:
        raise ValueError("scale must be above 0")
    return Logistic(features, columns[0], columns[1], columns[2], bias)
