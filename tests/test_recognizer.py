"""The recognizer: files and waveforms to transcripts, alone and in batches, with what must be refused."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import soundfile
import torch
from recognizers import tiny_trained, unmended

import asr
from asr import checkpoint
from asr.assembly import Assembly
from asr.confidence import Calibration, Logistic, load_calibration
from asr.decoding import DecodingOptions, Search
from asr.errors import AsrError, AudioError, CheckpointError, ConfigError
from asr.lm_checkpoint import TrainedLm
from asr.model import Memory
from asr.model.lm import CharacterLm, LmOptions
from asr.pieces import cut
from asr.recognizer import Recognizer, load
from asr.recording import Reader
from asr.tokenizer import Tokenizer
from asr.transcript import Segment, Transcript, Word

Make = Callable[..., Path]
MakeWaveform = Callable[..., np.ndarray]


@pytest.fixture(autouse=True)
def _no_mending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr.assembly.describe", unmended)


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer(tiny_trained())


def test_a_recording_in_a_batch_has_the_transcript_that_it_has_alone(
    recognizer: Recognizer, make_waveform: MakeWaveform
) -> None:
    waveforms = [make_waveform(0.3 + 0.35 * n, pitch=110.0 + 40 * n) for n in range(4)]

    alone = [recognizer.transcribe(waveform) for waveform in waveforms]
    together = recognizer.transcribe_batch(waveforms)

    assert len({transcript.text for transcript in alone}) == 4
    for one, other in zip(alone, together, strict=True):
        assert isinstance(other, Transcript)
        assert (one.text, one.duration) == (other.text, other.duration)
        assert one.confidence == pytest.approx(other.confidence, abs=1e-5)
        torch.testing.assert_close(one.attention.weights, other.attention.weights)


def test_a_file_equals_its_waveform_whatever_the_type_of_its_samples(
    recognizer: Recognizer, make_audio: Make
) -> None:
    path = make_audio(seconds=0.8, pitch=200.0)
    samples, _ = soundfile.read(path, dtype="int16")
    expected = recognizer.transcribe(path)

    assert expected.audio == str(path)
    for waveform in (
        samples,
        samples.astype(np.int32) << 16,
        samples / 32768,
        torch.from_numpy(samples / np.float32(32768)),
    ):
        found = recognizer.transcribe(waveform)
        assert (found.text, found.confidence, found.audio) == (
            expected.text,
            expected.confidence,
            None,
        )


def test_a_waveform_at_another_rate_is_resampled_as_a_file_is(
    recognizer: Recognizer, make_audio: Make
) -> None:
    path = make_audio(seconds=0.8, sample_rate=44_100)
    samples, rate = soundfile.read(path, dtype="float32")
    from_file = recognizer.transcribe(path)
    from_waveform = recognizer.transcribe(samples, sample_rate=rate)

    assert from_file.duration == pytest.approx(0.8, abs=1e-3)
    assert from_waveform.text == from_file.text


def test_a_bad_file_is_an_error_in_its_place_and_the_others_are_done(
    recognizer: Recognizer, make_audio: Make, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.wav"
    damaged.write_bytes(b"not audio")
    good, other = make_audio("good.wav", 0.4), make_audio("other.flac", 0.9)

    results = recognizer.transcribe_batch([good, tmp_path / "missing.wav", damaged, other])

    assert [type(result) for result in results] == [
        Transcript,
        AudioError,
        AudioError,
        Transcript,
    ]
    assert "missing.wav" in str(results[1])
    assert "damaged.wav" in str(results[2])
    assert [r.text for r in results if isinstance(r, Transcript)] == [
        recognizer.transcribe(path).text for path in (good, other)
    ]


def test_a_file_that_turns_bad_between_its_header_and_its_end_harms_no_other(
    recognizer: Recognizer, make_audio: Make
) -> None:
    good, cut = make_audio("good.flac", 0.5), make_audio("cut.flac", 0.6)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])

    first, second = recognizer.transcribe_batch([good, cut])

    assert isinstance(first, Transcript)
    assert isinstance(second, AudioError)
    assert str(cut) in str(second)


def test_batches_hold_no_more_padded_seconds_than_asked_for(
    recognizer: Recognizer, make_waveform: MakeWaveform, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[list[int]] = []
    encode = recognizer.model.encode

    def watch(features: torch.Tensor, lengths: torch.Tensor) -> Memory:
        batches.append([(n - 1) * 160 + 512 for n in lengths.tolist()])
        return encode(features, lengths)

    monkeypatch.setattr(recognizer.model, "encode", watch)
    lengths = [0.3, 0.9, 0.5, 2.5, 0.4, 0.8]
    results = recognizer.transcribe_batch([make_waveform(s) for s in lengths], batch_seconds=2.0)

    assert [round(r.duration, 3) for r in results if isinstance(r, Transcript)] == lengths
    assert sum(len(batch) for batch in batches) == len(lengths)
    assert len(batches) < len(lengths)
    for batch in batches:
        assert max(batch) * len(batch) <= 2.0 * 16_000 or len(batch) == 1


@pytest.mark.parametrize(
    "waveform",
    [
        pytest.param(np.zeros(16_000, np.float32), id="digital silence"),
        pytest.param(np.full(16_000, 3e-4, np.float32), id="below -60 dBFS"),
        pytest.param(np.full(1, 0.5, np.float32), id="one sample"),
        pytest.param(np.full(1_000, 0.5, np.float32), id="shorter than a memory step"),
    ],
)
def test_nothing_is_invented_where_there_is_nothing_to_hear(
    recognizer: Recognizer, waveform: np.ndarray
) -> None:
    transcript = recognizer.transcribe(waveform)
    assert transcript.text == ""
    assert transcript.segments == ()
    assert transcript.confidence is None
    assert transcript.complete
    assert transcript.duration == len(waveform) / 16_000


def test_quiet_speech_in_a_long_silence_is_not_silence(
    recognizer: Recognizer, make_waveform: MakeWaveform
) -> None:
    speech = make_waveform(0.5)
    speech *= 0.003 / np.sqrt(np.mean(speech**2))  # -50 dBFS
    waveform = np.concatenate([np.zeros(80_000, np.float32), speech])
    assert recognizer.transcribe(waveform).text


def test_silence_in_a_batch_leaves_the_others_where_they_are(
    recognizer: Recognizer, make_waveform: MakeWaveform
) -> None:
    speech = make_waveform(0.6)
    silence, heard = recognizer.transcribe_batch([np.zeros(16_000, np.float32), speech])
    assert isinstance(silence, Transcript)
    assert silence.text == ""
    assert heard == recognizer.transcribe(speech)


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (np.zeros((2, 16_000), np.float32), r"2x16000"),
        (np.zeros(0, np.float32), "not empty"),
        (np.array([0.1, np.nan] * 800, np.float32), "NaN"),
        (np.zeros(1_600, np.uint8), "uint8"),
        (np.zeros(1_600, np.complex64), "complex64"),
    ],
)
def test_waveforms_that_cannot_be_meant_are_refused(
    recognizer: Recognizer, waveform: np.ndarray, message: str
) -> None:
    with pytest.raises(AudioError, match=message):
        recognizer.transcribe(waveform)


def test_confidence_is_the_mean_over_the_words(recognizer: Recognizer, talk: np.ndarray) -> None:
    transcript = recognizer.transcribe(talk)
    trusted = [word.confidence for word in transcript.words]
    assert len(trusted) > 1
    assert all(value is not None and 0 <= value <= 1 for value in trusted)
    assert transcript.confidence == pytest.approx(np.mean(trusted))
    for segment in transcript.segments:
        expected = np.mean([word.confidence for word in segment.words])
        assert segment.confidence == pytest.approx(expected)


def test_in_the_confidence_every_word_counts_alike_however_long_its_segment() -> None:
    several = Segment(0.0, 1.0, "a b c", tuple(Word(text, 0.0, 1.0, 0.9) for text in "abc"), 0.9)
    single = Segment(2.0, 3.0, "d", (Word("d", 2.0, 3.0, 0.1),), 0.1)
    job = Assembly(0, Reader(np.zeros(1), sample_rate=16_000, rate=16_000))
    job.segments += [several, single]
    assert job.transcript().confidence == pytest.approx((3 * 0.9 + 0.1) / 4)


def test_the_attention_has_a_row_a_character_and_covers_the_recording(
    recognizer: Recognizer, make_waveform: MakeWaveform
) -> None:
    attention = recognizer.transcribe(make_waveform(2.0, 120.0)).attention
    assert attention is not None
    rows, steps = attention.weights.shape
    assert len(attention.tokens) == rows > 0
    torch.testing.assert_close(attention.weights.sum(1), torch.ones(rows))
    assert steps * attention.frame_seconds == pytest.approx(2.0, abs=2 * attention.frame_seconds)


def test_a_text_that_was_cut_at_the_limit_says_so(make_waveform: MakeWaveform) -> None:
    waveform = make_waveform(0.5)
    endless = Recognizer(tiny_trained(eos_bias=-50.0)).transcribe(waveform)
    brief = Recognizer(tiny_trained(eos_bias=50.0)).transcribe(waveform)
    assert not endless.complete
    assert "cut" in [failure.kind for failure in endless.failures]
    assert (brief.complete, brief.text) == (True, "")


def test_recognise_gives_the_n_best_in_order(make_waveform: MakeWaveform) -> None:
    recognizer = Recognizer(tiny_trained(), search=Search(DecodingOptions(beam_size=4, nbest=3)))
    for hypotheses in recognizer.recognise([torch.from_numpy(make_waveform(s)) for s in (0.5, 1)]):
        assert len({hypothesis.tokens for hypothesis in hypotheses}) == 3
        scores = [hypothesis.score for hypothesis in hypotheses]
        assert scores == sorted(scores, reverse=True)


def test_save_then_load_gives_the_same_transcript(
    recognizer: Recognizer, make_audio: Make, tmp_path: Path
) -> None:
    path, model = make_audio(seconds=0.7), tmp_path / "model.pt"
    checkpoint.save(model, recognizer.trained)
    loaded = load(model)
    assert loaded.name is not None
    assert re.fullmatch("model-[0-9a-f]{8}", loaded.name)
    expected = replace(recognizer.transcribe(path), model=loaded.name)
    assert loaded.transcribe(path) == expected
    assert asr.transcribe(path, model=model) == expected


def test_load_takes_its_options(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "model.pt", tiny_trained())
    before = torch.get_num_threads()
    try:
        recognizer = load(tmp_path / "model.pt", beam_size=3, threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert recognizer.options == DecodingOptions(beam_size=3)
    assert not recognizer.model.training


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"beam_size": 0}, ConfigError, "beam_size is 0"),
        ({"threads": 0}, ConfigError, "threads is 0"),
        ({"device": "toaster"}, ConfigError, "'toaster'"),
        ({"model": "no-such.pt"}, CheckpointError, r"no-such\.pt"),
    ],
)
def test_load_refuses_what_it_cannot_do(
    options: dict[str, object], kind: type[AsrError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        load(**options)  # type: ignore[arg-type]


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no CUDA GPU"):
        load(device="cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="'cuda:1': torch finds 1 CUDA"):
        load(device="cuda:1")


def speech_with_pauses(make_waveform: MakeWaveform, *seconds: float, pause: float) -> np.ndarray:
    """Speech of these lengths, each with another voice, with silence around each."""
    parts = [np.zeros(round(pause * 16_000), np.float32)]
    for number, length in enumerate(seconds):
        parts += [make_waveform(length, pitch=110.0 + 15 * number), parts[0]]
    return np.concatenate(parts)


@pytest.fixture
def talk(make_waveform: MakeWaveform) -> np.ndarray:
    """Five stretches of speech, 23 s in all."""
    return speech_with_pauses(make_waveform, 1.0, 2.2, 0.7, 3.1, 1.6, pause=2.4)


def test_a_long_recording_is_its_pieces_with_times_of_the_whole(
    recognizer: Recognizer, talk: np.ndarray
) -> None:
    whole = recognizer.transcribe(talk)
    assert whole.duration == len(talk) / 16_000
    assert len(whole.segments) == 5
    assert whole.text == " ".join(segment.text for segment in whole.segments if segment.text)
    pieces = list(cut([talk], sample_rate=16_000))
    for segment, piece in zip(whole.segments, pieces, strict=True):
        alone = recognizer.transcribe(piece.waveform, whole=True)
        assert segment.text == alone.text
        for word, one in zip(segment.words, alone.words, strict=True):
            assert word.start == pytest.approx(piece.start + one.start)
        assert segment.start == min(piece.speech[0], segment.words[0].start)
        assert segment.end == max(piece.speech[1], segment.words[-1].end)
    starts = [piece.speech[0] for piece in pieces]
    assert starts == pytest.approx([2.4, 5.8, 10.4, 13.5, 19.0], abs=0.3)
    times = [time for word in whole.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert times[-1] <= whole.duration


def test_progress_tells_the_seconds_dealt_with_within_a_long_recording(
    recognizer: Recognizer, talk: np.ndarray, make_waveform: MakeWaveform
) -> None:
    told: list[tuple[int, float]] = []
    results = recognizer.transcribe_each(
        [talk, make_waveform(1.0)],
        batch_seconds=1.0,  # each piece alone, four seconds of them gathered
        on_progress=lambda number, seconds: told.append((number, seconds)),
    )
    next(results)
    seconds = [value for number, value in told if number == 0]
    assert len(seconds) == 5
    assert seconds == sorted(seconds)
    pieces = list(cut([talk], sample_rate=16_000))
    assert seconds[-1] == pytest.approx(pieces[-1].end)  # with the silence between them
    assert seconds[0] < pieces[2].end  # what has been read and not decoded does not count
    list(results)
    assert told[-1] == (1, pytest.approx(1.0, abs=0.1))


def test_batches_change_nothing_in_a_long_recording(
    recognizer: Recognizer, talk: np.ndarray
) -> None:
    usual = recognizer.transcribe(talk)
    for seconds in (0.1, 5.0):
        found = recognizer.transcribe_batch([talk[:48_000], talk], batch_seconds=seconds)[1]
        assert isinstance(found, Transcript)
        assert [s.text for s in found.segments] == [s.text for s in usual.segments]


def test_a_stream_gives_the_segments_of_the_transcript_while_it_reads(
    recognizer: Recognizer, talk: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "talk.wav"
    soundfile.write(path, talk, 16_000, subtype="FLOAT")
    expected = recognizer.transcribe(path).segments
    segments = recognizer.stream(path, batch_seconds=0.1)
    first = next(segments)
    assert isinstance(first, Segment)
    assert [s.text for s in (first, *segments)] == [s.text for s in expected]
    assert all(s.attention is None for s in expected)
    kept = recognizer.transcribe(path, attention=True).segments
    starts = [piece.start for piece in cut([talk], sample_rate=16_000)]
    assert [s.attention.start for s in kept if s.attention] == starts


def test_a_damaged_end_leaves_the_segments_before_it_to_a_stream(
    recognizer: Recognizer, talk: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "cut.flac"
    soundfile.write(path, np.tile(talk, 5), 16_000)
    path.write_bytes(path.read_bytes()[:-60_000])
    found: list[Segment] = []
    with pytest.raises(AudioError, match=r"cut\.flac"):
        found.extend(recognizer.stream(path))  # keeps what came before the error
    assert len(found) >= 4
    with pytest.raises(AudioError, match=r"cut\.flac"):
        recognizer.transcribe(path)


def test_a_damage_within_the_first_block_leaves_what_is_before_it_to_a_stream(
    recognizer: Recognizer, talk: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "cut.flac"
    noise = np.random.default_rng(1).normal(size=30 * 16_000).astype(np.float32) / 1000
    soundfile.write(path, np.concatenate([talk[: 20 * 16_000], noise]), 16_000)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1000])
    found: list[Segment] = []
    with pytest.raises(AudioError, match=r"cut\.flac"):
        found.extend(recognizer.stream(path))
    assert found


def test_a_whole_recording_is_decoded_as_it_is(
    recognizer: Recognizer, make_waveform: MakeWaveform, talk: np.ndarray
) -> None:
    noise = np.random.default_rng(1).normal(size=48_000).astype(np.float32) / 10
    assert recognizer.transcribe(noise).text == ""
    transcript = recognizer.transcribe(noise, whole=True)
    assert transcript.text != ""
    assert transcript.attention is not None
    assert transcript.attention.weights.shape[1] == -(-recognizer.features.frames(48_000) // 8)
    assert [(s.start, s.end) for s in transcript.segments] == [(0.0, 3.0)]
    long = np.tile(talk, 3)
    assert recognizer.transcribe(long, whole=True) == recognizer.transcribe(long)


def test_an_utterance_that_is_all_speech_is_one_piece_and_equals_the_whole(
    recognizer: Recognizer, make_waveform: MakeWaveform
) -> None:
    quiet = np.zeros(2_400, np.float32)
    waveform = np.concatenate([quiet, make_waveform(4.0), quiet])
    found, whole = recognizer.transcribe(waveform), recognizer.transcribe(waveform, whole=True)
    assert (found.text, found.words) == (whole.text, whole.words)


def test_threads_that_share_a_recognizer_get_what_one_alone_gets(
    recognizer: Recognizer, make_waveform: MakeWaveform
) -> None:
    waveforms = [make_waveform(0.5 + 0.2 * n, pitch=110.0 + 10 * n) for n in range(8)]
    alone = [recognizer.transcribe(waveform) for waveform in waveforms]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(recognizer.transcribe, waveforms * 2)) == alone * 2


def test_a_search_that_does_not_fit_the_model_is_refused_at_once() -> None:
    trained = tiny_trained()
    trained.model.ctc = None
    with pytest.raises(ConfigError, match="no CTC head"):
        Recognizer(trained, search=Search(DecodingOptions(ctc_weight=0.3)))


def test_greedy_search_can_be_asked_for(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "model.pt", tiny_trained())
    assert load(tmp_path / "model.pt", search="greedy").options == DecodingOptions()
    wide = Search(DecodingOptions(beam_size=2, length_bonus=0.5))
    found = load(tmp_path / "model.pt", search=wide, beam_size=3).options
    assert found == DecodingOptions(beam_size=3, length_bonus=0.5)


def test_greedy_search_has_a_calibration_of_its_own_where_the_model_has_one(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "model.pt", tiny_trained())
    row = Logistic(("mean_log_prob",), (-1.0,), (0.5,), (2.0,), 0.1)
    for name, bias in (("own", 0.1), ("greedy", 0.2)):
        Calibration(replace(row, bias=bias)).save(tmp_path / f"{name}.json")
    beside = tmp_path / "model.toml"
    beside.write_text('calibration = "own.json"\ngreedy_calibration = "greedy.json"\n')

    def found(search: Literal["greedy"] | None) -> Calibration | None:
        recognizer = load(tmp_path / "model.pt", search=search)
        assert recognizer.settings["calibration"] == getattr(recognizer.calibration, "name", None)
        return recognizer.calibration

    assert found(None) == load_calibration(tmp_path / "own.json")
    assert found("greedy") == load_calibration(tmp_path / "greedy.json")
    beside.write_text('calibration = "own.json"\n')
    assert found("greedy") == found(None)
    beside.write_text("")
    assert found("greedy") is found(None) is None


def test_hot_words_are_read_for_python_too(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("Zebulon\n", encoding="utf-8")
    recognizer = asr.load(hotwords=path)
    assert recognizer.search.hotwords is not None
    assert recognizer.search.hotwords.phrases == ("zebulon",)
    path.write_text("東京\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"names\.txt, line 1"):
        asr.load(hotwords=path)


def test_a_character_language_model_goes_to_the_recognizers_device() -> None:
    lm = TrainedLm(CharacterLm(Tokenizer().size, LmOptions(embedding=4, width=4)), Tokenizer(), {})
    search = Search(DecodingOptions(lm_weight=0.3), lm=lm)
    Recognizer(tiny_trained(), search=search, device="meta")
    assert lm.model.embed.weight.device.type == "meta"


def test_greedy_needs_no_language_model_of_the_default_search(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "model.pt", tiny_trained())
    (tmp_path / "model.toml").write_text('ngram = "gone.arpa"\n', encoding="utf-8")
    with pytest.raises(AsrError, match=r"gone\.arpa"):
        asr.load(tmp_path / "model.pt")
    assert asr.load(tmp_path / "model.pt", search="greedy").search == Search()
