"""The character language model: one definition of a step, a fused pass that equals it, and its files."""

from pathlib import Path

import pytest
import torch

from asr import checkpoint
from asr.errors import CheckpointError, ConfigError
from asr.lm_checkpoint import TrainedLm, load_lm, save_lm
from asr.model.lm import CharacterLm, LmOptions
from asr.tokenizer import Tokenizer
from asr.weights import BITS

TOKENIZER = Tokenizer("abcdef ")
SPECIAL = [Tokenizer.blank, Tokenizer.pad, Tokenizer.sos]


def _model(*, layers: int = 1, dropout: float = 0.0) -> CharacterLm:
    torch.manual_seed(0)
    options = LmOptions(embedding=4, width=8, layers=layers, dropout=dropout)
    return CharacterLm(TOKENIZER.size, options).eval()


def _sentences(rows: int = 3, length: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(Tokenizer.eos + 1, TOKENIZER.size, (rows, length), generator=generator)
    tokens[:, 0] = Tokenizer.sos
    return tokens


@pytest.mark.parametrize("layers", [1, 2])
def test_step_equals_forward(layers: int) -> None:
    model, tokens = _model(layers=layers, dropout=0.5), _sentences()
    state, steps = model.initial_state(len(tokens)), []
    for column in tokens.unbind(1):
        log_probs, state = model.step(column, state)
        steps.append(log_probs)
    torch.testing.assert_close(torch.stack(steps, 1), model(tokens))


def test_blank_pad_and_sos_cannot_come_and_the_others_sum_to_1() -> None:
    with torch.no_grad():
        log_probs, _ = _model().step(torch.tensor([Tokenizer.sos]), _model().initial_state(1))
    assert bool((log_probs[0, SPECIAL] == float("-inf")).all())
    assert float(log_probs.exp().sum()) == pytest.approx(1)
    assert log_probs.shape == (1, TOKENIZER.size)


def test_a_selected_state_goes_on_as_its_row() -> None:
    model, tokens = _model(layers=2), _sentences()
    before = model.initial_state(3)
    _, state = model.step(tokens[:, 1], before)
    index = torch.tensor([2, 0, 0, 1])
    expected, _ = model.step(tokens[:, 2], state)
    moved, _ = model.step(tokens[index, 2], state.select(index))
    torch.testing.assert_close(moved, expected[index])
    assert not before.hidden[0].any()  # a state is a value: no step has changed it


@pytest.mark.parametrize("bits", [32, 16, 8])
def test_save_and_load_give_the_same_model(tmp_path: Path, bits: int) -> None:
    model, tokens = _model(layers=2), _sentences()
    path = tmp_path / "lm.pt"
    save_lm(path, TrainedLm(model, TOKENIZER, {"steps": 3}), bits=bits)
    loaded = load_lm(path)
    tolerance = {32: 0.0, 16: 0.01, 8: 0.1}[bits]
    torch.testing.assert_close(loaded.model(tokens), model(tokens), atol=tolerance, rtol=0)
    assert loaded.tokenizer.alphabet == TOKENIZER.alphabet
    assert loaded.info == {"steps": 3}
    assert not loaded.model.training
    assert loaded.model.output.weight.dtype == torch.float32


def test_a_file_is_as_large_as_its_bits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = CharacterLm(TOKENIZER.size, LmOptions(embedding=32, width=128))
    for bits in BITS:
        save_lm(tmp_path / f"{bits}.pt", TrainedLm(model, TOKENIZER, {}), bits=bits)
    eight, sixteen, whole = ((tmp_path / f"{bits}.pt").stat().st_size for bits in BITS)
    assert sixteen < 0.55 * whole
    assert eight < 0.6 * sixteen


def test_what_is_no_language_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with pytest.raises(CheckpointError, match=r"x\.pt: cannot read model"):
        load_lm(path)
    path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"x\.pt: damaged, or not a model file"):
        load_lm(path)
    torch.save({"progress": {}}, path)
    with pytest.raises(CheckpointError, match=r"x\.pt: the state of a training"):
        load_lm(path)
    torch.save({"format": 1, "weights": {}}, path)
    with pytest.raises(CheckpointError, match=r"x\.pt: not a language model"):
        load_lm(path)
    torch.save({"lm_format": 99}, path)
    with pytest.raises(
        CheckpointError, match=r"x\.pt: language model format 99; this version reads 1"
    ):
        load_lm(path)
    torch.save(
        {"lm_format": 1, "lm": {"width": 8}, "tokenizer": TOKENIZER.to_dict(), "weights": {}}, path
    )
    with pytest.raises(CheckpointError, match=r"x\.pt: not a language model of this version"):
        load_lm(path)


def test_a_language_model_is_not_taken_for_a_recognizer(tmp_path: Path) -> None:
    path = tmp_path / "lm.pt"
    save_lm(path, TrainedLm(_model(), TOKENIZER, {}))
    with pytest.raises(CheckpointError, match=r"lm\.pt: a language model, not a recognizer"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    "option", [{"width": 0}, {"layers": 0}, {"embedding": 0}, {"dropout": 1.5}]
)
def test_options_out_of_range_are_named(option: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"lm.{next(iter(option))}"):
        LmOptions(**option)  # type: ignore[arg-type]
