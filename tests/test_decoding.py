import math

import pytest
import torch
from fakes import BigramModel, ToyModel, brute_force, follow

from asr.decoding import DecodingOptions, Hypothesis, Search, decode, greedy
from asr.decoding import beam as beam_search
from asr.decoding.diagonality import diagonality
from asr.errors import ConfigError
from asr.model import DecoderOptions, EncoderOptions, Memory, ModelOptions, Seq2Seq
from asr.model.attention import ATTENTIONS, AttentionOptions
from asr.tokenizer import Tokenizer

TOKENIZER = Tokenizer("ab")
GREEDY = DecodingOptions()


def beam(
    model: Seq2Seq, memory: Memory, tokenizer: Tokenizer, options: DecodingOptions
) -> list[list[Hypothesis]]:
    return beam_search(model, memory, tokenizer, Search(options))


def assert_same(one: Hypothesis, other: Hypothesis) -> None:
    assert (one.tokens, one.ended) == (other.tokens, other.ended)
    assert one.score == pytest.approx(other.score)
    assert one.token_log_probs == pytest.approx(other.token_log_probs)
    assert torch.allclose(one.attention, other.attention, atol=1e-5)


def test_greedy_takes_the_most_probable_token_at_each_step() -> None:
    model = ToyModel(TOKENIZER, seed=3, eos_boost=0.5)
    memory = model.memory([4])
    state, tokens, path = model.initial_state(memory), torch.tensor([TOKENIZER.sos]), []
    while True:
        log_probs, state = model.step(tokens, memory, state)
        tokens = log_probs.argmax(-1)
        if int(tokens) == TOKENIZER.eos or len(path) == GREEDY.token_limit(4 * 0.04):
            break
        path.append(int(tokens))
    assert path
    assert greedy(model, memory, TOKENIZER, GREEDY)[0].tokens == tuple(path)


def test_greedy_results_do_not_depend_on_the_batch() -> None:
    model = ToyModel(TOKENIZER, seed=1)
    memory = model.memory([8, 2, 5, 1, 8])
    together = greedy(model, memory, TOKENIZER, GREEDY)
    assert len({len(h.tokens) for h in together}) > 1
    for i, hypothesis in enumerate(together):
        (alone,) = greedy(model, memory.select(torch.tensor([i])), TOKENIZER, GREEDY)
        assert alone.tokens == hypothesis.tokens
        assert alone.token_log_probs == hypothesis.token_log_probs
        assert torch.equal(alone.attention, hypothesis.attention)


@pytest.mark.parametrize(
    "options", [GREEDY, DecodingOptions(length_penalty=0.7, length_bonus=0.3, coverage_bonus=0.2)]
)
def test_the_score_is_that_of_the_tokens_alone(options: DecodingOptions) -> None:
    model = ToyModel(TOKENIZER, seed=2)
    memory = model.memory([8, 3, 6])
    for i, hypothesis in enumerate(greedy(model, memory, TOKENIZER, options)):
        assert hypothesis.score == pytest.approx(
            follow(model, memory, i, hypothesis.tokens, options)
        )


def test_attention_has_a_row_for_each_token_and_ends_with_the_utterance() -> None:
    model = ToyModel(TOKENIZER, seed=2)
    for length, hypothesis in zip(
        [8, 3], greedy(model, model.memory([8, 3]), TOKENIZER, GREEDY), strict=True
    ):
        assert hypothesis.attention.shape == (len(hypothesis.tokens), length)
        assert torch.allclose(hypothesis.attention.sum(1), torch.ones(len(hypothesis.tokens)))
        assert len(hypothesis.token_log_probs) == len(hypothesis.tokens) + 1


def test_a_hypothesis_longer_than_the_audio_allows_is_cut() -> None:
    model = ToyModel(TOKENIZER, eos_boost=-50.0)
    options = DecodingOptions(max_tokens_per_second=50.0)
    short, long = greedy(model, model.memory([1, 8]), TOKENIZER, options)
    assert (
        len(short.tokens)
        == options.token_limit(0.04)
        < len(long.tokens)
        == options.token_limit(8 * 0.04)
    )
    assert not short.ended
    assert not long.ended


def test_utterances_that_end_leave_the_batch() -> None:
    model = ToyModel(TOKENIZER, seed=1)
    found = greedy(model, model.memory([8] * 6), TOKENIZER, GREEDY)
    assert sum(model.rows) == sum(len(h.tokens) + 1 for h in found)


def test_an_utterance_without_memory_has_no_tokens() -> None:
    model = ToyModel(TOKENIZER, seed=1)
    empty, full, other = greedy(model, model.memory([0, 8, 0]), TOKENIZER, GREEDY)
    assert empty.tokens == other.tokens == ()
    assert not empty.ended
    assert full.tokens == greedy(model, model.memory([8, 8]), TOKENIZER, GREEDY)[1].tokens
    for options in (GREEDY, DecodingOptions(beam_size=3)):
        assert [h[0].tokens for h in decode(model, model.memory([0]), TOKENIZER, options)] == [()]
        nothing = model.memory([4]).select(torch.zeros(0, dtype=torch.long))
        assert decode(model, nothing, TOKENIZER, options) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("beam_size", 0),
        ("nbest", 2),
        ("nbest", 0),
        ("length_bonus", -1.0),
        ("max_tokens_per_second", float("nan")),
    ],
)
def test_options_out_of_range_are_refused_by_name(option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=option):
        DecodingOptions(**{option: value})


SCORES = {
    "log probability": {},
    "length": {"length_penalty": 0.8, "length_bonus": 0.4},
    "coverage": {"coverage_bonus": 0.6},
    "all": {"length_penalty": 1.0, "length_bonus": 0.1, "coverage_bonus": 0.3},
}


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("seed", range(4))
def test_beam_1_equals_greedy(score: str, seed: int) -> None:
    model = ToyModel(TOKENIZER, seed=seed, eos_boost=0.5)
    memory = model.memory([8, 3, 0, 5, 8])
    options = DecodingOptions(**SCORES[score])
    expected = greedy(model, memory, TOKENIZER, options)
    for (found,), hypothesis in zip(beam(model, memory, TOKENIZER, options), expected, strict=True):
        assert_same(found, hypothesis)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_equals_brute_force(score: str, seed: int) -> None:
    model = ToyModel(TOKENIZER, seed=seed)
    memory = model.memory([4, 8])
    options = DecodingOptions(128, 20, max_tokens_per_second=1.0, **SCORES[score])
    for i, found in enumerate(beam(model, memory, TOKENIZER, options)):
        expected = brute_force(model, memory, i, TOKENIZER, options)[:20]
        assert [h.tokens for h in found] == [e.tokens for e in expected]
        assert [h.score for h in found] == pytest.approx([e.score for e in expected], abs=1e-5)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("beam_size", [2, 3, 5])
def test_a_beam_never_scores_below_greedy(score: str, beam_size: int) -> None:
    options = DecodingOptions(beam_size=beam_size, **SCORES[score])
    better = 0
    for seed in range(12):
        model = ToyModel(TOKENIZER, seed=seed)
        memory = model.memory([8, 5, 8, 2])
        found = beam(model, memory, TOKENIZER, options)
        for (best,), floor in zip(found, greedy(model, memory, TOKENIZER, options), strict=True):
            assert best.score >= floor.score - 1e-5
            better += best.score > floor.score + 1e-5
    assert better > 0


def test_a_greedy_path_that_falls_out_of_the_beam_is_kept() -> None:
    tokenizer = Tokenizer("abcdefgh")
    model = BigramModel(
        tokenizer,
        {
            "^": {"a": 0.4, "b": 0.35, "c": 0.25},
            "a": {"h": 0.34, "f": 0.33, "g": 0.33},
            "b": {"d": 0.5, "e": 0.5},
            "d": dict.fromkeys("abcdefgh", 0.125),
            "e": dict.fromkeys("abcdefgh", 0.125),
            "h": {"$": 1.0},
        },
    )
    memory = model.memory([8])
    (best,) = beam(model, memory, tokenizer, DecodingOptions(beam_size=2))[0]
    assert tokenizer.decode(best.tokens) == "ah"
    assert best.score == pytest.approx(math.log(0.4 * 0.34))


@pytest.mark.parametrize("score", SCORES)
def test_state_is_reordered_right(score: str) -> None:
    options = DecodingOptions(beam_size=4, nbest=4, **SCORES[score])
    model = ToyModel(TOKENIZER, seed=5)
    memory = model.memory([8, 2, 6])
    for i, found in enumerate(beam(model, memory, TOKENIZER, options)):
        assert len({h.tokens for h in found}) == 4
        for hypothesis in found:
            expected = follow(model, memory, i, hypothesis.tokens, options)
            assert hypothesis.score == pytest.approx(expected, abs=1e-5)
            assert hypothesis.attention.shape == (len(hypothesis.tokens), memory.lengths[i])


def test_the_n_best_are_in_order_and_begin_with_the_best() -> None:
    model = ToyModel(TOKENIZER, seed=7)
    memory = model.memory([8, 4])
    one = beam(model, memory, TOKENIZER, DecodingOptions(beam_size=5))
    for (best,), found in zip(
        one, beam(model, memory, TOKENIZER, DecodingOptions(5, 5)), strict=True
    ):
        assert best.tokens == found[0].tokens
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


def test_beam_results_do_not_depend_on_the_batch() -> None:
    model = ToyModel(TOKENIZER, seed=1)
    memory = model.memory([8, 2, 0, 5, 1, 8])
    options = DecodingOptions(beam_size=3, nbest=2, length_penalty=0.5)
    for i, found in enumerate(beam(model, memory, TOKENIZER, options)):
        (alone,) = beam(model, memory.select(torch.tensor([i])), TOKENIZER, options)
        for one, other in zip(found, alone, strict=True):
            assert_same(one, other)


def test_a_beam_at_the_token_limit_is_cut() -> None:
    tokenizer = Tokenizer("abc")
    model = ToyModel(tokenizer, eos_boost=-50.0)
    memory = model.memory([1, 4])
    options = DecodingOptions(beam_size=3, nbest=3)
    for i, found in enumerate(beam(model, memory, tokenizer, options)):
        assert [h.ended for h in found] == [False] * 3
        assert {len(h.tokens) for h in found} == {options.token_limit((1, 4)[i] * 0.04)}


def test_utterances_whose_search_is_over_leave_the_beam() -> None:
    options = DecodingOptions(beam_size=3)
    model = ToyModel(TOKENIZER, seed=1)
    memory = model.memory([8] * 6)
    for i in range(6):
        beam(model, memory.select(torch.tensor([i])), TOKENIZER, options)
    alone = sum(model.rows)
    model.rows.clear()
    beam(model, memory, TOKENIZER, options)
    assert sum(model.rows) == alone
    assert model.rows[-1] < model.rows[0]


def test_diagonality_is_high_for_a_steady_ramp_only() -> None:
    ramp = torch.eye(30).repeat_interleave(4, 1) / 4
    stuck = torch.zeros(30, 120)
    stuck[:, 7] = 1
    loop = torch.cat([ramp[:10], ramp[:10], ramp[:10]])
    pause = torch.cat([ramp[:, :60], torch.zeros(30, 40), ramp[:, 60:]], 1)
    blurred = (-(torch.arange(120.0) - 4 * torch.arange(30.0)[:, None]).abs() / 15).softmax(1)
    assert diagonality(ramp) > 0.99
    assert 0.9 < diagonality(pause) < diagonality(ramp)
    assert 0.5 < diagonality(blurred) < 0.97
    assert diagonality(loop) < 0.4
    for bad in (torch.full((30, 120), 1 / 120), ramp.flip(0), stuck):
        assert diagonality(bad) < 1e-6


def test_diagonality_of_next_to_nothing_is_zero() -> None:
    for size in [(0, 0), (0, 9), (1, 9), (9, 1)]:
        assert diagonality(torch.ones(size)) == 0


def small_network(attention: str, cell: str, *, input_feeding: bool) -> Seq2Seq:
    """An untrained network whose next token depends strongly on its state and on where it looks."""
    encoder = EncoderOptions(cell=cell, width=8)
    sizes = AttentionOptions(attention, width=8, heads=2, location_channels=2, location_kernel=5)
    decoder = DecoderOptions(cell, 12, 2, 6, input_feeding, attention=sizes)
    model = Seq2Seq(ModelOptions(encoder, decoder), vocabulary=TOKENIZER.size, n_mels=6).eval()
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter *= 3
    return model


@pytest.mark.parametrize("input_feeding", [True, False])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_state_is_reordered_right_for_every_attention(
    attention: str, cell: str, input_feeding: bool
) -> None:
    model = small_network(attention, cell, input_feeding=input_feeding)
    options = DecodingOptions(beam_size=4, nbest=4, coverage_bonus=0.2)
    lengths = torch.tensor([80, 30, 56])
    with torch.inference_mode():
        memory = model.encode(torch.randn(3, 80, 6), lengths)
        found = beam(model, memory, TOKENIZER, options)
        floors = greedy(model, memory, TOKENIZER, options)
        for i, (hypotheses, floor) in enumerate(zip(found, floors, strict=True)):
            assert hypotheses[0].score >= floor.score - 1e-4
            for hypothesis in hypotheses:
                inputs = torch.tensor([[TOKENIZER.sos, *hypothesis.tokens]])
                targets = torch.tensor([*hypothesis.tokens, TOKENIZER.eos])
                log_probs, weights = model.decoder.teacher_forced(
                    inputs, memory.select(torch.tensor([i]))
                )
                forced = log_probs[0, range(len(targets)), targets].tolist()
                assert hypothesis.token_log_probs == pytest.approx(forced, abs=1e-4)
                rows = weights[0, :-1, : memory.lengths[i]]
                assert torch.allclose(hypothesis.attention, rows, atol=1e-4)
