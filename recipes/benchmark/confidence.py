"""Fits the confidence of words: a model and two manifests in; its calibration file, a diagram and one JSON line out.

The calibration is fitted on the words of one manifest and reported on another. Where both are the same, the report is
cross-validated: every other speaker (by name) is judged by a calibration of the rest, and the file is fitted on all.
A second part tells words that were spoken from words that a decoder makes of noise: it is fitted on white noise and
chords beside the speech, or an earlier one is kept (--heard), and reported also on sounds that it has not seen, pink
noise and sweeps.
"""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr import manifest, recognizer
from asr.confidence import (
    HEARD_FEATURES,
    Calibration,
    chance_heard,
    confidences,
    fit,
    load_calibration,
    smoothed,
    word_features,
)
from asr.description import align
from asr.errors import AsrError, ConfigError
from asr.files import atomic_write
from asr.manifest import Utterance
from asr.recognizer import Recognizer
from asr.text import normalise
from recipes.benchmark.hearing import Heard, hear, load_waveforms
from recipes.benchmark.sounds import SOUNDS
from recipes.benchmark.train_speed import commit

Floats = NDArray[np.floating]
FITTED_SOUNDS = ("white", "tones")
LEVELS = (-55.0, -45.0, -35.0, -25.0)  # dBFS
BINS = 10


@dataclass(frozen=True)
class Words:
    """All words that were recognised in some utterances: features, which are right, and whose they are."""

    rows: Floats
    smooth: Floats
    right: NDArray[np.bool_]
    speakers: NDArray[np.str_]

    def only(self, chosen: NDArray[np.bool_]) -> "Words":
        """The words that are chosen."""
        return Words(
            self.rows[chosen], self.smooth[chosen], self.right[chosen], self.speakers[chosen]
        )


def features(model: Recognizer, heard: Heard) -> tuple[list[str], Floats]:
    """The words of a hypothesis and their features."""
    best, frame = heard.hypothesis, heard.frame_seconds
    spans, alignment = align(best, heard.ctc, model.tokenizer, frame)
    return [s.text for s in spans], word_features(best, spans, heard.ctc, alignment)


def right_words(reference: str, words: Sequence[str]) -> NDArray[np.bool_]:
    """Which words are right, by the alignment that WER counts."""
    import jiwer

    right = np.zeros(len(words), dtype=bool)
    for chunk in jiwer.process_words(reference, " ".join(words)).alignments[0]:
        if chunk.type == "equal":
            right[chunk.hyp_start_idx : chunk.hyp_end_idx] = True
    return right


def recognised(model: Recognizer, utterances: Sequence[Utterance]) -> Words:
    """What the model makes of the utterances; raises ConfigError where there are none."""
    if not utterances:
        raise ConfigError("a manifest without utterances: nothing to fit or to report on")
    rows, smooth, right, speakers = [], [], [], []
    heard = hear(model, load_waveforms(utterances))
    for utterance, one in zip(utterances, heard, strict=True):
        words, found = features(model, one)
        rows.append(found)
        smooth.append(smoothed(found))
        right.append(right_words(normalise(utterance.text), words))
        speakers += [utterance.speaker or utterance.id] * len(words)
    return Words(
        np.concatenate(rows), np.concatenate(smooth), np.concatenate(right), np.array(speakers)
    )


def invented(model: Recognizer, names: Sequence[str], count: int, seed: int) -> list[Floats]:
    """The features of the words that the model makes of each of `count` sounds of every name."""
    rng = random.Random(seed)
    waveforms: list[Tensor] = []
    for name in names:
        for number in range(count):
            seconds, level = rng.uniform(3, 10), LEVELS[number % len(LEVELS)]
            waveforms.append(SOUNDS[name](seconds, level, rng.randrange(1 << 30)))
    return [features(model, one)[1] for one in hear(model, waveforms)]


def fitted(words: Words, noise: Sequence[Floats]) -> Calibration:
    """The calibration for these words and for the words made of noise."""
    made = np.concatenate([smoothed(rows) for rows in noise if len(rows)] or [words.smooth[:0]])
    if not len(made):
        return Calibration(fit(words.rows, words.right))
    labels = np.arange(len(words.smooth) + len(made)) < len(words.smooth)
    heard = fit(np.concatenate([words.smooth, made]), labels, HEARD_FEATURES)
    return Calibration(fit(words.rows, words.right), heard)


def judged(words: Words, calibration: Calibration) -> tuple[Floats, Floats]:
    """The confidence of each word, and the chance that it was spoken."""
    chance = np.ones(len(words.right))
    if calibration.heard is not None:
        chance = calibration.heard.probability(words.smooth)
    return np.array(confidences(words.rows, calibration)), chance


def reliability(chance: Floats, right: NDArray[np.bool_]) -> list[tuple[float, float, int]]:
    """For each of BINS equal ranges of confidence: its mean, the share of right words, and how many there are."""
    bins = np.minimum((chance * BINS).astype(int), BINS - 1)
    inside = [bins == number for number in range(BINS)]
    return [
        (float(chance[i].mean()), float(right[i].mean()), int(i.sum())) for i in inside if i.any()
    ]


def calibration_error(chance: Floats, right: NDArray[np.bool_]) -> float:
    """Expected calibration error (Guo et al. 2017, equation 3): mean distance of confidence and share, over words."""
    return sum(abs(c - r) * n for c, r, n in reliability(chance, right)) / len(right)


def area(chance: Floats, right: NDArray[np.bool_]) -> float:
    """Area under the ROC curve of low confidence for "this word is wrong"; ties count half."""
    order = np.unique(chance, return_inverse=True)[1]
    counts = np.bincount(order)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[order]
    positive, negative = right.sum(), (~right).sum()
    return float((ranks[right].sum() - positive * (positive + 1) / 2) / (positive * negative))


def entropy_gain(chance: Floats, right: NDArray[np.bool_]) -> float:
    """Normalised cross entropy (Siu et al. 1997): 1 knows all, 0 no more than the share of right words."""
    known = np.clip(np.where(right, chance, 1 - chance), 1e-12, 1)
    share = right.mean()
    prior = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    return float(1 + np.log(known).mean() / prior)


def report(chance: Floats, right: NDArray[np.bool_]) -> dict[str, float]:
    """All figures of one kind of confidence."""
    return {
        "ece": round(calibration_error(chance, right), 4),
        "auc_wrong": round(area(chance, right), 4),
        "nce": round(entropy_gain(chance, right), 4),
        "brier": round(float(np.square(chance - right).mean()), 4),
    }


def draw(path: Path, curves: dict[str, tuple[Floats, NDArray[np.bool_]]]) -> None:
    """The reliability diagram, with how many words have which confidence below it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 6), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    above.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle=":")
    for name, (chance, right) in curves.items():
        points = reliability(chance, right)
        error = calibration_error(chance, right)
        label = f"{name}: ECE {100 * error:.1f} %"
        above.plot([p[0] for p in points], [p[1] for p in points], marker="o", label=label)
        below.hist(chance, bins=BINS, range=(0, 1), histtype="step")
    above.set_ylabel("share of right words")
    above.legend()
    below.set_ylabel("words")
    below.set_xlabel("confidence")
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=150)


def cross_validated(words: Words, noise: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Each word judged by a calibration of the other half of the speakers."""
    names = sorted(set(words.speakers.tolist()))
    odd = np.isin(words.speakers, names[::2])
    chance, spoken = np.zeros(len(odd)), np.zeros(len(odd))
    for half in (odd, ~odd):
        chance[half], spoken[half] = judged(words.only(half), fitted(words.only(~half), noise))
    return chance, spoken


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Fits and measures the confidence of words.")
    add = parser.add_argument
    add("model", help="a model file; the search beside it is used")
    add("fit", help="the manifest to fit on: transcribed speech that the model has not seen")
    add("test", help="the manifest to report on; the same: cross-validated by speaker")
    add("--output", type=Path, help="the calibration file to write")
    add("--plot", type=Path, help="the reliability diagram to write, a PNG")
    add(
        "--heard", help="keep what this calibration says of speech and noise; only words are fitted"
    )
    add("--greedy", action="store_true", help="greedy search, whatever is beside the model")
    add("--sounds", type=int, default=24, help="recordings of each kind of sound without speech")
    add("--seed", type=int, default=1)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, report, write, and print the JSON line; the exit status."""
    options = parse(arguments)
    torch.manual_seed(options.seed)
    try:
        model = recognizer.load(options.model, search="greedy" if options.greedy else None)
        same = Path(options.fit).resolve() == Path(options.test).resolve()
        utterances = manifest.read(options.fit)
        if same and len({u.speaker or u.id for u in utterances}) == 1:
            raise ConfigError(f"{options.fit}: of one speaker: name another manifest to report on")
        words = recognised(model, utterances)
        noise = invented(model, FITTED_SOUNDS, options.sounds, options.seed)
        calibration = fitted(words, noise)
        if options.heard:
            calibration = replace(calibration, heard=load_calibration(options.heard).heard)
        tested = words if same else recognised(model, manifest.read(options.test))
        if tested.right.all() or not tested.right.any():
            raise ConfigError(f"{options.test}: all words are right, or none: nothing to report")
        chance, spoken = cross_validated(words, noise) if same else judged(tested, calibration)
    except AsrError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.heard:
        spoken = judged(tested, calibration)[1]
    raw = np.array(confidences(tested.rows, None))
    unseen = {}
    for name in SOUNDS:
        found = invented(model, [name], options.sounds, options.seed + 1)
        judgements = [chance_heard(rows, calibration) for rows in found if len(rows)]
        kept = sum(int((j >= 0.5).sum()) for j in judgements if j is not None)
        unseen[name] = {"words": sum(len(rows) for rows in found), "judged_spoken": kept}
    values = {
        "benchmark": "confidence",
        "model": options.model,
        "fit": options.fit,
        "test": options.test,
        "cross_validated": same,
        "greedy": options.greedy,
        "words": len(tested.right),
        "right_share": round(float(tested.right.mean()), 4),
        "before": report(raw, tested.right),
        "after": report(chance, tested.right),
        "spoken_words_judged_invented": int((spoken < 0.5).sum()),
        "invented": unseen,
        "weights": dict(zip(calibration.right.features, calibration.right.weights, strict=True)),
        "seed": options.seed,
        "commit": commit(),
    }
    if options.output:
        calibration.save(options.output)
    if options.plot:
        curves = {"decoder's mean": (raw, tested.right), "calibrated": (chance, tested.right)}
        draw(options.plot, curves)
    print(json.dumps(values))
    return 0


if __name__ == "__main__":
    sys.exit(main())
