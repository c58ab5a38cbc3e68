"""Pictures of what a model did: a waveform and its attention in, a PNG out, for a paper or a bug report."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from asr.errors import AudioError
from asr.features import FeatureOptions, LogMel
from asr.files import atomic_write
from asr.transcript import Attention

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPACE = "␣"
"""How a space is shown on the axis of characters."""

MAX_CHARACTERS = 80
"""More characters than this do not fit beside each other: then each word is named at its first character."""

FEATURES_INCHES = 1.8


def attention_plot(
    waveform: torch.Tensor,
    attention: Attention,
    path: str | Path,
    *,
    features: FeatureOptions | None = None,
    title: str = "",
) -> None:
    """Draw what the model heard above where it looked for each character, over the same seconds, as a PNG.

    `waveform` is (S,) at the features' sample rate. The lower picture has a row for each token, first at the
    top, and is darker where the weight is larger; texts of more than 80 characters are labelled by words.
    matplotlib's global state is not touched. Raises AudioError if the waveform is shorter than two frames and
    OSError if `path` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    options = FeatureOptions() if features is None else features
    seconds = len(waveform) / options.sample_rate
    rows, labels = _labels(attention.tokens)
    attention_inches = min(9.0, max(2.0, _inches_per_label(attention.tokens) * len(labels)))
    width = min(14.0, max(7.0, 0.7 * seconds + 2))
    figure = Figure(figsize=(width, FEATURES_INCHES + attention_inches + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(
        2, 1, sharex=True, gridspec_kw={"height_ratios": [FEATURES_INCHES, attention_inches]}
    )
    _draw_features(figure, above, waveform, options)
    _draw_attention(figure, below, attention)
    below.set_yticks(rows, labels)
    below.set_xlim(0, seconds)
    if title:
        figure.suptitle(title, fontsize=10, x=0.01, ha="left", wrap=True)
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=150)


def _draw_features(
    figure: "Figure", axes: "Axes", waveform: torch.Tensor, options: FeatureOptions
) -> None:
    import librosa.display

    with torch.inference_mode():
        log_mel = LogMel(options)(waveform.float())
    if len(log_mel) < 2:
        raise AudioError(f"waveform of {len(waveform)} samples: too short for a picture")
    decibels = 10 / torch.log(torch.tensor(10.0)) * log_mel
    image = librosa.display.specshow(
        decibels.T.numpy(),
        sr=options.sample_rate,
        hop_length=options.hop_samples,
        x_axis="s",
        y_axis="mel",
        fmin=options.low_hz,
        fmax=options.high_hz,
        htk=True,
        cmap="magma",
        vmin=float(decibels.max()) - 80,
        ax=axes,
    )
    axes.set_facecolor("black")  # the last window ends where the waveform does, its frame earlier
    axes.set_xlabel("")
    axes.set_ylabel("frequency (Hz)")
    axes.label_outer()
    figure.colorbar(image, ax=axes, label="dB", pad=0.01)


def _draw_attention(figure: "Figure", axes: "Axes", attention: Attention) -> None:
    axes.set_xlabel("time (s)")
    axes.set_ylabel("character" if len(attention.tokens) <= MAX_CHARACTERS else "word")
    axes.tick_params(axis="y", labelsize=6, length=0, labelfontfamily="monospace")
    if not attention.tokens:
        axes.text(0.5, 0.5, "nothing recognised", transform=axes.transAxes, ha="center")
        return
    weights = attention.weights.float().numpy()
    rows, steps = weights.shape
    image = axes.imshow(
        weights,
        aspect="auto",
        interpolation="nearest",
        cmap="Greys",
        vmin=0,
        extent=(0, steps * attention.frame_seconds, rows - 0.5, -0.5),
    )
    figure.colorbar(image, ax=axes, label="attention", pad=0.01, aspect=40)


def _inches_per_label(tokens: Sequence[str]) -> float:
    return 0.1 if len(tokens) <= MAX_CHARACTERS else 0.15


def _labels(tokens: Sequence[str]) -> tuple[list[int], list[str]]:
    """Return the rows that are labelled, and their labels: every character, or every word of a long text."""
    if len(tokens) <= MAX_CHARACTERS:
        return list(range(len(tokens))), [SPACE if token == " " else token for token in tokens]
    starts = [
        row for row, (last, token) in enumerate(pairwise([" ", *tokens])) if last == " " != token
    ]
    return starts, "".join(tokens).split()
