"""How exact word times are: a model and a manifest in, errors in milliseconds on stderr and one JSON line out.

Utterances are trimmed to where two detectors agree that speech begins and ends (others are left out) and joined two by
two with a gap of known length, so that the end of the last word before the join and the start of the first word after
it are known to about 20 ms.
Times are made from the attention and by CTC's forced alignment, of the reference text (the decoder is then told the
text) and of the text that the model recognised, where its word stands for the one at the join. The last line on stderr
compares both with CTC's alignment of the reference, over all words that were recognised rightly in single utterances.
"""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asr import manifest, recognizer
from asr.alignment import Span, forced_alignment, words_from_attention, words_from_ctc
from asr.encoding import extract
from asr.errors import AsrError
from asr.recognizer import Recognizer
from asr.text import normalise
from recipes.benchmark.hearing import RATE, Heard, hear, load_waveforms
from recipes.benchmark.train_speed import commit

GAPS = (0.0, 0.2, 0.5, 1.0)  # seconds of near silence at the join
LEAD = 0.3  # seconds of near silence before and after a pair
HOP = RATE // 100
METHODS = ("attention", "ctc")


@dataclass(frozen=True)
class Pair:
    """Two utterances as one recording; `end` of the first and `start` of the second one's sound in seconds."""

    waveform: Tensor
    first: str
    second: str
    gap: float
    end: float
    start: float


@dataclass(frozen=True)
class Error:
    """One boundary's error in seconds: found minus known."""

    method: str  # attention | ctc
    text: str  # reference | recognised
    boundary: str  # start | end
    gap: float
    seconds: float


def trimmed(waveform: Tensor, vad: Any) -> Tensor | None:
    """The waveform from where speech begins to where it ends; None where two detectors do not agree on that.

    The one is the energy of 10 ms blocks, which breath and clicks mislead, the other silero's, which ends late.
    """
    from silero_vad import get_speech_timestamps

    blocks = waveform[: len(waveform) // HOP * HOP].reshape(-1, HOP)
    level = 10 * torch.log10(blocks.square().mean(1) + 1e-10)
    quiet, loud = level.quantile(0.05), level.quantile(0.95)
    loud_enough = (level > torch.maximum(loud - 30, quiet + 8)).nonzero().squeeze(1)
    start, end = int(loud_enough[0]) * HOP, (int(loud_enough[-1]) + 1) * HOP
    spans = get_speech_timestamps(waveform, vad, sampling_rate=RATE, speech_pad_ms=0)
    if not spans or abs(start - spans[0]["start"]) > 0.05 * RATE:
        return None
    return waveform[start:end] if -0.02 < spans[-1]["end"] / RATE - end / RATE < 0.2 else None


def near_silence(seconds: float, generator: torch.Generator) -> Tensor:
    """Noise at -65 dBFS."""
    return 10 ** (-65 / 20) * torch.randn(round(seconds * RATE), generator=generator)


def make_pairs(waveforms: Sequence[Tensor], texts: Sequence[str], seed: int) -> list[Pair]:
    """Join the utterances whose ends are known two by two, the gaps by turns."""
    from silero_vad import load_silero_vad

    vad = load_silero_vad()
    generator = torch.Generator().manual_seed(seed)
    cut = [(trimmed(waveform, vad), text) for waveform, text in zip(waveforms, texts, strict=True)]
    usable = [(waveform, text) for waveform, text in cut if waveform is not None]
    pairs = []
    for number, (one, other) in enumerate(zip(usable[::2], usable[1::2], strict=False)):
        gap = GAPS[number % len(GAPS)]
        lead = near_silence(LEAD, generator)
        (first, said_first), (second, said_second) = one, other
        parts = [lead, first, near_silence(gap, generator), second, lead]
        end = LEAD + len(first) / RATE
        pairs.append(Pair(torch.cat(parts), said_first, said_second, gap, end, end + gap))
    return pairs


@torch.inference_mode()
def told(model_of: Recognizer, waveform: Tensor, tokens: Sequence[int]) -> Tensor:
    """The attention (L, U) of a decoder that is told the tokens."""
    model = model_of.model
    fed = extract(model, model_of.features, [waveform])
    memory = model.encode(fed.features, fed.lengths)
    inputs = torch.tensor([[model_of.tokenizer.sos, *tokens]])
    _, attention = model.decoder.teacher_forced(inputs, memory)
    return attention[0, : len(tokens)].float()


def timed(
    model_of: Recognizer, tokens: Sequence[int], attention: Tensor, heard: Heard
) -> dict[str, list[Span]]:
    """The words of a text with their times, by each method that can tell them."""
    frame = heard.frame_seconds
    duration = attention.shape[1] * frame
    found = {"attention": words_from_attention(tokens, attention, model_of.tokenizer, frame)}
    alignment = forced_alignment(heard.ctc, tokens)
    if alignment is not None:
        frame = duration / len(heard.ctc)
        found["ctc"] = words_from_ctc(tokens, alignment, model_of.tokenizer, frame, duration)
    return found


def counterparts(reference: Sequence[str], words: Sequence[str]) -> dict[int, tuple[int, bool]]:
    """For each word of the reference that has one: the recognised word, and whether it is the same."""
    import jiwer

    found = {}
    chunks = jiwer.process_words(" ".join(reference), " ".join(words)).alignments[0]
    for chunk in chunks:
        if chunk.type in ("equal", "substitute"):
            for offset in range(chunk.ref_end_idx - chunk.ref_start_idx):
                at = chunk.hyp_start_idx + offset
                found[chunk.ref_start_idx + offset] = (at, chunk.type == "equal")
    return found


def join_errors(model_of: Recognizer, pair: Pair, heard: Heard) -> list[Error]:
    """The errors at one join, of all methods and texts."""
    reference = f"{pair.first} {pair.second}"
    last = len(pair.first.split()) - 1
    errors = []
    tokens = model_of.tokenizer.encode(reference)
    attention = told(model_of, pair.waveform, tokens)
    for method, spans in timed(model_of, tokens, attention, heard).items():
        errors += [
            Error(method, "reference", "end", pair.gap, spans[last].end - pair.end),
            Error(method, "reference", "start", pair.gap, spans[last + 1].start - pair.start),
        ]
    hypothesis = heard.hypothesis
    recognised = timed(model_of, hypothesis.tokens, hypothesis.attention, heard)
    for method, spans in recognised.items():
        places = counterparts(reference.split(), [span.text for span in spans])
        if last in places:
            end = spans[places[last][0]].end
            errors.append(Error(method, "recognised", "end", pair.gap, end - pair.end))
        if last + 1 in places:
            start = spans[places[last + 1][0]].start
            errors.append(Error(method, "recognised", "start", pair.gap, start - pair.start))
    return errors


def agreement(model_of: Recognizer, reference: str, heard: Heard) -> list[tuple[str, float]]:
    """For each right word: the method and the distance in seconds of both its times from the reference's alignment."""
    hypothesis = heard.hypothesis
    tokens = model_of.tokenizer.encode(reference)
    aligned = timed(model_of, tokens, torch.zeros(0, hypothesis.attention.shape[1]), heard)
    if "ctc" not in aligned:
        return []
    found = []
    recognised = timed(model_of, hypothesis.tokens, hypothesis.attention, heard)
    for method, spans in recognised.items():
        for word, (at, same) in counterparts(
            reference.split(), [span.text for span in spans]
        ).items():
            if same:
                known = aligned["ctc"][word]
                found.append((method, spans[at].start - known.start))
                found.append((method, spans[at].end - known.end))
    return found


def figures(seconds: Sequence[float]) -> dict[str, float]:
    """What is told of a list of errors, in milliseconds."""
    errors = 1000 * np.array(seconds)
    sizes = np.abs(errors)
    return {
        "count": len(errors),
        "median_ms": round(float(np.median(sizes)), 1),
        "mean_ms": round(float(sizes.mean()), 1),
        "p90_ms": round(float(np.quantile(sizes, 0.9)), 1),
        "bias_ms": round(float(np.median(errors)), 1),
    }


def summarised(errors: Sequence[Error]) -> list[dict[str, object]]:
    """Figures for each method, text, boundary and gap, and for all gaps together."""
    rows = []
    for method in METHODS:
        for text in ("reference", "recognised"):
            for boundary in ("start", "end"):
                own = [
                    e for e in errors if (e.method, e.text, e.boundary) == (method, text, boundary)
                ]
                for gap in (None, *GAPS):
                    chosen = [e.seconds for e in own if gap is None or e.gap == gap]
                    if chosen:
                        key = {"method": method, "text": text, "boundary": boundary, "gap": gap}
                        rows.append(key | figures(chosen))
    return rows


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="How exact word times are.")
    add = parser.add_argument
    add("manifest", help="utterances to join; dev-clean, say")
    add("--model", help="a model file (default: the bundled one)")
    add("--pairs", type=int, default=150)
    add("--seed", type=int, default=1)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print both tables and the JSON line; the exit status."""
    options = parse(arguments)
    try:
        model_of = recognizer.load(options.model)
        utterances = [u for u in manifest.read(options.manifest) if 2 <= u.duration <= 15]
    except AsrError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    random.Random(options.seed).shuffle(utterances)
    utterances = utterances[: 2 * options.pairs]
    waveforms = load_waveforms(utterances)
    texts = [normalise(u.text) for u in utterances]
    pairs = make_pairs(waveforms, texts, options.seed)
    heard = hear(model_of, [pair.waveform for pair in pairs])
    errors = [
        e for pair, h in zip(pairs, heard, strict=True) for e in join_errors(model_of, pair, h)
    ]
    rows = summarised(errors)
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()), file=sys.stderr)
    alone = hear(model_of, waveforms)
    near = [item for t, h in zip(texts, alone, strict=True) for item in agreement(model_of, t, h)]
    agreements = {m: figures([s for method, s in near if method == m]) for m in METHODS}
    print(f"against CTC's alignment of the reference: {agreements}", file=sys.stderr)
    values = {
        "benchmark": "alignment",
        "manifest": options.manifest,
        "pairs": len(pairs),
        "seed": options.seed,
        "joins": rows,
        "agreement": agreements,
        "commit": commit(),
    }
    print(json.dumps(values))
    return 0


if __name__ == "__main__":
    sys.exit(main())
