"""asr.audio: what can be read, at which rate and channel, in blocks, and what each kind of bad file says."""

import os
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr import audio, manifest
from asr._decoders import CHUNK_FRAMES
from asr.errors import AudioError, ConfigError

RATE = 16_000
SECONDS = 2.0
FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
NATIVE_RATES = {"opus": (8_000, 48_000), "mp3": (8_000, 22_050, 44_100, 48_000)}
RATES = (8_000, 22_050, 44_100, 48_000)
READABLE = [(s, rate) for s in FORMATS for rate in NATIVE_RATES.get(s, RATES)]


def tone(rate: int, hertz: float = 440.0, seconds: float = SECONDS) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def save(folder: Path, suffix: str, samples: np.ndarray, rate: int = RATE) -> Path:
    path = folder / f"clip.{suffix}"
    form, subtype = FORMATS[suffix]
    soundfile.write(path, samples, rate, format=form, subtype=subtype)
    return path


def peak_hertz(waveform: np.ndarray, rate: int = RATE) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(spectrum.argmax() * rate / len(waveform))


def cut(path: Path, fraction: float) -> Path:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * fraction)])
    return path


def the_error(path: Path) -> str:
    with pytest.raises(AudioError) as caught:
        audio.read(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("suffix", "rate"), READABLE)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_rate_and_channel_count_is_read(
    tmp_path: Path, suffix: str, rate: int, channels: int
) -> None:
    path = save(tmp_path, suffix, np.column_stack([tone(rate)] * channels), rate)

    waveform = audio.read(path)

    assert waveform.dtype == np.float32
    assert waveform.ndim == 1
    assert len(waveform) == pytest.approx(SECONDS * RATE, abs=0.01 * RATE)
    assert peak_hertz(waveform) == pytest.approx(440, abs=1)
    middle = waveform[RATE // 2 : -RATE // 2]
    assert np.sqrt(2 * np.mean(middle**2)) == pytest.approx(0.5, rel=0.05)
    described = audio.info(path)
    assert (described.sample_rate, described.channels) == (rate, channels)
    assert described.duration == pytest.approx(SECONDS, abs=0.01)
    assert described.format == "/".join(FORMATS[suffix])


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_integers_and_floats_have_the_same_full_scale(tmp_path: Path, subtype: str) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, tone(RATE), RATE, subtype=subtype)

    step = 1 / 128 if subtype == "PCM_U8" else 1 / 32_768
    np.testing.assert_allclose(audio.read(path), tone(RATE), atol=step)


def test_channels_are_mixed_or_chosen(tmp_path: Path) -> None:
    left, right = tone(RATE, 300), tone(RATE, 900)
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.column_stack([left, right]), RATE, subtype="FLOAT")

    np.testing.assert_array_equal(audio.read(path, channel=0), left)
    np.testing.assert_array_equal(audio.read(path, channel=1), right)
    np.testing.assert_allclose(audio.read(path), (left + right) / 2, atol=1e-7)
    for channel in (2, -1):
        with pytest.raises(AudioError, match=rf"clip\.wav: no channel {channel}: .*numbers 0 to 1"):
            audio.read(path, channel=channel)
    with pytest.raises(ConfigError, match="channel='left': must be 'mix' or"):
        audio.read(path, channel="left")


def test_resampling_keeps_speech_and_removes_what_would_alias() -> None:
    speech, whistle = tone(48_000, 1_000), tone(48_000, 12_000)

    kept = audio.resample(speech, 48_000, RATE)
    np.testing.assert_allclose(kept[200:-200], tone(RATE, 1_000)[200:-200], atol=1e-3)
    assert np.abs(audio.resample(whistle, 48_000, RATE)[200:-200]).max() < 1e-3
    assert audio.resample(speech, RATE, RATE) is speech


@pytest.mark.parametrize("rate", [RATE, 44_100])
@pytest.mark.parametrize("seconds", [0.7, 1.0, 30.0, 60.0])
def test_blocks_joined_equal_the_whole(tmp_path: Path, rate: int, seconds: float) -> None:
    length = CHUNK_FRAMES / rate * 2.5  # more than two of the pieces that are decoded at a time
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, round(length * rate)).astype(np.float32)
    path = save(tmp_path, "wav", noise, rate)

    parts = list(audio.blocks(path, seconds=seconds))

    np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), audio.read(path))
    size = round(seconds * RATE)
    assert [start for start, _ in parts] == [i * size / RATE for i in range(len(parts))]
    assert all(len(part) == size for _, part in parts[:-1])
    assert 0 < len(parts[-1][1]) <= size


def test_blocks_before_a_damage_are_all_that_could_be_read(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 25 * RATE).astype(np.float32)
    path = save(tmp_path, "flac", noise, RATE)
    whole = audio.read(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 4 // 5])
    for seconds in (5.0, 60.0):
        parts: list[np.ndarray] = []
        with pytest.raises(AudioError, match="truncated"):
            parts.extend(part for _, part in audio.blocks(path, seconds=seconds))
        read = np.concatenate(parts)
        assert len(read) > 15 * RATE
        np.testing.assert_array_equal(read, whole[: len(read)])


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_blocks_refuse_impossible_lengths(seconds: float) -> None:
    with pytest.raises(ConfigError, match=f"seconds={seconds}"):
        audio.blocks("unused.wav", seconds=seconds)


def test_blocks_of_an_hour_take_flat_memory(tmp_path: Path) -> None:
    path = tmp_path / "hour.wav"
    with soundfile.SoundFile(path, "w", 8_000, 1, subtype="PCM_U8") as file:
        for _ in range(60):
            file.write(tone(8_000, seconds=60))

    tracemalloc.start()
    try:
        seconds = sum(len(part) for _, part in audio.blocks(path, seconds=30)) / RATE
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert seconds == pytest.approx(3600)
    assert peak < 20e6  # the whole hour would be 230 MB


@pytest.mark.parametrize("rate", [RATE, 48_000])
def test_one_sample_is_an_error_that_names_the_file(tmp_path: Path, rate: int) -> None:
    path = save(tmp_path, "wav", np.array([0.25], np.float32), rate)
    assert f"too short: samples: 1, at {rate} Hz" in the_error(path)
    path = save(tmp_path, "wav", np.array([0.25, 0.5], np.float32))
    np.testing.assert_array_equal(audio.read(path), np.array([0.25, 0.5], np.float32))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_not_utf8_is_read(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9 1.wav")
    save(tmp_path, "wav", tone(RATE)).rename(odd)
    assert len(audio.read(odd)) == SECONDS * RATE


def test_missing_file_and_folder_are_one_clear_error(tmp_path: Path) -> None:
    assert "no such file" in the_error(tmp_path / "nothing.wav")
    assert "is a directory" in the_error(tmp_path)
    with pytest.raises(AudioError, match="no such file"):
        audio.info(tmp_path / "nothing.wav")


def test_unreadable_and_special_files_are_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path, "wav", tone(RATE))
    os.mkfifo(tmp_path / "pipe.wav")
    assert "not a regular file" in the_error(tmp_path / "pipe.wav")

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)  # root may read everything, so the refusal is staged
    assert "permission denied" in the_error(path)


@pytest.mark.parametrize("suffix", ["wav", "mp3", "m4a"])
def test_empty_file_is_one_clear_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"empty.{suffix}"
    path.touch()
    assert "empty file" in the_error(path)


def test_file_without_samples_is_one_clear_error(tmp_path: Path) -> None:
    path = save(tmp_path, "wav", np.zeros(0, np.float32))
    assert "has no samples" in the_error(path)
    with pytest.raises(AudioError, match="has no samples"):
        audio.info(path)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3", "txt"])
def test_file_that_is_not_audio_is_one_clear_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"notes.{suffix}"
    path.write_text("Dear diary, this is not audio at all.\n" * 50)
    assert "not audio" in the_error(path)


def test_raw_samples_are_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "clip.raw"
    path.write_bytes(bytes(1_000))
    assert "without a header" in the_error(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_samples_are_one_clear_error(tmp_path: Path, bad: float) -> None:
    samples = tone(RATE, seconds=1)
    samples[4_000] = bad
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.column_stack([tone(RATE, seconds=1), samples]), RATE, subtype="FLOAT")
    assert "NaN or infinite samples, the first at 0.250 s" in the_error(path)


@pytest.mark.parametrize("fraction", [0.95, 0.6, 0.1])
@pytest.mark.parametrize("suffix", FORMATS)
def test_truncated_file_is_one_clear_error(tmp_path: Path, suffix: str, fraction: float) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 5 * RATE).astype(np.float32)
    path = cut(save(tmp_path, suffix, noise), fraction)
    assert "truncated" in the_error(path)
    with pytest.raises(AudioError, match="truncated"):
        list(audio.blocks(path, seconds=1.0))


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000])
def test_wav_written_to_a_pipe_is_whole(tmp_path: Path, size: int) -> None:
    path = save(tmp_path, "wav", tone(RATE))
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = size.to_bytes(4, "little")
    path.write_bytes(content)
    assert len(audio.read(path)) == SECONDS * RATE


def test_flac_of_unstated_length_is_one_clear_error(tmp_path: Path) -> None:
    path = save(tmp_path, "flac", tone(RATE))
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)  # the 36 bits of STREAMINFO that count the samples
    path.write_bytes(content)
    assert "does not state its length" in the_error(path)


def test_mp3_without_a_xing_header_is_not_taken_for_truncated(tmp_path: Path) -> None:
    quiet_then_loud = np.concatenate(
        [np.zeros(3 * RATE, np.float32), tone(RATE), np.zeros(5 * RATE)]
    )
    path = tmp_path / "clip.mp3"
    options = {"format": "MP3", "bitrate_mode": "VARIABLE", "compression_level": 0.5}
    soundfile.write(path, quiet_then_loud, RATE, **options)
    content = path.read_bytes()
    assert b"Xing" in content[:100]
    second_frame = content.index(content[:2], 4)
    path.write_bytes(
        content[second_frame:]
    )  # its length is now a guess from the first frame's bit rate

    assert len(audio.read(path)) == pytest.approx(10 * RATE, abs=0.2 * RATE)
    assert audio.info(path).duration == pytest.approx(10, abs=0.2)


def test_other_containers_without_pyav_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)  # an import of it fails, installed or not
    named = tmp_path / "clip.m4a"
    named.write_bytes(b"\x00" * 100)
    unnamed = tmp_path / "recording"
    unnamed.write_bytes(b"\x1a\x45\xdf\xa3" + b"\x00" * 100)
    for path in (named, unnamed):
        assert "pip install av (wav, flac, ogg, opus, mp3 and aiff need nothing" in the_error(path)


def encode_with_pyav(path: Path, codec: str) -> Path:
    av = pytest.importorskip("av", reason="PyAV, the optional extra, is not installed")
    samples = tone(48_000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=48_000, layout="stereo")
        for start in range(0, len(samples), 960):
            part = samples[start : start + 960]
            frame = av.AudioFrame.from_ndarray(np.stack([part, 0 * part]), "fltp", "stereo")
            frame.rate, frame.pts = 48_000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "codec"), [("a.m4a", "aac"), ("a.webm", "libopus"), ("a.mp4", "aac")]
)
def test_other_containers_are_read_with_pyav(tmp_path: Path, name: str, codec: str) -> None:
    path = encode_with_pyav(tmp_path / name, codec)

    left = audio.read(path, channel=0)

    assert len(left) == pytest.approx(SECONDS * RATE, abs=0.05 * RATE)
    assert peak_hertz(left) == pytest.approx(440, abs=1)
    assert np.abs(audio.read(path, channel=1)[RATE // 2 : -RATE // 2]).max() < 0.01
    described = audio.info(path)
    assert (described.sample_rate, described.channels) == (48_000, 2)
    assert described.duration == pytest.approx(SECONDS, abs=0.05)


@pytest.mark.parametrize(("name", "codec"), [("a.m4a", "aac"), ("a.webm", "libopus")])
def test_bad_container_is_one_clear_error_with_pyav(tmp_path: Path, name: str, codec: str) -> None:
    message = the_error(cut(encode_with_pyav(tmp_path / name, codec), 0.5))
    assert "truncated" in message or "damaged" in message

    text = tmp_path / "text.mp4"
    text.write_text("not a film at all\n" * 100)
    assert "not audio, or damaged" in the_error(text)


@pytest.mark.parametrize("suffix", ["ogg", "opus", "mp3"])
def test_recordings_joined_in_one_file_are_all_read(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A radio's dump, or mp3s strung together: libsndfile alone stops at the end of the first, without a word."""
    pytest.importorskip("av", reason="PyAV, the optional extra, is not installed")
    first = save(tmp_path, suffix, tone(RATE, 300, seconds=2)).read_bytes()
    path = save(tmp_path, suffix, tone(RATE, 900, seconds=3))
    path.write_bytes(first + path.read_bytes())
    waveform = audio.read(path)
    assert len(waveform) / RATE == pytest.approx(5, abs=0.2)
    assert peak_hertz(waveform[RATE // 2 : RATE]) == pytest.approx(300, abs=5)
    assert peak_hertz(waveform[-RATE:]) == pytest.approx(900, abs=5)
    monkeypatch.setitem(sys.modules, "av", None)
    assert f"{path}: several recordings in one file need PyAV" in the_error(path)


def test_joined_recordings_of_other_rates_keep_their_speed(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV, the optional extra, is not installed")
    first = save(tmp_path, "mp3", tone(44_100, 300, seconds=2), 44_100).read_bytes()
    path = save(tmp_path, "mp3", tone(22_050, 900, seconds=3), 22_050)
    path.write_bytes(first + path.read_bytes())
    waveform = audio.read(path)
    assert len(waveform) / RATE == pytest.approx(5, abs=0.2)
    assert peak_hertz(waveform[-RATE:]) == pytest.approx(900, abs=5)


def test_samples_are_readable_and_as_long_as_their_manifest_says() -> None:
    utterances = manifest.read(Path(__file__).parents[1] / "data" / "samples" / "manifest.jsonl")
    assert len(utterances) >= 6
    for utterance in utterances:
        waveform = audio.read(utterance.audio)
        assert len(waveform) / RATE == pytest.approx(utterance.duration, abs=0.01)
        assert 2 <= utterance.duration <= 8
        assert 0.1 < np.abs(waveform).max() <= 1
        assert len(utterance.text.split()) > 5


def test_a_headers_length_is_told_without_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: pytest.fail("decoded"))
    soundfile.write(tmp_path / "clip.flac", tone(RATE), RATE)
    assert audio.stated_seconds(tmp_path / "clip.flac") == len(tone(RATE)) / RATE
    monkeypatch.setattr("asr._decoders._xing_end", lambda _: None)
    soundfile.write(tmp_path / "clip.mp3", tone(RATE), RATE)
    assert audio.stated_seconds(tmp_path / "clip.mp3") is None
