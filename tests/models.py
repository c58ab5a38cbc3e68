"""Tiny networks and batches for the tests: every kind of cell and attention, in milliseconds."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from asr.model import DecoderOptions, EncoderOptions, ModelOptions, Seq2Seq
from asr.model.attention import AttentionOptions
from asr.model.sounds import SpellerOptions
from asr.tokenizer import Tokenizer

CELLS = ("lstm", "gru", "rnn")
KINDS = ("fixed", "dot", "additive", "location", "multihead")
MELS = 10
TOKENIZER = Tokenizer("abcdef")
CHARACTERS = range(TOKENIZER.first_character, TOKENIZER.size)


def tiny_options(
    *,
    cell: str = "lstm",
    kind: str = "dot",
    layers: int = 1,
    input_feeding: bool = True,
    ctc: bool = True,
    phonemes: bool = False,
    phoneme_layers: int = 0,
    speller: float | None = None,
    dropout: float = 0.0,
    **encoder: Any,
) -> ModelOptions:
    """Options of a network with 8 units a layer; `encoder` holds fields of EncoderOptions, `speller` is its share."""
    attention = AttentionOptions(
        kind=kind, width=8, heads=4, location_channels=3, location_kernel=5
    )
    decoder = DecoderOptions(
        cell=cell,
        width=8,
        layers=layers,
        embedding=4,
        input_feeding=input_feeding,
        dropout=dropout,
        attention=attention,
    )
    sizes = {"width": 8, "channels": 3, "subsampling": 2, "bottom_layers": 0, "flat_layers": 1}
    listening = EncoderOptions(
        cell=cell, width=8, subsampling=1, bottom_layers=1, pyramid_levels=0, flat_layers=0
    )
    return ModelOptions(
        EncoderOptions(cell=cell, **(sizes | {"dropout": dropout} | encoder)),
        decoder,
        ctc,
        phonemes,
        phoneme_layers,
        None if speller is None else SpellerOptions(speller, listening, decoder),
    )


def tiny_model(*, seed: int = 0, **options: Any) -> Seq2Seq:
    """A network of `tiny_options` in evaluation mode, its weights large enough for sharp attention."""
    torch.manual_seed(seed)
    model = Seq2Seq(tiny_options(**options), vocabulary=TOKENIZER.size, n_mels=MELS).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(2)
    return model


def random_features(*frames: int, seed: int = 1) -> list[Tensor]:
    """Features (T, M), one tensor a length."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, MELS, generator=generator) for length in frames]


def random_tokens(*lengths: int, seed: int = 2) -> list[Tensor]:
    """Tokens (L,) of characters, one tensor a length."""
    generator = torch.Generator().manual_seed(seed)
    low, high = CHARACTERS.start, CHARACTERS.stop
    return [torch.randint(low, high, (length,), generator=generator) for length in lengths]


def padded(rows: Sequence[Tensor], filling: float = 0.0, extra: int = 0) -> tuple[Tensor, Tensor]:
    """Rows (N, ...) as one tensor (B, longest + extra, ...) with `filling` past the lengths (B,)."""
    lengths = [len(row) for row in rows]
    batch = rows[0].new_full((len(rows), max(lengths) + extra, *rows[0].shape[1:]), filling)
    for filled, row in zip(batch, rows, strict=True):
        filled[: len(row)] = row
    return batch, torch.tensor(lengths)
