"""Texts proposed by their sound, against all texts written out; then scored as the beam scores them."""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from fakes import JointToy, ToyLm, ToyState, ToyWords
from numpy.typing import NDArray
from torch.nn.functional import ctc_loss

from asr.decoding import DecodingOptions, FirstPass, HotWords, Ranking, Search, decode
from asr.decoding.first_pass import propose
from asr.decoding.second_pass import follow
from asr.decoding.tree import ROOT, PronunciationTree
from asr.errors import ConfigError
from asr.model import Memory
from asr.phonemes import BLANK, SIZE
from asr.tokenizer import Tokenizer

TOKENIZER = Tokenizer(" ab")
SPOKEN = {"a": (5,), "aa": (5, 5), "ab": (5, 6), "abb": (5, 6), "b": (6,), "ba": (6, 5)}
WIDE = FirstPass(beam_width=1e3, word_width=1e3, ngram_weight=0.7, word_bonus=0.4)
FRAMES = 5


class Words:
    """A word model of random but fixed numbers whose state is the text so far."""

    unknown = -9.0

    def unigrams(self) -> dict[str, float]:
        return {word: -1.0 - number for number, word in enumerate(SPOKEN)}

    def start(self) -> str:
        return ""

    def score(self, state: str, word: str) -> tuple[float, str]:
        text = f"{state} {word}".strip()
        return -(zlib.crc32(text.encode()) % 1000) / 300, text

    def scores(self, asked: Sequence[tuple[str, str]]) -> tuple[NDArray[np.float64], list[str]]:
        found = [self.score(*each) for each in asked]
        return np.array([log_prob for log_prob, _ in found]), [after for _, after in found]

    def end(self, state: str) -> float:
        return self.score(state, "</s>")[0]


def heard(*shape: int, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(*shape, SIZE, generator=random)
    logits[..., [BLANK, 5, 6]] += 3.0
    return logits.log_softmax(-1).double()


def exact(log_probs: torch.Tensor, text: str) -> float:
    """A text's score in the first pass, by torch's CTC loss; -inf where it does not fit."""
    spoken = [p for word in text.split() for p in SPOKEN[word]]
    sizes = torch.tensor([len(log_probs)]), torch.tensor([len(spoken)])
    labels = torch.tensor([spoken], dtype=torch.long)
    sound = -float(ctc_loss(log_probs[:, None], labels, *sizes, reduction="sum"))
    words, score, state = Words(), sound, ""
    for word in text.split():
        log_prob, state = words.score(state, word)
        score += WIDE.ngram_weight * log_prob + WIDE.word_bonus
    return score + WIDE.ngram_weight * words.end(state)


def tree() -> PronunciationTree:
    return PronunciationTree.of(SPOKEN, Words().unigrams())


def spellings(found: PronunciationTree) -> dict[str, tuple[int, ...]]:
    """Every word with the phonemes on the way to its node."""
    words = {}
    ways: list[tuple[int, tuple[int, ...]]] = [(ROOT, ())]
    while ways:
        node, phonemes = ways.pop()
        for number in range(found.first_word[node], found.first_word[node + 1]):
            words[found.words[number]] = phonemes
        below = range(found.first[node], found.first[node + 1])
        ways += [(child, (*phonemes, int(found.phoneme[child]))) for child in below]
    return words


def test_a_tree_has_every_word_at_the_end_of_its_phonemes() -> None:
    found = tree()
    assert spellings(found) == SPOKEN
    assert len(found.phoneme) == 1 + len({(5,), (5, 5), (5, 6), (6,), (6, 5)})
    assert found.likeliest[ROOT] == -1.0  # a
    below_b = next(n for n in range(1, len(found.phoneme)) if found.phoneme[n] == 6)
    assert found.likeliest[below_b] == -5.0  # b, likelier than ba


def test_a_tree_of_thousands_of_words_loses_none() -> None:
    random = np.random.default_rng(0)
    sizes = random.integers(1, 12, 3000)
    spoken = {f"w{i}": tuple(random.integers(2, 9, n).tolist()) for i, n in enumerate(sizes)}
    log_probs = {word: float(-random.random()) for word in spoken}
    assert spellings(PronunciationTree.of(spoken, log_probs)) == spoken


def test_words_without_a_pronunciation_or_a_probability_are_not_in_a_tree() -> None:
    found = PronunciationTree.of(SPOKEN, {"a": -1.0, "ba": -2.0, "c": -1.0})
    assert sorted(found.words) == ["a", "ba"]


@pytest.mark.parametrize("seed", range(4))
def test_proposals_are_the_best_of_all_texts(seed: int) -> None:
    """In the order of their scores, of which CTC's is the sum over all ways to lay the phonemes in the frames."""
    log_probs = heard(FRAMES, seed=seed)
    texts = [" ".join(text) for n in range(FRAMES + 1) for text in product(SPOKEN, repeat=n)]
    scores = {text: exact(log_probs, text) for text in texts}
    expected = sorted(scores, key=lambda text: -scores[text])[:30]
    assert scores[expected[-1]] > float("-inf")
    assert propose(log_probs.numpy(), tree(), Words(), WIDE, 30) == expected


def test_a_narrow_first_pass_keeps_the_likeliest() -> None:
    log_probs = heard(12, seed=1).numpy()
    whole = propose(log_probs, tree(), Words(), WIDE, 5)
    for narrow in (
        replace(WIDE, hypotheses=150),
        replace(WIDE, beam_width=12.0),
        replace(WIDE, word_width=8.0),
    ):
        assert propose(log_probs, tree(), Words(), narrow, 5)[0] == whole[0]
    assert len(propose(log_probs, tree(), Words(), replace(WIDE, hypotheses=1), 5)) <= 2


def test_silence_is_the_empty_text_first() -> None:
    silent = torch.full((20, SIZE), -20.0)
    silent[:, BLANK] = 0.0
    assert propose(silent.double().numpy(), tree(), Words(), FirstPass(), 3)[0] == ""


def test_nothing_is_proposed_where_no_word_can_end() -> None:
    certain = torch.full((1, SIZE), -200.0)
    certain[0, 6] = 0.0
    only = PronunciationTree.of({"ba": (6, 5)}, {"ba": -1.0})
    assert propose(certain.double().numpy(), only, Words(), FirstPass(), 3) == []
    assert propose(np.zeros((0, SIZE)), only, Words(), FirstPass(), 3) == [""]


def full_search(**options: float) -> Search:
    weights = {
        "ctc_weight": 0.4,
        "lm_weight": 0.5,
        "ngram_weight": 0.3,
        "phoneme_weight": 0.4,
        "word_bonus": 0.7,
        "coverage_bonus": 0.3,
        "length_bonus": 0.2,
    }
    return Search(
        DecodingOptions(**(weights | options)),  # type: ignore[arg-type]
        ToyLm(TOKENIZER),
        ToyWords(),
        HotWords.build(["ab"], TOKENIZER),
        pronunciations=SPOKEN,
    )


def test_given_texts_score_as_the_beam_scores_them() -> None:
    """All of a hypothesis is the same: score, the scorers' parts, probability and attention of every character."""
    model = JointToy(TOKENIZER, seed=3)
    memory = model.memory([2, 8, 5])
    search = replace(full_search(beam_size=12, nbest=12), ranking=Ranking(12, word_bonus=-0.2))
    found = decode(model, memory, TOKENIZER, search)
    texts = [[h.tokens for h in each][: 4 + n] for n, each in enumerate(found)]
    assert len({len(text) for text in texts[1]}) > 1
    for each, again in zip(found, follow(model, memory, TOKENIZER, search, texts), strict=True):
        for h, same in zip(each, again, strict=False):
            assert same.tokens == h.tokens
            assert same.score == pytest.approx(h.score, abs=1e-4)
            assert same.parts == pytest.approx(h.parts, abs=1e-4)
            assert same.token_log_probs == pytest.approx(h.token_log_probs, abs=1e-5)
            torch.testing.assert_close(same.attention, h.attention)
    assert [len(each) for each in follow(model, memory, TOKENIZER, search, texts)] == [4, 5, 6]


def test_texts_that_begin_alike_share_a_row_until_they_part() -> None:
    rows: list[int] = []

    class Counting(JointToy):
        def step(self, tokens: torch.Tensor, memory: Memory, state: ToyState) -> Any:
            rows.append(len(tokens))
            return super().step(tokens, memory, state)

    model = Counting(TOKENIZER, seed=3)
    texts = [["a b", "a ba"], ["b", "b a", "aa"]]
    encoded = [[tuple(TOKENIZER.encode(text)) for text in each] for each in texts]
    found = follow(model, model.memory([4, 8]), TOKENIZER, full_search(), encoded)
    assert [[TOKENIZER.decode(h.tokens) for h in each] for each in found] == texts
    assert rows == [2, 4, 4, 2, 2]  # of both utterances, as many as the one with the most needs


def two_passes(**options: float) -> Search:
    return replace(
        full_search(hotword_boost=0.0, **options), first_pass=WIDE, ranking=Ranking(ctc_weight=0.1)
    )


def test_a_search_of_two_passes_puts_the_proposals_in_order() -> None:
    """An utterance without sound has no text; the others the best of beam_size proposals, by the ranking."""
    model = JointToy(TOKENIZER, seed=3)
    memory = model.memory([4, 0, 8])
    search = two_passes(beam_size=9, nbest=4)
    found = decode(model, memory, TOKENIZER, search)
    words, known = search.words(TOKENIZER), search.tree(TOKENIZER)
    assert [h.tokens for h in found[1]] == [()]
    moved = False
    for utterance in (0, 2):
        frames = model.heard[utterance, : memory.lengths[utterance] + 16].double().numpy()
        texts = propose(frames, known, words, WIDE, 9)
        part = memory.select(torch.tensor([utterance]))
        tokens = [tuple(TOKENIZER.encode(text)) for text in texts]
        (scored,) = follow(model, part, TOKENIZER, search, [tokens])
        best = sorted(scored, key=lambda h: -h.score)[:4]
        assert [h.tokens for h in found[utterance]] == [h.tokens for h in best]
        moved |= [h.tokens for h in best] != tokens[:4]
    assert moved


def test_words_of_the_dictionary_that_the_ngrams_do_not_know_are_found() -> None:
    """They cost as much as an unknown word does, wherever they stand."""
    model = JointToy(TOKENIZER, seed=3)
    search = replace(two_passes(beam_size=3, unknown_penalty=1.5), ranking=None)
    found = replace(search, pronunciations={"a": (5,), "bab": (6, 6)})
    tree = found.tree(TOKENIZER)
    assert tree.words == ["a", "bab"]
    assert tree.likeliest.max() == pytest.approx(-0.5)
    assert tree.likeliest[tree.phoneme == 6] == pytest.approx([-3.5, -3.5])
    frames = np.full((4, SIZE), -50.0)
    frames[[0, 1, 2, 3], [6, BLANK, 6, BLANK]] = 0.0
    words = found.words(TOKENIZER)
    assert propose(frames, tree, words, WIDE, 1) == ["bab"]
    assert words.score("<s>", "bab")[0] == ToyWords().score("<s>", "bab")[0] - 1.5
    model.heard[0] = torch.from_numpy(frames[[0, 1, 2] + [3] * (model.heard.shape[1] - 3)])
    assert (
        TOKENIZER.decode(decode(model, model.memory([8]), TOKENIZER, found)[0][0].tokens) == "bab"
    )


def test_unknown_words_are_left_out_where_the_ngrams_make_them_likelier_than_known_ones() -> None:
    class Vague(ToyWords):
        unknown = -2.9  # b is less likely

    spoken = {"a": (5,), "b": (6,), "bab": (6, 6)}
    search = replace(two_passes(), pronunciations=spoken, ngram=Vague())
    assert set(search.tree(TOKENIZER).words) == {"a", "b"}
    dear = replace(two_passes(unknown_penalty=0.2), pronunciations=spoken, ngram=Vague())
    assert set(dear.tree(TOKENIZER).words) == {"a", "b", "bab"}


def test_the_beam_searches_what_has_no_proposal() -> None:
    model = JointToy(TOKENIZER, seed=3)
    memory = model.memory([4, 8])
    search = two_passes(beam_size=6)
    model.heard[0] = -200.0
    model.heard[0, :, 6] = 0.0  # b without an end, in a dictionary that has only ba
    only = replace(search, pronunciations={"a": (5,), "aba": (6, 5)}, first_pass=FirstPass())
    beam = replace(only, first_pass=None)
    found, searched = (decode(model, memory, TOKENIZER, each) for each in (only, beam))
    assert [h.tokens for h in found[0]] == [h.tokens for h in searched[0]]
    assert set(TOKENIZER.decode(found[1][0].tokens).split()) <= {"a", "aba"}


def test_hot_words_that_no_dictionary_has_are_searched_by_the_beam_too() -> None:
    model = JointToy(TOKENIZER, seed=3)
    memory = model.memory([8])
    search = replace(two_passes(beam_size=6), hotwords=HotWords.build(["bbb"], TOKENIZER))
    hot = replace(search, options=replace(search.options, hotword_boost=9.0))
    plain, boosted = (decode(model, memory, TOKENIZER, each)[0][0] for each in (search, hot))
    assert "bbb" not in TOKENIZER.decode(plain.tokens)
    assert "bbb" in TOKENIZER.decode(boosted.tokens)


def test_hot_words_may_count_more_where_the_texts_are_put_in_order() -> None:
    model = JointToy(TOKENIZER, seed=0)
    memory, hot = model.memory([8]), HotWords.build(["b b"], TOKENIZER)
    search = replace(two_passes(beam_size=30), hotwords=hot)
    boosted = replace(search, ranking=Ranking(ctc_weight=0.1, hotword_boost=9.0))
    plain, best = (decode(model, memory, TOKENIZER, each)[0][0] for each in (search, boosted))
    assert "b b" not in TOKENIZER.decode(plain.tokens)
    assert "b b" in TOKENIZER.decode(best.tokens)
    assert best.parts["hotwords"] > 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pronunciations": None}, "first_pass: needs ngram and pronunciations"),
        ({"ngram": None}, "first_pass: needs ngram and pronunciations"),
        ({"pronunciations": {"zoo": (5,)}}, "first_pass: no word of ngram has a pronunciation"),
        ({"pronunciations": {"ab": (5,)}}, "first_pass: no word of ngram has a pronunciation"),
    ],
)
def test_a_first_pass_without_what_it_needs_is_refused(
    change: dict[str, object], reason: str
) -> None:
    search = replace(two_passes(), **change)  # type: ignore[arg-type]
    model = JointToy(TOKENIZER)
    with pytest.raises(ConfigError, match=reason):
        decode(model, model.memory([4]), TOKENIZER, search)


def test_a_first_pass_without_a_head_for_phonemes_is_refused() -> None:
    model = JointToy(TOKENIZER)
    model.phonemes = None  # type: ignore[assignment]
    search = replace(two_passes(), options=DecodingOptions(beam_size=4))
    with pytest.raises(ConfigError, match="first_pass: this model has no head for phonemes"):
        decode(model, model.memory([4]), TOKENIZER, search)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"hypotheses": 0}, r"first_pass\.hypotheses 0: must be at least 1"),
        ({"word_width": -1.0}, r"first_pass\.word_width -1\.0: must be at least 0"),
        ({"word_bonus": float("nan")}, r"first_pass\.word_bonus is nan; it must be finite"),
    ],
)
def test_wrong_options_of_a_first_pass_are_refused(given: dict[str, float], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        FirstPass(**given)  # type: ignore[arg-type]
