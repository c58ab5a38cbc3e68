"""Pictures of what a model did: a waveform, its words and its attention in, a PNG out, for a paper or a bug report."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from asr import audio
from asr.errors import AudioError
from asr.features import FeatureOptions, LogMel
from asr.files import atomic_write
from asr.transcript import Attention, Failure, Transcript, Word

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from asr.recognizer import Recognizer

SPACE = "␣"
"""How a space is shown on the axis of characters."""

MAX_CHARACTERS = 80
"""More characters than this do not fit beside each other: then each word is named at its first character."""

MAX_LABEL, MAX_TITLE = 30, 500
"""Characters: a model that has learnt little may write a word or a text of any length, which leaves no room."""

MAX_SECONDS = 30.0
"""Of a longer recording the picture shows the beginning."""

MIN_SECONDS = 0.1
"""A shorter recording is drawn with silence after it."""

FEATURES_INCHES = 1.8
WORD_ROWS, WORD_ROW_INCHES = 3, 0.16
LETTER_INCHES = 0.06
LABEL_INCHES = 0.09


def transcript_plot(
    recording: str | Path,
    transcript: Transcript,
    path: str | Path,
    recognizer: "Recognizer",
    *,
    channel: str | int = "mix",
) -> None:
    """Draw a recording with its words and attention, its first 30 s if it is longer, as a PNG.

    `channel` is the one that was transcribed. Where the transcript holds no attention, what is shown is transcribed
    again. Raises AudioError if the recording cannot be read and OSError if `path` cannot be written.
    """
    options = recognizer.trained.features
    rate = options.sample_rate
    blocks = audio.blocks(recording, seconds=MAX_SECONDS, sample_rate=rate, channel=channel)
    waveform = torch.from_numpy(next(iter(blocks))[1])
    seconds = min(transcript.duration, MAX_SECONDS)
    attention = transcript_attention(transcript, seconds)
    if attention is None:
        again = recognizer.transcribe(waveform, sample_rate=rate, attention=True)
        attention = transcript_attention(again, seconds)
    title = f"{Path(transcript.audio or recording).name}"
    if transcript.duration > MAX_SECONDS:
        title += f", the first {MAX_SECONDS:.0f} of {transcript.duration:.0f} s"
    if transcript.channel:
        title += f", {transcript.channel}"
    attention_plot(
        torch.nn.functional.pad(waveform, (0, max(0, round(MIN_SECONDS * rate) - len(waveform)))),
        attention or Attention(torch.zeros(0, 0), (), 1.0),
        path,
        features=options,
        words=[word for word in transcript.words if word.start < seconds],
        failures=[failure for failure in transcript.failures if failure.start < seconds],
        title=title,
    )


def transcript_attention(transcript: Transcript, seconds: float) -> Attention | None:
    """Return all attention that a transcript holds of its first `seconds`, as one; None if it holds none.

    Segments follow each other down the rows, each in its own time; elsewhere the weights are 0.
    """
    if transcript.attention is not None:
        parts = [transcript.attention]
    else:
        parts = [s.attention for s in transcript.segments if s.attention is not None]
    parts = [part for part in parts if part.start < seconds and part.tokens]
    if not parts:
        return transcript.attention
    frame = min(part.frame_seconds for part in parts)
    rows = sum(len(part.tokens) for part in parts) + len(parts) - 1
    columns = max(1, round(seconds / frame))
    weights = torch.zeros(rows, columns)
    tokens: list[str] = []
    for part in parts:
        if tokens:
            tokens.append(" ")
        begin = round(part.start / frame)
        placed = _resampled(part, frame)
        inside = (placed.argmax(1) + begin < columns).nonzero().flatten().tolist()
        count = inside[-1] + 1 if inside else 0  # what is said after the cut is not shown
        shown = placed[:count, : columns - begin]
        weights[len(tokens) : len(tokens) + count, begin : begin + shown.shape[1]] = shown
        tokens.extend(part.tokens[:count])
    return Attention(weights[: len(tokens)], tuple(tokens), frame)


def _resampled(part: Attention, frame_seconds: float) -> torch.Tensor:
    """The weights (L, U) at steps of other lengths, each as that which lies there."""
    ratio = frame_seconds / part.frame_seconds
    steps = round(part.weights.shape[1] / ratio)
    nearest = ((torch.arange(steps) + 0.5) * ratio).long().clamp(max=part.weights.shape[1] - 1)
    return part.weights[:, nearest].float()


def attention_plot(
    waveform: torch.Tensor,
    attention: Attention,
    path: str | Path,
    *,
    features: FeatureOptions | None = None,
    words: Sequence[Word] = (),
    failures: Sequence[Failure] = (),
    title: str = "",
) -> None:
    """Draw what the model heard above where it looked for each character, over the same seconds, as a PNG.

    `waveform` is (S,) at the features' sample rate. Between the two are the `words` at their times. The lower picture
    has a row for each token, first at the top, and is darker where the weight is larger, red where a failure was
    flagged; texts of more than 80 characters are labelled by words. matplotlib's global state is not touched. Raises
    AudioError if the waveform is shorter than two frames and OSError if `path` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    options = FeatureOptions() if features is None else features
    seconds = len(waveform) / options.sample_rate
    rows, labels = _labels(attention.tokens)
    attention_inches = min(9.0, max(2.0, _inches_per_label(attention.tokens) * len(labels)))
    width = min(24.0, max(7.0, 0.75 * seconds + 2))
    places = _word_rows(words, (width - 1.5) / max(seconds, 0.01))
    words_inches = WORD_ROW_INCHES * (1 + max(places, default=-1)) + 0.02
    heights = [FEATURES_INCHES, words_inches, attention_inches]
    layout = ConstrainedLayoutEngine(h_pad=0.02, hspace=0.0)
    figure = Figure(figsize=(width, sum(heights) + 0.8), layout=layout)
    FigureCanvasAgg(figure)
    above, between, below = figure.subplots(
        3, 1, sharex=True, gridspec_kw={"height_ratios": heights}
    )
    _draw_features(figure, above, waveform, options)
    _draw_words(between, words, places)
    _draw_attention(figure, below, attention)
    _draw_failures(below, failures)
    for axes in (above, below):
        for word in words:
            axes.axvline(word.start, color="tab:cyan", linewidth=0.4, alpha=0.7)
    kept = _apart(rows, len(attention.tokens) * LABEL_INCHES / attention_inches)
    below.set_yticks([rows[i] for i in kept], [labels[i] for i in kept])
    below.set_xlim(0, seconds)
    _draw_title(figure, title)
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=150)


def _draw_title(figure: "Figure", title: str) -> None:
    shown = _cut(title, MAX_TITLE).encode("utf-8", "backslashreplace").decode()
    if shown:
        figure.suptitle(shown.replace("$", r"\$"), fontsize=10, x=0.01, ha="left", wrap=True)


def _draw_failures(axes: "Axes", failures: Sequence[Failure]) -> None:
    for failure in failures:
        label = f" {failure.kind}" + (", mended" if failure.mended else "")
        axes.axvspan(failure.start, failure.end, color="tab:red", alpha=0.15, linewidth=0)
        axes.text(
            failure.start,
            0.99,
            label,
            color="tab:red",
            fontsize=7,
            va="top",
            transform=axes.get_xaxis_transform(),
            clip_on=True,
        )


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


def _word_rows(words: Sequence[Word], inches_per_second: float) -> list[int]:
    """Return for each word the first of a few rows where it does not touch the word before it in that row."""
    free = [0.0] * WORD_ROWS
    rows = []
    for word in words:
        needed = LETTER_INCHES * (len(word.text) + 1) / inches_per_second
        left = max(0.0, (word.start + word.end - needed) / 2)
        row = next((row for row, end in enumerate(free) if end <= left), free.index(min(free)))
        free[row] = left + needed
        rows.append(row)
    return rows


def _draw_words(axes: "Axes", words: Sequence[Word], rows: Sequence[int]) -> None:
    """Write each word over its time."""
    axes.set_axis_off()
    axes.set_ylim(1 + max(rows, default=0), 0)
    for word, row in zip(words, rows, strict=True):
        middle = (word.start + word.end) / 2
        axes.plot([word.start, word.end], [row + 0.95] * 2, color="tab:cyan", linewidth=1.2)
        axes.text(middle, row + 0.5, word.text, fontsize=7, ha="center", va="center")


def _draw_attention(figure: "Figure", axes: "Axes", attention: Attention) -> None:
    axes.set_xlabel("time (s)")
    axes.set_ylabel("character" if len(attention.tokens) <= MAX_CHARACTERS else "word")
    axes.tick_params(axis="y", labelsize=6, length=0, labelfontfamily="monospace")
    if not attention.tokens:
        axes.text(0.5, 0.5, "nothing recognised", transform=axes.transAxes, ha="center")
        return
    weights = attention.weights.float().numpy()
    rows, steps = weights.shape
    end = attention.start + steps * attention.frame_seconds
    image = axes.imshow(
        weights,
        aspect="auto",
        interpolation="nearest",
        cmap="Greys",
        vmin=0,
        extent=(attention.start, end, rows - 0.5, -0.5),
    )
    figure.colorbar(image, ax=axes, label="attention", pad=0.01, aspect=40)


def _apart(rows: Sequence[int], distance: float) -> list[int]:
    """Return which of the rows to label so that no two labels are nearer than a distance in rows."""
    kept: list[int] = []
    for number, row in enumerate(rows):
        if not kept or row - rows[kept[-1]] >= distance:
            kept.append(number)
    return kept


def _inches_per_label(tokens: Sequence[str]) -> float:
    return 0.1 if len(tokens) <= MAX_CHARACTERS else 0.15


def _labels(tokens: Sequence[str]) -> tuple[list[int], list[str]]:
    """Return the rows that are labelled, and their labels: every character, or every word of a long text."""
    if len(tokens) <= MAX_CHARACTERS:
        return list(range(len(tokens))), [SPACE if token == " " else token for token in tokens]
    starts = [
        row for row, (last, token) in enumerate(pairwise([" ", *tokens])) if last == " " != token
    ]
    return starts, [_cut(word, MAX_LABEL) for word in "".join(tokens).split()]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
