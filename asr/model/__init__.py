"""The network: features (B, T, M) in, log-probabilities of the next character (B, V) out, one step at a time.

Dimension letters, the same in every shape of the package: B batch, S samples, T frames, M mels, U encoder
(memory) steps, D width of the memory, A width of the attention, L tokens, V vocabulary, H heads, K beam.
"""

from asr.model.decoder import DecoderOptions, State
from asr.model.encoder import EncoderOptions
from asr.model.memory import Memory
from asr.model.seq2seq import Losses, LossWeights, ModelOptions, Seq2Seq

__all__ = [
    "DecoderOptions",
    "EncoderOptions",
    "Losses",
    "LossWeights",
    "Memory",
    "ModelOptions",
    "Seq2Seq",
    "State",
]
