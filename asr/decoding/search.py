"""All that a search needs besides the model: options and loaded scorers in one value, checked against the model."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from asr.decoding.ctc_prefix import CtcScorer
from asr.decoding.first_pass import FirstPass
from asr.decoding.hotwords import HotWords
from asr.decoding.options import DecodingOptions, Ranking
from asr.decoding.pronunciation import Lexicon, PhonemeScorer
from asr.decoding.scorers import AttentionScorer, LmScorer, Scorer, WordCountScorer
from asr.decoding.tree import PronunciationTree
from asr.decoding.word_mixture import WordMixture
from asr.decoding.words import LookAhead, Penalised, WordModel, WordScorer
from asr.errors import ConfigError
from asr.model import Seq2Seq
from asr.tokenizer import Tokenizer


class CharacterLm(Protocol):
    """A character language model with its characters, as asr.lm_checkpoint loads it."""

    @property
    def model(self) -> Any:
        """The network, an asr.model.lm.CharacterLm."""

    @property
    def tokenizer(self) -> Any:
        """Its characters, an asr.tokenizer.Tokenizer; they must be the recognizer's."""


class WordLstm(Protocol):
    """A word language model with its words, as asr.lm_checkpoint loads it."""

    @property
    def model(self) -> Any:
        """The network, an asr.model.lm.WordLm."""

    @property
    def tokenizer(self) -> Any:
        """Its words, an asr.tokenizer.WordTokenizer."""


@dataclass(frozen=True)
class Search:
    """How to decode: built once, used for every batch. A scorer with weight 0 is left out."""

    options: DecodingOptions = field(default_factory=DecodingOptions)
    lm: CharacterLm | None = None
    ngram: WordModel | None = None
    hotwords: HotWords | None = None
    word_lm: WordLstm | None = None  # beside the n-grams
    pronunciations: Mapping[str, tuple[int, ...]] | None = None  # of words (asr.phonemes)
    ranking: Ranking | None = None  # of finished hypotheses, where it is not the beam's
    first_pass: FirstPass | None = None  # which proposes texts by how they sound
    # what to call these in results, by field; they are not told apart by it
    names: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    # by alphabet; sorting a vocabulary takes a moment
    _look_aheads: dict[str, LookAhead] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _lexicons: dict[str, Lexicon] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _trees: dict[str, PronunciationTree] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def with_beam(self, beam_size: int) -> "Search":
        """The same with another number of hypotheses. Raises ConfigError where there are less than one."""
        nbest = min(self.options.nbest, max(beam_size, 1))
        return replace(self, options=replace(self.options, beam_size=beam_size, nbest=nbest))

    @property
    def gain(self) -> float:
        """The most that one token can add to S(y), in nats."""
        found = max(self.options.word_bonus, 0.0)
        if self.hotwords is not None:
            found += self.options.hotword_boost * float(self.hotwords.gains.max())
        return found

    @property
    def order(self) -> DecodingOptions:
        """The options by whose score finished hypotheses are put in order."""
        return self.options if self.ranking is None else self.ranking.of(self.options)

    @property
    def kept(self) -> int:
        """How many finished hypotheses of an utterance are put in order."""
        candidates = self.ranking.candidates if self.ranking is not None else 1
        return min(max(candidates, self.options.nbest), self.options.beam_size)

    def in_use(self) -> dict[str, str | None]:
        """The names of what a search may have: None for what is not there or has weight 0."""
        mixed = bool(self.options.word_lm_share)
        counted, first = self._weighed, self.first_pass is not None
        scorers: dict[str, tuple[object, bool]] = {
            "lm": (self.lm, "lm" in counted),
            "ngram": (self.ngram, first or "ngram" in counted),
            "word_lm": (self.word_lm, (first or "ngram" in counted) and mixed),
            "hotwords": (self.hotwords, self.boosts),
            "pronunciations": (self.pronunciations, first or "phonemes" in counted),
        }
        return {
            key: self.names.get(key, "unnamed") if scorer is not None and used else None
            for key, (scorer, used) in scorers.items()
        }

    @property
    def _weighed(self) -> frozenset[str]:
        """The names of the scorers that have a weight in the beam or in the order of what it has finished."""
        weights = (self.options.weights(), self.order.weights())
        return frozenset(name for each in weights for name, weight in each.items() if weight)

    def charged(self, tokenizer: Tokenizer) -> float:
        """The most that a hypothesis can have been charged in advance and may get back, in nats."""
        found = 0.0
        if self.ngram is not None and self.options.ngram_weight:
            found += self.options.ngram_weight * self._look_ahead(self.ngram, tokenizer).most
        if self.pronunciations is not None and self.options.phoneme_weight:
            lexicon = self._lexicon(self.pronunciations, tokenizer)
            found += self.options.phoneme_weight * lexicon.most
        return found

    def _lexicon(
        self, pronunciations: Mapping[str, tuple[int, ...]], tokenizer: Tokenizer
    ) -> Lexicon:
        if tokenizer.alphabet not in self._lexicons:
            self._lexicons[tokenizer.alphabet] = Lexicon(pronunciations, tokenizer, self._hot)
        return self._lexicons[tokenizer.alphabet]

    @property
    def _hot(self) -> frozenset[str]:
        """The words of the hot words, where these have a weight."""
        if self.hotwords is None or not self.boosts:
            return frozenset()
        phrases = self.hotwords.phrases
        return frozenset(word for phrase in phrases for word in phrase.split())

    def _look_ahead(self, ngram: WordModel, tokenizer: Tokenizer) -> LookAhead:
        if tokenizer.alphabet not in self._look_aheads:
            _can_be_spelled(ngram, tokenizer)
            if self.word_lm is not None and self.options.word_lm_share:
                model, words = self.word_lm.model, self.word_lm.tokenizer
                ngram = WordMixture(ngram, model, words, self.options.word_lm_share)
            if self.options.unknown_penalty:
                ngram = Penalised(ngram, self.options.unknown_penalty, self._hot)
            self._look_aheads[tokenizer.alphabet] = LookAhead(ngram, tokenizer)
        return self._look_aheads[tokenizer.alphabet]

    @property
    def boosts(self) -> bool:
        """Whether it has hot words with a weight."""
        return self.hotwords is not None and "hotwords" in self._weighed

    def tree(self, tokenizer: Tokenizer) -> PronunciationTree:
        """The words that the first pass can find: those of the dictionary that the alphabet can spell.

        Words that the n-grams do not know are among them where such a word is no likelier than any that they know.
        Raises ConfigError where they know none, or there are no n-grams or no pronunciations.
        """
        if self.ngram is None or self.pronunciations is None:
            raise ConfigError("first_pass: needs ngram and pronunciations")
        alphabet = tokenizer.alphabet
        if alphabet not in self._trees:
            letters, words = set(alphabet), self.words(tokenizer)
            known, unknown = words.unigrams(), words.unknown
            spelled = {word: known[word] for word in known if letters.issuperset(word)}
            if not self.ngram.unigrams().keys() & spelled.keys() & self.pronunciations.keys():
                raise ConfigError("first_pass: no word of ngram has a pronunciation")
            if unknown <= min(spelled.values()):
                rare = self.pronunciations.keys() - spelled.keys()
                spelled |= {word: unknown for word in rare if letters.issuperset(word)}
            self._trees[alphabet] = PronunciationTree.of(self.pronunciations, spelled)
        return self._trees[alphabet]

    def words(self, tokenizer: Tokenizer) -> WordModel:
        """The n-grams, with the word LSTM and the penalty where there are such. There must be n-grams."""
        assert self.ngram is not None
        return self._look_ahead(self.ngram, tokenizer).ngram

    @property
    def warp(self) -> float:
        """By which share phonemes are heard with frequencies lowered and raised, too; see asr.encoding."""
        return 0.0 if self.first_pass is None else self.first_pass.warp

    def check(self, model: Seq2Seq, tokenizer: Tokenizer) -> None:
        """Raise ConfigError naming what does not fit the model or its alphabet."""
        self.scorers(model, tokenizer)
        if self.first_pass is not None:
            if model.phonemes is None:
                raise ConfigError("first_pass: this model has no head for phonemes")
            self.tree(tokenizer)

    def scorers(self, model: Seq2Seq, tokenizer: Tokenizer) -> dict[str, tuple[float, Scorer]]:
        """The scorers by name with their weights, attention first.

        Raises ConfigError naming what does not fit the model or its alphabet.
        """
        alphabet, weights = tokenizer.alphabet, self.options.weights()
        used = self._weighed
        found: dict[str, Scorer] = {"attention": AttentionScorer(model)}
        if "ctc" in used:
            if model.ctc is None:
                weight = self.options.ctc_weight or self.order.ctc_weight
                raise ConfigError(
                    f"ctc_weight is {weight}; this model has no CTC head, so it must be 0"
                )
            found["ctc"] = CtcScorer(model)
        if self.lm is not None and "lm" in used:
            _same_alphabet("language model", self.lm.tokenizer.alphabet, alphabet)
            found["lm"] = LmScorer(self.lm.model)
        if self.word_lm is not None and self.ngram is None:
            raise ConfigError("word_lm: needs the n-grams that it is mixed with, ngram")
        if self.ngram is not None and "ngram" in used:
            space = _space(tokenizer, "ngram")
            found["ngram"] = WordScorer(self._look_ahead(self.ngram, tokenizer), tokenizer, space)
        if self.pronunciations is not None and "phonemes" in used:
            if model.phonemes is None:
                raise ConfigError("pronunciations: this model has no head for phonemes")
            space = _space(tokenizer, "pronunciations")
            lexicon = self._lexicon(self.pronunciations, tokenizer)
            found["phonemes"] = PhonemeScorer(model, lexicon, tokenizer, space)
        if "words" in used:
            found["words"] = WordCountScorer(_space(tokenizer, "word_bonus"), tokenizer.size)
        if self.hotwords is not None and "hotwords" in used:
            _same_alphabet("hot words", self.hotwords.alphabet, alphabet)
            found["hotwords"] = self.hotwords
        return {name: (weights[name], scorer) for name, scorer in found.items()}


def _same_alphabet(what: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise ConfigError(f"{what}: of the alphabet {found!r}; this model's is {wanted!r}")


def _can_be_spelled(ngram: WordModel, tokenizer: Tokenizer) -> None:
    """Refuse n-grams in capitals, for instance, which would make every word an unknown one."""
    if not any(set(word) <= set(tokenizer.alphabet) for word in ngram.unigrams()):
        raise ConfigError(
            f"ngram: no word of it is in this model's alphabet, {tokenizer.alphabet!r}"
        )


def _space(tokenizer: Tokenizer, what: str) -> int:
    if " " not in tokenizer.alphabet:
        raise ConfigError(f"{what}: this model's alphabet has no space, so it has no words")
    return tokenizer.encode(" ")[0]
