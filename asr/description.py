"""A hypothesis in; its words with times and confidence, and what went wrong with it, out.

Pure values: no model is needed, so that search, long recordings and tests all describe results alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from asr.alignment import Alignment, Span, forced_alignment, words_from_attention, words_from_ctc
from asr.confidence import Calibration, chance_heard, confidences, word_features
from asr.decoding import Hypothesis
from asr.failures import Piece, mend
from asr.tokenizer import Tokenizer
from asr.transcript import Failure, Word


@dataclass(frozen=True)
class Description:
    """The words of a hypothesis, and the failures that its attention shows; times in seconds of the utterance.

    `words` are those to be shown: failures that are `mended` have changed them, so that they may differ from the
    hypothesis. `confidence` is the mean over the words, None where there are none.
    """

    words: tuple[Word, ...]
    confidence: float | None
    failures: tuple[Failure, ...] = ()

    @property
    def text(self) -> str:
        """The words, with single spaces."""
        return " ".join(word.text for word in self.words)


def describe(
    hypothesis: Hypothesis,
    ctc_log_probs: Tensor | None,
    tokenizer: Tokenizer,
    frame_seconds: float,
    calibration: Calibration | None = None,
) -> Description:
    """Return the words of a hypothesis with times and confidence, and its failures, mended where they can be.

    `ctc_log_probs` (F, V) are those of the utterance alone, None without a CTC head; `frame_seconds` is that of a
    memory step, a column of the attention. Without a calibration confidence is the decoder's mean probability.
    """
    spans, alignment = align(hypothesis, ctc_log_probs, tokenizer, frame_seconds)
    rows = word_features(hypothesis, spans, ctc_log_probs, alignment)
    heard = chance_heard(rows, calibration)
    mended = mend(hypothesis, spans, ctc_log_probs, tokenizer, frame_seconds, heard)
    chances = confidences(rows, calibration)
    if [piece.index for piece in mended.pieces] != list(range(len(spans))):
        duration = hypothesis.attention.shape[1] * frame_seconds
        spans = _timed_again(mended.pieces, spans, ctc_log_probs, tokenizer, duration)
    words = tuple(
        Word(
            piece.text,
            span.start,
            span.end,
            piece.probability if piece.index is None else chances[piece.index],
        )
        for piece, span in zip(mended.pieces, spans, strict=True)
    )
    mean = sum(w.confidence or 0.0 for w in words) / len(words) if words else None
    return Description(words, mean, mended.failures)


def align(
    hypothesis: Hypothesis,
    ctc_log_probs: Tensor | None,
    tokenizer: Tokenizer,
    frame_seconds: float,
) -> tuple[list[Span], Alignment | None]:
    """Return a hypothesis's words with times, and its CTC alignment, None where CTC's frames cannot hold it."""
    tokens, attention = hypothesis.tokens, hypothesis.attention
    words = words_from_attention(tokens, attention, tokenizer, frame_seconds)
    if ctc_log_probs is None or not len(ctc_log_probs) or not attention.shape[1]:
        return words, None
    return words, forced_alignment(ctc_log_probs, tokens)


def _timed_again(
    pieces: Sequence[Piece],
    spans: Sequence[Span],
    ctc_log_probs: Tensor | None,
    tokenizer: Tokenizer,
    duration: float,
) -> list[Span]:
    """The words of a mended text with times by CTC; without it, or where it is too long, those that they had."""
    tokens = tokenizer.encode(" ".join(piece.text for piece in pieces))
    if ctc_log_probs is not None and len(ctc_log_probs):
        alignment = forced_alignment(ctc_log_probs, tokens)
        if alignment is not None:
            frame = duration / len(ctc_log_probs)
            return words_from_ctc(tokens, alignment, tokenizer, frame, duration)
    ordered, end = [], 0.0
    for piece in pieces:
        own = Span(piece.text, 0, 0, end, end) if piece.index is None else spans[piece.index]
        start = max(own.start, end)
        end = max(own.end, start)
        ordered.append(replace(own, start=start, end=end))
    return ordered
