"""The ladder of single changes: its list can be trained, and its table counts as `asr evaluate` does."""

import re
import shlex
from pathlib import Path

from asr import config
from recipes.ladder.rows import CHANGES, ENCODERS, OF_ENCODERS, error_rate, read_changes, table

HEADER = "id\treference_words\tsubstitutions\tdeletions\tinsertions\treference_characters\tcharacter_errors\n"


def _write(path: Path, *rows: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(HEADER + "".join(row + "\n" for row in rows))


def test_every_change_is_one_that_the_recipe_takes() -> None:
    recipe = config.load("recipes/librispeech/here.toml")
    manifests = " ".join(recipe.data.train)
    for name, options in read_changes(CHANGES).items():
        words = shlex.split(options)
        if words[:1] == ["-x"]:
            assert re.search(rf"/{words[1]}(-train)?\.jsonl", manifests), name
            continue
        overrides = [word for word in words if word != "--set"]
        changed = config.load("recipes/librispeech/here.toml", overrides)
        assert changed != recipe or name in ("base", "guide", "sampling-0.2"), name


def test_every_encoder_is_one_that_the_recipe_takes() -> None:
    recipe = config.load("recipes/librispeech/here.toml")
    for name, options in read_changes(ENCODERS).items():
        overrides = [word for word in shlex.split(options) if word != "--set"]
        changed = config.load("recipes/librispeech/here.toml", overrides)
        assert (changed == recipe) == (name == "base"), name


def test_encoders_are_ranked_by_characters(tmp_path: Path) -> None:
    for name, errors in (("base", 5), ("gru", 4)):
        _write(tmp_path / name / "ctc.tsv", f"x\t2\t1\t0\t0\t10\t{errors}")
    assert table(tmp_path, {"gru": "--set a.b=1", "base": ""}, OF_ENCODERS) == [
        "| change | options | CER | WER |",
        "|---|---|---|---|",
        "| base |  | 50.0 % | 50.0 % |",
        "| gru | `--set a.b=1` | 40.0 % (-10.0) | 50.0 % (+0.0) |",
    ]


def test_word_error_rate_is_over_all_words(tmp_path: Path) -> None:
    _write(tmp_path / "a" / "greedy.tsv", "x\t10\t1\t1\t0", "y\t30\t0\t0\t2")
    assert error_rate(tmp_path / "a" / "greedy.tsv") == 0.1


def test_table_has_the_base_first_and_only_what_is_scored(tmp_path: Path) -> None:
    for name, errors in (("base", 4), ("better", 2), ("unfinished", 1)):
        _write(tmp_path / name / "greedy.tsv", f"x\t10\t{errors}\t0\t0")
        if name != "unfinished":
            _write(tmp_path / name / "search.tsv", f"x\t10\t{errors - 1}\t0\t0")
    lines = table(tmp_path, {"better": "--set a.b=1", "unfinished": "", "base": ""})
    assert lines[2:] == [
        "| base |  | 40.0 % | 30.0 % |",
        "| better | `--set a.b=1` | 20.0 % (-20.0) | 10.0 % (-20.0) |",
    ]
    assert table(tmp_path, {"better": ""}) == []
