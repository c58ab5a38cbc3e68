"""asr.model: padding, steps, losses and gradients of every cell and attention, and what the options do."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from models import (
    CELLS,
    CHARACTERS,
    KINDS,
    MELS,
    TOKENIZER,
    padded,
    random_features,
    random_tokens,
    tiny_model,
    tiny_options,
)
from torch import Tensor, nn
from torch.nn import functional as F

from asr.devices import has_bf16_kernels
from asr.errors import ConfigError
from asr.model import DecoderOptions, EncoderOptions, Losses, LossWeights, Memory, Seq2Seq, State
from asr.model.encoder import LockedDropout
from asr.model.memory import length_mask
from asr.model.seq2seq import cross_entropy, decoder_inputs_and_targets, guide_penalty
from asr.phonemes import BLANK

ENCODERS: list[dict[str, Any]] = [
    {"subsampling": 1, "bottom_layers": 1, "norm": False},
    {"subsampling": 1, "pyramid_levels": 3},
    {"subsampling": 2, "bottom_layers": 1, "residual": True, "norm": False},
    {"subsampling": 4, "flat_layers": 2, "locked_dropout": True, "residual": True, "dropout": 0.5},
]
ENCODER_NAMES = ["flat", "pyramid", "residual", "deep"]
FRAMES, TOKENS = (37, 5, 22, 16), (6, 1, 4, 3)
WEIGHTS = LossWeights(ctc=0.3, label_smoothing=0.1, guide=1.0)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=2e-4)


def run(model: Seq2Seq, features: Sequence[Tensor], tokens: Sequence[Tensor]) -> Losses:
    return model(*padded(features), *padded(tokens, TOKENIZER.pad), WEIGHTS)


def results(
    model: Seq2Seq, features: tuple[Tensor, Tensor], tokens: Tensor
) -> tuple[Memory, Tensor | None, Tensor, Tensor]:
    """Memory, CTC log_probs, teacher-forced log_probs and attention."""
    memory = model.encode(*features)
    return memory, model.ctc_log_probs(memory), *model.decoder.teacher_forced(tokens, memory)


def by_steps(model: Seq2Seq, tokens: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
    """What `teacher_forced` must equal: log_probs (B, L, V) and attention (B, L, U) of one step after the other."""
    state = model.initial_state(memory)
    log_probs, attention = [], []
    for token in tokens.unbind(1):
        scores, state = model.step(token, memory, state)
        log_probs.append(scores)
        attention.append(state.attention)
    return torch.stack(log_probs, 1), torch.stack(attention, 1)


@pytest.mark.parametrize("encoder", ENCODERS, ids=ENCODER_NAMES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_padding_changes_no_result(cell: str, kind: str, encoder: dict[str, Any]) -> None:
    model = tiny_model(cell=cell, kind=kind, layers=2, input_feeding=cell != "gru", **encoder)
    features, tokens = random_features(*FRAMES), random_tokens(*TOKENS)
    inputs = decoder_inputs_and_targets(*padded(tokens, TOKENIZER.pad))[0]
    batch = results(model, padded(features, filling=100.0, extra=9), inputs)
    for row, (alone_features, alone_tokens) in enumerate(zip(features, tokens, strict=True)):
        length = len(alone_tokens) + 1
        alone = results(model, padded([alone_features]), inputs[row : row + 1, :length])
        steps = int(alone[0].lengths[0])
        assert int(batch[0].lengths[row]) == steps == alone[0].values.shape[1]
        close(batch[0].values[row, :steps], alone[0].values[0])
        close(batch[1][row, : steps * model.ctc_factor], alone[1][0])
        close(batch[2][row, :length], alone[2][0])
        close(batch[3][row, :length, :steps], alone[3][0])
    together = run(model, features, tokens)
    parts = [run(model, [f], [t]) for f, t in zip(features, tokens, strict=True)]
    for name in ("attention", "ctc", "guide", "total", "targets"):
        close(getattr(together, name), sum(getattr(part, name) for part in parts))


@pytest.mark.parametrize("subsampling", [1, 2, 4])
@torch.no_grad()
def test_what_stands_in_the_padding_does_not_matter(subsampling: int) -> None:
    model = tiny_model(subsampling=subsampling, pyramid_levels=2)
    features = random_features(30, 9)
    clean, lengths = padded(features, extra=5)
    expected = model.encode(clean, lengths).values
    for garbage in (-1e4, float("inf"), float("nan")):
        values = model.encode(padded(features, garbage, extra=5)[0], lengths).values
        assert torch.equal(values, expected)


@pytest.mark.parametrize("encoder", ENCODERS, ids=ENCODER_NAMES)
@torch.no_grad()
def test_memory_has_one_step_for_every_started_reduction_and_zeros_after(
    encoder: dict[str, Any],
) -> None:
    model = tiny_model(**encoder)
    memory = model.encode(*padded(random_features(*FRAMES), filling=9.0, extra=9))
    reduction = model.options.encoder.reduction
    assert model.frame_seconds == pytest.approx(0.01 * reduction)
    assert memory.lengths.tolist() == [-(-frames // reduction) for frames in FRAMES]
    assert torch.equal(memory.mask, length_mask(memory.lengths, memory.values.shape[1]))
    assert memory.values[~memory.mask].abs().max() == 0
    assert memory.values[memory.mask].abs().min() > 0


@torch.no_grad()
def test_an_utterance_of_one_frame_is_encoded_and_one_without_frames_harms_no_other() -> None:
    for kind in KINDS:
        model = tiny_model(kind=kind, subsampling=4)
        features = [*random_features(12, 1), torch.zeros(0, MELS)]
        memory = model.encode(*padded(features))
        assert memory.lengths.tolist() == [2, 1, 0]
        inputs = torch.full((3, 2), TOKENIZER.sos)
        log_probs, attention = model.decoder.teacher_forced(inputs, memory)
        assert not log_probs.isnan().any()
        assert attention[2].abs().max() == 0
        assert torch.isfinite(run(model, features, random_tokens(3, 1, 1)).total)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("input_feeding", [True, False], ids=["fed", "unfed"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_step_equals_forward(cell: str, kind: str, input_feeding: bool, layers: int) -> None:
    model = tiny_model(cell=cell, kind=kind, input_feeding=input_feeding, layers=layers)
    memory = model.encode(*padded(random_features(40, 13)))
    inputs = decoder_inputs_and_targets(*padded(random_tokens(6, 3), TOKENIZER.pad))[0]
    log_probs, attention = model.decoder.teacher_forced(inputs, memory)
    stepped, looked = by_steps(model, inputs, memory)
    close(log_probs, stepped)
    close(attention, looked)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_attention_rows_sum_to_1_and_are_exactly_0_past_the_length(kind: str) -> None:
    model = tiny_model(kind=kind)
    memory = model.encode(*padded(random_features(40, 13, 1)))
    inputs = torch.cat([torch.full((3, 1), TOKENIZER.sos), torch.stack(random_tokens(5, 5, 5))], 1)
    attentions = [
        model.decoder.teacher_forced(inputs, memory)[1],
        by_steps(model, inputs, memory)[1],
    ]
    for attention in attentions:
        torch.testing.assert_close(attention.sum(-1), torch.ones(3, 6))
        assert (
            attention.masked_select(~memory.mask[:, None].expand(attention.shape)).abs().max() == 0
        )


@torch.no_grad()
def test_log_probs_name_characters_and_eos_alone() -> None:
    model = tiny_model()
    memory = model.encode(*padded(random_features(20, 8)))
    log_probs, _ = model.step(torch.full((2,), TOKENIZER.sos), memory, model.initial_state(memory))
    assert log_probs.shape == (2, TOKENIZER.size)
    never = [TOKENIZER.blank, TOKENIZER.pad, TOKENIZER.sos]
    assert (log_probs[:, never] == float("-inf")).all()
    assert torch.isfinite(log_probs[:, [TOKENIZER.eos, *CHARACTERS]]).all()
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(2))


@pytest.mark.parametrize("speller", [None, 0.5], ids=["decoder", "speller"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_selected_rows_go_on_as_in_their_own_batch(kind: str, speller: float | None) -> None:
    model = tiny_model(kind=kind, layers=2, phonemes=True, speller=speller)
    memory = model.with_speller(model.encode(*padded(random_features(40, 13, 25))))
    inputs = torch.stack(random_tokens(3, 3, 3))
    state = model.initial_state(memory)
    for token in inputs.unbind(1):
        _, state = model.step(token, memory, state)
    index = torch.tensor([2, 0, 2, 1, 0])
    following = torch.tensor([CHARACTERS.start, CHARACTERS.start + 1, CHARACTERS.start + 2])
    expected, after = model.step(following, memory, state)
    actual, chosen = model.step(following[index], memory.select(index), state.select(index))
    close(actual, expected[index])
    for ours, theirs in zip(_values(chosen), _values(after), strict=True):
        close(ours, theirs[index])


def _values(state: State) -> list[torch.Tensor]:
    """All tensors of a state, the speller's among them."""
    own = [*state.hidden, state.context, state.attention, state.coverage]
    return own + ([] if state.spelled is None else _values(state.spelled))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_step_changes_neither_its_state_nor_the_model(kind: str) -> None:
    model = tiny_model(kind=kind, cell="gru")
    memory = model.encode(*padded(random_features(20, 8)))
    state = model.initial_state(memory)
    tokens = torch.full((2,), TOKENIZER.sos)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    first, after = model.step(tokens, memory, state)
    model.step(tokens + 2, memory, after)
    assert torch.equal(model.step(tokens, memory, state)[0], first)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_location_attention_moves_on_by_what_it_saw_before() -> None:
    model = tiny_model(kind="location")
    memory = model.encode(*padded(random_features(40)))
    state = model.initial_state(memory)
    elsewhere = dataclasses.replace(state, attention=state.attention.roll(4, -1))
    tokens = torch.tensor([TOKENIZER.sos])
    here, there = (model.step(tokens, memory, s)[1].attention for s in (state, elsewhere))
    assert (here - there).abs().max() > 1e-3


@torch.no_grad()
def test_coverage_is_the_sum_of_all_weights() -> None:
    model = tiny_model(kind="additive")
    memory = model.encode(*padded(random_features(20, 8)))
    state, seen = model.initial_state(memory), []
    for token in torch.stack(random_tokens(4, 4)).unbind(1):
        _, state = model.step(token, memory, state)
        seen.append(state.attention)
    close(state.coverage, torch.stack(seen).sum(0))


@torch.no_grad()
def test_scheduled_sampling_reads_nothing_or_only_its_own_guesses() -> None:
    for kind, input_feeding in itertools.product(("dot", "location"), (True, False)):
        model = tiny_model(kind=kind, input_feeding=input_feeding)
        memory = model.encode(*padded(random_features(20, 8)))
        start = torch.full((2, 1), TOKENIZER.sos)
        inputs = torch.cat([start, torch.stack(random_tokens(5, 5))], 1)
        given, _ = model.decoder.teacher_forced(inputs, memory)
        guesses = torch.cat([start, given.argmax(-1)[:, :-1]], 1)
        assert not torch.equal(guesses, inputs)
        guessed, _ = model.decoder.teacher_forced(guesses, memory)
        close(model.decoder.teacher_forced(inputs, memory, 0.0)[0], given)
        close(model.decoder.teacher_forced(inputs, memory, 1.0)[0], guessed)
        torch.manual_seed(3)
        some, _ = model.decoder.teacher_forced(inputs, memory, 0.5)
        assert not torch.allclose(some, given)
        assert not torch.allclose(some, guessed)


@pytest.mark.parametrize("input_feeding", [True, False])
def test_all_of_the_decoder_learns_from_its_own_guesses_in_bf16(input_feeding: bool) -> None:
    model = tiny_model(kind="location", input_feeding=input_feeding)
    features, tokens = random_features(20, 8), random_tokens(5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        weights = LossWeights(ctc=0.3, sampling=1.0)
        losses = model(*padded(features), *padded(tokens, TOKENIZER.pad), weights)
    losses.total.backward()
    for name, weight in model.decoder.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name


def test_inputs_begin_with_sos_and_targets_end_with_eos() -> None:
    pad, sos, eos = TOKENIZER.pad, TOKENIZER.sos, TOKENIZER.eos
    tokens, lengths = padded([torch.tensor([4, 5, 6]), torch.tensor([7])], pad)
    inputs, targets = decoder_inputs_and_targets(tokens, lengths)
    assert inputs.tolist() == [[sos, 4, 5, 6], [sos, 7, pad, pad]]
    assert targets.tolist() == [[4, 5, 6, eos], [7, eos, pad, pad]]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_cross_entropy_equals_torchs_on_characters_and_eos(smoothing: float) -> None:
    logits = torch.randn(2, 4, TOKENIZER.size - TOKENIZER.eos)
    log_probs = F.pad(logits.log_softmax(-1), (TOKENIZER.eos, 0), value=float("-inf"))
    tokens, lengths = padded(random_tokens(3, 1), TOKENIZER.pad)
    _, targets = decoder_inputs_and_targets(tokens, lengths)
    valid = length_mask(lengths + 1, 4)
    expected = F.cross_entropy(
        logits[valid], targets[valid] - TOKENIZER.eos, label_smoothing=smoothing, reduction="sum"
    )
    torch.testing.assert_close(cross_entropy(log_probs, targets, valid, smoothing), expected)


@pytest.mark.parametrize("encoder", [{"subsampling": 4}, {"subsampling": 1, "pyramid_levels": 3}])
def test_ctc_loss_equals_torchs_utterance_by_utterance(encoder: dict[str, Any]) -> None:
    model = tiny_model(**encoder)
    features, tokens = random_features(90, 70, 50), random_tokens(5, 3, 1)
    expected = torch.zeros(())
    for alone, text in zip(features, tokens, strict=True):
        log_probs = model.ctc_log_probs(model.encode(alone[None], torch.tensor([len(alone)])))
        assert log_probs is not None
        torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(log_probs.shape[:2]))
        sizes = torch.tensor([log_probs.shape[1]]), torch.tensor([len(text)])
        expected = expected + F.ctc_loss(
            log_probs.transpose(0, 1), text[None], *sizes, blank=TOKENIZER.blank, reduction="sum"
        )
    close(run(model, features, tokens).ctc, expected)


def test_more_labels_than_ctc_frames_count_as_no_loss_and_give_no_nan() -> None:
    model = tiny_model(subsampling=4)
    long = torch.tensor([CHARACTERS.start] * 9)
    losses = run(model, random_features(12), [long])
    assert losses.ctc == 0
    both = run(model, random_features(12, 40), [long, long[:2]])
    assert both.ctc > 0
    both.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("subsampling", "levels"), [(2, 0), (4, 0), (1, 2), (2, 1), (4, 1), (1, 3), (4, 2)]
)
@torch.no_grad()
def test_ctc_has_at_least_25_frames_a_second(subsampling: int, levels: int) -> None:
    model = tiny_model(subsampling=subsampling, pyramid_levels=levels)
    assert model.ctc_factor / model.frame_seconds >= 25 - 1e-6
    assert (model.ctc_factor - 1) / model.frame_seconds < 25 - 1e-6  # and no more than needed
    memory = model.encode(*padded(random_features(200)))
    log_probs = model.ctc_log_probs(memory)
    assert log_probs is not None
    assert log_probs.shape == (1, int(memory.lengths[0]) * model.ctc_factor, TOKENIZER.size)
    assert log_probs.shape[1] >= 50


def test_total_is_the_weighted_sum_per_its_equation() -> None:
    model = tiny_model()
    batch = (*padded(random_features(40, 30)), *padded(random_tokens(4, 2), TOKENIZER.pad))
    both = model(*batch, LossWeights(ctc=0.3, guide=2.0))
    close(both.total, 0.7 * (both.attention + 2.0 * both.guide) + 0.3 * both.ctc)
    assert both.targets == 4 + 2 + 2
    assert min(both.attention, both.ctc, both.guide) > 0
    alone = model(*batch, LossWeights(ctc=0.0))
    close(alone.total, both.attention)
    assert alone.ctc == alone.guide == 0


def test_ctc_alone_does_not_run_the_decoder() -> None:
    model = tiny_model()
    batch = (*padded(random_features(40, 30)), *padded(random_tokens(4, 2), TOKENIZER.pad))
    alone = model(*batch, LossWeights(ctc=1.0, guide=1.0))
    close(alone.total, model(*batch, LossWeights(ctc=0.3)).ctc)
    assert alone.attention == alone.guide == 0
    alone.total.backward()
    assert all(parameter.grad is None for parameter in model.decoder.parameters())
    assert all(parameter.grad is not None for parameter in model.encoder.parameters())


def test_without_a_ctc_head_the_loss_is_the_attentions() -> None:
    model = tiny_model(ctc=False)
    assert model.ctc_log_probs(model.encode(*padded(random_features(20)))) is None
    losses = run(model, random_features(20), random_tokens(3))
    close(losses.total, losses.attention + losses.guide)


def test_the_phoneme_head_learns_from_the_first_layer_alone() -> None:
    model = tiny_model(phonemes=True)
    batch = (*padded(random_features(40, 30)), *padded(random_tokens(4, 2), TOKENIZER.pad))
    spoken = (torch.tensor([[2, 3, 3], [40, 1, 0]]), torch.tensor([3, 2]))
    without = model(*batch, LossWeights(ctc=0.3), *spoken)
    losses = model(*batch, LossWeights(ctc=0.3, phonemes=0.5), *spoken)
    assert without.phonemes == 0
    assert losses.phonemes > 0
    close(losses.total, without.total + 0.5 * losses.phonemes)
    losses.phonemes.backward()
    assert model.phonemes is not None
    assert model.phonemes.weight.grad is not None
    first, *others = model.encoder.layers
    assert all(parameter.grad is not None for parameter in first.parameters())
    assert all(parameter.grad is None for layer in others for parameter in layer.parameters())


def test_phonemes_can_learn_alone_and_nothing_else_then_changes() -> None:
    model = tiny_model(phonemes=True, phoneme_layers=2)
    model.learn_phonemes_alone()
    batch = (*padded(random_features(40, 30)), *padded(random_tokens(4, 2), TOKENIZER.pad))
    spoken = (torch.tensor([[2, 3, 3], [40, 1, 0]]), torch.tensor([3, 2]))
    losses = model(*batch, LossWeights(phonemes=0.5, phonemes_alone=True), *spoken)
    assert losses.total == 0.5 * losses.phonemes > 0
    assert losses.attention == losses.ctc == losses.guide == 0
    assert losses.targets == 5
    losses.total.backward()
    learnt = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learnt == {name for name in model.state_dict() if name.startswith("phoneme")}
    usual = model(*batch, LossWeights(phonemes=1.0), *spoken)
    close(losses.phonemes, usual.phonemes)


def test_phonemes_of_an_utterance_are_the_same_alone_and_in_a_batch() -> None:
    model = tiny_model(phonemes=True, phoneme_layers=2, bottom_layers=1)
    features = random_features(40, 30)
    together = model.phoneme_log_probs(model.encode(*padded(features, extra=7)))
    assert together is not None
    assert together[1].tolist() == [20, 15]  # at the first layer's rate, not at the memory's
    for row, one in enumerate(features):
        alone = model.phoneme_log_probs(model.encode(*padded([one])))
        assert alone is not None
        close(together[0][row, : together[1][row]], alone[0][0])
    assert tiny_model().phoneme_log_probs(tiny_model().encode(*padded(features))) is None


def test_layers_for_phonemes_without_their_head_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.phoneme_layers: needs model.phonemes = true"):
        tiny_options(phoneme_layers=2)


def test_a_phoneme_loss_is_what_its_utterance_alone_has() -> None:
    model = tiny_model(phonemes=True)
    features, tokens = random_features(40, 30), random_tokens(4, 2)
    spoken = [torch.tensor([2, 3, 3]), torch.tensor([40, 1])]
    weights = LossWeights(phonemes=1.0)
    both = model(
        *padded(features), *padded(tokens, TOKENIZER.pad), weights, *padded(spoken, BLANK)
    ).phonemes
    alone = [
        model(*padded([f]), *padded([t]), weights, *padded([s])).phonemes
        for f, t, s in zip(features, tokens, spoken, strict=True)
    ]
    close(both, sum(alone))


def guide_of(rows: Tensor, width: float = 0.1) -> float:
    """The penalty of an attention (L, U) on one utterance."""
    steps = torch.tensor([rows.shape[1]])
    memory = Memory(
        torch.zeros(1, rows.shape[1], 1), steps, steps, length_mask(steps, rows.shape[1])
    )
    return float(guide_penalty(rows[None], torch.tensor([rows.shape[0]]), memory, width))


def test_guide_penalty_is_lower_for_a_diagonal_attention() -> None:
    diagonal = torch.eye(12).repeat_interleave(2, 1) / 2
    flat = torch.full((12, 24), 1 / 24)
    assert guide_of(torch.eye(12)) == 0
    assert guide_of(diagonal) < 0.1 * guide_of(flat) < 0.1 * guide_of(diagonal.flip(0))
    assert guide_of(diagonal.roll(2, 1)) > guide_of(diagonal)
    assert guide_of(flat, width=0.3) < guide_of(flat, width=0.1)


def test_guide_penalty_is_its_equation_and_ends_with_the_text() -> None:
    attention, lengths = torch.rand(2, 5, 6).softmax(-1), torch.tensor([5, 3])
    sizes = torch.tensor([6, 4])
    mask = length_mask(sizes, 6)
    attention = attention * mask[:, None]
    expected = 0.0
    for b, n, t in itertools.product(range(2), range(5), range(6)):
        if n < lengths[b]:
            away = float(n / lengths[b] - t / sizes[b])
            expected += float(attention[b, n, t]) * (1 - 2.718281828 ** (-(away**2) / (2 * 0.2**2)))
    memory = Memory(torch.zeros(2, 6, 1), sizes, torch.zeros(2, 6, 0), mask)
    penalty = guide_penalty(attention, lengths, memory, 0.2)
    assert float(penalty) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("input_feeding", [True, False], ids=["fed", "unfed"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient_from_the_joint_loss(
    kind: str, input_feeding: bool
) -> None:
    options = {"bottom_layers": 1, "subsampling": 4, "residual": True}
    model = tiny_model(kind=kind, layers=2, input_feeding=input_feeding, **options).train()
    run(model, random_features(60, 40, 50), random_tokens(6, 3, 4)).total.backward()
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().max() > 0
    ]
    assert without == []


@pytest.mark.parametrize("input_feeding", [True, False], ids=["fed", "unfed"])
@pytest.mark.parametrize("kind", KINDS)
def test_bf16_autocast_gives_nearly_the_same_losses_and_finite_gradients(
    kind: str, input_feeding: bool
) -> None:
    cell = {"dot": "gru", "additive": "rnn"}.get(kind, "lstm")
    model = tiny_model(kind=kind, cell=cell, input_feeding=input_feeding, subsampling=4)
    if not has_bf16_kernels(model):
        pytest.skip("oneDNN has no bf16 kernels for layers so small on this machine")
    features, tokens = random_features(60, 40), random_tokens(6, 3)
    exact = run(model, features, tokens)
    with torch.autocast("cpu", torch.bfloat16):
        losses = run(model, features, tokens)
        memory = model.encode(*padded(features))
        inputs = decoder_inputs_and_targets(*padded(tokens, TOKENIZER.pad))[0]
        log_probs, attention = by_steps(model, inputs, memory)
        forced, looked = model.decoder.teacher_forced(inputs, memory)
    for name in ("attention", "ctc", "guide", "total"):
        value = getattr(losses, name)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, getattr(exact, name), rtol=0.05, atol=0.05)
    assert log_probs.dtype == attention.dtype == forced.dtype == looked.dtype == torch.float32
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(inputs.shape))
    torch.testing.assert_close(attention.sum(-1), torch.ones(inputs.shape))
    torch.testing.assert_close(log_probs.exp(), forced.exp(), rtol=0, atol=0.05)
    losses.total.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("kind", "cell"), [*itertools.product(KINDS, ["rnn"]), ("dot", "gru"), ("fixed", "lstm")]
)
def test_training_lowers_the_loss(kind: str, cell: str) -> None:
    model = tiny_model(kind=kind, cell=cell, input_feeding=kind != "dot").train()
    features, tokens = random_features(30, 24), random_tokens(4, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = run(model, features, tokens)
        (loss.total / loss.targets).backward()
        optimizer.step()
        losses.append(float(loss.total.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_a_tiny_model_memorises_four_utterances_and_reads_them_freely() -> None:
    torch.manual_seed(0)
    model = Seq2Seq(tiny_options(kind="location", width=16), vocabulary=TOKENIZER.size, n_mels=MELS)
    features, tokens = random_features(40, 32, 36, 28), random_tokens(5, 3, 4, 2)
    batch = (*padded(features), *padded(tokens, TOKENIZER.pad))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(120):
        optimizer.zero_grad()
        model(*batch, LossWeights(guide=1.0)).total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        memory = model.encode(*padded(features))
        state, last = model.initial_state(memory), torch.full((4,), TOKENIZER.sos)
        heard = []
        for _ in range(6):
            log_probs, state = model.step(last, memory, state)
            last = log_probs.argmax(-1)
            heard.append(last)
    for row, text in zip(torch.stack(heard, 1), tokens, strict=True):
        assert row[: len(text) + 1].tolist() == [*text.tolist(), TOKENIZER.eos]


def test_lstms_begin_with_open_forget_gates() -> None:
    model = Seq2Seq(tiny_options(), vocabulary=TOKENIZER.size, n_mels=MELS)
    lstms = [module for module in model.modules() if isinstance(module, nn.LSTM)]
    assert len(lstms) == 5
    for lstm in lstms:
        gates = (lstm.bias_ih_l0 + lstm.bias_hh_l0).view(4, -1).mean(1)
        assert gates[1] > 0.5 > max(gates[0], gates[2], gates[3])


def test_locked_dropout_hides_the_same_units_at_every_step() -> None:
    values = torch.ones(50, 7, 40)
    dropped = LockedDropout(0.25)(values)
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.05)
    assert not torch.equal(dropped[0], dropped[1])
    assert LockedDropout(0.25).eval()(values) is values


ENCODER_CHANGES: dict[str, Any] = {
    "cell": "gru",
    "width": 6,
    "subsampling": 4,
    "channels": 2,
    "bottom_layers": 1,
    "pyramid_levels": 2,
    "flat_layers": 2,
    "dropout": 0.5,
    "locked_dropout": True,
    "norm": False,
    "residual": True,
}
DECODER_CHANGES: dict[str, Any] = {
    "cell": "gru",
    "width": 6,
    "layers": 2,
    "embedding": 3,
    "input_feeding": False,
    "dropout": 0.5,
}
ATTENTION_CHANGES: dict[str, Any] = {
    "kind": "dot",
    "width": 4,
    "heads": 2,
    "location_channels": 2,
    "location_kernel": 3,
}


@torch.no_grad()
def behaviour(options: Any) -> list[Any]:
    """Shapes of the weights and losses in training mode with fixed seeds."""
    torch.manual_seed(0)
    model = Seq2Seq(options, vocabulary=TOKENIZER.size, n_mels=MELS).train()
    torch.manual_seed(1)
    losses = run(model, random_features(30, 20), random_tokens(4, 2))
    shapes = [(name, tuple(value.shape)) for name, value in model.state_dict().items()]
    return [*shapes, float(losses.attention), float(losses.ctc)]


@pytest.mark.parametrize(
    ("part", "name"),
    [
        *itertools.product(["encoder"], ENCODER_CHANGES),
        *itertools.product(["decoder"], DECODER_CHANGES),
        *itertools.product(["attention"], ATTENTION_CHANGES),
        ("model", "ctc"),
    ],
)
def test_every_model_option_changes_the_model(part: str, name: str) -> None:
    kind = "multihead" if name == "heads" else "location"
    options = tiny_options(kind=kind, dropout=0.1, flat_layers=1)
    encoder, decoder, attention = options.encoder, options.decoder, options.decoder.attention
    if part == "encoder":
        encoder = dataclasses.replace(encoder, **{name: ENCODER_CHANGES[name]})
    elif part == "decoder":
        decoder = dataclasses.replace(decoder, **{name: DECODER_CHANGES[name]})
    elif part == "attention":
        attention = dataclasses.replace(attention, **{name: ATTENTION_CHANGES[name]})
        decoder = dataclasses.replace(decoder, attention=attention)
    changed = dataclasses.replace(
        options, encoder=encoder, decoder=decoder, ctc=options.ctc and part != "model"
    )
    assert behaviour(options) == behaviour(options)
    assert behaviour(changed) != behaviour(options)


def test_the_options_tested_above_are_all_there_are() -> None:
    for kind, changes in ((EncoderOptions, ENCODER_CHANGES), (DecoderOptions, DECODER_CHANGES)):
        fields = {field.name for field in dataclasses.fields(kind)} - {"attention"}
        assert fields == set(changes)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (EncoderOptions, {"cell": "qrnn"}, "encoder cell 'qrnn'.*lstm, gru, rnn"),
        (EncoderOptions, {"subsampling": 3}, "subsampling 3: allowed are 1, 2, 4"),
        (EncoderOptions, {"pyramid_levels": -1}, "encoder.pyramid_levels -1: must be at least 0"),
        (EncoderOptions, {"width": 0}, "encoder.width 0: must be at least 1"),
        (EncoderOptions, {"dropout": 1.5}, "encoder.dropout 1.5: must be from 0 to 1"),
        (
            EncoderOptions,
            {"bottom_layers": 0, "pyramid_levels": 0, "flat_layers": 0},
            "at least one layer",
        ),
        (DecoderOptions, {"cell": "mlp"}, "decoder cell 'mlp'.*lstm, gru, rnn"),
        (DecoderOptions, {"layers": 0}, "decoder.layers 0: must be at least 1"),
        (DecoderOptions, {"embedding": 0}, "decoder.embedding 0: must be at least 1"),
        (DecoderOptions, {"dropout": float("nan")}, "decoder.dropout nan"),
    ],
)
def test_sizes_out_of_range_are_refused_by_name(
    kind: type[Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**options)
