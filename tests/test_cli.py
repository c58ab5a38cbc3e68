"""The command line: what it prints where, what it writes, and how it ends."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from recognizers import tiny_trained
from typer.testing import CliRunner, Result

from asr import checkpoint, manifest, ngram
from asr.cli import app
from asr.lm_checkpoint import TrainedLm, save_lm
from asr.model.lm import CharacterLm, LmOptions
from asr.recognizer import Recognizer
from asr.tokenizer import Tokenizer

Make = Callable[..., Path]
ROOT = Path(__file__).resolve().parents[1]
COMMANDS = sorted(
    [command.callback.__name__ for command in app.registered_commands if command.callback]
    + [group.name for group in app.registered_groups if group.name]
)


@pytest.fixture
def asr(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """asr(argument, ...): the command's result, with stdout and stderr apart and errors not hidden."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str | Path) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    checkpoint.save(path, tiny_trained())
    return path


def _text(model: Path, audio: Path) -> str:
    return Recognizer(checkpoint.load(model)).transcribe(audio).text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(asr: Callable[..., Result], command: str) -> None:
    result = asr(command, "--help")
    assert result.exit_code == 0
    assert re.search(rf"Example: .*asr {command}", result.stdout)
    assert re.search(r"^.*--help", result.stdout, re.MULTILINE)


def test_help_names_every_command_and_the_exit_statuses(asr: Callable[..., Result]) -> None:
    text = asr("--help").stdout
    assert len(COMMANDS) == 9
    assert all(re.search(rf"\b{command}\b", text) for command in COMMANDS)
    assert "1 some files failed" in text


def test_version_is_the_packages(asr: Callable[..., Result]) -> None:
    assert asr("--version").stdout == f"asr {version('asr')}\n"


def test_standard_streams_may_be_closed(
    asr: Callable[..., Result], model: Path, tmp_path: Path
) -> None:
    sample = ROOT / "data" / "samples" / "horse.opus"
    command = f"{sys.executable} -m asr transcribe --model {model}"
    run = partial(subprocess.run, shell=True, capture_output=True, text=True)
    found = run(f"{command} {sample} 2>&-")
    assert (found.returncode, found.stdout) == (0, _text(model, sample) + "\n")
    silent = run(f"{command} {sample} --output-dir {tmp_path} >&-")
    assert (silent.returncode, (tmp_path / "horse.txt").exists()) == (0, True)
    closed = run(f"{command} - <&-")
    assert closed.returncode == 2
    assert "-: the standard input is a terminal or closed" in closed.stderr


def test_a_single_text_goes_to_stdout_and_nothing_else(
    asr: Callable[..., Result], model: Path, make_audio: Make
) -> None:
    path = make_audio("talk.wav", 0.7)
    result = asr("transcribe", path, "--model", model)
    assert (result.exit_code, result.stdout) == (0, _text(model, path) + "\n")
    assert "error" not in result.stderr


def test_several_texts_are_named_and_in_the_order_given(
    asr: Callable[..., Result], model: Path, make_audio: Make
) -> None:
    paths = [make_audio(f"{n}.wav", 0.4 + 0.2 * ((n * 7) % 5)) for n in range(4)]
    result = asr("transcribe", *paths, paths[0], "--model", model)
    assert result.stdout.splitlines() == [f"{path}: {_text(model, path)}" for path in paths]


@pytest.mark.parametrize("format_", ["srt", "vtt", "tsv", "json"])
def test_a_single_recording_may_be_printed_in_any_format(
    asr: Callable[..., Result], model: Path, make_audio: Make, format_: str
) -> None:
    path = make_audio("talk.wav", 0.7)
    stdout = asr("transcribe", path, "--model", model, "--format", format_).stdout
    folder = path.parent / "out"
    asr("transcribe", path, "--model", model, "--format", format_, "--output-dir", folder)
    assert stdout == (folder / f"talk.{format_}").read_text(encoding="utf-8")
    assert _text(model, path) in stdout


def test_files_are_written_and_counted_with_the_real_time_factor(
    asr: Callable[..., Result], model: Path, make_audio: Make, tmp_path: Path
) -> None:
    paths = [make_audio("one.wav", 0.5), make_audio("two.flac", 1.0)]
    result = asr("transcribe", *paths, "--model", model, "--output-dir", tmp_path / "out")

    assert result.exit_code == 0
    for path in paths:
        written = tmp_path / "out" / f"{path.stem}.txt"
        assert written.read_text(encoding="utf-8") == _text(model, path) + "\n"
        assert f"{path}: {_text(model, path)}\n" in result.stdout
    heads, row = result.stderr.splitlines()[-2:]
    assert heads.split()[0] == "files"
    assert re.split(r"  +", row.strip())[:4] == ["2 of 2", "0", "0", "1.5 s"]


def test_bad_files_are_named_and_the_good_one_is_done(
    asr: Callable[..., Result], model: Path, make_audio: Make, tmp_path: Path
) -> None:
    good, missing, empty = make_audio("good.wav", 0.5), tmp_path / "no.wav", tmp_path / "empty.wav"
    empty.touch()
    result = asr(
        "transcribe", missing, good, empty, "--model", model, "--output-dir", tmp_path / "out"
    )

    assert result.exit_code == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.txt"]
    assert result.stdout == f"{good}: {_text(model, good)}\n"
    complaints = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert [str(missing) in complaints[0], str(empty) in complaints[1]] == [True, True]
    assert "1 of 3" in result.stderr.splitlines()[-1]


def test_two_recordings_of_one_name_do_not_overwrite_each_other(
    asr: Callable[..., Result], model: Path, make_audio: Make, tmp_path: Path
) -> None:
    first, second = make_audio("a/x.wav", 0.5, pitch=100), make_audio("b/x.flac", 0.9, pitch=300)
    asr("transcribe", first, second, "--model", model, "--output-dir", tmp_path / "out")
    texts = {path.name: path.read_text("utf-8") for path in (tmp_path / "out").iterdir()}
    assert texts == {
        "x.wav.txt": _text(model, first) + "\n",
        "x.flac.txt": _text(model, second) + "\n",
    }


def test_an_output_that_cannot_be_written_fails_alone(
    asr: Callable[..., Result], model: Path, make_audio: Make, tmp_path: Path
) -> None:
    blocked, fine = make_audio("blocked.wav", 0.5), make_audio("fine.wav", 0.6)
    (tmp_path / "out" / "blocked.txt").mkdir(parents=True)
    result = asr("transcribe", blocked, fine, "--model", model, "--output-dir", tmp_path / "out")
    assert result.exit_code == 1
    assert "blocked.txt: cannot be written" in result.stderr
    assert (tmp_path / "out" / "fine.txt").read_text("utf-8") == _text(model, fine) + "\n"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["blocked.txt", "fine.txt"]


def test_a_text_cut_at_the_limit_is_warned_of(
    asr: Callable[..., Result], make_audio: Make, tmp_path: Path
) -> None:
    checkpoint.save(tmp_path / "endless.pt", tiny_trained(eos_bias=-50.0))
    path = make_audio("talk.wav", 0.5)
    result = asr("transcribe", path, "--model", tmp_path / "endless.pt")
    assert result.exit_code == 0
    assert f"warning: {path}: cut at the length limit" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "no-such.pt"), "no-such.pt"),
        (
            ("--format", "doc"),
            "format 'doc' is not known; choose txt, srt, vtt, json, tsv, ctm, lrc",
        ),
        (("--beam-size", "0"), "beam_size is 0; it must be 1 or more"),
        (("--threads", "0"), "threads is 0; it must be 1 or more"),
        (("--device", "toaster"), "device 'toaster' is not known"),
        (("other.wav", "--format", "srt"), "--format srt: several recordings need --output-dir"),
    ],
)
def test_what_cannot_be_done_at_all_is_one_line_and_status_2(
    asr: Callable[..., Result], arguments: tuple[str, ...], message: str
) -> None:
    result = asr("transcribe", "talk.wav", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_damaged_model_is_named(asr: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "broken.pt").write_bytes(b"PK\x03\x04 not a model")
    result = asr("transcribe", "talk.wav", "--model", tmp_path / "broken.pt")
    assert result.exit_code == 2
    assert "broken.pt" in result.stderr


@pytest.mark.parametrize(
    "arguments", [("transcribe",), ("nonsense",), ("transcribe", "a.wav", "--colour", "red")]
)
def test_wrong_usage_is_status_2(asr: Callable[..., Result], arguments: tuple[str, ...]) -> None:
    result = asr(*arguments)
    assert result.exit_code == 2
    assert "Usage" in result.stderr


def test_evaluate_prints_the_rates_and_writes_a_line_an_utterance(
    asr: Callable[..., Result], model: Path, make_manifest: Make, tmp_path: Path
) -> None:
    path = make_manifest(["yes", "no", "maybe"], "dev.jsonl")
    rows = tmp_path / "rows.tsv"
    result = asr("evaluate", model, path, "--output", rows, "--json")
    assert result.exit_code == 0, result.stderr
    figures = json.loads(result.stdout)
    assert figures["utterances"] == 3
    assert figures["words"]["substitutions"] + figures["words"]["deletions"] == 3
    assert len(rows.read_text("utf-8").splitlines()) == 4

    table = asr("evaluate", model, path, "--limit", "2").stdout
    assert "2 scored" in table
    assert "WER" in table


def test_evaluate_ends_with_status_1_where_a_recording_is_unreadable(
    asr: Callable[..., Result], model: Path, make_manifest: Make
) -> None:
    path = make_manifest(["yes", "no"], "dev.jsonl")
    manifest.read(path)[0].audio.unlink()
    result = asr("evaluate", model, path)
    assert result.exit_code == 1
    assert "1 unreadable" in result.stdout
    (missing,) = [u.id for u in manifest.read(path) if not u.audio.exists()]
    result = asr("evaluate", model, path, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["unreadable"] == 1
    assert f"error: {missing}: " in result.stderr


def test_evaluate_refuses_an_output_it_cannot_write_before_it_begins(
    asr: Callable[..., Result], tmp_path: Path
) -> None:
    result = asr("evaluate", "no-such.pt", "no-such.jsonl", "--output", "rows.doc")
    assert result.exit_code == 2
    assert "rows.doc: must end in .tsv or .jsonl" in result.stderr
    (tmp_path / "file").touch()
    result = asr("evaluate", "no-such.pt", "no-such.jsonl", "--output", tmp_path / "file" / "r.tsv")
    assert result.exit_code == 2
    assert f"--output {tmp_path / 'file'}: " in result.stderr


def test_rates_are_printed_though_the_rows_cannot_be_written(
    asr: Callable[..., Result], model: Path, make_manifest: Make, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.tsv"
    rows.mkdir()
    result = asr("evaluate", model, make_manifest(["yes"], "test.jsonl", 1.0), "--output", rows)
    assert result.exit_code == 2
    assert "WER" in result.stdout
    assert str(rows) in result.stderr


def test_prepare_writes_manifests_and_checks_them(
    asr: Callable[..., Result], make_audio: Make, tmp_path: Path
) -> None:
    for number, text in enumerate(("yes it is", "no it is not")):
        make_audio(f"corpus/{number}.wav", 1.0 + number).with_suffix(".txt").write_text(text)
    out, report = tmp_path / "manifests", tmp_path / "report.json"
    result = asr(
        "prepare", "folder", tmp_path / "corpus", "--output", out, "--check", "--report", report
    )
    assert result.exit_code == 0, result.output
    assert [u.text for u in manifest.read(out / "corpus.jsonl")] == ["yes it is", "no it is not"]
    assert json.loads(report.read_text("utf-8"))["ok"] is True


def test_prepare_names_what_it_had_to_leave_out(
    asr: Callable[..., Result], make_audio: Make, tmp_path: Path
) -> None:
    make_audio("corpus/good.wav", 1.0).with_suffix(".txt").write_text("yes")
    (tmp_path / "corpus" / "bad.wav").write_bytes(b"not audio")
    (tmp_path / "corpus" / "bad.txt").write_text("no")
    result = asr("prepare", "folder", tmp_path / "corpus", "--output", tmp_path / "manifests")
    assert result.exit_code == 1
    assert "bad.wav" in result.stdout


def test_check_looks_at_manifests_that_are_there(
    asr: Callable[..., Result], make_manifest: Make
) -> None:
    fine = make_manifest(["yes it is", "no it is not"], "fine.jsonl", 1.0)
    assert asr("prepare", "--check", fine).exit_code == 0
    faulty = make_manifest(["yes", "!"], "faulty.jsonl", 1.0)
    result = asr("prepare", "--check", fine, faulty)
    assert result.exit_code == 1
    assert "faulty-1" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("librispeech",), "CORPUS and its ROOT"),
        (("librispeech", "data"), "needs --output"),
        (("klingon", "data", "--output", "out"), "'klingon' is unknown"),
        (("vctk", "data", "--output", "out", "--download"), "vctk has no public archive"),
        (
            ("librispeech", "data", "--output", "out", "--download"),
            "librispeech needs --subset: choose from train-clean-100",
        ),
        (
            ("librispeech", "data", "--output", "out", "--download", "--subset", "x"),
            "no subset 'x' of librispeech: choose from train-clean-100",
        ),
        (("vctk", "data", "--output", "out", "--report", "r.json"), "--check"),
        (("vtck", "data", "--output", "out", "--check"), "'vtck' is no CORPUS"),
        (("librispeech", "data", "--output", "out", "--subset", "dev-clean"), "--download"),
        (("--check", "no-such.jsonl"), "no-such.jsonl"),
    ],
)
def test_prepare_refuses_what_it_cannot_do(
    asr: Callable[..., Result], arguments: tuple[str, ...], message: str
) -> None:
    result = asr("prepare", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_prepare_downloads_the_subsets_from_the_mirror(
    asr: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fetched(name: str, root: str, *, mirror: str | None) -> Path:
        calls.append((name, root, mirror))
        return tmp_path / "LibriSpeech"

    monkeypatch.setattr("asr.corpora.download.download", fetched)
    arguments = ["--download", "--subset", "dev-clean-2", "--subset", "train-clean-5"]
    result = asr(
        "prepare", "librispeech", "data", "--output", tmp_path, *arguments, "--mirror", "http://m"
    )
    assert calls == [("dev-clean-2", "data", "http://m"), ("train-clean-5", "data", "http://m")]
    assert result.exit_code == 2  # there is no corpus in the folder that this download gave
    assert str(tmp_path / "LibriSpeech") in result.stderr


def test_info_tells_the_sizes_and_the_training(asr: Callable[..., Result], model: Path) -> None:
    text = asr("info", model).stdout
    assert "memory step: 80 ms" in text
    assert "training.steps: 7" in text


def test_info_tells_what_a_language_model_is(asr: Callable[..., Result], tmp_path: Path) -> None:
    words = ngram.build(["the horse", "the house"], ngram.NgramOptions(order=2))
    for name in ("words.ngram", "words.arpa"):
        ngram.save(tmp_path / name, words)
        lines = asr("info", tmp_path / name).stdout.splitlines()
        assert lines[1].startswith("kind: word n-gram language model")
        assert lines[2:] == ["order: 2", "1-grams: 6", f"2-grams: {words.counts[1]}"]

    lm = CharacterLm(Tokenizer().size, LmOptions(embedding=4, width=8))
    save_lm(tmp_path / "lm.pt", TrainedLm(lm, Tokenizer(), {"steps": 3}))
    text = asr("info", tmp_path / "lm.pt").stdout
    assert "kind: language model of characters, to be named as lm" in text
    assert "model.width: 8" in text
    assert "training.steps: 3" in text


def test_info_tells_what_an_exported_model_is(
    asr: Callable[..., Result], model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime", reason="the optional extra onnx is not installed")
    assert asr("export", model, "--output", tmp_path / "exported", "--int8").exit_code == 0
    lines = asr("info", tmp_path / "exported").stdout.splitlines()
    assert lines[1:4] == ["kind: recognizer", "engine: onnx", "int8: True"]


@pytest.mark.parametrize("name", ["none.pt", "words.arpa", "garbage.pt"])
def test_info_of_no_model_is_one_line(
    asr: Callable[..., Result], tmp_path: Path, name: str
) -> None:
    if name != "none.pt":
        (tmp_path / name).write_bytes(b"no model")
    result = asr("info", tmp_path / name)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert name in line


def test_average_writes_the_mean(asr: Callable[..., Result], tmp_path: Path) -> None:
    paths = [tmp_path / f"{seed}.pt" for seed in (1, 2)]
    trained = [tiny_trained(seed) for seed in (1, 2)]
    for path, one in zip(paths, trained, strict=True):
        checkpoint.save(path, one)
    result = asr("average", *paths, "-o", tmp_path / "mean.pt")
    assert result.exit_code == 0
    mean = checkpoint.load(tmp_path / "mean.pt").model.state_dict()
    for name, weight in mean.items():
        first, second = (one.model.state_dict()[name] for one in trained)
        torch.testing.assert_close(weight, (first + second) / 2)


def test_train_passes_on_recipe_overrides_and_options(
    asr: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[training]\nseed = 5\nhours = 1.0\n")
    calls = []

    def train(output: Path, **options: object) -> Path:
        calls.append((output, options))
        return output / "model.pt"

    monkeypatch.setattr("asr.training.train", train)
    result = asr("train", recipe, "--set", "training.clip=3", "--hours", "2", "--no-resume")
    assert result.stdout == f"{Path('runs') / 'mine' / 'model.pt'}\n"
    ((output, options),) = calls
    training = options["training"]
    assert (training.seed, training.clip, training.hours) == (5, 3.0, 2.0)
    assert (output, options["resume"], options["device"]) == (Path("runs/mine"), False, "cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("no-such.toml",), "no-such.toml: cannot read recipe"),
        (("{recipe}", "--set", "training.sed=1"), "unknown option training.sed"),
        (("{recipe}", "--set", "seed"), "section.key=value"),
    ],
)
def test_train_refuses_what_it_cannot_read(
    asr: Callable[..., Result], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.touch()
    result = asr("train", *(argument.format(recipe=recipe) for argument in arguments))
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_file_name_that_is_not_utf8_is_printed_and_written(
    model: Path, make_audio: Make, tmp_path: Path
) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/t\xff.wav"))
    try:
        make_audio("plain.wav", 0.5).rename(path)
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    command = [sys.executable, "-m", "asr", "transcribe", path, tmp_path / "no.wav"]
    command += ["--model", model, "--format", "json", "--output-dir", tmp_path / "out"]
    result = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1, result.stderr
    assert r"t\udcff.wav: " in result.stdout
    written = Path(os.fsdecode(os.fsencode(tmp_path) + b"/out/t\xff.json"))
    assert json.loads(written.read_text(encoding="utf-8"))["audio"] == str(path)
