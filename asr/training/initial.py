"""Trained models in, the weights that a training begins with out; those of a language model for a speller."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from asr import checkpoint
from asr.checkpoint import Trained
from asr.errors import CheckpointError, ConfigError
from asr.lm_checkpoint import load_lm
from asr.model import Seq2Seq
from asr.model.decoder import Decoder
from asr.model.encoder import EncoderLayer
from asr.model.lm import LanguageModel
from asr.tokenizer import Tokenizer

SPELLER = "speller."


def initialise(
    model: Seq2Seq, path: str | Path, language_model: str | Path = ""
) -> tuple[list[str], dict[str, Any]]:
    """Copy from a trained model all weights that fit; the names of the others, and what it says of its training.

    A residual layer of the encoder with a norm that it has not got begins as the identity, so that a deeper network
    begins as good. A head for phonemes that stood on layers which this network lacks is left out. The decoder of a
    speller that it has not got begins as its decoder; with a language model of characters as that with the language
    model beside it. Raises CheckpointError where a file cannot be read or fits nothing.
    """
    trained = checkpoint.load(path)
    given = trained.model.state_dict()
    own = model.state_dict()
    fitting = {n: w for n, w in given.items() if n in own and own[n].shape == w.shape}
    if len(trained.model.phoneme_layers) > len(model.phoneme_layers):
        fitting = {n: w for n, w in fitting.items() if not n.startswith("phonemes.")}
    fitting |= _speller(model, trained, language_model)
    if not fitting:
        raise CheckpointError(f"{path}: no weight of it fits this network")
    model.load_state_dict({**own, **fitting})
    for number, layer in enumerate(model.encoder.layers):
        given_layer = any(name.startswith(f"encoder.layers.{number}.") for name in fitting)
        if isinstance(layer, EncoderLayer) and layer.residual and not given_layer:
            layer.pass_through()
    info = {key: value for key, value in trained.info.items() if key != "validations"}
    return sorted(set(own) - set(fitting)), info


def _speller(model: Seq2Seq, trained: Trained, language_model: str | Path) -> dict[str, Tensor]:
    """What a speller's decoder takes besides the weights that fit.

    One that is new takes the given model's decoder's, which can spell already but attends to other things.
    """
    given = trained.model
    if model.speller is None:
        return {}
    first = given.decoder if given.speller is None else given.speller.decoder
    begun = first.state_dict()
    decoder = model.speller.decoder
    if language_model and first.options.width != decoder.options.width:
        begun = _with_lm(decoder, first, _lm(language_model, trained.tokenizer))
    elif given.speller is not None:
        return {}
    if given.speller is None:
        begun = {name: w for name, w in begun.items() if not name.startswith("attention.")}
    own = decoder.state_dict()
    return {
        f"{SPELLER}decoder.{name}": weight
        for name, weight in begun.items()
        if name in own and own[name].shape == weight.shape
    }


def _lm(path: str | Path, tokenizer: Tokenizer) -> LanguageModel:
    found = load_lm(path, "characters")
    if found.tokenizer.to_dict() != tokenizer.to_dict():
        raise CheckpointError(f"{path}: its characters are not those of the model")
    return found.model


def _with_lm(wanted: Decoder, decoder: Decoder, lm: LanguageModel) -> dict[str, Tensor]:
    """The weights of a decoder and a language model side by side, of the sizes of the one that is wanted."""
    name = "spelling.language_model"
    for size in ("width", "embedding"):
        ours, theirs = getattr(decoder.options, size), getattr(lm.options, size)
        if getattr(wanted.options, size) != ours + theirs:
            raise ConfigError(
                f"{name}: its {size} is {theirs}, that of the decoder before {ours}; "
                f"model.speller.decoder.{size} must be {ours + theirs}"
            )
    layers = {part.options.layers for part in (wanted, decoder, lm)}
    fed = wanted.options.input_feeding or decoder.options.input_feeding
    if layers != {1} or {decoder.options.cell, wanted.options.cell} != {"lstm"} or fed:
        raise ConfigError(
            f"{name}: it and the decoders must be one LSTM layer, without input feeding"
        )
    return side_by_side(decoder, lm)


def side_by_side(decoder: Decoder, lm: LanguageModel) -> dict[str, Tensor]:
    """The weights of a decoder that says what the given one says, with the units of a language model beside its own.

    Nothing reads these but their part of the readout, which repeats them; training finds out what they are good for.
    Both are one LSTM layer. Source: deep fusion (Gulcehre et al. 2015), the whole of which learns on here.
    """
    ours, theirs = decoder.state_dict(), lm.state_dict()
    width, more = decoder.options.width, lm.options.width
    joined = dict(ours)
    joined["embed.weight"] = torch.cat([ours["embed.weight"], theirs["embed.weight"]], 1)
    for name in (name for name in ours if name.startswith("rnn.")):
        gates = zip(ours[name].chunk(4), theirs[name].chunk(4), strict=True)
        join = torch.block_diag if ours[name].dim() > 1 else _in_a_row
        joined[name] = torch.cat([join(*pair) for pair in gates])
    query, context = ours["readout.weight"].tensor_split([width], 1)
    repeated = torch.block_diag(query, torch.eye(more))
    joined["readout.weight"] = torch.cat([repeated, pad(context, (0, 0, 0, more))], 1)
    joined["readout.bias"] = pad(ours["readout.bias"], (0, more))
    for name in ("attention.query.weight", "output.weight"):
        joined[name] = pad(ours[name], (0, more))
    return joined


def _in_a_row(*biases: Tensor) -> Tensor:
    return torch.cat(biases)
