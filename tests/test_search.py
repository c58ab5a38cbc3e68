"""The beam with all scorers on: joint decoding with CTC, language models and hot words."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from fakes import JointToy, ToyLm, ToyModel, ToyWords, brute_force, follow_all
from models import KINDS, padded, random_features, tiny_model
from torch import Tensor
from torch.nn.functional import ctc_loss

from asr import phonemes
from asr.decoding import DecodingOptions, Hypothesis, Ranking, Search, decode, greedy
from asr.decoding.ctc_prefix import start as ctc_start
from asr.decoding.hotwords import HotWords
from asr.decoding.words import LookAhead, Penalised, WordModel, WordScorer
from asr.errors import ConfigError
from asr.model import Memory
from asr.tokenizer import Tokenizer

TOKENIZER = Tokenizer(" ab")
PHRASES = ("ab", "b a", "bb b")
WEIGHTS = {
    "ctc_weight": 0.4,
    "lm_weight": 0.5,
    "ngram_weight": 0.3,
    "unknown_penalty": 1.5,
    "phoneme_weight": 0.4,
    "word_bonus": 0.7,
    "hotword_boost": 0.6,
}
PRONUNCIATIONS = {"a": (5,), "ab": (5, 6), "aba": (5, 6, 5), "b": (6,), "bb": (6, 7)}
SHORT = {"max_tokens_per_second": 0.0}  # five tokens


def full_search(tokenizer: Tokenizer = TOKENIZER, **options: float) -> Search:
    """All scorers on."""
    return Search(
        DecodingOptions(**(WEIGHTS | options)),
        ToyLm(tokenizer),
        ToyWords(),
        HotWords.build(PHRASES, tokenizer),
        pronunciations=PRONUNCIATIONS,
    )


def ctc_log_probs(log_probs: Tensor, texts: Tensor) -> Tensor:
    """Of texts (K, L), each with its eos, given CTC log_probs (T, V) of the utterance alone."""
    count, length = texts.shape
    frames = log_probs[:, None].double().expand(-1, count, -1)
    lengths = torch.full((count,), len(log_probs)), torch.full((count,), length)
    return -ctc_loss(frames, texts, *lengths, reduction="none")


def ctc_log_prob(log_probs: Tensor, tokens: tuple[int, ...]) -> float:
    return float(ctc_log_probs(log_probs, torch.tensor([tokens], dtype=torch.long)))


def lm_log_probs(lm: ToyLm, texts: Tensor) -> Tensor:
    """Of texts (K, L), each with its eos."""
    count = len(texts)
    state, totals = lm.initial_state(count), torch.zeros(count)
    special = torch.full((count, 1), Tokenizer.sos), torch.full((count, 1), Tokenizer.eos)
    inputs, targets = torch.cat([special[0], texts], 1), torch.cat([texts, special[1]], 1)
    for last, chosen in zip(inputs.T, targets.T, strict=True):
        log_probs, state = lm.step(last, state)
        totals += log_probs.gather(1, chosen[:, None])[:, 0]
    return totals


def lm_log_prob(lm: ToyLm, tokens: tuple[int, ...]) -> float:
    return float(lm_log_probs(lm, torch.tensor([tokens], dtype=torch.long)))


def words_log_prob(text: str) -> float:
    model, total = ToyWords(), 0.0
    state = model.start()
    for word in text.split():
        log_prob, state = model.score(state, word)
        total += log_prob
        if word not in model.unigrams() and word not in " ".join(PHRASES).split():
            total -= WEIGHTS["unknown_penalty"]
    return total + model.end(state)


def phonemes_log_prob(heard: Tensor, text: str) -> float:
    """Of a text's pronunciation, given phoneme log_probs (T, P) of the utterance alone."""
    spoken = [p for word in text.split() for p in PRONUNCIATIONS.get(word, (phonemes.UNKNOWN,))]
    return ctc_log_prob(heard, tuple(spoken))


def hot_characters(text: str) -> int:
    return sum(
        len(phrase) * len(re.findall(rf"(?<![^ ])(?={phrase}(?![^ ]))", text)) for phrase in PHRASES
    )


def expected_parts(
    model: JointToy, memory: Memory, utterance: int, tokens: tuple[int, ...]
) -> dict[str, float]:
    """Each scorer's sum by its definition, one text and one utterance at a time."""
    text = TOKENIZER.decode(tokens)
    sequences = torch.tensor([tokens], dtype=torch.long)
    frames = int(memory.lengths[utterance]) * model.ctc_factor
    return {
        "attention": float(follow_all(model, memory, utterance, sequences)[0].sum()),
        "ctc": ctc_log_prob(model.ctc_log_probs(memory)[utterance, :frames], tokens),
        "lm": lm_log_prob(ToyLm(TOKENIZER), tokens),
        "ngram": words_log_prob(text),
        "phonemes": phonemes_log_prob(
            model.heard[utterance, : memory.lengths[utterance] + 16], text
        ),
        "words": len(text.split()),
        "hotwords": hot_characters(text),
    }


def extra(
    model: JointToy, memory: Memory, utterance: int, word_bonus: float
) -> Callable[[Tensor], Tensor]:
    """What the scorers other than attention add to texts (K, L)."""
    frames = model.ctc_log_probs(memory)[utterance, : 2 * int(memory.lengths[utterance])]
    heard = model.heard[utterance, : memory.lengths[utterance] + 16]

    def added(texts: Tensor) -> Tensor:
        spelled = [TOKENIZER.decode(tokens) for tokens in texts.tolist()]
        words = [
            WEIGHTS["ngram_weight"] * words_log_prob(text)
            + word_bonus * len(text.split())
            + WEIGHTS["hotword_boost"] * hot_characters(text)
            + WEIGHTS["phoneme_weight"] * phonemes_log_prob(heard, text)
            for text in spelled
        ]
        ctc = WEIGHTS["ctc_weight"] * ctc_log_probs(frames, texts)
        return (
            ctc + WEIGHTS["lm_weight"] * lm_log_probs(ToyLm(TOKENIZER), texts) + torch.tensor(words)
        )

    return added


@pytest.mark.parametrize(
    "bonuses",
    [
        {},
        {"length_penalty": 0.8, "length_bonus": 0.4, "coverage_bonus": 0.3},
        {"word_bonus": -0.9, "length_bonus": 0.5},
    ],
    ids=["plain", "normalised", "fewer words"],
)
def test_a_wide_beam_equals_brute_force_with_every_scorer_on(bonuses: dict[str, float]) -> None:
    model = JointToy(TOKENIZER, seed=3)
    memory = model.memory([2, 8])
    search = full_search(beam_size=250, nbest=20, **SHORT, **bonuses)
    for i, found in enumerate(decode(model, memory, TOKENIZER, search)):
        expected = brute_force(
            model,
            memory,
            i,
            TOKENIZER,
            search.options,
            extra(model, memory, i, search.options.word_bonus),
        )[:20]
        assert [h.tokens for h in found] == [e.tokens for e in expected]
        assert [h.score for h in found] == pytest.approx([e.score for e in expected], abs=1e-4)


RANKING = Ranking(
    ctc_weight=0.1,
    ngram_weight=0.9,
    phoneme_weight=0.1,
    word_bonus=-0.3,
    length_bonus=1.2,
    coverage_bonus=0.0,
)


def test_what_a_beam_has_finished_is_put_in_order_by_other_weights() -> None:
    """The score is the definition's with the ranking's weights, and the order differs from the beam's."""
    model = JointToy(TOKENIZER, seed=3)
    memory = model.memory([2, 8])
    plain = full_search(beam_size=40, nbest=12, coverage_bonus=0.7)
    ranked = replace(
        plain, options=replace(plain.options, nbest=1), ranking=replace(RANKING, candidates=12)
    )
    options, moved = RANKING.of(plain.options), 0
    for i, (all_, (best,)) in enumerate(
        zip(
            decode(model, memory, TOKENIZER, plain),
            decode(model, memory, TOKENIZER, ranked),
            strict=True,
        )
    ):
        scores = []
        for h in all_:
            parts = expected_parts(model, memory, i, h.tokens)
            total = sum(weight * parts[name] for name, weight in options.weights().items())
            scores.append(total + 1.2 * len(h.tokens))
        first = max(range(len(all_)), key=scores.__getitem__)
        assert best.tokens == all_[first].tokens
        assert best.score == pytest.approx(scores[first], abs=1e-3)
        moved += first > 0
    assert moved


def test_a_ranking_may_weigh_what_the_beam_does_not() -> None:
    model = JointToy(TOKENIZER, seed=3)
    memory = model.memory([8])
    alone = Search(DecodingOptions(beam_size=20, nbest=9))
    free = decode(model, memory, TOKENIZER, alone)[0]
    ranked = replace(alone, ranking=Ranking(candidates=9, ctc_weight=0.3, word_bonus=-5.0))
    found = decode(model, memory, TOKENIZER, ranked)[0]
    assert {h.tokens for h in found} == {h.tokens for h in free}
    for h in found:
        parts = expected_parts(model, memory, 0, h.tokens)
        total = 0.7 * parts["attention"] + 0.3 * parts["ctc"] - 5 * parts["words"]
        assert h.score == pytest.approx(total, abs=1e-3)


def test_only_the_best_candidates_and_greedys_path_are_ranked() -> None:
    model = JointToy(TOKENIZER, seed=3)
    memory = model.memory([8])
    plain = full_search(beam_size=40, nbest=12, coverage_bonus=0.7)
    one = replace(plain, options=replace(plain.options, nbest=1))
    first = decode(model, memory, TOKENIZER, plain)[0][0]
    narrow = replace(one, options=replace(one.options, beam_size=1), ranking=RANKING)
    ((floor,),) = decode(model, memory, TOKENIZER, narrow)
    found = {}
    for count in (1, 12):
        search = replace(one, ranking=replace(RANKING, candidates=count))
        ((found[count],),) = decode(model, memory, TOKENIZER, search)
    assert found[1].tokens in (first.tokens, floor.tokens)
    assert found[12].tokens not in (first.tokens, floor.tokens)
    assert found[12].score > found[1].score


def test_scorers_that_a_search_has_not_got_do_not_count_in_its_ranking() -> None:
    model = JointToy(TOKENIZER, seed=3)
    memory = model.memory([8])
    alone = Search(DecodingOptions(beam_size=20, nbest=5))
    free = decode(model, memory, TOKENIZER, alone)[0]
    beyond = replace(alone, ranking=Ranking(candidates=99, lm_weight=3.0, ngram_weight=2.0))
    found = decode(model, memory, TOKENIZER, beyond)[0]
    assert [(h.tokens, h.score) for h in found] == [(h.tokens, h.score) for h in free]


def test_a_search_with_another_beam_is_the_same_otherwise() -> None:
    search = replace(full_search(beam_size=6, nbest=5), ranking=RANKING)
    narrow = search.with_beam(2)
    assert narrow == replace(search, options=replace(search.options, beam_size=2, nbest=2))
    assert search.with_beam(9).options == replace(search.options, beam_size=9)
    with pytest.raises(ConfigError, match="beam_size is 0"):
        search.with_beam(0)


def test_what_only_the_ranking_weighs_is_named_as_in_use() -> None:
    words = {"ngram": ToyWords(), "names": {"ngram": "words"}}
    beam_alone = Search(DecodingOptions(ngram_weight=0.0), **words)
    assert beam_alone.in_use()["ngram"] is None
    assert replace(beam_alone, ranking=Ranking(ngram_weight=0.5)).in_use()["ngram"] == "words"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"candidates": 0}, r"ranking\.candidates is 0; it must be 1 or more"),
        ({"ctc_weight": 1.5}, r"ranking\.ctc_weight is 1\.5; it must be from 0 to 1"),
        ({"ngram_weight": -1.0}, r"ranking\.ngram_weight is -1\.0; it must be 0 or more"),
    ],
)
def test_a_wrong_ranking_is_refused(given: dict[str, float], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Ranking(**given)  # type: ignore[arg-type]


def test_the_parts_are_the_sums_of_each_scorer() -> None:
    model = JointToy(TOKENIZER, seed=5)
    memory = model.memory([8, 2, 6])
    spoken = set()
    for i, found in enumerate(decode(model, memory, TOKENIZER, full_search(beam_size=6, nbest=6))):
        for h in found:
            assert h.parts == pytest.approx(expected_parts(model, memory, i, h.tokens), abs=1e-3)
            assert h.parts["attention"] == pytest.approx(sum(h.token_log_probs))
            spoken |= {name for name, value in h.parts.items() if value}
    assert spoken == {"attention", "ctc", "lm", "ngram", "phonemes", "words", "hotwords"}


@pytest.mark.parametrize("ranking", [None, RANKING], ids=["beam's weights", "ranked by others"])
@pytest.mark.parametrize("beam_size", [1, 2, 5])
def test_a_beam_never_scores_below_greedy_with_every_scorer_on(
    beam_size: int, ranking: Ranking | None
) -> None:
    better = 0
    for seed in range(4):
        model = JointToy(TOKENIZER, seed=seed)
        memory = model.memory([8, 5, 2])
        search = replace(full_search(beam_size=beam_size), ranking=ranking)
        narrow = replace(search, options=replace(search.options, beam_size=1))
        floors = decode(model, memory, TOKENIZER, narrow)
        found = decode(model, memory, TOKENIZER, search)
        for (best,), (floor,) in zip(found, floors, strict=True):
            assert best.score >= floor.score - 1e-5
            better += best.score > floor.score + 1e-5
    assert (better > 0) == (beam_size > 1)


def test_beam_1_with_every_scorer_takes_the_best_token_at_each_step() -> None:
    model = JointToy(TOKENIZER, seed=2)
    memory = model.memory([8])
    (best,) = decode(model, memory, TOKENIZER, full_search(**SHORT))[0]
    letters = range(Tokenizer.first_character, TOKENIZER.size)
    scorers = full_search(**SHORT).scorers(model, TOKENIZER)
    states = {name: scorer.start(memory, 1) for name, (_, scorer) in scorers.items()}
    for n, chosen in enumerate(best.tokens):
        totals = {}
        for token in (Tokenizer.eos, *letters):
            sequences = torch.tensor([(*best.tokens[:n], token)])
            attention = float(follow_all(model, memory, 0, sequences)[0][0, n])
            assert attention == pytest.approx(float(states["attention"].scores[0, token]))
            totals[token] = sum(
                scorers[name][0] * float(state.scores[0, token]) for name, state in states.items()
            )
        assert max(totals, key=totals.__getitem__) == chosen
        step = torch.tensor([0]), torch.tensor([chosen])
        states = {name: state.advance(*step) for name, state in states.items()}
    assert best.tokens
    assert len(states) == 7


def assert_same(one: list[Hypothesis], other: list[Hypothesis]) -> None:
    assert [h.tokens for h in one] == [h.tokens for h in other]
    for a, b in zip(one, other, strict=True):
        assert a.score == pytest.approx(b.score, abs=1e-4)
        assert a.parts == pytest.approx(b.parts, abs=1e-4)
        assert torch.allclose(a.attention, b.attention, atol=1e-5)


def test_batched_equals_one_by_one_with_every_scorer_on() -> None:
    model = JointToy(TOKENIZER, seed=1)
    memory = model.memory([8, 2, 0, 5, 1, 8])
    search = full_search(beam_size=3, nbest=2, length_penalty=0.5)
    for i, found in enumerate(decode(model, memory, TOKENIZER, search)):
        (alone,) = decode(model, memory.select(torch.tensor([i])), TOKENIZER, search)
        assert_same(found, alone)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("kind", KINDS)
def test_state_is_reordered_right_for_every_attention_with_lm_and_ctc_on(
    kind: str, cell: str
) -> None:
    tokenizer = Tokenizer(" abcde")
    model = tiny_model(kind=kind, cell=cell)
    lm = ToyLm(tokenizer)
    options = DecodingOptions(4, 4, ctc_weight=0.3, lm_weight=0.4)
    features, lengths = padded(random_features(40, 17, 29))
    with torch.inference_mode():
        memory = model.encode(features, lengths)
        frames = model.ctc_log_probs(memory)
        assert frames is not None
        for i, found in enumerate(decode(model, memory, tokenizer, Search(options, lm))):
            one = memory.select(torch.tensor([i]))
            for h in found:
                inputs = torch.tensor([[Tokenizer.sos, *h.tokens]])
                targets = [*h.tokens, Tokenizer.eos]
                log_probs, weights = model.decoder.teacher_forced(inputs, one)
                forced = log_probs[0, range(len(targets)), targets].tolist()
                assert h.token_log_probs == pytest.approx(forced, abs=1e-4)
                rows = weights[0, :-1, : memory.lengths[i]]
                assert torch.allclose(h.attention, rows, atol=1e-4)
                size = int(memory.lengths[i]) * model.ctc_factor
                ctc, spoken = ctc_log_prob(frames[i, :size], h.tokens), lm_log_prob(lm, h.tokens)
                parts = {"attention": sum(forced), "ctc": ctc, "lm": spoken}
                assert h.parts == pytest.approx(parts, abs=1e-3)


def test_padding_changes_no_result_with_ctc_on() -> None:
    tokenizer, model = Tokenizer(" abcde"), tiny_model(kind="location")
    options = DecodingOptions(4, 3, ctc_weight=0.5)
    rows = random_features(31, 18)
    with torch.inference_mode():
        together = decode(model, model.encode(*padded(rows, extra=24)), tokenizer, options)
        for row, found in zip(rows, together, strict=True):
            (alone,) = decode(model, model.encode(*padded([row])), tokenizer, options)
            assert_same(found, alone)


def test_ctc_prefix_scores_equal_torchs_ctc_loss() -> None:
    torch.manual_seed(0)
    log_probs = (3 * torch.randn(2, 12, 7)).log_softmax(-1)
    lengths = torch.tensor([12, 7])
    texts = torch.tensor([[4, 4, 5, 4], [6, 5, 5, 5], [4, 5, 6, 4]])
    state, totals = ctc_start(log_probs, lengths, 3), torch.zeros(6)
    for column in texts.T:
        tokens = column.repeat(2)
        totals += state.scores.gather(1, tokens[:, None])[:, 0]
        state = state.advance(torch.arange(6), tokens)
    totals += state.scores[:, Tokenizer.eos]
    expected = [
        ctc_log_prob(log_probs[b, : lengths[b]], tuple(text))
        for b in (0, 1)
        for text in texts.tolist()
    ]
    assert totals.tolist() == pytest.approx(expected, abs=1e-4)


def test_a_ctc_prefix_score_is_the_sum_over_all_texts_that_begin_so() -> None:
    torch.manual_seed(1)
    logits = 2 * torch.randn(1, 5, 6)
    logits[..., 1:4] = -torch.inf  # no frame holds pad, sos or eos
    log_probs = logits.log_softmax(-1)
    texts = [y for n in range(6) for y in product((4, 5), repeat=n)]
    whole = {y: math.exp(ctc_log_prob(log_probs[0], y)) for y in texts}
    state = ctc_start(log_probs, torch.tensor([5]), 1)
    for prefix in [(), (4,), (4, 4), (4, 4, 5)]:
        mass = sum(p for y, p in whole.items() if y[: len(prefix)] == prefix)
        scores = state.scores[0].exp()
        assert float(scores.sum()) == pytest.approx(1, abs=1e-5)
        assert float(scores[Tokenizer.eos]) == pytest.approx(whole[prefix] / mass, abs=1e-5)
        for token in (4, 5):
            longer = (*prefix, token)
            begun = sum(p for y, p in whole.items() if y[: len(longer)] == longer)
            assert float(scores[token]) == pytest.approx(begun / mass, abs=1e-5)
        following = (*prefix, 5 if len(prefix) == 2 else 4)[-1]
        state = state.advance(torch.tensor([0]), torch.tensor([following]))


def ctc_total(log_probs: torch.Tensor, tokens: torch.Tensor) -> tuple[float, int]:
    """The log probability of a text by its prefixes' scores, and the most columns that it took."""
    state, total = ctc_start(log_probs, torch.tensor([log_probs.shape[1]]), 1), 0.0
    widest = 0
    for token in tokens:
        total += float(state.scores[0, token])
        state = state.advance(torch.tensor([0]), token[None])
        widest = max(widest, state.columns.count)
    return total + float(state.scores[0, Tokenizer.eos]), widest


@pytest.mark.parametrize("sureness", [7.0, 9.0, 12.0])
@pytest.mark.parametrize("pause", [0, 400])
def test_ctc_prefix_scores_stay_exact_over_many_frames(sureness: float, pause: int) -> None:
    """Though only the frames near the end of a prefix are looked at, and whatever pause is inside."""
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(4, 32, (200,), generator=generator)
    logits = 2 * torch.randn(1, 900 + pause, 32, generator=generator)
    spoken = torch.full((900 + pause,), Tokenizer.blank)
    spoken[torch.arange(100) * 4] = tokens[:100]
    spoken[pause + 400 + torch.arange(100) * 5] = tokens[100:]
    logits[0, torch.arange(900 + pause), spoken] += sureness
    log_probs = logits.log_softmax(-1)
    total, widest = ctc_total(log_probs, tokens)
    exact = ctc_log_prob(log_probs[0], tuple(tokens.tolist()))
    assert total == pytest.approx(exact, rel=1e-5)
    assert widest < pause + 450  # of 900 + pause


def test_ctc_scores_of_a_text_that_was_never_spoken_are_finite_and_no_better_than_exact() -> None:
    torch.manual_seed(2)
    log_probs = (4 * torch.randn(1, 900, 32)).log_softmax(-1)
    tokens = torch.randint(4, 32, (200,))
    total, _ = ctc_total(log_probs, tokens)
    assert -1e5 < total <= ctc_log_prob(log_probs[0], tuple(tokens.tolist())) + 1e-3


def test_ctc_prefix_scores_stay_exact_where_a_text_leaves_out_what_was_spoken() -> None:
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(4, 32, (60,), generator=generator)
    logits = 2 * torch.randn(1, 240, 32, generator=generator)
    spoken = torch.full((240,), Tokenizer.blank)
    spoken[torch.arange(60) * 4] = tokens
    logits[0, torch.arange(240), spoken] += 12.0
    log_probs = logits.log_softmax(-1)
    left = torch.cat([tokens[:20], tokens[28:]])
    exact = ctc_log_prob(log_probs[0], tuple(left.tolist()))
    assert exact < -60  # more than the columns' margin once was
    assert ctc_total(log_probs, left)[0] == pytest.approx(exact, rel=1e-5)


def test_weight_0_equals_no_scorer() -> None:
    model = JointToy(TOKENIZER, seed=4)
    memory = model.memory([8, 3])
    plain = decode(model, memory, TOKENIZER, DecodingOptions(4, 4))
    search = full_search(beam_size=4, nbest=4, **dict.fromkeys(WEIGHTS, 0.0))
    for one, other in zip(decode(model, memory, TOKENIZER, search), plain, strict=True):
        assert_same(one, other)
        assert set(one[0].parts) == {"attention"}
    off = full_search(beam_size=4, lm_weight=0.0)
    without = replace(off, lm=None)
    for one, other in zip(
        decode(model, memory, TOKENIZER, off),
        decode(model, memory, TOKENIZER, without),
        strict=True,
    ):
        assert_same(one, other)


def test_ctc_alone_can_rank() -> None:
    model = JointToy(TOKENIZER, seed=4)
    memory = model.memory([3])
    options = DecodingOptions(250, 5, ctc_weight=1.0, **SHORT)
    found = decode(model, memory, TOKENIZER, options)[0]
    texts = [y for n in range(6) for y in product(range(4, 7), repeat=n)]
    best = sorted((-ctc_log_prob(model.frames[0, :6], y), y) for y in texts)[:5]
    assert [h.tokens for h in found] == [y for _, y in best]
    assert [h.score for h in found] == pytest.approx([-loss for loss, _ in best], abs=1e-4)


def test_a_search_without_scorers_and_beam_1_is_greedy() -> None:
    model = ToyModel(TOKENIZER, seed=4)
    memory = model.memory([8, 3])
    found = decode(model, memory, TOKENIZER, Search())
    assert [h[0].tokens for h in found] == [
        h.tokens for h in greedy(model, memory, TOKENIZER, DecodingOptions())
    ]
    assert sum(model.rows) < 2 * sum(len(h[0].tokens) + 1 for h in found) + 1


def gained(hot: HotWords, tokenizer: Tokenizer, text: str) -> list[float]:
    """Characters gained by each letter of a text and by its end."""
    state = hot.start(JointToy(TOKENIZER).memory([1]), 1)
    gains = []
    for token in [*tokenizer.encode(text), Tokenizer.eos]:
        gains.append(float(state.scores[0, token]))
        state = state.advance(torch.tensor([0]), torch.tensor([token]))
    return gains


def test_hot_words_gain_by_the_character_and_lose_what_they_leave_unfinished() -> None:
    tokenizer = Tokenizer(" abcdefghijklmnopqrstuvwxyz")
    hot = HotWords.build(["car", "new york", "new", "york city hall"], tokenizer)
    assert gained(hot, tokenizer, "car") == [1, 1, 1, 0]
    assert gained(hot, tokenizer, "card") == [1, 1, 1, -3, 0]
    assert gained(hot, tokenizer, "a car") == [0, 0, 1, 1, 1, 0]
    assert gained(hot, tokenizer, "acar") == [0, 0, 0, 0, 0]
    assert gained(hot, tokenizer, "ca") == [1, 1, -2]
    assert sum(gained(hot, tokenizer, "new york")) == 8
    assert sum(gained(hot, tokenizer, "new yorker")) == 3
    assert sum(gained(hot, tokenizer, "new car")) == 6
    # a phrase given up may hold the beginning of another
    assert sum(gained(hot, tokenizer, "new york city hall")) == 8 + 14
    assert sum(gained(hot, tokenizer, "new york city")) == 8
    assert sum(gained(hot, tokenizer, "york city car")) == 3


def test_hot_words_are_found_by_the_search() -> None:
    model = JointToy(TOKENIZER, seed=0)
    memory = model.memory([8])
    hot = HotWords.build(["bab"], TOKENIZER)
    for boost, wanted in ((0.0, False), (6.0, True)):
        options = DecodingOptions(6, hotword_boost=boost, **SHORT)
        (best,) = decode(model, memory, TOKENIZER, Search(options, hotwords=hot))[0]
        assert ("bab" in TOKENIZER.decode(best.tokens).split()) == wanted


def test_hot_words_without_a_boost_change_nothing() -> None:
    model = JointToy(TOKENIZER, seed=0)
    memory = model.memory([8])
    hot = HotWords.build(["bab", "abb"], TOKENIZER)
    options = DecodingOptions(6, hotword_boost=0.0, ngram_weight=1.0, unknown_penalty=4.0, **SHORT)
    plain = Search(options, ngram=ToyWords())
    asked = replace(plain, hotwords=hot)
    assert asked.in_use()["hotwords"] is None
    found = [decode(model, memory, TOKENIZER, search)[0][0] for search in (plain, asked)]
    assert (found[0].tokens, found[0].score) == (found[1].tokens, found[1].score)


def test_hot_words_are_written_as_transcripts_are(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("O’Brien\nDr. Smith\nJean-Luc\ncafé\n", encoding="utf-8")
    assert HotWords.load(path, Tokenizer()).phrases == (
        "o'brien",
        "doctor smith",
        "jean luc",
        "cafe",
    )


def test_a_hot_word_file_is_read_and_its_bad_line_named(tmp_path: Path) -> None:
    path = tmp_path / "hot.txt"
    path.write_text("Ab\n\n  b   a \n", encoding="utf-8")
    assert HotWords.load(path, TOKENIZER).phrases == ("ab", "b a")
    path.write_text("ab\nbüb\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"hot\.txt, line 2: 'u' is outside the model's alphabet"):
        HotWords.load(path, TOKENIZER)
    path.write_text("ab\n--\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"hot\.txt, line 2: '--' has no words"):
        HotWords.load(path, TOKENIZER)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        HotWords.load(path, TOKENIZER)
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="no hot words"):
        HotWords.load(path, TOKENIZER)
    with pytest.raises(ConfigError, match=r"none\.txt: cannot read"):
        HotWords.load(tmp_path / "none.txt", TOKENIZER)


def test_words_are_asked_for_once() -> None:
    asked: list[tuple[str, str]] = []

    class Counting(ToyWords):
        def score(self, state: str, word: str) -> tuple[float, str]:
            asked.append((state, word))
            return super().score(state, word)

        def end(self, state: str) -> float:
            return ToyWords.score(self, state, "</s>")[0]

    model = JointToy(TOKENIZER)
    words = Counting()
    state = WordScorer(LookAhead(words, TOKENIZER), TOKENIZER, 4).start(model.memory([8, 8]), 3)
    for _ in range(3):
        state = state.advance(torch.arange(6), torch.tensor([5] * 6))
    assert asked == [("<s>", "a"), ("<s>", "aa"), ("<s>", "aaa")]


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    model, other = JointToy(TOKENIZER), Tokenizer("ab")
    memory = model.memory([4])
    with pytest.raises(
        ConfigError, match=r"language model: of the alphabet 'ab'; this model's is ' ab'"
    ):
        decode(model, memory, TOKENIZER, Search(lm=ToyLm(other)))
    hot = HotWords.build(["b"], Tokenizer("b "))
    with pytest.raises(ConfigError, match=r"hot words: of the alphabet 'b '"):
        decode(model, memory, TOKENIZER, Search(hotwords=hot))
    with pytest.raises(ConfigError, match="no space"):
        decode(ToyModel(other), memory, other, Search(ngram=ToyWords()))
    words = ToyWords()
    words.unigrams = lambda: {"AB": -1.0, "BA": -1.0}  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=r"ngram: no word of it is in this model's alphabet"):
        decode(model, memory, TOKENIZER, Search(ngram=words))
    headless = tiny_model(ctc=False)
    with pytest.raises(ConfigError, match=r"ctc_weight is 0\.3; this model has no CTC head"):
        decode(headless, memory, Tokenizer("abcdef"), DecodingOptions(ctc_weight=0.3))
    with pytest.raises(ConfigError, match=r"ctc_weight is 1\.5; it must be from 0 to 1"):
        DecodingOptions(ctc_weight=1.5)
    with pytest.raises(ConfigError, match="lm_weight"):
        DecodingOptions(lm_weight=-0.1)


def test_unknown_words_cost_the_penalty_once_and_hot_ones_nothing() -> None:
    words = Penalised(ToyWords(), 2.0, ["abb"])
    start = words.start()
    for word, off in (("aba", 0.0), ("abb", 0.0), ("bb", 2.0)):
        log_prob, after = words.score(start, word)
        assert (log_prob + off, after) == ToyWords().score(start, word)
    assert words.unigrams() == ToyWords().unigrams() | {"abb": ToyWords.unknown}
    assert words.unknown == ToyWords.unknown - 2


@pytest.mark.parametrize("words", [ToyWords(), Penalised(ToyWords(), 2.0, ["b"])])
@pytest.mark.parametrize("text", ["a", "aba", "abb", "b a", "aba b abb"])
def test_what_is_charged_ahead_sums_to_the_n_gram_score(text: str, words: WordModel) -> None:
    state = WordScorer(LookAhead(words, TOKENIZER), TOKENIZER, 4).start(
        JointToy(TOKENIZER).memory([8]), 1
    )
    total = 0.0
    for token in TOKENIZER.encode(text):
        total += float(state.scores[0, token])
        state = state.advance(torch.tensor([0]), torch.tensor([token]))
    total += float(state.scores[0, TOKENIZER.eos])
    expected, context = 0.0, words.start()
    for word in text.split():
        log_prob, context = words.score(context, word)
        expected += log_prob
    assert total == pytest.approx(expected + words.end(context), abs=1e-5)


def test_a_beginning_that_likely_words_share_is_charged_less() -> None:
    look_ahead = LookAhead(ToyWords(), TOKENIZER)
    a, b, none = (look_ahead(spelled)[0] for spelled in ("a", "b", "bb"))
    assert 0 > a > b > none
    assert none == pytest.approx(-look_ahead.most)
    p = {word: math.exp(value) for word, value in ToyWords().unigrams().items()}
    unknown = math.exp(ToyWords.unknown)
    assert a == pytest.approx(math.log((p["a"] + p["aba"] + unknown) / (sum(p.values()) + unknown)))
    assert look_ahead("a")[1][TOKENIZER.encode("b")[0]] == pytest.approx(look_ahead("ab")[0] - a)
