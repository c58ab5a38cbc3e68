"""Writers against golden files and the schema, parsed back, and cues laid out as Whisper's tool does."""

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asr.errors import AudioError, ConfigError
from asr.transcript import FAILURES, Attention, Failure, Segment, Transcript, Word
from asr.writers import PLAIN, WRITERS, Layout, chosen, in_order, save_each

GOLDEN = Path(__file__).parent / "golden"
SCHEMA = json.loads((files("asr") / "assets" / "transcript.schema.json").read_text("utf-8"))

MEETING = Transcript(
    text="good morning don't panic <b> & co",
    segments=(
        Segment(0.0, 1.2, "good morning", (Word("good", 0.1, 0.5, 0.9), Word("morning", 0.5, 1.2))),
        Segment(1.5, 1.6, "", failures=(Failure("silence", 1.5, 1.6),)),
        Segment(59.9996, 3723.0454, "don't panic", confidence=0.5),
        Segment(3725.0, 360000.5, "<b> & co"),
    ),
    duration=360001.0,
    confidence=0.75,
    audio="the meeting.wav",
    model="english-1",
    settings={
        "beam_size": 8,
        "ctc_weight": 0.3,
        "lm": None,
        "ngram": "english-words-1a2b3c4d",
        "hotwords": None,
        "engine": "torch",
        "int8": False,
    },
)


def _speech(*spans: tuple[float, float, str]) -> tuple[Word, ...]:
    return tuple(Word(text, start, end, 0.9) for start, end, text in spans)


TALK = Transcript(
    text="the quick brown fox jumps over the lazy dog then sleeps",
    segments=(
        Segment(
            0.0,
            2.6,
            "the quick brown fox jumps over",
            _speech(
                (0.1, 0.3, "the"), (0.3, 0.7, "quick"), (0.7, 1.1, "brown"),
                (1.4, 1.9, "fox"), (1.9, 2.2, "jumps"), (2.2, 2.5, "over"),
            ),
        ),
        Segment(
            2.6, 4.0, "the lazy dog", _speech((2.7, 2.9, "the"), (2.9, 3.4, "lazy"), (3.4, 3.9, "dog"))
        ),
        Segment(7.0, 8.0, "then sleeps", _speech((7.1, 7.4, "then"), (7.4, 8.0, "sleeps"))),
    ),
    duration=8.0,
    audio="talk.wav",
    channel="right",
)  # fmt: skip

LAYOUTS = {
    "width16": Layout(16),
    "width16-count2": Layout(16, 2),
    "highlight": Layout(24, highlight_words=True),
}

times = st.integers(0, 400_000_000).map(lambda milliseconds: milliseconds / 1000)
spans = st.lists(st.tuples(times, times, st.text("ab '", max_size=5)), max_size=5)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_writers_match_golden_files(name: str) -> None:
    assert WRITERS[name](MEETING, PLAIN) == (GOLDEN / f"meeting.{name}").read_text("utf-8")


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("name", ["srt", "vtt", "lrc"])
def test_layouts_match_golden_files(name: str, layout: str) -> None:
    golden = GOLDEN / f"talk.{layout}.{name}"
    assert WRITERS[name](TALK, LAYOUTS[layout]) == golden.read_text("utf-8")


@pytest.mark.parametrize(("name", "decimal_mark"), [("srt", ","), ("vtt", ".")])
@given(spans=spans)
def test_srt_and_vtt_parsed_back_give_the_same_times(
    name: str, decimal_mark: str, spans: list[tuple[float, float, str]]
) -> None:
    segments = tuple(Segment(start, end, text) for start, end, text in spans)
    written = WRITERS[name](Transcript("", segments), PLAIN)
    assert _parse_cues(written, decimal_mark) == [
        (start, end, " ".join(text.split())) for start, end, text in spans if text.split()
    ]


@given(spans=spans)
def test_ctm_parsed_back_gives_the_same_times(spans: list[tuple[float, float, str]]) -> None:
    said = [
        Word("".join(text.split()), *sorted((first, second)))
        for first, second, text in spans
        if text.split()
    ]
    transcript = Transcript("", (Segment(0, 1, "some", tuple(said)),) if said else ())
    rows = [line.split() for line in WRITERS["ctm"](transcript, PLAIN).splitlines()]
    back = [
        Word(text, float(start), round(float(start) + float(length), 3))
        for _, _, start, length, text in rows
    ]
    assert back == said


def test_a_width_breaks_lines_and_a_count_fills_subtitles_across_segments() -> None:
    assert _texts(Layout()) == ["the quick brown fox jumps over", "the lazy dog", "then sleeps"]
    wide = ["the quick brown\nfox jumps over", "the lazy dog", "then sleeps"]
    assert _texts(Layout(16)) == wide
    # three seconds lie between "dog" and "then": no subtitle holds both
    filled = ["the quick brown\nfox jumps over\nthe lazy dog", "then sleeps"]
    assert _texts(Layout(16, 3)) == filled
    assert _texts(Layout(16, 1)) == [
        "the quick brown",
        "fox jumps over",
        "the lazy dog",
        "then sleeps",
    ]
    assert _texts(Layout(None, 1)) == _texts(Layout())
    assert _texts(Layout(3, 9))[0].split("\n") == [
        "the",
        "quick",
        "brown",
        "fox",
        "jumps",
        "over",
        "the",
        "lazy",
        "dog",
    ]


@given(width=st.integers(1, 40), count=st.none() | st.integers(1, 3))
def test_no_word_is_lost_and_no_line_is_too_long(width: int, count: int | None) -> None:
    texts = _texts(Layout(width, count))
    assert " ".join(texts).split() == TALK.text.split()
    for text in texts:
        lines = text.split("\n")
        assert count is None or len(lines) <= count
        assert all(len(line) <= width or " " not in line for line in lines)


def test_highlighted_words_follow_each_other_with_the_pauses_between() -> None:
    written = WRITERS["vtt"](TALK, Layout(highlight_words=True))
    cues = _parse_cues(written, ".")
    marked = [re.findall("<u>(.*?)</u>", text) for _, _, text in cues]
    assert [word for words in marked for word in words] == TALK.text.split()
    assert (1.1, 1.4, "the quick brown fox jumps over") in cues
    assert (1.4, 1.9, "the quick brown <u>fox</u> jumps over") in cues


def test_words_without_times_share_their_segments_by_their_letters() -> None:
    written = WRITERS["ctm"](Transcript("", (Segment(1.0, 2.0, "a bcd"),)), PLAIN)
    assert written == "audio 1 1.000 0.250 a\naudio 1 1.250 0.750 bcd\n"


@pytest.mark.parametrize("bad", [{"max_line_width": 0}, {"max_line_count": -1}])
def test_a_layout_without_room_is_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"max_line_\w+ is -?\d; it must be 1 or more"):
        Layout(**bad)


def test_srt_numbers_its_cues_from_one_without_gaps_and_has_no_empty_cue() -> None:
    cues = WRITERS["srt"](MEETING, PLAIN).split("\n\n")
    assert [cue.splitlines()[0] for cue in cues] == ["1", "2", "3"]
    assert all(cue.splitlines()[2] for cue in cues)


def test_segments_without_text_appear_in_json_alone() -> None:
    assert WRITERS["txt"](MEETING, PLAIN).splitlines() == [
        "good morning",
        "don't panic",
        "<b> & co",
    ]
    assert "1500" not in WRITERS["tsv"](MEETING, PLAIN)
    assert len(json.loads(WRITERS["json"](MEETING, PLAIN))["segments"]) == 4


def test_a_line_break_in_a_text_does_not_end_its_cue() -> None:
    transcript = Transcript("", (Segment(0, 1, "one\n\ntwo\tthree"),))
    assert WRITERS["srt"](transcript, PLAIN).splitlines()[2:] == ["one two three"]
    assert WRITERS["tsv"](transcript, PLAIN).splitlines()[1] == "0\t1000\tone two three"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("txt", "\n"),
        ("srt", ""),
        ("vtt", "WEBVTT\n"),
        ("tsv", "start\tend\ttext\n"),
        ("ctm", ""),
        ("lrc", ""),
    ],
)
def test_silence_is_an_empty_file_of_its_format(name: str, expected: str) -> None:
    assert WRITERS[name](Transcript("", duration=3.0), PLAIN) == expected


def test_json_holds_everything_that_the_transcript_says() -> None:
    assert json.loads(WRITERS["json"](MEETING, PLAIN)) == MEETING.to_dict()


@pytest.mark.parametrize("transcript", [MEETING, TALK, Transcript("")])
def test_json_follows_the_published_schema(transcript: Transcript) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads(WRITERS["json"](transcript, PLAIN)), SCHEMA)


def test_the_schema_knows_every_failure_and_refuses_others() -> None:
    for kind in FAILURES:
        segment = Segment(0, 1, "a", failures=(Failure(kind, 0.0, 1.0, "why", mended=True),))
        jsonschema.validate(Transcript("a", (segment,)).to_dict(), SCHEMA)
    segment = Segment(0, 1, "a", failures=(Failure("nonsense", 0.0, 1.0),))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(Transcript("a", (segment,)).to_dict(), SCHEMA)


def test_formats_are_chosen_by_name_several_or_all() -> None:
    assert list(chosen("srt, json")) == ["srt", "json"]
    assert chosen("all") == chosen("json, all") == WRITERS
    for wrong in ("doc", "srt,doc", "doc,all"):
        with pytest.raises(ConfigError, match=r"'doc'.*txt, srt, vtt, json, tsv, ctm, lrc"):
            chosen(wrong)


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


def test_attention_is_not_held_by_results_that_wait() -> None:
    attention = Attention(torch.zeros(1, 1), ("a",), 0.04)
    segment = Segment(0, 1, "a", attention=attention)
    (found,) = in_order([(0, Transcript("a", (segment,), attention=attention))])
    assert found[1].attention is None
    assert found[1].segments[0].attention is None


def test_each_transcript_is_saved_as_it_comes_and_errors_pass_through(tmp_path: Path) -> None:
    failed = AudioError("a.wav: missing")
    results = save_each(
        [(1, MEETING), (0, failed)], [tmp_path / "a", tmp_path / "b.x"], chosen("srt,txt"), PLAIN
    )
    assert next(results) == (1, MEETING)
    assert (tmp_path / "b.x.srt").read_text("utf-8") == WRITERS["srt"](MEETING, PLAIN)
    assert (tmp_path / "b.x.txt").read_text("utf-8") == WRITERS["txt"](MEETING, PLAIN)
    assert list(results) == [(0, failed)]
    assert len(list(tmp_path.iterdir())) == 2


def _texts(layout: Layout) -> list[str]:
    blocks = WRITERS["srt"](TALK, layout).strip().split("\n\n")
    return [block.split("\n", 2)[2] for block in blocks]


def _parse_cues(text: str, decimal_mark: str) -> list[tuple[float, float, str]]:
    clock = rf"(\d\d+):([0-5]\d):([0-5]\d){re.escape(decimal_mark)}(\d\d\d)"
    cues = re.findall(rf"^{clock} --> {clock}\n(.+)$", text, flags=re.MULTILINE)
    return [(_seconds(*cue[:4]), _seconds(*cue[4:8]), cue[8]) for cue in cues]


def _seconds(hours: str, minutes: str, seconds: str, milliseconds: str) -> float:
    whole = int(hours) * 3600 + int(minutes) * 60 + int(seconds)
    return (whole * 1000 + int(milliseconds)) / 1000
