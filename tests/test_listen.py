"""Listening: texts at pauses and before them, from files and pipes, the microphone that is missing, Ctrl-C."""

import io
import signal
import sys
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from recognizers import tiny_trained, unmended
from typer.testing import CliRunner

from asr import checkpoint, listen
from asr.cli import app
from asr.cli.listen import until_interrupted
from asr.decoding import DecodingOptions, Search, decode
from asr.errors import AsrError, AudioError, ConfigError
from asr.listen import PARTIAL_BEAM, Heard, Listener, ListenOptions, from_file, from_pipe, paced
from asr.model import Memory, Seq2Seq
from asr.recognizer import Recognizer
from asr.tokenizer import Tokenizer

RATE = 16_000
Make = Callable[..., np.ndarray]


@pytest.fixture(autouse=True)
def _no_mending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr.assembly.describe", unmended)


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer(tiny_trained())


@pytest.fixture
def talk(make_waveform: Make) -> np.ndarray:
    quiet = np.zeros(RATE, np.float32)
    return np.concatenate([quiet, make_waveform(1.5), quiet, make_waveform(2.0, 200.0), quiet])


def in_blocks(waveform: np.ndarray, size: int = 1_600) -> Iterator[np.ndarray]:
    return (waveform[start : start + size] for start in range(0, len(waveform), size))


def all_of(listener: Listener, blocks: Iterator[np.ndarray]) -> list[Heard]:
    found = [heard for block in blocks for heard in listener.feed(block)]
    return found + list(listener.finish())


def finals(heard: list[Heard]) -> list[str]:
    return [one.text for one in heard if one.final]


def test_a_text_is_final_at_every_pause(recognizer: Recognizer, talk: np.ndarray) -> None:
    listener = Listener(recognizer, ListenOptions(partial=0))
    ends = []
    for number, block in enumerate(in_blocks(talk)):
        ends += [(0.1 * (number + 1), heard) for heard in listener.feed(block)]
    assert len(ends) == 2
    for (now, heard), end in zip(ends, (2.5, 5.5), strict=True):
        assert heard.final
        assert heard.text
        assert heard.segment.end == pytest.approx(end, abs=0.5)
        assert end + 0.4 < now < end + 1.1
    assert list(listener.finish()) == []


def test_partial_texts_take_a_narrower_beam(
    talk: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def decoded(model: Seq2Seq, memory: Memory, tokenizer: Tokenizer, search: Search) -> Any:
        sizes.append(search.options.beam_size)
        return decode(model, memory, tokenizer, search)

    monkeypatch.setattr("asr.recognizer.decode", decoded)
    wide = Recognizer(tiny_trained(), search=Search(DecodingOptions(beam_size=PARTIAL_BEAM + 2)))
    heard = all_of(Listener(wide, ListenOptions(partial=0.3)), in_blocks(talk))
    assert set(sizes) == {PARTIAL_BEAM, PARTIAL_BEAM + 2}
    assert sizes.count(PARTIAL_BEAM + 2) >= len(finals(heard)) > 0


def test_partial_texts_come_before_the_final_one_and_do_not_change_it(
    recognizer: Recognizer, talk: np.ndarray
) -> None:
    with_partial = all_of(Listener(recognizer, ListenOptions(partial=0.3)), in_blocks(talk))
    without = all_of(Listener(recognizer, ListenOptions(partial=0)), in_blocks(talk))
    assert finals(with_partial) == finals(without)
    kinds = "".join("f" if heard.final else "p" for heard in with_partial)
    assert kinds.startswith("p")
    assert kinds.count("f") == 2
    assert kinds.count("p") >= 4
    assert kinds.endswith("f")


def test_what_was_said_before_the_sound_ended_is_written_down(
    recognizer: Recognizer, talk: np.ndarray
) -> None:
    listener = Listener(recognizer, ListenOptions(partial=0))
    heard = [h for block in in_blocks(talk[: 5 * RATE]) for h in listener.feed(block)]
    assert len(finals(heard)) == 1
    assert len(finals(list(listener.finish()))) == 1


def test_latency_is_counted_from_speech_to_text(recognizer: Recognizer, talk: np.ndarray) -> None:
    now = 100.0
    listener = Listener(recognizer, ListenOptions(partial=0.3), clock=lambda: now)
    for block in in_blocks(talk):
        now += 0.1
        list(listener.feed(block))
    assert len(listener.latency.final) == 2
    assert all(0.5 < seconds < 1.0 for seconds in listener.latency.final)
    assert listener.latency.partial
    assert "after the end of speech" in str(listener.latency)
    assert str(Listener(recognizer).latency) == "nothing was said"


def wav(waveform: np.ndarray, channels: int = 1, rate: int = RATE) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat(waveform * 32767, channels).astype("<i2").tobytes())
    return buffer.getvalue()


def piped(data: bytes) -> np.ndarray:
    return np.concatenate(list(from_pipe(io.BufferedReader(io.BytesIO(data)), RATE)))


def test_a_pipe_gives_what_a_file_gives(talk: np.ndarray, tmp_path: Path) -> None:
    data = wav(talk)
    path = tmp_path / "talk.wav"
    path.write_bytes(data)
    expected = np.concatenate(list(from_file(path, RATE)))
    np.testing.assert_array_equal(expected, soundfile.read(path, dtype="float32")[0])
    np.testing.assert_allclose(piped(data), expected, atol=1e-6)
    np.testing.assert_allclose(piped(data[44:]), expected, atol=1e-6)  # without its header
    np.testing.assert_allclose(piped(wav(talk, channels=2)), expected, atol=1e-6)
    np.testing.assert_allclose(piped(data[44:-1]), expected[:-1], atol=1e-6)  # half a sample


def test_a_pipe_at_another_rate_is_resampled(talk: np.ndarray) -> None:
    found = piped(wav(talk[::2], rate=RATE // 2))
    assert abs(len(found) - len(talk)) <= 2  # the resampler's tail too


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "nothing came"),
        (b"RIFF\0\0\0\0junk", "not a plain wav stream"),
        (b"RIFF", "not a plain wav"),
    ]
    + [
        (head + b"\0" * 64, "not a wav stream or plain samples")
        for head in (b"OggS", b"fLaC", b"ID3")
    ],
)
def test_a_pipe_without_sound_is_one_clear_error(data: bytes, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        piped(data)


def test_paced_blocks_come_no_sooner_than_they_were_spoken(
    talk: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(listen.time, "monotonic", lambda: now)
    monkeypatch.setattr(listen.time, "sleep", sleep)
    for number, _ in enumerate(paced(in_blocks(talk), RATE)):
        assert now == pytest.approx(0.1 * (number + 1))
        now += 0.03  # the work on a block, which the next one need not wait for


@pytest.mark.parametrize("error", [ImportError("no"), OSError("PortAudio library not found")])
def test_a_microphone_that_cannot_be_read_is_one_clear_error(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Missing:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "sounddevice":
                raise error

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    with pytest.raises(ConfigError, match="files and pipes"):
        next(listen.from_microphone(RATE))


def test_the_microphone_gives_the_blocks_of_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        def __init__(self, **options: object) -> None:
            self.callback = options["callback"]

        def __enter__(self) -> None:
            self.callback(np.full((4, 1), 0.5, np.float32), 4, None, None)  # type: ignore[operator]

        def __exit__(self, *_: object) -> None:
            pass

    class Device:
        PortAudioError = RuntimeError
        InputStream = Stream

    monkeypatch.setitem(sys.modules, "sounddevice", Device)
    assert next(listen.from_microphone(RATE)).tolist() == [0.5] * 4

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no such device")

    for name in ("InputStream", "__enter__"):  # where it is opened, or where it is started
        with monkeypatch.context() as patch:
            patch.setattr(Device if name == "InputStream" else Stream, name, refuse)
            with pytest.raises(AsrError, match="no microphone can be opened: no such device"):
                next(listen.from_microphone(RATE))


@pytest.mark.parametrize("option", ["pause", "partial", "max_seconds"])
def test_options_out_of_range_are_refused(option: str) -> None:
    with pytest.raises(ConfigError, match=f"listen.{option} 99"):
        ListenOptions(**{option: 99.0})


@pytest.mark.parametrize("within_a_text", [False, True])
def test_ctrl_c_ends_with_the_last_text(
    recognizer: Recognizer, talk: np.ndarray, within_a_text: bool
) -> None:
    def spoken() -> Iterator[np.ndarray]:
        yield from in_blocks(talk[: 5 * RATE])  # ends within the second phrase
        if not within_a_text:
            signal.raise_signal(signal.SIGINT)
        pytest.fail("more sound was asked for")

    handler = signal.getsignal(signal.SIGINT)
    listener = Listener(recognizer, ListenOptions(partial=0))
    found = []
    for heard in until_interrupted(listener, spoken()):
        found.append(heard)
        if within_a_text and len(found) == 1:
            signal.raise_signal(signal.SIGINT)
    expected = all_of(Listener(recognizer, ListenOptions(partial=0)), in_blocks(talk[: 5 * RATE]))
    assert len(expected) == 2
    if within_a_text:
        assert found[0] == expected[0]
    else:
        assert found == expected
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_second_ctrl_c_ends_while_the_last_text_is_decoded(
    recognizer: Recognizer, talk: np.ndarray
) -> None:
    def spoken() -> Iterator[np.ndarray]:
        yield from in_blocks(talk[: 5 * RATE])
        signal.raise_signal(signal.SIGINT)  # while it waits for sound
        pytest.fail("more sound was asked for")

    listener = Listener(recognizer, ListenOptions(partial=0))
    texts = until_interrupted(listener, spoken())
    next(texts)
    next(texts)  # the last one, after the first Ctrl-C
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    texts.close()


def test_what_was_said_before_a_damage_is_written_down(
    recognizer: Recognizer, talk: np.ndarray
) -> None:
    def damaged() -> Iterator[np.ndarray]:
        yield from in_blocks(talk[: 5 * RATE])  # ends within the second phrase
        raise AudioError("talk.flac: damaged")

    found: list[Heard] = []
    texts = until_interrupted(Listener(recognizer, ListenOptions(partial=0)), damaged())
    with pytest.raises(AudioError, match=r"talk\.flac: damaged"):
        found.extend(texts)
    expected = all_of(Listener(recognizer, ListenOptions(partial=0)), in_blocks(talk[: 5 * RATE]))
    assert found == expected


def test_the_command_writes_a_line_at_every_pause(
    recognizer: Recognizer, talk: np.ndarray, tmp_path: Path
) -> None:
    checkpoint.save(tmp_path / "model.pt", recognizer.trained)
    (tmp_path / "talk.wav").write_bytes(wav(talk))
    arguments = ["listen", "--model", str(tmp_path / "model.pt"), "--input"]
    expected = finals(all_of(Listener(recognizer, ListenOptions(partial=0)), in_blocks(talk)))
    result = CliRunner().invoke(app, [*arguments, str(tmp_path / "talk.wav")])
    assert result.stdout.splitlines() == expected
    assert (result.stderr, result.exit_code) == ("", 0)
    piped = CliRunner().invoke(app, [*arguments, "-"], input=wav(talk))
    assert piped.stdout.splitlines() == expected
    missing = CliRunner().invoke(app, [*arguments, "no.wav"])
    assert missing.exit_code == 2
    assert missing.stderr == "error: no.wav: cannot be read: no such file or directory\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--paced"], "--paced: needs --input"),
        (["--microphone", "1", "--input", "talk.wav"], "--microphone, --input: only one"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    arguments: list[str], complaint: str
) -> None:
    result = CliRunner().invoke(app, ["listen", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert complaint in result.stderr
