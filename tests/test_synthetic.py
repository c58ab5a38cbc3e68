"""Synthetic speech: sentences that held-out text does not have, the same bytes each time, runs that go on."""

import gzip
import importlib.util
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asr import manifest
from asr.errors import CorpusError
from asr.manifest import Utterance
from asr.text import normalise
from recipes.synthetic import check_speech, make_speech, sentences, voices
from recipes.synthetic.voices import SPEAKERS, Speaker, Waveform

WORDS = ("river", "stone", "garden", "window", "letter", "captain", "silver", "horse")
TEXTS = [
    f"The {a} was near the {b} and nobody had seen it." for a in WORDS for b in WORDS if a != b
]
HELD_OUT = "one two three four five six seven eight nine ten"


def hum(text: str, speaker: Speaker, *, pace: float, seed: int) -> Waveform:
    """A synthesiser that hums for as long as the text is: quick, and the same for the same arguments."""
    time = np.arange(round(16_000 * len(text) / 15 / pace)) / 16_000
    return (0.1 * np.sin(2 * np.pi * 150 * speaker.pitch * time)).astype(np.float32)


def _make(folder: Path, hours: float = 0.01, **options: object) -> list[Utterance]:
    made, _ = make_speech.make_corpus(
        TEXTS,
        folder / "audio",
        folder / "synthetic.jsonl",
        **{"hours": hours, "synthesise": hum, **options},
    )
    return made


@pytest.fixture
def held_out_manifest(tmp_path: Path) -> Path:
    path = tmp_path / "dev.jsonl"
    manifest.write(path, [Utterance("a", tmp_path / "a.wav", 1.0, HELD_OUT.upper())])
    return path


@pytest.mark.parametrize(
    ("text", "held"),
    [
        (HELD_OUT, True),
        ("and one two three four five six seven eight or more", True),
        ("three four five six seven eight nine ten", True),
        ("one two three four five six seven", False),
        ("one two three four, five six seven or eight nine ten", False),
    ],
)
def test_held_out_text_is_found_by_eight_words_in_a_row(
    held_out_manifest: Path, text: str, held: bool
) -> None:
    assert (normalise(text) in sentences.held_out([held_out_manifest])) is held


def test_short_held_out_transcript_is_found_as_a_whole(tmp_path: Path) -> None:
    manifest.write(tmp_path / "t.jsonl", [Utterance("a", tmp_path / "a.wav", 1.0, "Where is she?")])
    excluded = sentences.held_out([tmp_path / "t.jsonl"])
    assert "where is she" in excluded
    assert "where is she now" not in excluded


def test_held_out_sentences_are_never_chosen_and_are_counted(held_out_manifest: Path) -> None:
    stolen = "He said one two three four five six seven eight nine."
    chosen, dropped = sentences.choose(
        [*TEXTS, stolen] * 4, sentences.held_out([held_out_manifest]), 0
    )
    assert dropped == 1
    assert stolen not in chosen
    assert set(chosen) <= set(TEXTS)


def test_manifests_without_a_transcript_protect_nothing_and_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(CorpusError, match="--exclude"):
        sentences.held_out([tmp_path / "empty.jsonl"])


def test_choice_is_the_same_for_a_seed_and_has_each_sentence_once() -> None:
    first, again, other = (
        sentences.choose(TEXTS * 2, sentences.HeldOut(), seed)[0] for seed in (1, 1, 2)
    )
    assert first == again != other
    assert len(first) == len(set(first)) == round(sentences.KEPT * len(TEXTS))


def test_sentences_with_new_words_are_chosen_before_more_of_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sentences, "BLOCK", 20)
    same = [f"It was {x} {a} and the {b}." for x in ("the", "a") for a in WORDS for b in WORDS]
    new = [f"Purple elephants quietly painted {a} lighthouses." for a in WORDS[:4]]
    chosen, _ = sentences.choose([*same, *new], sentences.HeldOut(), 0)
    assert len(set(same) & set(chosen)) < 0.4 * len(same)
    assert len(set(new) & set(chosen)) > 0.7 * len(new)


def test_sentences_with_words_that_hardly_ever_come_are_left_out() -> None:
    rare = "Xanthippe was near the river and nobody had seen it."
    chosen, dropped = sentences.choose([*TEXTS, rare], sentences.HeldOut(), 0)
    assert (rare in chosen, dropped) == (False, 0)


def test_books_give_sentences_as_they_are_read_aloud(tmp_path: Path) -> None:
    text = "CHAPTER IV\r\n\r\n“Come here,” said Mr.\r\nDarcy—and he meant it. _Nobody_ came!\r\n\r\nAll at"
    with gzip.open(tmp_path / "book.txt.gz", "wt", encoding="utf-8") as file:
        file.write(text)
    found = list(sentences.read_books(tmp_path / "book.txt.gz"))
    assert found == [
        "CHAPTER IV",
        "Come here, said Mister Darcy, and he meant it.",
        "Nobody came!",
        "All at",
    ]
    assert [s for s in found if sentences.readable(s)] == [found[1]]


def test_lines_of_capitals_become_sentences(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("I THINK I'VE SEEN IT\n\nIt is so!\n")
    assert list(sentences.read_lines(tmp_path / "t.txt")) == ["I think I've seen it.", "It is so!"]


@pytest.mark.parametrize(
    "sentence",
    [
        "He paid 20 pounds for it and left the house.",
        "This was in the year of King Charles II of England.",
        "It was J Smith who came to the door that day.",
        "He came to the door and then,",
        "Too short.",
        "Long " * 60 + "it is.",
        "They call it fiancée in that part of the country.",
    ],
)
def test_what_may_be_read_in_two_ways_is_not_spoken(sentence: str) -> None:
    assert not sentences.readable(sentence)


def test_text_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "c.gz").write_bytes(b"no gzip")
    for name in ("a.txt", "b.txt", "c.gz"):
        with pytest.raises(CorpusError, match=name):
            list(sentences.read_lines(tmp_path / name))


def test_corpus_is_a_manifest_of_16_khz_audio_with_a_speaker_each(tmp_path: Path) -> None:
    made = _make(tmp_path)
    assert manifest.read(tmp_path / "synthetic.jsonl") == [
        replace(u, duration=round(u.duration, 4)) for u in made
    ]
    assert 36 <= sum(u.duration for u in made) < 36 + 16
    for utterance in made:
        header = soundfile.info(utterance.audio)
        assert (header.samplerate, header.channels) == (16_000, 1)
        assert header.duration == pytest.approx(utterance.duration)
        assert 2 <= utterance.duration <= 16
        assert utterance.text in TEXTS
        assert utterance.id.startswith(str(utterance.speaker))
    assert len({u.id for u in made}) == len(made)


def test_same_seed_gives_the_same_corpus_however_many_work_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _make(tmp_path / "a", 0.004)
    other = _make(tmp_path / "c", 0.004, seed=1)
    one_each = ThreadPoolExecutor(3, initializer=torch.set_num_threads, initargs=(1,))
    with one_each as pool:  # starting processes would take seconds
        monkeypatch.setattr(make_speech, "_mapper", lambda workers: nullcontext(pool.map))
        second = _make(tmp_path / "b", 0.004, workers=3)
    assert [u.id for u in first] == [u.id for u in second]
    assert not {u.id for u in first} & {u.id for u in other}
    for one, two in zip(first, second, strict=True):
        assert one.audio.read_bytes() == two.audio.read_bytes()


def test_interrupted_run_goes_on_with_what_is_there(tmp_path: Path) -> None:
    before = {u.audio: u.audio.stat().st_mtime_ns for u in _make(tmp_path, 0.005)}
    damaged, *kept = before
    damaged.write_bytes(b"")
    after = _make(tmp_path, 0.01)
    assert [u.audio for u in after][: len(before)] == list(before)
    assert all(path.stat().st_mtime_ns == before[path] for path in kept)
    assert soundfile.info(damaged).duration > 2


def test_sentences_of_the_wrong_length_are_not_used_and_counted(tmp_path: Path) -> None:
    def blink(text: str, speaker: Speaker, *, pace: float, seed: int) -> Waveform:
        return np.zeros(1600 if len(text) % 2 else 260_000, np.float32)

    made, unused = make_speech.make_corpus(
        TEXTS[:8], tmp_path / "audio", tmp_path / "m.jsonl", hours=1, synthesise=blink
    )
    assert not made
    assert sum(unused.values()) == 8
    assert set(unused) == {"shorter than 2 s", "longer than 16 s"}
    assert not list(tmp_path.rglob("*.flac"))


def test_speakers_share_the_sentences_by_weight_and_one_less_changes_only_its_own() -> None:
    texts = [f"sentence number {n}" for n in range(900)]
    all_of_them = [make_speech.draw(text, 0) for text in texts]
    counts = Counter(d.speaker for d in all_of_them)
    weights = sum(speaker.weight for speaker in SPEAKERS)
    for speaker in SPEAKERS:
        expected = 900 * speaker.weight / weights
        assert abs(counts[speaker] - expected) < 5 * expected**0.5
    fewer = [make_speech.draw(text, 0, SPEAKERS[1:]) for text in texts]
    for one, two in zip(all_of_them, fewer, strict=True):
        assert one == two or one.speaker == SPEAKERS[0]


def test_delivery_differs_from_sentence_to_sentence_and_is_heard() -> None:
    drawn = [make_speech.draw(text, 0) for text in TEXTS]
    assert len({d.pace for d in drawn}) == len(drawn)
    assert 0.2 < sum(d.room_seconds is not None for d in drawn) / len(drawn) < 0.6
    levels = []
    for delivery in drawn[:20]:
        waveform = make_speech.render(delivery, hum)
        assert np.abs(waveform).max() <= 0.99
        levels.append(20 * np.log10(np.sqrt(np.mean(waveform**2))))
        assert levels[-1] == pytest.approx(delivery.level_db, abs=0.1)
    assert max(levels) - min(levels) > 6


def test_names_of_speakers_are_their_own() -> None:
    assert len({speaker.name for speaker in SPEAKERS}) == len(SPEAKERS)


def test_command_line_speaks_what_is_allowed(
    tmp_path: Path,
    held_out_manifest: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(voices.ENGINES, "hibari", _engine)
    monkeypatch.setitem(voices.ENGINES, "flite", _engine)
    (tmp_path / "t.txt").write_text("\n".join([*TEXTS, f"Then {HELD_OUT} and eleven."]))
    output = tmp_path / "out.jsonl"
    arguments = ["--lines", str(tmp_path / "t.txt"), "--exclude", str(held_out_manifest)]
    places = ["--folder", str(tmp_path / "audio"), "--output", str(output)]
    make_speech.main([*arguments, *places, "--hours", "0.01", "--workers", "1"])
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{output}: {len(manifest.read(output))} utterances, 0.01 h\n")
    assert "1 dropped" in printed.err


def test_lines_to_be_skipped_are_not_spoken(
    tmp_path: Path, held_out_manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for engine in ("hibari", "flite"):
        monkeypatch.setitem(voices.ENGINES, engine, _engine)
    monkeypatch.setattr(sentences, "KEPT", 1.0)
    lines, book = tmp_path / "lines.txt", tmp_path / "book.txt"
    lines.write_text("\n".join(TEXTS))
    book.write_text("First it goes on\nand here it ends\n\nand then begins anew.\n")
    arguments = ["--lines", str(lines), "--exclude", str(held_out_manifest), "--skip"]
    places = ["--folder", str(tmp_path / "audio"), "--output", str(tmp_path / "out.jsonl")]
    with pytest.raises(SystemExit, match="the text is enough for"):
        make_speech.main(
            [*arguments, "lines.txt:31-99999", *places, "--hours", "9", "--workers", "1"]
        )
    spoken = {utterance.text for utterance in manifest.read(tmp_path / "out.jsonl")}
    assert spoken
    assert spoken <= set(TEXTS[:30])
    found = list(sentences.read_books(book, [range(2, 3)]))
    assert found == ["First it goes on", "and then begins anew."]
    with pytest.raises(SystemExit, match=r"^error: skip 'other\.txt:1-2'"):
        make_speech.main([*arguments, "other.txt:1-2", *places])


def _engine(text: str, speaker: Speaker, pace: float, seed: int) -> tuple[Waveform, int]:
    return hum(text, speaker, pace=pace, seed=seed), 16_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--exclude", "dev.jsonl"], "no text"),
        (["--lines", "a.txt"], "--exclude"),
        (["--lines", "a.txt", "--exclude", "dev.jsonl", "--hours", "0"], "--hours"),
    ],
)
def test_command_line_refuses_what_makes_no_sense(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        make_speech.main(options)
    assert message in capsys.readouterr().err


def test_missing_manifest_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^error: .*gone\.jsonl: cannot read manifest"):
        make_speech.main(["--lines", "a.txt", "--exclude", str(tmp_path / "gone.jsonl")])


def test_every_speaker_is_judged_by_the_same_utterances(tmp_path: Path) -> None:
    spoken = [
        Utterance(f"{s}-{n}", tmp_path / "a.wav", 3.0, "a b", f"hibari-heart-{s}")
        for s in "xyz"
        for n in range(9)
    ]
    chosen = check_speech.sample(spoken, 4)
    assert Counter(u.speaker for u in chosen) == {f"hibari-heart-{s}": 4 for s in "xyz"}
    assert check_speech.sample(spoken[::-1], 4) == chosen


def _pitch(waveform: Waveform) -> float:
    """Median pitch in hertz by autocorrelation over 50 ms, where it is clear."""
    pitches = []
    for start in range(0, len(waveform) - 800, 400):
        frame = waveform[start : start + 800] * np.hanning(800)
        correlation = np.fft.irfft(np.abs(np.fft.rfft(frame, 2048)) ** 2)[:267]
        lag = 45 + int(np.argmax(correlation[45:]))
        if correlation[lag] > 0.4 * correlation[0] > 1:
            pitches.append(16_000 / lag)
    return float(np.median(pitches))


@pytest.mark.parametrize("engine", ["flite", "hibari"])
def test_real_voices_speak_at_the_pace_and_pitch_asked_for(engine: str) -> None:
    if engine == "flite" and shutil.which("flite") is None:
        pytest.skip("the program flite is not installed")
    if engine == "hibari" and importlib.util.find_spec("hibari") is None:
        pytest.skip("hibari-tts is not installed")
    speaker = Speaker("a", "flite", "slt") if engine == "flite" else Speaker("a", "hibari", "heart")
    text = "The captain looked at the dark water, and the horse at the river."
    plain = voices.speak(text, speaker, pace=1.0, seed=0)
    quick = voices.speak(text, speaker, pace=1.25, seed=0)
    lower = voices.speak(text, replace(speaker, pitch=0.7, formants=0.85), pace=1.0, seed=0)
    assert plain.dtype == np.float32
    assert 2 < len(plain) / 16_000 < 7
    assert 0.7 < len(quick) / len(plain) < 0.93  # pauses may not follow
    assert len(lower) / len(plain) == pytest.approx(1, abs=0.12)
    assert _pitch(lower) / _pitch(plain) == pytest.approx(0.7, abs=0.1)
    assert np.array_equal(plain, voices.speak(text, speaker, pace=1.0, seed=0))
