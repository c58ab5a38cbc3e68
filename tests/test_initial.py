"""The weights that a speller begins with: a decoder's, with a language model's beside them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from asr import checkpoint
from asr.checkpoint import Trained
from asr.errors import CheckpointError, ConfigError
from asr.features import FeatureOptions
from asr.lm_checkpoint import TrainedLm, load_lm, save_lm
from asr.model import ModelOptions, Seq2Seq
from asr.model.lm import CharacterLm, LmOptions
from asr.model.sounds import SpellerOptions
from asr.tokenizer import Tokenizer
from asr.training.initial import initialise
from tests.models import MELS, TOKENIZER, padded, random_features, tiny_options

WIDER = {"width": 8 + 6, "embedding": 4 + 3}


def recognizer(path: Path, seed: int, options: ModelOptions) -> Seq2Seq:
    """A network of random weights, in a file."""
    torch.manual_seed(seed)
    features = FeatureOptions(n_mels=MELS)
    model = checkpoint.build(options, TOKENIZER, features).eval()
    checkpoint.save(path, Trained(model, TOKENIZER, features, {}))
    return model


def language_model(path: Path, layers: int = 1, tokenizer: Tokenizer = TOKENIZER) -> Path:
    """One of 6 units a layer, in a file."""
    torch.manual_seed(3)
    lm = CharacterLm(tokenizer.size, LmOptions(embedding=3, width=6, layers=layers))
    save_lm(path, TrainedLm(lm, tokenizer, {}))
    return path


def wider(**sizes: int) -> ModelOptions:
    """A network whose speller's decoder has room for the language model, or is of the sizes given."""
    options = tiny_options(phonemes=True, speller=0.5, input_feeding=False, kind="location")
    assert options.speller is not None
    decoder = replace(options.speller.decoder, **(WIDER | sizes))
    return replace(options, speller=SpellerOptions(0.5, options.speller.encoder, decoder))


def test_a_new_spellers_decoder_begins_as_the_decoder(tmp_path: Path) -> None:
    first = recognizer(tmp_path / "first.pt", 1, tiny_options(phonemes=True))
    model = recognizer(tmp_path / "own.pt", 2, tiny_options(phonemes=True, speller=0.5))
    missing, _ = initialise(model, tmp_path / "first.pt")
    assert model.speller is not None
    for part in ("embed", "output"):
        ours, theirs = getattr(model.speller.decoder, part), getattr(first.decoder, part)
        assert torch.equal(ours.weight, theirs.weight)
    assert "speller.decoder.attention.query.weight" in missing


@torch.inference_mode()
def test_a_wider_speller_with_a_language_model_says_at_first_what_it_said(tmp_path: Path) -> None:
    narrow = tiny_options(phonemes=True, speller=0.5, input_feeding=False, kind="location")
    first = recognizer(tmp_path / "first.pt", 1, narrow)
    model = recognizer(tmp_path / "own.pt", 2, wider())
    missing, _ = initialise(model, tmp_path / "first.pt", language_model(tmp_path / "lm.pt"))
    assert missing == []
    features, lengths = padded(random_features(30, 20))
    tokens, said = torch.tensor([[5, 4, 6], [4, 7, 5]]), []
    for network in (first, model):
        memory = network.with_speller(network.encode(features, lengths))
        state, rows = network.initial_state(memory), []
        for token in tokens.T:
            log_probs, state = network.step(token, memory, state)
            rows.append(log_probs)
        said.append(torch.stack(rows))
    torch.testing.assert_close(said[0], said[1])
    assert model.speller is not None
    lm = load_lm(tmp_path / "lm.pt").model
    heard, _ = lm.rnn(lm.embed(tokens))
    both, _ = model.speller.decoder.rnn(model.speller.decoder.embed(tokens))
    torch.testing.assert_close(both[:, :, 8:], heard)


def test_a_new_spellers_decoder_has_a_language_model_beside_it(tmp_path: Path) -> None:
    narrow = tiny_options(phonemes=True, input_feeding=False, kind="location")
    first = recognizer(tmp_path / "first.pt", 1, narrow)
    model = recognizer(tmp_path / "own.pt", 2, wider())
    missing, _ = initialise(model, tmp_path / "first.pt", language_model(tmp_path / "lm.pt"))
    assert model.speller is not None
    decoder = model.speller.decoder
    assert torch.equal(decoder.embed.weight[:, :4], first.decoder.embed.weight)
    assert {"speller.decoder.attention.query.weight"} <= set(missing)
    assert not {n for n in missing if n.startswith("speller.decoder.") and ".attention." not in n}


def test_a_language_model_that_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    recognizer(tmp_path / "first.pt", 1, tiny_options(phonemes=True, input_feeding=False))
    path = language_model(tmp_path / "lm.pt")
    for name, size in (("width", 15), ("embedding", 9)):
        model = recognizer(tmp_path / "own.pt", 2, wider(**{name: size}))
        wanted = WIDER[name]
        with pytest.raises(
            ConfigError, match=rf"language_model: .*decoder\.{name} must be {wanted}"
        ):
            initialise(model, tmp_path / "first.pt", path)
    model = recognizer(tmp_path / "own.pt", 2, wider())
    with pytest.raises(ConfigError, match=r"language_model: .* must be one LSTM layer"):
        initialise(model, tmp_path / "first.pt", language_model(path, layers=2))
    with pytest.raises(CheckpointError, match=r"lm\.pt: its characters are not those of"):
        initialise(model, tmp_path / "first.pt", language_model(path, tokenizer=Tokenizer("ab")))
