"""Sounds, the steps that a speller reads, and the speller in a network."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from asr import checkpoint
from asr.checkpoint import Trained
from asr.decoding import DecodingOptions, decode
from asr.errors import ConfigError
from asr.features import FeatureOptions
from asr.model import LossWeights
from asr.model.sounds import LOWEST, SCALE, WIDTH, batch_of_sounds, sounds
from asr.phonemes import BLANK, SIZE
from asr.tokenizer import Tokenizer
from tests.models import (
    MELS,
    TOKENIZER,
    padded,
    random_features,
    random_tokens,
    tiny_model,
    tiny_options,
)


def frame(**probabilities: float) -> Tensor:
    """Log probabilities (P,) of a frame: those given as p3=0.5, the rest shares what is left."""
    given = {int(name.removeprefix("p")): value for name, value in probabilities.items()}
    rest = (1 - sum(given.values())) / (SIZE - len(given))
    return torch.tensor([given.get(phoneme, rest) for phoneme in range(SIZE)]).log()


QUIET = frame(p0=0.97)


def test_a_sound_is_the_mean_of_neighbouring_frames_with_one_best_label() -> None:
    heard = torch.stack([QUIET, QUIET, frame(p5=0.9), frame(p5=0.5), frame(p7=0.8), QUIET])
    first, second = sounds(heard)
    assert first[5] == pytest.approx((math.log(0.7) + LOWEST) / SCALE, abs=1e-5)
    assert second[7] == pytest.approx((math.log(0.8) + LOWEST) / SCALE, abs=1e-5)
    assert first[SIZE:].tolist() == pytest.approx([math.log1p(2), math.log1p(2)])
    assert second[SIZE:].tolist() == pytest.approx([0, math.log1p(1)])


def test_what_a_sure_blank_parts_is_two_sounds_and_a_doubtful_one_is_a_sound() -> None:
    doubtful = frame(p0=0.6, p9=0.3)
    found = sounds(torch.stack([frame(p5=0.9), QUIET, frame(p5=0.9), doubtful]))
    assert found[:, :SIZE].argmax(1).tolist() == [5, 5, BLANK]
    assert found[:, SIZE].tolist() == pytest.approx([0, math.log1p(1), 0])


def test_silence_is_one_sound_and_nothing_is_none() -> None:
    assert sounds(QUIET.repeat(4, 1)).shape == (1, WIDTH)
    assert sounds(QUIET.repeat(0, 1)).shape == (0, WIDTH)


def test_sounds_of_an_utterance_are_the_same_alone_and_in_a_batch() -> None:
    generator = torch.Generator().manual_seed(3)
    heard = torch.randn(2, 9, SIZE, generator=generator).mul(3).log_softmax(-1)
    together, counts = batch_of_sounds(heard, torch.tensor([9, 4]))
    for row, length in enumerate((9, 4)):
        torch.testing.assert_close(together[row, : counts[row]], sounds(heard[row, :length]))
    assert not together[1, counts[1] :].any()


def test_recordings_without_a_frame_have_no_sounds() -> None:
    found, counts = batch_of_sounds(torch.zeros(2, 3, SIZE), torch.tensor([0, 0]))
    assert found.shape == (2, 1, WIDTH)
    assert counts.tolist() == [0, 0]
    model = tiny_model(phonemes=True, speller=0.5)
    memory = model.encode(torch.zeros(1, 5, MELS), torch.tensor([0]))
    assert decode(model, memory, TOKENIZER, DecodingOptions())[0][0].tokens == ()


def test_a_step_is_the_mean_of_decoder_and_speller() -> None:
    model = tiny_model(phonemes=True, speller=0.25)
    assert model.speller is not None
    with torch.inference_mode():
        memory = model.with_speller(model.encode(*padded(random_features(40, 24))))
        assert memory.spelled is not None
        state, spelled = model.initial_state(memory), model.speller.initial_state(memory.spelled)
        plain = replace(state, spelled=None)
        for token in (TOKENIZER.sos, *TOKENIZER.encode("fade")):
            tokens = torch.full((2,), token)
            found, state = model.step(tokens, memory, state)
            ours, plain = model.decoder.step(tokens, memory, plain)
            theirs, spelled = model.speller.step(tokens, memory.spelled, spelled)
            expected = 0.75 * ours[:, Tokenizer.eos :] + 0.25 * theirs[:, Tokenizer.eos :]
            torch.testing.assert_close(found[:, Tokenizer.eos :], expected.log_softmax(-1))
            assert found[:, : Tokenizer.eos].isneginf().all()
            torch.testing.assert_close(state.attention, plain.attention)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_a_search_with_a_speller_finds_the_same_alone_and_in_a_batch(beam_size: int) -> None:
    model = tiny_model(phonemes=True, phoneme_layers=1, kind="location", speller=0.5)
    features, options = random_features(44, 30, 12), DecodingOptions(beam_size=beam_size)
    without = tiny_model(phonemes=True, phoneme_layers=1, kind="location")
    with torch.inference_mode():
        together = decode(model, model.encode(*padded(features)), TOKENIZER, options)
        for one, best in zip(features, together, strict=True):
            memory = model.encode(*padded([one]))
            assert decode(model, memory, TOKENIZER, options)[0][0].tokens == best[0].tokens
        plain = decode(without, without.encode(*padded(features)), TOKENIZER, options)
        memory = model.encode(*padded(features))
        left_out = decode(model, memory, TOKENIZER, replace(options, speller=False))
    assert [best[0].tokens for best in plain] != [best[0].tokens for best in together]
    assert [best[0].tokens for best in plain] == [best[0].tokens for best in left_out]


def test_a_speller_learns_alone_and_nothing_else_then_changes() -> None:
    model = tiny_model(phonemes=True, speller=0.5)
    model.learn_speller_alone()
    generator = torch.Generator().manual_seed(4)
    steps = [torch.randn(length, WIDTH, generator=generator) for length in (12, 7)]
    batch = (*padded(steps), *padded(random_tokens(4, 2), TOKENIZER.pad))
    losses = model(*batch, LossWeights(ctc=0.3, phonemes=0.5, speller_alone=True))
    assert losses.total == losses.attention + losses.guide > 0
    assert losses.ctc == losses.phonemes == 0
    losses.total.backward()
    learnt = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learnt == {name for name in model.state_dict() if name.startswith("speller.")}


def test_a_speller_is_in_its_models_file(tmp_path: Path) -> None:
    model = tiny_model(phonemes=True, speller=0.5)
    saved = Trained(model, TOKENIZER, FeatureOptions(n_mels=MELS), {})
    checkpoint.save(tmp_path / "model.pt", saved)
    loaded = checkpoint.load(tmp_path / "model.pt").model
    assert loaded.options == model.options
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name


def test_a_speller_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.speller: needs model.phonemes = true"):
        tiny_options(speller=0.5)
    with pytest.raises(ConfigError, match=r"model.speller.share 1.5: must be from 0 to 1"):
        tiny_options(phonemes=True, speller=1.5)
    options = tiny_options(phonemes=True, speller=0.5)
    assert options.speller is not None
    with pytest.raises(ConfigError, match=r"joins 4 sounds"):
        replace(options.speller, encoder=options.encoder)
