"""The comparisons in recipes: recognizers on the same files, and decoders by length of the recording."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from asr import config, manifest
from asr.evaluate import evaluate
from asr.recognizer import load
from recipes.benchmark import accuracy
from recipes.one_vector import by_length

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "data" / "samples" / "manifest.jsonl"


def test_accuracy_is_that_of_evaluate_and_every_text_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.tsv"
    arguments = [str(SAMPLES), "--systems", "asr-greedy", "--limit", "4", "--rows", str(rows)]
    assert accuracy.main(arguments) == 0
    printed = capsys.readouterr()
    values = json.loads(printed.out)
    utterances = manifest.read(SAMPLES)[::2]
    expected = evaluate(load(search="greedy"), utterances)
    (result,) = values["results"]
    assert (values["utterances"], result["system"]) == (4, "asr-greedy")
    assert result["wer"] == pytest.approx(100 * expected.wer, abs=0.01)
    assert result["low"] <= result["wer"] <= result["high"]
    assert f"{result['wer']:.2f}" in printed.err
    with rows.open(encoding="utf-8", newline="") as file:
        kept = list(csv.DictReader(file, delimiter="\t"))
    assert [row["id"] for row in kept] == [utterance.id for utterance in utterances]
    assert [row["asr-greedy"] for row in kept] == [row.hypothesis for row in expected.rows]


def test_systems_that_are_not_installed_and_a_missing_manifest_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert accuracy.main([str(tmp_path / "none.jsonl"), "--systems", "asr-greedy"]) == 2
    assert str(tmp_path / "none.jsonl") in capsys.readouterr().err
    monkeypatch.setattr(accuracy, "installed", lambda system: system == "asr")
    assert accuracy.main([str(SAMPLES), "--systems", "asr", "pocketsphinx"]) == 2
    assert "not installed: pocketsphinx" in capsys.readouterr().err


def test_rates_by_length_count_each_row_in_its_stretch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("duration", "reference_words", "substitutions", "deletions", "insertions")
    names = (*names, "reference_characters", "character_errors", "error")
    rows = [
        (1.0, 4, 1, 0, 0, 20, 2, ""),
        (2.9, 4, 0, 1, 1, 20, 4, ""),
        (13.0, 10, 0, 0, 0, 50, 0, ""),
    ]
    rows.append(("",) * 7 + ("unreadable",))  # as asr evaluate writes it
    folder = tmp_path / "model-a"
    folder.mkdir()
    with (folder / "dev.tsv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerows([names, *rows])
    assert by_length.main([str(folder / "dev.tsv")]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == "| model-a | 37.5 / 15.0 | - | - | 0.0 / 0.0 | 16.7 / 6.7 |"
    assert by_length.main([str(tmp_path / "gone.tsv")]) == 2
    assert str(tmp_path / "gone.tsv") in capsys.readouterr().err


def test_the_bundled_encoder_fits_the_recipe_that_begins_with_it() -> None:
    recipe = config.load(ROOT / "recipes" / "one_vector" / "one_vector.toml").model.encoder
    bundled = load().trained.model.options.encoder
    assert replace(recipe, dropout=bundled.dropout) == bundled


def test_the_bundled_model_is_of_the_recipe_that_says_so() -> None:
    recipe = config.load(ROOT / "recipes" / "librispeech" / "here-speller.toml")
    assert recipe.model == load().trained.model.options
