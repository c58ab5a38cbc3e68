import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jiwer
import pytest
import torch

from asr import checkpoint, manifest
from asr.checkpoint import Trained
from asr.errors import AsrError, AudioError, ConfigError
from asr.evaluate import Evaluation, evaluate, summary, write_rows
from asr.features import FeatureOptions
from asr.manifest import Utterance
from asr.metrics import Counts
from asr.model import DecoderOptions, EncoderOptions, ModelOptions
from asr.recognizer import BATCH_SECONDS, Recognizer, load
from asr.tokenizer import Tokenizer
from asr.training.validation import Validation
from asr.transcript import Attention, Transcript


class FakeRecognizer:
    """Gives the text that is in its table for a path, an error where that has none; last recording first."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.texts = texts
        self.batch_seconds: list[float] = []

    def transcribe_each(
        self, audios: list[Path], *, batch_seconds: float, whole: bool
    ) -> Iterator[tuple[int, Transcript | AsrError]]:
        assert whole
        self.batch_seconds.append(batch_seconds)
        for index in reversed(range(len(audios))):
            name = audios[index].name
            if name in self.texts:
                ramp = Attention(torch.eye(4), tuple("abcd"), 0.08)
                yield index, Transcript(self.texts[name], duration=2.0, attention=ramp)
            else:
                yield index, AudioError(f"{name}: not audio")


def utterance(name: str, text: str, speaker: str | None = None) -> Utterance:
    return Utterance(name, Path(name), 1.0, text, speaker)


@pytest.fixture
def result() -> Evaluation:
    texts = {"one": "the cat sat", "two": "", "three": "i", "four": "it is twenty"}
    utterances = [
        utterance("one", "The CAT, sat!"),
        utterance("lost", "never heard"),
        utterance("two", "on a mat"),
        utterance("three", "..."),
        utterance("four", "It's 20"),
    ]
    return evaluate(FakeRecognizer(texts), utterances)


def test_rows_come_in_the_manifests_order(result: Evaluation) -> None:
    assert [row.id for row in result.rows] == ["one", "two", "three", "four"]
    assert [row.hypothesis for row in result.rows] == ["the cat sat", "", "i", "it is twenty"]


def test_reference_and_hypothesis_are_normalised(result: Evaluation) -> None:
    assert [row.reference for row in result.rows] == ["the cat sat", "on a mat", "", "it's twenty"]
    assert result.rows[0].words == Counts(hits=3)


def test_rates_are_those_of_the_corpus(result: Evaluation) -> None:
    references = [row.reference for row in result.rows]
    hypotheses = [row.hypothesis for row in result.rows]
    assert result.wer == pytest.approx(jiwer.wer(references, hypotheses))
    assert result.cer == pytest.approx(jiwer.cer(references, hypotheses))
    assert result.words.errors == sum(row.words.errors for row in result.rows)


def test_empty_texts_are_counted_and_stated(result: Evaluation) -> None:
    assert (result.empty_references, result.empty_hypotheses) == (1, 1)
    assert result.rows[2].words == Counts(insertions=1)
    assert "empty references  1\nempty hypotheses  1\n" in summary(result)


def test_unreadable_recordings_are_named_and_not_scored(result: Evaluation) -> None:
    assert [(item.id, item.reason) for item in result.unreadable] == [("lost", "lost: not audio")]
    assert "4 scored" in summary(result)
    assert "lost: not audio" in summary(result)
    assert result.audio_seconds == 8


def test_attention_and_speed_are_measured(result: Evaluation) -> None:
    assert result.diagonality == pytest.approx(1)
    assert 0 < result.real_time_factor < 1
    assert result.rows[0].duration == 2


def test_how_diagonal_the_attention_is_is_told_of_those_that_have_one_only() -> None:
    """A recording of several pieces has none as a whole."""

    class Pieces(FakeRecognizer):
        def transcribe_each(self, *a: Any, **o: Any) -> Iterator[tuple[int, Transcript | AsrError]]:
            for index, found in super().transcribe_each(*a, **o):
                assert isinstance(found, Transcript)
                yield index, replace(found, attention=None) if index else found

    fake = Pieces({"one": "a", "long": "a"})
    both = evaluate(fake, [utterance("one", "a"), utterance("long", "a")])
    assert [row.diagonality for row in both.rows] == [pytest.approx(1), None]
    assert both.diagonality == pytest.approx(1)
    none = replace(both, rows=both.rows[1:])
    assert none.diagonality is None
    assert "diagonality       -" in summary(none)


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(AsrError, match="no utterances"):
        evaluate(FakeRecognizer({}), [])
    with pytest.raises(AsrError, match=r"none of 1 recordings could be read.*lost: not audio"):
        evaluate(FakeRecognizer({}), [utterance("lost", "a")])


def test_the_interval_is_over_speakers_where_they_are_known() -> None:
    names = [str(n) for n in range(40)]
    fake = FakeRecognizer({name: "a b" if int(name) % 8 else "x y" for name in names})
    known = evaluate(fake, [utterance(n, "a b", f"speaker {int(n) % 8}") for n in names])
    unknown = evaluate(fake, [utterance(n, "a b") for n in names])
    assert known.wer == unknown.wer == pytest.approx(1 / 8)
    assert known.wer_interval[1] > unknown.wer_interval[1]
    assert "over 8 speakers" in summary(known)
    assert "over utterances" in summary(unknown)


def test_the_progress_bar_changes_nothing(
    result: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeRecognizer({"one": "a"})
    shown = evaluate(fake, [utterance("one", "a")], batch_seconds=7, progress=True)
    assert shown.rows == evaluate(fake, [utterance("one", "a")]).rows
    assert fake.batch_seconds == [7, BATCH_SECONDS]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("suffix", ["tsv", "jsonl"])
def test_the_per_utterance_file_adds_up_to_the_rates(
    result: Evaluation, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"rows.{suffix}"
    write_rows(path, result)
    lines = path.read_text().splitlines()
    tsv = csv.DictReader(lines, delimiter="\t")
    rows = list(tsv) if suffix == "tsv" else [json.loads(line) for line in lines]
    assert [row["id"] for row in rows] == ["one", "two", "three", "four", "lost"]
    assert rows[-1]["error"] == "lost: not audio"
    kinds = ("substitutions", "deletions", "insertions")
    assert sum(int(row[k]) for row in rows[:-1] for k in kinds) == result.words.errors
    length = sum(int(row["reference_words"]) for row in rows[:-1])
    assert length == result.words.reference_length
    assert rows[3]["reference"] == "it's twenty"
    assert list(tmp_path.iterdir()) == [path]


def test_another_suffix_is_refused(result: Evaluation, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rows\.xls.*\.tsv or \.jsonl"):
        write_rows(tmp_path / "rows.xls", result)


def small_model() -> Trained:
    encoder = EncoderOptions(width=8, channels=2, flat_layers=0)
    model = ModelOptions(encoder, DecoderOptions(width=12, embedding=6))
    features, tokenizer = FeatureOptions(n_mels=20), Tokenizer()
    return Trained(checkpoint.build(model, tokenizer, features).eval(), tokenizer, features, {})


def test_validation_wer_in_training_equals_evaluate(
    tmp_path: Path, make_manifest: Callable[..., Path]
) -> None:
    trained, path = small_model(), make_manifest(["a b", "c", "def g", "h i j"])
    checkpoint.save(tmp_path / "model.pt", trained)
    trained.model.train()
    validated = Validation([str(path)], 0).measure(trained)
    assert trained.model.training
    evaluated = evaluate(load(tmp_path / "model.pt"), manifest.read(path))
    assert evaluated.words.errors > 0
    assert (validated["wer"], validated["cer"]) == (evaluated.wer, evaluated.cer)


def test_batches_do_not_change_the_result(make_manifest: Callable[..., Path]) -> None:
    recognizer = Recognizer(small_model())
    utterances = manifest.read(make_manifest(["a b", "c", "def g", "h i j"]))
    alone = evaluate(recognizer, utterances, batch_seconds=0.1)
    together = evaluate(recognizer, utterances)
    assert [row.hypothesis for row in alone.rows] == [row.hypothesis for row in together.rows]
    assert alone.diagonality == pytest.approx(together.diagonality, abs=1e-4)


def test_a_broken_recording_does_not_stop_the_others(
    tmp_path: Path, make_manifest: Callable[..., Path]
) -> None:
    utterances = manifest.read(make_manifest(["a b", "c"]))
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"not audio")
    utterances.insert(1, Utterance("bad", broken, 1.0, "d", None))
    found = evaluate(Recognizer(small_model()), utterances)
    assert [row.id for row in found.rows] == ["train-0", "train-1"]
    assert found.unreadable[0].id == "bad"
    assert "broken.wav" in found.unreadable[0].reason
