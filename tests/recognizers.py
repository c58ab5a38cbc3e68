"""A tiny recognizer with random weights that are large enough for its text to depend on what it hears."""

import torch

from asr.checkpoint import Trained, build
from asr.features import FeatureOptions
from asr.model import DecoderOptions, EncoderOptions, ModelOptions
from asr.tokenizer import Tokenizer


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
