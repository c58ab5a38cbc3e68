"""What a search reads: phonemes heard as they are, and as if other speakers had spoken."""

import pytest
import torch
from fakes import ToyWords

from asr.augment import warped
from asr.checkpoint import Trained
from asr.decoding import DecodingOptions, FirstPass, Search, decode
from asr.encoding import encode
from asr.features import FeatureOptions, LogMel
from asr.model import EncoderOptions, ModelOptions, Seq2Seq
from asr.recognizer import Recognizer
from asr.tokenizer import Tokenizer
from recipes.benchmark.hearing import hear

OPTIONS = FeatureOptions()


@pytest.fixture(scope="module")
def model() -> Seq2Seq:
    torch.manual_seed(0)
    sizes = ModelOptions(EncoderOptions(width=16), phonemes=True, phoneme_layers=1)
    return Seq2Seq(sizes, vocabulary=Tokenizer().size, n_mels=OPTIONS.n_mels).eval()


@torch.inference_mode()
def test_phonemes_are_the_mean_of_three_hearings(model: Seq2Seq) -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(2, 60, OPTIONS.n_mels, generator=generator)
    lengths = torch.tensor([60, 41])
    memory = encode(model, features, lengths, 0.08, OPTIONS)
    plain = encode(model, features, lengths, 0.0, OPTIONS)
    others = [warped(features, torch.tensor([factor]), OPTIONS) for factor in (0.92, 1.08)]
    heard = [model.hear(each, lengths)[0] for each in (features, *others)]
    found = model.phoneme_log_probs(memory)
    unwarped = model.phoneme_log_probs(plain)
    assert found is not None
    assert unwarped is not None
    for row, size in enumerate(found[1].tolist()):
        expected = sum(each[row, :size] for each in heard) / 3
        torch.testing.assert_close(found[0][row, :size], expected)
        torch.testing.assert_close(unwarped[0][row, :size], heard[0][row, :size])
        assert not torch.allclose(expected, heard[0][row, :size], atol=1e-3)
    torch.testing.assert_close(memory.values, plain.values)
    part = model.phoneme_log_probs(memory.select(torch.tensor([1])))
    assert part is not None
    torch.testing.assert_close(part[0][0], found[0][1])


def test_a_recognizer_and_what_fits_its_confidence_hear_as_often_as_the_first_pass_asks(
    model: Seq2Seq,
) -> None:
    words = {"a": (5,), "b": (6, 7), "c": (8,)}
    search = Search(
        DecodingOptions(beam_size=3, phoneme_weight=1.0),
        ngram=ToyWords(),
        pronunciations=words,
        first_pass=FirstPass(warp=0.06),
    )
    recognizer = Recognizer(Trained(model, Tokenizer(), OPTIONS, {}), search=search)
    waveform = torch.randn(16000, generator=torch.Generator().manual_seed(2)) / 20
    features = LogMel(OPTIONS).extract(waveform)[None]
    lengths = torch.tensor([features.shape[1]])
    once, thrice = (
        decode(model, memory, Tokenizer(), search)[0][0].score
        for memory in (encode(model, features, lengths, warp, OPTIONS) for warp in (0.0, 0.06))
    )
    found = recognizer.recognise([waveform])[0][0].score
    assert found == pytest.approx(thrice, abs=1e-4)
    assert found != pytest.approx(once, abs=1e-4)
    assert hear(recognizer, [waveform])[0].hypothesis.score == pytest.approx(found, abs=1e-4)
    assert Search().warp == 0.0
