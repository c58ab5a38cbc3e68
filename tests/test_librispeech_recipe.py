"""recipes/librispeech/run.sh as a user calls it, in a copy of the tree: corpora in, a scored model out."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from asr import checkpoint, manifest

ROOT = Path(__file__).parents[1]
SUBSETS = ("train-clean-5", "dev-clean", "test-clean", "test-other")
RunRecipe = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The recipes and the package in a folder of their own, with two samples for each of LibriSpeech's sets."""
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "recipes", tree / "recipes")
    (tree / "asr").symlink_to(ROOT / "asr")
    samples = manifest.read(ROOT / "data" / "samples" / "manifest.jsonl")
    for speaker, subset in enumerate(SUBSETS):
        chapter = tree / "data" / "LibriSpeech" / subset / str(speaker) / "1"
        chapter.mkdir(parents=True)
        lines = []
        for number, utterance in enumerate(samples[2 * speaker : 2 * speaker + 2]):
            name = f"{speaker}-1-{number:04d}"
            shutil.copy(utterance.audio, chapter / f"{name}.opus")
            lines.append(f"{name} {utterance.text.upper()}\n")
        (chapter / f"{speaker}-1.trans.txt").write_text("".join(lines))
    return tree


def test_mini_is_trained_and_scored_greedily_and_with_its_search(
    tree: Path, run_recipe: RunRecipe
) -> None:
    ran = run_recipe(tree / "recipes/librispeech/run.sh", "mini", ROOT="data")
    assert "no synthetic speech" in ran.stderr
    info = checkpoint.load(tree / "runs/mini/model.pt").info
    assert info["steps"] == 1
    assert ran.stdout.count("2 scored") == 2 * len(SUBSETS[1:])
    for subset in SUBSETS[1:]:
        assert f"== {subset}, greedy" in ran.stdout
        assert len((tree / f"runs/mini/{subset}.tsv").read_text().splitlines()) == 3
