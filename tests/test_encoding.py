"""What a search reads: phonemes heard as they are, and as if other speakers had spoken."""

from typing import Any

import pytest
import torch
from fakes import ToyWords

from asr.augment import warped
from asr.checkpoint import Trained
from asr.decoding import DecodingOptions, FirstPass, Search, decode
from asr.encoding import encode, extract, speaking_rates
from asr.errors import ConfigError
from asr.features import FeatureOptions, LogMel
from asr.model import EncoderOptions, ModelOptions, Seq2Seq
from asr.phonemes import BLANK, SIZE
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


def _saying(model: Seq2Seq, monkeypatch: pytest.MonkeyPatch, *rates: float) -> None:
    """Let the model hear that many phonemes a second in the middle of a recording, and blanks before and after it."""

    def hear(features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        counts = (lengths + 3) // 4
        best = torch.full((len(lengths), int(counts.max())), BLANK)
        for row, (rate, count) in enumerate(zip(rates, counts.tolist(), strict=True)):
            gap = round(1 / rate / 0.04)
            said = best[row, 5 : count - 5 : gap]
            said[:] = BLANK + 1 + torch.arange(len(said)) % 2
            best[row, count:] = BLANK + 1  # past its end
        return torch.nn.functional.one_hot(best, SIZE).float(), counts

    monkeypatch.setattr(model, "hear", hear)


def _paced(rate: float) -> Seq2Seq:
    sizes = ModelOptions(EncoderOptions(width=16), phonemes=True, speaking_rate=rate)
    return Seq2Seq(sizes, vocabulary=Tokenizer().size, n_mels=OPTIONS.n_mels).eval()


def test_fast_speech_has_frames_at_shorter_distances_and_slow_speech_at_longer_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, log_mel = _paced(10.0), LogMel(OPTIONS)
    waveforms = [torch.randn(seconds * 16_000) for seconds in (4, 3, 5, 6)]
    _saying(model, monkeypatch, 12.5, 25.0, 8.3, 1.9)
    features = [log_mel.extract(waveform) for waveform in waveforms]
    batch = torch.nn.utils.rnn.pad_sequence(features, batch_first=True)
    lengths = torch.tensor([len(each) for each in features])
    assert speaking_rates(model, batch, lengths, 10.0) == pytest.approx(
        [12.5, 25.0, 8.3, 1.9], rel=0.12
    )
    found = extract(model, log_mel, waveforms)
    hops = [seconds * 1000 / 8 for seconds in found.frame_seconds]  # a memory step is 8 frames
    assert hops[0] == pytest.approx(10 * (10 / 12.5) ** 0.5, abs=0.25)
    assert hops[1] == 8.5  # as short as it may be
    assert hops[2] == pytest.approx(10 * (10 / 8.3) ** 0.5, abs=0.25)
    assert hops[3] == 11.5
    for hop, waveform, count in zip(hops, waveforms, found.lengths.tolist(), strict=True):
        assert count == LogMel(FeatureOptions(hop_ms=hop)).frames(len(waveform))
    expected = LogMel(FeatureOptions(hop_ms=hops[1])).extract(waveforms[1])
    torch.testing.assert_close(found.features[1, : len(expected)], expected)
    assert not found.features[1, len(expected) :].any()


def test_where_hardly_anything_is_heard_frames_are_as_usual(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, log_mel, waveform = _paced(10.0), LogMel(OPTIONS), torch.randn(16_000)
    _saying(model, monkeypatch, 0.5)  # one phoneme
    found = extract(model, log_mel, [waveform])
    assert found.frame_seconds == [model.frame_seconds]
    torch.testing.assert_close(found.features[0], log_mel.extract(waveform))


def test_a_model_without_a_speaking_rate_hears_all_speech_alike(
    model: Seq2Seq, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("heard twice")

    monkeypatch.setattr(model, "hear", refuse)
    waveforms = [torch.randn(16_000), torch.randn(24_000)]
    found = extract(model, LogMel(OPTIONS), waveforms)
    assert found.frame_seconds == [model.frame_seconds] * 2
    torch.testing.assert_close(found.features[1], LogMel(OPTIONS).extract(waveforms[1]))
    with pytest.raises(ConfigError, match=r"model\.speaking_rate: needs model\.phonemes = true"):
        ModelOptions(speaking_rate=11.0)
    with pytest.raises(ConfigError, match=r"model\.speaking_rate -1.*at least 0"):
        ModelOptions(phonemes=True, speaking_rate=-1.0)


def test_times_are_those_of_the_recording_whatever_the_distance_of_frames(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = _paced(10.0)
    _saying(model, monkeypatch, 25.0)
    recognizer = Recognizer(Trained(model, Tokenizer(), OPTIONS, {}))
    transcript = recognizer.transcribe(0.1 * torch.randn(32_000).numpy(), whole=True)
    attention = transcript.attention
    assert attention is not None
    assert attention.frame_seconds == pytest.approx(0.085 * 0.8)
    end = attention.weights.shape[1] * attention.frame_seconds
    assert end == pytest.approx(2.0, abs=attention.frame_seconds + 0.04)
