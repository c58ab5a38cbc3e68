"""Word n-gram models: smoothing, pruning, files of both formats, and the scores that a search asks for."""

import contextlib
import gzip
import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import CheckpointError, ConfigError
from asr.ngram import NgramModel, NgramOptions, Ngrams, State, build, read, save

ARPA = """\
\\data\\
ngram 1=5
ngram 2=3
ngram 3=1

\\1-grams:
-1.0\t<unk>
-99\t<s>\t-0.5
-0.8\t</s>
-0.6\tcat\t-0.2
-0.4\tthe\t-0.3

\\2-grams:
-0.2\t<s> the\t-0.1
-0.3\tthe cat
-0.7\tcat </s>

\\3-grams:
-0.05\t<s> the cat

\\end\\
"""
LOG_10 = math.log(10)


def _sentences(count: int = 400, seed: int = 3) -> list[str]:
    """Sentences of a small language with frequent and rare words."""
    rng = random.Random(seed)
    words = [f"{a}{b}" for a in "abcdefgh" for b in "klmnop"]
    weights = [1 / (n + 1) for n in range(len(words))]
    lengths = [rng.randrange(1, 9) for _ in range(count)]
    return [" ".join(rng.choices(words, weights, k=length)) for length in lengths]


def _after(model: NgramModel, *words: str) -> State:
    state = model.start()
    for word in words:
        _, state = model.score(state, word)
    return state


def _total(model: NgramModel, ngrams: Ngrams, state: State) -> float:
    words = (word for word in ngrams.words if word not in ("<s>", "</s>"))
    return sum(math.exp(model.score(state, word)[0]) for word in words) + math.exp(model.end(state))


def _log_prob(model: NgramModel, sentence: str) -> float:
    state, total = model.start(), 0.0
    for word in sentence.split():
        log_prob, state = model.score(state, word)
        total += log_prob
    return total + model.end(state)


@pytest.fixture
def arpa(tmp_path: Path) -> Path:
    path = tmp_path / "small.arpa"
    path.write_text(ARPA)
    return path


def test_a_written_arpa_file_scores_as_by_hand(arpa: Path) -> None:
    model = NgramModel.load(arpa)
    first, state = model.score(model.start(), "the")
    second, state = model.score(state, "cat")
    assert first == pytest.approx(-0.2 * LOG_10)
    assert second == pytest.approx(-0.05 * LOG_10)
    assert model.end(state) == pytest.approx(-0.7 * LOG_10)
    # after "the": no bigram "the the", so the backoff of "the" and the word alone
    assert model.score(_after(model, "cat", "the"), "the")[0] == pytest.approx(-0.7 * LOG_10)
    # after "<s> the": the backoffs of both contexts
    assert model.score(_after(model, "the"), "the")[0] == pytest.approx((-0.1 - 0.3 - 0.4) * LOG_10)
    assert model.order == 3
    assert model.counts == (5, 3, 1)


def test_an_unknown_word_in_capitals_is_the_unknown_word(arpa: Path) -> None:
    expected = _log_prob(NgramModel.load(arpa), "the dog")
    arpa.write_text(ARPA.replace("<unk>", "<UNK>"))
    assert _log_prob(NgramModel.load(arpa), "the dog") == expected
    assert "<UNK>" not in NgramModel.load(arpa).unigrams()


def test_single_words_alone_are_not_pruned() -> None:
    sentences = _sentences()
    assert (
        build(sentences, NgramOptions(1, max_ngrams=10)).words
        == build(sentences, NgramOptions(1)).words
    )


def test_an_unknown_word_is_unk_and_is_forgotten(arpa: Path) -> None:
    model = NgramModel.load(arpa)
    log_prob, state = model.score(_after(model, "the"), "dog")
    assert log_prob == pytest.approx((-0.1 - 0.3 - 1.0) * LOG_10)
    assert model.score(state, "cat")[0] == pytest.approx(-0.6 * LOG_10)
    assert "cat" in model
    assert [word in model for word in ("dog", "<unk>", "<s>", "</s>")] == [False] * 4


def test_the_same_last_words_lead_to_the_same_state(arpa: Path) -> None:
    model = NgramModel.load(arpa)
    assert _after(model, "cat", "cat", "the") == _after(model, "dog", "the")
    assert len({_after(model, "the"), _after(model, "dog", "the")}) == 2  # hashable


def test_kneser_ney_by_hand() -> None:
    # Bigrams: <s> a (2), a b (2), b </s> (2), with discounts that so small a text cannot tell.
    ngrams = build(["a b", "a b"], NgramOptions(order=2))
    model = NgramModel(ngrams)
    # Each of a, b, </s> follows one word; 4 events, <unk> among them. Discount of 1 is 0.5, of 2 is 1.
    single = (1 - 0.5) / 3 + (1.5 / 3) / 4
    assert math.exp(model._score((), ngrams.words.index("a"))[0]) == pytest.approx(single)
    assert math.exp(model.score(model.start(), "a")[0]) == pytest.approx((2 - 1) / 2 + 0.5 * single)
    assert math.exp(model.score(model.start(), "b")[0]) == pytest.approx(0.5 * single)
    assert math.exp(model.score((), "dog")[0]) == pytest.approx((1.5 / 3) / 4)


@pytest.mark.parametrize(
    "options", [NgramOptions(4), NgramOptions(3, 0, 150), NgramOptions(3, 20, 60)]
)
def test_probabilities_sum_to_1(options: NgramOptions) -> None:
    ngrams = build(_sentences(), options)
    model = NgramModel(ngrams)
    contexts = [
        (),
        ("ak",),
        ("ak", "al"),
        ("al", "ak", "am"),
        ("hp",),
        ("never", "ak"),
        ("ak", "never"),
    ]
    totals = [_total(model, ngrams, _after(model, *words)) for words in contexts]
    assert totals == pytest.approx([1.0] * len(contexts), abs=1e-5)


def test_pruning_keeps_to_the_size_and_loses_little() -> None:
    sentences = _sentences()
    full = build(sentences, NgramOptions(3))
    losses = []
    for share in (1.0, 0.5, 0.2):
        limit = round(share * sum(full.counts[1:]))
        pruned = build(sentences, NgramOptions(3, max_ngrams=limit))
        assert 0.8 * limit < sum(pruned.counts[1:]) <= limit
        assert pruned.counts[0] == full.counts[0]
        losses.append(-sum(_log_prob(NgramModel(pruned), s) for s in sentences))
    full_loss = -sum(_log_prob(NgramModel(full), s) for s in sentences)
    assert losses[0] == pytest.approx(full_loss)
    assert losses == sorted(losses)


def test_a_vocabulary_of_the_most_frequent_words() -> None:
    ngrams = build(["a b c", "a b d", "a e a"], NgramOptions(2, vocabulary=2))
    assert ngrams.words == ("<unk>", "<s>", "</s>", "a", "b")
    model = NgramModel(ngrams)
    assert "c" not in model
    assert model.score(model.start(), "c")[0] == model.score(model.start(), "zebra")[0]


def test_words_of_a_dictionary_are_known_though_never_seen() -> None:
    text = ["a b c", "a b d", "a e a"]
    plain, model = (
        NgramModel(build(text, NgramOptions(2), words)) for words in ((), ("zebra", "b", "ant"))
    )
    assert model.unigrams().keys() - plain.unigrams().keys() == {"zebra", "ant"}
    assert model.score(model.start(), "zebra")[0] == model.score(model.start(), "unheard")[0]
    assert model.unigrams()["zebra"] < model.unigrams()["c"]
    total = sum(math.exp(model.score(model.start(), w)[0]) for w in (*model.unigrams(), "unheard"))
    assert total + math.exp(model.end(model.start())) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", ["m.arpa", "m.arpa.gz", "m.ngram"])
def test_a_saved_model_scores_the_same(tmp_path: Path, name: str) -> None:
    sentences = _sentences()
    ngrams = build(sentences, NgramOptions(3, max_ngrams=300))
    save(tmp_path / name, ngrams)
    given, loaded = NgramModel(ngrams), NgramModel.load(tmp_path / name)
    assert loaded.counts == given.counts
    # The binary has 8 bits a value: an error of at most half a step of its scale, in each of a few values.
    tolerance = 0.1 if name == "m.ngram" else 1e-4
    for sentence in sentences[:50]:
        words = len(sentence.split()) + 1
        assert abs(_log_prob(loaded, sentence) - _log_prob(given, sentence)) < tolerance * words


def test_the_model_files_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    for name in ("a.arpa.gz", "b.arpa.gz"):
        save(tmp_path / name, build(_sentences(50), NgramOptions(2)))
    assert (tmp_path / "a.arpa.gz").read_bytes() == (tmp_path / "b.arpa.gz").read_bytes()


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcde"), min_size=1, max_size=6), min_size=1, max_size=12)
)
def test_scores_equal_kenlms_on_our_arpa_files(
    tmp_path_factory: pytest.TempPathFactory, text: list[list[str]]
) -> None:
    kenlm = pytest.importorskip("kenlm", reason="kenlm is not installed")
    path = tmp_path_factory.mktemp("kenlm") / "m.arpa"
    save(path, build([" ".join(words) for words in text], NgramOptions(3, max_ngrams=12)))
    config = kenlm.Config()
    config.show_progress = False
    config.arpa_complain = kenlm.ARPALoadComplain.NONE
    ours, theirs = NgramModel.load(path), kenlm.Model(str(path), config)
    for words in [*text, ["e", "zebra", "a", "b"], ["a", "a", "a"], []]:
        sentence = " ".join(words)
        assert _log_prob(ours, sentence) / LOG_10 == pytest.approx(theirs.score(sentence), abs=1e-4)


def test_the_empty_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one sentence"):
        build([""], NgramOptions())


@pytest.mark.parametrize("options", [{"order": 0}, {"order": 7}, {"max_ngrams": -1}])
def test_options_out_of_range_are_named(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"ngram.{next(iter(options))}"):
        NgramOptions(**options)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("\\data\\", "\\date\\"), r"no \\data\\|ends too early"),
        (("\\end\\", ""), "ends too early"),
        (("-0.3\tthe cat", "-0.3\tthe dog"), "'dog' is not among the 1-grams"),
        (("-0.3\tthe cat", "x\tthe cat"), "could not convert"),
        (("-0.3\tthe cat", "-0.3\tthe"), "2 words and a backoff"),
        (("ngram 2=3", "ngram 2=2"), "more n-grams than the head says"),
        (("ngram 3=1", "ngram 4=1"), "number of 3-grams"),
        (("<s> the cat", "cat the cat"), "has a context that is no 2-gram"),
        (("</s>\n", "stop\n"), "no </s> among the 1-grams|not among"),
    ],
)
def test_a_broken_arpa_file_is_named_with_its_line(
    arpa: Path, change: tuple[str, str], reason: str
) -> None:
    arpa.write_text(ARPA.replace(*change))
    with pytest.raises(CheckpointError, match=rf"small.arpa:\d+: not an ARPA.*({reason})"):
        NgramModel.load(arpa)


@pytest.mark.parametrize("cut", [0, 10, 300])
@pytest.mark.parametrize("name", ["m.ngram", "m.arpa.gz"])
def test_a_cut_file_is_one_clear_error(tmp_path: Path, name: str, cut: int) -> None:
    path = tmp_path / name
    save(path, build(_sentences(100), NgramOptions(2)))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match="m\\."):
        NgramModel.load(path)


def test_other_files_are_no_models(tmp_path: Path) -> None:
    for content in (
        b"",
        b"hello\n" * 5,
        b"PK\x03\x04 something",
        gzip.compress(b"hello"),
        b"\xff\xfe\n",
    ):
        path = tmp_path / "m"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=str(path)):
            NgramModel.load(path)
    np.savez(tmp_path / "other.npz", x=np.arange(3))
    with pytest.raises(CheckpointError, match="not an n-gram model"):
        read(tmp_path / "other.npz")
    with pytest.raises(CheckpointError, match="cannot read language model: No such file"):
        NgramModel.load(tmp_path / "none.arpa")


def test_a_file_of_another_tool_may_lack_suffixes_and_unk(tmp_path: Path) -> None:
    lines = ARPA.replace("-1.0\t<unk>\n", "").replace("ngram 1=5", "ngram 1=4")
    lines = lines.replace("-0.3\tthe cat\n", "").replace("ngram 2=3", "ngram 2=2")
    path = tmp_path / "pruned.arpa"
    path.write_text(lines.replace("\t", " "))
    model = NgramModel.load(path)
    assert model.score(_after(model, "the"), "cat")[0] == pytest.approx(-0.05 * LOG_10)
    assert model.score(_after(model, "the", "cat"), "the")[0] == pytest.approx(-0.6 * LOG_10)
    assert model.score(model.start(), "dog")[0] < -100


def test_any_flipped_bit_of_the_binary_is_read_or_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "m.ngram"
    save(path, build(["a b c", "a b d"], NgramOptions(order=2)))
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for place, bit in zip(
        random.integers(0, len(whole), 400), random.integers(0, 8, 400), strict=True
    ):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        with contextlib.suppress(CheckpointError):
            NgramModel.load(path)
