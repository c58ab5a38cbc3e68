"""A tiny recognizer with random weights that are large enough for its text to depend on what it hears."""

import torch
from torch import Tensor

from asr.checkpoint import Trained, build
from asr.confidence import Calibration
from asr.decoding import Hypothesis
from asr.description import Description, align
from asr.features import FeatureOptions
from asr.model import DecoderOptions, EncoderOptions, ModelOptions
from asr.tokenizer import Tokenizer
from asr.transcript import Failure, Word


def tiny_trained(seed: int = 4, *, eos_bias: float = 0.0) -> Trained:
    """Untrained weights of a full-size frontend and a tiny network; a higher `eos_bias` gives shorter texts."""
    encoder = EncoderOptions(width=8, channels=4, flat_layers=0)
    options = ModelOptions(encoder=encoder, decoder=DecoderOptions(width=8, embedding=8))
    tokenizer, features = Tokenizer(), FeatureOptions()
    torch.manual_seed(seed)
    model = build(options, tokenizer, features).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3)
        model.decoder.output.bias[0] += eos_bias
    return Trained(model, tokenizer, features, {"steps": 7})


def unmended(
    hypothesis: Hypothesis,
    ctc_log_probs: Tensor | None,
    tokenizer: Tokenizer,
    frame_seconds: float,
    calibration: Calibration | None = None,
) -> Description:
    """Stands for `describe`: the decoder's own words, which in an untrained network's case are one long failure."""
    spans, _ = align(hypothesis, ctc_log_probs, tokenizer, frame_seconds)
    words = tuple(Word(s.text, s.start, s.end, 1 / (n + 2)) for n, s in enumerate(spans))
    mean = sum(word.confidence or 0.0 for word in words) / len(words) if words else None
    seconds = len(hypothesis.attention) * frame_seconds
    failures = () if hypothesis.ended else (Failure("cut", 0.0, seconds),)
    return Description(words, mean, failures)
