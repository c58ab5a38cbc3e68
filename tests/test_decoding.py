import pytest
import torch
from fakes import ToyModel, follow

from asr.decoding import DecodingOptions, decode, greedy
from asr.decoding.diagonality import diagonality
from asr.errors import ConfigError
from asr.tokenizer import Tokenizer

TOKENIZER = Tokenizer("ab")
GREEDY = DecodingOptions()


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
            follow(model, memory, i, hypothesis.tokens, TOKENIZER, options)
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
    assert [h[0].tokens for h in decode(model, model.memory([0]), TOKENIZER, GREEDY)] == [()]


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
