"""Every layout gives the same three utterances; what cannot be used is named; nothing leaks into held-out data."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from asr import corpora, manifest
from asr.corpora.common import AudioFinder, hold_out, measure
from asr.errors import CorpusError
from asr.manifest import Utterance
from asr.text import normalise

MakeAudio = Callable[..., Path]
TEXTS = {"a1": "The first one.", "a2": "And the second.", "b1": "A third!"}


def _librispeech(root: Path, make_audio: MakeAudio) -> Path:
    for subset in ("train-clean-5", "test-other"):
        chapter = root / "LibriSpeech" / subset / "19" / "198"
        for number, text in enumerate(TEXTS.values()):
            make_audio(f"corpus/LibriSpeech/{subset}/19/198/19-198-000{number}.flac", seconds=0.5)
            with (chapter / "19-198.trans.txt").open("a") as file:
                file.write(f"19-198-000{number} {normalise(text).upper()}\n")
    return root


def _ljspeech(root: Path, make_audio: MakeAudio) -> Path:
    for id in TEXTS:
        make_audio(f"corpus/wavs/{id}.wav")
    lines = [f"{id}|no. 1 {text}|{text}\n" for id, text in TEXTS.items()]
    (root / "metadata.csv").write_text("".join(lines))
    return root


def _common_voice(root: Path, make_audio: MakeAudio) -> Path:
    for id in TEXTS:
        make_audio(f"corpus/clips/{id}.ogg")  # the table says mp3
    rows = [f"{id[0]}\t{id}.mp3\t{text}\t2\n" for id, text in TEXTS.items()]
    (root / "validated.tsv").write_text("client_id\tpath\tsentence\tup_votes\n" + "".join(rows))
    return root


def _vctk(root: Path, make_audio: MakeAudio) -> Path:
    for id, text in TEXTS.items():
        make_audio(f"corpus/wav48_silence_trimmed/{id[0]}/{id}_mic1.flac")
        if id != "b1":
            make_audio(f"corpus/wav48_silence_trimmed/{id[0]}/{id}_mic2.flac")
        (root / "txt" / id[0]).mkdir(parents=True, exist_ok=True)
        (root / "txt" / id[0] / f"{id}.txt").write_text(f"{text}\n")
    return root


def _kaldi_dir(root: Path, make_audio: MakeAudio) -> Path:
    paths = {id: make_audio(f"corpus/wav/{id}.wav") for id in TEXTS}
    (root / "wav.scp").write_text(f"a1 wav/a1.wav\na2\twav/a2.flac\nb1 {paths['b1']}\n")
    (root / "text").write_text("".join(f"{id} {text}\n" for id, text in TEXTS.items()))
    (root / "utt2spk").write_text("a1 a\na2 a\nb1 b\n")
    return root


def _folder(root: Path, make_audio: MakeAudio) -> Path:
    for id, text in TEXTS.items():
        make_audio(f"corpus/{id}.wav").with_suffix(".txt").write_text(
            f"\ufeff{text}\n", encoding="utf-8"
        )
    return root


def _csv_file(root: Path, make_audio: MakeAudio) -> Path:
    for id in TEXTS:
        make_audio(f"corpus/audio/{id}.wav")
    rows = [f'audio/{id}.wav,"{text}",{id[0]}\n' for id, text in TEXTS.items()]
    (root / "mine.csv").write_text("path,transcript,speaker\n" + "".join(rows))
    return root / "mine.csv"


LAYOUTS = [_ljspeech, _common_voice, _vctk, _kaldi_dir, _folder, _csv_file]
SPEAKERS = {"ljspeech": ["LJ"] * 3, "folder": [None] * 3}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "corpus"
    path.mkdir()
    return path


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__[1:])
def test_each_layout_gives_its_utterances(
    layout: Callable[..., Path], root: Path, make_audio: MakeAudio, tmp_path: Path
) -> None:
    corpus = layout.__name__[1:]
    summary = corpora.prepare(corpus, layout(root, make_audio), tmp_path / "out", name="my")
    assert summary.problems == []
    utterances = manifest.read(tmp_path / "out" / "my.jsonl")
    below = "audio/" if corpus == "csv_file" else ""  # an id is the path as the table has it
    assert [(u.id.removeprefix(below), u.text) for u in utterances] == list(TEXTS.items())
    assert [u.speaker for u in utterances] == SPEAKERS.get(corpus, ["a", "a", "b"])
    assert all(u.audio.is_file() and u.duration == pytest.approx(0.5, abs=0.02) for u in utterances)


def test_librispeech_gives_one_manifest_a_subset(
    root: Path, make_audio: MakeAudio, tmp_path: Path
) -> None:
    _librispeech(root, make_audio)
    for given in (root, root / "LibriSpeech"):
        summary = corpora.prepare("librispeech", given, tmp_path / "out")
        assert {s.name for s in summary.splits} == {"train-clean-5", "test-other"}
        utterances = manifest.read(tmp_path / "out" / "train-clean-5.jsonl")
        assert [(u.id, u.speaker) for u in utterances] == [
            (f"19-198-000{n}", "19") for n in range(3)
        ]
        assert utterances[0].text == "THE FIRST ONE"


def test_common_voice_keeps_the_official_splits(
    root: Path, make_audio: MakeAudio, tmp_path: Path
) -> None:
    _common_voice(root, make_audio)
    lines = (root / "validated.tsv").read_text().splitlines(keepends=True)
    (root / "train.tsv").write_text("".join(lines[:3]))
    (root / "dev.tsv").write_text(lines[0] + lines[3])
    summary = corpora.prepare("common_voice", root, tmp_path / "out")
    assert [(s.name, s.utterances) for s in summary.splits] == [("train", 2), ("dev", 1)]
    assert summary.splits[0].manifest.name == "common_voice-train.jsonl"
    with pytest.raises(CorpusError, match="has its own splits"):
        corpora.prepare("common_voice", root, tmp_path / "out", holdout=1)


def test_what_cannot_be_used_is_named_and_never_dropped_silently(
    root: Path, make_audio: MakeAudio, tmp_path: Path
) -> None:
    _folder(root, make_audio)
    (root / "not-audio.wav").write_text("this is no audio")
    (root / "not-audio.txt").write_text("said")
    make_audio("corpus/no-text.wav")
    make_audio("corpus/empty.wav").with_suffix(".txt").write_text(" \n")
    make_audio("corpus/latin.wav").with_suffix(".txt").write_bytes(b"caf\xe9")
    (root / "no-audio.txt").write_text("said")
    (root / "._a1.wav").write_text("left by an archiver")
    summary = corpora.prepare("folder", root, tmp_path / "out")
    assert [s.utterances for s in summary.splits] == [3]
    reasons = {problem.id: problem.reason for problem in summary.problems}
    assert set(reasons) == {"not-audio", "no-text", "empty", "latin", "no-audio"}
    assert reasons["no-text"] == "no transcript"
    assert reasons["empty"] == "empty transcript"
    assert "UTF-8" in reasons["latin"]
    assert summary.problems_file is not None
    listed = summary.problems_file.read_text().splitlines()
    assert len(listed) == 5
    assert any(str(root / "not-audio.wav") in line for line in listed)

    printed = io.StringIO()
    corpora.print_summary(summary, printed)
    assert "5 utterances cannot be used" in printed.getvalue()
    for id in reasons:
        (root / f"{id}.txt").unlink(missing_ok=True)
        (root / f"{id}.wav").unlink(missing_ok=True)
    assert corpora.prepare("folder", root, tmp_path / "out").problems_file is None
    assert not summary.problems_file.exists()


def test_missing_audio_and_transcripts_are_problems_in_every_layout(
    root: Path, make_audio: MakeAudio, tmp_path: Path
) -> None:
    _ljspeech(root, make_audio)
    (root / "wavs" / "a1.wav").rename(root / "wavs" / "c1.wav")
    reasons = {p.id: p.reason for p in corpora.prepare("ljspeech", root, tmp_path).problems}
    assert reasons == {"a1": "no audio file of this name", "c1": "no transcript"}

    _kaldi_dir(root, make_audio)
    (root / "wav.scp").write_text("a1 wav/a1.wav\nx wav/a2.wav\n")
    reasons = {p.id: p.reason for p in corpora.prepare("kaldi_dir", root, tmp_path).problems}
    assert reasons.pop("x") == "no transcript"
    assert set(reasons) == {"a2", "b1"}

    _vctk(root, make_audio)
    (root / "txt" / "a" / "a1.txt").unlink()
    reasons = {p.id: p.reason for p in corpora.prepare("vctk", root, tmp_path).problems}
    assert reasons == {"a1": "no transcript"}

    table = _csv_file(root, make_audio)
    table.write_text(table.read_text() + ",spoken,c\ngone.wav,spoken,c\n")
    problems = corpora.prepare("csv_file", table, tmp_path).problems
    assert {str(p).split(": ", 1)[1] for p in problems} == {
        "line 5: no audio path",
        "no audio file of this name",
    }


def test_vctk_takes_the_second_microphone_where_there_is_one(
    root: Path, make_audio: MakeAudio, tmp_path: Path
) -> None:
    corpora.prepare("vctk", _vctk(root, make_audio), tmp_path)
    names = [u.audio.name for u in manifest.read(tmp_path / "vctk.jsonl")]
    assert names == ["a1_mic2.flac", "a2_mic2.flac", "b1_mic1.flac"]


def test_files_of_one_name_in_two_folders_of_a_table_stay_apart(
    root: Path, make_audio: MakeAudio, tmp_path: Path
) -> None:
    for speaker in "xy":
        make_audio(f"corpus/{speaker}/1.wav")
    (root / "t.csv").write_text("audio,text\nx/1.wav,one\ny/1.wav,one\n")
    corpora.prepare("csv_file", root / "t.csv", tmp_path)
    assert [u.id for u in manifest.read(tmp_path / "t.jsonl")] == ["x/1", "y/1"]


def test_names_that_are_not_utf8_are_prepared_and_reported(
    root: Path, make_audio: MakeAudio, tmp_path: Path
) -> None:
    good, bad = root / os.fsdecode(b"t\xff.wav"), root / os.fsdecode(b"b\xff.wav")
    try:
        make_audio("plain.wav").rename(good)
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    bad.write_bytes(b"not audio")
    for path in (good, bad):
        path.with_suffix(".txt").write_text("a")
    summary = corpora.prepare("folder", root, tmp_path)
    assert [u.audio for u in manifest.read(tmp_path / "corpus.jsonl")] == [good]
    assert summary.problems_file is not None
    assert r"b\udcff.wav: not audio" in summary.problems_file.read_text(encoding="utf-8")


def test_manifests_have_the_whole_name_of_their_folder(
    tmp_path: Path, make_audio: MakeAudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_audio("v1.2/sub/a.wav").with_suffix(".txt").write_text("a")
    corpora.prepare("folder", tmp_path / "v1.2", tmp_path)
    assert (tmp_path / "v1.2.jsonl").exists()
    monkeypatch.chdir(tmp_path / "v1.2" / "sub")
    corpora.prepare("folder", "..", tmp_path / "out")
    assert (tmp_path / "out" / "v1.2.jsonl").exists()


def test_tables_keep_quotes_and_separators(
    root: Path, make_audio: MakeAudio, tmp_path: Path
) -> None:
    make_audio("corpus/a.wav")
    (root / "t.csv").write_text('audio;text\na.wav;"He said ""no; never"".\nTwice."\n')
    corpora.prepare("csv_file", root / "t.csv", tmp_path)
    assert manifest.read(tmp_path / "t.jsonl")[0].text == 'He said "no; never".\nTwice.'
    (root / "t.tsv").write_text('path\tsentence\na.mp3\t"Never" he said\n')
    corpora.prepare("common_voice", root / "t.tsv", tmp_path)
    assert manifest.read(tmp_path / "common_voice.jsonl")[0].text == '"Never" he said'


@pytest.mark.parametrize(
    ("corpus", "files", "message"),
    [
        ("nothing", {}, "allowed are librispeech"),
        ("librispeech", {}, "no LibriSpeech subset"),
        ("ljspeech", {}, "metadata.csv: No such file"),
        ("ljspeech", {"metadata.csv": "just words\n"}, "metadata.csv:1: 1 fields"),
        ("common_voice", {}, "no train.tsv or validated.tsv"),
        (
            "common_voice",
            {"validated.tsv": "file\ttext\na\tb\n"},
            "columns path and sentence are needed; found file",
        ),
        ("vctk", {}, "not VCTK's layout"),
        ("kaldi_dir", {"wav.scp": "a sph2pipe a.sph |\n", "text": "a A\n"}, "a: a command"),
        (
            "kaldi_dir",
            {"wav.scp": "a a.wav\n", "text": "a A\n", "segments": ""},
            "segments are not supported",
        ),
        ("folder", {}, "no usable utterance"),
        ("folder", {"a.txt": "text"}, "the first problem: .*a: no audio file"),
    ],
)
def test_a_wrong_corpus_is_one_clear_error(
    corpus: str, files: dict[str, str], message: str, root: Path, tmp_path: Path
) -> None:
    for name, text in files.items():
        (root / name).write_text(text)
    with pytest.raises(CorpusError, match=message) as caught:
        corpora.prepare(corpus, root, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("file_name,words\na.wav,b\n", "are needed; found file_name, words"),
        ("a\0", "needed|table"),
    ],
)
def test_a_wrong_table_is_one_clear_error(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(CorpusError, match=message):
        corpora.prepare("csv_file", tmp_path / "t.csv", tmp_path)
    with pytest.raises(CorpusError, match=r"gone\.csv: No such file"):
        corpora.prepare("csv_file", tmp_path / "gone.csv", tmp_path)


def test_rows_that_do_not_fit_their_table_are_named(make_audio: MakeAudio, tmp_path: Path) -> None:
    for name in "abcde":
        make_audio(f"{name}.wav")
    table = tmp_path / "t.csv"
    lines = ("audio,text", "a.wav,Well, I think so", 'b.wav,"Hello she said', "c.wav,two words")
    table.write_text("\n".join([*lines, 'd.wav,and "more', "e.wav,fine"]) + "\n")
    summary = corpora.prepare("csv_file", table, tmp_path / "out")
    assert [str(problem) for problem in summary.problems] == [
        f"{table}: line 2: 3 fields where the header has 2",
        f"{table}: lines 3 to 5: one row, as if a quotation mark were not closed",
    ]
    assert [u.id for u in manifest.read(tmp_path / "out" / "t.jsonl")] == ["e"]


def test_linked_folders_are_prepared_too(make_audio: MakeAudio, tmp_path: Path) -> None:
    for name in ("corpus/a.wav", "elsewhere/b.wav"):
        make_audio(name).with_suffix(".txt").write_text("said")
    (tmp_path / "corpus" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "corpus" / "back").symlink_to(tmp_path / "corpus")
    summary = corpora.prepare("folder", tmp_path / "corpus", tmp_path / "out")
    assert [s.utterances for s in summary.splits] == [2]


def test_of_two_files_with_one_name_the_lossless_one_is_taken(
    make_audio: MakeAudio, tmp_path: Path
) -> None:
    make_audio("f/a.mp3")
    make_audio("f/a.flac")
    finder = AudioFinder()
    assert finder.find(tmp_path / "f" / "a") == tmp_path / "f" / "a.flac"
    assert finder.find(tmp_path / "f" / "a.mp3") == tmp_path / "f" / "a.mp3"
    assert finder.find(tmp_path / "f" / "a.wav") == tmp_path / "f" / "a.flac"
    assert finder.find(tmp_path / "nowhere" / "a") is None
    (tmp_path / "f" / "b.rf64").touch()
    assert finder.find(tmp_path / "f" / "b.rf64") == tmp_path / "f" / "b.rf64"


def _utterances(count: int, *, speakers: int | None, sentences: int) -> list[Utterance]:
    return [
        Utterance(
            f"u{n:03}",
            Path("a.wav"),
            1.0,
            f"Text {n % sentences}",
            f"s{n % speakers}" if speakers else None,
        )
        for n in range(count)
    ]


@pytest.mark.parametrize(("amount", "expected"), [(0.1, 10), (10, 10), (20, 20)])
def test_held_out_data_shares_no_speaker_or_else_no_sentence(amount: float, expected: int) -> None:
    everything = _utterances(100, speakers=20, sentences=100)
    train, dev = hold_out(everything, amount, seed=0)
    assert len(dev) == expected
    assert not {u.speaker for u in train} & {u.speaker for u in dev}
    assert sorted(train + dev, key=lambda u: u.id) == everything

    # the same sentence in another spelling is the same sentence
    everything = _utterances(50, speakers=None, sentences=25)
    shouted = [Utterance(f"v{u.id}", u.audio, 1.0, u.text.upper() + "!") for u in everything]
    train, dev = hold_out(everything + shouted, amount, seed=0)
    assert 0 < len(dev) <= expected
    assert not {normalise(u.text) for u in train} & {normalise(u.text) for u in dev}


def test_the_seed_alone_decides_what_is_held_out() -> None:
    everything = _utterances(200, speakers=50, sentences=200)
    _, first = hold_out(everything, 20, seed=0)
    _, again = hold_out(everything[::-1], 20, seed=0)
    _, other = hold_out(everything, 20, seed=1)
    assert first == again
    assert first != other


@pytest.mark.parametrize("amount", [0, -1, 0.9999, 100, float("nan"), float("inf")])
def test_a_holdout_that_leaves_nothing_is_an_error(amount: float) -> None:
    with pytest.raises(CorpusError, match="holdout"):
        hold_out(_utterances(100, speakers=None, sentences=1), amount, seed=0)


def test_a_holdout_smaller_than_every_speaker_takes_the_smallest() -> None:
    everything = _utterances(100, speakers=2, sentences=100)[:-1]
    _, dev = hold_out(everything, 5, seed=0)
    assert {u.speaker for u in dev} == {"s1"}


def test_holdout_names_its_files_train_and_dev(
    root: Path, make_audio: MakeAudio, tmp_path: Path
) -> None:
    summary = corpora.prepare("ljspeech", _ljspeech(root, make_audio), tmp_path / "out", holdout=1)
    assert [s.manifest.name for s in summary.splits] == [
        "ljspeech-train.jsonl",
        "ljspeech-dev.jsonl",
    ]
    assert [s.utterances for s in summary.splits] == [2, 1]


def test_preparing_twice_writes_the_same_bytes(
    root: Path, make_audio: MakeAudio, tmp_path: Path
) -> None:
    _folder(root, make_audio)
    corpora.prepare("folder", root, tmp_path / "1")
    corpora.prepare("folder", root, tmp_path / "2")
    first = (tmp_path / "1" / "corpus.jsonl").read_bytes()
    assert first == (tmp_path / "2" / "corpus.jsonl").read_bytes()
    assert json.loads(first.splitlines()[0]).keys() == {"audio_filepath", "duration", "text", "id"}


def test_no_entries_measure_to_nothing() -> None:
    assert measure({"train": []}).splits == {"train": []}


@pytest.mark.real_speech
def test_the_real_corpora_have_no_problems(real_speech: Path, tmp_path: Path) -> None:
    assert corpora.prepare("kaldi_dir", real_speech / "speechocean762", tmp_path).problems == []
    summary = corpora.prepare("vctk", real_speech / "VCTK", tmp_path, holdout=0.05)
    assert summary.problems == []
    assert sum(split.utterances for split in summary.splits) == 378
