"""The model that ships with the package, on the samples that ship with the repository."""

from pathlib import Path

import pytest
import torch

import asr
from asr import checkpoint, manifest
from asr.evaluate import Evaluation, evaluate

ASSETS = checkpoint.bundled().parent
SAMPLES = Path(__file__).parents[1] / "data" / "samples" / "manifest.jsonl"


@pytest.fixture(scope="module")
def recognizer() -> asr.Recognizer:
    return asr.load()


@pytest.fixture(scope="module")
def samples(recognizer: asr.Recognizer) -> Evaluation:
    return evaluate(recognizer, manifest.read(SAMPLES))


def test_all_assets_fit_into_30_megabytes() -> None:
    assert sum(path.stat().st_size for path in ASSETS.iterdir()) <= 30_000_000


def test_the_bundled_model_reads_the_samples(samples: Evaluation) -> None:
    assert len(samples.rows) == 8
    assert samples.wer < 0.2
    assert samples.cer < 0.1
    assert samples.cut == 0


def test_its_attention_has_formed(samples: Evaluation) -> None:
    assert samples.diagonality > 0.95


def test_it_says_nothing_on_silence(recognizer: asr.Recognizer) -> None:
    assert recognizer.transcribe(torch.zeros(32_000)).text == ""
    assert recognizer.transcribe(torch.randn(32_000) * 1e-4).text == ""


def test_its_card_names_every_manifest_it_was_trained_on() -> None:
    card = (ASSETS / "README.md").read_text(encoding="utf-8")
    part, trained_on = checkpoint.load(checkpoint.bundled()).info, set[str]()
    while part:
        trained_on |= set(part["manifests"])
        part = part.get("begun_with", {})
    libri, others = {"train-clean-5", "train-clean-100"}, {"commonvoice", "kathleen", "ljspeech"}
    corpora = libri | others | {"vctk", "synthetic"}
    assert {Path(name).stem.removesuffix("-train") for name in trained_on} == corpora
    for corpus in corpora:
        assert corpus in card.lower().replace(" ", ""), corpus
