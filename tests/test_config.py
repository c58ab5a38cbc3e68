"""asr.config: recipes and `--set` to one Config; what is not an option is refused by name."""

import dataclasses
from pathlib import Path

import pytest

from asr import config
from asr.config import Config, LmConfig
from asr.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "recipes").rglob("*.toml"))


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_recipe_is_understood(path: Path) -> None:
    assert config.load_any(path) not in (Config(), LmConfig())


def test_there_are_recipes() -> None:
    assert RECIPES


def test_an_empty_recipe_is_all_defaults(tmp_path: Path) -> None:
    assert config.load(write(tmp_path, "")) == Config()


def test_a_recipe_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[data]\ntrain = ["a.jsonl"]\n[model.decoder.attention]\nkind = "dot"\n[training]\nhours = 2\n',
    )
    built, default = config.load(path), Config()
    assert built.data == dataclasses.replace(default.data, train=("a.jsonl",))
    attention = dataclasses.replace(default.model.decoder.attention, kind="dot")
    assert built.model.decoder == dataclasses.replace(default.model.decoder, attention=attention)
    assert built.model.encoder == default.model.encoder
    assert built.training == dataclasses.replace(default.training, hours=2.0)
    assert (built.features, built.augment) == (default.features, default.augment)


def test_a_recipe_with_a_base_changes_that_one_and_not_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "below.toml").write_text(
        '[data]\ntrain = ["a.jsonl"]\n[model.encoder]\nwidth = 64\n[training]\nseed = 5\n',
        encoding="utf-8",
    )
    text = 'base = "below.toml"\n[model.encoder]\nchannels = 8\n[training]\nhours = 2\n'
    built = config.load(write(tmp_path, text), ["training.seed=7"])
    assert built.data.train == ("a.jsonl",)
    assert (built.model.encoder.width, built.model.encoder.channels) == (64, 8)
    assert (built.training.hours, built.training.seed) == (2.0, 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base = 3\n", "base 3: must be the file name of a recipe beside it"),
        ('base = ""\n', "base '': must be the file name"),
        ('base = "none.toml"\n', r"none\.toml: cannot read recipe: No such file"),
        ('base = "recipe.toml"\n', r"base recipe\.toml: has a base itself"),
    ],
)
def test_a_base_that_cannot_be_used_is_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        config.load(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[date]\n",
            r"unknown option date; allowed are augment, data, features, model, spelling, training",
        ),
        ("[data]\nbatch = 1\n", r"unknown option data\.batch; allowed are batch_seconds, cache"),
        (
            "[model.decoder.attention]\nhead = 1\n",
            r"unknown option model\.decoder\.attention\.head; allowed are heads",
        ),
        ("[training]\nseed = 1.5\n", r"option training\.seed: a value of type int, not 1\.5"),
        ("[data]\ntrain = 'a'\n", r"option data\.train: a list, not 'a'"),
        ("model = 3\n", r"option model: a table of options, not 3"),
        ("[model.encoder]\nsubsampling = 3\n", r"subsampling 3: allowed are 1, 2, 4"),
        ("[data]\nworkers = -1\n", r"data\.workers -1: must be at least 0"),
        ("[data]\nbatch_seconds = 0\n", r"data\.batch_seconds 0\.0: must be from 0\.1 to 1e\+06"),
        ("[features]\nn_mels = 0\n", r"features\.n_mels 0: must be at least 1"),
        ("[features]\nhop_ms = 0\n", r"hop_ms 0\.0, window_ms 25\.0: too short"),
        ("[features]\nsample_rate = 8000\n", r"high_hz 8000\.0: .*half the sample rate, 4000"),
        ("[features]\nlow_hz = 9000\n", r"low_hz 9000\.0.*must be below high_hz"),
        ("[data\n", r"not a TOML file: "),
        ("[data]\ncache = 1\ncache = 2\n", r"not a TOML file: "),
    ],
)
def test_what_is_wrong_in_a_recipe_is_named_with_its_file(
    text: str, message: str, tmp_path: Path
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as error:
        config.load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.toml: cannot read recipe: No such file"):
        config.load(tmp_path / "missing.toml")
    with pytest.raises(ConfigError, match="cannot read recipe: Is a directory"):
        config.load(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.toml: not a TOML file"):
        config.load(tmp_path / "binary.toml")


def test_set_changes_single_options_and_the_last_one_wins(tmp_path: Path) -> None:
    path = write(tmp_path, "[training]\nseed = 5\nhours = 1\n")
    built = config.load(
        path,
        [
            "training.seed=7",
            "training.learning_rate = 3e-4",
            "model.decoder.attention.kind=additive",
            "model.encoder.residual=true",
            "data.train=['a.jsonl', 'b c.jsonl']",
            "data.cache=/tmp/some where=else",
            "training.hours=2",
            "training.hours=3",
        ],
    )
    assert (built.training.seed, built.training.hours) == (7, 3.0)
    assert built.training.learning_rate == 3e-4
    assert built.model.decoder.attention.kind == "additive"
    assert built.model.encoder.residual is True
    assert built.data.train == ("a.jsonl", "b c.jsonl")
    assert built.data.cache == "/tmp/some where=else"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.seed", "must be section.key=value, as in training.seed=2"),
        ("seed=2", "must be section.key=value"),
        ("=2", "must be section.key=value"),
        ("training.sed=2", r"unknown option training\.sed; allowed are .*seed"),
        ("trainings.seed=2", r"unknown option trainings"),
        ("training.seed=two", r"option training\.seed: a value of type int, not 'two'"),
        ("training.seed=", r"option training\.seed: a value of type int, not ''"),
        ("training.seed.more=2", "--set training.seed.more=2: seed is a value, not a section"),
        ("model.encoder=3", r"option model\.encoder: a table of options, not 3"),
        ("training..seed=3", r"unknown option training\."),
    ],
)
def test_a_wrong_set_is_refused_by_name(override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        config.load(write(tmp_path, "[training]\nseed = 5\n"), [override])
