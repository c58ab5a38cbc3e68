"""`asr transcribe`: folders, channels, several formats, what is skipped, pictures, and how it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import soundfile
from fakes import arpa
from recognizers import tiny_trained
from typer.testing import CliRunner, Result

from asr import audio, bulk, checkpoint
from asr.cli import app
from asr.cli.transcribe import BATCH
from asr.recognizer import BATCH_SECONDS, Recognizer
from asr.transcript import Segment, Transcript, Word
from asr.writers import WRITERS

Make = Callable[..., Path]
Asr = Callable[..., Result]
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def asr(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Asr:
    """asr(argument, ..., input=bytes): `asr transcribe` with a tiny model."""
    monkeypatch.setenv("COLUMNS", "200")
    model = tmp_path / "model.pt"
    checkpoint.save(model, tiny_trained())

    def run(*arguments: str | Path, input: bytes | None = None) -> Result:
        whole = ["transcribe", *map(str, arguments), "--model", str(model)]
        result = CliRunner().invoke(app, whole, input=input)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def _names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _cells(result: Result) -> list[str]:
    """The row of the summary: files, failed, skipped, audio ..."""
    return [cell for cell in result.stderr.splitlines()[-1].split("  ") if cell.strip()]


def _stereo(path: Path, make_waveform: Callable[..., np.ndarray]) -> Path:
    left, right = make_waveform(0.6, pitch=100.0), make_waveform(0.6, pitch=240.0)
    soundfile.write(path, np.column_stack([left, right]), 16_000)
    return path


def test_a_folder_a_glob_and_a_manifest_become_files_that_keep_their_places(
    asr: Asr, make_audio: Make, tmp_path: Path
) -> None:
    make_audio("in/a.wav", 0.5)
    make_audio("in/mon/b.flac", 0.6)
    make_audio("more/c.wav", 0.5)
    make_audio("listed.wav", 0.4)
    manifest = tmp_path / "some.jsonl"
    manifest.write_text('{"audio_filepath": "listed.wav"}')
    out = tmp_path / "out"
    result = asr(tmp_path / "in", tmp_path / "more" / "*.wav", manifest, "--output-dir", out)
    assert result.exit_code == 0
    assert _names(out) == ["a.txt", "c.txt", "listed.txt", "mon/b.txt"]
    assert _cells(result)[0].strip() == "4 of 4"
    assert len(result.stdout.splitlines()) == 4


def test_the_standard_input_is_a_recording(asr: Asr, make_audio: Make, tmp_path: Path) -> None:
    path = make_audio("talk.flac", 0.7)
    piped = asr("-", input=path.read_bytes())
    assert (piped.exit_code, piped.stdout) == (0, asr(path).stdout)
    out = tmp_path / "out"
    assert asr("-", "--format", "json", "--output-dir", out, input=path.read_bytes()).exit_code == 0
    assert json.loads((out / "stdin.json").read_text("utf-8"))["audio"] == "stdin"


@pytest.mark.parametrize("content", [b"", b"not audio at all" * 10])
def test_a_standard_input_that_is_no_recording_is_named(asr: Asr, content: bytes) -> None:
    result = asr("-", input=content)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: stdin: ")


def test_all_formats_at_once_and_the_json_follows_the_schema(
    asr: Asr, make_audio: Make, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = asr(make_audio("talk.wav", 0.7), "--format", "all", "--output-dir", out)
    assert result.exit_code == 0
    assert _names(out) == sorted(f"talk.{name}" for name in WRITERS)
    schema = json.loads((files("asr") / "assets" / "transcript.schema.json").read_text("utf-8"))
    found = json.loads((out / "talk.json").read_text("utf-8"))
    jsonschema.validate(found, schema)
    assert found["text"] == (out / "talk.txt").read_text("utf-8").strip()


def test_formats_may_be_joined_by_commas_or_be_given_one_by_one(
    asr: Asr, make_audio: Make, tmp_path: Path
) -> None:
    talk, out = make_audio("talk.wav", 0.7), tmp_path / "out"
    arguments = ("--format", "srt,vtt", "--format", "json", "--output-dir", out)
    assert asr(talk, *arguments).exit_code == 0
    assert _names(out) == ["talk.json", "talk.srt", "talk.vtt"]


def test_finished_files_are_skipped_and_changed_or_incomplete_ones_done_again(
    asr: Asr, make_audio: Make, tmp_path: Path
) -> None:
    names = ("same.wav", "changed.wav", "incomplete.wav")
    for name in names:
        os.utime(make_audio(f"in/{name}", 0.5), (1e9, 1e9))
    run = ("--format", "txt,srt", "--output-dir", tmp_path / "out")
    assert asr(tmp_path / "in", *run).exit_code == 0
    for written in (tmp_path / "out").iterdir():
        written.write_text("by hand")
    os.utime(tmp_path / "in" / "changed.wav", (4e9, 4e9))
    (tmp_path / "out" / "incomplete.srt").unlink()

    result = asr(tmp_path / "in", *run)
    skipped = "1 recording is finished and skipped (--overwrite does them again): "
    assert f"{skipped}{tmp_path}/in/same.wav\n" in result.stderr
    assert [cell.strip() for cell in _cells(result)[:3]] == ["2 of 2", "0", "1"]
    kept = {path.name for path in (tmp_path / "out").iterdir() if path.read_text() == "by hand"}
    assert kept == {"same.txt", "same.srt"}

    os.utime(tmp_path / "in" / "changed.wav", (1e9, 1e9))
    result = asr(tmp_path / "in", *run)
    assert result.exit_code == 0
    skipped = "3 recordings are finished and skipped (--overwrite does them again): "
    listed = ", ".join(f"{tmp_path}/in/{name}" for name in sorted(names))
    assert result.stderr == f"{skipped}{listed}\n"
    assert asr(tmp_path / "in", *run, "--overwrite").exit_code == 0
    assert "by hand" not in (tmp_path / "out" / "same.txt").read_text("utf-8")


def test_what_another_model_or_other_settings_made_is_done_again_where_json_tells(
    asr: Asr, make_audio: Make, tmp_path: Path
) -> None:
    path, other = make_audio("in/talk.wav", 0.5), make_audio("in/other.wav", 0.5)
    for one in (path, other):
        os.utime(one, (1e9, 1e9))
    out, output = tmp_path / "out", tmp_path / "out" / "talk.json"
    run = (tmp_path / "in", "--format", "txt,json", "--output-dir", out)
    again = "are done again: the json is of another model or other settings: "
    assert asr(*run).exit_code == 0
    assert "2 recordings are finished and skipped" in asr(*run).stderr

    result = asr(*run, "--beam-size", "2")
    assert f"2 recordings {again}{other}, {path}\n" in result.stderr
    assert json.loads(output.read_text("utf-8"))["settings"]["beam_size"] == 2
    assert "2 recordings are finished and skipped" in asr(*run, "--beam-size", "2").stderr

    checkpoint.save(tmp_path / "model.pt", tiny_trained(5))
    before = json.loads(output.read_text("utf-8"))["model"]
    (out / "other.json").write_text("[]")  # nor does this one say that it was made by the model
    assert f"2 recordings {again}" in asr(*run, "--beam-size", "2").stderr
    assert json.loads(output.read_text("utf-8"))["model"] != before
    assert "text" in json.loads((out / "other.json").read_text("utf-8"))


def test_a_recording_of_the_same_name_does_not_pass_for_a_finished_one_nor_write_over_it(
    asr: Asr, make_audio: Make, tmp_path: Path
) -> None:
    monday, tuesday = make_audio("monday/talk.wav", 0.5), make_audio("tuesday/talk.wav", 1.5)
    output = tmp_path / "out" / "talk.json"
    run = ("--format", "json", "--output-dir", tmp_path / "out")
    assert asr(monday, *run).exit_code == 0
    for changed in (1e9, 4e9):  # older and newer than the JSON
        os.utime(tuesday, (changed, changed))
        result = asr(tuesday, *run)
        assert result.exit_code == 1
        assert f"error: {tuesday}: {output} is of another recording, {monday}: use another" in (
            result.stderr
        )
    assert json.loads(output.read_text("utf-8"))["audio"] == str(monday)
    assert asr(tuesday, *run, "--overwrite").exit_code == 0
    assert json.loads(output.read_text("utf-8"))["audio"] == str(tuesday)


def test_a_recording_of_the_same_name_and_length_does_not_pass_for_a_finished_one(
    asr: Asr, make_audio: Make, tmp_path: Path
) -> None:
    """As of a recorder that cuts every minute; another spelling of a name is no other recording."""
    monday, tuesday = make_audio("monday/001.wav", 0.5), make_audio("tuesday/001.wav", 0.5)
    run = ("--format", "json", "--output-dir", tmp_path / "out")
    assert asr(monday, *run).exit_code == 0
    for changed in (1e9, 4e9):
        os.utime(tuesday, (changed, changed))
        result = asr(tuesday, *run)
        assert result.exit_code == 1
        assert f"is of another recording, {monday}: use another" in result.stderr
    again = asr(tmp_path / "tuesday" / ".." / "monday" / "001.wav", *run)
    assert "1 recording is finished and skipped" in again.stderr


def test_a_relative_name_does_not_make_two_recordings_one(
    asr: Asr, make_audio: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_audio("monday/talk.wav", 0.5)
    os.utime(make_audio("tuesday/talk.wav", 1.5), (1e9, 1e9))
    run = ("talk.wav", "--format", "json", "--output-dir", tmp_path / "out")
    monkeypatch.chdir(tmp_path / "monday")
    assert asr(*run).exit_code == 0
    assert "1 recording is finished and skipped" in asr(*run).stderr
    monkeypatch.chdir(tmp_path / "tuesday")
    assert "is of another recording, talk.wav" in asr(*run).stderr


def test_the_json_comes_after_all_other_outputs(
    asr: Asr, make_audio: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(path := make_audio("talk.wav", 0.5), (1e9, 1e9))
    run = (path, "--format", "json,srt", "--attention-plot", "--output-dir", tmp_path / "out")
    assert asr(*run).exit_code == 0

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("asr.report.transcript_plot", interrupt)
        assert asr(*run, "--beam-size", "2").exit_code != 0
    assert "done again" in asr(*run, "--beam-size", "2").stderr  # the picture is still the first


def test_a_name_that_stands_for_nothing_beside_a_recording_does_not_change_the_format(
    asr: Asr, make_audio: Make, tmp_path: Path
) -> None:
    path = make_audio("talk.wav", 0.5)
    alone = asr(path, "--format", "json")
    beside = asr(path, tmp_path / "no-*.wav", "--format", "json")
    assert (alone.exit_code, beside.exit_code) == (0, 1)
    assert beside.stdout == alone.stdout
    assert "no-*.wav: no such file" in beside.stderr


def test_texts_alone_do_not_tell_what_made_them_and_are_finished(
    asr: Asr, make_audio: Make, tmp_path: Path
) -> None:
    os.utime(path := make_audio("talk.wav", 0.5), (1e9, 1e9))
    run = (path, "--format", "txt,srt", "--output-dir", tmp_path / "out")
    assert asr(*run).exit_code == 0
    (tmp_path / "model.pt").unlink()  # nor is the model loaded for it
    result = asr(*run, "--beam-size", "2")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("1 recording is finished and skipped")


def test_of_many_skipped_recordings_a_few_are_named(
    asr: Asr, make_audio: Make, tmp_path: Path
) -> None:
    for number in range(8):
        os.utime(make_audio(f"in/{number}.wav", 0.1), (1e9, 1e9))
    run = (tmp_path / "in", "--output-dir", tmp_path / "out")
    assert asr(*run).exit_code == 0
    (line,) = asr(*run).stderr.splitlines()
    assert line.startswith("8 recordings are finished")
    assert line.endswith(f"{tmp_path}/in/4.wav and 3 more")


def test_channels_are_transcribed_one_by_one(
    asr: Asr, make_waveform: Callable[..., np.ndarray], make_audio: Make, tmp_path: Path
) -> None:
    path = _stereo(tmp_path / "call.wav", make_waveform)
    recognizer = Recognizer(tiny_trained())
    left, right = (recognizer.transcribe(soundfile.read(path)[0][:, n]).text for n in (0, 1))
    out = tmp_path / "out"
    mono = make_audio("mono.wav", 0.5)
    result = asr(path, mono, "--channel", "split", "--format", "txt,json", "--output-dir", out)
    assert result.exit_code == 0
    txt = {name for name in _names(out) if name.endswith("txt")}
    assert txt == {"call.left.txt", "call.right.txt", "mono.txt"}
    assert (out / "call.left.txt").read_text("utf-8").strip() == left
    assert (out / "call.right.txt").read_text("utf-8").strip() == right
    found = json.loads((out / "call.right.json").read_text("utf-8"))
    assert (found["channel"], found["audio"]) == ("right", str(path))
    assert f"{path} (left): {left}\n" in result.stdout
    assert asr(path, "--channel", "right").stdout == right + "\n"
    assert asr(path, "--channel", "1").stdout == right + "\n"


def test_a_channel_alone_has_the_models_sample_rate(
    make_waveform: Callable[..., np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _stereo(tmp_path / "call.wav", make_waveform)
    trained = tiny_trained()
    recognizer = Recognizer(
        replace(trained, features=replace(trained.features, sample_rate=24_000))
    )
    (tmp_path / "scratch").mkdir()
    rates = []
    monkeypatch.setattr(audio, "save_channel", lambda *_, **given: rates.append(given))
    scratch = tmp_path / "scratch"
    planned = bulk.plan([str(path)], scratch, channel="left", recognizer=lambda: recognizer)
    list(bulk.run(recognizer, planned.sources, scratch))
    assert rates == [{"channel": 0, "sample_rate": 24_000}]


def test_a_channel_that_is_not_there_fails_that_file_alone(
    asr: Asr, make_waveform: Callable[..., np.ndarray], make_audio: Make, tmp_path: Path
) -> None:
    stereo, mono = _stereo(tmp_path / "call.wav", make_waveform), make_audio("mono.wav", 0.5)
    result = asr(mono, stereo, "--channel", "right", "--output-dir", tmp_path / "out")
    assert result.exit_code == 1
    assert _names(tmp_path / "out") == ["call.right.txt"]
    assert f"error: {mono} (right): no channel 1: it has 1 channel, number 0" in result.stderr


def test_a_picture_is_written_beside_the_text_and_counts_as_output(
    asr: Asr, make_audio: Make, tmp_path: Path
) -> None:
    path = make_audio("talk.wav", 0.7)
    two_samples = tmp_path / "short.wav"
    soundfile.write(two_samples, np.zeros(2), 16_000)
    run = (path, two_samples, "--attention-plot", "--output-dir", tmp_path / "out")
    result = asr(*run)
    assert result.exit_code == 0, result.stderr
    assert _names(tmp_path / "out") == ["short.png", "short.txt", "talk.png", "talk.txt"]
    assert (tmp_path / "out" / "talk.png").read_bytes().startswith(b"\x89PNG")
    assert "2 recordings are finished" in asr(*run).stderr
    (tmp_path / "out" / "talk.png").unlink()
    assert "1 recording is finished" in asr(*run).stderr


def test_the_command_decodes_as_much_together_as_python_does() -> None:
    assert BATCH.default == BATCH_SECONDS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--channel", "middle"), "channel 'middle' is not known; use mix, left, right, split or"),
        (("--format", "srt,json"), "--format: several formats need --output-dir"),
        (("--attention-plot",), "--attention-plot needs --output-dir"),
        (("--batch-size", "0"), "--batch-size is 0; it must be more than 0 seconds"),
        (("--batch-size", "nan"), "--batch-size is nan"),
        (("--output-dir", __file__), f"--output-dir {__file__}: File exists"),
        (("--engine", "steam"), "engine 'steam': allowed are torch, onnx"),
        (("--hotwords", "no-such.txt"), "no-such.txt: cannot read hot words"),
        (("--greedy", "--beam-size", "8"), "--greedy is beam size 1"),
        (("--max-line-width", "0"), "max_line_width is 0; it must be 1 or more"),
    ],
)
def test_options_that_do_not_fit_are_one_line_and_status_2(
    asr: Asr, arguments: tuple[str, ...], message: str
) -> None:
    result = asr("talk.wav", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {message}")


def _settings(asr: Asr, path: Path, *options: str | Path) -> dict[str, object]:
    return json.loads(asr(path, "--format", "json", *options).stdout)["settings"]


def test_the_models_default_search_is_used_and_explicit_options_win(
    asr: Asr, make_audio: Make, tmp_path: Path
) -> None:
    path = make_audio()
    (tmp_path / "model.toml").write_text("[decoding]\nbeam_size = 3\nctc_weight = 0.2\n")
    found = _settings(asr, path)
    assert (found["beam_size"], found["ctc_weight"]) == (3, 0.2)
    found = _settings(asr, path, "--beam-size", "2")
    assert (found["beam_size"], found["ctc_weight"]) == (2, 0.2)
    found = _settings(asr, path, "--greedy")
    assert (found["beam_size"], found["ctc_weight"]) == (1, 0.0)


def test_the_settings_name_engine_precision_and_what_the_search_adds(
    asr: Asr, make_audio: Make, tmp_path: Path
) -> None:
    path, words = make_audio(), tmp_path / "names.txt"
    plain = {"lm": None, "ngram": None, "hotwords": None, "engine": "torch", "int8": False}
    plain |= {"calibration": None}
    assert plain.items() <= _settings(asr, path).items()

    (tmp_path / "words.arpa").write_text(arpa("horse"))
    (tmp_path / "model.toml").write_text('ngram = "words.arpa"')
    words.write_text("alice")
    found = _settings(asr, path, "--hotwords", words, "--int8")
    assert re.fullmatch("words-[0-9a-f]{8}", str(found["ngram"]))
    assert re.fullmatch("names-[0-9a-f]{8}", str(found["hotwords"]))
    assert (found["lm"], found["engine"], found["int8"]) == (None, "torch", True)
    words.write_text("bob")
    assert _settings(asr, path, "--hotwords", words)["hotwords"] != found["hotwords"]
    assert _settings(asr, path, "--greedy")["ngram"] is None

    (tmp_path / "model.toml").write_text('ngram = "words.arpa"\n[decoding]\nngram_weight = 0')
    assert _settings(asr, path)["ngram"] is None


def test_hot_words_and_eight_bits_are_at_hand(asr: Asr, make_audio: Make, tmp_path: Path) -> None:
    path, words = make_audio("talk.wav", 0.7), tmp_path / "words.txt"
    words.write_text("Alice\nBob Smith\n")
    assert asr(path, "--hotwords", words).exit_code == 0
    assert asr(path, "--int8").exit_code == 0
    words.write_text("東京\n", encoding="utf-8")
    result = asr(path, "--hotwords", words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{words}, line 1" in result.stderr


def test_onnx_gives_the_same_text(asr: Asr, make_audio: Make) -> None:
    pytest.importorskip("onnxruntime", reason="the optional extra onnx is not installed")
    path = make_audio("talk.wav", 0.7)
    assert asr(path, "--engine", "onnx").stdout == asr(path).stdout
    assert _settings(asr, path, "--engine", "onnx")["engine"] == "onnx"


@pytest.mark.parametrize(
    ("needed", "options", "fitting"),
    [
        ("--max-line-width", ["--max-line-count", "2"], ["--max-line-width", "20"]),
        ("--format srt, vtt or lrc", ["--max-line-width", "20"], ["--format", "lrc"]),
        ("--format srt or vtt", ["--highlight-words"], ["--format", "vtt"]),
        ("--output-dir", ["--overwrite"], ["--output-dir", "out"]),
    ],
)
def test_an_option_that_does_nothing_beside_the_others_is_warned_of(
    asr: Asr,
    make_audio: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    needed: str,
    options: list[str],
    fitting: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    result = asr(make_audio(), *options)
    assert result.exit_code == 0
    assert f"warning: {options[0]} has no effect without {needed}" in result.stderr
    assert f"{options[0]} has no effect" not in asr(make_audio(), *options, *fitting).stderr


def test_subtitles_are_laid_out_as_asked(
    asr: Asr, make_audio: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (Word("good", 0.1, 0.3), Word("morning", 0.3, 0.8))
    heard = Transcript("good morning", (Segment(0, 1, "good morning", words),), 1.0)

    def told(self: Recognizer, audios: Iterable[Path], **_: object) -> Iterator[object]:
        yield from ((number, heard) for number, _ in enumerate(audios))

    monkeypatch.setattr(Recognizer, "transcribe_each", told)
    path = make_audio()
    highlighted = asr(path, "--format", "vtt", "--highlight-words").stdout
    assert "\n00:00:00.100 --> 00:00:00.300\n<u>good</u> morning\n" in highlighted
    narrow = asr(path, "--format", "srt", "--max-line-width", "8").stdout
    assert narrow == "1\n00:00:00,100 --> 00:00:00,800\ngood\nmorning\n"
    split = asr(path, "--format", "srt", "--max-line-width", "8", "--max-line-count", "1").stdout
    assert "2\n00:00:00,300 --> 00:00:00,800\nmorning\n" in split


def test_the_same_recording_from_several_names_is_done_once(
    asr: Asr, make_audio: Make, tmp_path: Path
) -> None:
    path = make_audio("in/talk.wav")
    result = asr(path, tmp_path / "in", tmp_path / "in" / "*.wav")
    assert len(result.stdout.splitlines()) == 1


def test_a_name_with_a_line_break_is_one_line(asr: Asr, make_audio: Make, tmp_path: Path) -> None:
    path = make_audio("two\nlines.wav")
    (tmp_path / "bad\n.wav").write_bytes(b"")
    result = asr(path, tmp_path / "bad\n.wav", "--output-dir", tmp_path / "out")
    assert result.stdout.startswith(rf"{tmp_path}/two\nlines.wav: ")
    assert len(result.stdout.splitlines()) == 1
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("error")]
    assert error == rf"error: {tmp_path}/bad\n.wav: empty file (0 bytes)"
    assert _names(tmp_path / "out") == ["two\nlines.txt"]


SLOWLY = """
import time
from asr.cli import main
from asr.recognizer import Recognizer
from asr.transcript import Segment, Transcript, Word
from asr.transcript import Transcript

def slowly(self, audios, **options):
    for number, _ in enumerate(audios):
        time.sleep(0.05)
        yield number, Transcript("text " * 10_000, duration=1.0)

Recognizer.transcribe_each = slowly
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent another way on Windows")
def test_ctrl_c_leaves_whole_files_and_tells_what_was_done(
    asr: Asr, make_audio: Make, tmp_path: Path
) -> None:
    paths = [make_audio(f"in/{n:03d}.wav", 0.01) for n in range(200)]
    out = tmp_path / "out"
    command = [sys.executable, "-c", SLOWLY, "transcribe", tmp_path / "in", "--output-dir", out]
    command += ["--model", tmp_path / "model.pt", "--format", "json"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while not (out.exists() and any(out.glob("*.json"))) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    *_, heads, row, last = stderr.splitlines()
    assert (heads.split()[0], last) == ("files", "interrupted")
    done = _names(out)
    assert 0 < len(done) < len(paths)
    assert row.strip().startswith(f"{len(done)} of 200")
    assert all(json.loads((out / name).read_text("utf-8"))["duration"] == 1 for name in done)
