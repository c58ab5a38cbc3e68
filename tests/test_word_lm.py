"""The word LSTM: its vocabulary, its training by candidates, and the mixture with n-grams that the search asks."""

import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import JointToy, ToyWords
from typer.testing import CliRunner

from asr import ngram
from asr.cli import app
from asr.decoding import DecodingOptions, Search, decode
from asr.decoding.word_mixture import History, WordMixture
from asr.decoding.words import LookAhead, Penalised, WordScorer
from asr.errors import AsrError, CheckpointError, ConfigError
from asr.lm_checkpoint import TrainedLm, load_lm, save_lm
from asr.model.lm import CharacterLm, LmOptions, WordLm
from asr.search_file import default_search
from asr.tokenizer import Tokenizer, WordTokenizer

TOKENIZER = Tokenizer(" ab")
WORDS = WordTokenizer(["a", "aba", "bb"])  # ToyWords knows a, aba and b
TEXTS = ["the cat sat on the mat", "the dog sat", "a cat", "the mat"]


def _lm(words: int = WORDS.size, *, layers: int = 1, counts: torch.Tensor | None = None) -> WordLm:
    torch.manual_seed(0)
    model = WordLm(words, LmOptions(embedding=4, width=8, layers=layers), counts)
    torch.nn.init.normal_(model.embed.weight)
    torch.nn.init.normal_(model.bias)
    return model.eval()


def _mixture(share: float = 0.3) -> WordMixture:
    return WordMixture(ToyWords(), _lm(), WORDS, share)


def test_the_vocabulary_is_the_most_frequent_words_and_the_others_are_unknown() -> None:
    words = WordTokenizer.of(TEXTS, 4)
    assert words.words == ("the", "cat", "mat", "sat")
    assert words.encode("the dog sat") == [5, WordTokenizer.unknown, 8]
    assert WordTokenizer.of(reversed(TEXTS), 4).words == words.words
    assert WordTokenizer.from_dict(words.to_dict()).words == words.words
    assert words.size == 9
    for wrong in ([], ["a", "a"]):
        with pytest.raises(AsrError, match="at least one word and none twice"):
            WordTokenizer(wrong)


@pytest.mark.parametrize("layers", [1, 2])
def test_step_equals_forward_and_advance_gives_the_same_of_single_words(layers: int) -> None:
    model, state = _lm(layers=layers), _lm(layers=layers).initial_state(2)
    tokens = torch.tensor([[2, 5, 4, 7], [2, 6, 6, 5]])
    expected, before = model(tokens), state
    for column, log_probs in zip(tokens.unbind(1), expected.unbind(1), strict=True):
        stepped, after = model.step(column, before)
        vectors, same = model.advance(column, before)
        torch.testing.assert_close(stepped, log_probs)
        logits = vectors @ model.embed.weight.T + model.bias
        torch.testing.assert_close(logits[:, 3:].log_softmax(-1), log_probs[:, 3:])
        torch.testing.assert_close(same.hidden, after.hidden)
        before = after


def test_candidates_that_are_all_words_give_the_exact_loss() -> None:
    counts = torch.tensor([0, 0, 0, 9, 4, 3, 2, 1])
    torch.manual_seed(0)
    model = WordLm(8, LmOptions(embedding=4, width=8, candidates=20_000), counts)
    tokens = torch.tensor([[2, 5, 4, 7, 3], [2, 6, 3, 1, 1]])
    sampled = model.train().nats(tokens)
    torch.testing.assert_close(sampled, model.eval().nats(tokens), atol=1e-4, rtol=0)


def test_a_few_candidates_suffice_to_learn_the_probabilities() -> None:
    chances = torch.zeros(40)
    chances[4:] = 1 / torch.arange(1.0, 37)
    chances /= chances.sum()
    torch.manual_seed(0)
    counts = torch.cat(
        [torch.zeros(3), torch.ones(37)]
    )  # all that is known before is that any may come
    model = WordLm(40, LmOptions(embedding=4, width=8, candidates=6), counts).train()
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / 400)
        tokens = torch.stack([torch.full((256,), 2), torch.multinomial(chances, 256, True)], 1)
        optimizer.zero_grad()
        (model.nats(tokens) / 256).backward()
        optimizer.step()
    learnt = model.eval()(torch.tensor([[2]]))[0, 0, 4:].detach()
    assert float((chances[4:] * (chances[4:].log() - learnt)).sum()) < 0.02  # nats apart


def test_a_mixture_is_the_shares_of_both_probabilities() -> None:
    mixture, lm, words = _mixture(0.3), _lm(), ToyWords()
    spoken = ["aba", "a", "bb"]
    log_probs = lm(torch.tensor([[2, *WORDS.encode(" ".join(spoken))]]))[0]
    state, context = mixture.start(), words.start()
    for row, word in zip(log_probs, spoken, strict=False):
        found, state = mixture.score(state, word)
        counted, context = words.score(context, word)
        learnt = row[WORDS.ids[word]].item()
        expected = math.log(0.7 * math.exp(counted) + 0.3 * math.exp(learnt))
        assert found == pytest.approx(expected, abs=1e-5)
    assert mixture.end(state) == words.end(context)
    assert (mixture.unigrams(), mixture.unknown) == (words.unigrams(), words.unknown)


def test_unknown_words_of_the_lstm_share_its_unknown_words_probability() -> None:
    mixture = _mixture(0.999999)
    whole = math.exp(_lm()(torch.tensor([[2]]))[0, 0, WordTokenizer.unknown].item())
    chances = [math.exp(mixture.score(mixture.start(), word)[0]) for word in ("b", "abb")]
    # ToyWords knows b alone of the words that the LSTM does not; the rest is for all that nobody knows.
    assert sum(chances) == pytest.approx(whole, rel=1e-3)
    assert chances[0] / chances[1] == pytest.approx(math.exp(-3.0 - ToyWords.unknown), rel=1e-3)


def test_words_scored_at_once_score_as_the_models_alone() -> None:
    """Known and unknown to the LSTM, the n-grams and neither, after several histories, some of them asked twice."""
    mixture, lm, counted = _mixture(0.3), _lm(), ToyWords()
    begin, words = mixture.start(), ("a", "bb", "b", "zz", "a")
    outside = np.logaddexp(counted.unigrams()["b"], counted.unknown)

    def expected(first: str | None, word: str) -> float:
        history = [Tokenizer.sos, *([] if first is None else WORDS.encode(first))]
        learnt = lm(torch.tensor([history]))[0, -1].tolist()
        found = learnt[WORDS.ids.get(word, WordTokenizer.unknown)]
        if word not in WORDS.ids:
            found += counted.unigrams().get(word, counted.unknown) - outside
        ngram = counted.score("<s>" if first is None else first, word)[0]
        return math.log(0.7 * math.exp(ngram) + 0.3 * math.exp(found))

    log_probs, after = Penalised(mixture, 2.0).scores([(begin, word) for word in words])
    assert after[0] is after[4]
    penalties = [0.0 if word in counted.unigrams() else 2.0 for word in words]
    assert log_probs == pytest.approx([expected(None, w) for w in words] - np.array(penalties))
    further = [(first, word) for first in words for word in ("b", "aba", "zz")]
    log_probs, _ = mixture.scores([(after[words.index(first)], word) for first, word in further])
    assert log_probs == pytest.approx([expected(*each) for each in further], abs=1e-5)
    assert [len(part) for part in mixture.scores([])] == [0, 0]


def test_the_search_runs_the_lstm_once_a_step() -> None:
    calls: list[int] = []

    class Counting(WordLm):
        def advance(self, words: torch.Tensor, state: object) -> object:  # type: ignore[override]
            calls.append(len(words))
            return super().advance(words, state)  # type: ignore[arg-type]

    torch.manual_seed(0)
    lm = Counting(WORDS.size, LmOptions(embedding=4, width=8)).eval()
    mixture = WordMixture(ToyWords(), lm, WORDS, 0.5)
    memory = JointToy(TOKENIZER).memory([8])
    state = WordScorer(LookAhead(mixture, TOKENIZER), TOKENIZER, 4).start(memory, 2)
    assert calls == []  # no word has begun
    for letters in ((5, 6), (6, 6)):  # a, b; ab, bb
        state = state.advance(torch.tensor([0, 1]), torch.tensor(letters))
        assert calls == [1]  # both rows have the same history
    state = state.advance(torch.tensor([0, 1]), torch.tensor([4, 4]))  # and a space each
    state.advance(torch.tensor([0, 1]), torch.tensor([5, 5]))
    assert calls == [1, 2]


def test_a_hypothesis_has_the_mixtures_score_of_its_words() -> None:
    model = JointToy(TOKENIZER)
    lm = TrainedLm(_lm(), WORDS, {})
    options = DecodingOptions(beam_size=4, ngram_weight=0.7, word_lm_share=0.4)
    search = Search(options, ngram=ToyWords(), word_lm=lm)
    ((found, *_),) = decode(model, model.memory([6]), TOKENIZER, search)
    mixture, expected = _mixture(0.4), 0.0
    state: History = mixture.start()
    for word in TOKENIZER.decode(found.tokens).split():
        log_prob, state = mixture.score(state, word)
        expected += log_prob
    assert found.parts["ngram"] == pytest.approx(expected + mixture.end(state), abs=1e-4)
    assert search.in_use()["word_lm"] == "unnamed"
    none = Search(DecodingOptions(word_lm_share=0), ngram=ToyWords(), word_lm=lm)
    assert none.in_use()["word_lm"] is None


def test_a_share_out_of_range_and_an_lstm_without_n_grams_are_refused() -> None:
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(ConfigError, match=f"word_lm_share is {share}; it must be from 0"):
            DecodingOptions(word_lm_share=share)
    model = JointToy(TOKENIZER)
    with pytest.raises(ConfigError, match="word_lm: needs the n-grams"):
        decode(model, model.memory([4]), TOKENIZER, Search(word_lm=TrainedLm(_lm(), WORDS, {})))


def test_a_file_holds_the_words_and_the_other_kind_is_refused(tmp_path: Path) -> None:
    save_lm(tmp_path / "words.pt", TrainedLm(_lm(), WORDS, {"steps": 3}))
    loaded = load_lm(tmp_path / "words.pt", "words")
    assert loaded.kind == "words"
    assert loaded.tokenizer.to_dict() == WORDS.to_dict()
    tokens = torch.tensor([[2, 5, 7]])
    torch.testing.assert_close(loaded.model(tokens), _lm()(tokens))
    characters = Tokenizer()
    spelling = CharacterLm(characters.size, LmOptions(embedding=4, width=8))
    save_lm(tmp_path / "chars.pt", TrainedLm(spelling, characters, {}))
    for name, wanted in (("words.pt", "characters"), ("chars.pt", "words")):
        with pytest.raises(CheckpointError, match=rf"{name}: .* one of {wanted} is wanted"):
            load_lm(tmp_path / name, wanted)


def test_the_file_beside_a_model_names_it(tmp_path: Path) -> None:
    ngram.save(tmp_path / "words.ngram", ngram.build(TEXTS, ngram.NgramOptions(order=2)))
    save_lm(tmp_path / "words.pt", TrainedLm(_lm(), WORDS, {}))
    (tmp_path / "english.toml").write_text('ngram = "words.ngram"\nword_lm = "words.pt"\n')
    search, _ = default_search(tmp_path / "english.pt")
    assert search.word_lm is not None
    assert str(search.in_use()["word_lm"]).startswith("words-")


def _asr(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def _lines(path: Path, lines: Iterable[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_a_recipe_with_words_trains_one_that_improves_on_n_grams(tmp_path: Path) -> None:
    text = _lines(tmp_path / "t.txt", TEXTS * 30)
    recipe = tmp_path / "words.toml"
    recipe.write_text(
        f'[text]\ntrain = ["{text}"]\n[lm]\nwords = 6\nembedding = 8\nwidth = 16\n'
        "[training]\nmax_steps = 150\nlearning_rate = 2e-2\nwarmup_steps = 5\n"
    )
    trained = _asr("train", recipe, "--output", tmp_path / "run").strip()
    alone = json.loads(_asr("lm", "perplexity", trained, text, "--json"))
    assert (alone["words"], alone["unknown"]) == (390, 30)  # "a" is the seventh word
    assert alone["per_word"] < 2.5
    words = tmp_path / "words.ngram"
    _asr("lm", "ngram", text, "--order", 1, "--output", words)
    counted = json.loads(_asr("lm", "perplexity", words, text, "--json"))
    options = ("--word-lm", trained, "--share", "0.8", "--json")
    mixed = json.loads(_asr("lm", "perplexity", words, text, *options))
    assert mixed["per_word_with_unknown"] < 0.7 * counted["per_word_with_unknown"]
    assert "language model of words, to be named as word_lm" in _asr("info", trained)
    for arguments in ((trained, text, "--word-lm", trained), (words, text, "--share", "1")):
        result = CliRunner().invoke(app, ["lm", "perplexity", *map(str, arguments)])
        assert result.exit_code == 2
