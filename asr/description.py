"""A hypothesis in; its words with times and confidence, and what went wrong with it, out.

Pure values: no model is needed, so that search, long recordings and tests all describe results alike.
"""

from dataclasses import dataclass

from torch import Tensor

from asr.alignment import Alignment, Span, forced_alignment, words_from_attention, words_from_ctc
from asr.confidence import Calibration, confidences, word_features
from asr.decoding import Hypothesis
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
    words = tuple(
        Word(span.text, span.start, span.end, confidence)
        for span, confidence in zip(spans, confidences(rows, calibration), strict=True)
    )
    mean = sum(w.confidence or 0.0 for w in words) / len(words) if words else None
    return Description(words, mean)


def align(
    hypothesis: Hypothesis,
    ctc_log_probs: Tensor | None,
    tokenizer: Tokenizer,
    frame_seconds: float,
) -> tuple[list[Span], Alignment | None]:
    """Return the hypothesis's words with times, by CTC where it can hold them, and the CTC alignment used."""
    tokens, attention = hypothesis.tokens, hypothesis.attention
    duration = attention.shape[1] * frame_seconds
    if ctc_log_probs is not None and len(ctc_log_probs) and attention.shape[1]:
        alignment = forced_alignment(ctc_log_probs, tokens)
        if alignment is not None:
            frame = duration / len(ctc_log_probs)
            return words_from_ctc(tokens, alignment, tokenizer, frame, duration), alignment
    return words_from_attention(tokens, attention, tokenizer, frame_seconds), None
