"""The benchmark of training speed: it measures what it says and ends in one JSON line."""

import json
from pathlib import Path

import pytest

from asr import config
from recipes.benchmark import train_speed
from recipes.benchmark.train_speed import PARTS, Plan, made_up_data, measure, table

TINY = """
[data]
batch_seconds = 6.0
[features]
n_mels = 20
[model.encoder]
width = 8
channels = 4
[model.decoder]
width = 8
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    return str(path)


def test_the_last_line_is_json_that_says_what_was_measured(
    recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--threads", "1", "--precision", "bf16", "--seconds", "2", "--repeats", "2"]
    assert train_speed.main([recipe, *arguments, "--set", "model.ctc=false"]) == 0
    printed = capsys.readouterr()
    (line,) = printed.out.splitlines()
    values = json.loads(line)
    assert (values["benchmark"], values["recipe"]) == ("train_speed", recipe)
    assert (values["utterance_seconds"], values["batch_seconds"]) == (2.0, 6.0)
    assert values["set"] == ["model.ctc=false"]
    assert values["torch"]
    assert values["cpu"]
    assert values["cpus_usable"] >= 1
    (result,) = values["results"]
    assert (result["threads"], result["precision"], result["batch"]) == (1, "bf16", 3)
    assert result["times_real_time"] == pytest.approx(6 / result["step_seconds"], rel=0.05)
    assert 0 < result["cpu_share"] < 1.1
    assert printed.err.splitlines()[0].startswith("threads  precision")


def test_the_fastest_of_the_measured_steps_counts(
    recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0.1, 9.0, 4.0, 5.0])
    intact = train_speed.timed_step

    def timed_step(*arguments: object) -> object:
        batch, times = intact(*arguments)  # type: ignore[arg-type]
        return batch, dict.fromkeys(times, next(seconds) / len(times))

    monkeypatch.setattr(train_speed, "timed_step", timed_step)
    speed = measure(Plan(recipe, (), 1, "float32", 2.0, 0, warmup=1, repeats=3))
    assert speed.step_seconds == 4.0
    assert speed.median_step_seconds == 5.0
    assert speed.times_real_time == 1.5
    assert speed.data_share == 0.25
    assert sum(getattr(speed, f"{part}_seconds") for part in PARTS) == pytest.approx(4.0)
    assert str(speed.peak_rss_mib) in table([speed]).splitlines()[1]


def test_made_up_utterances_fill_one_batch(recipe: str, tmp_path: Path) -> None:
    data = made_up_data(config.load(recipe), 1.5, tmp_path / "features.f16")
    batch = data.batch([(index, 0) for index in range(len(data))])
    assert batch.seconds == 6.0
    assert batch.feature_lengths.tolist() == [150] * 4
    assert batch.token_lengths.tolist() == [21] * 4
    assert batch.features.std() == pytest.approx(1, abs=0.1)


def test_a_recipe_that_cannot_be_read_is_one_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing.toml"
    assert train_speed.main([str(missing)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {missing}: cannot read recipe")
