"""recipes/custom/run.sh as a user calls it: a folder of recordings with texts in, a model and its score out."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asr import checkpoint, manifest
from asr.search_file import default_search

ROOT = Path(__file__).parents[1]
RunRecipe = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The synthetic samples as somebody's own recordings; what the recipe makes of them is removed."""
    folder = tmp_path / f"own-{os.getpid()}"
    folder.mkdir()
    samples = ROOT / "data" / "samples"
    for utterance in manifest.read(samples / "manifest.jsonl"):
        audio = Path(utterance.audio)
        shutil.copy(audio, folder)
        (folder / audio.name).with_suffix(".txt").write_text(utterance.text)
    yield folder
    shutil.rmtree(ROOT / "runs" / f"custom-{folder.name}", ignore_errors=True)


def test_a_folder_becomes_a_measured_model(folder: Path, run_recipe: RunRecipe) -> None:
    ran = run_recipe(ROOT / "recipes/custom/run.sh", folder, HOLDOUT="2")
    run = ROOT / "runs" / f"custom-{folder.name}"
    assert checkpoint.load(run / "model.pt").info["steps"] == 1
    assert ran.stdout.count("2 scored") == 2  # greedy, and by the search that it then has
    assert default_search(run / "model.pt")[0].in_use()["ngram"] is not None
    assert len((run / "dev.tsv").read_text().splitlines()) == 3
    other = folder / "deeper" / folder.name
    other.mkdir(parents=True)
    command = [ROOT / "recipes/custom/run.sh", other]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"of another folder, {folder}: remove or rename it" in refused.stderr
    assert json.loads((run / "check.json").read_text())
