"""Writers against golden files, parsed back, and the names of output files."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.errors import AudioError, ConfigError
from asr.transcript import Segment, Transcript, Word
from asr.writers import WRITERS, in_order, output_paths, save_each, writer

GOLDEN = Path(__file__).parent / "golden"

MEETING = Transcript(
    text="good morning don't panic <b> & co",
    segments=(
        Segment(0.0, 1.2, "good morning", (Word("good", 0.1, 0.5, 0.9), Word("morning", 0.5, 1.2))),
        Segment(1.5, 1.6, ""),
        Segment(59.9996, 3723.0454, "don't panic", confidence=0.5),
        Segment(3725.0, 360000.5, "<b> & co"),
    ),
    duration=360001.0,
    confidence=0.75,
    audio="meeting.wav",
)

times = st.integers(0, 400_000_000).map(lambda milliseconds: milliseconds / 1000)
spans = st.lists(st.tuples(times, times, st.text("ab '", max_size=5)), max_size=5)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_writers_match_golden_files(name: str) -> None:
    assert WRITERS[name](MEETING) == (GOLDEN / f"meeting.{name}").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "decimal_mark"), [("srt", ","), ("vtt", ".")])
@given(spans=spans)
def test_srt_and_vtt_parsed_back_give_the_same_times(
    name: str, decimal_mark: str, spans: list[tuple[float, float, str]]
) -> None:
    segments = tuple(Segment(start, end, text) for start, end, text in spans)
    written = WRITERS[name](Transcript("", segments))
    assert _parse_cues(written, decimal_mark) == [
        (start, end, " ".join(text.split())) for start, end, text in spans if text.split()
    ]


def test_srt_numbers_its_cues_from_one_without_gaps_and_has_no_empty_cue() -> None:
    cues = WRITERS["srt"](MEETING).split("\n\n")
    assert [cue.splitlines()[0] for cue in cues] == ["1", "2", "3"]
    assert all(cue.splitlines()[2] for cue in cues)


def test_segments_without_text_appear_in_json_alone() -> None:
    assert WRITERS["txt"](MEETING).splitlines() == ["good morning", "don't panic", "<b> & co"]
    assert "1500" not in WRITERS["tsv"](MEETING)
    assert len(json.loads(WRITERS["json"](MEETING))["segments"]) == 4


def test_a_line_break_in_a_text_does_not_end_its_cue() -> None:
    transcript = Transcript("", (Segment(0, 1, "one\n\ntwo\tthree"),))
    assert WRITERS["srt"](transcript).splitlines()[2:] == ["one two three"]
    assert WRITERS["tsv"](transcript).splitlines()[1] == "0\t1000\tone two three"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("txt", "\n"), ("srt", ""), ("vtt", "WEBVTT\n"), ("tsv", "start\tend\ttext\n")],
)
def test_silence_is_an_empty_file_of_its_format(name: str, expected: str) -> None:
    assert WRITERS[name](Transcript("", duration=3.0)) == expected


def test_json_holds_everything_that_the_transcript_says() -> None:
    assert json.loads(WRITERS["json"](MEETING)) == MEETING.to_dict()


def test_unknown_format_names_it_and_those_allowed() -> None:
    with pytest.raises(ConfigError, match=r"'doc'.*txt, json, srt, vtt, tsv"):
        writer("doc")


def test_an_output_is_named_after_its_input() -> None:
    assert output_paths(["a/x.wav", "b/y.tar.flac"], "out", "txt") == [
        Path("out/x.txt"),
        Path("out/y.tar.txt"),
    ]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["a/x.wav", "b/x.flac"], ["x.wav.txt", "x.flac.txt"]),
        (["a/x.wav", "a/X.flac"], ["x.wav.txt", "X.flac.txt"]),
        (["a/x.wav", "b/x.wav"], ["a/x.wav.txt", "b/x.wav.txt"]),
        (["a/x.wav", "a/b/x.wav"], ["x.wav.txt", "b/x.wav.txt"]),
        (["x.wav", "b/x.flac", "x.wav.mp3"], ["x.wav.txt", "x.flac.txt", "x.wav.mp3.txt"]),
    ],
)
def test_inputs_that_share_a_name_keep_what_tells_them_apart(
    inputs: list[str], expected: list[str]
) -> None:
    assert output_paths(inputs, "out", "txt") == [Path("out") / name for name in expected]


@given(st.sets(st.from_regex(r"\A([ab]/){0,2}[xX](\.wav|\.flac)?\Z"), min_size=1, max_size=8))
def test_no_two_inputs_share_an_output(inputs: set[str]) -> None:
    names = output_paths(sorted(inputs), "out", "txt")
    assert len(set(names)) == len(inputs)


def test_results_are_put_in_order_each_as_soon_as_it_can_be() -> None:
    taken = []

    def results() -> Iterator[tuple[int, Transcript]]:
        for number in (2, 0, 1, 3):
            taken.append(number)
            yield number, Transcript(str(number))

    ordered = in_order(results())
    assert next(ordered) == (0, Transcript("0"))
    assert taken == [2, 0]
    assert [number for number, _ in ordered] == [1, 2, 3]


def test_each_transcript_is_saved_as_it_comes_and_errors_pass_through(tmp_path: Path) -> None:
    failed = AudioError("a.wav: missing")
    results = save_each(
        [(1, MEETING), (0, failed)], [tmp_path / "a.srt", tmp_path / "b.srt"], WRITERS["srt"]
    )
    assert next(iter(results)) == (1, MEETING)
    assert (tmp_path / "b.srt").read_text("utf-8") == WRITERS["srt"](MEETING)
    assert list(results) == [(0, failed)]
    assert not (tmp_path / "a.srt").exists()


def _parse_cues(text: str, decimal_mark: str) -> list[tuple[float, float, str]]:
    clock = rf"(\d\d+):([0-5]\d):([0-5]\d){re.escape(decimal_mark)}(\d\d\d)"
    cues = re.findall(rf"^{clock} --> {clock}\n(.+)$", text, flags=re.MULTILINE)
    return [(_seconds(*cue[:4]), _seconds(*cue[4:8]), cue[8]) for cue in cues]


def _seconds(hours: str, minutes: str, seconds: str, milliseconds: str) -> float:
    whole = int(hours) * 3600 + int(minutes) * 60 + int(seconds)
    return (whole * 1000 + int(milliseconds)) / 1000
