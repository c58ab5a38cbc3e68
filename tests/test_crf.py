"""CTC-CRF: the sum over all texts against all of them written out, its gradient, and a training with it."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from asr import checkpoint, manifest, phonemes
from asr.checkpoint import Trained
from asr.errors import ConfigError, TrainingError
from asr.model.crf import Trigram
from asr.model.seq2seq import ctc_loss, fits
from asr.phonemes import BLANK, SIZE
from asr.training.validation import phoneme_rates
from tests.trainings import config, make_manifest, rows, run

TEXTS = [(3, 4, 4), (3, 5), (4,), ()]


def of_text(trigram: Trigram, said: tuple[int, ...]) -> float:
    """The trigram's probability of a text."""
    triples = zip((BLANK, BLANK, *said), (BLANK, *said), (*said, BLANK), strict=False)
    return math.prod(float(trigram.probabilities[triple]) for triple in triples)


def test_a_trigram_says_what_follows_what() -> None:
    probabilities = Trigram(TEXTS * 100).probabilities
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(SIZE, SIZE))
    assert probabilities.min() > 0  # never seen is not impossible
    assert probabilities[BLANK, BLANK, 3] == pytest.approx(0.5, abs=0.05)
    assert probabilities[BLANK, 3, 4] > 0.4 > probabilities[BLANK, 4, 4]
    assert probabilities[4, 4, BLANK] > 0.8


def test_the_sum_is_that_over_all_texts() -> None:
    torch.manual_seed(1)
    log_probs = (3 * torch.randn(1, 3, SIZE)).log_softmax(-1)
    log_probs[:, :, 7:] = -40  # few texts are left to be written out
    trigram, total = Trigram(TEXTS * 5), 0.0
    for size in range(4):
        for said in itertools.product(range(1, 7), repeat=size):
            labels = torch.tensor([said], dtype=torch.int64)
            loss = ctc_loss(log_probs, torch.tensor([3]), labels, torch.tensor([size]), BLANK)
            if fits(torch.tensor([3]), labels, torch.tensor([size])):
                likely = of_text(trigram, said)
                assert trigram.log_prob(said) == pytest.approx(math.log(likely), abs=1e-4)
                total += likely * math.exp(-float(loss))
    found = trigram.log_partition(log_probs, torch.tensor([3]))
    assert float(found) == pytest.approx(math.log(total), abs=1e-4)


def test_two_equal_phonemes_need_a_frame_between() -> None:
    labels = torch.tensor([[4, 4, 5], [4, 4, 4], [4, 5, 5]])
    found = fits(torch.tensor([3, 4, 3]), labels, torch.tensor([3, 3, 2]))
    assert found.tolist() == [False, False, True]  # the last has padding at its end


def test_its_gradient_is_the_change_of_the_sum_and_none_where_padding_is() -> None:
    torch.manual_seed(2)
    trigram, lengths = Trigram(TEXTS), torch.tensor([6, 4])
    log_probs = torch.randn(2, 6, SIZE).log_softmax(-1).requires_grad_()
    trigram.log_partition(log_probs, lengths).sum().backward()
    assert log_probs.grad is not None
    torch.testing.assert_close(log_probs.grad[0].sum(-1), torch.ones(6))  # a label a frame
    assert log_probs.grad[1, 4:].abs().max() == 0
    for place in ((0, 0, 3), (0, 3, BLANK), (1, 3, 4), (1, 1, 9)):
        change = torch.zeros_like(log_probs)
        change[place] = 0.05
        more, less = (
            trigram.log_partition(log_probs.detach() + sign * change, lengths).sum()
            for sign in (1, -1)
        )
        assert float(more - less) / 0.1 == pytest.approx(float(log_probs.grad[place]), abs=2e-3)


def test_padding_changes_nothing() -> None:
    torch.manual_seed(3)
    trigram, log_probs = Trigram(TEXTS), torch.randn(2, 8, SIZE).log_softmax(-1)
    both = trigram.log_partition(log_probs, torch.tensor([8, 5]))
    alone = trigram.log_partition(log_probs[1:, :5], torch.tensor([5]))
    torch.testing.assert_close(both[1:], alone)


def test_phoneme_layers_learn_with_it(tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx", reason="the pronouncing dictionary is not installed")
    manifest_path = make_manifest(tmp_path / "toy")
    hears: dict[str, dict[str, Any]] = {"model": {"phonemes": True, "phoneme_layers": 1}}
    crf: dict[str, dict[str, Any]] = {"training": {"phonemes_alone": True, "crf": True}}
    quick: dict[str, dict[str, Any]] = {"training": {"learning_rate": 1e-2, "max_steps": 12}}
    first = run(tmp_path / "first", config(manifest_path, hears)) / "model.pt"
    recipe = config(manifest_path, hears, crf, quick, dev=True)
    output = run(tmp_path / "crf", recipe, initial=first)
    found = [row["phonemes"] for row in rows(output)]
    assert found[-1] < found[0]
    trained = checkpoint.load(output / "model.pt")
    measured = trained.info["dev"]["crf"]
    assert 0 < measured < untrained(checkpoint.load(first), manifest_path)
    without = run(
        tmp_path / "ctc",
        config(manifest_path, hears, crf, quick, {"training": {"crf": False}}),
        initial=first,
    )
    assert rows(without)[0]["phonemes"] > found[0]  # less the sum over all texts, which is below 1


def untrained(trained: Trained, manifest_path: Path) -> float:
    """The loss of a model that has not learnt with it."""
    utterances = manifest.read(manifest_path)
    trigram = Trigram(phonemes.encode(utterance.text) for utterance in utterances)
    return phoneme_rates(trained, utterances, trigram)["crf"]


def test_it_needs_phonemes(tmp_path: Path) -> None:
    manifest_path = make_manifest(tmp_path / "toy")
    with pytest.raises(TrainingError, match=r"training\.crf: needs model\.phonemes = true"):
        run(tmp_path, config(manifest_path, {"training": {"crf": True}}))
    with pytest.raises(ConfigError, match=r"training\.crf: .*training\.phonemes"):
        config(manifest_path, {"training": {"crf": True, "phonemes": 0.0}})
