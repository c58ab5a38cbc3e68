"""The doctor finds each planted fault by name, and finds nothing in sound data."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr import doctor, manifest
from asr.doctor import CHECKS, DoctorOptions, Report, check, check_manifests
from asr.errors import ManifestError
from asr.manifest import Utterance

NO_AUDIO = DoctorOptions(open_audio=False)


def _utterance(
    id: str = "a", text: str = "hello there", duration: float = 1.0, **options: str
) -> Utterance:
    return Utterance(id, Path(f"/{id}.wav"), duration, text, **options)


def _found(report: Report) -> list[tuple[str, str, str]]:
    return [(finding.check, finding.manifest, finding.id) for finding in report.findings]


def test_sound_data_passes_every_check(make_manifest: Callable[..., Path]) -> None:
    train = make_manifest(("one two", "three"), "train.jsonl", seconds=0.8)
    report = check_manifests([train])
    assert report.findings == []
    assert report.ok
    (figures,) = report.manifests
    assert (figures.name, figures.utterances, figures.speakers) == ("train", 2, 2)
    assert figures.sample_rates == {16_000: 2}
    assert (figures.min_seconds, figures.median_seconds, figures.max_seconds) == pytest.approx(
        (0.8, 0.85, 0.9)
    )
    assert figures.hours == pytest.approx(1.7 / 3600)


PLANTED = {
    "empty text": _utterance(text="?!"),
    "speaking rate": _utterance(text="a", duration=3.0),
    "too long": _utterance(text="many words " * 40, duration=40.0),
    "wrong duration": _utterance(duration=0.0),
}


@pytest.mark.parametrize(("name", "utterance"), PLANTED.items())
def test_a_planted_fault_is_found_by_name(name: str, utterance: Utterance) -> None:
    report = check({"train": [_utterance("good"), utterance]}, options=NO_AUDIO)
    assert _found(report) == [(name, "train", "a")]
    assert report.ok == (CHECKS[name][0] == doctor.WARNING)
    assert report.count(name) == 1


def test_letters_of_other_scripts_are_lost_and_accents_are_not() -> None:
    report = check(
        {"train": [_utterance("a", "café über"), _utterance("b", "hello Жук")]}, options=NO_AUDIO
    )
    assert _found(report) == [("lost letters", "train", "b")]
    assert "Ж к у" in report.findings[0].detail


def test_an_alphabet_without_a_letter_names_it() -> None:
    options = replace(NO_AUDIO, alphabet="abcdefghijklmnopqrstuvwx '")
    report = check({"train": [_utterance(text="lazy")]}, options=options)
    assert [(f.check, f.detail[:3]) for f in report.findings] == [("outside alphabet", "y z")]
    assert report.manifests[0].raw_characters == {"y": 1, "z": 1}


@pytest.mark.parametrize(("text", "fits"), [("abcde", True), ("aabcd", False), ("abcdef", False)])
def test_ctc_needs_a_frame_a_letter_and_a_blank_between_equal_ones(text: str, fits: bool) -> None:
    options = replace(NO_AUDIO, max_characters_per_second=100)
    report = check({"train": [_utterance(text=text, duration=0.2001)]}, options=options)
    assert _found(report) == ([] if fits else [("too few frames", "train", "a")])


def test_characters_outside_the_alphabet_are_counted_as_written() -> None:
    report = check(
        {"train": [_utterance(text="Hi, you! Yes, 5."), _utterance("b", "no, no")]},
        options=NO_AUDIO,
    )
    assert report.manifests[0].raw_characters == {",": 3, "!": 1, "5": 1, ".": 1}


def test_damage_behind_a_sound_header_is_found(make_audio: Callable[..., Path]) -> None:
    cut, nan = make_audio("cut.flac", 2.0), make_audio("nan.wav", 2.0)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    waveform, rate = soundfile.read(nan, dtype="float32")
    waveform[100] = np.nan
    soundfile.write(nan, waveform, rate, subtype="FLOAT")
    utterances = [Utterance(path.stem, path, 2.0, "some words here") for path in (cut, nan)]
    report = check({"train": [replace(u, text=f"{u.text} {u.id}") for u in utterances]})
    assert _found(report) == [("unreadable", "train", "cut"), ("unreadable", "train", "nan")]
    assert "truncated or damaged" in report.findings[0].detail
    assert "NaN" in report.findings[1].detail


def test_unreadable_audio_and_wrong_durations_are_found(
    make_audio: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "bad.wav").write_text("no audio")
    utterances = [
        Utterance("gone", tmp_path / "gone.wav", 1.0, "hello there"),
        Utterance("bad", tmp_path / "bad.wav", 1.0, "hello there you"),
        Utterance("cut", make_audio("cut.wav", seconds=0.5), 1.0, "hello there now"),
        Utterance("fine", make_audio("fine.wav", seconds=1.0), 1.0, "hello there then"),
    ]
    report = check({"train": utterances})
    assert [(f.check, f.id) for f in report.findings] == [
        ("unreadable", "gone"),
        ("unreadable", "bad"),
        ("wrong duration", "cut"),
    ]
    assert report.findings[0].audio == str(tmp_path / "gone.wav")
    assert not report.ok
    assert check({"train": utterances}, options=NO_AUDIO).findings == []


def test_duplicates_of_three_kinds() -> None:
    first = _utterance("a")
    report = check(
        {
            "train": [first, replace(first, audio=Path("/other.wav"), text="hello you")],
            "dev": [
                replace(first, id="b"),
                _utterance("c", "good bye"),
                _utterance("d", "good bye"),
            ],
        },
        options=NO_AUDIO,
    )
    found = [f for f in _found(report) if "duplicate" in f[0]]
    assert found == [
        ("duplicate id", "train", "a"),
        ("duplicate audio", "dev", "b"),
        ("duplicate utterance", "dev", "d"),
    ]


def test_speakers_and_sentences_shared_with_held_out_data_are_named() -> None:
    train = [_utterance("a", "One thing!", speaker="x"), _utterance("b", "two things", speaker="y")]
    more = [_utterance("c", "two things", 1.1, speaker="x")]
    dev = [_utterance("d", "one thing", speaker="z"), _utterance("e", "unheard of", speaker="y")]
    report = check({"train": train, "train-more": more, "dev": dev}, options=NO_AUDIO)
    assert _found(report) == [("speaker overlap", "dev", "y"), ("text overlap", "dev", "d")]
    assert "1 in train" in report.findings[0].detail
    assert "as train: a: 'one thing'" in report.findings[1].detail
    backwards = check({"dev": dev, "train": train}, options=NO_AUDIO)
    assert _found(backwards) == _found(report)


def test_the_report_names_offenders_and_counts_the_rest() -> None:
    utterances = [_utterance(f"u{n}", "?", 1.0 + n) for n in range(8)] + [
        _utterance("[bold]v", "Ж", 0.5)
    ]
    report = check({"train": utterances}, options=NO_AUDIO)
    printed = io.StringIO()
    doctor.print_report(report, printed, max_findings=2)
    text = printed.getvalue()
    assert "error: empty text: 9" in text
    assert "    train: u0: text '?'" in text
    assert "and 7 more" in text
    assert "u7" not in text
    assert "train: [bold]v: Ж in 'Ж'" in text
    printed = io.StringIO()
    doctor.print_report(check({"train": [_utterance()]}, options=NO_AUDIO), printed)
    assert "checks passed" in printed.getvalue()


def test_the_json_report_holds_every_finding(tmp_path: Path) -> None:
    report = check(
        {"train": [_utterance(f"u{n}", "?", 1.0 + n) for n in range(20)]}, options=NO_AUDIO
    )
    doctor.write_json(report, tmp_path / "report.json")
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored["ok"] is False
    assert len(stored["findings"]) == 20
    assert stored["manifests"][0]["utterances"] == 20


def test_manifests_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        manifest.write(tmp_path / folder / "train.jsonl", [_utterance()])
    report = check_manifests(
        [tmp_path / "a" / "train.jsonl", tmp_path / "b" / "train.jsonl"], options=NO_AUDIO
    )
    assert len({figures.name for figures in report.manifests}) == 2
    assert [finding.check for finding in report.findings] == ["duplicate audio"]
    with pytest.raises(ManifestError, match="gone"):
        check_manifests([tmp_path / "gone.jsonl"])


def test_an_empty_manifest_is_reported_not_divided_by() -> None:
    (figures,) = check({"train": []}).manifests
    assert (figures.utterances, figures.hours, figures.max_seconds) == (0, 0.0, 0.0)


@pytest.mark.real_speech
def test_real_speech_can_be_trained_on(real_speech: Path, tmp_path: Path) -> None:
    from asr import corpora

    summary = corpora.prepare("vctk", real_speech / "VCTK", tmp_path)
    assert check_manifests([split.manifest for split in summary.splits]).ok
